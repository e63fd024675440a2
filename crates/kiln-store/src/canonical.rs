//! Canonical encodings, and the digests that decide what is the same.
//!
//! Each is JSON without spaces, its maps ordered by key, its fields in the order of the wire struct, with the name of its
//! format inside; golden tests hold the bytes fast. A change of these bytes would replace every instance at the next `up`.

use kiln_model::release::{Binding, Release};
use kiln_model::{Digest, InstanceSpec};
use serde::Serialize;

use crate::shelf::sha256;
use crate::wire::{BindingWire, ReleaseWire, SpecWire, to_json};

/// Returns the digest of what an instance sees: instances are replaced if and only if it changes.
pub fn spec_digest(spec: &InstanceSpec) -> Digest {
    sha256(&spec_bytes(spec))
}

/// Returns the digest of a release.
pub fn release_digest(release: &Release) -> Digest {
    sha256(&release_bytes(release))
}

/// Returns the digest of a binding.
pub fn binding_digest(binding: &Binding) -> Digest {
    sha256(&binding_bytes(binding))
}

/// Returns the sha256 of bytes, for those who must name bytes that they don't store.
pub fn digest_of(bytes: &[u8]) -> Digest {
    sha256(bytes)
}

pub(crate) fn spec_bytes(spec: &InstanceSpec) -> Vec<u8> {
    #[derive(Serialize)]
    struct Named {
        format: &'static str,
        spec: SpecWire,
    }
    to_json(&Named { format: "kiln.instance-spec/1", spec: spec.into() })
}

pub(crate) fn release_bytes(release: &Release) -> Vec<u8> {
    to_json(&ReleaseWire::from(release))
}

pub(crate) fn binding_bytes(binding: &Binding) -> Vec<u8> {
    to_json(&BindingWire::from(binding))
}
