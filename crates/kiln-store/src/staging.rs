//! Where the files of a batch are while they have no names yet.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use crate::error::PutError;
use crate::process::ProcessId;
use crate::shelf::{Staged, next_number};

/// Up to this many files of a batch are beside those of all others; with more it gets a folder of its own.
const SHARED_MAX: usize = 16;

/// So many folders are tried until files are made quickly in one.
const TRIES: usize = 4;

/// A file takes a twentieth of a millisecond to make, or half of one and more.
const QUICK: Duration = Duration::from_micros(200);

/// The folder that a batch writes its files into.
///
/// ext4 puts a file near its folder, gives out no inode that was deleted a minute ago (or five, where that is not on the disk
/// yet), and for each new file looks at all of those again: where a collection removed some thousands nearby, a file takes half
/// a millisecond. A new folder lies where there is room, if the one above is said to hold what does not belong together; where
/// many files were removed, it may lie as badly, which shows when a file is made in it.
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
        Staged::create(self.own.get_or_init(|| make(&self.tmp)).as_ref().map_or(&*self.tmp, |own| own))
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

/// Makes a folder in which files are made quickly, or any.
fn make(tmp: &Path) -> Option<PathBuf> {
    spread(tmp);
    // They stay until one is chosen: the next is put elsewhere for as long as they are there.
    let mut slow = Vec::new();
    let own = loop {
        let own = tmp.join(format!("{}.{}", ProcessId::current(), next_number()));
        if fs::create_dir(&own).is_err() {
            break None;
        }
        if slow.len() + 1 == TRIES || is_quick(&own).unwrap_or(true) {
            break Some(own);
        }
        slow.push(own);
    };
    for folder in slow {
        // As for one that was used.
        let _ = fs::remove_dir(folder);
    }
    own
}

/// Whether a file is made quickly in a folder. The first one may have to wait until the disk tells what is free there.
fn is_quick(folder: &Path) -> io::Result<bool> {
    let (path, mut took) = (folder.join("first"), Duration::ZERO);
    for _ in 0..2 {
        let begin = Instant::now();
        let made = File::create_new(&path);
        took = begin.elapsed();
        made.and_then(|_| fs::remove_file(&path))?;
    }
    Ok(took < QUICK)
}

/// Tells the file system that the folders in a folder are better kept apart. One that knows no such thing needs no such thing.
fn spread(folder: &Path) {
    let Ok(folder) = File::open(folder) else { return };
    if let Ok(flags) = ioctl_getflags(&folder)
        && !flags.contains(IFlags::TOPDIR)
    {
        let _ = ioctl_setflags(&folder, flags | IFlags::TOPDIR);
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
