//! Releases and bindings: sealed once, stored as blobs of canonical JSON.

use kiln_model::Digest;
use kiln_model::release::{Binding, Release};

use crate::blob::Blobs;
use crate::error::{PutError, ReadError};

/// The releases and bindings of a store.
#[derive(Debug, Clone)]
pub struct Releases(Blobs);

impl Releases {
    pub(crate) fn new(blobs: Blobs) -> Self {
        Self(blobs)
    }

    /// Stores a release durably; its digest is [`crate::canonical::release_digest`].
    ///
    /// # Errors
    /// See [`PutError`].
    pub fn put_release(&self, release: &Release) -> Result<Digest, PutError> {
        let _ = (release, &self.0);
        todo!()
    }

    /// Returns a release.
    ///
    /// # Errors
    /// `Missing`, or `Corrupt`, which includes what is not a release.
    pub fn release(&self, digest: &Digest) -> Result<Release, ReadError> {
        let _ = digest;
        todo!()
    }

    /// Stores a binding durably; its digest is [`crate::canonical::binding_digest`].
    ///
    /// # Errors
    /// See [`PutError`].
    pub fn put_binding(&self, binding: &Binding) -> Result<Digest, PutError> {
        let _ = binding;
        todo!()
    }

    /// Returns a binding.
    ///
    /// # Errors
    /// `Missing`, or `Corrupt`, which includes what is not a binding.
    pub fn binding(&self, digest: &Digest) -> Result<Binding, ReadError> {
        let _ = digest;
        todo!()
    }
}
