//! The log's head, as the edge and the host remember it.
//!
//! A chain of hashes can't see that its end was cut off, nor that all of it was written anew. So the controller tells the
//! edge and the host where the log stands, and each keeps that in its own folder. Whoever is about to act on the log, or to
//! prove it, compares.

use std::error::Error;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use kiln_edge::anchor as edge;
use kiln_edge::client::EdgeClient;
use kiln_model::Position;
use kiln_provider::host::{Client, stored_anchor};
use kiln_store::EventLog;
use kiln_store::log::{Anchor, Head, OpenLogError};

use super::paths::StateDir;
use crate::controller::HeadWatch;

/// How often a head that moved is told. Whoever cuts the log within this time of an entry is not found out by an anchor;
/// each costs both holders a sync of a small file.
const ANCHOR_EVERY: Duration = Duration::from_secs(1);

/// What the holders remember.
#[derive(Debug, Clone, Default)]
pub struct Anchors {
    /// What could be read.
    pub found: Vec<Anchor>,
    /// What is there and could not be read.
    pub unreadable: Vec<String>,
}

impl Anchors {
    /// Reads what the edge and the host keep, whether or not they run. Read it before the log: then the log can't be behind it
    /// for want of a fresh look.
    pub fn read(state: &StateDir) -> Self {
        let mut anchors = Self::default();
        anchors.take("edge", edge_anchor(state));
        anchors.take("host", host_anchor(state));
        anchors
    }

    fn take(&mut self, who: &str, anchor: Result<Option<Anchor>, String>) {
        match anchor {
            Ok(anchor) => self.found.extend(anchor),
            Err(reason) => self.unreadable.push(format!("{who}: {reason}")),
        }
    }
}

fn edge_anchor(state: &StateDir) -> Result<Option<Anchor>, String> {
    let Some(found) = edge::stored(state.path()).map_err(|error| error.to_string())? else { return Ok(None) };
    let position = found.position.strip_prefix(POSITION_MARK).and_then(|number| number.parse().ok());
    let position = position.ok_or_else(|| format!("`{}` is no position", found.position))?;
    let hash = found.hash.parse().map_err(|_| format!("`{}` is no hash", found.hash))?;
    let head = Head { position: Position(position), hash };
    Ok(Some(Anchor { who: "edge".into(), head, at: found.at }))
}

fn host_anchor(state: &StateDir) -> Result<Option<Anchor>, String> {
    let found = stored_anchor(state.path()).map_err(|error| error.to_string())?;
    Ok(found.map(|found| Anchor {
        who: "host".into(),
        head: Head { position: found.position, hash: found.hash },
        at: Some(found.at),
    }))
}

/// How a position is printed, and so how the edge, to which it is only a text, is told.
const POSITION_MARK: char = '@';

/// Why a controller can't start on a log, where it is the log's fault.
///
/// None where the log is as others remember it, or is no log that could be compared.
pub(super) fn damage(state: &StateDir) -> Option<OpenLogError> {
    let anchors = Anchors::read(state);
    let opened = match EventLog::open_read_only(state.path()) {
        Ok(log) => log.check_anchors(&anchors.found),
        // Without a log there is nothing that it could have lost, unless somebody remembers it.
        Err(OpenLogError::Missing { .. }) => missing(&anchors),
        Err(error) => Err(error),
    };
    opened.err().filter(|error| matches!(error, OpenLogError::Damaged { .. }))
}

/// Whether a log that is not there was there.
fn missing(anchors: &Anchors) -> Result<(), OpenLogError> {
    match anchors.found.iter().max_by_key(|anchor| anchor.head.position) {
        Some(anchor) if anchor.head.position > Position(0) => Err(OpenLogError::Damaged {
            position: anchor.head.position,
            reason: format!("there is no log, but {} remembers this entry", anchor.who),
        }),
        _ => Ok(()),
    }
}

/// Tells the edge and the host where the log stands, on a thread of its own that ends with the log.
pub(super) fn keep_telling(state: &StateDir, log: HeadWatch) -> std::io::Result<()> {
    let holders: Vec<Box<dyn Holder + Send>> = vec![
        Box::new(Edge { socket: state.edge_socket(), client: None }),
        Box::new(Client::new(state.host_socket())),
    ];
    let mut told: Vec<Told> = holders.into_iter().map(Told::new).collect();
    let work = move || {
        while let Some(head) = log.head() {
            told.iter_mut().for_each(|holder| holder.tell(head));
            thread::sleep(ANCHOR_EVERY);
        }
    };
    thread::Builder::new().name("anchors".into()).spawn(work).map(drop)
}

/// Somebody who remembers.
trait Holder {
    fn name(&self) -> &'static str;

    /// Has the head stored durably.
    fn put(&mut self, head: Head) -> Result<(), Box<dyn Error>>;
}

struct Edge {
    socket: PathBuf,
    client: Option<EdgeClient>,
}

impl Holder for Edge {
    fn name(&self) -> &'static str {
        "edge"
    }

    fn put(&mut self, head: Head) -> Result<(), Box<dyn Error>> {
        let client = match self.client.take() {
            Some(client) => client,
            None => EdgeClient::connect(&self.socket)?.0,
        };
        let (position, hash) = (head.position.to_string(), head.hash.to_string());
        client.put_anchor(&edge::Anchor { position, hash, at: None })?;
        // Only a connection that worked is used again.
        self.client = Some(client);
        Ok(())
    }
}

impl Holder for Client {
    fn name(&self) -> &'static str {
        "host"
    }

    fn put(&mut self, head: Head) -> Result<(), Box<dyn Error>> {
        Ok(self.put_anchor(head.position, &head.hash)?)
    }
}

/// A holder, and what it was told last.
struct Told {
    holder: Box<dyn Holder + Send>,
    last: Option<Head>,
    is_away: bool,
}

impl Told {
    fn new(holder: Box<dyn Holder + Send>) -> Self {
        Self { holder, last: None, is_away: false }
    }

    fn tell(&mut self, head: Head) {
        if self.last == Some(head) || head == Head::EMPTY {
            return;
        }
        match self.holder.put(head) {
            Ok(()) => (self.last, self.is_away) = (Some(head), false),
            Err(error) => {
                // Once is enough; it is told again until it listens.
                if !std::mem::replace(&mut self.is_away, true) {
                    tracing::warn!(holder = self.holder.name(), %error, "does not take the log's head");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use kiln_model::Digest;

    use super::*;

    #[test]
    fn what_the_holders_keep_reads_back_and_what_is_damaged_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::new(folder.path());
        assert!(Anchors::read(&state).found.is_empty());
        assert!(damage(&state).is_none(), "nothing was ever there");
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let hash = Digest::new([0x11; 32]);
        write("edge/anchor.json", &format!(r#"{{"position":"@7","hash":"{hash}","at_ms":3}}"#));
        write("host/anchor.json", &format!(r#"{{"v":1,"position":6,"hash":"{hash}","at_ms":2}}"#));
        let found = Anchors::read(&state).found;
        let heads: Vec<_> =
            found.iter().map(|anchor| (anchor.who.as_str(), anchor.head.position.0)).collect();
        assert_eq!(heads, [("edge", 7), ("host", 6)]);
        assert!(matches!(damage(&state), Some(OpenLogError::Damaged { position: Position(7), .. })));

        write("edge/anchor.json", &format!(r#"{{"position":"7th","hash":"{hash}"}}"#));
        write("host/anchor.json", "{");
        let anchors = Anchors::read(&state);
        assert_eq!((anchors.found.len(), anchors.unreadable.len()), (0, 2), "{anchors:?}");
    }

    /// Whether it is away, and what it was told.
    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<(bool, Vec<u64>)>>);

    impl Holder for Memory {
        fn name(&self) -> &'static str {
            "memory"
        }

        fn put(&mut self, head: Head) -> Result<(), Box<dyn Error>> {
            let mut memory = self.0.lock().unwrap();
            if memory.0 {
                return Err("away".into());
            }
            memory.1.push(head.position.0);
            Ok(())
        }
    }

    #[test]
    fn a_holder_is_told_once_of_each_head_and_again_until_it_listens() {
        let memory = Memory::default();
        let head = |position| Head { position: Position(position), hash: Digest::new([1; 32]) };
        let mut told = Told::new(Box::new(memory.clone()));
        told.tell(Head::EMPTY);
        told.tell(head(1));
        told.tell(head(1));
        memory.0.lock().unwrap().0 = true;
        told.tell(head(2));
        told.tell(head(2));
        assert!(told.is_away);
        memory.0.lock().unwrap().0 = false;
        told.tell(head(2));
        assert_eq!(memory.0.lock().unwrap().1, [1, 2]);
    }
}
