//! What a registry has to know of a manifest: its kind, what it refers to, and what it says of itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::ContentDigest;

/// The specification wants manifests of 4 MB to be taken; every known registry refuses larger ones.
pub const MANIFEST_BYTES_MAX: usize = 4 << 20;

/// An image of the OCI image specification.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// A list of images of the OCI image specification.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker's image, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's list of images.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// What a manifest holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its media type.
    pub media_type: String,
    /// What it says that it is, or what its config is; of a list only what it says.
    pub artifact_type: Option<String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// The manifest that it is about.
    pub subject: Option<ContentDigest>,
    /// The config and the layers that a registry has to hold.
    pub blobs: Vec<Target>,
    /// The manifests of a list.
    pub manifests: Vec<Target>,
}

/// What a manifest refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its address.
    pub digest: ContentDigest,
    /// Its size in bytes.
    pub size: u64,
}

/// The bytes are not a manifest that can be kept.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// They are not the JSON of one.
    #[error("it is not a manifest: {0}")]
    Json(#[source] serde_json::Error),
    /// It is of a kind that is not known here.
    #[error("`{0}` is not the media type of an image or a list of images of OCI or of Docker's schema 2")]
    MediaType(String),
    /// It says another kind than the request.
    #[error("it says that it is `{declared}`, but it was sent as `{sent}`")]
    Disagree {
        /// By its own `mediaType`.
        declared: String,
        /// By `Content-Type`.
        sent: String,
    },
    /// It lacks something, or holds what its kind does not have.
    #[error("{0}")]
    Shape(&'static str),
    /// It refers to what can't be an address.
    #[error("its {field} has no usable digest: {source}")]
    Digest {
        /// Which part of it.
        field: &'static str,
        /// Why not.
        source: crate::digest::ParseDigestError,
    },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestWire {
    schema_version: u64,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<DescriptorWire>,
    layers: Option<Vec<DescriptorWire>>,
    manifests: Option<Vec<DescriptorWire>>,
    subject: Option<DescriptorWire>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescriptorWire {
    media_type: Option<String>,
    digest: String,
    size: u64,
}

impl Manifest {
    /// Reads a manifest that was sent with a `Content-Type`, or without.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn parse(sent: Option<&str>, bytes: &[u8]) -> Result<Self, ManifestError> {
        let wire: ManifestWire = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
        if wire.schema_version != 2 {
            return Err(ManifestError::Shape("its schemaVersion is not 2"));
        }
        // A document that is both could be an image to one reader and a list to another.
        if wire.manifests.is_some() && (wire.layers.is_some() || wire.config.is_some()) {
            return Err(ManifestError::Shape("it is an image and a list of images at once"));
        }
        let media_type = media_type(&wire, sent)?;
        match media_type.as_str() {
            OCI_MANIFEST | DOCKER_MANIFEST => Self::image(media_type, wire),
            OCI_INDEX | DOCKER_LIST => Self::list(media_type, wire),
            _ => Err(ManifestError::MediaType(media_type)),
        }
    }

    fn image(media_type: String, wire: ManifestWire) -> Result<Self, ManifestError> {
        let config = wire.config.ok_or(ManifestError::Shape("it has no config"))?;
        let layers = wire.layers.ok_or(ManifestError::Shape("it has no list of layers"))?;
        let mut blobs = vec![config.target("config")?];
        for layer in &layers {
            let target = layer.target("list of layers")?;
            if layer.is_distributable() {
                blobs.push(target);
            }
        }
        let said = wire.artifact_type.filter(|kind| !kind.is_empty());
        Ok(Self {
            media_type,
            artifact_type: said.or(config.media_type),
            annotations: wire.annotations.unwrap_or_default(),
            subject: wire.subject.map(|it| it.target("subject")).transpose()?.map(|it| it.digest),
            blobs,
            manifests: Vec::new(),
        })
    }

    fn list(media_type: String, wire: ManifestWire) -> Result<Self, ManifestError> {
        let manifests = wire.manifests.ok_or(ManifestError::Shape("it has no list of manifests"))?;
        let targets: Result<_, _> = manifests.iter().map(|it| it.target("list of manifests")).collect();
        Ok(Self {
            media_type,
            artifact_type: wire.artifact_type.filter(|kind| !kind.is_empty()),
            annotations: wire.annotations.unwrap_or_default(),
            subject: wire.subject.map(|it| it.target("subject")).transpose()?.map(|it| it.digest),
            blobs: Vec::new(),
            manifests: targets?,
        })
    }

    /// What a list of referrers says of it.
    pub fn descriptor<'a>(&'a self, digest: &ContentDigest, size: u64) -> Descriptor<'a> {
        Descriptor {
            media_type: &self.media_type,
            digest: digest.to_string(),
            size,
            artifact_type: self.artifact_type.as_deref(),
            annotations: &self.annotations,
        }
    }
}

/// An entry of a list of referrers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor<'a> {
    media_type: &'a str,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

/// By its own word, else by the request's, else by its shape: older OCI manifests say nothing.
fn media_type(wire: &ManifestWire, sent: Option<&str>) -> Result<String, ManifestError> {
    let sent = sent.map(|text| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let declared = wire.media_type.clone().filter(|kind| !kind.is_empty());
    match (declared, sent.filter(|kind| !kind.is_empty())) {
        (Some(declared), Some(sent)) if declared != sent => Err(ManifestError::Disagree { declared, sent }),
        (Some(kind), _) | (None, Some(kind)) => Ok(kind),
        (None, None) if wire.manifests.is_some() => Ok(OCI_INDEX.into()),
        (None, None) => Ok(OCI_MANIFEST.into()),
    }
}

impl DescriptorWire {
    fn target(&self, field: &'static str) -> Result<Target, ManifestError> {
        let digest = self.digest.parse().map_err(|source| ManifestError::Digest { field, source })?;
        Ok(Target { digest, size: self.size })
    }

    /// Whether a registry has to hold it: what its owner keeps to himself is fetched from him.
    fn is_distributable(&self) -> bool {
        let kind = self.media_type.as_deref().unwrap_or_default();
        !kind.contains(".nondistributable.")
            && !kind.starts_with("application/vnd.docker.image.rootfs.foreign.")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::digest::Algorithm;

    fn descriptor(kind: &str, content: &str) -> serde_json::Value {
        let digest = ContentDigest::of(Algorithm::Sha256, content.as_bytes()).to_string();
        json!({ "mediaType": kind, "digest": digest, "size": content.len() })
    }

    fn parse(sent: Option<&str>, value: &serde_json::Value) -> Result<Manifest, ManifestError> {
        Manifest::parse(sent, value.to_string().as_bytes())
    }

    #[test]
    fn an_image_names_its_config_layers_and_subject() {
        let image = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": descriptor("application/x.config", "c"),
            "layers": [
                descriptor("application/vnd.oci.image.layer.v1.tar+gzip", "l"),
                descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "not ours"),
                descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "nor this"),
            ],
            "subject": descriptor(OCI_MANIFEST, "s"),
            "annotations": { "a": "b" },
        });
        let manifest = parse(Some(OCI_MANIFEST), &image).unwrap();
        assert_eq!(manifest.blobs.len(), 2);
        assert_eq!(manifest.artifact_type.as_deref(), Some("application/x.config"));
        assert_eq!(manifest.subject, Some(ContentDigest::of(Algorithm::Sha256, b"s")));
        assert_eq!(manifest.annotations["a"], "b");
    }

    #[test]
    fn the_kind_is_what_it_says_or_what_it_was_sent_as() {
        let bare = json!({ "schemaVersion": 2, "config": descriptor("x", "c"), "layers": [] });
        assert_eq!(parse(None, &bare).unwrap().media_type, OCI_MANIFEST);
        let docker = format!("{DOCKER_MANIFEST}; charset=utf-8");
        assert_eq!(parse(Some(&docker), &bare).unwrap().media_type, DOCKER_MANIFEST);
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] });
        assert!(matches!(parse(Some(OCI_MANIFEST), &index), Err(ManifestError::Disagree { .. })));
        assert!(matches!(parse(Some("text/html"), &bare), Err(ManifestError::MediaType(_))));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let both =
            json!({ "schemaVersion": 2, "config": descriptor("x", "c"), "layers": [], "manifests": [] });
        assert!(matches!(parse(Some(OCI_INDEX), &both), Err(ManifestError::Shape(_))));
        for bad in [
            json!({}),
            json!({ "schemaVersion": 1 }),
            json!({ "schemaVersion": 2, "layers": [] }),
            json!({ "schemaVersion": 2, "config": descriptor("x", "c") }),
            json!({ "schemaVersion": 2, "config": { "digest": "sha256:../../x", "size": 1 }, "layers": [] }),
            json!({ "schemaVersion": 2, "config": { "digest": "sha256:", "size": -1 }, "layers": [] }),
        ] {
            assert!(parse(None, &bad).is_err(), "{bad}");
        }
        assert!(Manifest::parse(None, "[".repeat(100_000).as_bytes()).is_err());
    }
}
