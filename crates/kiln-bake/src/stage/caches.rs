//! The folders that RUN steps keep between bakes, bounded: what was used last stays.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kiln_store::{Collection, Store};

use super::mounts::{ID_BYTES_MAX, LOCK};
use crate::steps::cache_of;

/// The least that caches may take together: those of a compiler and of a package manager fit, and a machine that bakes has so
/// much room.
const CACHES_BYTES_MIN: u64 = 2 << 30;
/// As BuildKit bounds its cache by itself: a tenth of the disk.
const CACHES_DISK_SHARE: u64 = 10;
/// One cache may take half of what all may: the next would push out every other.
const CACHE_SHARE: u64 = 2;

/// Where the caches lie in the folder of caches.
pub(crate) const MOUNTS: &str = "mounts";
/// What a cache that is being removed ends with.
const GONE: &str = "gone";
/// The kernel counts the room of a file in these, whatever its block size; see `stat(2)`.
const STAT_BLOCK_BYTES: u64 = 512;
/// File systems allot room in these.
const BLOCK_BYTES: u64 = 4 << 10;

/// The folders that RUN steps of a store's bakes keep between them, as whoever collects sees them.
#[derive(Debug, Clone)]
pub struct CacheFolders(PathBuf);

/// How much room caches may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheBounds {
    /// One of them; one that is larger goes, since none of its files is known to be worth more than another.
    pub each: u64,
    /// All together.
    pub all: u64,
}

/// A folder that RUN steps keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheFolder {
    /// What the Dockerfile calls it, or its digest where nobody noted that.
    pub id: String,
    /// The room that it takes on the disk.
    pub bytes: u64,
    /// When a step last began to use it.
    pub used: SystemTime,
    /// Nested deeper than a path can say: it can't be measured, so it is beyond every bound.
    is_too_deep: bool,
    path: PathBuf,
}

impl CacheFolders {
    /// Those of a store's bakes, unless a baker was told of another place.
    pub fn of(store: &Store) -> Self {
        Self(cache_of(store).join(MOUNTS))
    }

    /// Returns how much room they may take on their disk.
    ///
    /// # Errors
    /// The file system refused.
    pub fn bounds(&self) -> io::Result<CacheBounds> {
        let there = self.0.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let disk = rustix::fs::statvfs(there)?;
        let all = (disk.f_blocks.saturating_mul(disk.f_frsize) / CACHES_DISK_SHARE).max(CACHES_BYTES_MIN);
        Ok(CacheBounds { each: all / CACHE_SHARE, all })
    }

    /// Lists them, the longest unused first.
    ///
    /// # Errors
    /// The file system refused.
    pub fn list(&self) -> io::Result<Vec<CacheFolder>> {
        let mut found = Vec::new();
        for entry in entries(&self.0)? {
            if entry.file_type()?.is_dir() && entry.path().extension().is_none() {
                found.push(CacheFolder::look(entry.path())?);
            }
        }
        found.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
        Ok(found)
    }

    /// Removes caches, and goes on with what somebody was killed at. One that a step has stays. Returns those that went.
    ///
    /// # Errors
    /// One can't be removed; those after it were removed all the same, and a later attempt goes on.
    pub fn remove(&self, _begun: &Collection, caches: &[CacheFolder]) -> io::Result<Vec<CacheFolder>> {
        let mut failed = self.sweep().err();
        let mut removed = Vec::new();
        for cache in caches {
            match cache.remove() {
                Ok(true) => removed.push(cache.clone()),
                Ok(false) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(removed), Err)
    }

    fn sweep(&self) -> io::Result<()> {
        for entry in entries(&self.0)? {
            if entry.path().extension().is_some_and(|it| it == GONE) {
                remove_flat(&entry.path())?;
            }
        }
        Ok(())
    }
}

impl CacheBounds {
    /// Returns which of the caches of [`CacheFolders::list`] are beyond the bounds: each that is too large, and those unused for
    /// longest.
    pub fn beyond(self, caches: &[CacheFolder]) -> Vec<CacheFolder> {
        let is_too_large = |cache: &CacheFolder| cache.is_too_deep || cache.bytes > self.each;
        let mut all: u64 = caches.iter().filter(|it| !is_too_large(it)).map(|cache| cache.bytes).sum();
        let mut beyond = Vec::new();
        for cache in caches {
            if is_too_large(cache) {
                beyond.push(cache.clone());
            } else if all > self.all {
                all -= cache.bytes;
                beyond.push(cache.clone());
            }
        }
        beyond
    }
}

impl CacheFolder {
    fn look(path: PathBuf) -> io::Result<Self> {
        let lock = path.with_extension(LOCK);
        // Every use writes the name into it.
        let used = fs::metadata(&lock).and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut id = String::new();
        let noted = File::open(&lock).and_then(|file| file.take(ID_BYTES_MAX as u64).read_to_string(&mut id));
        if noted.is_err() || id.is_empty() {
            id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        }
        let (bytes, is_too_deep) = match room_of(&path) {
            Ok(bytes) => (bytes, false),
            Err(error) if error.kind() == ErrorKind::InvalidFilename => (0, true),
            Err(error) => return Err(error),
        };
        Ok(Self { id, bytes, used, is_too_deep, path })
    }

    /// Whether it went: not while a step has it, and not twice.
    fn remove(&self) -> io::Result<bool> {
        // Held until it is gone: whoever waits for it finds none, and makes it anew.
        let lock =
            File::options().write(true).create(true).truncate(false).open(self.path.with_extension(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(false),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        let gone = self.path.with_extension(GONE);
        fs::create_dir(&gone).or_else(unless(ErrorKind::AlreadyExists))?;
        let moved = fs::rename(&self.path, gone.join(next_name(&gone)?.to_string()));
        remove_flat(&gone)?;
        match moved {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            other => other.map(|()| true),
        }
    }
}

/// Returns the room of all files below a folder, each counted once. No link is followed: what a step left there was chosen by
/// whoever wrote the step. What goes meanwhile counts for nothing.
///
/// # Errors
/// `InvalidFilename` where it is nested deeper than a path can say.
fn room_of(folder: &Path) -> io::Result<u64> {
    let (mut bytes, mut ahead, mut seen) = (0, vec![folder.to_owned()], BTreeSet::new());
    while let Some(folder) = ahead.pop() {
        for entry in entries(&folder)? {
            let meta = match entry.metadata() {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                other => other?,
            };
            if meta.nlink() == 1 || meta.is_dir() || seen.insert((meta.dev(), meta.ino())) {
                bytes += room(&meta);
            }
            if meta.is_dir() {
                ahead.push(entry.path());
            }
        }
    }
    Ok(bytes)
}

/// Returns the room of a file: what is not sparse of it, and not what is allotted ahead, which goes again.
pub(crate) fn room(meta: &fs::Metadata) -> u64 {
    let allotted = meta.blocks() * STAT_BLOCK_BYTES;
    if meta.is_dir() { allotted } else { allotted.min(meta.len().next_multiple_of(BLOCK_BYTES)) }
}

/// Removes a folder of any depth. Folders are moved up first, so that neither paths nor open folders grow with the depth, which
/// was chosen by whoever wrote the step.
fn remove_flat(folder: &Path) -> io::Result<()> {
    let mut next = next_name(folder)?;
    let mut ahead = vec![folder.to_owned()];
    while let Some(at) = ahead.last().cloned() {
        let before = ahead.len();
        for entry in entries(&at)? {
            if !entry.file_type()?.is_dir() {
                fs::remove_file(entry.path())?;
            } else if at == folder {
                ahead.push(entry.path());
            } else {
                let up = folder.join(next.to_string());
                next += 1;
                fs::rename(entry.path(), &up)?;
                ahead.push(up);
            }
        }
        if ahead.len() == before {
            fs::remove_dir(&at)?;
            ahead.pop();
        }
    }
    Ok(())
}

/// Returns a number that names nothing in a folder, nor does any above it.
fn next_name(folder: &Path) -> io::Result<u64> {
    let numbers = entries(folder)?.into_iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(numbers.max().map_or(0, |number: u64| number + 1))
}

fn entries(folder: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn unless(kind: ErrorKind) -> impl FnOnce(io::Error) -> io::Result<()> {
    move |error| if error.kind() == kind { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::CacheMounts;
    use super::*;
    use crate::cancel::Cancel;
    use crate::hashing::sha256;

    struct World {
        _state: tempfile::TempDir,
        store: Store,
        folders: CacheFolders,
        mounts: CacheMounts,
    }

    impl World {
        fn new() -> Self {
            let state = tempfile::tempdir().unwrap();
            let store = Store::open(state.path()).unwrap();
            let folders = CacheFolders::of(&store);
            assert_eq!(folders.list().unwrap(), [], "there is none yet");
            let mounts = CacheMounts::open(folders.0.clone()).unwrap();
            Self { _state: state, store, folders, mounts }
        }

        /// Makes a cache with a file of some bytes, used at a time.
        fn cache(&self, id: &str, bytes: usize, used: u64) -> PathBuf {
            drop(self.mounts.take(id, (0o755, 0, 0), None, false, &Cancel::default()).unwrap());
            let path = self.folders.0.join(sha256(id.as_bytes()).hex());
            fs::write(path.join("file"), vec![1; bytes]).unwrap();
            let lock = File::options().write(true).open(path.with_extension(LOCK)).unwrap();
            lock.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(used)).unwrap();
            path
        }

        /// Removes until these are gone: a process that another test bears holds for a moment what was locked here.
        fn remove(&self, caches: &[CacheFolder], expected: &[&str]) {
            let until = std::time::Instant::now() + Duration::from_secs(60);
            let mut removed = Vec::new();
            loop {
                if let Ok(begun) = self.store.leases.begin_collection() {
                    removed.extend(self.folders.remove(&begun, caches).unwrap());
                    if ids(&removed) == expected || std::time::Instant::now() > until {
                        break;
                    }
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(ids(&removed), expected);
        }
    }

    fn ids(caches: &[CacheFolder]) -> Vec<&str> {
        caches.iter().map(|cache| cache.id.as_str()).collect()
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first_and_what_a_step_has_stays() {
        let world = World::new();
        let kib = 1 << 10;
        let [newest, oldest, held, middle] =
            [("a", 40), ("b", 10), ("c", 20), ("d", 30)].map(|(id, at)| world.cache(id, 64 * kib, at));
        let caches = world.folders.list().unwrap();
        assert_eq!(ids(&caches), ["b", "c", "d", "a"]);
        let (each, all) = (caches[0].bytes, caches.iter().map(|cache| cache.bytes).sum::<u64>());
        assert!(each >= 64 * kib as u64, "{each}");
        let beyond = |all| CacheBounds { each, all }.beyond(&caches);
        assert_eq!(ids(&beyond(all)), [""; 0]);
        assert_eq!(ids(&beyond(all - 1)), ["b"]);
        assert_eq!(ids(&beyond(2 * each)), ["b", "c"]);
        let step = world.mounts.take("c", (0o755, 0, 0), None, false, &Cancel::default()).unwrap();
        world.remove(&beyond(2 * each), &["b"]);
        // A step has the other.
        assert!(!oldest.exists() && held.exists() && middle.exists() && newest.exists());
        drop(step);
        world.remove(&beyond(0)[1..2], &["c"]);
        world.remove(&beyond(0), &["d", "a"]);
        assert_eq!(world.folders.list().unwrap(), []);
        drop(world.mounts.take("c", (0o755, 0, 0), None, false, &Cancel::default()).unwrap());
        assert!(held.is_dir() && !held.join("file").exists(), "it begins anew");
    }

    #[test]
    fn one_that_is_too_large_goes_however_new_it_is() {
        let world = World::new();
        world.cache("old and small", 4 << 10, 10);
        world.cache("new and large", 256 << 10, 20);
        let caches = world.folders.list().unwrap();
        let bounds = CacheBounds { each: 128 << 10, all: 200 << 10 };
        assert_eq!(ids(&bounds.beyond(&caches)), ["new and large"], "the other fits once it is gone");
    }

    #[test]
    fn one_that_is_nested_deeper_than_a_path_can_say_is_removed_and_what_was_cut_short_is_gone_on_with() {
        let world = World::new();
        let path = world.cache("deep", 1, 10);
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "").unwrap();
        // More bytes than a path has, made from the inside out.
        let long = "d".repeat(250);
        let (level, deeper) = (world.folders.0.join("level"), world.folders.0.join("deeper"));
        fs::create_dir(&level).unwrap();
        std::os::unix::fs::symlink(outside.path(), level.join("link")).unwrap();
        for _ in 0..20 {
            fs::create_dir(&deeper).unwrap();
            fs::rename(&level, deeper.join(&long)).unwrap();
            fs::rename(&deeper, &level).unwrap();
        }
        fs::rename(&level, path.join("d")).unwrap();
        let caches = world.folders.list().unwrap();
        let bounds = CacheBounds { each: u64::MAX, all: u64::MAX };
        assert_eq!(ids(&bounds.beyond(&caches)), ["deep"]);
        // As after a kill: it was moved, and half of it was moved up.
        let gone = path.with_extension(GONE);
        fs::create_dir(&gone).unwrap();
        fs::rename(&path, gone.join("0")).unwrap();
        fs::rename(gone.join("0/d"), gone.join("7")).unwrap();
        world.remove(&[], &[]);
        assert!(!gone.exists() && outside.path().join("kept").exists());
    }

    #[test]
    fn a_use_is_noted_with_its_name_and_a_hard_link_takes_no_room() {
        let world = World::new();
        let path = world.cache("npm", 64 << 10, 10);
        let before = world.folders.list().unwrap();
        fs::hard_link(path.join("file"), path.join("link")).unwrap();
        let begun = SystemTime::now() - Duration::from_secs(60);
        drop(world.mounts.take("npm", (0o755, 0, 0), None, false, &Cancel::default()).unwrap());
        let after = world.folders.list().unwrap();
        assert_eq!((after[0].id.as_str(), after[0].bytes), ("npm", before[0].bytes));
        assert!(before[0].used < begun && after[0].used > begun);
        let bounds = world.folders.bounds().unwrap();
        assert!(bounds.all >= CACHES_BYTES_MIN && bounds.each == bounds.all / CACHE_SHARE);
    }
}
