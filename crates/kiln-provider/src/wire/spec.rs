//! [`InstanceSpec`] as JSON.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::instance::{
    ExitStatus, ExpectedRun, HealthCheck, InstanceSpec, Limits, Probe, SecretRef, Security, StopPolicy,
    VolumeMount,
};
use kiln_model::{ByteSize, MilliCpu, Millis};
use serde::{Deserialize, Serialize};

/// What came over the wire is not what it says it is.
#[derive(Debug, thiserror::Error)]
#[error("field `{field}`: {reason}")]
pub struct DecodeError {
    /// Where.
    pub field: &'static str,
    /// What is wrong.
    pub reason: String,
}

/// Reads a model type from its text.
pub(crate) fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
    field: &'static str,
    text: &str,
) -> Result<T, DecodeError> {
    text.parse().map_err(|error: T::Err| DecodeError { field, reason: error.to_string() })
}

/// All that an instance sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecWire {
    image: String,
    argv: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    env: BTreeMap<String, String>,
    workdir: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    user: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    secrets: BTreeMap<String, SecretWire>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    volumes: BTreeMap<String, VolumeWire>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    scratch_bytes: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    ports: BTreeMap<String, u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    health: Option<HealthWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cpu_milli: Option<u32>,
    pids: u32,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    add_capabilities: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    drop_capabilities: BTreeSet<String>,
    stop_signal: String,
    stop_grace_ms: u64,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    uses: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SecretWire {
    name: String,
    version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct VolumeWire {
    volume: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct HealthWire {
    probe: ProbeWire,
    interval_ms: u64,
    timeout_ms: u64,
    startup_ms: u64,
    healthy_after: u32,
    unhealthy_after: u32,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    closed_ports: BTreeSet<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ProbeWire {
    Http {
        port: u16,
        path: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
    },
    Tcp {
        port: u16,
    },
    Command {
        argv: Vec<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expected: Option<ExpectedWire>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ExpectedWire {
    exit: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stdout: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    contains: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    matches: Vec<String>,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitWire {
    /// It returned this code.
    Code(u8),
    /// This signal ended it.
    Signal(u8),
    /// It used more memory than its limit.
    OutOfMemory,
    /// Nobody saw how.
    Unknown,
}

impl From<ExitStatus> for ExitWire {
    fn from(status: ExitStatus) -> Self {
        match status {
            ExitStatus::Code(code) => Self::Code(code),
            ExitStatus::Signal(signal) => Self::Signal(signal),
            ExitStatus::OutOfMemory => Self::OutOfMemory,
            ExitStatus::Unknown => Self::Unknown,
        }
    }
}

impl From<ExitWire> for ExitStatus {
    fn from(status: ExitWire) -> Self {
        match status {
            ExitWire::Code(code) => Self::Code(code),
            ExitWire::Signal(signal) => Self::Signal(signal),
            ExitWire::OutOfMemory => Self::OutOfMemory,
            ExitWire::Unknown => Self::Unknown,
        }
    }
}

impl From<&InstanceSpec> for SpecWire {
    fn from(spec: &InstanceSpec) -> Self {
        let secret = |s: &SecretRef| SecretWire { name: s.name.as_str().into(), version: s.version.clone() };
        let volume =
            |v: &VolumeMount| VolumeWire { volume: v.volume.as_str().into(), read_only: v.read_only };
        Self {
            image: spec.image.to_string(),
            argv: spec.argv.clone(),
            env: spec.env.clone(),
            workdir: spec.workdir.clone(),
            user: spec.user.clone(),
            secrets: spec.secrets.iter().map(|(path, s)| (path.clone(), secret(s))).collect(),
            volumes: spec.volumes.iter().map(|(path, v)| (path.clone(), volume(v))).collect(),
            scratch_bytes: spec.scratch.iter().map(|(path, size)| (path.clone(), size.0)).collect(),
            ports: spec.ports.iter().map(|(name, port)| (name.as_str().into(), *port)).collect(),
            health: spec.health.as_ref().map(HealthWire::from),
            memory_bytes: spec.limits.memory.map(|size| size.0),
            cpu_milli: spec.limits.cpu.map(|cpu| cpu.0),
            pids: spec.limits.pids,
            add_capabilities: spec.security.add_capabilities.clone(),
            drop_capabilities: spec.security.drop_capabilities.clone(),
            stop_signal: spec.stop.signal.clone(),
            stop_grace_ms: spec.stop.grace.0,
            uses: spec.uses.iter().map(|name| name.as_str().into()).collect(),
        }
    }
}

impl TryFrom<SpecWire> for InstanceSpec {
    type Error = DecodeError;

    fn try_from(wire: SpecWire) -> Result<Self, DecodeError> {
        let secret = |(path, s): (String, SecretWire)| {
            Ok((path, SecretRef { name: parse("secrets", &s.name)?, version: s.version }))
        };
        let volume = |(path, v): (String, VolumeWire)| {
            Ok((path, VolumeMount { volume: parse("volumes", &v.volume)?, read_only: v.read_only }))
        };
        Ok(Self {
            image: parse("image", &wire.image)?,
            argv: wire.argv,
            env: wire.env,
            workdir: wire.workdir,
            user: wire.user,
            secrets: wire.secrets.into_iter().map(secret).collect::<Result<_, _>>()?,
            volumes: wire.volumes.into_iter().map(volume).collect::<Result<_, _>>()?,
            scratch: wire.scratch_bytes.into_iter().map(|(path, size)| (path, ByteSize(size))).collect(),
            ports: wire
                .ports
                .into_iter()
                .map(|(name, port)| Ok((parse("ports", &name)?, port)))
                .collect::<Result<_, _>>()?,
            health: wire.health.map(HealthCheck::from),
            limits: Limits {
                memory: wire.memory_bytes.map(ByteSize),
                cpu: wire.cpu_milli.map(MilliCpu),
                pids: wire.pids,
            },
            security: Security {
                add_capabilities: wire.add_capabilities,
                drop_capabilities: wire.drop_capabilities,
            },
            stop: StopPolicy { signal: wire.stop_signal, grace: Millis(wire.stop_grace_ms) },
            uses: wire.uses.iter().map(|name| parse("uses", name)).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&HealthCheck> for HealthWire {
    fn from(check: &HealthCheck) -> Self {
        Self {
            probe: match &check.probe {
                Probe::Http { port, path, status } => {
                    ProbeWire::Http { port: *port, path: path.clone(), status: *status }
                }
                Probe::Tcp { port } => ProbeWire::Tcp { port: *port },
                Probe::Command { argv, expected } => ProbeWire::Command {
                    argv: argv.clone(),
                    expected: expected.clone().map(ExpectedWire::from),
                },
            },
            interval_ms: check.interval.0,
            timeout_ms: check.timeout.0,
            startup_ms: check.startup.0,
            healthy_after: check.healthy_after,
            unhealthy_after: check.unhealthy_after,
            closed_ports: check.closed_ports.clone(),
        }
    }
}

impl From<HealthWire> for HealthCheck {
    fn from(wire: HealthWire) -> Self {
        Self {
            probe: match wire.probe {
                ProbeWire::Http { port, path, status } => Probe::Http { port, path, status },
                ProbeWire::Tcp { port } => Probe::Tcp { port },
                ProbeWire::Command { argv, expected } => {
                    Probe::Command { argv, expected: expected.map(ExpectedRun::from) }
                }
            },
            interval: Millis(wire.interval_ms),
            timeout: Millis(wire.timeout_ms),
            startup: Millis(wire.startup_ms),
            healthy_after: wire.healthy_after,
            unhealthy_after: wire.unhealthy_after,
            closed_ports: wire.closed_ports,
        }
    }
}

impl From<ExpectedRun> for ExpectedWire {
    fn from(ExpectedRun { exit, stdout, contains, matches }: ExpectedRun) -> Self {
        Self { exit, stdout, contains, matches }
    }
}

impl From<ExpectedWire> for ExpectedRun {
    fn from(ExpectedWire { exit, stdout, contains, matches }: ExpectedWire) -> Self {
        Self { exit, stdout, contains, matches }
    }
}
