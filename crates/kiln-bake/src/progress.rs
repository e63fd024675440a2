//! What a lock or a bake is doing, for a live display.

use std::time::Duration;

/// Where progress is told. Called from several threads.
pub type Report<'a> = &'a (dyn Fn(Progress) + Sync);

/// One piece of news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What is being made, such as `base slim` or `image web`.
    pub subject: String,
    /// The step, from 1.
    pub step: usize,
    /// How many steps there are.
    pub steps: usize,
    /// What the step does, such as `fetch 96 packages`.
    pub what: String,
    /// How far it is.
    pub state: StepState,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    /// It has begun.
    Started,
    /// It goes on.
    Advanced {
        /// Bytes that are done.
        done: u64,
        /// Bytes that there are.
        total: u64,
    },
    /// It goes on without something that it should have: `what` says it.
    Warned,
    /// It is done.
    Finished {
        /// Whether its outcome was there already.
        cached: bool,
        /// How long it took.
        elapsed: Duration,
    },
}
