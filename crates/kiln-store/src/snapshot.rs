//! Snapshots of stack folders, so that bakes and releases refer to a source that can't change under them.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_model::Digest;

use crate::blob::{BlobReader, Blobs};
use crate::error::{PutError, ReadError};
use crate::shelf::{Looks, Shelf};
use crate::tree::TreePath;
use crate::wire::{SnapshotWire, to_json};

mod capturing;

use capturing::UnderWay;
pub use capturing::{Capturing, ListedContent};

/// What a file that somebody may execute is captured as, and a folder.
const EXECUTABLE: u16 = 0o755;

/// What any other file is captured as.
const PLAIN: u16 = 0o644;

/// The snapshots of a store.
#[derive(Debug, Clone)]
pub struct Snapshots {
    blobs: Blobs,
    /// What was captured last: it is baked from next. Its bytes are verified as those of any other are, but need not be understood
    /// again.
    last: Arc<Mutex<Option<Known>>>,
    /// What is being captured beside what is made from it.
    under_way: UnderWay,
}

type Known = (Digest, Arc<Snapshot>);

/// One thing in a stack folder, as it is captured.
#[derive(Debug)]
pub enum SourceContent<R> {
    /// A regular file's bytes.
    File(R),
    /// A regular file whose bytes are stored: see [`Held::holds`].
    Held {
        /// Their digest.
        digest: Digest,
        /// How many there are.
        size: u64,
    },
    /// Where a symlink points.
    Symlink(Vec<u8>),
    /// An empty folder; folders with files in them need not be given.
    Dir,
}

/// A captured folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// What is in it, in the order of the paths.
    pub files: Vec<SnapshotFile>,
}

/// One thing in a captured folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Its path below the stack folder.
    pub path: TreePath,
    /// Its permission bits: 0755 for a folder and what its owner may execute, 0644 for the rest. As in Git, so that a snapshot
    /// does not depend on the umask with which the folder was checked out.
    pub mode: u16,
    /// What it is.
    pub kind: SnapshotKind,
}

/// What a captured thing is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotKind {
    /// A regular file; its content is a blob.
    File {
        /// The blob.
        digest: Digest,
        /// Its size.
        size: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: Vec<u8>,
    },
    /// A folder.
    Dir,
}

/// A folder can't be captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A file can't be read or stored.
    #[error("{path} can't be captured")]
    File {
        /// Which.
        path: TreePath,
        /// Why.
        #[source]
        source: PutError,
    },
    /// The snapshot can't be stored.
    #[error(transparent)]
    Put(#[from] PutError),
    /// One path was given twice.
    #[error("{0} was given twice")]
    Twice(TreePath),
    /// The snapshot was stored before, and what is there can't be believed.
    #[error(transparent)]
    Stored(ReadError),
}

impl CaptureError {
    /// Whether a file is not what it was listed as, or can't be read any more: the folder is to be listed again.
    pub fn is_change(&self) -> bool {
        matches!(self, Self::File { source: PutError::Mismatch { .. } | PutError::Source(_), .. })
    }
}

/// Which files are stored.
#[derive(Debug)]
pub struct Held {
    shelf: Shelf,
    /// None where they can't be looked at together.
    looks: Option<Looks>,
}

impl Held {
    pub(crate) fn of(shelf: &Shelf) -> Self {
        Self { looks: shelf.looks().ok(), shelf: shelf.clone() }
    }

    /// Opens a file for reading, as [`crate::Objects::open_file`] does.
    ///
    /// # Errors
    /// `Missing` or `Io`.
    pub fn open_file(&self, digest: &Digest) -> Result<File, ReadError> {
        match self.looks.as_ref().map(|looks| looks.open(digest)) {
            Some(Ok(file)) => Ok(file),
            // It may be packed, or whoever opens it by its path tells why it can't be.
            _ => self.shelf.open_file(digest),
        }
    }

    /// Whether the bytes of a file are stored, so that they can be captured without being read. Does not verify them.
    pub fn holds(&self, digest: &Digest, size: u64) -> bool {
        match self.looks.as_ref().and_then(|looks| looks.stat(digest).ok()?) {
            Some(stat) => stat.st_size.cast_unsigned() == size,
            // It may be packed.
            None => self.shelf.size(digest) == Some(size),
        }
    }

    /// Of files with their sizes, returns those that [`Held::holds`] says no of. Asked together, it costs less.
    pub fn lacks(&self, files: impl IntoIterator<Item = (Digest, u64)>) -> HashSet<Digest> {
        let mut files: Vec<_> = files.into_iter().collect();
        files.sort_unstable();
        let mut looks = self.looks.as_ref().map(Looks::in_order);
        let mut is_there = |digest: &Digest, size: u64| {
            let stat = looks.as_mut().and_then(|looks| looks.stat(digest).ok()?);
            stat.is_some_and(|stat| stat.st_size.cast_unsigned() == size)
        };
        files.retain(|(digest, size)| !is_there(digest, *size) && !self.holds(digest, *size));
        files.into_iter().map(|(digest, _)| digest).collect()
    }
}

impl SnapshotFile {
    fn new(path: TreePath, mode: u16, kind: SnapshotKind) -> Self {
        let mode = match kind {
            SnapshotKind::File { .. } if mode & 0o100 == 0 => PLAIN,
            SnapshotKind::File { .. } | SnapshotKind::Dir => EXECUTABLE,
            SnapshotKind::Symlink { .. } => 0o777,
        };
        Self { path, mode, kind }
    }
}

impl Snapshot {
    fn of(mut files: Vec<SnapshotFile>) -> Result<Self, CaptureError> {
        // Mostly they come in their order, and then this looks at each once.
        files.sort_by(|one, other| one.path.cmp(&other.path));
        match files.windows(2).find(|pair| pair[0].path == pair[1].path) {
            Some(pair) => Err(CaptureError::Twice(pair[0].path.clone())),
            None => Ok(Self { files }),
        }
    }

    fn to_json(&self) -> Vec<u8> {
        to_json(&SnapshotWire::from(self))
    }
}

impl Snapshots {
    pub(crate) fn new(blobs: Blobs) -> Self {
        Self { blobs, last: Arc::default(), under_way: UnderWay::default() }
    }

    /// Captures files in any order; the same files always give the same digest. Of a mode only counts whether the owner may
    /// execute.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn capture<R: Read>(
        &self,
        files: impl IntoIterator<Item = (TreePath, u16, SourceContent<R>)>,
    ) -> Result<Digest, CaptureError> {
        let batch = self.blobs.batch();
        let mut captured = Vec::new();
        for (path, mode, content) in files {
            let kind = match content {
                SourceContent::File(reader) => {
                    let failed = |source| CaptureError::File { path: path.clone(), source };
                    let stored = batch.put_reader(reader).map_err(failed)?;
                    SnapshotKind::File { digest: stored.digest, size: stored.size }
                }
                SourceContent::Held { digest, size } => SnapshotKind::File { digest, size },
                SourceContent::Symlink(target) => SnapshotKind::Symlink { target },
                SourceContent::Dir => SnapshotKind::Dir,
            };
            captured.push(SnapshotFile::new(path, mode, kind));
        }
        let snapshot = Snapshot::of(captured)?;
        // One that a power failure left without a file of it is no harm: whoever captures the same again looks for each file.
        let stored = batch.put_bytes(&snapshot.to_json())?;
        batch.commit()?;
        self.remember(stored.digest, Arc::new(snapshot));
        Ok(stored.digest)
    }

    fn remember(&self, digest: Digest, snapshot: Arc<Snapshot>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((digest, snapshot));
    }

    /// Begins to ask which files are stored.
    pub fn held(&self) -> Held {
        Held::of(self.blobs.shelf())
    }

    /// Returns what is in a snapshot; of one that is being captured, what it will hold.
    ///
    /// # Errors
    /// `Missing`, or `Corrupt`, which includes what is not a snapshot.
    pub fn load(&self, digest: &Digest) -> Result<Snapshot, ReadError> {
        if let Some(snapshot) = self.under_way.snapshot(digest) {
            return Ok(Snapshot::clone(&snapshot));
        }
        let bytes = self.blobs.read_verified(digest)?;
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, snapshot)) = last.as_ref().filter(|(last, _)| last == digest) {
            return Ok(Snapshot::clone(snapshot));
        }
        drop(last);
        let corrupt = |reason: String| ReadError::corrupt(digest, reason);
        let wire: SnapshotWire =
            serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
        Snapshot::try_from(wire).map_err(corrupt)
    }

    /// Opens a captured file; what is read is verified on the way. What is not there yet is waited for while something is being
    /// captured.
    ///
    /// # Errors
    /// `Missing`, or `Io`.
    pub fn open_file(&self, digest: &Digest) -> Result<BlobReader, ReadError> {
        // Asked before the file is looked for: what ends in between has stored it.
        let captures = self.under_way.captures();
        match self.blobs.open_verified(digest) {
            Err(ReadError::Missing(_)) if !captures.is_empty() => {
                captures.iter().for_each(|capture| capture.wait());
                self.blobs.open_verified(digest)
            }
            opened => opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    type Source = (TreePath, u16, SourceContent<&'static [u8]>);

    fn files() -> Vec<Source> {
        let path = |text: &[u8]| TreePath::parse(text).unwrap();
        vec![
            (path(b"stack.hcl"), 0o640, SourceContent::File(b"stack \"shop\" {}")),
            (path(b"web/run.sh"), 0o711, SourceContent::File(b"#!/bin/sh")),
            (path(b"web/latest"), 0o777, SourceContent::Symlink(b"run.sh".to_vec())),
            (path(b"empty"), 0o700, SourceContent::Dir),
            (path(b"odd-\xff"), 0o644, SourceContent::File(b"")),
        ]
    }

    #[test]
    fn the_same_files_in_any_order_are_the_same_snapshot() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let digest = store.snapshots.capture(files()).unwrap();
        let mut reversed = files();
        reversed.reverse();
        assert_eq!(store.snapshots.capture(reversed).unwrap(), digest);
        let snapshot = store.snapshots.load(&digest).unwrap();
        let shown: Vec<_> = snapshot.files.iter().map(|file| (file.path.to_string(), file.mode)).collect();
        let expected = [("/empty", 0o755), ("/odd-\u{fffd}", 0o644), ("/stack.hcl", 0o644)];
        assert_eq!(shown[..3], expected.map(|(path, mode)| (path.to_string(), mode)));
        assert_eq!(shown[4], ("/web/run.sh".to_string(), 0o755));
        let SnapshotKind::File { digest, size } = snapshot.files[4].kind else { panic!("a file") };
        let mut text = String::new();
        store.snapshots.open_file(&digest).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), size), ("#!/bin/sh", 9));
    }

    #[test]
    fn a_file_whose_bytes_are_stored_is_captured_without_being_read() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let read = store.snapshots.capture(files()).unwrap();
        let held = files().into_iter().map(|(path, mode, content)| match content {
            SourceContent::File(bytes) => {
                let (digest, size) = (crate::canonical::digest_of(bytes), bytes.len() as u64);
                let held = store.snapshots.held();
                assert!(held.holds(&digest, size) && !held.holds(&digest, size + 1));
                let never = crate::canonical::digest_of(b"never captured");
                assert!(!held.holds(&never, 14));
                assert_eq!(held.lacks([(digest, size), (never, 14)]), [never].into());
                assert_eq!(held.lacks([(digest, size + 1), (digest, size)]), [digest].into());
                (path, mode, SourceContent::Held { digest, size })
            }
            content => (path, mode, content),
        });
        assert_eq!(store.snapshots.capture(held).unwrap(), read);
    }

    #[test]
    fn a_path_that_is_given_twice_is_refused() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let twice = files().into_iter().chain(files());
        assert!(matches!(store.snapshots.capture(twice), Err(CaptureError::Twice(_))));
    }

    #[test]
    fn a_blob_of_another_kind_is_no_snapshot() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let stray = r#"{"format":"kiln.snapshot/1","files":[{"path":"../etc","mode":420,"kind":"dir"}]}"#;
        for bytes in ["{}", "", r#"{"format":"kiln.release/1","files":[]}"#, stray] {
            let digest = store.blobs.put_bytes(bytes.as_bytes()).unwrap();
            assert!(matches!(store.snapshots.load(&digest), Err(ReadError::Corrupt { .. })), "{bytes}");
        }
    }
}
