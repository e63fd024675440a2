//! Proving the log.

use kiln_model::Position;

use super::{Anchor, EventLog, Head, ReadLogError, row};

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
    /// Verifies the whole log: the chain, that every event can be read, the recorded anchors, and those that the caller
    /// fetched from their holders.
    ///
    /// # Errors
    /// The file system or SQLite refused; damage is an answer, not an error.
    pub fn verify(&self, fetched: &[Anchor]) -> Result<Verification, ReadLogError> {
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
        for anchor in self.anchors().into_iter().chain(fetched.iter().cloned()) {
            let at = anchor.head.position;
            let agrees = at == Position(0)
                || at <= head.position && row::hash_at(&self.database, at.0)? == Some(anchor.head.hash);
            if agrees { proven.push(anchor) } else { broken.push(anchor) }
        }
        if let (None, Some(anchor)) = (&first_bad, broken.iter().min_by_key(|anchor| anchor.head.position)) {
            let reason = format!("{} remembers another entry, or one that is gone", anchor.who);
            first_bad = Some((anchor.head.position, reason));
        }
        Ok(Verification { entries: head.position.0, head, proven, broken, first_bad })
    }
}
