//! What can go wrong with stored bytes.

use std::io;
use std::path::{Path, PathBuf};

use kiln_model::Digest;
use rustix::io::Errno;

/// Bytes could not be stored. Nothing half-written is visible.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The disk, or the quota, is full. Retry once there is room.
    #[error("no space left to store {path}")]
    Full {
        /// What was being written.
        path: PathBuf,
    },
    /// The source of the bytes failed.
    #[error("the bytes to be stored can't be read")]
    Source(#[source] io::Error),
    /// The source's bytes are not the promised ones.
    #[error("expected {expected}, got {found}")]
    Mismatch {
        /// What was promised.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// The file system refused.
    #[error("{path} can't be written")]
    Io {
        /// What was being written.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl PutError {
    pub(crate) fn at(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| {
            if is_full(&source) { Self::Full { path } } else { Self::Io { path, source } }
        }
    }

    /// Whether another attempt, without a change on the outside, would fail again.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Mismatch { .. })
    }
}

/// Whether an error says that there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno == Some(Errno::NOSPC) || errno == Some(Errno::DQUOT)
}

/// Stored bytes could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is nothing under this digest.
    #[error("{0} is not in the store")]
    Missing(Digest),
    /// The bytes are not the ones that were stored.
    #[error("{digest} is corrupt: {reason}")]
    Corrupt {
        /// What was asked for.
        digest: Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// There are more bytes than the caller is ready to hold in memory.
    #[error("{digest} has {size} bytes, more than the {limit} that may be read at once")]
    TooLarge {
        /// What was asked for.
        digest: Digest,
        /// How many there are.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The file system refused.
    #[error("{path} can't be read")]
    Io {
        /// What was being read.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ReadError {
    pub(crate) fn at(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn corrupt(digest: &Digest, reason: impl Into<String>) -> Self {
        Self::Corrupt { digest: *digest, reason: reason.into() }
    }

    /// Whether another attempt would fail again.
    pub fn is_permanent(&self) -> bool {
        !matches!(self, Self::Io { .. })
    }
}
