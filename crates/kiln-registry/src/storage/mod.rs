//! Where a registry keeps its bytes.
//!
//! ```text
//! ROOT/registry.lock                                  held by the one process that serves the folder
//! ROOT/blobs/sha256/ab/HEX                            every blob once
//! ROOT/repositories/NAME/_blobs/sha256/HEX            a hard link to it for each repository that has it
//! ROOT/repositories/NAME/_manifests/sha256/HEX        a line with the media type, then the manifest's bytes
//! ROOT/repositories/NAME/_tags/TAG                    a digest
//! ROOT/repositories/NAME/_referrers/sha256/HEX/…      a descriptor for each manifest that is about that one
//! ROOT/uploads/ID/{repository,data}                   what is being sent
//! ROOT/tmp/                                           what has no name yet
//! ```
//!
//! A file is written under a name that nothing reads, made durable, and then renamed or linked, so what has a name is whole,
//! and a process that is killed leaves nothing but `uploads` and `tmp`. How many repositories have a blob is its number of
//! links, which the file system counts: there is no counter of ours that a crash could falsify.
//!
//! Everything here blocks. One mutex orders what changes names; no data is written under it.

mod blob;
mod durable;
mod list;
mod manifest;
mod upload;

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::digest::ContentDigest;
use crate::name::RepositoryName;

pub use manifest::{PutManifestError, StoredManifest};
pub(crate) use upload::{FinishError, Upload, UploadId};

/// What the lock file begins with; another layout gets another number.
const FORMAT: &str = "kiln registry 1\n";

/// A registry's folder.
#[derive(Debug)]
pub struct Storage {
    root: PathBuf,
    /// Held around every change of names that belong together.
    names: Mutex<()>,
    /// Locked until this is dropped.
    _lock: File,
}

/// The folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenStorageError {
    /// Another process serves it.
    #[error("another registry serves {}", path.display())]
    Taken {
        /// The folder.
        path: PathBuf,
    },
    /// It was written by another version.
    #[error("{} was not written by a registry of this version", path.display())]
    Format {
        /// Its lock file.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("{} can't be used as a registry's folder", path.display())]
    Io {
        /// Which folder or file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Bytes that can be sent: a part of a file.
#[derive(Debug)]
pub struct Content {
    /// The file.
    pub file: File,
    /// Where in it they begin.
    pub start: u64,
    /// How many there are.
    pub size: u64,
}

/// What a sweep removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Uploads that nobody went on with.
    pub uploads: usize,
    /// Blobs that no repository has.
    pub blobs: usize,
}

impl Storage {
    /// Opens a registry's folder, makes it where there is none, and forgets what a killed process had not finished.
    ///
    /// # Errors
    /// See [`OpenStorageError`].
    pub fn open(root: &Path) -> Result<Self, OpenStorageError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenStorageError::Io { path, source }
        };
        fs::create_dir_all(root).map_err(failed(root))?;
        let path = root.join("registry.lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed(&path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => OpenStorageError::Taken { path: root.to_owned() },
            error => failed(&path)(error.into()),
        })?;
        let mut found = String::new();
        (&lock).take(FORMAT.len() as u64).read_to_string(&mut found).map_err(failed(&path))?;
        if found.is_empty() {
            lock.write_all(FORMAT.as_bytes()).and_then(|()| lock.sync_all()).map_err(failed(&path))?;
        } else if found != FORMAT {
            return Err(OpenStorageError::Format { path });
        }
        for name in ["blobs", "repositories", "uploads"] {
            let folder = root.join(name);
            durable::make_folders(root, &folder).map_err(failed(&folder))?;
        }
        let tmp = root.join("tmp");
        match fs::remove_dir_all(&tmp) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&tmp)(error)),
            _ => fs::create_dir(&tmp).map_err(failed(&tmp))?,
        }
        Ok(Self { root: root.to_owned(), names: Mutex::new(()), _lock: lock })
    }

    /// Removes uploads that were not written to for as long as `age`, and blobs that no repository has: those of which the
    /// last link went while a process was killed. `is_busy` says whether an upload is being used, and forgets it if not.
    ///
    /// # Errors
    /// The file system refused.
    pub(crate) fn sweep(&self, age: Duration, is_busy: impl Fn(&UploadId) -> bool) -> io::Result<Swept> {
        Ok(Swept { uploads: self.sweep_uploads(age, is_busy)?, blobs: self.sweep_blobs()? })
    }

    fn names(&self) -> MutexGuard<'_, ()> {
        // There is nothing in it that a panic could leave half-changed; names on the disk are changed one by one.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blob_path(&self, digest: &ContentDigest) -> PathBuf {
        let hex = digest.hex();
        self.root.join("blobs").join(digest.algorithm().name()).join(&hex[..2]).join(hex)
    }

    fn repository(&self, name: &RepositoryName) -> PathBuf {
        self.root.join("repositories").join(name.as_str())
    }

    fn of_digest(&self, name: &RepositoryName, kind: &str, digest: &ContentDigest) -> PathBuf {
        self.repository(name).join(kind).join(digest.algorithm().name()).join(digest.hex())
    }

    fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }
}

/// Turns "there is none" into `None`.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        // A name that is a folder on the way is no less absent.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file; whether there was one.
fn removed(path: &Path) -> io::Result<bool> {
    Ok(found(fs::remove_file(path))?.is_some())
}

#[cfg(test)]
mod tests;
