//! Reading here and there in what may be a file or memory: nothing is beyond the end, whatever a header says.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes that are read in pieces.
pub(crate) trait Bytes {
    /// How many there are.
    fn len(&self) -> io::Result<u64>;

    /// Returns `length` bytes from `at`; none where they are not all there. The caller bounds the length.
    fn slice(&self, at: u64, length: usize) -> io::Result<Option<Vec<u8>>>;
}

impl Bytes for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn slice(&self, at: u64, length: usize) -> io::Result<Option<Vec<u8>>> {
        let end = at.checked_add(length as u64);
        if end.is_none_or(|end| end > i64::MAX as u64) || end > Some(Bytes::len(self)?) {
            return Ok(None);
        }
        let mut bytes = vec![0; length];
        match self.read_exact_at(&mut bytes, at) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Bytes for [u8] {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn slice(&self, at: u64, length: usize) -> io::Result<Option<Vec<u8>>> {
        let start = usize::try_from(at).ok();
        let range = start.and_then(|start| Some(start..start.checked_add(length)?));
        Ok(range.and_then(|range| self.get(range)).map(<[u8]>::to_vec))
    }
}
