//! Packs: what is kept but not needed at the moment, cut into chunks by its content and compressed.
//!
//! A pack holds file objects and layers of images. Chunks that several of them share are stored once, so thirty versions of an
//! image take little more than one. What is packed reads like anything else that is stored, only slower; a tree is unpacked
//! before it is mounted, since the overlay reads its objects past this crate.
//!
//! What is packed stays so until a collection finds it unneeded: unpacking only adds a plain copy, and packing again
//! only removes it.

mod cut;
mod index;
mod read;
mod retain;
mod write;

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_model::Digest;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{PutError, ReadError};
use crate::shelf::{Shelf, replace_file, sync_folder};
use index::Index;
use read::Frames;

pub use read::PackError;
pub(crate) use write::Kind;

/// The packs of a store.
#[derive(Debug)]
pub(crate) struct Packs {
    root: PathBuf,
    tmp: PathBuf,
    pub(crate) data: Shelf,
    seen: Mutex<Seen>,
}

/// What this process read last.
#[derive(Debug, Default)]
struct Seen {
    stamp: Option<Stamp>,
    index: Arc<Index>,
    frames: Frames,
}

/// Tells one index file from the next: each is a file of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

/// A file of the packs that is not as it was written. What only it holds must be baked again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackDamage {
    /// Where it is.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
    /// Whether it is the index, without which nothing that is packed is found.
    pub is_index: bool,
}

impl std::fmt::Display for PackDamage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

/// While it is held, no tree is mounted, and none that is mounted by then is unknown to whoever asks for what runs.
#[derive(Debug)]
pub struct StartsHeld {
    _lock: File,
}

/// Tells this boot of the machine from every other.
fn boot() -> io::Result<Vec<u8>> {
    fs::read("/proc/sys/kernel/random/boot_id")
}

impl Packs {
    pub(crate) fn open(root: PathBuf, tmp: &Path) -> io::Result<Self> {
        fs::create_dir_all(root.join("trees"))?;
        let data = Shelf::open(root.join("data"), tmp)?;
        Ok(Self { root, tmp: tmp.to_owned(), data, seen: Mutex::default() })
    }

    /// Whether something is packed; what can't be told is not.
    pub(crate) fn contains(&self, digest: &Digest) -> bool {
        self.size(digest).is_some()
    }

    /// Returns the size of something that is packed, as it is when it is unpacked.
    pub(crate) fn size(&self, digest: &Digest) -> Option<u64> {
        Some(self.index().ok()?.items.get(digest)?.size)
    }

    /// Whether anything at all is packed.
    pub(crate) fn is_empty(&self) -> bool {
        self.index().is_ok_and(|index| index.items.is_empty())
    }

    /// Returns how many bytes the packs take.
    pub(crate) fn bytes(&self) -> io::Result<u64> {
        let files = self.data.list()?;
        let index = fs::metadata(self.index_path()).map_or(0, |meta| meta.len());
        Ok(files.iter().filter_map(|file| self.data.size(file)).sum::<u64>() + index)
    }

    /// Returns what is wrong with the files of the packs, as far as that can be told without reading all of them: the rest is
    /// found when it is unpacked.
    pub(crate) fn damage(&self) -> Vec<PackDamage> {
        let index = match self.index() {
            Ok(index) => index,
            Err(ReadError::Io { path, source }) => {
                return vec![PackDamage { path, reason: source.to_string(), is_index: true }];
            }
            Err(error) => {
                return vec![PackDamage {
                    path: self.index_path(),
                    reason: error.to_string(),
                    is_index: true,
                }];
            }
        };
        let mut ends = vec![0; index.packs.len()];
        for frame in &index.frames {
            let end = &mut ends[frame.pack as usize];
            *end = frame.offset.saturating_add(u64::from(frame.packed_bytes)).max(*end);
        }
        let wrong = |(pack, end): (&Digest, u64)| {
            let reason = match self.data.plain_size(pack) {
                None => "it is gone".to_owned(),
                Some(size) if size < end => format!("it is cut at {size} of {end} bytes"),
                Some(_) => return None,
            };
            Some(PackDamage { path: self.data.path_of(pack), reason, is_index: false })
        };
        index.packs.iter().zip(ends).filter_map(wrong).collect()
    }

    /// Notes that objects of a tree are packed alone, durably once the marks are synced.
    pub(crate) fn mark(&self, tree: &Digest) -> io::Result<()> {
        let path = self.mark_path(tree);
        let is_empty = fs::metadata(&path).is_ok_and(|meta| meta.len() == 0);
        if is_empty { Ok(()) } else { File::create(path)?.sync_all() }
    }

    /// Makes the marks durable.
    pub(crate) fn sync_marks(&self) -> io::Result<()> {
        sync_folder(&self.root.join("trees"))
    }

    /// Notes that all objects of a tree are plain files, as far as this boot of the machine goes: their content is durable, but a
    /// power failure may take their names.
    fn note_unpacked(&self, tree: &Digest) -> io::Result<()> {
        fs::write(self.mark_path(tree), boot()?)
    }

    /// Forgets what is noted of a tree.
    pub(crate) fn unmark(&self, tree: &Digest) -> io::Result<()> {
        match fs::remove_file(self.mark_path(tree)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether a tree must be unpacked before it is mounted.
    pub(crate) fn is_marked(&self, tree: &Digest) -> bool {
        match fs::read(self.mark_path(tree)) {
            Ok(noted) => boot().is_ok_and(|boot| noted != boot) || noted.is_empty(),
            Err(error) => error.kind() != ErrorKind::NotFound,
        }
    }

    /// Whether objects of a tree are packed, even if they are plain files in this boot.
    pub(crate) fn is_noted(&self, tree: &Digest) -> bool {
        self.mark_path(tree).exists()
    }

    /// Makes plain files of the objects of a tree that is marked.
    pub(crate) fn unpack_tree(
        &self,
        shelf: &Shelf,
        tree: &Digest,
        objects: impl Iterator<Item = Digest>,
    ) -> Result<(), PackError> {
        self.unpack(shelf, objects)?;
        Ok(self.note_unpacked(tree)?)
    }

    /// Holds off the removal of plain copies: take it before looking whether a tree must be unpacked, and keep it until it is
    /// mounted.
    pub(crate) fn start(&self) -> io::Result<File> {
        self.lock("starts", FlockOperation::LockShared)
    }

    /// Holds off mounts.
    pub(crate) fn hold_starts(&self) -> io::Result<StartsHeld> {
        self.lock("starts", FlockOperation::LockExclusive).map(|lock| StartsHeld { _lock: lock })
    }

    /// The right to write the index.
    fn writing(&self) -> Result<File, PutError> {
        self.lock("writing", FlockOperation::LockExclusive).map_err(PutError::at(&self.root))
    }

    fn lock(&self, name: &str, how: FlockOperation) -> io::Result<File> {
        let path = self.root.join(format!("{name}.lock"));
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        loop {
            match flock(&file, how) {
                Ok(()) => return Ok(file),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Removes something from the index; its chunks go with a later collection.
    pub(crate) fn forget(&self, digest: &Digest) -> io::Result<bool> {
        if !self.contains(digest) {
            return Ok(false);
        }
        let _writing = self.writing().map_err(io::Error::other)?;
        let mut index = Index::clone(&*self.index().map_err(io::Error::other)?);
        let was = index.items.remove(digest).is_some();
        self.save(&index).map_err(io::Error::other)?;
        Ok(was)
    }

    /// Returns the index as it is on the disk now.
    fn index(&self) -> Result<Arc<Index>, ReadError> {
        let path = self.index_path();
        let stamp = match fs::metadata(&path) {
            Ok(meta) => Some(Stamp {
                inode: meta.ino(),
                size: meta.len(),
                changed: (meta.ctime(), meta.ctime_nsec()),
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(ReadError::at(path)(error)),
        };
        let mut seen = self.seen();
        if seen.stamp != stamp {
            let index = match stamp {
                None => Index::default(),
                Some(_) => {
                    let bytes = fs::read(&path).map_err(ReadError::at(&path))?;
                    let wrong = |reason| ReadError::at(&path)(io::Error::new(ErrorKind::InvalidData, reason));
                    Index::parse(&bytes).map_err(wrong)?
                }
            };
            *seen = Seen { stamp, index: Arc::new(index), frames: Frames::default() };
        }
        Ok(Arc::clone(&seen.index))
    }

    /// Replaces the index: after a crash it is the old one or the new one.
    fn save(&self, index: &Index) -> Result<(), PutError> {
        replace_file(&self.index_path(), &self.tmp, &index.to_bytes())
    }

    fn index_path(&self) -> PathBuf {
        self.root.join("index")
    }

    fn mark_path(&self, tree: &Digest) -> PathBuf {
        self.root.join("trees").join(tree.hex())
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        // What is behind the lock is replaced as a whole.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
