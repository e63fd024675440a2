//! The event log: one writer, one position, a hash chain, in SQLite.

use std::io;
use std::path::{Path, PathBuf};

use kiln_model::{Digest, Entry, EnvKey, Position};

/// The log, open for reading, or for reading and appending.
#[derive(Debug)]
pub struct EventLog {
    folder: PathBuf,
}

/// The end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The position of the last entry; 0 where there is none.
    pub position: Position,
    /// The hash of the chain up to there; all zero where there is none.
    pub hash: Digest,
}

/// The log can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenLogError {
    /// Another process has it open for appending.
    #[error("the log in {folder} is in use by another controller")]
    Locked {
        /// The log's folder.
        folder: PathBuf,
    },
    /// There is none, and it was opened for reading only.
    #[error("there is no log in {folder}")]
    Missing {
        /// The log's folder.
        folder: PathBuf,
    },
    /// It was truncated, edited or damaged.
    #[error("the log is damaged at {position}: {reason}")]
    Damaged {
        /// The first entry that can't be trusted.
        position: Position,
        /// What is wrong.
        reason: String,
    },
    /// A newer Kiln wrote it.
    #[error("the log has format {found}; this Kiln reads {known}")]
    Newer {
        /// Its format.
        found: i64,
        /// The newest that is known.
        known: i64,
    },
    /// The file system or SQLite refused.
    #[error("the log in {folder} can't be opened")]
    Io {
        /// The log's folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Entries could not be appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The log's end is elsewhere. Nothing was appended; fold the log again and decide again.
    #[error("the log is at {found}, not at {expected}")]
    Conflict {
        /// What the caller thought.
        expected: Position,
        /// What is.
        found: Position,
    },
    /// The entries are not the next ones, or the log is open for reading only: a defect of the caller. Nothing was appended.
    #[error("the entries can't be appended: {reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
    /// The disk is full. Nothing was appended.
    #[error("no space left for the log")]
    Full,
    /// Nobody knows whether the entries were appended. Drop this log, open it again and read its tail.
    #[error("the outcome of an append to the log is unknown")]
    Unknown {
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// An entry could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadLogError {
    /// It was edited or damaged.
    #[error("the log is damaged at {position}: {reason}")]
    Damaged {
        /// Where.
        position: Position,
        /// What is wrong.
        reason: String,
    },
    /// A newer Kiln wrote it. Nothing may be decided without it.
    #[error("the event at {position} is a `{kind}` of schema {schema}, which this Kiln does not know")]
    Unknown {
        /// Where.
        position: Position,
        /// Its kind.
        kind: String,
        /// Its schema.
        schema: u32,
    },
    /// The file system or SQLite refused.
    #[error("the log can't be read")]
    Io(#[source] io::Error),
}

/// What somebody else remembers of the log's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// Who: `host`, `edge`, a receipt.
    pub who: String,
    /// What.
    pub head: Head,
}

/// What is known about the log's integrity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// How many entries hold together from the first.
    pub entries: u64,
    /// The head after those.
    pub head: Head,
    /// The anchors that agree.
    pub proven: Vec<Anchor>,
    /// The anchors that don't: the log was cut or written anew.
    pub broken: Vec<Anchor>,
    /// The first entry that can't be trusted, and why.
    pub first_bad: Option<(Position, String)>,
}

impl EventLog {
    /// Opens the log of a state folder for appending, making it where there is none, and verifies its tail.
    ///
    /// # Errors
    /// See [`OpenLogError`].
    pub fn open(state: impl AsRef<Path>) -> Result<Self, OpenLogError> {
        Ok(Self { folder: state.as_ref().join("log") })
    }

    /// Opens the log of a state folder for reading, beside its writer.
    ///
    /// # Errors
    /// See [`OpenLogError`].
    pub fn open_read_only(state: impl AsRef<Path>) -> Result<Self, OpenLogError> {
        Ok(Self { folder: state.as_ref().join("log") })
    }

    /// Returns the end of the log.
    pub fn head(&self) -> Head {
        let _ = &self.folder;
        todo!()
    }

    /// Appends entries, whose positions follow `expected` without gaps, and returns once they are durable.
    ///
    /// # Errors
    /// See [`AppendError`]: only `Unknown` leaves it open whether they were appended.
    pub fn append(&mut self, expected: Position, entries: &[Entry]) -> Result<Head, AppendError> {
        let _ = (expected, entries);
        todo!()
    }

    /// Reads the entries from a position on, verifying the chain on the way; ends after the first error.
    pub fn read(&self, from: Position) -> Box<dyn Iterator<Item = Result<Entry, ReadLogError>> + '_> {
        let _ = from;
        todo!()
    }

    /// Reads the entries of one environment from a position on. Verifies each by itself, not the chain between them.
    pub fn read_env(
        &self,
        env: &EnvKey,
        from: Position,
    ) -> Box<dyn Iterator<Item = Result<Entry, ReadLogError>> + '_> {
        let _ = (env, from);
        todo!()
    }

    /// Saves what the log up to `position` folds to, so that a start need not fold all of it. Older ones are dropped.
    ///
    /// # Errors
    /// As [`EventLog::append`]; failing is harmless.
    pub fn save_snapshot(&mut self, position: Position, bytes: &[u8]) -> Result<(), AppendError> {
        let _ = (position, bytes);
        todo!()
    }

    /// Returns the latest snapshot that is whole and belongs to this log; one that is not is passed over.
    pub fn latest_snapshot(&self) -> Option<(Position, Vec<u8>)> {
        todo!()
    }

    /// Records that somebody else remembers this head.
    ///
    /// # Errors
    /// As [`EventLog::append`]; failing is harmless.
    pub fn record_anchor(&mut self, who: &str, head: Head) -> Result<(), AppendError> {
        let _ = (who, head);
        todo!()
    }

    /// Lists the latest anchor of each holder.
    ///
    /// # Errors
    /// The file system or SQLite refused.
    pub fn anchors(&self) -> Result<Vec<Anchor>, ReadLogError> {
        todo!()
    }

    /// Verifies the whole log against its chain, the recorded anchors, and those that the caller fetched from their holders.
    ///
    /// # Errors
    /// The file system or SQLite refused; damage is an answer, not an error.
    pub fn verify(&self, fetched: &[Anchor]) -> Result<Verification, ReadLogError> {
        let _ = fetched;
        todo!()
    }
}
