//! Memory that a sandbox's processes share with the bake: what they are to do is written there after they were forked.

use std::cell::UnsafeCell;
use std::ffi::CStr;
use std::io;
use std::mem::{MaybeUninit, align_of, size_of_val};
use std::ptr;

/// The kernel takes at most 6 MiB of arguments and environment. What nobody touches costs nothing.
const BYTES: usize = 8 << 20;

/// Memory that is given out once, from its beginning to its end; a fork has it at the same address.
#[derive(Debug)]
pub(super) struct Shared {
    start: *mut u8,
    used: usize,
}

// SAFETY: the memory belongs to the value alone in this process, and whoever has the value may write what is not given out yet.
unsafe impl Send for Shared {}

/// A place for what is written after a fork, and read in the child when it has been told.
#[derive(Debug)]
pub(super) struct Slot<T>(UnsafeCell<MaybeUninit<T>>);

// SAFETY: whoever writes or reads it answers for that, in any thread.
unsafe impl<T: Send> Sync for Slot<T> {}

impl Shared {
    pub(super) fn new() -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let start = unsafe { libc::mmap(ptr::null_mut(), BYTES, access, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), used: 0 })
    }

    /// Copies items into the memory.
    ///
    /// # Safety
    /// The copy is used by nobody in this process after the value is gone.
    pub(super) unsafe fn keep<T: Copy>(&mut self, items: &[T]) -> io::Result<&'static [T]> {
        // SAFETY: there is place for as many, aligned, and nobody else has it; the source is elsewhere.
        unsafe {
            let place = self.take(align_of::<T>(), size_of_val(items))?.cast::<T>();
            ptr::copy_nonoverlapping(items.as_ptr(), place, items.len());
            Ok(std::slice::from_raw_parts(place, items.len()))
        }
    }

    /// Copies a text into the memory, and ends it.
    ///
    /// # Safety
    /// As [`Shared::keep`].
    pub(super) unsafe fn text(&mut self, text: &[u8]) -> io::Result<&'static CStr> {
        if text.contains(&0) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "nul byte found in provided data"));
        }
        // SAFETY: the caller keeps to it; the memory behind the text is the text's, and was zero from the beginning.
        unsafe {
            let place = self.take(1, text.len() + 1)?;
            ptr::copy_nonoverlapping(text.as_ptr(), place, text.len());
            let whole = std::slice::from_raw_parts(place, text.len() + 1);
            Ok(CStr::from_bytes_with_nul_unchecked(whole))
        }
    }

    /// Returns a place for a value that comes later.
    ///
    /// # Safety
    /// As [`Shared::keep`].
    pub(super) unsafe fn slot<T>(&mut self) -> io::Result<&'static Slot<T>> {
        let place = self.take(align_of::<Slot<T>>(), size_of::<Slot<T>>())?;
        // SAFETY: there is place for it, aligned; nothing in it needs to be initialised.
        Ok(unsafe { &*place.cast::<Slot<T>>() })
    }

    fn take(&mut self, align: usize, size: usize) -> io::Result<*mut u8> {
        let from = self.used.next_multiple_of(align);
        match from.checked_add(size).filter(|end| *end <= BYTES) {
            // As the kernel refuses it when it is executed.
            None => Err(io::Error::from_raw_os_error(libc::E2BIG)),
            Some(end) => {
                self.used = end;
                // SAFETY: it lies within the mapping.
                Ok(unsafe { self.start.add(from) })
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and nobody in this process uses what was in it any more.
        unsafe { libc::munmap(self.start.cast(), BYTES) };
    }
}

impl<T> Slot<T> {
    /// Writes the value.
    ///
    /// # Safety
    /// Nobody reads it yet, in this process or in a fork of it.
    pub(super) unsafe fn set(&self, value: T) {
        // SAFETY: as the caller says.
        unsafe { (*self.0.get()).write(value) };
    }

    /// Returns the value.
    ///
    /// # Safety
    /// It was written, and the reader was told by a system call after that.
    pub(super) unsafe fn get(&self) -> &T {
        // SAFETY: as the caller says.
        unsafe { (*self.0.get()).assume_init_ref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_out_aligned_and_not_beyond_its_end() {
        let mut shared = Shared::new().unwrap();
        // SAFETY: the copies are used here only.
        unsafe {
            assert_eq!(shared.text(b"abc").unwrap(), c"abc");
            assert_eq!(shared.keep(&[7_u64, 8]).unwrap(), [7, 8]);
            assert_eq!(shared.text(b"").unwrap(), c"");
            assert!(shared.text(b"a\0b").is_err());
            let error = shared.keep(&vec![0_u8; BYTES]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::E2BIG));
        }
    }
}
