//! Canonical encodings, and the digests that decide what is the same.

use kiln_model::release::{Binding, Release};
use kiln_model::{Digest, InstanceSpec};

/// Returns the digest of what an instance sees: instances are replaced if and only if it changes.
pub fn spec_digest(spec: &InstanceSpec) -> Digest {
    let _ = spec;
    todo!()
}

/// Returns the digest of a release.
pub fn release_digest(release: &Release) -> Digest {
    let _ = release;
    todo!()
}

/// Returns the digest of a binding.
pub fn binding_digest(binding: &Binding) -> Digest {
    let _ = binding;
    todo!()
}
