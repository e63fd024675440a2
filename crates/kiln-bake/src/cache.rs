//! Packages that were fetched, by the digest of their bytes.
//!
//! A cached file is believed only after it was hashed again, so it needs no fsync, and what a crash or a bad disk left of it
//! is fetched once more. Writers rename into place: several bakes at once see whole files only.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::fetch::{FetchError, Fetcher, Length};
use crate::hashing::sha256_of;
use crate::stage::room;
use crate::steps::cache_of;
use kiln_model::Digest;
use kiln_store::{Collection, Store};

/// The folder of packages in that of the caches.
pub(crate) const PACKAGES: &str = "packages";

/// No download takes this long, so a temporary file of this age has no writer any more.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The folder of cached packages.
#[derive(Debug)]
pub(crate) struct PackageCache {
    folder: PathBuf,
}

impl PackageCache {
    pub(crate) fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(&folder)?.flatten() {
            let old = entry
                .metadata()
                .and_then(|meta| meta.modified())
                .is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > ABANDONED_AFTER));
            if old && entry.file_name().as_encoded_bytes().starts_with(b".") {
                // It is a file, or the folder of a repository.
                let _ = fs::remove_file(entry.path()).or_else(|_| fs::remove_dir_all(entry.path()));
            }
        }
        Ok(Self { folder })
    }

    /// Returns the path of a file with the promised bytes; fetches them where they are missing or corrupt.
    pub(crate) fn obtain(
        &self,
        fetcher: &Fetcher,
        url: &str,
        size: u64,
        digest: &Digest,
    ) -> Result<PathBuf, FetchError> {
        let path = self.folder.join(digest.hex());
        if holds(&path, size, digest).map_err(|source| FetchError::Write { path: path.clone(), source })? {
            return Ok(path);
        }
        self.fetch(fetcher, url, Length::Promised(size), digest)
    }

    fn fetch(
        &self,
        fetcher: &Fetcher,
        url: &str,
        length: Length,
        digest: &Digest,
    ) -> Result<PathBuf, FetchError> {
        let (path, partial) = (self.folder.join(digest.hex()), self.partial());
        fetcher.download(url, length, digest, &partial)?;
        fs::rename(&partial, &path).map_err(|source| FetchError::Write { path: path.clone(), source })?;
        Ok(path)
    }

    /// A name that nobody else has.
    pub(crate) fn partial(&self) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        self.folder.join(format!(".{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
    }
}

impl PackageCache {
    /// As [`PackageCache::obtain`], for a file whose size nobody promised.
    pub(crate) fn obtain_unsized(
        &self,
        fetcher: &Fetcher,
        url: &str,
        digest: &Digest,
    ) -> Result<PathBuf, FetchError> {
        match self.held(digest) {
            Some(path) => Ok(path),
            None => self.fetch(fetcher, url, Length::UNSIZED, digest),
        }
    }

    /// Returns the path of what is there whole.
    pub(crate) fn held(&self, digest: &Digest) -> Option<PathBuf> {
        let path = self.path_of(digest);
        // What lies there may be cut off: its size is taken for the promised one, and its digest decides.
        let is_there =
            fs::metadata(&path).is_ok_and(|meta| holds(&path, meta.len(), digest).unwrap_or(false));
        is_there.then_some(path)
    }

    /// Where bytes of this digest are.
    pub(crate) fn path_of(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.hex())
    }

    /// Fetches a file of which nothing is known, keeps it, and returns its digest.
    pub(crate) fn learn(&self, fetcher: &Fetcher, url: &str) -> Result<Digest, FetchError> {
        let partial = self.partial();
        let digest = fetcher.to_file(url, Length::UNSIZED, &partial)?;
        let path = self.folder.join(digest.hex());
        fs::rename(&partial, &path).map_err(|source| FetchError::Write { path, source })?;
        Ok(digest)
    }
}

/// What bakes of a store fetched, as whoever collects sees it.
#[derive(Debug, Clone)]
pub struct FetchedFiles(PathBuf);

/// A file that was fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchedFile {
    /// What it is known by.
    pub digest: Digest,
    /// The room that it takes on the disk.
    pub bytes: u64,
    /// When it was fetched.
    pub at: SystemTime,
}

impl FetchedFiles {
    /// Those of a store's bakes, unless a baker was told of another place.
    pub fn of(store: &Store) -> Self {
        Self(cache_of(store).join(PACKAGES))
    }

    /// Lists what is there whole, the oldest first.
    ///
    /// # Errors
    /// The file system refused.
    pub fn list(&self) -> io::Result<Vec<FetchedFile>> {
        let folder = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut found = Vec::new();
        for entry in folder {
            let entry = entry?;
            let digest = entry.file_name().to_str().and_then(|hex| format!("sha256:{hex}").parse().ok());
            if let (Some(digest), Ok(meta)) = (digest, entry.metadata()) {
                let at = meta.modified()?;
                found.push(FetchedFile { digest, bytes: room(&meta), at });
            }
        }
        found.sort_by_key(|file| (file.at, file.digest));
        Ok(found)
    }

    /// Removes files: a bake that is asked for one fetches it again.
    ///
    /// # Errors
    /// The file system refused.
    pub fn remove(&self, _begun: &Collection, files: &[FetchedFile]) -> io::Result<()> {
        files.iter().try_for_each(|file| match fs::remove_file(self.0.join(file.digest.hex())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
    }
}

fn holds(path: &Path, size: u64, digest: &Digest) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() != size {
        return Ok(false);
    }
    Ok(sha256_of(file)? == *digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_fetched_first_is_listed_first_and_can_go() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let files = FetchedFiles::of(&store);
        assert_eq!(files.list().unwrap(), []);
        let cache = PackageCache::open(files.0.clone()).unwrap();
        let [young, old] = [("young", 20), ("old", 10)].map(|(content, at)| {
            let digest = crate::hashing::sha256(content.as_bytes());
            fs::write(files.0.join(digest.hex()), content).unwrap();
            let file = File::options().write(true).open(files.0.join(digest.hex())).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(at)).unwrap();
            digest
        });
        fs::write(cache.folder.join(".partial.1.1"), "").unwrap();
        let found = files.list().unwrap();
        assert_eq!(found.iter().map(|file| file.digest).collect::<Vec<_>>(), [old, young]);
        assert!(found[0].bytes > 0);
        let begun = store.leases.begin_collection().unwrap();
        files.remove(&begun, &found[..1]).unwrap();
        files.remove(&begun, &found[..1]).expect("gone is gone");
        assert_eq!(files.list().unwrap(), found[1..]);
    }

    #[test]
    fn a_corrupt_cached_file_is_fetched_again() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.deb"), "good").unwrap();
        let digest = crate::hashing::sha256(b"good");
        let url = format!("file://{}/a.deb", folder.path().display());
        let cache = PackageCache::open(folder.path().join("cache")).unwrap();
        let fetcher = Fetcher::default();
        let path = cache.obtain(&fetcher, &url, 4, &digest).unwrap();
        for damage in ["evil", "longer than it was", ""] {
            fs::write(&path, damage).unwrap();
            assert_eq!(cache.obtain(&fetcher, &url, 4, &digest).unwrap(), path);
            assert_eq!(fs::read(&path).unwrap(), b"good");
        }
        fs::remove_file(folder.path().join("a.deb")).unwrap();
        cache.obtain(&fetcher, &url, 4, &digest).expect("a good cached file needs no mirror");
        assert_eq!(fs::read_dir(folder.path().join("cache")).unwrap().count(), 1, "no partial file stays");
    }
}
