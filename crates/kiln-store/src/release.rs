//! Releases and bindings: sealed once, stored as blobs of canonical JSON.

use kiln_model::Digest;
use kiln_model::release::{Binding, Release};
use serde::de::DeserializeOwned;

use crate::blob::Blobs;
use crate::canonical::{binding_bytes, release_bytes};
use crate::error::{PutError, ReadError};
use crate::wire::{BindingWire, ReleaseWire};

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
        self.0.put_bytes(&release_bytes(release))
    }

    /// Returns a release.
    ///
    /// # Errors
    /// `Missing`, or `Corrupt`, which includes what is not a release.
    pub fn release(&self, digest: &Digest) -> Result<Release, ReadError> {
        self.parse::<ReleaseWire>(digest).map(Release::from)
    }

    /// Stores a binding durably; its digest is [`crate::canonical::binding_digest`].
    ///
    /// # Errors
    /// See [`PutError`].
    pub fn put_binding(&self, binding: &Binding) -> Result<Digest, PutError> {
        self.0.put_bytes(&binding_bytes(binding))
    }

    /// Returns a binding.
    ///
    /// # Errors
    /// `Missing`, or `Corrupt`, which includes what is not a binding.
    pub fn binding(&self, digest: &Digest) -> Result<Binding, ReadError> {
        self.parse::<BindingWire>(digest).map(Binding::from)
    }

    fn parse<T: DeserializeOwned>(&self, digest: &Digest) -> Result<T, ReadError> {
        let bytes = self.0.read_verified(digest)?;
        serde_json::from_slice(&bytes).map_err(|error| ReadError::corrupt(digest, error.to_string()))
    }
}
