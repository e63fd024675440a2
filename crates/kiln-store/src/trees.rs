//! The trees of images: stored as EROFS metadata, mounted as the root of an instance.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_model::Digest;

use crate::erofs::{WriteError, metadata_image, read_tree, write_metadata_image, write_whole_image};
use crate::error::{PutError, ReadError};
use crate::mount::{Backing, Refusal, mount_erofs, mount_overlay, mount_writable};
use crate::object::Objects;
use crate::packs::{PackError, Packs};
use crate::shelf::{Batch, Shelf, Staged, replace_file, sha256};
use crate::skeleton::{self, MountPoint};
use crate::tree::{Tree, TreeError};

/// The metadata of a tree is read into memory: some tens of bytes a file, so this is room for millions.
const METADATA_BYTES_MAX: u64 = 1 << 30;

/// Where it is listed which objects a tree needs.
const LISTS: &str = "lists";

/// A digest and a size.
const LIST_ITEM_BYTES: usize = 40;

/// Metadata is written in pieces of this size: memory for all of it would first have to be had from the kernel, page by page.
const PIECE_BYTES: usize = 64 << 10;

/// The trees of a store.
#[derive(Debug, Clone)]
pub struct Trees {
    shelf: Shelf,
    objects: Objects,
    packs: Arc<Packs>,
    tmp: Arc<Path>,
    /// What can be made again: whole images, and which variant has which mount points.
    cache: Arc<Path>,
    /// What was put last: whoever bakes an image looks at its tree next. Its bytes are verified as those of any other are, but
    /// need not be understood again. It shares all that it can with the baker's own.
    last: Arc<Mutex<Option<Arc<PutTree>>>>,
}

/// A tree that was put, without and with its mount points.
#[derive(Debug)]
struct PutTree {
    digest: Digest,
    tree: Tree,
    furnished: Tree,
}

/// A tree, mounted read-only and attached nowhere.
///
/// Whoever holds it calls `move_mount` with it in a mount namespace of its choice; dropped before that, it is gone.
#[derive(Debug)]
pub struct Mounted {
    /// The mount, as `fsmount` gave it.
    pub mount: OwnedFd,
    /// How it was made.
    pub strategy: Strategy,
}

/// A tree, mounted so that what is written over it goes to a folder, and attached nowhere.
#[derive(Debug)]
pub struct Writable {
    /// The mount, as `fsmount` gave it.
    pub mount: OwnedFd,
    /// The tree as it is seen there, with its mount points.
    pub shown: Tree,
}

/// How a tree can be mounted, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strategy {
    /// The metadata's EROFS straight from its file, under an overlay whose data layer is the objects.
    FileOverlay,
    /// The same with a loop device between, where the file lies on what EROFS can't read files from.
    LoopOverlay,
    /// A whole EROFS with the files' data, where the overlay is refused: nothing is shared between images.
    FileWhole,
    /// The same with a loop device.
    LoopWhole,
}

/// A tree can't be stored.
#[derive(Debug, thiserror::Error)]
pub enum PutTreeError {
    /// Its bytes can't be stored.
    #[error(transparent)]
    Put(#[from] PutError),
    /// A mount point can't be made in it.
    #[error("a mount point can't be made in the image")]
    MountPoint(#[source] TreeError),
    /// It is beyond the limits of the format.
    #[error("the tree can't be stored: {0}")]
    Format(String),
    /// The tree that it is made from can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// A tree can't be mounted.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// Its metadata or one of its objects is missing or corrupt.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is packed, and can't be unpacked.
    #[error("the image can't be unpacked")]
    Unpack(#[source] io::Error),
    /// A whole image of it could not be written.
    #[error("a whole image of the tree can't be written")]
    Whole(#[source] io::Error),
    /// The kernel refused every way.
    #[error("the kernel refused to mount {tree}: {refusals}")]
    Refused {
        /// The tree.
        tree: Digest,
        /// What it refused and why, for each way that was tried.
        refusals: String,
    },
}

impl Strategy {
    /// All of them, the best first.
    pub const ALL: [Self; 4] = [Self::FileOverlay, Self::LoopOverlay, Self::FileWhole, Self::LoopWhole];

    const fn backing(self) -> Backing {
        match self {
            Self::FileOverlay | Self::FileWhole => Backing::File,
            Self::LoopOverlay | Self::LoopWhole => Backing::Loop,
        }
    }

    const fn is_whole(self) -> bool {
        matches!(self, Self::FileWhole | Self::LoopWhole)
    }
}

impl Trees {
    pub(crate) fn open(root: &Path, tmp: &Path, objects: Objects, packs: Arc<Packs>) -> io::Result<Self> {
        let cache = root.join("cache");
        for folder in ["whole", "variants", LISTS] {
            fs::create_dir_all(cache.join(folder))?;
        }
        let shelf = Shelf::open(root.join("trees"), tmp)?;
        Ok(Self { shelf, objects, packs, tmp: tmp.into(), cache: cache.into(), last: Arc::default() })
    }

    /// Stores a tree, with the mount points that every instance needs added to it.
    ///
    /// The same tree always gives the same digest. Store its objects first.
    ///
    /// # Errors
    /// See [`PutTreeError`].
    pub fn put(&self, tree: &Tree) -> Result<Digest, PutTreeError> {
        let batch = self.shelf.batch();
        let digest = self.put_into(&batch, tree)?;
        batch.commit()?;
        Ok(digest)
    }

    /// As [`Trees::put`], into a batch of the store: it becomes durable and visible with what else is in it.
    ///
    /// # Errors
    /// See [`PutTreeError`].
    pub fn put_into(&self, batch: &Batch, tree: &Tree) -> Result<Digest, PutTreeError> {
        let furnished = skeleton::furnish(tree, &[]).map_err(PutTreeError::MountPoint)?;
        let mut staged = self.shelf.stage()?;
        let at = staged.path().to_owned();
        write_image(&furnished, &mut staged, &at)?;
        let digest = staged.stored().digest;
        let shelf = self.objects.shelf();
        // What was put and is packed was not written again: it is unpacked when the tree is mounted. So it is where it is a plain
        // file now, whose name a power failure may take.
        if !self.packs.is_empty() && tree.objects().any(|object| shelf.is_packed(&object)) {
            self.mark(&digest)?;
        }
        batch.keep(&self.shelf, staged);
        let last = PutTree { digest, tree: tree.clone(), furnished };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(last));
        Ok(digest)
    }

    /// Mounts a tree in one way without storing it, for whoever is the only one ever to mount it; none where the kernel refuses,
    /// or where only a stored one can be mounted: as a whole image, or in a store that has packs. Store its objects first.
    ///
    /// # Errors
    /// See [`PutTreeError`].
    pub fn mount_unstored(&self, tree: &Tree, strategy: Strategy) -> Result<Option<Mounted>, PutTreeError> {
        let mounted =
            self.unstored(tree, strategy, |metadata| mount_overlay(metadata, self.objects.root()))?;
        Ok(mounted.map(|(mount, _)| Mounted { mount, strategy }))
    }

    /// As [`Trees::mount_unstored`], with all that is written over it in `upper`: one overlay, and not a second one over that
    /// of the tree, so every look at a file costs half. `work` is an empty folder of the same file system.
    ///
    /// The kernel writes down there what is only moved, or only gets other attributes, and does not copy it: the attributes
    /// `trusted.overlay.redirect` and `trusted.overlay.metacopy` refer to [`Writable::shown`].
    ///
    /// # Errors
    /// See [`PutTreeError`].
    pub fn mount_writable(
        &self,
        tree: &Tree,
        upper: &Path,
        work: &Path,
    ) -> Result<Option<Writable>, PutTreeError> {
        for strategy in [Strategy::FileOverlay, Strategy::LoopOverlay] {
            let mounted = self.unstored(tree, strategy, |metadata| {
                mount_writable(metadata, self.objects.root(), upper, work)
            })?;
            if let Some((mount, shown)) = mounted {
                return Ok(Some(Writable { mount, shown }));
            }
        }
        Ok(None)
    }

    /// Mounts the metadata of a tree without storing it, and what `lay` lays over it.
    fn unstored(
        &self,
        tree: &Tree,
        strategy: Strategy,
        lay: impl FnOnce(&OwnedFd) -> Result<OwnedFd, Refusal>,
    ) -> Result<Option<(OwnedFd, Tree)>, PutTreeError> {
        let _start = self.packs.start().map_err(PutError::at(&self.cache))?;
        if strategy.is_whole() || !self.packs.is_empty() {
            return Ok(None);
        }
        let shown = skeleton::furnish(tree, &[]).map_err(PutTreeError::MountPoint)?;
        let mut staged = Staged::create(&self.tmp)?;
        let at = staged.path().to_owned();
        write_image(&shown, staged.nameless(), &at)?;
        // What is mounted stays when its name goes, which it does with `staged`.
        let mount = mount_erofs(staged.path(), strategy.backing()).and_then(|metadata| lay(&metadata));
        Ok(mount.ok().map(|mount| (mount, shown)))
    }

    /// Stores a variant of a stored tree with more mount points, and returns its digest. Cheap once it is there.
    ///
    /// # Errors
    /// See [`PutTreeError`].
    pub fn with_mount_points(&self, tree: &Digest, points: &[MountPoint]) -> Result<Digest, PutTreeError> {
        if points.is_empty() {
            return Ok(*tree);
        }
        let mut key = tree.as_bytes().to_vec();
        for point in points {
            let (kind, path) = match point {
                MountPoint::Dir(path) => (b'd', path),
                MountPoint::File(path) => (b'f', path),
            };
            // A path has no NUL, so the list can be read in one way only.
            key.extend_from_slice(&[&[kind], path.as_bytes(), b"\0"].concat());
        }
        let cached = self.cache.join("variants").join(sha256(&key).hex());
        if let Some((_, variant)) = read_variant(&cached).filter(|(_, variant)| self.contains(variant)) {
            return Ok(variant);
        }
        let furnished = skeleton::furnish(&self.load(tree)?, points).map_err(PutTreeError::MountPoint)?;
        let image = metadata_image(&furnished).map_err(not_written(&cached))?;
        let variant = sha256(&image);
        // Held until the variant is there: packing marks a tree with its variants, and would not know of this one.
        let _start = self.packs.start().map_err(PutError::at(&self.cache))?;
        if self.packs.is_noted(tree) {
            self.mark(&variant)?;
        }
        // Noted before it is stored: whoever stores it holds no lease, and a collection keeps what is noted of a kept tree.
        replace_file(&cached, &self.tmp, format!("{tree} {variant}").as_bytes())?;
        Ok(self.shelf.put_bytes(&image)?)
    }

    /// Lists the variants that were made, each after the tree that it was made of.
    pub(crate) fn variants(&self) -> Vec<(Digest, Digest)> {
        let files = fs::read_dir(self.cache.join("variants"));
        files.into_iter().flatten().flatten().filter_map(|file| read_variant(&file.path())).collect()
    }

    /// Removes what is noted of variants of trees that are gone. A variant that is not there may be about to be stored.
    pub(crate) fn forget_variants_of_missing(&self) -> io::Result<()> {
        for file in fs::read_dir(self.cache.join("variants"))? {
            let path = file?.path();
            if !read_variant(&path).is_some_and(|(base, _)| self.contains(&base)) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn mark(&self, tree: &Digest) -> Result<(), PutError> {
        self.packs.mark(tree).and_then(|()| self.packs.sync_marks()).map_err(PutError::at(&self.cache))
    }

    /// Unpacks a tree of which objects are packed alone, and returns what keeps it so until it is mounted.
    pub(crate) fn unpacked(&self, tree: &Digest) -> Result<File, AssembleError> {
        let start = self.packs.start().map_err(AssembleError::Unpack)?;
        if self.packs.is_marked(tree) {
            let objects = self.load_furnished(tree)?;
            let unpacked = self.packs.unpack_tree(self.objects.shelf(), tree, objects.objects());
            unpacked.map_err(|error| match error {
                PackError::Read(error) => AssembleError::Read(error),
                error => AssembleError::Unpack(io::Error::other(error)),
            })?;
        }
        Ok(start)
    }

    /// Whether a tree must be unpacked before it is mounted, which happens by itself.
    pub fn is_packed(&self, tree: &Digest) -> bool {
        self.packs.is_marked(tree)
    }

    /// The tree that was put last, if it is this one.
    fn last(&self, digest: &Digest) -> Option<Arc<PutTree>> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone().filter(|last| last.digest == *digest)
    }

    /// Reads a tree back as it was put: without the mount points that were added.
    ///
    /// # Errors
    /// `Missing`, or `Corrupt` where the bytes are not those that were stored.
    pub fn load(&self, digest: &Digest) -> Result<Tree, ReadError> {
        if let Some(last) = self.last(digest) {
            return self.shelf.verify(digest).map(|()| last.tree.clone());
        }
        skeleton::strip(self.read(digest)?).map_err(|reason| ReadError::corrupt(digest, reason))
    }

    /// Reads a tree as it is mounted: with the mount points that were added, and the list of them on its root.
    ///
    /// # Errors
    /// As [`Trees::load`].
    pub fn load_furnished(&self, digest: &Digest) -> Result<Tree, ReadError> {
        match self.last(digest) {
            Some(last) => self.shelf.verify(digest).map(|()| last.furnished.clone()),
            None => self.read(digest),
        }
    }

    fn read(&self, digest: &Digest) -> Result<Tree, ReadError> {
        let image = self.shelf.read(digest, METADATA_BYTES_MAX)?;
        read_tree(&image).map_err(|reason| ReadError::corrupt(digest, reason))
    }

    /// Reads which objects a tree needs, each once and with its size, in their order.
    ///
    /// # Errors
    /// As [`Trees::load`].
    pub(crate) fn load_objects(&self, digest: &Digest) -> Result<Vec<(Digest, u64)>, ReadError> {
        let tree = self.load_furnished(digest)?;
        let mut objects: Vec<_> = tree.sized_objects().collect();
        objects.sort_unstable();
        objects.dedup_by_key(|(digest, _)| *digest);
        Ok(objects)
    }

    /// Whether a tree is there. Does not verify it.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.shelf.contains(digest)
    }

    /// Returns the size of the metadata of a tree that is there.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        self.shelf.size(digest)
    }

    /// Returns where a tree is or would be.
    pub fn path_of(&self, digest: &Digest) -> PathBuf {
        self.shelf.path_of(digest)
    }

    /// Removes a tree; whether there was one. A mount of it stays until it is unmounted.
    ///
    /// # Errors
    /// The file system refused.
    pub fn remove(&self, digest: &Digest) -> io::Result<bool> {
        for path in [self.whole_path(digest), self.list_path(digest)] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let was = self.shelf.remove(digest)?;
        self.packs.unmark(digest)?;
        Ok(was)
    }

    /// Lists all trees in the order of their digests.
    ///
    /// # Errors
    /// The file system refused.
    pub fn list(&self) -> io::Result<Vec<Digest>> {
        self.shelf.list()
    }

    /// Mounts a tree in the best way that the kernel accepts.
    ///
    /// Does not read the tree: a corrupt one is found by [`Trees::load`], and by whoever reads from the mount.
    ///
    /// # Errors
    /// See [`AssembleError`].
    pub fn assemble(&self, tree: &Digest) -> Result<Mounted, AssembleError> {
        let mut refusals = Vec::new();
        for strategy in Strategy::ALL {
            match self.try_assemble(tree, strategy)? {
                Ok(mounted) => return Ok(mounted),
                Err(refusal) => refusals.push(describe(strategy, &refusal)),
            }
        }
        Err(AssembleError::Refused { tree: *tree, refusals: refusals.join("; ") })
    }

    /// Mounts a tree in one way only: for tests of each, and to say which of them a machine has.
    ///
    /// # Errors
    /// See [`AssembleError`].
    pub fn assemble_with(&self, tree: &Digest, strategy: Strategy) -> Result<Mounted, AssembleError> {
        let refused =
            |refusal| AssembleError::Refused { tree: *tree, refusals: describe(strategy, &refusal) };
        self.try_assemble(tree, strategy)?.map_err(refused)
    }

    /// The outer error ends the search for a way, the inner one goes on with the next.
    fn try_assemble(
        &self,
        tree: &Digest,
        strategy: Strategy,
    ) -> Result<Result<Mounted, Refusal>, AssembleError> {
        if !self.contains(tree) {
            return Err(ReadError::Missing(*tree).into());
        }
        let _start = self.unpacked(tree)?;
        let mount = if strategy.is_whole() {
            mount_erofs(&self.whole_image(tree)?, strategy.backing())
        } else {
            mount_erofs(&self.shelf.path_of(tree), strategy.backing())
                .and_then(|metadata| mount_overlay(&metadata, self.objects.root()))
        };
        Ok(mount.map(|mount| Mounted { mount, strategy }))
    }

    fn list_path(&self, tree: &Digest) -> PathBuf {
        self.cache.join(LISTS).join(tree.hex())
    }

    /// Returns the objects that a tree needs with their sizes in their order, from its list: none where there is no whole list.
    pub(crate) fn listed_objects(&self, tree: &Digest) -> Option<Vec<(Digest, u64)>> {
        let bytes = fs::read(self.list_path(tree)).ok()?;
        let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
        if sha256(body).as_bytes() != sum || body.len() % LIST_ITEM_BYTES != 0 {
            return None;
        }
        let item = |item: &[u8]| {
            let (digest, size) = item.split_at(32);
            let digest = Digest::new(digest.try_into().expect("an item begins with 32 bytes"));
            (digest, u64::from_le_bytes(size.try_into().expect("an item ends with 8 bytes")))
        };
        let listed: Vec<_> = body.chunks_exact(LIST_ITEM_BYTES).map(item).collect();
        listed.is_sorted().then_some(listed)
    }

    /// Writes the list of a tree. It only saves time, so nobody waits for the disk, and one that can't be written is made again.
    pub(crate) fn list_objects(&self, tree: &Digest, objects: &[(Digest, u64)]) {
        let mut bytes = Vec::with_capacity((objects.len() + 1) * LIST_ITEM_BYTES);
        for (digest, size) in objects {
            bytes.extend(digest.as_bytes());
            bytes.extend(size.to_le_bytes());
        }
        let sum = sha256(&bytes);
        bytes.extend(sum.as_bytes());
        if let Ok(mut staged) = Staged::create(&self.tmp) {
            let written = io::Write::write_all(&mut staged, &bytes);
            let _ = written.and_then(|()| fs::rename(staged.path(), self.list_path(tree)));
        }
    }

    fn whole_path(&self, tree: &Digest) -> PathBuf {
        self.cache.join("whole").join(tree.hex())
    }

    /// Returns the whole image of a tree, writing it where it is missing.
    fn whole_image(&self, digest: &Digest) -> Result<PathBuf, AssembleError> {
        let path = self.whole_path(digest);
        if path.is_file() {
            return Ok(path);
        }
        let tree = self.load_furnished(digest)?;
        let failed = |error: PutError| AssembleError::Whole(io::Error::other(error));
        let mut staged = Staged::create(&self.tmp).map_err(failed)?;
        let written = {
            let mut buffered = io::BufWriter::with_capacity(1 << 20, &mut staged);
            write_whole_image(&tree, &self.objects, &mut buffered)
                .and_then(|()| Ok(io::Write::flush(&mut buffered)?))
        };
        written.map_err(|error| match error {
            WriteError::Object(error) => AssembleError::Read(error),
            error => AssembleError::Whole(io::Error::other(error.to_string())),
        })?;
        // Half of one must never be mounted after a power cut.
        File::open(staged.path())
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(staged.path(), &path))
            .map_err(AssembleError::Whole)?;
        Ok(path)
    }
}

/// Writes the metadata of a tree that has its mount points to what is at `path`.
fn write_image(furnished: &Tree, out: &mut impl io::Write, path: &Path) -> Result<(), PutTreeError> {
    let mut out = io::BufWriter::with_capacity(PIECE_BYTES, out);
    let written = write_metadata_image(furnished, &mut out).and_then(|()| Ok(io::Write::flush(&mut out)?));
    written.map_err(not_written(path))
}

fn not_written(path: &Path) -> impl FnOnce(WriteError) -> PutTreeError {
    move |error| match error {
        WriteError::Format(error) => PutTreeError::Format(error.0),
        WriteError::Object(error) => PutTreeError::Read(error),
        WriteError::Io(error) => PutTreeError::Put(PutError::at(path)(error)),
    }
}

/// Reads which tree a variant was made of, and the variant; none where the file is not whole.
fn read_variant(path: &Path) -> Option<(Digest, Digest)> {
    let text = fs::read_to_string(path).ok()?;
    let (base, variant) = text.split_once(' ')?;
    Some((base.parse().ok()?, variant.parse().ok()?))
}

fn describe(strategy: Strategy, refusal: &Refusal) -> String {
    let Refusal { step, message, source } = refusal;
    match message.is_empty() {
        true => format!("{strategy:?}: {step}: {source}"),
        false => format!("{strategy:?}: {step}: {source} ({message})"),
    }
}

#[cfg(test)]
mod tests;
