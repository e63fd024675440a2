//! Storing what a step came to while the next one is done.
//!
//! The next step needs the tree, which is in memory, and neither its stored form nor its layer. They take as long to make as many
//! a step.

use std::panic::resume_unwind;
use std::sync::{Arc, OnceLock};

use kiln_store::{Store, Tree};

use super::Place;
use super::beside::{Beside, Nice};
use crate::bake_error::{BakeError, StepError};
use crate::layer;
use crate::steps::{Claim, StepCache, StepKey, StepRecord};

/// What a step did to a tree.
pub(super) struct Outcome {
    /// The tree before it, loaded.
    pub(super) old: Arc<OnceLock<Tree>>,
    /// The tree after it, loaded.
    pub(super) new: Arc<OnceLock<Tree>>,
    pub(super) key: StepKey,
    pub(super) after: Option<StepKey>,
    pub(super) taken: Vec<StepKey>,
}

impl Outcome {
    /// Stores the tree and the layer, and notes both.
    pub(super) fn store(self, store: &Store, steps: &StepCache) -> Result<StepRecord, StepError> {
        let [old, new] = [&self.old, &self.new].map(|tree| tree.get().expect("both are loaded"));
        let batch = store.blobs.batch();
        // Each takes as long as the other, and neither needs it.
        let (tree, layer) = std::thread::scope(|scope| {
            let tree = scope.spawn(|| store.trees.put_into(&batch, new));
            let layer = layer::put_into(&batch, &store.blobs, &store.objects, old, new);
            (tree.join().unwrap_or_else(|panic| resume_unwind(panic)), layer)
        });
        let record = StepRecord { tree: tree?, layer: layer?, after: self.after, taken: self.taken };
        batch.commit()?;
        steps.set_step(self.key, &record);
        Ok(record)
    }
}

/// The outcome of a step on its way into the store. Whoever drops it waits for its end: nothing is written without a lease.
#[derive(Debug)]
pub(super) struct Storing {
    stored: Beside<Result<StepRecord, StepError>>,
    place: Place,
    /// Which line of the history is the step's.
    pub(super) line: usize,
}

impl Storing {
    /// Begins to store. The claim on the step is given back at the end: only then it is found.
    pub(super) fn begin(
        (store, steps): (&Store, &StepCache),
        outcome: Outcome,
        claim: Claim,
        place: &Place,
        line: usize,
    ) -> Self {
        let (store, steps) = (store.clone(), steps.clone());
        let stored = Beside::begin(Nice::Soon, move || {
            let stored = outcome.store(&store, &steps);
            drop(claim);
            stored
        });
        Self { stored, place: place.clone(), line }
    }

    /// Waits for the end; none if somebody did so before.
    pub(super) fn end(&self) -> Option<Result<StepRecord, BakeError>> {
        Some(self.stored.end()?.map_err(|error| self.place.failed(error)))
    }
}
