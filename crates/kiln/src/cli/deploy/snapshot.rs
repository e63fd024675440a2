//! A stack folder captured into the store, and captured ones compared.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kiln_config::{FileError, Files, glob_pattern};
use kiln_model::Digest;
use kiln_store::snapshot::{CaptureError, Capturing, ListedContent, SnapshotKind, SourceContent};
use kiln_store::{Blobs, Snapshots, TreePath};
use sha2::{Digest as _, Sha256};

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

impl Bytes {
    fn later(folder: &Path, below: &[u8]) -> Self {
        Self::Later(folder.join(OsStr::from_bytes(below)))
    }
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

/// Begins to store a listed folder beside what is made from it. `evaluated` is as for [`capture`]; any other file is to be what it
/// was listed as, or the capture fails with a change.
///
/// # Errors
/// The store's, told to people.
pub(crate) fn begin(
    snapshots: &Snapshots,
    folder: &Path,
    listing: &Listing,
    evaluated: &[(String, Vec<u8>)],
) -> Result<Capturing, Failure> {
    let mut files = Vec::with_capacity(listing.len());
    for (path, item) in listing {
        let content = match (&item.content, evaluated_as(evaluated, path)) {
            (_, Some(bytes)) => ListedContent::File {
                digest: Digest::new(Sha256::digest(bytes).into()),
                size: bytes.len() as u64,
                bytes: Bytes::Memory(Cursor::new(bytes.to_vec())),
            },
            (Content::File { digest, size }, None) => {
                ListedContent::File { digest: *digest, size: *size, bytes: Bytes::later(folder, path) }
            }
            (Content::Symlink(target), None) => ListedContent::Symlink(target.clone()),
            (Content::EmptyFolder, None) => ListedContent::Dir,
        };
        files.push((tree_path(path)?, item.mode, content));
    }
    snapshots.begin(files).map_err(|error| failure(&error))
}

/// Stores a listed folder as it is by now, and returns the snapshot's digest. `evaluated` are the files whose bytes were evaluated already:
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
    let held = snapshots.held();
    for (path, item) in listing {
        let content = match (&item.content, evaluated_as(evaluated, path)) {
            (_, Some(bytes)) => SourceContent::File(Bytes::Memory(Cursor::new(bytes.to_vec()))),
            // What is stored already need not be read again: it is what was listed, whatever the folder holds by now.
            (Content::File { digest, size }, None) if held.holds(digest, *size) => {
                SourceContent::Held { digest: *digest, size: *size }
            }
            (Content::File { .. }, None) => SourceContent::File(Bytes::later(folder, path)),
            (Content::Symlink(target), None) => SourceContent::Symlink(target.clone()),
            (Content::EmptyFolder, None) => SourceContent::Dir,
        };
        files.push((tree_path(path)?, item.mode, content));
    }
    snapshots.capture(files).map_err(|error| failure(&error))
}

fn tree_path(path: &[u8]) -> Result<TreePath, Failure> {
    TreePath::parse(path).map_err(|error| Failure::refused("a file can't be captured").cause(error))
}

/// The bytes of a file that was evaluated.
fn evaluated_as<'a>(evaluated: &'a [(String, Vec<u8>)], path: &[u8]) -> Option<&'a [u8]> {
    evaluated.iter().find(|(name, _)| name.as_bytes() == path).map(|(_, bytes)| bytes.as_slice())
}

/// What is said of a folder that can't be captured.
pub(crate) fn failure(error: &CaptureError) -> Failure {
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

/// The files of a captured folder, for the stack that was captured with them.
pub(crate) struct CapturedFiles<'a> {
    /// What the folder held.
    pub(crate) listing: &'a Listing,
    /// Where the contents are.
    pub(crate) blobs: &'a Blobs,
}

impl Files for CapturedFiles<'_> {
    fn read(&self, path: &str) -> Result<Vec<u8>, FileError> {
        match self.listing.get(path.as_bytes()).map(|item| &item.content) {
            Some(Content::File { digest, .. }) => {
                self.blobs.read_verified(digest).map_err(|error| FileError::Other(error.to_string()))
            }
            _ => Err(FileError::NotFound),
        }
    }

    fn list(&self, glob: &str) -> Result<Vec<String>, FileError> {
        let pattern = glob_pattern(glob).ok_or_else(|| FileError::Other("the glob is not valid".into()))?;
        let names = self.listing.keys().filter_map(|path| String::from_utf8(path.clone()).ok());
        Ok(names.filter(|name| pattern.is_match(name)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use kiln_store::Store;

    use super::*;
    use crate::cli::deploy::folder;

    #[test]
    fn a_captured_folder_gives_its_stack_the_files_that_it_had_then() {
        let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(folder.path().join("play")).unwrap();
        for (name, text) in
            [("stack.hcl", "stack \"a\" {}"), ("motd.txt", "then"), ("play/site.yml", "- hosts: all")]
        {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let store = Store::open(state.path()).unwrap();
        let scanned = folder::scan(folder.path(), &crate::runtime::StateDir::new("/nowhere"), None)
            .unwrap_or_else(|_| panic!("it can be listed"));
        let captured = capture(&store.snapshots, folder.path(), &scanned, &[]);
        let source = captured.unwrap_or_else(|_| panic!("it can be captured"));
        fs::write(folder.path().join("motd.txt"), "now").unwrap();
        let listing = listing(&store.snapshots, &source).unwrap();
        let files = CapturedFiles { listing: &listing, blobs: &store.blobs };
        assert_eq!(files.read("motd.txt").unwrap(), b"then");
        assert_eq!(files.read("play"), Err(FileError::NotFound));
        assert_eq!(files.read("other.txt"), Err(FileError::NotFound));
        assert_eq!(files.list("play/*").unwrap(), ["play/site.yml"]);
    }
}
