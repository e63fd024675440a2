//! What can go wrong with the log.

use std::io;
use std::path::{Path, PathBuf};

use kiln_model::Position;

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
    /// It was truncated, edited or damaged. Restore it from a backup; `kiln audit verify` says how far it can be trusted.
    #[error("the log is damaged at {position}: {reason}")]
    Damaged {
        /// The first entry that can't be trusted; 0 where the file as a whole can't be read.
        position: Position,
        /// What is wrong.
        reason: String,
    },
    /// A newer Kiln wrote it.
    #[error("the log has format {found}; this Kiln knows {known}")]
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

impl OpenLogError {
    pub(super) fn from_read(folder: &Path) -> impl Fn(ReadLogError) -> Self + use<'_> {
        |error| match error {
            ReadLogError::Damaged { position, reason } => Self::Damaged { position, reason },
            // Rows are not decoded at the open.
            ReadLogError::Unknown { position, kind, schema } => {
                Self::Damaged { position, reason: format!("an unknown `{kind}` of schema {schema}") }
            }
            ReadLogError::Io(source) => Self::Io { folder: folder.into(), source },
        }
    }
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
    /// The disk is full. Nothing was appended; the log can be used once there is room.
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
    #[error("the `{kind}` event at {position}, schema {schema}, is from a newer Kiln than this one")]
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
