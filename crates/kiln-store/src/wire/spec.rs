//! What an instance sees. The digest of these bytes decides whether instances are replaced.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::instance::{
    ExpectedRun, HealthCheck, InstanceSpec, Limits, Probe, SecretRef, Security, StopPolicy, VolumeMount,
};
use kiln_model::{ByteSize, Digest, MilliCpu, Millis, PortName, SecretName, ServiceName, VolumeName};
use serde::{Deserialize, Serialize};

use super::Text;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpecWire {
    image: Text<Digest>,
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    workdir: String,
    user: String,
    secrets: BTreeMap<String, SecretWire>,
    volumes: BTreeMap<String, VolumeWire>,
    scratch: BTreeMap<String, u64>,
    ports: BTreeMap<Text<PortName>, u16>,
    health: Option<HealthWire>,
    limits: LimitsWire,
    security: SecurityWire,
    stop: StopWire,
    uses: BTreeSet<Text<ServiceName>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretWire {
    name: Text<SecretName>,
    version: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VolumeWire {
    volume: Text<VolumeName>,
    read_only: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HealthWire {
    probe: ProbeWire,
    interval_ms: u64,
    timeout_ms: u64,
    startup_ms: u64,
    healthy_after: u32,
    unhealthy_after: u32,
    // Left out where there is none, so that the digests of older specs stay what they are.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    closed_ports: BTreeSet<u16>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum ProbeWire {
    Http {
        port: u16,
        path: String,
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

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedWire {
    exit: u8,
    stdout: Option<String>,
    contains: Vec<String>,
    matches: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsWire {
    memory_bytes: Option<u64>,
    cpu_milli: Option<u32>,
    pids: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecurityWire {
    add_capabilities: BTreeSet<String>,
    drop_capabilities: BTreeSet<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StopWire {
    signal: String,
    grace_ms: u64,
}

impl From<&InstanceSpec> for SpecWire {
    fn from(spec: &InstanceSpec) -> Self {
        let secret = |secret: &SecretRef| SecretWire {
            name: Text(secret.name.clone()),
            version: secret.version.clone(),
        };
        let volume = |mount: &VolumeMount| VolumeWire {
            volume: Text(mount.volume.clone()),
            read_only: mount.read_only,
        };
        Self {
            image: Text(spec.image),
            argv: spec.argv.clone(),
            env: spec.env.clone(),
            workdir: spec.workdir.clone(),
            user: spec.user.clone(),
            secrets: spec.secrets.iter().map(|(path, it)| (path.clone(), secret(it))).collect(),
            volumes: spec.volumes.iter().map(|(path, it)| (path.clone(), volume(it))).collect(),
            scratch: spec.scratch.iter().map(|(path, size)| (path.clone(), size.0)).collect(),
            ports: spec.ports.iter().map(|(name, port)| (Text(name.clone()), *port)).collect(),
            health: spec.health.as_ref().map(HealthWire::from),
            limits: LimitsWire {
                memory_bytes: spec.limits.memory.map(|size| size.0),
                cpu_milli: spec.limits.cpu.map(|cpu| cpu.0),
                pids: spec.limits.pids,
            },
            security: SecurityWire {
                add_capabilities: spec.security.add_capabilities.clone(),
                drop_capabilities: spec.security.drop_capabilities.clone(),
            },
            stop: StopWire { signal: spec.stop.signal.clone(), grace_ms: spec.stop.grace.0 },
            uses: spec.uses.iter().cloned().map(Text).collect(),
        }
    }
}

impl From<SpecWire> for InstanceSpec {
    fn from(wire: SpecWire) -> Self {
        let secret = |it: SecretWire| SecretRef { name: it.name.0, version: it.version };
        let volume = |it: VolumeWire| VolumeMount { volume: it.volume.0, read_only: it.read_only };
        Self {
            image: wire.image.0,
            argv: wire.argv,
            env: wire.env,
            workdir: wire.workdir,
            user: wire.user,
            secrets: wire.secrets.into_iter().map(|(path, it)| (path, secret(it))).collect(),
            volumes: wire.volumes.into_iter().map(|(path, it)| (path, volume(it))).collect(),
            scratch: wire.scratch.into_iter().map(|(path, size)| (path, ByteSize(size))).collect(),
            ports: wire.ports.into_iter().map(|(name, port)| (name.0, port)).collect(),
            health: wire.health.map(HealthCheck::from),
            limits: Limits {
                memory: wire.limits.memory_bytes.map(ByteSize),
                cpu: wire.limits.cpu_milli.map(MilliCpu),
                pids: wire.limits.pids,
            },
            security: Security {
                add_capabilities: wire.security.add_capabilities,
                drop_capabilities: wire.security.drop_capabilities,
            },
            stop: StopPolicy { signal: wire.stop.signal, grace: Millis(wire.stop.grace_ms) },
            uses: wire.uses.into_iter().map(|name| name.0).collect(),
        }
    }
}

impl From<&HealthCheck> for HealthWire {
    fn from(health: &HealthCheck) -> Self {
        let probe = match &health.probe {
            Probe::Http { port, path, status } => {
                ProbeWire::Http { port: *port, path: path.clone(), status: *status }
            }
            Probe::Tcp { port } => ProbeWire::Tcp { port: *port },
            Probe::Command { argv, expected } => {
                ProbeWire::Command { argv: argv.clone(), expected: expected.clone().map(ExpectedWire::from) }
            }
        };
        Self {
            probe,
            interval_ms: health.interval.0,
            timeout_ms: health.timeout.0,
            startup_ms: health.startup.0,
            healthy_after: health.healthy_after,
            unhealthy_after: health.unhealthy_after,
            closed_ports: health.closed_ports.clone(),
        }
    }
}

impl From<HealthWire> for HealthCheck {
    fn from(wire: HealthWire) -> Self {
        let probe = match wire.probe {
            ProbeWire::Http { port, path, status } => Probe::Http { port, path, status },
            ProbeWire::Tcp { port } => Probe::Tcp { port },
            ProbeWire::Command { argv, expected } => {
                Probe::Command { argv, expected: expected.map(ExpectedRun::from) }
            }
        };
        Self {
            probe,
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
