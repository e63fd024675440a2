//! What makes a late action harmless: the highest term that acted here, and the ids that are gone for ever. Both outlive the host.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kiln_model::{InstanceId, Term};

use super::durable;
use crate::port::ProviderError;

/// A late `create` comes from a controller that still has this term, so its id is among the last few that were destroyed; beyond
/// this number ids are forgotten when the host starts. 11 bytes each.
const TOMBSTONES_KEPT: usize = 100_000;

/// The fences of a host.
#[derive(Debug)]
pub(crate) struct Fences {
    folder: PathBuf,
    term: Term,
    tombstones: BTreeSet<InstanceId>,
}

impl Fences {
    /// Reads what was kept.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let term = match fs::read_to_string(folder.join("term")) {
            Ok(text) => Term(text.trim().parse().map_err(io::Error::other)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Term(0),
            Err(error) => return Err(error),
        };
        let path = folder.join("tombstones");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        // A power failure can tear the last line; the action it belongs to was not acknowledged.
        let mut ids: Vec<InstanceId> = text.lines().filter_map(|line| line.parse().ok()).collect();
        let is_torn = !text.is_empty() && !text.ends_with('\n');
        if ids.len() > 2 * TOMBSTONES_KEPT || is_torn {
            ids.drain(..ids.len().saturating_sub(TOMBSTONES_KEPT));
            let kept: String = ids.iter().map(|id| format!("{id}\n")).collect();
            durable::replace(&path, kept.as_bytes())?;
        }
        Ok(Self { folder: folder.into(), term, tombstones: ids.into_iter().collect() })
    }

    /// Lets an action of this term act, unless a later one has acted. A higher term is durable on return.
    pub(crate) fn admit(&mut self, term: Term) -> Result<(), ProviderError> {
        if term < self.term {
            return Err(ProviderError::Fenced { asked: term, seen: self.term });
        }
        if term > self.term {
            durable::replace(&self.folder.join("term"), format!("{}\n", term.0).as_bytes())
                .map_err(|error| failed("write down the term", &error))?;
            self.term = term;
        }
        Ok(())
    }

    /// Whether an id is gone for ever.
    pub(crate) fn is_tombstoned(&self, id: InstanceId) -> bool {
        self.tombstones.contains(&id)
    }

    /// Remembers that an id is gone for ever; durable on return.
    pub(crate) fn bury(&mut self, id: InstanceId) -> Result<(), ProviderError> {
        if self.tombstones.contains(&id) {
            return Ok(());
        }
        durable::append(&self.folder.join("tombstones"), &format!("{id}\n"))
            .map_err(|error| failed("write down that the instance is gone", &error))?;
        self.tombstones.insert(id);
        Ok(())
    }
}

fn failed(what: &str, error: &io::Error) -> ProviderError {
    ProviderError::Failed { reason: format!("cannot {what}: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_term_is_refused_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut fences = Fences::open(folder.path()).unwrap();
        fences.admit(Term(4)).unwrap();
        fences.admit(Term(4)).unwrap();
        let mut fences = Fences::open(folder.path()).unwrap();
        assert!(matches!(
            fences.admit(Term(3)),
            Err(ProviderError::Fenced { asked: Term(3), seen: Term(4) })
        ));
        fences.admit(Term(5)).unwrap();
    }

    #[test]
    fn a_tombstone_stays_and_a_torn_one_does_not_spoil_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let id = InstanceId::from_seed;
        Fences::open(folder.path()).unwrap().bury(id(1)).unwrap();
        durable::append(&folder.path().join("tombstones"), "abc").unwrap();
        let mut fences = Fences::open(folder.path()).unwrap();
        fences.bury(id(2)).unwrap();
        let fences = Fences::open(folder.path()).unwrap();
        assert!(fences.is_tombstoned(id(1)) && fences.is_tombstoned(id(2)));
        assert!(!fences.is_tombstoned(id(3)));
    }
}
