//! The index of the packs: which stored bytes are which chunks, and where those lie.
//!
//! One file, `packs/index`, replaced as a whole: what it says is what is packed. All numbers are little-endian.
//!
//! | bytes | |
//! |---|---|
//! | 16 | `kiln-packs/1`, then zeros |
//! | 5 × 4 | how many packs, frames, chunks, items and parts follow |
//! | 32 each | packs: the sha256 of the file, which is its name in `packs/data` |
//! | 4, 8, 4, 4 each | frames: number of the pack, offset in it, bytes there, bytes once decompressed |
//! | 32, 4, 4, 4 each | chunks: sha256, number of the frame, offset in what it decompresses to, bytes |
//! | 32, 8, 1, 4 each | items in the order of their digests: sha256, size, form (0 as it is, 1 as zstd of level 3), how many parts |
//! | 4 each | parts: numbers of chunks, the items' one after the other |
//! | 32 | the sha256 of all of the above |
//!
//! A pack is `kiln-pack/1\n` and its frames, each a zstd frame of its own.

use std::collections::HashMap;

use kiln_model::Digest;

use crate::shelf::sha256;

const MAGIC: &[u8; 16] = b"kiln-packs/1\0\0\0\0";
const COUNTS: usize = 5;
const DIGEST_BYTES: usize = 32;

/// A run of chunks that is compressed as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) pack: u32,
    pub(super) offset: u64,
    pub(super) packed_bytes: u32,
    pub(super) bytes: u32,
}

/// A piece of content, stored once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) digest: Digest,
    pub(super) frame: u32,
    pub(super) offset: u32,
    pub(super) bytes: u32,
}

/// How the bytes of an item follow from its chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// They are the chunks, one after the other.
    Plain,
    /// They are what zstd makes of the chunks at the level of layers.
    Zstd,
}

/// Something that is packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) size: u64,
    pub(super) form: Form,
    /// Numbers of chunks.
    pub(super) parts: Vec<u32>,
}

/// What is packed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) packs: Vec<Digest>,
    pub(super) frames: Vec<Frame>,
    pub(super) chunks: Vec<Chunk>,
    pub(super) items: HashMap<Digest, Item>,
}

impl Index {
    /// Returns the bytes of the file. The same content gives the same bytes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut items: Vec<_> = self.items.iter().collect();
        items.sort_unstable_by_key(|(digest, _)| **digest);
        let parts: usize = items.iter().map(|(_, item)| item.parts.len()).sum();
        let mut out = MAGIC.to_vec();
        for count in [self.packs.len(), self.frames.len(), self.chunks.len(), items.len(), parts] {
            let count =
                u32::try_from(count).expect("an index of four billion entries does not fit in memory");
            out.extend(count.to_le_bytes());
        }
        self.packs.iter().for_each(|pack| out.extend(pack.as_bytes()));
        for frame in &self.frames {
            out.extend(frame.pack.to_le_bytes());
            out.extend(frame.offset.to_le_bytes());
            out.extend(frame.packed_bytes.to_le_bytes());
            out.extend(frame.bytes.to_le_bytes());
        }
        for chunk in &self.chunks {
            out.extend(chunk.digest.as_bytes());
            [chunk.frame, chunk.offset, chunk.bytes]
                .iter()
                .for_each(|number| out.extend(number.to_le_bytes()));
        }
        for (digest, item) in &items {
            out.extend(digest.as_bytes());
            out.extend(item.size.to_le_bytes());
            out.push(match item.form {
                Form::Plain => 0,
                Form::Zstd => 1,
            });
            let parts = u32::try_from(item.parts.len()).expect("counted above");
            out.extend(parts.to_le_bytes());
        }
        for (_, item) in &items {
            item.parts.iter().for_each(|part| out.extend(part.to_le_bytes()));
        }
        let checksum = sha256(&out);
        out.extend(checksum.as_bytes());
        out
    }

    /// Reads what [`Index::to_bytes`] wrote.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let (body, checksum) =
            bytes.split_at_checked(bytes.len().saturating_sub(DIGEST_BYTES)).ok_or("it is cut")?;
        if sha256(body).as_bytes() != checksum {
            return Err("its checksum is another");
        }
        let mut reader = Reader(body.strip_prefix(MAGIC).ok_or("a later Kiln wrote it")?);
        let mut counts = [0; COUNTS];
        for count in &mut counts {
            *count = reader.u32()? as usize;
        }
        let [packs, frames, chunks, items, _] = counts;
        let mut index = Self::default();
        for _ in 0..packs {
            index.packs.push(reader.digest()?);
        }
        for _ in 0..frames {
            let (pack, offset) = (reader.u32()?, reader.u64()?);
            index.frames.push(Frame { pack, offset, packed_bytes: reader.u32()?, bytes: reader.u32()? });
        }
        for _ in 0..chunks {
            let (digest, frame) = (reader.digest()?, reader.u32()?);
            index.chunks.push(Chunk { digest, frame, offset: reader.u32()?, bytes: reader.u32()? });
        }
        let mut heads = Vec::new();
        for _ in 0..items {
            let (digest, size) = (reader.digest()?, reader.u64()?);
            let form = match reader.take::<1>()? {
                [0] => Form::Plain,
                [1] => Form::Zstd,
                _ => return Err("it names a form that is none"),
            };
            heads.push((digest, size, form, reader.u32()?));
        }
        for (digest, size, form, count) in heads {
            let parts = (0..count).map(|_| reader.u32()).collect::<Result<Vec<_>, _>>()?;
            index.items.insert(digest, Item { size, form, parts });
        }
        if !reader.0.is_empty() {
            return Err("there is more than it says");
        }
        index.check()
    }

    /// Every number leads somewhere, so that whoever follows one need not look.
    fn check(self) -> Result<Self, &'static str> {
        let packs = self.frames.iter().all(|frame| (frame.pack as usize) < self.packs.len());
        let within = |chunk: &Chunk| {
            let frame = self.frames.get(chunk.frame as usize)?;
            let end = u64::from(chunk.offset) + u64::from(chunk.bytes);
            Some(end <= u64::from(frame.bytes))
        };
        let chunks = self.chunks.iter().all(|chunk| within(chunk) == Some(true));
        let parts =
            self.items.values().flat_map(|item| &item.parts).all(|part| (*part as usize) < self.chunks.len());
        if packs && chunks && parts { Ok(self) } else { Err("a number in it leads nowhere") }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or("it ends too early")?;
        self.0 = rest;
        Ok(*head)
    }

    fn u32(&mut self) -> Result<u32, &'static str> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, &'static str> {
        self.take().map(u64::from_le_bytes)
    }

    fn digest(&mut self) -> Result<Digest, &'static str> {
        self.take().map(Digest::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        Index {
            packs: vec![Digest::new([1; 32])],
            frames: vec![Frame { pack: 0, offset: 12, packed_bytes: 5, bytes: 9 }],
            chunks: vec![Chunk { digest: Digest::new([2; 32]), frame: 0, offset: 4, bytes: 5 }],
            items: HashMap::from([
                (Digest::new([3; 32]), Item { size: 10, form: Form::Plain, parts: vec![0, 0] }),
                (Digest::new([4; 32]), Item { size: 7, form: Form::Zstd, parts: vec![0] }),
            ]),
        }
    }

    #[test]
    fn the_bytes_are_these_and_read_back() {
        let bytes = index().to_bytes();
        let expected = [
            "6b696c6e2d7061636b732f3100000000",
            "0100000001000000010000000200000003000000",
            &"01".repeat(32),
            "000000000c000000000000000500000009000000",
            &"02".repeat(32),
            "000000000400000005000000",
            &"03".repeat(32),
            "0a000000000000000002000000",
            &"04".repeat(32),
            "07000000000000000101000000",
            "000000000000000000000000",
        ];
        let hex: String = bytes[..bytes.len() - 32].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected.concat(), "stored bytes have changed");
        assert_eq!(Index::parse(&bytes), Ok(index()));
        assert_eq!(Index::parse(&Index::default().to_bytes()), Ok(Index::default()));
    }

    #[test]
    fn whatever_is_changed_or_cut_is_found() {
        let bytes = index().to_bytes();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Index::parse(&changed).is_err(), "byte {at}");
            assert!(Index::parse(&bytes[..at]).is_err(), "cut at {at}");
        }
        let mut wrong = index();
        wrong.chunks[0].offset = 5;
        assert_eq!(Index::parse(&wrong.to_bytes()), Err("a number in it leads nowhere"));
    }
}
