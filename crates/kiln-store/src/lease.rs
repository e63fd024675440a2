//! Leases: while one is held, nothing is collected.
//!
//! A worker stores blobs before any event refers to them, so for a while nothing but its lease says that they are wanted.
//! A lease is a shared lock of the kernel's: it ends with its process, however that dies. The file beside the lock says who
//! holds it, for people. A collection needs the same lock exclusively, so it runs between bakes, never beside one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::process::ProcessId;

/// The leases of a store.
#[derive(Debug, Clone)]
pub struct Leases {
    root: Arc<Path>,
}

/// A promise that nothing is collected; ends when it is dropped or its process dies.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    // Held for its lock: closing it ends the lease.
    _lock: File,
}

/// The right to collect; while it is held, no lease begins.
#[derive(Debug)]
pub struct Collection {
    _lock: File,
}

/// Who holds a lease, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseHolder {
    /// The process.
    pub pid: u32,
    /// What it does, as it said itself.
    pub purpose: String,
}

/// A lease or a collection could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Leases are held; collect later.
    #[error("{} processes are storing", .holders.len())]
    Held {
        /// By whom. May be empty where the last one just ended.
        holders: Vec<LeaseHolder>,
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

#[derive(Serialize, Deserialize)]
struct LeaseFile {
    pid: u32,
    start: u64,
    purpose: String,
}

impl Leases {
    pub(crate) fn open(root: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&root)?;
        Ok(Self { root: root.into() })
    }

    /// Takes a lease. Waits while a collection runs.
    ///
    /// Hold it from before the first `put` until the event that refers to what was put is in the log.
    ///
    /// # Errors
    /// The file system refused.
    pub fn take(&self, purpose: &str) -> Result<Lease, LeaseError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let lock = self.lock(FlockOperation::LockShared)?;
        let me = ProcessId::current();
        let path = self.root.join(format!("{me}.{}.json", NEXT.fetch_add(1, Ordering::Relaxed)));
        let file = LeaseFile { pid: me.pid, start: me.start, purpose: purpose.into() };
        let bytes = serde_json::to_vec(&file).expect("a struct of numbers and text is JSON");
        fs::write(&path, bytes).map_err(|source| LeaseError::Io { path: path.clone(), source })?;
        Ok(Lease { path, _lock: lock })
    }

    /// Begins a collection, unless there are leases.
    ///
    /// # Errors
    /// `Held`: try again later.
    pub fn begin_collection(&self) -> Result<Collection, LeaseError> {
        match self.lock(FlockOperation::NonBlockingLockExclusive) {
            Ok(lock) => Ok(Collection { _lock: lock }),
            Err(LeaseError::Io { source, .. })
                if Errno::from_io_error(&source) == Some(Errno::WOULDBLOCK) =>
            {
                Err(LeaseError::Held { holders: self.holders() })
            }
            Err(error) => Err(error),
        }
    }

    /// Returns when a lease last began or ended: whoever stores takes one, so nothing was stored since.
    ///
    /// # Errors
    /// The file system refused.
    pub fn changed(&self) -> io::Result<SystemTime> {
        fs::metadata(&self.root)?.modified()
    }

    /// Lists who holds leases, and forgets those whose process is gone.
    pub fn holders(&self) -> Vec<LeaseHolder> {
        let mut holders = Vec::new();
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            // A file that is being written can't be read yet; its lock counts, not the file.
            let Ok(bytes) = fs::read(&path) else { continue };
            let Ok(file) = serde_json::from_slice::<LeaseFile>(&bytes) else { continue };
            if (ProcessId { pid: file.pid, start: file.start }).is_alive() {
                holders.push(LeaseHolder { pid: file.pid, purpose: file.purpose });
            } else {
                let _ = fs::remove_file(&path);
            }
        }
        holders
    }

    fn lock(&self, how: FlockOperation) -> Result<File, LeaseError> {
        let path = self.root.join("lock");
        let failed = |source| LeaseError::Io { path: path.clone(), source };
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        loop {
            match flock(&file, how) {
                Ok(()) => return Ok(file),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(errno.into())),
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collection_waits_for_every_lease() {
        let folder = tempfile::tempdir().unwrap();
        let leases = Leases::open(folder.path().into()).unwrap();
        let earlier = SystemTime::UNIX_EPOCH;
        File::open(folder.path()).unwrap().set_modified(earlier).unwrap();
        let first = leases.take("bake web").unwrap();
        assert!(leases.changed().unwrap() > earlier);
        let second = leases.take("bake orders").unwrap();
        drop(first);
        let Err(LeaseError::Held { holders }) = leases.begin_collection() else { panic!("a lease is held") };
        assert_eq!(holders, [LeaseHolder { pid: std::process::id(), purpose: "bake orders".into() }]);
        drop(second);
        let collection = leases.begin_collection().unwrap();
        assert!(leases.begin_collection().is_err(), "one collection at a time");
        drop(collection);
        leases.take("bake again").unwrap();
    }

    #[test]
    fn a_lease_of_a_dead_process_holds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let leases = Leases::open(folder.path().into()).unwrap();
        let dead = r#"{"pid":1,"start":18446744073709551615,"purpose":"died"}"#;
        fs::write(folder.path().join("1.9.0.json"), dead).unwrap();
        assert_eq!(leases.holders(), []);
        leases.begin_collection().unwrap();
    }
}
