//! Blobs: manifests, layers, packages, releases, snapshots; anything that is addressed by the sha256 of its bytes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use kiln_model::Digest;
use sha2::{Digest as _, Sha256};

use crate::error::{PutError, ReadError};
use crate::shelf::{Batch, Shelf, Staged, Stored};

/// A blob larger than this is not held in memory: manifests, configs and indexes are far smaller, layers are streamed.
pub const READ_BYTES_MAX: u64 = 256 << 20;

/// The blobs of a store.
#[derive(Debug, Clone)]
pub struct Blobs(Shelf);

impl Blobs {
    pub(crate) fn open(root: PathBuf, tmp: &Path) -> io::Result<Self> {
        Shelf::open(root, tmp).map(Self)
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
    /// As [`Blobs::put_bytes`].
    pub fn put_reader(&self, reader: impl Read) -> Result<Stored, PutError> {
        self.0.put_reader(reader)
    }

    /// Stores what a reader yields if its bytes are the promised ones, durably.
    ///
    /// # Errors
    /// `Mismatch`: they are not, and nothing was stored.
    pub fn put_expected(&self, expected: &Digest, reader: impl Read) -> Result<Stored, PutError> {
        let mut staged = self.0.stage()?;
        staged.fill(reader)?;
        let found = staged.stored().digest;
        if found != *expected {
            return Err(PutError::Mismatch { expected: *expected, found });
        }
        self.0.finish(staged)
    }

    /// Begins a blob whose bytes are written piece by piece.
    ///
    /// # Errors
    /// As [`Blobs::put_bytes`].
    pub fn writer(&self) -> Result<BlobWriter, PutError> {
        self.0.stage().map(|staged| BlobWriter { shelf: self.0.clone(), staged })
    }

    /// Begins many small blobs that become durable together.
    pub fn batch(&self) -> Batch {
        self.0.batch()
    }

    /// Opens a blob without verifying it.
    ///
    /// # Errors
    /// `Missing` or `Io`.
    pub fn open_file(&self, digest: &Digest) -> Result<File, ReadError> {
        self.0.open_file(digest)
    }

    /// Opens a blob; the reader verifies what passes and fails at the end where the bytes are not those that were stored.
    ///
    /// # Errors
    /// `Missing` or `Io`.
    pub fn open_verified(&self, digest: &Digest) -> Result<BlobReader, ReadError> {
        let file = self.0.open_file(digest)?;
        Ok(BlobReader { file, expected: *digest, hash: Sha256::new() })
    }

    /// Reads and verifies a whole blob of [`READ_BYTES_MAX`] at most.
    ///
    /// # Errors
    /// `Corrupt` where the bytes are not those that were stored.
    pub fn read_verified(&self, digest: &Digest) -> Result<Vec<u8>, ReadError> {
        self.0.read(digest, READ_BYTES_MAX)
    }

    /// Whether a blob is there. Does not verify it.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.0.contains(digest)
    }

    /// Returns the size of a blob that is there.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        self.0.size(digest)
    }

    /// Returns where a blob is or would be.
    pub fn path_of(&self, digest: &Digest) -> PathBuf {
        self.0.path_of(digest)
    }

    /// Removes a blob; whether there was one.
    ///
    /// # Errors
    /// The file system refused.
    pub fn remove(&self, digest: &Digest) -> io::Result<bool> {
        self.0.remove(digest)
    }

    /// Lists all blobs in the order of their digests.
    ///
    /// # Errors
    /// The file system refused.
    pub fn list(&self) -> io::Result<Vec<Digest>> {
        self.0.list()
    }
}

/// A blob that is being written; dropping it forgets it.
#[derive(Debug)]
pub struct BlobWriter {
    shelf: Shelf,
    staged: Staged,
}

impl BlobWriter {
    /// Makes the blob durable and visible.
    ///
    /// # Errors
    /// See [`PutError`]; nothing half-written is visible.
    pub fn finish(self) -> Result<Stored, PutError> {
        self.shelf.finish(self.staged)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.staged.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a blob and verifies it on the way.
#[derive(Debug)]
pub struct BlobReader {
    file: File,
    expected: Digest,
    hash: Sha256,
}

impl Read for BlobReader {
    /// Fails with `InvalidData` at the end of a blob whose bytes are not those that were stored.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.file.read(buffer)?;
        if count > 0 {
            self.hash.update(&buffer[..count]);
            return Ok(count);
        }
        let found = Digest::new(self.hash.clone().finalize().into());
        if found == self.expected {
            return Ok(0);
        }
        let corrupt = ReadError::corrupt(&self.expected, format!("its bytes hash to {found}"));
        Err(io::Error::new(io::ErrorKind::InvalidData, corrupt))
    }
}
