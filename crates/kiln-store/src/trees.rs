//! The trees of images: stored as EROFS metadata, mounted as the root of an instance.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use kiln_model::Digest;

use crate::error::{PutError, ReadError};
use crate::object::Objects;
use crate::shelf::Shelf;
use crate::skeleton::MountPoint;
use crate::tree::{Tree, TreeError};

/// The trees of a store.
#[derive(Debug, Clone)]
pub struct Trees {
    shelf: Shelf,
    objects: Objects,
    tmp: PathBuf,
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

/// How a tree can be mounted, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strategy {
    /// The metadata's EROFS straight from its file, under an overlay whose data layer is the objects.
    FileOverlay,
    /// The same with a loop device between, where the file lies on what EROFS can't read files from.
    LoopOverlay,
    /// A whole EROFS with the files' data, where the overlay is refused; no sharing between images.
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
    /// A whole image of it could not be written.
    #[error(transparent)]
    Put(#[from] PutError),
    /// The kernel refused every way.
    #[error("the kernel refused to mount {tree} ({step})")]
    Refused {
        /// The tree.
        tree: Digest,
        /// What it refused, and how, for each strategy that was tried.
        step: String,
        /// The last refusal.
        #[source]
        source: io::Error,
    },
}

impl Trees {
    pub(crate) fn open(root: &Path, tmp: &Path, objects: Objects) -> io::Result<Self> {
        Ok(Self { shelf: Shelf::open(root.join("trees"), tmp)?, objects, tmp: tmp.into() })
    }

    /// Stores a tree, with the mount points that every instance needs added to it.
    ///
    /// The same tree always gives the same digest. Store its objects first.
    ///
    /// # Errors
    /// See [`PutTreeError`].
    pub fn put(&self, tree: &Tree) -> Result<Digest, PutTreeError> {
        let _ = (tree, &self.tmp, &self.objects);
        todo!()
    }

    /// Stores a variant of a stored tree with more mount points, and returns its digest. Cheap once it is there.
    ///
    /// # Errors
    /// See [`PutTreeError`].
    pub fn with_mount_points(&self, tree: &Digest, points: &[MountPoint]) -> Result<Digest, PutTreeError> {
        let _ = (tree, points);
        todo!()
    }

    /// Reads a tree back as it was put: without the mount points that were added.
    ///
    /// # Errors
    /// `Missing`, or `Corrupt` where the bytes are not those that were stored.
    pub fn load(&self, digest: &Digest) -> Result<Tree, ReadError> {
        let _ = digest;
        todo!()
    }

    /// Whether a tree is there. Does not verify it.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.shelf.contains(digest)
    }

    /// Removes a tree; whether there was one. A mount of it stays until it is unmounted.
    ///
    /// # Errors
    /// The file system refused.
    pub fn remove(&self, digest: &Digest) -> io::Result<bool> {
        self.shelf.remove(digest)
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
    /// # Errors
    /// See [`AssembleError`].
    pub fn assemble(&self, tree: &Digest) -> Result<Mounted, AssembleError> {
        let _ = tree;
        todo!()
    }

    /// Mounts a tree in one way only: for tests of each, and for `kiln status`.
    ///
    /// # Errors
    /// See [`AssembleError`].
    pub fn assemble_with(&self, tree: &Digest, strategy: Strategy) -> Result<Mounted, AssembleError> {
        let _ = (tree, strategy);
        todo!()
    }
}
