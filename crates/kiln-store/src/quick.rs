//! Folders in which files are made quickly.
//!
//! ext4 puts a file near its folder, gives out no inode that was deleted a minute ago (or five, where that is not on the disk
//! yet), and for each new file looks at all of those again: where some thousands of files were removed nearby, one takes half a
//! millisecond to make. A new folder lies where there is room, if the one above is said to hold what does not belong together;
//! where many files were removed, it may lie as badly, which shows when a file is made in it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

/// So many folders are tried until files are made quickly in one.
const TRIES: usize = 4;

/// A file takes a fiftieth of a millisecond to make where it is made quickly, and up to a whole one elsewhere.
pub(crate) const QUICK: Duration = Duration::from_micros(100);

/// A folder for many files.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) path: PathBuf,
    /// Not where all that were tried are slow: looking for another one is of no use.
    pub(crate) is_quick: bool,
}

/// Makes a folder for many files: one in which they are made quickly, or any. `name` is asked for a new name each time.
///
/// # Errors
/// No folder can be made.
pub fn quick_folder(parent: &Path, name: impl FnMut() -> String) -> io::Result<PathBuf> {
    make(parent, name).map(|made| made.path)
}

/// As [`quick_folder`], and whether it is one.
pub(crate) fn make(parent: &Path, name: impl FnMut() -> String) -> io::Result<Made> {
    spread(parent);
    choose(parent, name, |folder| is_quick(folder).unwrap_or(true))
}

fn choose(
    parent: &Path,
    mut name: impl FnMut() -> String,
    mut is_quick: impl FnMut(&Path) -> bool,
) -> io::Result<Made> {
    // They stay until one is chosen: the next is put elsewhere for as long as they are there.
    let mut slow = Vec::new();
    let chosen = loop {
        let path = parent.join(name());
        if let Err(error) = fs::create_dir(&path) {
            break Err(error);
        }
        let is_quick = is_quick(&path);
        if is_quick || slow.len() + 1 == TRIES {
            break Ok(Made { path, is_quick });
        }
        slow.push(path);
    };
    for folder in slow {
        // What can't be removed is swept as if it had been used.
        let _ = fs::remove_dir(folder);
    }
    chosen
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_folder_is_new_and_empty() {
        let parent = tempfile::tempdir().unwrap();
        let mut numbers = 0..;
        let mut make = || quick_folder(parent.path(), || numbers.next().unwrap().to_string()).unwrap();
        let made: BTreeSet<_> = [(); 3].map(|()| make()).into();
        assert!(made.iter().all(|folder| fs::read_dir(folder).unwrap().next().is_none()));
        assert_eq!(made, entries(parent.path()));
        assert!(quick_folder(parent.path(), || "0".repeat(300)).is_err());
        assert!(quick_folder(&parent.path().join("none"), || "a".into()).is_err());
    }

    #[test]
    fn the_first_quick_one_is_chosen_or_the_last_and_those_before_it_are_gone() {
        for (quick, chosen) in [(0, 0), (TRIES - 1, TRIES - 1), (TRIES, TRIES - 1)] {
            let parent = tempfile::tempdir().unwrap();
            let (mut names, mut tried) = (0.., 0..);
            let is_quick = |folder: &Path| {
                let number = tried.next().unwrap();
                assert_eq!(entries(parent.path()).len(), number + 1, "those before stay meanwhile");
                assert_eq!(folder, parent.path().join(number.to_string()));
                number == quick
            };
            let made = choose(parent.path(), || names.next().unwrap().to_string(), is_quick).unwrap();
            assert_eq!(made.path, parent.path().join(chosen.to_string()));
            assert_eq!(made.is_quick, quick == chosen);
            assert_eq!(entries(parent.path()), [made.path].into());
        }
    }

    fn entries(folder: &Path) -> BTreeSet<PathBuf> {
        fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect()
    }
}
