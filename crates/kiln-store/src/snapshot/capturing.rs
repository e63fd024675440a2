//! A folder that is captured beside what is made from it: what the snapshot will hold is known from a listing.

use std::io::Read;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use kiln_model::Digest;

use super::{CaptureError, Held, Snapshot, SnapshotFile, SnapshotKind, Snapshots};
use crate::blob::Blobs;
use crate::shelf::{Stored, sha256};
use crate::tree::TreePath;

/// One thing in a stack folder that was listed.
#[derive(Debug)]
pub enum ListedContent<R> {
    /// A regular file.
    File {
        /// The digest of its bytes.
        digest: Digest,
        /// How many there are.
        size: u64,
        /// Yields them if they are not stored yet. They may be others by then: then the capture fails.
        bytes: R,
    },
    /// Where a symlink points.
    Symlink(Vec<u8>),
    /// An empty folder.
    Dir,
}

/// A capture that goes on. Nothing may refer to its snapshot before it has ended well. Dropping it waits for the end.
#[derive(Debug)]
pub struct Capturing {
    digest: Digest,
    storing: Option<JoinHandle<Result<(), CaptureError>>>,
}

impl Capturing {
    /// The snapshot's digest.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Waits until the snapshot and all its files are durable.
    ///
    /// # Errors
    /// See [`CaptureError`]. After [`CaptureError::is_change`] the folder is no longer what was listed.
    pub fn end(mut self) -> Result<(), CaptureError> {
        let storing = self.storing.take().expect("only this takes it, and only once");
        storing.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl Drop for Capturing {
    fn drop(&mut self) {
        // What it came to is nobody's any more.
        let _ = self.storing.take().map(JoinHandle::join);
    }
}

impl Snapshots {
    /// Begins to capture listed files in any order, and returns at once. Until the end [`Snapshots::load`] answers as if all were
    /// stored, and [`Snapshots::open_file`] waits for what is not. Hold a lease.
    ///
    /// # Errors
    /// `Twice`.
    pub fn begin<R: Read + Send + 'static>(
        &self,
        files: impl IntoIterator<Item = (TreePath, u16, ListedContent<R>)>,
    ) -> Result<Capturing, CaptureError> {
        let (mut listed, mut promised) = (Vec::new(), Vec::new());
        for (path, mode, content) in files {
            let kind = match content {
                ListedContent::File { digest, size, bytes } => {
                    promised.push(Promised { path: path.clone(), stored: Stored { digest, size }, bytes });
                    SnapshotKind::File { digest, size }
                }
                ListedContent::Symlink(target) => SnapshotKind::Symlink { target },
                ListedContent::Dir => SnapshotKind::Dir,
            };
            listed.push(SnapshotFile::new(path, mode, kind));
        }
        let snapshot = Arc::new(Snapshot::of(listed)?);
        let json = snapshot.to_json();
        let digest = sha256(&json);
        let (snapshots, ending) = (self.clone(), self.under_way.begin(digest, &snapshot));
        let storing = beside(move || {
            store(&snapshots.blobs, &digest, &json, promised)?;
            // Before it ends: whoever asks for it then need not read it.
            snapshots.remember(digest, snapshot);
            drop(ending);
            Ok(())
        });
        Ok(Capturing { digest, storing: Some(storing) })
    }
}

fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    std::thread::spawn(work)
}

/// A file that will be stored as it was listed.
struct Promised<R> {
    path: TreePath,
    stored: Stored,
    bytes: R,
}

/// Stores what is not stored yet of files and of the snapshot of them.
fn store<R: Read>(
    blobs: &Blobs,
    snapshot: &Digest,
    json: &[u8],
    files: Vec<Promised<R>>,
) -> Result<(), CaptureError> {
    let held = Held::of(blobs.shelf());
    let was_there = held.holds(snapshot, json.len() as u64);
    let lacking = held.lacks(files.iter().map(|file| (file.stored.digest, file.stored.size)));
    let batch = blobs.batch();
    for Promised { path, stored, bytes } in files {
        // What is stored already need not be read again: it is what was listed, whatever the folder holds by now.
        if lacking.contains(&stored.digest) {
            batch.put_expected(&stored, bytes).map_err(|source| CaptureError::File { path, source })?;
        }
    }
    batch.put_bytes(json)?;
    batch.commit()?;
    match was_there {
        true => blobs.read_verified(snapshot).map(drop).map_err(CaptureError::Stored),
        false => Ok(()),
    }
}

/// What is being captured.
#[derive(Debug, Clone, Default)]
pub(super) struct UnderWay(Arc<Mutex<Vec<Arc<Capture>>>>);

#[derive(Debug)]
pub(super) struct Capture {
    digest: Digest,
    snapshot: Arc<Snapshot>,
    ended: OnceLock<()>,
}

impl Capture {
    pub(super) fn wait(&self) {
        self.ended.wait();
    }
}

impl UnderWay {
    fn begin(&self, digest: Digest, snapshot: &Arc<Snapshot>) -> Ending {
        let capture = Arc::new(Capture { digest, snapshot: Arc::clone(snapshot), ended: OnceLock::new() });
        self.lock().push(Arc::clone(&capture));
        Ending { all: self.clone(), capture }
    }

    /// What will be in a snapshot, if that is being captured.
    pub(super) fn snapshot(&self, digest: &Digest) -> Option<Arc<Snapshot>> {
        let all = self.lock();
        all.iter().find(|capture| capture.digest == *digest).map(|capture| Arc::clone(&capture.snapshot))
    }

    pub(super) fn captures(&self) -> Vec<Arc<Capture>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Capture>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells who waits that a capture has ended, also where it failed.
struct Ending {
    all: UnderWay,
    capture: Arc<Capture>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.all.lock().retain(|capture| !Arc::ptr_eq(capture, &self.capture));
        let _ = self.capture.ended.set(());
    }
}

#[cfg(test)]
mod tests;
