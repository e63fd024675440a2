//! Records of images.

use std::collections::BTreeMap;

use kiln_model::Digest;
use kiln_model::image::{Image, ImageConfig};
use kiln_model::instance::HealthCheck;
use serde::{Deserialize, Serialize};

use super::Text;
use super::spec::HealthWire;

/// Names the format within the bytes.
#[derive(Serialize, Deserialize)]
enum ImageFormat {
    #[serde(rename = "kiln.image/1")]
    V1,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageWire {
    format: ImageFormat,
    manifest: Text<Digest>,
    tree: Text<Digest>,
    size_bytes: u64,
    env: BTreeMap<String, String>,
    entrypoint: Vec<String>,
    command: Vec<String>,
    workdir: String,
    user: String,
    labels: BTreeMap<String, String>,
    expose: Vec<String>,
    volumes: Vec<String>,
    stop_signal: String,
    /// Left out where it is empty, as in all records that were written before there was such a line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unproven: Vec<String>,
    /// Left out where there is none, as in all records that were written before there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    health: Option<HealthWire>,
}

impl From<&Image> for ImageWire {
    fn from(image: &Image) -> Self {
        let config = image.config.clone();
        Self {
            format: ImageFormat::V1,
            manifest: Text(image.manifest),
            tree: Text(image.tree),
            size_bytes: image.size_bytes,
            env: config.env,
            entrypoint: config.entrypoint,
            command: config.command,
            workdir: config.workdir,
            user: config.user,
            labels: config.labels,
            expose: config.expose,
            volumes: config.volumes,
            stop_signal: config.stop_signal,
            health: config.health.as_ref().map(HealthWire::from),
            unproven: image.unproven.clone(),
        }
    }
}

impl From<ImageWire> for Image {
    fn from(wire: ImageWire) -> Self {
        let ImageFormat::V1 = wire.format;
        let config = ImageConfig {
            env: wire.env,
            entrypoint: wire.entrypoint,
            command: wire.command,
            workdir: wire.workdir,
            user: wire.user,
            labels: wire.labels,
            expose: wire.expose,
            volumes: wire.volumes,
            stop_signal: wire.stop_signal,
            health: wire.health.map(HealthCheck::from),
        };
        let (manifest, tree, size_bytes) = (wire.manifest.0, wire.tree.0, wire.size_bytes);
        Self { manifest, tree, config, size_bytes, unproven: wire.unproven }
    }
}
