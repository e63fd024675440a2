//! What makes a killed host lose no line and repeat none: a note about the batch that is being moved from a fifo to a segment.
//!
//! A batch is copied out of the fifo, noted, written to the segment, taken out of the fifo, and its note is cleared. A host that finds a
//! note knows that it belongs to the end of the newest segment, and whether the batch is still in the fifo: by its hash.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Length, hash, segment, offset of the segment's end before and after.
const WORDS: usize = 5;
const BYTES: usize = WORDS * 8;
/// The file, in the instance's folder: one note per stream.
const FILE: &str = "moving";

/// The notes of one instance.
#[derive(Debug)]
pub(crate) struct Notes {
    file: File,
}

/// A batch that is being moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moving {
    /// The length of what is moved; never 0.
    pub(crate) length: u64,
    /// A hash of it.
    pub(crate) hash: u64,
    /// The segment that it goes to.
    pub(crate) segment: u64,
    /// The segment's length before.
    pub(crate) before: u64,
    /// The segment's length after.
    pub(crate) after: u64,
}

impl Notes {
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(folder.join(FILE))?;
        Ok(Self { file })
    }

    /// Notes that a batch is about to be moved. In one write, which a SIGKILL does not tear: it is less than a page.
    pub(crate) fn note(&self, stream: usize, moving: Moving) -> io::Result<()> {
        let Moving { length, hash, segment, before, after } = moving;
        let mut bytes = [0; BYTES];
        for (word, value) in bytes.chunks_exact_mut(8).zip([length, hash, segment, before, after]) {
            word.copy_from_slice(&value.to_le_bytes());
        }
        self.file.write_all_at(&bytes, (stream * BYTES) as u64)
    }

    /// Notes that nothing is being moved.
    pub(crate) fn clear(&self, stream: usize) -> io::Result<()> {
        self.file.write_all_at(&[0; 8], (stream * BYTES) as u64)
    }

    /// Returns what was being moved when the last host ended.
    pub(crate) fn read(&self, stream: usize) -> Option<Moving> {
        let mut bytes = [0; BYTES];
        self.file.read_exact_at(&mut bytes, (stream * BYTES) as u64).ok()?;
        let mut words =
            bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
        let mut next = || words.next();
        let moving =
            Moving { length: next()?, hash: next()?, segment: next()?, before: next()?, after: next()? };
        (moving.length > 0).then_some(moving)
    }
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo): it tells apart what was moved from what came later, not from what somebody made up.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_found_by_the_next_host_until_it_is_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let notes = Notes::open(folder.path()).unwrap();
        assert_eq!(notes.read(0), None);
        let moving = Moving { length: 3, hash: hash(b"abc"), segment: 1, before: 7, after: 30 };
        notes.note(1, moving).unwrap();
        let next = Notes::open(folder.path()).unwrap();
        assert_eq!((next.read(0), next.read(1)), (None, Some(moving)));
        next.clear(1).unwrap();
        assert_eq!(Notes::open(folder.path()).unwrap().read(1), None);
    }
}
