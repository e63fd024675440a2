//! Tars as outside bytes: the general reader takes a name or an extended header into memory, however long it says that it is.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// What may be read between two contents: headers, names of 4 KiB, extended attributes of 64 KiB, and room to spare.
const HEADERS_BYTES_MAX: u64 = 1 << 20;

/// Blocks of a tar; what an entry is padded to.
const BLOCK_BYTES: u64 = 512;

/// Headers are longer than any that has a meaning.
#[derive(Debug, thiserror::Error)]
#[error("it has names or attributes of more than {HEADERS_BYTES_MAX} bytes")]
struct Long;

/// A reader that ends when more is read than entries and their headers may have.
pub(crate) struct Guarded<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

/// What may still be read; told of each entry.
pub(crate) struct Allowance(Rc<Cell<u64>>);

/// Guards the reader of an archive.
pub(crate) fn guard<R>(inner: R) -> (Guarded<R>, Allowance) {
    let left = Rc::new(Cell::new(HEADERS_BYTES_MAX));
    (Guarded { inner, left: Rc::clone(&left) }, Allowance(left))
}

impl Allowance {
    /// An entry of this size begins: it may be read, and the headers of the next one.
    pub(crate) fn entry(&self, size: u64) {
        self.0.set(size.saturating_add(BLOCK_BYTES + HEADERS_BYTES_MAX));
    }
}

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let left = self.left.get().checked_sub(count as u64).ok_or_else(|| io::Error::other(Long))?;
        self.left.set(left);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts what is read.
    struct Counted<R>(R, Rc<Cell<u64>>);

    impl<R: Read> Read for Counted<R> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.read(buffer)?;
            self.1.set(self.1.get() + count as u64);
            Ok(count)
        }
    }

    #[test]
    fn a_header_without_end_is_not_read_into_memory() {
        for kind in [tar::EntryType::GNULongName, tar::EntryType::GNULongLink, tar::EntryType::XHeader] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(1 << 40);
            header.set_cksum();
            let read = Rc::new(Cell::new(0));
            let endless = io::Cursor::new(header.as_bytes().to_vec()).chain(io::repeat(b'1'));
            let (guarded, _allowance) = guard(Counted(endless, Rc::clone(&read)));
            let error = tar::Archive::new(guarded).entries().unwrap().next().unwrap().err().unwrap();
            assert!(error.to_string().contains("more than 1048576 bytes"), "{error}");
            assert!(read.get() < 2 * HEADERS_BYTES_MAX);
        }
    }

    #[test]
    fn contents_are_as_long_as_they_are() {
        let mut builder = tar::Builder::new(Vec::new());
        for size in [0, 1, 700, 3 << 20] {
            let mut header = tar::Header::new_gnu();
            header.set_size(size);
            let content = io::repeat(7).take(size);
            builder.append_data(&mut header, format!("{size}/{}", "n".repeat(300)), content).unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        let (guarded, allowance) = guard(&bytes[..]);
        let mut archive = tar::Archive::new(guarded);
        let mut sizes = Vec::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            allowance.entry(entry.size());
            // Some are read and some are not.
            sizes.push(entry.size());
        }
        assert_eq!(sizes, [0, 1, 700, 3 << 20]);
    }
}
