//! OCI manifests that are about another.
//!
//! Source: the OCI image specification 1.1, `manifest.md`, "Guidelines for Artifact Usage".

use std::collections::BTreeMap;

use kiln_model::Digest;
use kiln_store::{Batch, PutError, ReadError, Store};
use serde_json::{Value, json};

use super::{AttestError, PREDICATE};
use crate::oci::{MANIFEST_TYPE, canonical};

/// The config of a manifest that has none.
const EMPTY: &[u8] = b"{}";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// Something to be said about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The type by which registries list it.
    pub artifact_type: String,
    /// The type of its bytes.
    pub media_type: String,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// What registries show of it.
    pub annotations: BTreeMap<String, String>,
}

impl Statement {
    /// A statement without annotations.
    pub fn new(artifact_type: &str, media_type: &str, payload: Vec<u8>) -> Self {
        let (artifact_type, media_type) = (artifact_type.to_owned(), media_type.to_owned());
        Self { artifact_type, media_type, payload, annotations: BTreeMap::new() }
    }
}

/// Something that is said about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The manifest that says it.
    pub manifest: Digest,
    /// Its type.
    pub artifact_type: String,
    /// The type of its first layer.
    pub media_type: String,
    /// The blob that holds it, or the first of several that is there.
    pub payload: Digest,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Said {
    /// Returns what tells its kind best: the predicate of an in-toto statement, else the type of the artifact.
    pub fn kind(&self) -> &str {
        self.annotations.get(PREDICATE).map_or(&self.artifact_type, |predicate| predicate)
    }
}

/// What a manifest says that it is about.
pub(crate) fn descriptor_of(store: &Store, subject: &Digest) -> Value {
    json!({
        "digest": subject.to_string(),
        "mediaType": MANIFEST_TYPE,
        "size": store.blobs.size(subject).unwrap_or_default(),
    })
}

/// Stores a statement about an image, and returns its manifest's digest.
pub(crate) fn attach(store: &Store, subject: &Digest, statement: &Statement) -> Result<Digest, PutError> {
    let batch = store.blobs.batch();
    let manifest = put_into(&batch, store, subject, statement)?;
    // What a referrer names is there before it.
    batch.commit()?;
    store.referrers.put(subject, &manifest)?;
    Ok(manifest)
}

/// Adds a statement about an image to a batch, and returns its manifest's digest.
pub(super) fn put_into(
    batch: &Batch,
    store: &Store,
    subject: &Digest,
    statement: &Statement,
) -> Result<Digest, PutError> {
    let Statement { artifact_type, media_type, payload, annotations } = statement;
    let config = batch.put_bytes(EMPTY)?.digest;
    let layer = batch.put_bytes(payload)?.digest;
    let mut manifest = json!({
        "artifactType": artifact_type,
        "config": { "digest": config.to_string(), "mediaType": EMPTY_TYPE, "size": EMPTY.len() },
        "layers": [{ "digest": layer.to_string(), "mediaType": media_type, "size": payload.len() }],
        "mediaType": MANIFEST_TYPE,
        "schemaVersion": 2,
        "subject": descriptor_of(store, subject),
    });
    if !annotations.is_empty() {
        manifest["annotations"] = json!(annotations);
    }
    Ok(batch.put_bytes(&canonical(&manifest))?.digest)
}

/// Lists what is said about an image; what is damaged or can't be understood is as good as unsaid.
///
/// # Errors
/// The store can't be read.
pub fn said_about(store: &Store, subject: &Digest) -> Result<Vec<Said>, ReadError> {
    let mut found = Vec::new();
    for manifest in store.referrers.list(subject)? {
        match store.blobs.read_verified(&manifest) {
            // Of a manifest of signatures some may be damaged: the others are still said.
            Ok(bytes) => {
                let payload = layers(&bytes).into_iter().find(|layer| store.blobs.contains(layer));
                found.extend(payload.and_then(|payload| parse(manifest, payload, &bytes)));
            }
            Err(ReadError::Missing(_) | ReadError::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Removes what is said about an image where it is damaged, so that it can be said again: what is there is never written a
/// second time.
pub(super) fn discard_damaged(store: &Store, subject: &Digest) -> Result<(), AttestError> {
    let is_whole = |blob: &Digest| match store.blobs.read_verified(blob) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(ReadError::Missing(_) | ReadError::Corrupt { .. }) => {
            store.blobs.remove(blob).map(|_| None).map_err(AttestError::Discard)
        }
        Err(error) => Err(error.into()),
    };
    for manifest in store.referrers.list(subject)? {
        let mut left = false;
        for layer in is_whole(&manifest)?.map(|bytes| layers(&bytes)).into_iter().flatten() {
            // A manifest of signatures has many: those that are whole stay.
            left |= is_whole(&layer)?.is_some();
        }
        if !left {
            store.referrers.remove(subject, &manifest).map_err(AttestError::Discard)?;
        }
    }
    Ok(())
}

/// The blobs of a manifest that can be understood.
fn layers(manifest: &[u8]) -> Vec<Digest> {
    let value: Value = serde_json::from_slice(manifest).unwrap_or_default();
    let layers = value["layers"].as_array().into_iter().flatten();
    layers.filter_map(|layer| layer["digest"].as_str()?.parse().ok()).collect()
}

fn parse(manifest: Digest, payload: Digest, bytes: &[u8]) -> Option<Said> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let layer = &value["layers"][0];
    // Before OCI 1.1 the type stood in the config.
    let artifact_type = text(&value["artifactType"]).or_else(|| text(&value["config"]["mediaType"]))?;
    let annotations = value["annotations"].as_object().into_iter().flatten();
    Some(Said {
        manifest,
        artifact_type,
        media_type: text(&layer["mediaType"])?,
        payload,
        annotations: annotations.filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect(),
    })
}
