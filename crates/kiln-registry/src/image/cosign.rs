//! Signatures where `cosign` looks for them: under a tag that follows from the image's digest.
//!
//! Source: `cosign`'s `SIGNATURE_SPEC.md`, "Tag based discovery". A tag holds the signatures of everybody, so what is there already
//! stays beside what is brought.

use serde_json::Value;

use super::ImageError;
use crate::client::{Client, ClientError};
use crate::digest::ContentDigest;
use crate::manifest::Manifest;
use crate::name::Reference;

/// What such a manifest is, and how its tag ends.
pub(super) const ENDINGS: [(&str, &str); 2] = [
    ("application/vnd.dev.cosign.artifact.sig.v1+json", "sig"),
    ("application/vnd.dev.cosign.artifact.att.v1+json", "att"),
];

/// As many signatures as are kept under one tag; somebody's list beyond that is not for adding to.
const LAYERS_MAX: usize = 1000;

/// Gives a manifest of signatures its tag, with those that are there already. Nothing for any other manifest.
pub(super) fn tag(client: &Client, manifest: &Manifest, bytes: &[u8]) -> Result<(), ImageError> {
    let kind = manifest.artifact_type.as_deref();
    let ending = ENDINGS.iter().find(|(known, _)| kind == Some(*known)).map(|(_, ending)| ending);
    let (Some(ending), Some(subject)) = (ending, &manifest.subject) else { return Ok(()) };
    let tag = tag_of(subject, ending);
    let there = match client.manifest(&tag) {
        Ok((there, _)) => Some(there),
        Err(ClientError::Missing { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let bytes = match there.as_deref().and_then(|there| union(there, bytes)) {
        Some(union) if Some(&union) == there.as_ref() => return Ok(()),
        Some(union) => union,
        // Nothing, or no manifest of signatures: the tag is meant for them.
        None => bytes.to_vec(),
    };
    Ok(client.push_manifest(&tag, &manifest.media_type, &bytes)?)
}

pub(super) fn tag_of(subject: &ContentDigest, ending: &str) -> Reference {
    let tag = format!("{}-{}.{ending}", subject.algorithm().name(), subject.hex());
    Reference::Tag(tag.parse().expect("an algorithm, digits and an ending are a tag"))
}

/// Adds the layers that the first manifest lacks; none where one of them has no layers, or there are too many.
fn union(there: &[u8], ours: &[u8]) -> Option<Vec<u8>> {
    let mut all: Value = serde_json::from_slice(there).ok()?;
    let ours: Value = serde_json::from_slice(ours).ok()?;
    let layers = all.get_mut("layers")?.as_array_mut()?;
    let missing: Vec<Value> =
        ours["layers"].as_array()?.iter().filter(|layer| !layers.contains(layer)).cloned().collect();
    if missing.is_empty() {
        return Some(there.to_vec());
    }
    layers.extend(missing);
    (layers.len() <= LAYERS_MAX).then(|| all.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_of_others_stay_and_what_is_there_is_not_added_again() {
        let (theirs, ours) = (br#"{"layers":[{"digest":"a"}],"other":1}"#, br#"{"layers":[{"digest":"b"}]}"#);
        let both = union(theirs, ours).unwrap();
        let value: Value = serde_json::from_slice(&both).unwrap();
        assert_eq!(
            value,
            serde_json::json!({ "layers": [{ "digest": "a" }, { "digest": "b" }], "other": 1 })
        );
        assert_eq!(union(&both, ours).unwrap(), both);
        for other in [&b"<html>"[..], b"[]", b"\"a\"", b"null"] {
            assert_eq!(union(other, ours), None);
        }
        assert_eq!(union(b"{\"manifests\":[]}", ours), None);
    }
}
