//! The clock and the number of processors that programs see in a bake: those of the lock and of Kiln, given to them by the loader.
//!
//! `clock.c` is the library that answers for the C library's functions. It lies in the tree that a sandbox shows, with the
//! time written into it and `/etc/ld.so.preload` naming it, so it reaches programs whose environment was emptied, too.
//! Neither is in the tree that the image gets.

use kiln_store::tree::{ResolveError, TreeError};
use kiln_store::{Entry, Kind, Meta, Mtime, Objects, PutError, ReadError, Tree, TreePath};

/// The library, compiled for the target by `build.rs`.
const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/clock.so"));

/// What stands before the place of the time in the library.
const MARK: &[u8; 16] = b"kiln lock time:\0";

/// Where the library lies in a sandbox.
pub(crate) const FOLDER: &str = ".kiln";
const PATH: &str = ".kiln/clock.so";
const LINE: &str = "/.kiln/clock.so\n";

/// How many processors programs of a step see, on every machine: what a small one has, and enough jobs for most builds. More than there
/// are only share them.
const PROCESSORS: u64 = 4;

/// What the loader reads before anything else.
const PRELOAD: &str = "etc/ld.so.preload";

/// It names a library or two.
const PRELOAD_BYTES_MAX: u64 = 1 << 16;

/// Why a sandbox can't be given its clock, or an image be freed of it.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The tree has something in its place.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// `/etc` leads nowhere.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// Its files can't be stored.
    #[error(transparent)]
    Put(#[from] PutError),
    /// The image's own `/etc/ld.so.preload` can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Gives the programs of `shown`, the tree that a sandbox shows, the time `epoch` in seconds since 1970.
pub(crate) fn install(shown: &mut Tree, objects: &Objects, epoch: u64) -> Result<(), ClockError> {
    let batch = objects.batch();
    let mtime = Mtime { secs: epoch as i64, nanos: 0 };
    let folder = Meta { mode: 0o755, mtime, ..Meta::default() };
    let preload = match shown.resolve(&path(PRELOAD), true) {
        Err(ResolveError::Missing(_)) if shown.get(&path("etc")).is_none() => path(PRELOAD),
        resolved => resolved?,
    };
    let own = read(shown, &preload, objects)?.unwrap_or_default();
    let preloaded = [LINE.as_bytes(), &own].concat();
    for (path, bytes) in [(path(PATH), telling(epoch, PROCESSORS)), (preload, preloaded)] {
        let stored = batch.put_bytes(&bytes)?;
        shown.make_dirs(&path.parent().unwrap_or_default(), &folder)?;
        let mut entry = Entry::file(0o755, stored.digest, stored.size);
        entry.meta.mtime = mtime;
        shown.insert(&path, entry)?;
    }
    Ok(batch.commit()?)
}

/// Frees `tree`, the image's tree with a sandbox's changes in it, of the clock. `had` tells whether it has a folder `.kiln` of
/// its own.
pub(crate) fn uninstall(tree: &mut Tree, had: bool, objects: &Objects) -> Result<(), ClockError> {
    // Only a step that touched them has them in what it changed.
    tree.remove(&path(if had { PATH } else { FOLDER }));
    let Ok(preload) = tree.resolve(&path(PRELOAD), true) else { return Ok(()) };
    let Some(text) = read(tree, &preload, objects)? else { return Ok(()) };
    let Some(at) = text.windows(LINE.len()).position(|window| window == LINE.as_bytes()) else {
        return Ok(());
    };
    let own = [&text[..at], &text[at + LINE.len()..]].concat();
    if own.is_empty() {
        tree.remove(&preload);
        return Ok(());
    }
    let meta = tree.get(&preload).expect("it was read just now").meta.clone();
    let batch = objects.batch();
    let stored = batch.put_bytes(&own)?;
    batch.commit()?;
    tree.insert(&preload, Entry { meta, kind: Kind::File { digest: stored.digest, size: stored.size } })?;
    Ok(())
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text).expect("the constants above are valid paths")
}

fn read(tree: &Tree, path: &TreePath, objects: &Objects) -> Result<Option<Vec<u8>>, ClockError> {
    match tree.get(path).map(|entry| &entry.kind) {
        Some(Kind::File { digest, .. }) => Ok(Some(objects.read_verified(digest, PRELOAD_BYTES_MAX)?)),
        _ => Ok(None),
    }
}

/// Returns the library with a time in it, and with the machine's processors.
pub(crate) fn set_to(epoch: u64) -> Vec<u8> {
    telling(epoch, 0)
}

fn telling(epoch: u64, processors: u64) -> Vec<u8> {
    let mut library = LIBRARY.to_vec();
    let mark = library.windows(MARK.len()).position(|window| window == MARK);
    let at = mark.expect("the library holds the mark: a test looks for it") + MARK.len();
    library[at..at + 8].copy_from_slice(&epoch.to_ne_bytes());
    library[at + 8..at + 16].copy_from_slice(&processors.to_ne_bytes());
    library
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// What a program of this machine prints under the clock.
    fn under_the_clock(program: &str, arguments: &[&str]) -> String {
        under(&set_to(1_234_567_890), program, arguments)
    }

    fn under(bytes: &[u8], program: &str, arguments: &[&str]) -> String {
        let mut library = tempfile::NamedTempFile::new().unwrap();
        library.write_all(bytes).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).env("LD_PRELOAD", library.path()).env("TZ", "UTC").stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn programs_see_the_locks_time_and_intervals_go_on() {
        assert_eq!(under_the_clock("date", &["+%s"]), "1234567890\n");
        assert_eq!(
            under_the_clock("bash", &["-c", "printf '%(%s)T %s' -1 $EPOCHSECONDS"]),
            "1234567890 1234567890"
        );
        let script =
            "use POSIX; my $a = (POSIX::times())[0]; sleep 1; print time, ' ', (POSIX::times())[0] > $a";
        assert_eq!(under_the_clock("perl", &["-e", script]), "1234567890 1");
    }

    #[test]
    fn programs_see_as_many_processors_as_they_are_told_and_the_machines_other_numbers() {
        let told = telling(7, 3);
        let counts: [(&str, &[&str]); 4] = [
            ("nproc", &[]),
            ("nproc", &["--all"]),
            ("getconf", &["_NPROCESSORS_ONLN"]),
            ("perl", &["-MPOSIX", "-e", "print POSIX::sysconf(84), qq(\n)"]),
        ];
        for (program, words) in counts {
            assert_eq!(under(&told, program, words), "3\n", "{program} {words:?}");
            let own = Command::new(program).args(words).output().unwrap().stdout;
            assert_eq!(under_the_clock(program, words).as_bytes(), own, "{program} {words:?}");
        }
        for name in ["PAGE_SIZE", "OPEN_MAX", "_PHYS_PAGES"] {
            let own = Command::new("getconf").arg(name).output().unwrap().stdout;
            assert_eq!(under(&told, "getconf", &[name]).as_bytes(), own, "{name}");
        }
    }

    #[test]
    fn the_mark_is_in_the_library_once() {
        assert_eq!(LIBRARY.windows(MARK.len()).filter(|window| window == MARK).count(), 1);
        assert_ne!(set_to(7), LIBRARY);
    }

    fn store() -> (tempfile::TempDir, kiln_store::Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = kiln_store::Store::open(folder.path()).unwrap();
        (folder, store)
    }

    #[test]
    fn an_image_is_freed_of_the_clock_and_keeps_what_it_preloads_itself() {
        let (_folder, store) = store();
        let batch = store.objects.batch();
        let mut plain = Tree::new();
        let own = batch.put_bytes(b"/lib/own.so\n").unwrap();
        batch.commit().unwrap();
        let mut preloading = Tree::new();
        preloading.make_dirs(&path("etc"), &Meta { mode: 0o755, ..Meta::default() }).unwrap();
        preloading.insert(&path(PRELOAD), Entry::file(0o644, own.digest, own.size)).unwrap();
        for (tree, kept) in [(&mut plain, None), (&mut preloading, Some(b"/lib/own.so\n".to_vec()))] {
            // As if a step had touched all that the sandbox shows.
            install(tree, &store.objects, 7).unwrap();
            assert!(tree.get(&path(PATH)).is_some());
            uninstall(tree, false, &store.objects).unwrap();
            assert!(tree.get(&path(FOLDER)).is_none());
            assert_eq!(read(tree, &path(PRELOAD), &store.objects).unwrap(), kept);
        }
    }
}
