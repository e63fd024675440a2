//! What the controller needs from outside: a log that keeps, and effects that act.

use std::error::Error;
use std::sync::Arc;

use kiln_core::State;
use kiln_model::{Entry, Position};
use thiserror::Error as ThisError;

use super::commit::DueAction;

/// The one log. It has one writer; a second one is told apart by `expected`.
pub trait Log {
    /// Appends `entries` in one transaction, and returns once they are durable.
    ///
    /// `expected` is the position of the last entry that the caller knows.
    ///
    /// # Errors
    /// Each variant says whether anything was written and what the caller does next.
    fn append(&mut self, expected: Position, entries: &[Entry]) -> Result<(), AppendError>;

    /// Returns at most `max` entries after `after`, in order; fewer only at the end of the log.
    ///
    /// # Errors
    /// The log can't be read, or holds what this Kiln doesn't know.
    fn read(&mut self, after: Position, max: usize) -> Result<Vec<Entry>, ReadError>;

    /// Lets go of the storage and opens it again, so that what follows reads what is really stored.
    ///
    /// # Errors
    /// The storage can't be opened.
    fn reopen(&mut self) -> Result<(), ReadError>;

    /// Is told what everything up to the last append folds to, so that it may keep that beside the entries. How often it does
    /// is its own affair, but it must not block.
    fn keep(&mut self, state: &Arc<State>);

    /// Returns something that it kept, if what is stored still begins with the entries that were folded then. None is always
    /// right: then the log is folded from its first entry.
    fn kept(&mut self) -> Option<State>;
}

/// Why entries were not, or perhaps not, appended.
#[derive(Debug, ThisError)]
pub enum AppendError {
    /// Another writer appended first: nothing was written. Reload and decide again.
    #[error("another writer appended to the log first")]
    Conflict,
    /// There is no room: nothing was written. Serve on and try again later.
    #[error("there is no room to append to the log")]
    Full(#[source] Box<dyn Error + Send + Sync>),
    /// Perhaps it was written, perhaps not: reopen and read before anything else.
    #[error("it is not known whether the append to the log took place")]
    Unknown(#[source] Box<dyn Error + Send + Sync>),
}

/// The log can't be read.
#[derive(Debug, ThisError)]
#[error("cannot read the log")]
pub struct ReadError(#[source] pub Box<dyn Error + Send + Sync>);

/// What carries actions out: the links to the host and the edge.
///
/// Implementations must not block: a slow host must not hold up a decision about the edge. What can't be sent now may be
/// dropped, as long as [`Controller::reconnected`](super::Controller::reconnected) is called when the way is open again.
pub trait Effects {
    /// Starts to carry `action` out. The answer comes back as an observation.
    fn execute(&mut self, action: DueAction);

    /// Asks the host for all that it has, and the edge for what it serves: observations may have been missed.
    fn relist(&mut self);
}

/// One of the two processes that act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// The provider: instances.
    Host,
    /// The proxy: tables and sockets.
    Edge,
}
