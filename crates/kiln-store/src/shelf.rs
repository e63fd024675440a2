//! Content-addressed files: written under a temporary name, made durable, then named by their digest.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_model::Digest;
use rustix::fs::{AtFlags, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::error::{PutError, ReadError};
use crate::packs::{PackError, Packs};
use crate::process::ProcessId;
use crate::staging::Staging;

/// Copies go through a buffer of this size: small enough to cost nothing beside a small file, and large enough that a large
/// one is bound by sha256.
const COPY_BYTES: usize = 64 << 10;

/// What was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The address of the bytes.
    pub digest: Digest,
    /// How many there are.
    pub size: u64,
}

/// Returns the sha256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    Digest::new(Sha256::digest(bytes).into())
}

/// A folder of content-addressed files, two levels deep so that no folder grows to hundreds of thousands of names.
///
/// What is not there as a plain file may be packed; it reads all the same.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    root: Arc<Path>,
    tmp: Arc<Path>,
    packs: Option<Arc<Packs>>,
}

impl Shelf {
    pub(crate) fn open(root: PathBuf, tmp: &Path) -> io::Result<Self> {
        fs::create_dir_all(&root)?;
        Ok(Self { root: root.into(), tmp: tmp.into(), packs: None })
    }

    /// As [`Shelf::open`], with packs behind it.
    pub(crate) fn open_with(root: PathBuf, tmp: &Path, packs: &Arc<Packs>) -> io::Result<Self> {
        Ok(Self { packs: Some(Arc::clone(packs)), ..Self::open(root, tmp)? })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn path_of(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root.join(&hex[..2]).join(hex)
    }

    /// Begins to look at many plain files: from their folder, since the way to it is most of what a look costs.
    pub(crate) fn looks(&self) -> io::Result<Looks> {
        File::open(&self.root).map(Looks)
    }

    pub(crate) fn contains(&self, digest: &Digest) -> bool {
        self.contains_plain(digest) || self.is_packed(digest)
    }

    /// Whether it is there as a plain file.
    pub(crate) fn contains_plain(&self, digest: &Digest) -> bool {
        self.path_of(digest).is_file()
    }

    /// Whether it is packed; a plain file may be there besides.
    pub(crate) fn is_packed(&self, digest: &Digest) -> bool {
        self.packs.as_ref().is_some_and(|packs| packs.contains(digest))
    }

    pub(crate) fn size(&self, digest: &Digest) -> Option<u64> {
        self.plain_size(digest).or_else(|| self.packs.as_ref()?.size(digest))
    }

    /// Returns the size of the plain file.
    pub(crate) fn plain_size(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.path_of(digest)).ok().map(|meta| meta.len())
    }

    /// Opens the plain file, or what is packed as a file without a name.
    pub(crate) fn open_file(&self, digest: &Digest) -> Result<File, ReadError> {
        let path = self.path_of(digest);
        match (File::open(&path), &self.packs) {
            (Ok(file), _) => Ok(file),
            (Err(error), Some(packs)) if error.kind() == ErrorKind::NotFound => packs.open_file(digest),
            (Err(error), None) if error.kind() == ErrorKind::NotFound => Err(ReadError::Missing(*digest)),
            (Err(error), _) => Err(ReadError::at(path)(error)),
        }
    }

    /// Makes plain files of those that are packed alone.
    pub(crate) fn unpack(&self, digests: impl Iterator<Item = Digest>) -> Result<(), PackError> {
        self.packs.as_ref().map_or(Ok(()), |packs| packs.unpack(self, digests))
    }

    /// Verifies the whole file, which may be of any size.
    pub(crate) fn verify(&self, digest: &Digest) -> Result<(), ReadError> {
        let mut file = self.open_file(digest)?;
        let (mut hash, mut buffer) = (Sha256::new(), vec![0; COPY_BYTES]);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => hash.update(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(ReadError::at(self.path_of(digest))(error)),
            }
        }
        check(digest, Digest::new(hash.finalize().into()))
    }

    /// Reads and verifies the whole file.
    pub(crate) fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, ReadError> {
        let file = self.open_file(digest)?;
        let path = self.path_of(digest);
        let size = file.metadata().map_err(ReadError::at(&path))?.len();
        if size > limit {
            return Err(ReadError::TooLarge { digest: *digest, size, limit });
        }
        let mut bytes = Vec::with_capacity(size as usize);
        // The file may grow under a hostile hand after its size was read: the limit holds all the same.
        file.take(limit).read_to_end(&mut bytes).map_err(ReadError::at(path))?;
        check(digest, sha256(&bytes)).map(|()| bytes)
    }

    pub(crate) fn stage(&self) -> Result<Staged, PutError> {
        Staged::create(&self.tmp)
    }

    pub(crate) fn put_bytes(&self, bytes: &[u8]) -> Result<Digest, PutError> {
        let digest = sha256(bytes);
        let stored = Stored { digest, size: bytes.len() as u64 };
        if self.size(&digest) == Some(stored.size) {
            return Ok(digest);
        }
        let mut staged = self.stage()?;
        staged.write_whole(bytes, stored).map_err(PutError::at(&staged.path))?;
        self.finish(staged).map(|stored| stored.digest)
    }

    pub(crate) fn put_reader(&self, reader: impl Read) -> Result<Stored, PutError> {
        let mut staged = self.stage()?;
        staged.fill(reader)?;
        self.finish(staged)
    }

    /// Makes a staged file durable and gives it its name.
    pub(crate) fn finish(&self, staged: Staged) -> Result<Stored, PutError> {
        let stored = staged.stored();
        // A copy of another length is damaged: replacing it repairs it.
        if self.size(&stored.digest) == Some(stored.size) {
            return Ok(stored);
        }
        staged.file.sync_all().map_err(PutError::at(&staged.path))?;
        let target = self.name(&staged, &stored.digest)?;
        sync_folder(parent_of(&target)).map_err(PutError::at(&target))?;
        Ok(stored)
    }

    fn name(&self, staged: &Staged, digest: &Digest) -> Result<PathBuf, PutError> {
        let target = self.path_of(digest);
        let renamed = fs::rename(&staged.path, &target).or_else(|error| {
            if error.kind() != ErrorKind::NotFound {
                return Err(error);
            }
            make_folder(parent_of(&target))?;
            fs::rename(&staged.path, &target)
        });
        renamed.map_err(PutError::at(&target))?;
        Ok(target)
    }

    pub(crate) fn batch(&self) -> Batch {
        Batch { shelf: self.clone(), pending: Mutex::default(), staging: Staging::new(&self.tmp) }
    }

    /// Removes a file, packed or not; whether there was one.
    pub(crate) fn remove(&self, digest: &Digest) -> io::Result<bool> {
        let was_packed = self.packs.as_ref().map_or(Ok(false), |packs| packs.forget(digest))?;
        Ok(self.remove_plain(digest)? || was_packed)
    }

    /// Removes a plain file; whether there was one.
    pub(crate) fn remove_plain(&self, digest: &Digest) -> io::Result<bool> {
        match fs::remove_file(self.path_of(digest)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lists the digests of all plain files in order. Names that are not digests are ignored: they are not ours.
    pub(crate) fn list(&self) -> io::Result<Vec<Digest>> {
        let mut found = Vec::new();
        for folder in fs::read_dir(&self.root)? {
            let folder = folder?;
            if !folder.file_type()?.is_dir() {
                continue;
            }
            for file in fs::read_dir(folder.path())? {
                let name = file?.file_name();
                let digest: Option<Digest> =
                    name.to_str().and_then(|hex| format!("sha256:{hex}").parse().ok());
                found.extend(digest);
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// The open folder of a shelf.
#[derive(Debug)]
pub(crate) struct Looks(File);

impl Looks {
    /// Says what the file system knows of a plain file; none where there is none.
    pub(crate) fn stat(&self, digest: &Digest) -> io::Result<Option<Stat>> {
        stat_at(&self.0, as_text(&name_of(digest)))
    }

    /// Begins to look at files in the order of their digests.
    pub(crate) fn in_order(&self) -> InOrder<'_> {
        InOrder { looks: self, folder: None }
    }

    /// Opens a plain file.
    pub(crate) fn open(&self, digest: &Digest) -> io::Result<File> {
        let name = name_of(digest);
        Ok(openat(&self.0, as_text(&name), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?.into())
    }
}

/// Looks at plain files whose digests come in their order: the folder of one is mostly that of the next.
#[derive(Debug)]
pub(crate) struct InOrder<'a> {
    looks: &'a Looks,
    /// The first byte of what is in it, and the folder.
    folder: Option<(u8, OwnedFd)>,
}

impl InOrder<'_> {
    /// As [`Looks::stat`].
    pub(crate) fn stat(&mut self, digest: &Digest) -> io::Result<Option<Stat>> {
        let (name, first) = (name_of(digest), digest.as_bytes()[0]);
        if self.folder.as_ref().is_none_or(|(of, _)| *of != first) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let [high, low, ..] = name;
            // Without it each file is found on the whole way.
            self.folder =
                openat(&self.looks.0, &[high, low][..], flags, Mode::empty()).ok().map(|it| (first, it));
        }
        match &self.folder {
            Some((_, folder)) => stat_at(folder, as_text(&name[FOLDER_BYTES..])),
            None => self.looks.stat(digest),
        }
    }
}

fn stat_at(folder: impl AsFd, name: &CStr) -> io::Result<Option<Stat>> {
    match statat(folder, name, AtFlags::empty()) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// How much of a name is its folder.
const FOLDER_BYTES: usize = 3;

/// `AB/ABCDEF…` with a NUL, put together without memory of its own: this is asked of tens of thousands of files.
fn name_of(digest: &Digest) -> [u8; 2 + 1 + 64 + 1] {
    let (digits, mut name) = (digest.digits(), [0; 2 + 1 + 64 + 1]);
    name[..2].copy_from_slice(&digits[..2]);
    name[2] = b'/';
    name[3..67].copy_from_slice(&digits);
    name
}

fn as_text(name: &[u8]) -> &CStr {
    CStr::from_bytes_with_nul(name).expect("the digits of a digest have no NUL")
}

fn check(digest: &Digest, found: Digest) -> Result<(), ReadError> {
    match found == *digest {
        true => Ok(()),
        false => Err(ReadError::corrupt(digest, format!("its bytes hash to {found}"))),
    }
}

fn parent_of(path: &Path) -> &Path {
    path.parent().expect("every path of a shelf has a folder")
}

/// Makes a folder whose name survives a power cut.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync_folder),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes a small file so that after a crash either the old or the new content is there.
pub(crate) fn replace_file(path: &Path, tmp: &Path, bytes: &[u8]) -> Result<(), PutError> {
    replace(path, Staged::create(tmp)?, bytes)
}

/// As [`replace_file`], for what nobody but the owner may read.
pub(crate) fn replace_private_file(path: &Path, tmp: &Path, bytes: &[u8]) -> Result<(), PutError> {
    replace(path, Staged::create_with_mode(tmp, 0o600)?, bytes)
}

fn replace(path: &Path, mut staged: Staged, bytes: &[u8]) -> Result<(), PutError> {
    staged.write_all(bytes).map_err(PutError::at(&staged.path))?;
    staged.file.sync_all().map_err(PutError::at(&staged.path))?;
    fs::rename(&staged.path, path).map_err(PutError::at(path))?;
    sync_folder(parent_of(path)).map_err(PutError::at(path))
}

/// Returns a number that no other temporary file of this process has.
pub(crate) fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A file without its name yet; dropping it removes it.
#[derive(Debug)]
pub(crate) struct Staged {
    path: PathBuf,
    file: File,
    hash: Sha256,
    size: u64,
    /// What it holds, where that was known before it was written.
    whole: Option<Stored>,
}

impl Staged {
    pub(crate) fn create(tmp: &Path) -> Result<Self, PutError> {
        Self::create_with_mode(tmp, 0o644)
    }

    fn create_with_mode(tmp: &Path, mode: u32) -> Result<Self, PutError> {
        let path = tmp.join(format!("{}.{}", ProcessId::current(), next_number()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(&path);
        let file = file.map_err(PutError::at(&path))?;
        let staged = Self { path, file, hash: Sha256::new(), size: 0, whole: None };
        // The umask must not show in what is stored. Most often it takes nothing away, and a look costs less than a change.
        let meta = staged.file.metadata().map_err(PutError::at(&staged.path))?;
        if meta.permissions().mode() & 0o7777 != mode {
            let mode = fs::Permissions::from_mode(mode);
            staged.file.set_permissions(mode).map_err(PutError::at(&staged.path))?;
        }
        Ok(staged)
    }

    pub(crate) fn fill(&mut self, mut reader: impl Read) -> Result<(), PutError> {
        thread_local! {
            /// Most files are small: a new buffer for each would take longer than their bytes.
            static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
        }
        let mut buffer = BUFFER.take();
        buffer.resize(COPY_BYTES, 0);
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => self.write_all(&buffer[..count]).map_err(PutError::at(&self.path))?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(PutError::Source(error)),
            }
        }
        BUFFER.set(buffer);
        Ok(())
    }

    /// Writes all that it holds, of which is known what it is.
    fn write_whole(&mut self, bytes: &[u8], stored: Stored) -> io::Result<()> {
        self.whole = Some(stored);
        self.file.write_all(bytes)
    }

    /// Returns the file itself, to write into what will never have a name: nobody asks what is in it.
    pub(crate) fn nameless(&mut self) -> &mut File {
        &mut self.file
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the file itself, which stays open when the name goes.
    pub(crate) fn reopen(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    pub(crate) fn stored(&self) -> Stored {
        let written = || Stored { digest: Digest::new(self.hash.clone().finalize().into()), size: self.size };
        self.whole.unwrap_or_else(written)
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        forget(&self.path);
    }
}

/// Removes a temporary file that did not get its name; one that did has left an empty path.
fn forget(path: &Path) {
    if !path.as_os_str().is_empty() {
        // What can't be removed now is found by the sweep at the next open.
        let _ = fs::remove_file(path);
    }
}

/// Removes what dead processes left in the folder for temporary files.
pub(crate) fn sweep(tmp: &Path) -> io::Result<()> {
    for file in fs::read_dir(tmp)? {
        let file = file?;
        let name = file.file_name();
        let owner = name.to_str().and_then(|name| name.rsplit_once('.')).map(|(owner, _)| owner);
        if owner.and_then(ProcessId::parse).is_some_and(ProcessId::is_alive) {
            continue;
        }
        let removed = match file.file_type()?.is_dir() {
            true => fs::remove_dir_all(file.path()),
            false => fs::remove_file(file.path()),
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Up to this many files are made durable each for itself; beyond, one `syncfs` costs less than as many `fsync`s, though it
/// also writes back what others left dirty. What a bake says about a new image is ten files.
const SINGLE_SYNCS_MAX: usize = 12;

/// Makes files or folders durable, all at the same time: what takes the time is that the disk empties its cache, and it does
/// that once for all who wait.
fn sync_each(paths: &[&Path]) -> Result<(), PutError> {
    let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all()).map_err(PutError::at(path));
    let Some((last, others)) = paths.split_last() else { return Ok(()) };
    std::thread::scope(|scope| {
        let others: Vec<_> = others.iter().map(|path| scope.spawn(|| sync(path))).collect();
        let own = sync(last);
        others.into_iter().try_for_each(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)))?;
        own
    })
}

/// Many files that become durable and visible together, for little more than the cost of writing them. What is put into it by
/// itself goes to where it was begun; others of the same store may add to it what goes elsewhere.
///
/// Nothing is visible before [`Batch::commit`]; dropping a batch forgets it. May be filled from several threads.
#[derive(Debug)]
pub struct Batch {
    shelf: Shelf,
    /// Closed files by what they will be called, so that a batch may hold more of them than a process may have open.
    pending: Mutex<BTreeMap<PathBuf, ClosedStage>>,
    /// Dropped after the files in it.
    staging: Staging,
}

#[derive(Debug)]
struct ClosedStage {
    path: PathBuf,
}

impl Drop for ClosedStage {
    fn drop(&mut self) {
        forget(&self.path);
    }
}

impl Batch {
    /// Adds what a reader yields.
    ///
    /// # Errors
    /// Nothing was added, and the rest of the batch is as it was.
    pub fn put_reader(&self, reader: impl Read) -> Result<Stored, PutError> {
        let mut staged = self.stage()?;
        staged.fill(reader)?;
        Ok(self.keep(&self.shelf, staged))
    }

    /// Adds what a reader yields if it is what was promised.
    ///
    /// # Errors
    /// As [`Batch::put_reader`], and `Mismatch`.
    pub(crate) fn put_expected(&self, expected: &Stored, reader: impl Read) -> Result<(), PutError> {
        let mut staged = self.stage()?;
        staged.fill(reader)?;
        let found = staged.stored();
        if found != *expected {
            return Err(PutError::Mismatch { expected: expected.digest, found: found.digest });
        }
        self.keep(&self.shelf, staged);
        Ok(())
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// As [`Batch::put_reader`].
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Stored, PutError> {
        self.put_bytes_on(&self.shelf, bytes)
    }

    /// As [`Batch::put_bytes`], for any shelf of the store.
    pub(crate) fn put_bytes_on(&self, shelf: &Shelf, bytes: &[u8]) -> Result<Stored, PutError> {
        let stored = Stored { digest: sha256(bytes), size: bytes.len() as u64 };
        let is_pending = || self.lock().contains_key(&shelf.path_of(&stored.digest));
        if shelf.size(&stored.digest) == Some(stored.size) || is_pending() {
            return Ok(stored);
        }
        let mut staged = self.stage()?;
        staged.write_whole(bytes, stored).map_err(PutError::at(&staged.path))?;
        Ok(self.keep(shelf, staged))
    }

    /// Makes all of it durable, then visible. Each file becomes visible by itself, so after a crash some may be there and
    /// others not; each that is there is whole.
    ///
    /// # Errors
    /// Some of the files may have been stored; storing them again is harmless.
    pub fn commit(self) -> Result<(), PutError> {
        let pending = std::mem::take(&mut *self.lock());
        if pending.is_empty() {
            return Ok(());
        }
        let few = pending.len() <= SINGLE_SYNCS_MAX;
        let folders = self.commit_files(pending)?;
        if few {
            return sync_each(&folders.iter().map(PathBuf::as_path).collect::<Vec<_>>());
        }
        self.sync_all()
    }

    /// Makes the content of all of it durable, then visible. A power failure may take the names again: for whoever can find out.
    pub(crate) fn commit_content(self) -> Result<(), PutError> {
        let pending = std::mem::take(&mut *self.lock());
        self.commit_files(pending).map(drop)
    }

    /// Makes files durable, then names them; returns the folders that they are in.
    fn commit_files(&self, pending: BTreeMap<PathBuf, ClosedStage>) -> Result<BTreeSet<PathBuf>, PutError> {
        if pending.len() <= SINGLE_SYNCS_MAX {
            sync_each(&pending.values().map(|stage| stage.path.as_path()).collect::<Vec<_>>())?;
        } else {
            self.sync_all()?;
        }
        self.name_all(pending)
    }

    fn name_all(&self, pending: BTreeMap<PathBuf, ClosedStage>) -> Result<BTreeSet<PathBuf>, PutError> {
        let mut folders = BTreeSet::new();
        for (target, mut stage) in pending {
            let folder = parent_of(&target).to_owned();
            if !folders.contains(&folder) {
                make_folder(&folder).map_err(PutError::at(&folder))?;
                folders.insert(folder);
            }
            fs::rename(&stage.path, &target).map_err(PutError::at(&target))?;
            stage.path.clear();
        }
        Ok(folders)
    }

    fn sync_all(&self) -> Result<(), PutError> {
        let root = self.shelf.root();
        let folder = File::open(root).map_err(PutError::at(root))?;
        rustix::fs::syncfs(folder).map_err(io::Error::from).map_err(PutError::at(root))
    }

    /// Begins a file, which should be added.
    pub(crate) fn stage(&self) -> Result<Staged, PutError> {
        self.staging.create()
    }

    /// Adds a file that was written for a shelf of the store, unless it is there.
    pub(crate) fn keep(&self, shelf: &Shelf, staged: Staged) -> Stored {
        let stored = staged.stored();
        if shelf.size(&stored.digest) != Some(stored.size) {
            self.add_to(shelf, staged);
        }
        stored
    }

    /// Adds a file that is to be plain, whether or not it is packed.
    pub(crate) fn add(&self, staged: Staged) {
        self.add_to(&self.shelf, staged);
    }

    fn add_to(&self, shelf: &Shelf, mut staged: Staged) {
        let target = shelf.path_of(&staged.stored().digest);
        // The path moves on to the batch, so that the drop of `staged` removes nothing.
        let path = std::mem::take(&mut staged.path);
        let stage = ClosedStage { path };
        // The same bytes twice: the second file is dropped, and gone with that.
        self.lock().entry(target).or_insert(stage);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, ClosedStage>> {
        // A panic elsewhere can't leave the map half-changed: every use of it is one call.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
