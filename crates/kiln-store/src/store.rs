//! The one entry point to `STATE/store`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::blob::Blobs;
use crate::image::Images;
use crate::lease::Leases;
use crate::object::Objects;
use crate::packs::Packs;
use crate::referrers::Referrers;
use crate::release::Releases;
use crate::shelf;
use crate::snapshot::Snapshots;
use crate::trees::Trees;

/// All that is stored by digest. Opening is cheap, and so is a clone; both may be shared between threads, and any number
/// of processes may have the same store open.
#[derive(Debug, Clone)]
pub struct Store {
    /// Blobs by the digest of their bytes.
    pub blobs: Blobs,
    /// The content of the files of all images.
    pub objects: Objects,
    /// The trees of images, ready to mount.
    pub trees: Trees,
    /// Baked images by the digest of their manifest.
    pub images: Images,
    /// Which manifests are about an image.
    pub referrers: Referrers,
    /// Releases and bindings.
    pub releases: Releases,
    /// Snapshots of stack folders.
    pub snapshots: Snapshots,
    /// What keeps a collection away from what was just written.
    pub leases: Leases,
    pub(crate) packs: Arc<Packs>,
}

/// A store can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("the store in {path} can't be opened")]
pub struct OpenStoreError {
    /// The store's folder.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl Store {
    /// Opens the store of a state folder, makes it where there is none, and removes what killed writers left behind.
    ///
    /// # Errors
    /// The file system refused.
    pub fn open(state: impl AsRef<Path>) -> Result<Self, OpenStoreError> {
        let root = state.as_ref().join("store");
        Self::open_at(&root).map_err(|source| OpenStoreError { path: root, source })
    }

    fn open_at(root: &Path) -> io::Result<Self> {
        let tmp = root.join("tmp");
        fs::create_dir_all(&tmp)?;
        shelf::sweep(&tmp)?;
        let packs = Arc::new(Packs::open(root.join("packs"), &tmp)?);
        let blobs = Blobs::open(root.join("blobs/sha256"), &tmp, &packs)?;
        let objects = Objects::open(root.join("objects"), &tmp, &packs)?;
        Ok(Self {
            trees: Trees::open(root, &tmp, objects.clone(), Arc::clone(&packs))?,
            images: Images::open(&root.join("images"), &tmp)?,
            referrers: Referrers::open(root.join("images/referrers"))?,
            releases: Releases::new(blobs.clone()),
            snapshots: Snapshots::new(blobs.clone()),
            leases: Leases::open(root.join("leases"))?,
            blobs,
            objects,
            packs,
        })
    }
}
