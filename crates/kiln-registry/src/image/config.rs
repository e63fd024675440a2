//! The config of an image, as any tool wrote it.
//!
//! Source: the OCI image specification 1.1, `config.md`; Docker's has the same fields.

use std::collections::BTreeMap;

use kiln_model::Digest;
use kiln_model::image::ImageConfig;
use kiln_model::instance::{DockerHealth, HealthCheck};
use serde::Deserialize;

/// What this machine runs, by the names that images use.
pub(super) const ARCHITECTURE: &str = match std::env::consts::ARCH.as_bytes() {
    b"x86_64" => "amd64",
    b"aarch64" => "arm64",
    _ => std::env::consts::ARCH,
};

/// An image's config can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is not one.
    #[error("it is not an image's config")]
    Json(#[source] serde_json::Error),
    /// It is for another machine.
    #[error("it is for {found}, and this machine is linux/{ARCHITECTURE}")]
    Platform {
        /// What it is for.
        found: String,
    },
    /// Its list of layers is not the manifest's.
    #[error("it has {config} layers, the manifest has {manifest}")]
    Layers {
        /// By the config.
        config: usize,
        /// By the manifest.
        manifest: usize,
    },
    /// One of its layers has no usable digest.
    #[error("one of its layers is named by `{0}`, which is no sha256")]
    Digest(String),
}

/// What is used of a config.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) run: ImageConfig,
    pub(super) diff_ids: Vec<Digest>,
}

#[derive(Debug, Deserialize)]
struct ConfigWire {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    config: Option<RunWire>,
    rootfs: RootWire,
}

#[derive(Debug, Deserialize)]
struct RootWire {
    #[serde(default)]
    diff_ids: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RunWire {
    user: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    volumes: Option<BTreeMap<String, serde_json::Value>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
    healthcheck: Option<HealthWire>,
    shell: Option<Vec<String>>,
}

/// Docker's own; the specification knows of no health.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HealthWire {
    test: Option<Vec<String>>,
    interval: u64,
    timeout: u64,
    start_period: u64,
    start_interval: u64,
    retries: u32,
}

impl HealthWire {
    fn read(self, shell: Option<&[String]>) -> Option<HealthCheck> {
        let Self { test, interval, timeout, start_period, start_interval, retries } = self;
        let test = test.unwrap_or_default();
        let default = ["/bin/sh".to_owned(), "-c".to_owned()];
        let health = DockerHealth { test, interval, timeout, start_period, start_interval, retries };
        health.health(shell.unwrap_or(&default))
    }
}

impl Config {
    /// Reads a config whose manifest has so many layers.
    pub(super) fn parse(bytes: &[u8], layers: usize) -> Result<Self, ConfigError> {
        let wire: ConfigWire = serde_json::from_slice(bytes).map_err(ConfigError::Json)?;
        if (wire.os.as_str(), wire.architecture.as_str()) != ("linux", ARCHITECTURE) {
            return Err(ConfigError::Platform { found: format!("{}/{}", wire.os, wire.architecture) });
        }
        let digests = wire.rootfs.diff_ids;
        if digests.len() != layers {
            return Err(ConfigError::Layers { config: digests.len(), manifest: layers });
        }
        let parse = |text: String| text.parse().map_err(|_| ConfigError::Digest(text));
        let diff_ids = digests.into_iter().map(parse).collect::<Result<_, _>>()?;
        let run = wire.config.unwrap_or_default();
        let keys =
            |map: Option<BTreeMap<String, serde_json::Value>>| map.unwrap_or_default().into_keys().collect();
        let pair = |text: String| match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (text, String::new()),
        };
        let run = ImageConfig {
            env: run.env.unwrap_or_default().into_iter().map(pair).collect(),
            entrypoint: run.entrypoint.unwrap_or_default(),
            command: run.cmd.unwrap_or_default(),
            workdir: run.working_dir.unwrap_or_default(),
            user: run.user.unwrap_or_default(),
            labels: run.labels.unwrap_or_default(),
            expose: keys(run.exposed_ports),
            volumes: keys(run.volumes),
            stop_signal: run.stop_signal.unwrap_or_default(),
            health: run.healthcheck.and_then(|health| health.read(run.shell.as_deref())),
        };
        Ok(Self { run, diff_ids })
    }
}
