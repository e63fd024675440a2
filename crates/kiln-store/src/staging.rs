//! Where the files of a batch are while they have no names yet.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::PutError;
use crate::process::ProcessId;
use crate::quick::{self, Made, QUICK};
use crate::shelf::{Staged, next_number};

/// Up to this many files of a batch are beside those of all others; with more it gets a folder of its own.
const SHARED_MAX: usize = 16;

/// After so many files in a row that took long to make, the batch goes on in another folder. One alone may have waited for
/// something else.
const SLOW_MAX: usize = 3;

/// A batch goes on in the last one of so many, however slow it is.
const FOLDERS_MAX: usize = 32;

/// Where a batch writes its files.
#[derive(Debug)]
pub(crate) struct Staging {
    tmp: Arc<Path>,
    begun: AtomicUsize,
    own: Mutex<Own>,
}

/// The folders of a batch. In one that was quick at first files can become slow to make: ext4 looks at five minutes of removed
/// files, in place of one, wherever a new one is their neighbour on the disk.
#[derive(Debug, Default)]
struct Own {
    /// The last one is written to.
    folders: Vec<Arc<Path>>,
    /// No quick one was found the last time.
    stays: bool,
    /// How many files in a row took long to make there.
    slow: usize,
}

impl Staging {
    pub(crate) fn new(tmp: &Arc<Path>) -> Self {
        Self { tmp: Arc::clone(tmp), begun: AtomicUsize::new(0), own: Mutex::default() }
    }

    pub(crate) fn create(&self) -> Result<Staged, PutError> {
        if self.begun.fetch_add(1, Ordering::Relaxed) < SHARED_MAX {
            return Staged::create(&self.tmp);
        }
        let name = || format!("{}.{}", ProcessId::current(), next_number());
        let folder = self.lock().folder(|| quick::make(&self.tmp, name));
        // Where none can be made, what is shared will do.
        let folder = folder.unwrap_or_else(|| Arc::clone(&self.tmp));
        let begin = Instant::now();
        let staged = Staged::create(&folder)?;
        self.lock().took(&folder, begin.elapsed());
        Ok(staged)
    }

    fn lock(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Own {
    fn folder(&mut self, make: impl FnOnce() -> io::Result<Made>) -> Option<Arc<Path>> {
        let goes_on = self.slow >= SLOW_MAX && !self.stays && self.folders.len() < FOLDERS_MAX;
        if self.folders.is_empty() || goes_on {
            self.slow = 0;
            if let Ok(made) = make() {
                self.folders.push(made.path.into());
                self.stays = !made.is_quick;
            }
        }
        self.folders.last().cloned()
    }

    fn took(&mut self, folder: &Arc<Path>, time: Duration) {
        // What another thread began before the batch went on says nothing of where it is now.
        if self.folders.last().is_some_and(|last| Arc::ptr_eq(last, folder)) {
            self.slow = if time < QUICK { 0 } else { self.slow + 1 };
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        for folder in &self.lock().folders {
            // What can't be removed now is found by the sweep at the next open.
            let _ = fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::PathBuf;

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
            // More than one where this machine is slow just now.
            assert_ne!(folders(), 0);
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

    const SLOW: Duration = QUICK.saturating_mul(2);

    /// Where a batch writes once a file took so long; further folders are as quick as they are said to be, and numbered.
    fn after(own: &mut Own, took: Duration, is_quick: bool) -> PathBuf {
        let folder = folder(own, is_quick);
        own.took(&folder, took);
        self::folder(own, is_quick).to_path_buf()
    }

    fn folder(own: &mut Own, is_quick: bool) -> Arc<Path> {
        let path = own.folders.len().to_string().into();
        own.folder(|| Ok(Made { path, is_quick })).unwrap()
    }

    #[test]
    fn a_batch_goes_on_elsewhere_where_files_become_slow_to_make() {
        let mut own = Own::default();
        for took in [SLOW, SLOW, QUICK / 2, SLOW, SLOW] {
            assert_eq!(after(&mut own, took, true), Path::new("0"), "one that is quick now and then will do");
        }
        let first = folder(&mut own, true);
        assert_eq!(after(&mut own, SLOW, true), Path::new("1"));
        for _ in 0..SLOW_MAX {
            own.took(&first, SLOW);
        }
        assert_eq!(&*folder(&mut own, true), Path::new("1"), "it was not this one that was slow");
        for _ in 0..2 * FOLDERS_MAX * SLOW_MAX {
            after(&mut own, SLOW, true);
        }
        assert_eq!(own.folders.len(), FOLDERS_MAX);
    }

    #[test]
    fn a_batch_stays_where_it_is_once_no_folder_is_quick() {
        let mut own = Own::default();
        folder(&mut own, true);
        let written: Vec<_> = (0..10 * SLOW_MAX).map(|_| after(&mut own, SLOW, false)).collect();
        assert_eq!(written.last().unwrap(), Path::new("1"));
        assert!(own.stays);
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
