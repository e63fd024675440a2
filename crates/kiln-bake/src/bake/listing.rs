//! Listing the software of an image while its last step is being stored: it follows from the tree, which is in memory.

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use kiln_store::{Objects, ReadError, Tree};

use crate::inventory::Software;

/// A search for the software of a tree. Whoever drops it waits for its end.
#[derive(Debug)]
pub(super) struct Listing(Mutex<Option<JoinHandle<Result<Software, ReadError>>>>);

impl Listing {
    /// Begins to look through a loaded tree whose objects are stored.
    pub(super) fn begin(objects: &Objects, tree: &Arc<OnceLock<Tree>>) -> Self {
        let (objects, tree) = (objects.clone(), Arc::clone(tree));
        let search = move || Software::of(&objects, tree.get().expect("it is loaded"));
        Self(Mutex::new(Some(std::thread::spawn(search))))
    }

    /// Waits for the end. None if somebody did so before, or if something can't be read: whoever needs it looks again, and tells.
    pub(super) fn end(&self) -> Option<Software> {
        let thread = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic)).ok()
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
