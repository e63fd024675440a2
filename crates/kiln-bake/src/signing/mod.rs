//! Signatures on images and on what is said about them, in the form that `cosign` takes.
//!
//! Source: `cosign`'s `SIGNATURE_SPEC.md` and `ATTESTATION_SPEC.md`. An image's signatures are the layers of one manifest, and so are the
//! signed statements about it; each has its signature in the layer's annotation or in its envelope. Both manifests have the image as
//! subject; in a registry without referrers they have the tags `sha256-HEX.sig` and `sha256-HEX.att`.

mod dsse;
mod key;

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_model::Digest;
use kiln_model::image::Image;
use kiln_store::{Batch, PutError, ReadError, Store};
use serde_json::{Value, json};

pub use key::{KeyError, KeyKind, PublicKey, SigningKey, generate};

use crate::attest::{CYCLONEDX_TYPE, PROVENANCE, SPDX_TYPE, Said, descriptor_of, said_about};
use crate::hashing::sha256;
use crate::oci::{MANIFEST_TYPE, canonical};

/// The type of the manifest of an image's signatures.
pub const SIGNATURES_TYPE: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";

/// The type of the manifest of the signed statements about an image.
pub const ATTESTATIONS_TYPE: &str = "application/vnd.dev.cosign.artifact.att.v1+json";

const SIMPLE_SIGNING_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const ENVELOPE_TYPE: &str = "application/vnd.dsse.envelope.v1+json";

/// Where a signature stands.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// Where a signed statement's predicate stands.
const PREDICATE: &str = "predicateType";

/// The predicates of bills of materials, as in-toto names them.
const SPDX_PREDICATE: &str = "https://spdx.dev/Document";
const CYCLONEDX_PREDICATE: &str = "https://cyclonedx.org/bom";

/// An image has a signature for each person or machine that vouches for it.
const LAYERS_MAX: usize = 1000;

/// Nothing could be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The key can't sign.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What is to be signed can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The signature can't be stored.
    #[error(transparent)]
    Put(#[from] PutError),
    /// The image has too many already.
    #[error("the image has {LAYERS_MAX} signatures already")]
    TooMany,
    /// The signatures of before can't be replaced.
    #[error("the signatures of before can't be replaced")]
    Replace(#[source] std::io::Error),
}

/// What a key vouches for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Vouched {
    /// Whether it signed the image.
    pub image: bool,
    /// The predicates of the statements about the image that it signed.
    pub statements: BTreeSet<String>,
    /// The predicates of what is said about the image, by bills of materials and provenance, and in no statement that it signed.
    pub unsigned: BTreeSet<String>,
    /// How many signatures there are that it did not make, or that are of something else. Signed statements are not counted: each
    /// bake has one, of its builder.
    pub others: usize,
}

/// One layer of a manifest of signatures.
#[derive(Debug, Clone, PartialEq)]
struct Layer {
    media_type: &'static str,
    payload: Vec<u8>,
    annotations: BTreeMap<String, String>,
}

/// Signs an image under a name, and the statements about it. What the key signed before is left as it is. Hold a lease.
///
/// # Errors
/// See [`SignError`].
pub fn sign(store: &Store, image: &Image, name: &str, key: &SigningKey) -> Result<(), SignError> {
    let vouched = verify(store, &image.manifest, &key.public())?;
    if !vouched.image {
        let payload = canonical(&json!({
            "critical": {
                "identity": { "docker-reference": name },
                "image": { "docker-manifest-digest": image.manifest.to_string() },
                "type": "cosign container image signature",
            },
            "optional": null,
        }));
        let signature = STANDARD.encode(key.sign(&payload)?);
        let annotations = [(SIGNATURE.to_owned(), signature)].into();
        let layer = Layer { media_type: SIMPLE_SIGNING_TYPE, payload, annotations };
        add(store, &image.manifest, SIGNATURES_TYPE, vec![layer])?;
    }
    let mut layers = Vec::new();
    for said in said_about(store, &image.manifest)? {
        let Some(predicate) = predicate_for(&said).filter(|predicate| vouched.unsigned.contains(*predicate))
        else {
            continue;
        };
        let document = store.blobs.read_verified(&said.payload)?;
        let statement =
            if predicate == PROVENANCE { document } else { statement(image, name, predicate, &document) };
        layers.push(envelope(predicate, &statement, key)?);
    }
    if !layers.is_empty() {
        add(store, &image.manifest, ATTESTATIONS_TYPE, layers)?;
    }
    Ok(())
}

/// Signs a statement about an image, as it is, into a batch; none where the key did so already. Hold a lease.
pub(crate) fn seal_statement(
    batch: &Batch,
    store: &Store,
    image: &Digest,
    predicate: &str,
    statement: &[u8],
    key: &SigningKey,
) -> Result<Option<Signatures>, SignError> {
    if is_sealed(store, image, &sha256(statement), &key.public()) {
        return Ok(None);
    }
    add_into(batch, store, image, ATTESTATIONS_TYPE, vec![envelope(predicate, statement, key)?]).map(Some)
}

/// Whether a key signed a statement about an image. What can't be read is as good as absent.
pub(crate) fn is_sealed(store: &Store, image: &Digest, statement: &Digest, key: &PublicKey) -> bool {
    let said = said_about(store, image).unwrap_or_default();
    let manifests = said.iter().filter(|said| said.artifact_type == ATTESTATIONS_TYPE);
    let layers = manifests.flat_map(|said| layers_of(store, &said.manifest).unwrap_or_default());
    let mut signed = layers.filter_map(|layer| dsse::open(&layer.payload, key));
    signed.any(|signed| sha256(&signed) == *statement)
}

fn envelope(predicate: &str, statement: &[u8], key: &SigningKey) -> Result<Layer, KeyError> {
    // The empty signature is `cosign`'s own way to say that it is in the envelope.
    let annotations =
        [(SIGNATURE.to_owned(), String::new()), (PREDICATE.to_owned(), predicate.to_owned())].into();
    Ok(Layer { media_type: ENVELOPE_TYPE, payload: dsse::seal(statement, key)?, annotations })
}

/// Returns the predicate under which a document about an image is signed; none where it is not.
fn predicate_for(said: &Said) -> Option<&'static str> {
    match said.kind() {
        SPDX_TYPE => Some(SPDX_PREDICATE),
        CYCLONEDX_TYPE => Some(CYCLONEDX_PREDICATE),
        PROVENANCE => Some(PROVENANCE),
        _ => None,
    }
}

/// Makes an in-toto statement of a document about an image.
fn statement(image: &Image, name: &str, predicate: &str, document: &[u8]) -> Vec<u8> {
    let document: Value = serde_json::from_slice(document).unwrap_or_default();
    canonical(&json!({
        "_type": "https://in-toto.io/Statement/v1",
        "predicate": document,
        "predicateType": predicate,
        "subject": [{ "digest": { "sha256": image.manifest.hex() }, "name": name }],
    }))
}

/// A manifest of signatures that is in a batch.
pub(crate) struct Signatures {
    /// It.
    pub(crate) manifest: Digest,
    /// Those of the same type that it is there instead of.
    before: Vec<Digest>,
}

impl Signatures {
    /// Forgets those of before. Note first what this one is about.
    pub(crate) fn replace(&self, store: &Store, subject: &Digest) -> Result<(), SignError> {
        let before = self.before.iter().filter(|before| **before != self.manifest);
        before
            .map(|before| store.referrers.remove(subject, before))
            .try_for_each(|removed| removed.map(drop))
            .map_err(SignError::Replace)
    }
}

/// Adds layers to the one manifest of a type about an image.
fn add(store: &Store, subject: &Digest, kind: &str, layers: Vec<Layer>) -> Result<(), SignError> {
    let batch = store.blobs.batch();
    let signatures = add_into(&batch, store, subject, kind, layers)?;
    batch.commit()?;
    store.referrers.put(subject, &signatures.manifest)?;
    signatures.replace(store, subject)
}

/// As [`add`], into a batch that is still to be committed.
fn add_into(
    batch: &Batch,
    store: &Store,
    subject: &Digest,
    kind: &str,
    layers: Vec<Layer>,
) -> Result<Signatures, SignError> {
    let before: Vec<_> =
        said_about(store, subject)?.into_iter().filter(|said| said.artifact_type == kind).collect();
    let mut all = Vec::new();
    for said in &before {
        all.extend(layers_of(store, &said.manifest)?);
    }
    all.extend(layers);
    if all.len() > LAYERS_MAX {
        return Err(SignError::TooMany);
    }
    let mut descriptors = Vec::new();
    let mut ids = Vec::new();
    for Layer { media_type, payload, annotations } in &all {
        let digest = batch.put_bytes(payload)?.digest.to_string();
        ids.push(digest.clone());
        descriptors.push(json!({
            "annotations": annotations, "digest": digest, "mediaType": media_type, "size": payload.len(),
        }));
    }
    // Registries want a config, and those that know images only want one of an image.
    let config = canonical(&json!({
        "architecture": "", "config": {}, "os": "", "rootfs": { "diff_ids": ids, "type": "layers" },
    }));
    let config_digest = batch.put_bytes(&config)?.digest.to_string();
    let manifest = canonical(&json!({
        "artifactType": kind,
        "config": { "digest": config_digest, "mediaType": kind, "size": config.len() },
        "layers": descriptors,
        "mediaType": MANIFEST_TYPE,
        "schemaVersion": 2,
        "subject": descriptor_of(store, subject),
    }));
    let manifest = batch.put_bytes(&manifest)?.digest;
    Ok(Signatures { manifest, before: before.iter().map(|said| said.manifest).collect() })
}

/// Reads the layers of a manifest of signatures; what is damaged or of another kind is as good as absent.
fn layers_of(store: &Store, manifest: &Digest) -> Result<Vec<Layer>, ReadError> {
    let value: Value = serde_json::from_slice(&store.blobs.read_verified(manifest)?).unwrap_or_default();
    let mut layers = Vec::new();
    for layer in value["layers"].as_array().into_iter().flatten().take(LAYERS_MAX) {
        let media_type = match layer["mediaType"].as_str() {
            Some(SIMPLE_SIGNING_TYPE) => SIMPLE_SIGNING_TYPE,
            Some(ENVELOPE_TYPE) => ENVELOPE_TYPE,
            _ => continue,
        };
        let Some(digest) = layer["digest"].as_str().and_then(|text| text.parse().ok()) else { continue };
        let payload = match store.blobs.read_verified(&digest) {
            Ok(payload) => payload,
            Err(ReadError::Missing(_) | ReadError::Corrupt { .. } | ReadError::TooLarge { .. }) => continue,
            Err(error) => return Err(error),
        };
        let annotations = layer["annotations"].as_object().into_iter().flatten();
        let annotations =
            annotations.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
        layers.push(Layer { media_type, payload, annotations });
    }
    Ok(layers)
}

/// Returns what a key vouches for of an image.
///
/// # Errors
/// The store can't be read.
pub fn verify(store: &Store, image: &Digest, key: &PublicKey) -> Result<Vouched, ReadError> {
    let mut vouched = Vouched::default();
    let mut signed = Vec::new();
    let all = said_about(store, image)?;
    for said in &all {
        if said.artifact_type != SIGNATURES_TYPE && said.artifact_type != ATTESTATIONS_TYPE {
            continue;
        }
        for layer in layers_of(store, &said.manifest)? {
            match layer.media_type {
                SIMPLE_SIGNING_TYPE if is_signature(&layer, image, key) => vouched.image = true,
                SIMPLE_SIGNING_TYPE => vouched.others += 1,
                _ => signed.extend(statement_of(&layer, image, key)),
            }
        }
    }
    let predicates = signed.iter().filter_map(|statement| statement["predicateType"].as_str());
    vouched.statements = predicates.map(str::to_owned).collect();
    for said in &all {
        let Some(predicate) = predicate_for(said) else { continue };
        let document = match store.blobs.read_verified(&said.payload) {
            Ok(bytes) => serde_json::from_slice::<Value>(&bytes).ok(),
            Err(ReadError::Missing(_) | ReadError::Corrupt { .. } | ReadError::TooLarge { .. }) => None,
            Err(error) => return Err(error),
        };
        // What is shown to people is the document: one that was exchanged since would be believed for its neighbour's signature.
        let holds = |statement: &Value| match predicate {
            PROVENANCE => Some(statement) == document.as_ref(),
            _ => {
                statement["predicateType"] == predicate && Some(&statement["predicate"]) == document.as_ref()
            }
        };
        if !signed.iter().any(holds) {
            vouched.unsigned.insert(predicate.to_owned());
        }
    }
    Ok(vouched)
}

/// Whether a layer is a key's signature of an image: of its bytes, and the bytes name this image.
fn is_signature(layer: &Layer, image: &Digest, key: &PublicKey) -> bool {
    let signature = layer.annotations.get(SIGNATURE).and_then(|text| STANDARD.decode(text).ok());
    let is_signed = signature.is_some_and(|signature| key.verifies(&layer.payload, &signature));
    let payload: Value = serde_json::from_slice(&layer.payload).unwrap_or_default();
    let critical = &payload["critical"];
    is_signed
        && critical["type"] == "cosign container image signature"
        && critical["image"]["docker-manifest-digest"] == image.to_string()
}

/// Returns a statement about an image that a key signed.
fn statement_of(layer: &Layer, image: &Digest, key: &PublicKey) -> Option<Value> {
    let statement: Value = serde_json::from_slice(&dsse::open(&layer.payload, key)?).ok()?;
    let subjects = statement["subject"].as_array()?;
    let is_about = subjects.iter().any(|subject| subject["digest"]["sha256"] == image.hex());
    is_about.then_some(statement)
}

#[cfg(test)]
mod tests;
