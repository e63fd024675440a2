//! A stack folder captured into the store, and captured ones compared.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kiln_model::Digest;
use kiln_store::snapshot::{CaptureError, SnapshotKind, SourceContent};
use kiln_store::{Snapshots, TreePath};

use super::folder::{Content, Item, Listing};
use crate::cli::failure::Failure;

/// A file's bytes: from memory where they were evaluated, else from the folder when they are wanted, so that a folder of
/// any size has one file open at a time.
pub(crate) enum Bytes {
    /// What was read already.
    Memory(Cursor<Vec<u8>>),
    /// What will be read.
    Later(PathBuf),
    /// What is being read.
    Open(File),
}

impl Read for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Self::Later(path) = self {
            *self = Self::Open(File::open(path)?);
        }
        match self {
            Self::Memory(bytes) => bytes.read(buffer),
            Self::Open(file) => file.read(buffer),
            Self::Later(_) => unreachable!("it was opened just now"),
        }
    }
}

/// Stores a listed folder and returns the snapshot's digest. `evaluated` are the files whose bytes were evaluated already:
/// the snapshot holds what the release was made from, even if they change meanwhile.
///
/// # Errors
/// The store's, told to people.
pub(crate) fn capture(
    snapshots: &Snapshots,
    folder: &Path,
    listing: &Listing,
    evaluated: &[(String, Vec<u8>)],
) -> Result<Digest, Failure> {
    let mut files = Vec::with_capacity(listing.len());
    for (path, item) in listing {
        let tree = TreePath::parse(path)
            .map_err(|error| Failure::refused("a file can't be captured").cause(error))?;
        let known = evaluated.iter().find(|(name, _)| name.as_bytes() == path.as_slice());
        let content = match (&item.content, known) {
            (_, Some((_, bytes))) => SourceContent::File(Bytes::Memory(Cursor::new(bytes.clone()))),
            // What is stored already need not be read again: it is what was listed, whatever the folder holds by now.
            (Content::File { digest, size }, None) if snapshots.holds(digest, *size) => {
                SourceContent::Held { digest: *digest, size: *size }
            }
            (Content::File { .. }, None) => {
                let below: &std::ffi::OsStr = std::ffi::OsStr::from_bytes(path);
                SourceContent::File(Bytes::Later(folder.join(below)))
            }
            (Content::Symlink(target), None) => SourceContent::Symlink(target.clone()),
            (Content::EmptyFolder, None) => SourceContent::Dir,
        };
        files.push((tree, item.mode, content));
    }
    snapshots.capture(files).map_err(|error| failure(&error))
}

fn failure(error: &CaptureError) -> Failure {
    Failure::external("the stack folder can't be captured")
        .caused_by(error)
        .hint("free some space on the disk of the state folder, or leave files out with .kilnignore")
}

/// Lists what a snapshot holds, to be compared with a folder.
///
/// # Errors
/// The snapshot is gone or damaged: then nothing can be compared with it.
pub(crate) fn listing(snapshots: &Snapshots, digest: &Digest) -> Result<Listing, kiln_store::ReadError> {
    let items = snapshots.load(digest)?.files.into_iter().map(|file| {
        let content = match file.kind {
            SnapshotKind::File { digest, size } => Content::File { digest, size },
            SnapshotKind::Symlink { target } => Content::Symlink(target),
            SnapshotKind::Dir => Content::EmptyFolder,
        };
        (file.path.as_bytes().to_vec(), Item { mode: file.mode, content })
    });
    Ok(items.collect())
}
