//! Sockets.

use std::sync::Arc;

use kiln_model::{Position, Term, Timestamp};

/// A socket that is open or wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerState {
    /// The position of the last intent about it.
    pub since: Position,
    /// Where it is in its life.
    pub phase: ListenerPhase,
}

/// Where a socket is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerPhase {
    /// It is to be opened.
    Requested,
    /// It is open, as told in this term: a new controller asks again, for the host may have started anew.
    Open {
        /// The term.
        term: Term,
    },
    /// It can't be opened.
    Failed {
        /// Why.
        reason: Arc<str>,
        /// When it is tried again.
        retry_at: Timestamp,
    },
    /// It is to be closed.
    Releasing,
}
