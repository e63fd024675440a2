//! File objects: the content of every regular file of every image, each distinct one once.
//!
//! They are the data layer of the overlay that an instance's root is, so each is a plain file of mode 0644 whose path is
//! what the metadata of a tree redirects to: `/ab/<hex>`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_model::Digest;

use crate::error::{PutError, ReadError};
use crate::packs::Packs;
use crate::shelf::{Batch, Shelf, Stored};
use crate::snapshot::Held;

/// The file objects of a store.
#[derive(Debug, Clone)]
pub struct Objects(Shelf);

impl Objects {
    pub(crate) fn open(root: PathBuf, tmp: &Path, packs: &Arc<Packs>) -> io::Result<Self> {
        Shelf::open_with(root, tmp, packs).map(Self)
    }

    pub(crate) const fn shelf(&self) -> &Shelf {
        &self.0
    }

    /// Stores bytes durably.
    ///
    /// # Errors
    /// See [`PutError`]; nothing half-written is visible.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Digest, PutError> {
        self.0.put_bytes(bytes)
    }

    /// Stores what a reader yields, durably.
    ///
    /// # Errors
    /// As [`Objects::put_bytes`].
    pub fn put_reader(&self, reader: impl Read) -> Result<Stored, PutError> {
        self.0.put_reader(reader)
    }

    /// Stores the content of a file, durably. The file must not change meanwhile; where it does, what was read is what is stored.
    ///
    /// # Errors
    /// As [`Objects::put_bytes`]; `Source` where the file can't be read.
    pub fn put_file(&self, path: impl AsRef<Path>) -> Result<Stored, PutError> {
        self.0.put_reader(File::open(path).map_err(PutError::Source)?)
    }

    /// Begins many objects that become durable together: what unpacking a package or a layer needs.
    pub fn batch(&self) -> Batch {
        self.0.batch()
    }

    /// Opens an object without verifying it. One that is packed is unpacked for the reader alone.
    ///
    /// # Errors
    /// `Missing` or `Io`.
    pub fn open_file(&self, digest: &Digest) -> Result<File, ReadError> {
        self.0.open_file(digest)
    }

    /// Reads and verifies a whole object of `limit` bytes at most.
    ///
    /// # Errors
    /// `Corrupt` where the bytes are not those that were stored, `TooLarge` beyond `limit`.
    pub fn read_verified(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, ReadError> {
        self.0.read(digest, limit)
    }

    /// Whether an object is there. Does not verify it.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.0.contains(digest)
    }

    /// Begins to ask which of many objects are there.
    pub fn held(&self) -> Held {
        Held::of(&self.0)
    }

    /// Returns the size of an object that is there.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        self.0.size(digest)
    }

    /// Returns where an object is as a plain file or would be.
    pub fn path_of(&self, digest: &Digest) -> PathBuf {
        self.0.path_of(digest)
    }

    /// Returns the folder of all objects: the data layer of the overlay.
    pub fn root(&self) -> &Path {
        self.0.root()
    }

    /// Removes an object; whether there was one.
    ///
    /// # Errors
    /// The file system refused.
    pub fn remove(&self, digest: &Digest) -> io::Result<bool> {
        self.0.remove(digest)
    }

    /// Lists all objects that are plain files in the order of their digests.
    ///
    /// # Errors
    /// The file system refused.
    pub fn list(&self) -> io::Result<Vec<Digest>> {
        self.0.list()
    }
}
