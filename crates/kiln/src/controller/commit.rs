//! Persist, then act: the order as types.
//!
//! **Architecture invariant.** A [`DueAction`] comes only from a [`Committed`], and a `Committed` only from what the log
//! gave back or accepted. A `Batch` has no way to an effect, a reply or a reader. So nothing can act on what was merely
//! decided, however the step is rearranged.

use std::ops::Deref;
use std::sync::Arc;

use kiln_core::{Action, Decision, Input, Observed, State, apply, decide, number, outstanding};
use kiln_model::{Entry, Position};
use thiserror::Error;

use super::ports::{AppendError, Log, ReadError};

/// One read of the log while folding: large enough to be few transactions, small enough to stay in the cache.
const FOLD_PAGE: usize = 4096;

/// A state that the log is known to hold.
#[derive(Debug, Clone)]
pub struct Committed {
    state: Arc<State>,
}

/// An action whose intent is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueAction(Action);

impl Deref for DueAction {
    type Target = Action;

    fn deref(&self) -> &Action {
        &self.0
    }
}

impl DueAction {
    /// Returns the action.
    pub fn into_inner(self) -> Action {
        self.0
    }
}

/// Why the state can't be made from the log.
#[derive(Debug, Error)]
pub enum FoldError {
    /// The log can't be read.
    #[error("the log can't be read")]
    Read(#[from] ReadError),
    /// The log can be read and holds what can't have happened: it was edited, or this is an older Kiln than its writer.
    #[error("entry {position} of the log does not follow from those before it: {reason}")]
    Impossible {
        /// The entry.
        position: Position,
        /// Why not, for people.
        reason: String,
    },
}

impl Committed {
    /// Folds the log, from where it was folded before if that was kept.
    ///
    /// # Errors
    /// `Read`: try again later. `Impossible`: never goes away by itself.
    pub fn load<L: Log>(log: &mut L) -> Result<Self, FoldError> {
        let Some(kept) = log.kept() else { return Self::load_after(State::new(), log) };
        let from = kept.position();
        match Self::load_after(kept, log) {
            // The log alone says what is so. If it is what can't be folded, that shows again.
            Err(FoldError::Impossible { position, reason }) => {
                tracing::warn!(%from, %position, %reason, "what was kept of the log does not lead on; all of it is folded");
                Self::load_after(State::new(), log)
            }
            other => other,
        }
    }

    fn load_after<L: Log>(mut state: State, log: &mut L) -> Result<Self, FoldError> {
        loop {
            let page = log.read(state.position(), FOLD_PAGE)?;
            for entry in &page {
                fold(&mut state, entry)?;
            }
            if page.len() < FOLD_PAGE {
                return Ok(Self { state: Arc::new(state) });
            }
        }
    }

    /// Returns the state.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Returns what is still to be done. The only source of actions.
    pub fn due(&self) -> Vec<DueAction> {
        outstanding(&self.state).into_iter().map(DueAction).collect()
    }

    /// Starts a batch of decisions on top of this state.
    pub(super) fn batch(&self) -> Batch {
        Batch { base: self.state.position(), ahead: State::clone(&self.state), entries: Vec::new() }
    }

    /// Makes a batch durable; it becomes the state only if that is certain.
    ///
    /// # Errors
    /// As [`Log::append`]; this state is what it was, and the batch is gone.
    pub(super) fn append<L: Log>(&self, log: &mut L, batch: Batch) -> Result<Self, AppendError> {
        if batch.entries.is_empty() {
            return Ok(self.clone());
        }
        log.append(batch.base, &batch.entries)?;
        let state = Arc::new(batch.ahead);
        log.keep(&state);
        Ok(Self { state })
    }
}

/// Decisions on top of a committed state, not durable yet and visible to nobody.
#[derive(Debug)]
pub(super) struct Batch {
    base: Position,
    ahead: State,
    entries: Vec<Entry>,
}

impl Batch {
    /// Decides one input against the state that all before it lead to.
    ///
    /// # Errors
    /// The core drafted what it can't apply, which is our own bug. The batch is as if the input had not been.
    pub(super) fn push(&mut self, observed: &Observed, input: &Input) -> Result<Decision, FoldError> {
        let decision = decide(&self.ahead, observed, input);
        if decision.events.is_empty() {
            return Ok(decision);
        }
        let entries = number(&self.ahead, &decision.events, input);
        let mut ahead = self.ahead.clone();
        for entry in &entries {
            fold(&mut ahead, entry)?;
        }
        self.ahead = ahead;
        self.entries.extend(entries);
        Ok(decision)
    }
}

fn fold(state: &mut State, entry: &Entry) -> Result<(), FoldError> {
    apply(state, entry)
        .map_err(|error| FoldError::Impossible { position: entry.position, reason: error.to_string() })
}
