//! Storing what a step came to while the next one is done.
//!
//! The next step needs the tree, which is in memory, and neither its stored form nor its layer. They take as long to make as many
//! a step.

use std::sync::{Arc, OnceLock};

use kiln_model::Digest;
use kiln_store::trees::PutTreeError;
use kiln_store::{Batch, Store, Tree};

use super::Place;
use crate::bake_error::{BakeError, StepError};
use crate::beside::{Beside, Rank};
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

/// The tree of an outcome being put into a batch.
type PutTree = Arc<Beside<Result<Digest, PutTreeError>>>;

impl Outcome {
    /// Stores the tree and the layer, and notes both.
    pub(super) fn store(self, store: &Store, steps: &StepCache) -> Result<StepRecord, StepError> {
        let (batch, tree) = self.put_tree(store);
        self.store_with((store, steps), batch, &tree)
    }

    /// Begins with the tree: it takes as long as the layer, and neither needs the other.
    fn put_tree(&self, store: &Store) -> (Arc<Batch>, PutTree) {
        let batch = Arc::new(store.blobs.batch());
        let (trees, new, into) = (store.trees.clone(), Arc::clone(&self.new), Arc::clone(&batch));
        let tree = Beside::begin(Rank::Soon, move || trees.put_into(&into, loaded(&new)));
        (batch, Arc::new(tree))
    }

    fn store_with(
        self,
        (store, steps): (&Store, &StepCache),
        batch: Arc<Batch>,
        tree: &PutTree,
    ) -> Result<StepRecord, StepError> {
        let layer =
            layer::put_into(&batch, &store.blobs, &store.objects, loaded(&self.old), loaded(&self.new));
        let tree = tree.end().expect("only this waits for the tree");
        let record = StepRecord { tree: tree?, layer: layer?, after: self.after, taken: self.taken };
        Arc::into_inner(batch).expect("whoever put the tree has ended").commit()?;
        steps.set_step(self.key, &record);
        Ok(record)
    }
}

fn loaded(tree: &OnceLock<Tree>) -> &Tree {
    tree.get().expect("both trees of an outcome are loaded")
}

/// The outcome of a step on its way into the store. Whoever drops it waits for its end: what a step came to is found by the next bake
/// whatever becomes of the steps after it, and nothing is written without a lease.
#[derive(Debug)]
pub(super) struct Storing {
    stored: Beside<Result<StepRecord, StepError>>,
    tree: PutTree,
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
        let (batch, tree) = outcome.put_tree(store);
        let (store, steps, with) = (store.clone(), steps.clone(), Arc::clone(&tree));
        let stored = Beside::begin(Rank::Soon, move || {
            let stored = outcome.store_with((&store, &steps), batch, &with);
            drop(claim);
            stored
        });
        Self { stored, tree, place: place.clone(), line }
    }

    /// Whether nobody would wait for it.
    pub(super) fn has_ended(&self) -> bool {
        self.stored.has_ended()
    }

    /// Does what nobody is at, while somebody may be at the rest.
    pub(super) fn advance(&self) {
        self.tree.advance();
        self.stored.advance();
    }

    /// Waits for the end; none if somebody did so before.
    pub(super) fn end(&self) -> Option<Result<StepRecord, BakeError>> {
        self.tree.advance();
        Some(self.stored.end()?.map_err(|error| self.place.failed(error)))
    }
}

impl Drop for Storing {
    fn drop(&mut self) {
        // What somebody is at is waited for when the parts are dropped, and a panic of it is nobody's any more.
        self.advance();
    }
}
