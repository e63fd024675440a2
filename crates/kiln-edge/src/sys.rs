//! The one place with `unsafe`: a file mapped into memory as 64-bit atomics.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A shared mapping of the first `words` 64-bit words of a file.
#[derive(Debug)]
pub(crate) struct WordMap {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping is plain shared memory that is only reached through atomics, from any thread.
unsafe impl Send for WordMap {}
// SAFETY: as above.
unsafe impl Sync for WordMap {}

impl WordMap {
    /// Maps the file, which must be at least as long: the caller checks its size and owns the file, so nobody cuts it.
    pub(crate) fn new(file: &File, words: usize, writable: bool) -> io::Result<Self> {
        let bytes = words * size_of::<AtomicU64>();
        if file.metadata()?.len() < bytes as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a null hint lets the kernel choose a free range, so no memory of ours is replaced.
        let start = unsafe { mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, file, 0)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, words })
    }

    /// Returns the words. Storing through a read-only mapping would be a fault, so only the ledger's owner does.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the range is mapped for as long as `self` lives, is aligned to a page, every bit pattern is a valid
        // `AtomicU64`, and other processes change it only by atomic 64-bit stores.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for WordMap {
    fn drop(&mut self) {
        // SAFETY: `new` mapped exactly this range, and the borrows that `words` gave out have ended.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.words * size_of::<AtomicU64>()) };
    }
}
