//! sha256 on the way of bytes.

use std::io::{self, Read, Write};

use kiln_model::Digest;
use sha2::{Digest as _, Sha256};

/// Copies go through a buffer of this size: beyond it sha256 and the page cache gain nothing.
pub(crate) const COPY_BYTES: usize = 128 << 10;

/// Returns the digest of bytes.
pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    Digest::new(Sha256::digest(bytes).into())
}

/// Returns the digest of all that a reader yields.
pub(crate) fn sha256_of(mut reader: impl Read) -> io::Result<Digest> {
    let mut hashing = Hashing::new(io::sink());
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hashing.finish().1),
            Ok(count) => hashing.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Hashes what is written through it.
#[derive(Debug)]
pub(crate) struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W> Hashing<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new() }
    }

    /// Returns the writer and the digest of what passed.
    pub(crate) fn finish(self) -> (W, Digest) {
        (self.inner, Digest::new(self.hash.finalize().into()))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
