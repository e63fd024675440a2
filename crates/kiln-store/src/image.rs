//! Records of baked images: which tree and config belong to a manifest, and which names point at it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_model::Digest;
use kiln_model::image::Image;

use crate::error::{PutError, ReadError};

/// The images of a store.
#[derive(Debug, Clone)]
pub struct Images {
    root: Arc<Path>,
    tmp: Arc<Path>,
}

impl Images {
    pub(crate) fn open(root: PathBuf, tmp: &Path) -> io::Result<Self> {
        Ok(Self { root: root.into(), tmp: tmp.into() })
    }

    /// Records an image under the digest of its manifest, durably. Store its tree and its blobs first.
    ///
    /// # Errors
    /// See [`PutError`].
    pub fn put(&self, image: &Image) -> Result<(), PutError> {
        let _ = (image, &self.root, &self.tmp);
        todo!()
    }

    /// Returns the image of a manifest.
    ///
    /// # Errors
    /// `Missing`, or `Corrupt`.
    pub fn get(&self, manifest: &Digest) -> Result<Image, ReadError> {
        let _ = manifest;
        todo!()
    }

    /// Whether there is a record.
    pub fn contains(&self, manifest: &Digest) -> bool {
        let _ = manifest;
        todo!()
    }

    /// Lists the manifests of all images in order.
    ///
    /// # Errors
    /// The file system refused.
    pub fn list(&self) -> io::Result<Vec<Digest>> {
        todo!()
    }

    /// Removes a record; whether there was one. Its tree and its blobs stay.
    ///
    /// # Errors
    /// The file system refused.
    pub fn remove(&self, manifest: &Digest) -> io::Result<bool> {
        let _ = manifest;
        todo!()
    }

    /// Points a name, such as `shop/web` or `debian:bookworm`, at a manifest, for people and for caches.
    ///
    /// # Errors
    /// See [`PutError`].
    pub fn set_name(&self, name: &str, manifest: &Digest) -> Result<(), PutError> {
        let _ = (name, manifest);
        todo!()
    }

    /// Returns what a name points at.
    pub fn by_name(&self, name: &str) -> Option<Digest> {
        let _ = name;
        todo!()
    }

    /// Lists all names with what they point at.
    ///
    /// # Errors
    /// The file system refused.
    pub fn names(&self) -> io::Result<Vec<(String, Digest)>> {
        todo!()
    }
}
