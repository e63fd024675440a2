//! What an image is once it is baked.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::instance::HealthCheck;

/// The part of an OCI image's config that decides how an instance of it runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageConfig {
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Always started; `command` follows it.
    pub entrypoint: Vec<String>,
    /// The default arguments, or the program where there is no entrypoint.
    pub command: Vec<String>,
    /// The working folder; empty means `/`.
    pub workdir: String,
    /// `user`, `user:group`, `uid` or `uid:gid`; empty means root.
    pub user: String,
    /// Free-form labels.
    pub labels: BTreeMap<String, String>,
    /// Ports, as `8080/tcp`.
    pub expose: Vec<String>,
    /// Paths that are writable: bounded memory unless a volume is mounted there.
    pub volumes: Vec<String>,
    /// The signal that asks the program to stop; empty means SIGTERM.
    pub stop_signal: String,
    /// How health is asked where a service does not say it.
    pub health: Option<HealthCheck>,
}

/// A baked image: where its bytes are and how it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The digest of its OCI manifest: its address.
    pub manifest: Digest,
    /// The digest of the metadata of its tree, by which the store mounts it.
    pub tree: Digest,
    /// How it runs.
    pub config: ImageConfig,
    /// The unpacked size of its regular files in bytes.
    pub size_bytes: u64,
    /// Why it can't be said to follow from its recipe and its lock, a line for each reason, such as a step that could reach the
    /// network. Empty where there is none.
    pub unproven: Vec<String>,
}
