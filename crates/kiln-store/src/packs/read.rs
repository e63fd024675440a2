//! Reading what is packed.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Seek, Write};
use std::os::unix::fs::FileExt;
use std::panic::resume_unwind;
use std::sync::Arc;

use kiln_model::Digest;

use super::Packs;
use super::index::{Form, Index};
use super::write::{FRAME_BYTES_MAX, LAYER_BUFFER_BYTES, LAYER_LEVEL};
use crate::error::{PutError, ReadError};
use crate::shelf::{Shelf, Staged};

/// Decompressed frames that a process keeps: a file's chunks lie in one or two, and files that were packed together are read together.
const FRAMES_KEPT_MAX: usize = 8;

/// Threads that unpack at once: each reads a frame of its own, and all of them find theirs among those that are kept.
const UNPACKERS_MAX: usize = 4;

/// The frames that were read last, the newest first.
#[derive(Debug, Default)]
pub(super) struct Frames(VecDeque<(u32, Arc<Vec<u8>>)>);

impl Frames {
    fn get(&mut self, number: u32) -> Option<Arc<Vec<u8>>> {
        let at = self.0.iter().position(|(it, _)| *it == number)?;
        let found = self.0.remove(at)?;
        self.0.push_front(found);
        self.0.front().map(|(_, bytes)| Arc::clone(bytes))
    }

    fn put(&mut self, number: u32, bytes: &Arc<Vec<u8>>) {
        self.0.truncate(FRAMES_KEPT_MAX - 1);
        self.0.push_front((number, Arc::clone(bytes)));
    }
}

/// Something can't be packed, or what is packed can't be made a plain file. What was there before is there.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// It can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It can't be written.
    #[error(transparent)]
    Put(#[from] PutError),
    /// A plain file can't be read.
    #[error("a stored file can't be read")]
    Source(#[from] io::Error),
}

impl Packs {
    /// Opens something packed as a file without a name that holds its bytes, verified.
    pub(crate) fn open_file(&self, digest: &Digest) -> Result<File, ReadError> {
        let failed = |error: PutError| match error {
            PutError::Io { path, source } => ReadError::Io { path, source },
            error => ReadError::at(&self.tmp)(io::Error::other(error)),
        };
        let staged = match self.stage(digest, || Staged::create(&self.tmp)) {
            Ok(staged) => staged,
            Err(PackError::Read(error)) => return Err(error),
            Err(PackError::Put(error)) => return Err(failed(error)),
            Err(PackError::Source(error)) => return Err(ReadError::at(&self.tmp)(error)),
        };
        // The name goes with `staged`; whoever has it open reads on.
        staged.reopen().and_then(|mut file| file.rewind().map(|()| file)).map_err(ReadError::at(&self.tmp))
    }

    /// Makes plain files of those of `digests` that are packed alone. What has a name is durable; the name need not be.
    pub(crate) fn unpack(
        &self,
        shelf: &Shelf,
        digests: impl Iterator<Item = Digest>,
    ) -> Result<(), PackError> {
        let index = self.index()?;
        let first = |digest: &Digest| index.items.get(digest).map(|item| item.parts.first().copied());
        let mut wanted: Vec<_> = digests
            .filter(|digest| !shelf.contains_plain(digest))
            .filter_map(|digest| first(&digest).map(|chunk| (chunk, digest)))
            .collect();
        // In the order in which they lie in the packs, so that each frame is decompressed once.
        wanted.sort_unstable();
        wanted.dedup();
        let batch = shelf.batch();
        let stage_all = |part: &[(Option<u32>, Digest)]| {
            part.iter().try_for_each(|(_, digest)| {
                self.stage(digest, || batch.stage()).map(|staged| batch.add(staged))
            })
        };
        // Decompressing, hashing and making files take the time, and no file needs another.
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(UNPACKERS_MAX);
        let mut parts = wanted.chunks(wanted.len().div_ceil(cores).max(1));
        let own = parts.next().unwrap_or_default();
        std::thread::scope(|scope| {
            let others: Vec<_> = parts.map(|part| scope.spawn(|| stage_all(part))).collect();
            let own = stage_all(own);
            let others = others.into_iter().map(|it| it.join().unwrap_or_else(|panic| resume_unwind(panic)));
            // All have ended before the first error is told.
            others.fold(own, |ended, other| ended.and(other))
        })?;
        Ok(batch.commit_content()?)
    }

    /// Writes something packed into a file without its name yet, and verifies it.
    fn stage(
        &self,
        digest: &Digest,
        create: impl Fn() -> Result<Staged, PutError>,
    ) -> Result<Staged, PackError> {
        let staged = match self.try_stage(digest, create()?) {
            // A collection wrote the packs anew after the index was read: the new one says where the bytes are.
            Err(PackError::Read(ReadError::Missing(pack))) if pack != *digest => {
                self.try_stage(digest, create()?)?
            }
            other => other?,
        };
        let found = staged.stored().digest;
        if found != *digest {
            return Err(ReadError::corrupt(digest, format!("what was packed of it hashes to {found}")).into());
        }
        Ok(staged)
    }

    fn try_stage(&self, digest: &Digest, mut staged: Staged) -> Result<Staged, PackError> {
        let index = self.index()?;
        let item = index.items.get(digest).ok_or(ReadError::Missing(*digest))?;
        match item.form {
            Form::Plain => self.copy(&index, &item.parts, &mut staged)?,
            Form::Zstd => {
                let at = |error| PutError::at(&self.tmp)(error);
                let encoder = zstd::stream::write::Encoder::new(&mut staged, LAYER_LEVEL).map_err(at)?;
                let mut buffered = BufWriter::with_capacity(LAYER_BUFFER_BYTES, encoder);
                self.copy(&index, &item.parts, &mut buffered)?;
                let encoder = buffered.into_inner().map_err(|error| at(error.into_error()))?;
                encoder.finish().map_err(at)?;
            }
        }
        Ok(staged)
    }

    fn copy(&self, index: &Index, parts: &[u32], out: &mut impl Write) -> Result<(), PackError> {
        for part in parts {
            let chunk = index.chunks[*part as usize];
            let frame = self.frame(index, chunk.frame)?;
            let start = chunk.offset as usize;
            let bytes = &frame[start..start + chunk.bytes as usize];
            out.write_all(bytes).map_err(PutError::at(&self.tmp))?;
        }
        Ok(())
    }

    /// Returns the bytes of a chunk.
    pub(super) fn chunk(&self, index: &Index, number: u32) -> Result<Vec<u8>, PackError> {
        let mut bytes = Vec::with_capacity(index.chunks[number as usize].bytes as usize);
        self.copy(index, &[number], &mut bytes)?;
        Ok(bytes)
    }

    /// Decompresses a frame, or finds it among those that were read last.
    fn frame(&self, index: &Index, number: u32) -> Result<Arc<Vec<u8>>, ReadError> {
        {
            let mut seen = self.seen();
            // Another thread may have read a newer index: its numbers mean other frames.
            if std::ptr::eq(Arc::as_ptr(&seen.index), index)
                && let Some(found) = seen.frames.get(number)
            {
                return Ok(found);
            }
        }
        let frame = index.frames[number as usize];
        let pack = index.packs[frame.pack as usize];
        let wrong = |reason: String| ReadError::corrupt(&pack, reason);
        if frame.bytes as usize > FRAME_BYTES_MAX {
            return Err(wrong(format!("a frame of {} bytes is none of ours", frame.bytes)));
        }
        let mut packed = vec![0; frame.packed_bytes as usize];
        self.data.open_file(&pack)?.read_exact_at(&mut packed, frame.offset).map_err(|error| match error
            .kind()
        {
            ErrorKind::UnexpectedEof => wrong("the pack is cut".into()),
            _ => ReadError::at(self.data.path_of(&pack))(error),
        })?;
        let bytes = zstd::bulk::decompress(&packed, frame.bytes as usize)
            .map_err(|error| wrong(format!("a frame can't be decompressed: {error}")))?;
        if bytes.len() != frame.bytes as usize {
            return Err(wrong(format!("a frame has {} bytes in place of {}", bytes.len(), frame.bytes)));
        }
        let bytes = Arc::new(bytes);
        let mut seen = self.seen();
        if std::ptr::eq(Arc::as_ptr(&seen.index), index) {
            seen.frames.put(number, &bytes);
        }
        Ok(bytes)
    }
}
