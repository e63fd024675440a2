//! Where the files of a batch are while they have no names yet.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::error::PutError;
use crate::process::ProcessId;
use crate::quick::quick_folder;
use crate::shelf::{Staged, next_number};

/// Up to this many files of a batch are beside those of all others; with more it gets a folder of its own.
const SHARED_MAX: usize = 16;

/// Where a batch writes its files.
#[derive(Debug)]
pub(crate) struct Staging {
    tmp: Arc<Path>,
    begun: AtomicUsize,
    /// None where it can't be made: then what is shared will do.
    own: OnceLock<Option<PathBuf>>,
}

impl Staging {
    pub(crate) fn new(tmp: &Arc<Path>) -> Self {
        Self { tmp: Arc::clone(tmp), begun: AtomicUsize::new(0), own: OnceLock::new() }
    }

    pub(crate) fn create(&self) -> Result<Staged, PutError> {
        if self.begun.fetch_add(1, Ordering::Relaxed) < SHARED_MAX {
            return Staged::create(&self.tmp);
        }
        let name = || format!("{}.{}", ProcessId::current(), next_number());
        let own = self.own.get_or_init(|| quick_folder(&self.tmp, name).ok());
        Staged::create(own.as_ref().map_or(&*self.tmp, |own| own))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Some(Some(own)) = self.own.get() {
            // What can't be removed now is found by the sweep at the next open.
            let _ = fs::remove_dir(own);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::Store;

    #[test]
    fn a_large_batch_has_a_folder_of_its_own_and_leaves_none() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let tmp = state.path().join("store/tmp");
        let folders = || {
            let found = fs::read_dir(&tmp).unwrap().map(Result::unwrap);
            found.filter(|it| it.file_type().unwrap().is_dir()).count()
        };
        for is_committed in [false, true] {
            let batch = store.objects.batch();
            let put = |number: usize| batch.put_bytes(&number.to_le_bytes()).unwrap().digest;
            let mut digests: Vec<_> = (0..SHARED_MAX).map(put).collect();
            assert_eq!(folders(), 0);
            digests.extend((SHARED_MAX..3 * SHARED_MAX).map(put));
            assert_eq!(folders(), 1);
            // Who opens the store meanwhile leaves alone what belongs to the living.
            Store::open(state.path()).unwrap();
            match is_committed {
                true => batch.commit().unwrap(),
                false => drop(batch),
            }
            assert!(digests.iter().all(|digest| store.objects.contains(digest) == is_committed));
            assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0);
        }
    }

    #[test]
    fn the_folder_of_a_batch_whose_process_died_is_swept() {
        let state = tempfile::tempdir().unwrap();
        drop(Store::open(state.path()).unwrap());
        let tmp = state.path().join("store/tmp");
        let left = tmp.join("1.18446744073709551615.7");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("1.18446744073709551615.8"), b"half").unwrap();
        Store::open(state.path()).unwrap();
        assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0);
    }
}
