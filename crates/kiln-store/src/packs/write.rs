//! Writing packs.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};

use kiln_model::Digest;
use sha2::{Digest as _, Sha256};

use super::cut;
use super::index::{Chunk, Form, Frame, Index, Item};
use super::{Packs, read::PackError};
use crate::error::{PutError, ReadError};
use crate::shelf::{Shelf, Staged, sha256};

/// What is compressed as one: large enough that small files help each other, small enough that reading one of them is cheap.
pub(super) const FRAME_BYTES_MAX: usize = 1 << 20;
/// A pack is whole before the next begins: so much is lost at most when packing is cut short, and a collection that writes a
/// pack anew needs so much room at most.
const PACK_BYTES_MAX: u64 = 64 << 20;
/// Packing keeps up with the disk, and unpacking does not depend on it.
const LEVEL: i32 = 3;
/// As `kiln-bake` makes layers: level and buffer. A layer that was made in another way is not packed, which a test of `kiln-bake` would
/// notice.
pub(super) const LAYER_LEVEL: i32 = 3;
pub(super) const LAYER_BUFFER_BYTES: usize = 128 << 10;

const MAGIC: &[u8] = b"kiln-pack/1\n";

/// What something is that may be packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The content of a file.
    Object,
    /// A tar that is compressed with zstd. It is packed if compressing it again gives the same bytes.
    Layer,
}

/// An index that grows, and the pack that is being written.
pub(super) struct Packer<'a> {
    packs: &'a Packs,
    pub(super) index: Index,
    known: HashMap<Digest, u32>,
    frame: Vec<u8>,
    staged: Option<Staged>,
    written: u64,
}

impl Packs {
    /// Copies plain files into packs. What is packed already, what is not what its digest says, and layers that can't be made
    /// again to the byte are left out. The plain files stay. Returns the bytes that the packs grew by.
    pub(crate) fn add<'s>(
        &self,
        sources: impl Iterator<Item = (Kind, Digest, &'s Shelf)>,
    ) -> Result<u64, PackError> {
        let mut sources = sources.peekable();
        let mut added = 0;
        // The right to write is given back between packs: whoever discards a damaged file waits for one pack at most.
        while sources.peek().is_some() {
            let _writing = self.writing()?;
            let mut packer = Packer::new(self, Index::clone(&*self.index()?));
            while packer.written < PACK_BYTES_MAX
                && let Some((kind, digest, shelf)) = sources.next()
            {
                if !packer.index.items.contains_key(&digest) {
                    packer.add(kind, &digest, shelf)?;
                }
            }
            added += packer.finish()?;
        }
        Ok(added)
    }
}

impl<'a> Packer<'a> {
    pub(super) fn new(packs: &'a Packs, index: Index) -> Self {
        let chunks = index.chunks.iter().zip(0..);
        let known = chunks.map(|(chunk, number)| (chunk.digest, number)).collect();
        Self { packs, index, known, frame: Vec::new(), staged: None, written: 0 }
    }

    fn add(&mut self, kind: Kind, digest: &Digest, shelf: &Shelf) -> Result<(), PackError> {
        let Some((file, size)) = plain(digest, shelf)? else { return Ok(()) };
        let mut parts = Vec::new();
        let mut keep = |bytes: &[u8]| {
            parts.push(self.keep(bytes)?);
            Ok::<(), PackError>(())
        };
        let form = match kind {
            Kind::Object => {
                let mut hash = Sha256::new();
                cut::content(Tee(file, &mut hash), size, &mut keep)?;
                // A damaged file stays as it is, for whoever verifies it to find.
                if Digest::new(hash.finalize().into()) != *digest {
                    return Ok(());
                }
                Form::Plain
            }
            Kind::Layer => {
                if !comes_out_the_same(digest, file).unwrap_or(false) {
                    return Ok(());
                }
                let Some((file, _)) = plain(digest, shelf)? else { return Ok(()) };
                let decoder = zstd::stream::read::Decoder::new(file)?;
                cut::tar(decoder, &mut keep)?;
                Form::Zstd
            }
        };
        self.index.items.insert(*digest, Item { size, form, parts });
        Ok(())
    }

    /// Stores a chunk unless it is there, and returns its number.
    pub(super) fn keep(&mut self, bytes: &[u8]) -> Result<u32, PackError> {
        let digest = sha256(bytes);
        if let Some(number) = self.known.get(&digest) {
            return Ok(*number);
        }
        if self.frame.len() + bytes.len() > FRAME_BYTES_MAX {
            self.end_frame()?;
        }
        let short = |number: usize| {
            u32::try_from(number).expect("an index of four billion entries fits in no memory")
        };
        let number = short(self.index.chunks.len());
        let (frame, offset) = (short(self.index.frames.len()), short(self.frame.len()));
        self.index.chunks.push(Chunk { digest, frame, offset, bytes: short(bytes.len()) });
        self.frame.extend_from_slice(bytes);
        self.known.insert(digest, number);
        Ok(number)
    }

    fn end_frame(&mut self) -> Result<(), PackError> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let at = |error| PutError::at(&self.packs.tmp)(error);
        let packed = zstd::bulk::compress(&self.frame, LEVEL).map_err(at)?;
        // The plain files go because of this: what can't be had back is found out while they are there.
        let back = zstd::bulk::decompress(&packed, self.frame.len()).map_err(at)?;
        if back != self.frame {
            let error = io::Error::other("what was compressed does not decompress to what it was");
            return Err(PutError::at(&self.packs.tmp)(error).into());
        }
        let mut staged = match self.staged.take() {
            Some(staged) => staged,
            None => {
                let mut staged = Staged::create(&self.packs.tmp)?;
                staged.write_all(MAGIC).map_err(at)?;
                self.written = MAGIC.len() as u64;
                staged
            }
        };
        staged.write_all(&packed).map_err(at)?;
        let short = |number: usize| u32::try_from(number).expect("a frame is small, and packs are few");
        self.index.frames.push(Frame {
            pack: short(self.index.packs.len()),
            offset: self.written,
            packed_bytes: short(packed.len()),
            bytes: short(self.frame.len()),
        });
        self.written += packed.len() as u64;
        self.staged = Some(staged);
        self.frame.clear();
        Ok(())
    }

    /// Makes the pack durable, then the index that names it; returns the bytes of the pack.
    pub(super) fn finish(mut self) -> Result<u64, PackError> {
        self.end_frame()?;
        let mut bytes = 0;
        if let Some(staged) = self.staged.take() {
            let stored = self.packs.data.finish(staged)?;
            self.index.packs.push(stored.digest);
            bytes = stored.size;
        }
        self.packs.save(&self.index)?;
        Ok(bytes)
    }
}

/// Opens a plain file; none where there is none any more.
fn plain(digest: &Digest, shelf: &Shelf) -> Result<Option<(File, u64)>, ReadError> {
    let path = shelf.path_of(digest);
    match File::open(&path).and_then(|file| file.metadata().map(|meta| (file, meta.len()))) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ReadError::at(path)(error)),
    }
}

/// Whether a layer, decompressed and compressed again, is what it was.
fn comes_out_the_same(digest: &Digest, layer: File) -> io::Result<bool> {
    let mut decoder = zstd::stream::read::Decoder::new(layer)?;
    let encoder = zstd::stream::write::Encoder::new(Hash(Sha256::new()), LAYER_LEVEL)?;
    let mut buffered = BufWriter::with_capacity(LAYER_BUFFER_BYTES, encoder);
    io::copy(&mut decoder, &mut buffered)?;
    let Hash(hash) = buffered.into_inner().map_err(|error| error.into_error())?.finish()?;
    Ok(Digest::new(hash.finalize().into()) == *digest)
}

/// A writer that only hashes.
struct Hash(Sha256);

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A reader that hashes what passes.
struct Tee<'h>(File, &'h mut Sha256);

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1.update(&buffer[..count]);
        Ok(count)
    }
}
