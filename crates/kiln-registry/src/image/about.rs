//! What a registry says about an image, into the store: bills of materials, provenance, signatures, certificates.

use kiln_model::Digest;
use kiln_store::Store;
use serde_json::{Map, Value, json};

use super::{ImageError, cosign, fetch, sha256};
use crate::client::{Client, ClientError};
use crate::digest::ContentDigest;
use crate::manifest::{Manifest, ManifestError, OCI_MANIFEST};
use crate::name::Reference;

/// Manifests about one image. A bake says three things, and each that signs adds to one of two.
const SAID_MAX: usize = 200;

/// What all of them may have: a bill of materials of a large image has some 10 MB.
const SAID_BYTES_MAX: u64 = 256 << 20;

/// What was brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Brought {
    /// Manifests about the image that are in the store now.
    pub manifests: usize,
    /// What was left out, and why.
    pub left_out: Vec<String>,
}

/// Brings into the store what a registry has about an image or a list of images: its referrers, and what `cosign` left under its
/// tags; and its manifest.
///
/// What can't be used is left out and named. Hold a lease.
///
/// # Errors
/// The registry does not answer or does not let us, or the store can't be written. What was brought by then stays.
pub fn bring_said(store: &Store, client: &Client, image: &Digest) -> Result<Brought, ImageError> {
    let subject: ContentDigest =
        image.to_string().parse().expect("a digest of the store is one of a registry");
    if !store.blobs.contains(image) {
        let (bytes, _) = client.manifest(&Reference::Digest(subject.clone()))?;
        store.blobs.put_bytes(&bytes)?;
    }
    let mut bringing = Bringing { store, client, image, left: SAID_BYTES_MAX, layers: Vec::new() };
    let mut brought = Brought::default();
    let mut note = |what: String, outcome: Result<bool, Unusable>| match outcome {
        Ok(is_new) => {
            brought.manifests += usize::from(is_new);
            Ok(())
        }
        Err(Unusable::Left(reason)) => {
            brought.left_out.push(format!("{what}: {reason}"));
            Ok(())
        }
        Err(Unusable::Failed(error)) => Err(error),
    };
    let listed = client.referrers(&subject)?;
    for target in listed.iter().take(SAID_MAX) {
        note(target.digest.to_string(), bringing.referrer(&subject, &target.digest))?;
    }
    if listed.len() > SAID_MAX {
        note(
            format!("{} more", listed.len() - SAID_MAX),
            Err(Unusable::Left(format!("{SAID_MAX} are enough"))),
        )?;
    }
    for (kind, ending) in cosign::ENDINGS {
        let tag = cosign::tag_of(&subject, ending);
        note(tag.to_string(), bringing.tagged(&tag, kind))?;
    }
    Ok(brought)
}

/// Why a manifest is not brought.
enum Unusable {
    /// It alone can't be used.
    Left(String),
    /// Nothing can.
    Failed(ImageError),
}

impl From<ImageError> for Unusable {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Client(ClientError::Missing { .. } | ClientError::Wrong { .. })
            | ImageError::Manifest(_)
            | ImageError::Algorithm(_) => Self::Left(error.to_string()),
            error => Self::Failed(error),
        }
    }
}

struct Bringing<'a> {
    store: &'a Store,
    client: &'a Client,
    image: &'a Digest,
    /// Bytes that may still come.
    left: u64,
    /// The layers of what was brought, to know again what stands under a tag as well.
    layers: Vec<Value>,
}

impl Bringing<'_> {
    fn referrer(&mut self, subject: &ContentDigest, digest: &ContentDigest) -> Result<bool, Unusable> {
        let (bytes, kind) =
            self.client.manifest(&Reference::Digest(digest.clone())).map_err(ImageError::from)?;
        let manifest = Manifest::parse(kind.as_deref(), &bytes).map_err(ImageError::from)?;
        if manifest.subject.as_ref() != Some(subject) {
            return Err(Unusable::Left("it is about something else".into()));
        }
        self.keep(&manifest, &bytes)
    }

    /// What `cosign` left under a tag names its image only in what is signed: here it gets a subject, as every manifest about an
    /// image has.
    fn tagged(&mut self, tag: &Reference, kind: &str) -> Result<bool, Unusable> {
        let bytes = match self.client.manifest(tag) {
            Ok((bytes, _)) => bytes,
            Err(ClientError::Missing { .. }) => return Ok(false),
            Err(error) => return Err(ImageError::from(error).into()),
        };
        let mut value = object(&bytes).map_err(ImageError::from)?;
        let is_known = |layers: &Vec<Value>| layers.iter().all(|layer| self.layers.contains(layer));
        if value["layers"].as_array().is_some_and(is_known) {
            return Ok(false);
        }
        if value["subject"]["digest"] != self.image.to_string() || value["artifactType"] != kind {
            let size = self.store.blobs.size(self.image).unwrap_or_default();
            value["artifactType"] = kind.into();
            value["mediaType"] = OCI_MANIFEST.into();
            value["subject"] =
                json!({ "digest": self.image.to_string(), "mediaType": OCI_MANIFEST, "size": size });
        }
        let bytes = value.to_string().into_bytes();
        let manifest = Manifest::parse(None, &bytes).map_err(ImageError::from)?;
        self.keep(&manifest, &bytes)
    }

    fn keep(&mut self, manifest: &Manifest, bytes: &[u8]) -> Result<bool, Unusable> {
        if manifest.media_type != OCI_MANIFEST {
            return Err(Unusable::Left(format!("it is a {}", manifest.media_type)));
        }
        let mut size = bytes.len() as u64;
        for target in &manifest.blobs {
            sha256(&target.digest)?;
            size = size.saturating_add(target.size);
        }
        self.left = match self.left.checked_sub(size) {
            Some(left) => left,
            None => {
                return Err(Unusable::Left(format!("it would be more than {SAID_BYTES_MAX} bytes in all")));
            }
        };
        for target in &manifest.blobs {
            fetch(self.store, self.client, target)?;
        }
        let digest = self.store.blobs.put_bytes(bytes).map_err(ImageError::from)?;
        self.store.referrers.put(self.image, &digest).map_err(ImageError::from)?;
        let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
        self.layers.extend(value["layers"].as_array().into_iter().flatten().cloned());
        Ok(true)
    }
}

/// Reads JSON that has fields: setting one of anything else would panic.
fn object(bytes: &[u8]) -> Result<Value, ManifestError> {
    serde_json::from_slice::<Map<String, Value>>(bytes).map(Value::Object).map_err(ManifestError::Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_under_a_tag_and_has_no_fields_is_no_manifest() {
        for other in [&b"[]"[..], b"7", b"\"a\"", b"null", b"<html>"] {
            assert!(object(other).is_err());
        }
        assert!(object(b"{}").is_ok());
    }
}
