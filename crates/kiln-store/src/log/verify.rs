//! Proving the log.

use kiln_model::{Position, Timestamp};

use super::{EventLog, Head, OpenLogError, ReadLogError, row};

/// What somebody else remembers of the log's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// Who: `host`, `edge`, a receipt.
    pub who: String,
    /// What.
    pub head: Head,
    /// Since when.
    pub at: Option<Timestamp>,
}

/// How an anchor and the log disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disagreement {
    /// The log ends before it.
    Cut,
    /// The log has another entry there.
    Rewritten,
}

/// What is known about the log's integrity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// How many entries hold together from the first.
    pub entries: u64,
    /// The head after those.
    pub head: Head,
    /// The anchors that agree: the log is proven up to the highest of them.
    pub proven: Vec<Anchor>,
    /// The anchors that don't: the log was cut or written anew.
    pub broken: Vec<Anchor>,
    /// The first entry that can't be trusted, and why.
    pub first_bad: Option<(Position, String)>,
}

impl Verification {
    /// Whether nothing speaks against the log.
    pub fn is_sound(&self) -> bool {
        self.first_bad.is_none() && self.broken.is_empty()
    }
}

impl EventLog {
    /// Checks that the log has every head that others remember, as whoever is about to act on it must.
    ///
    /// Read the anchors before the log is opened: then it can't be behind them for want of a fresh look.
    ///
    /// # Errors
    /// `Damaged`: it was cut, or written anew. `Io`: it can't be read.
    pub fn check_anchors(&self, anchors: &[Anchor]) -> Result<(), OpenLogError> {
        for anchor in anchors {
            let found = self.disagreement(anchor).map_err(OpenLogError::from_read(&self.folder))?;
            if let Some(how) = found {
                let position = anchor.head.position;
                return Err(OpenLogError::Damaged { position, reason: self.reason(how, &[anchor]) });
            }
        }
        Ok(())
    }

    fn disagreement(&self, anchor: &Anchor) -> Result<Option<Disagreement>, ReadLogError> {
        let Head { position, hash } = anchor.head;
        if position == Position(0) {
            return Ok(None);
        }
        Ok(match row::hash_at(&self.database, position.0)? {
            Some(found) if found == hash => None,
            Some(_) => Some(Disagreement::Rewritten),
            None => Some(Disagreement::Cut),
        })
    }

    fn reason(&self, how: Disagreement, anchors: &[&Anchor]) -> String {
        let names: Vec<&str> = anchors.iter().map(|anchor| anchor.who.as_str()).collect();
        let remember = if names.len() > 1 { "remember" } else { "remembers" };
        let who = format!("{} {remember}", names.join(" and "));
        match how {
            Disagreement::Cut => format!("the log ends at {}, but {who} this entry", self.head.position),
            Disagreement::Rewritten => format!("{who} another entry here: the log was written anew"),
        }
    }

    /// Verifies the whole log: the chain, that every event can be read, and what others remember of it.
    ///
    /// # Errors
    /// The file system or SQLite refused; damage is an answer, not an error.
    pub fn verify(&self, anchors: &[Anchor]) -> Result<Verification, ReadLogError> {
        let mut head = Head::EMPTY;
        let mut first_bad = None;
        for row in self.rows(Position(1)) {
            match row.and_then(|row| row.decode().map(|_| row)) {
                Ok(row) => head = Head { position: Position(row.position), hash: row.hash },
                Err(ReadLogError::Damaged { position, reason }) => first_bad = Some((position, reason)),
                Err(error @ ReadLogError::Unknown { position, .. }) => {
                    first_bad = Some((position, error.to_string()));
                }
                Err(error) => return Err(error),
            }
            if first_bad.is_some() {
                break;
            }
        }
        let (mut proven, mut broken) = (Vec::new(), Vec::new());
        for anchor in anchors {
            // What lies beyond damage proves nothing.
            let found = self.disagreement(anchor)?;
            let agrees = found.is_none() && anchor.head.position <= head.position;
            if agrees { proven.push(anchor.clone()) } else { broken.push((anchor.clone(), found)) }
        }
        let first = broken.iter().filter_map(|(anchor, how)| Some((anchor, (*how)?)));
        if let (None, Some((first, how))) = (&first_bad, first.min_by_key(|(anchor, _)| anchor.head.position))
        {
            let same = broken.iter().map(|(anchor, _)| anchor).filter(|it| it.head == first.head);
            first_bad = Some((first.head.position, self.reason(how, &same.collect::<Vec<_>>())));
        }
        let broken = broken.into_iter().map(|(anchor, _)| anchor).collect();
        Ok(Verification { entries: head.position.0, head, proven, broken, first_bad })
    }
}
