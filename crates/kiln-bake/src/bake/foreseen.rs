//! The trees that a bake will likely change, read before it is known.
//!
//! Who works on something bakes again and again, and mostly it is the same step that is new. What the last bake of a stack had to
//! read from the store is read again when the folder is another one, while it is found out what became of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use kiln_model::{Digest, StackName};
use kiln_store::Tree;

use crate::baker::Baker;
use crate::beside::{Beside, Rank};
use crate::source::Source;
use crate::steps::Foresight;

/// More at a time would take the processors from what finds out whether they are needed.
const TREES_MAX: usize = 2;

#[derive(Debug, Default)]
pub(super) struct Foreseen {
    being_read: Mutex<BTreeMap<Digest, Beside<Option<Tree>>>>,
    /// What this bake had to read, the first of it.
    needed: Mutex<Vec<Digest>>,
    /// The snapshot of the folder; none where nothing is foreseen.
    source: Option<Digest>,
    /// What the last bake noted, if it was of another snapshot.
    noted: Option<Foresight>,
}

impl Foreseen {
    /// Begins to read for a stack.
    pub(super) fn begin(baker: &Baker, source: &Source, stack: &StackName) -> Self {
        // Only a snapshot can be told from the last one at once.
        let Source::Snapshot(source) = *source else { return Self::default() };
        if baker.options.no_cache {
            return Self::default();
        }
        let foresight = baker.steps.foresight(stack.as_str());
        let noted = match &foresight {
            Some(noted) if noted.source == source => return Self::default(),
            _ => foresight,
        };
        let trees = noted.iter().flat_map(|noted| &noted.trees);
        let trees = trees.filter(|tree| baker.store.trees.contains(tree)).take(TREES_MAX);
        let being_read = trees.map(|&tree| {
            let stored = baker.store.trees.clone();
            // Whoever needs one that can't be read tells why.
            (tree, Beside::begin(Rank::Soon, move || stored.load(&tree).ok()))
        });
        let being_read = Mutex::new(being_read.collect());
        Self { being_read, needed: Mutex::default(), source: Some(source), noted }
    }

    /// Notes that a tree is to be read from the store, and returns it if that was foreseen.
    pub(super) fn take(&self, tree: &Digest) -> Option<Tree> {
        let mut needed = self.needed.lock().unwrap_or_else(PoisonError::into_inner);
        if needed.len() < TREES_MAX && !needed.contains(tree) {
            needed.push(*tree);
        }
        drop(needed);
        let reading = self.being_read.lock().unwrap_or_else(PoisonError::into_inner).remove(tree)?;
        reading.end().flatten()
    }

    /// Notes for the next bake what this one needed; if that was nothing, what was noted before stays good for this snapshot.
    pub(super) fn note(&self, baker: &Baker, stack: &StackName) {
        let Some(source) = self.source else { return };
        let needed = self.needed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let trees = match &self.noted {
            Some(noted) if needed.is_empty() => noted.trees.clone(),
            _ => needed,
        };
        baker.steps.set_foresight(stack.as_str(), &Foresight { source, trees });
    }
}
