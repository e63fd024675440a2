//! The store's event log as the controller's port.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use kiln_core::State;
use kiln_model::{Entry, Position};
use kiln_store::EventLog;
use kiln_store::log::{Anchor, AppendError as StoreAppendError, Head, OpenLogError};

use super::ports::{AppendError, Log, ReadError};
use super::saver::Saver;
use super::snapshot;

/// The log of a state folder.
#[derive(Debug)]
pub struct StoredLog {
    state: PathBuf,
    /// None between an open that failed and the next attempt.
    log: Option<EventLog>,
    saver: Saver,
    head: Arc<Mutex<Head>>,
}

/// Looks at the head of a log that somebody else appends to.
#[derive(Debug, Clone)]
pub struct HeadWatch(Weak<Mutex<Head>>);

impl HeadWatch {
    /// Returns the head of what is durable; none once the log is closed.
    pub fn head(&self) -> Option<Head> {
        // It is replaced as a whole, so whoever panicked left nothing half done.
        self.0.upgrade().map(|head| *head.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl StoredLog {
    /// Opens the log of a state folder, as its only writer.
    ///
    /// # Errors
    /// As [`EventLog::open`].
    pub fn open(state: &Path) -> Result<Self, OpenLogError> {
        let log = EventLog::open(state)?;
        let saver = Saver::new(log.snapshots());
        let head = Arc::new(Mutex::new(log.head()));
        Ok(Self { state: state.to_owned(), log: Some(log), saver, head })
    }

    /// Checks that the log has every head that others remember.
    ///
    /// # Errors
    /// As [`EventLog::check_anchors`].
    pub fn check_anchors(&self, anchors: &[Anchor]) -> Result<(), OpenLogError> {
        self.log.as_ref().map_or(Ok(()), |log| log.check_anchors(anchors))
    }

    /// Returns a way to look at the head from another thread.
    pub fn watch_head(&self) -> HeadWatch {
        HeadWatch(Arc::downgrade(&self.head))
    }

    fn opened(&self) -> Result<&EventLog, ReadError> {
        self.log.as_ref().ok_or_else(|| boxed(io::Error::other("the log is not open")))
    }
}

impl Log for StoredLog {
    fn append(&mut self, expected: Position, entries: &[Entry]) -> Result<(), AppendError> {
        let Some(log) = &mut self.log else {
            return Err(AppendError::Unknown(Box::new(io::Error::other("the log is not open"))));
        };
        match log.append(expected, entries) {
            Ok(head) => {
                *self.head.lock().unwrap_or_else(PoisonError::into_inner) = head;
                Ok(())
            }
            Err(StoreAppendError::Conflict { .. }) => Err(AppendError::Conflict),
            Err(error @ StoreAppendError::Full) => Err(AppendError::Full(Box::new(error))),
            // Entries that can't be appended are a defect of ours. Reading again is the only way on that can help.
            Err(error @ (StoreAppendError::Invalid { .. } | StoreAppendError::Unknown { .. })) => {
                Err(AppendError::Unknown(Box::new(error)))
            }
        }
    }

    fn read(&mut self, after: Position, max: usize) -> Result<Vec<Entry>, ReadError> {
        let entries = self.opened()?.read(Position(after.0 + 1));
        entries.take(max).collect::<Result<_, _>>().map_err(boxed)
    }

    fn reopen(&mut self) -> Result<(), ReadError> {
        // The old one lets go of its lock first.
        self.log = None;
        let log = EventLog::open(&self.state).map_err(boxed)?;
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = log.head();
        self.log = Some(log);
        Ok(())
    }

    fn keep(&mut self, state: &Arc<State>) {
        let head = self.log.as_ref().map(EventLog::head);
        if let Some(head) = head.filter(|head| head.position == state.position()) {
            self.saver.offer(head, state);
        }
    }

    fn kept(&mut self) -> Option<State> {
        let restored = restore(self.log.as_ref()?)?;
        self.saver.is_saved(restored.position());
        Some(restored)
    }
}

/// Takes the latest snapshot that can be used, and says of the others why they can't.
fn restore(log: &EventLog) -> Option<State> {
    log.saved().find_map(|saved| {
        let saved = saved.map_err(|error| tracing::warn!(%error)).ok()?;
        let (position, decoded) = (saved.position, snapshot::decode(&saved.bytes));
        let state = decoded.map_err(|error| tracing::warn!(%position, %error, "a snapshot is passed over"));
        // Its name is what the log vouched for, not what it says of itself.
        state.ok().filter(|state| state.position() == position)
    })
}

fn boxed(error: impl Error + Send + Sync + 'static) -> ReadError {
    ReadError(Box::new(error))
}
