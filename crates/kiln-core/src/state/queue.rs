//! A rollout that waits for another one to end.

use kiln_model::rollout::Cause;
use kiln_model::{Actor, RevisionNumber, Timestamp};

/// What an environment moves to once the rollout that runs has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// The revision; it is retained.
    pub to: RevisionNumber,
    /// Why.
    pub cause: Cause,
    /// Who asked for it.
    pub by: Actor,
    /// When.
    pub since: Timestamp,
}
