//! Blobs: manifests, layers, packages, releases, snapshots; anything that is addressed by the sha256 of its bytes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_model::Digest;
use sha2::{Digest as _, Sha256};

use crate::error::{PutError, ReadError};
use crate::packs::{PackError, Packs};
use crate::shelf::{Batch, Shelf, Staged, Stored};

/// A blob larger than this is not held in memory: manifests, configs and indexes are far smaller, layers are streamed.
pub const READ_BYTES_MAX: u64 = 256 << 20;

/// The blobs of a store.
#[derive(Debug, Clone)]
pub struct Blobs(Shelf);

impl Blobs {
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

    /// Adds a blob to a batch of the store, and returns its digest.
    ///
    /// # Errors
    /// As [`Batch::put_bytes`].
    pub fn put_bytes_into(&self, batch: &Batch, bytes: &[u8]) -> Result<Digest, PutError> {
        batch.put_bytes_on(&self.0, bytes).map(|stored| stored.digest)
    }

    /// Begins many small blobs that become durable together.
    pub fn batch(&self) -> Batch {
        self.0.batch()
    }

    /// Opens a blob without verifying it. One that is packed is unpacked for the reader alone.
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

    /// Makes a plain file of a blob that is packed; the packed copy stays.
    ///
    /// # Errors
    /// It can't be read, or written.
    pub fn unpack(&self, digest: &Digest) -> Result<(), PackError> {
        self.0.unpack(std::iter::once(*digest))
    }

    /// Returns where a blob is as a plain file or would be.
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

    /// Lists all blobs that are plain files in the order of their digests.
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

    /// Adds the blob to a batch of the store: it becomes durable and visible with what else is in it.
    pub fn finish_into(self, batch: &Batch) -> Stored {
        batch.keep(&self.shelf, self.staged)
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::Store;
    use crate::canonical::digest_of;

    fn store() -> (tempfile::TempDir, Store) {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        (state, store)
    }

    fn leftovers(state: &tempfile::TempDir) -> usize {
        fs::read_dir(state.path().join("store/tmp")).unwrap().count()
    }

    #[test]
    fn what_was_put_reads_back_in_every_way() {
        let (state, store) = store();
        let bytes: Vec<u8> = (0..300_000u32).map(|number| number as u8).collect();
        let stored = store.blobs.put_reader(&bytes[..]).unwrap();
        assert_eq!(stored, Stored { digest: digest_of(&bytes), size: 300_000 });
        assert_eq!(store.blobs.put_bytes(&bytes).unwrap(), stored.digest);
        let mut writer = store.blobs.writer().unwrap();
        writer.write_all(&bytes).unwrap();
        assert_eq!(writer.finish().unwrap(), stored);
        assert_eq!(store.blobs.put_expected(&stored.digest, &bytes[..]).unwrap(), stored);
        assert_eq!(store.blobs.read_verified(&stored.digest).unwrap(), bytes);
        let mut read = Vec::new();
        store.blobs.open_verified(&stored.digest).unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes);
        assert_eq!(store.blobs.list().unwrap(), [stored.digest]);
        assert_eq!(leftovers(&state), 0);
        assert!(store.blobs.remove(&stored.digest).unwrap());
        assert!(!store.blobs.remove(&stored.digest).unwrap());
        assert!(matches!(store.blobs.read_verified(&stored.digest), Err(ReadError::Missing(_))));
    }

    #[test]
    fn a_corrupt_blob_is_named_whichever_way_it_is_read() {
        let (_state, store) = store();
        let digest = store.blobs.put_bytes(&[7; 200_000]).unwrap();
        let mut bytes = fs::read(store.blobs.path_of(&digest)).unwrap();
        bytes[150_000] ^= 1;
        fs::write(store.blobs.path_of(&digest), &bytes).unwrap();
        let error = store.blobs.read_verified(&digest).unwrap_err();
        assert!(matches!(error, ReadError::Corrupt { digest: it, .. } if it == digest), "{error}");
        assert!(error.is_permanent());
        let error = store.blobs.open_verified(&digest).unwrap().read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains(&digest.hex()), "{error}");
    }

    #[test]
    fn a_blob_that_was_cut_is_repaired_by_putting_it_again() {
        let (_state, store) = store();
        let digest = store.blobs.put_bytes(b"all of it").unwrap();
        fs::write(store.blobs.path_of(&digest), b"all").unwrap();
        store.blobs.put_bytes(b"all of it").unwrap();
        assert_eq!(store.blobs.read_verified(&digest).unwrap(), b"all of it");
    }

    #[test]
    fn bytes_other_than_the_promised_ones_are_not_stored() {
        let (state, store) = store();
        let promised = digest_of(b"promised");
        let error = store.blobs.put_expected(&promised, &b"others"[..]).unwrap_err();
        assert!(matches!(error, PutError::Mismatch { expected, .. } if expected == promised));
        assert_eq!((store.blobs.list().unwrap().len(), leftovers(&state)), (0, 0));
    }

    #[test]
    fn a_source_that_fails_leaves_nothing() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the network is away"))
            }
        }
        let (state, store) = store();
        let error = store.blobs.put_reader((&b"some"[..]).chain(Broken)).unwrap_err();
        assert!(matches!(error, PutError::Source(_)));
        drop(store.blobs.writer().unwrap());
        assert_eq!((store.blobs.list().unwrap().len(), leftovers(&state)), (0, 0));
    }

    #[test]
    fn a_batch_is_invisible_until_it_is_committed() {
        let (state, store) = store();
        for count in [3, 300] {
            let batch = store.objects.batch();
            let put = |number: usize| batch.put_bytes(format!("{count}/{number}").as_bytes()).unwrap().digest;
            // From several threads, and everything twice.
            let digests: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|thread| {
                        scope.spawn(move || (0..count).map(|n| put((n + thread) % count)).collect::<Vec<_>>())
                    })
                    .collect();
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
            });
            assert!(digests.iter().all(|digest| !store.objects.contains(digest)));
            batch.commit().unwrap();
            assert!(digests.iter().all(|digest| store.objects.read_verified(digest, 100).is_ok()));
        }
        assert_eq!(store.objects.list().unwrap().len(), 303);
        let dropped = store.objects.batch();
        dropped.put_bytes(b"dropped").unwrap();
        drop(dropped);
        assert_eq!(leftovers(&state), 0);
    }

    #[test]
    fn a_batch_takes_blobs_objects_and_trees_and_all_of_it_becomes_visible_with_it() {
        let (state, store) = store();
        let tree = crate::Tree::new();
        let (count, expected) = (store.trees.list().unwrap().len(), digest_of(b"manifest"));
        let batch = store.objects.batch();
        let object = batch.put_bytes(b"object").unwrap().digest;
        let blob = store.blobs.put_bytes_into(&batch, b"manifest").unwrap();
        assert_eq!((blob, store.blobs.put_bytes_into(&batch, b"manifest").unwrap()), (expected, expected));
        // The same bytes are a blob and an object, each in its place.
        let both = store.blobs.put_bytes_into(&batch, b"object").unwrap();
        let mut writer = store.blobs.writer().unwrap();
        writer.write_all(b"layer").unwrap();
        let layer = writer.finish_into(&batch).digest;
        let tree = store.trees.put_into(&batch, &tree).unwrap();
        assert!(![blob, both, layer].iter().any(|digest| store.blobs.contains(digest)));
        assert!(!store.objects.contains(&object) && !store.trees.contains(&tree));
        batch.commit().unwrap();
        assert_eq!(store.blobs.read_verified(&layer).unwrap(), b"layer");
        assert_eq!(store.blobs.list().unwrap().len(), 3);
        assert_eq!(store.objects.list().unwrap(), [object]);
        assert_eq!(store.trees.list().unwrap().len(), count + 1);
        assert_eq!(store.trees.load(&tree).unwrap(), crate::Tree::new());
        assert_eq!(leftovers(&state), 0);
    }

    #[test]
    fn opening_sweeps_what_dead_writers_left_and_nothing_of_the_living() {
        let (state, store) = store();
        let tmp = state.path().join("store/tmp");
        fs::write(tmp.join("1.18446744073709551615.7"), b"dead").unwrap();
        fs::write(tmp.join("odd"), b"nobody's").unwrap();
        let writer = store.blobs.writer().unwrap();
        let again = Store::open(state.path()).unwrap();
        assert_eq!(leftovers(&state), 1);
        let stored = writer.finish().unwrap();
        assert!(again.blobs.contains(&stored.digest));
    }

    #[test]
    fn an_umask_does_not_show_in_what_is_stored() {
        use std::os::unix::fs::MetadataExt;
        let (_state, store) = store();
        let digest = store.objects.put_bytes(b"x").unwrap();
        assert_eq!(fs::metadata(store.objects.path_of(&digest)).unwrap().mode(), 0o100_644);
    }
}
