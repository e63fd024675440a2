//! What one instance sees, and how it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::digest::Digest;
use crate::name::{PortName, SecretName, ServiceName, VolumeName};
use crate::units::{ByteSize, MilliCpu, Millis};

/// All that an instance sees, and nothing else. An instance is replaced if and only if the digest of this changes.
///
/// Health is here because probes run beside the instance, at the provider, which has no verb to change one.
/// Replicas, routes and strategy are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceSpec {
    /// The manifest of the image it boots.
    pub image: Digest,
    /// Entrypoint and command, resolved; never empty.
    pub argv: Vec<String>,
    /// The environment, the image's beneath the service's.
    pub env: BTreeMap<String, String>,
    /// An absolute path; `/` by default.
    pub workdir: String,
    /// `user`, `user:group`, `uid` or `uid:gid`, resolved against the image; empty means root.
    pub user: String,
    /// Where each secret appears, as a file of mode 0400 owned by the user.
    pub secrets: BTreeMap<String, SecretRef>,
    /// Where each volume is mounted.
    pub volumes: BTreeMap<String, VolumeMount>,
    /// Writable memory by path, beside `/tmp`, `/run` and `/dev/shm`.
    pub scratch: BTreeMap<String, ByteSize>,
    /// The ports that it listens on.
    pub ports: BTreeMap<PortName, u16>,
    /// How it proves to be alive; none means that running is enough.
    pub health: Option<HealthCheck>,
    /// What it may use.
    pub limits: Limits,
    /// What it may do.
    pub security: Security,
    /// How it is asked to stop.
    pub stop: StopPolicy,
    /// The services whose names it resolves, as `SERVICE.STACK.kiln`.
    pub uses: BTreeSet<ServiceName>,
}

impl InstanceSpec {
    /// Returns the plainest instance of an image: root in `/`, with nothing set, mounted, probed or limited beyond the defaults.
    pub fn plain(image: Digest, argv: Vec<String>) -> Self {
        Self {
            image,
            argv,
            env: BTreeMap::new(),
            workdir: "/".into(),
            user: String::new(),
            secrets: BTreeMap::new(),
            volumes: BTreeMap::new(),
            scratch: BTreeMap::new(),
            ports: BTreeMap::new(),
            health: None,
            limits: Limits::default(),
            security: Security::default(),
            stop: StopPolicy::default(),
            uses: BTreeSet::new(),
        }
    }
}

/// A secret's value by reference. The version is a random id: it reveals nothing about the value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretRef {
    /// The secret.
    pub name: SecretName,
    /// The captured version.
    pub version: String,
}

/// A volume at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeMount {
    /// The volume.
    pub volume: VolumeName,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// What an instance may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Memory; none means the machine's.
    pub memory: Option<ByteSize>,
    /// Processor time; none means the machine's.
    pub cpu: Option<MilliCpu>,
    /// Processes and threads: a fork bomb ends here.
    pub pids: u32,
}

impl Limits {
    /// Docker and Kubernetes leave this open or at thousands; a service that needs more says so.
    pub const PIDS_DEFAULT: u32 = 512;
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: None, cpu: None, pids: Self::PIDS_DEFAULT }
    }
}

/// What an instance may do beyond an ordinary process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Security {
    /// Capabilities beside the default set, such as `NET_ADMIN`, without the prefix `CAP_`.
    pub add_capabilities: BTreeSet<String>,
    /// Capabilities taken from the default set; `ALL` takes them all.
    pub drop_capabilities: BTreeSet<String>,
}

/// How an instance is asked to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopPolicy {
    /// A signal's name, such as `SIGTERM`.
    pub signal: String,
    /// How long it has before SIGKILL.
    pub grace: Millis,
}

impl Default for StopPolicy {
    fn default() -> Self {
        // Docker and Kubernetes users expect 10 s and 30 s; after a drain nothing is in flight, so the shorter fits.
        Self { signal: "SIGTERM".into(), grace: Millis::from_secs(10) }
    }
}

/// How health is probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// How often, once started up.
    pub interval: Millis,
    /// How long one probe may take.
    pub timeout: Millis,
    /// How long it may take to become healthy first; probes run often until then and failures do not count.
    pub startup: Millis,
    /// Successes in a row that make it healthy.
    pub healthy_after: u32,
    /// Failures in a row that make it unhealthy.
    pub unhealthy_after: u32,
    /// Ports that must refuse a connect once the probe holds: before that, every port does.
    pub closed_ports: BTreeSet<u16>,
}

/// A health check as Docker has it: times in nanoseconds, zero means Docker's default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DockerHealth {
    /// `NONE`, `CMD` with a program, or `CMD-SHELL` with a command.
    pub test: Vec<String>,
    /// How often.
    pub interval: u64,
    /// How long one probe may take.
    pub timeout: u64,
    /// How long failures do not count at the start.
    pub start_period: u64,
    /// How often until then.
    pub start_interval: u64,
    /// Failures in a row that make it unhealthy.
    pub retries: u32,
}

impl DockerHealth {
    /// Returns the same as Kiln asks it; none where nothing is asked. `shell` runs commands.
    ///
    /// The time that a start may take is what Docker gives it: the start period, and then as many intervals as failures count.
    pub fn health(&self, shell: &[String]) -> Option<HealthCheck> {
        let argv = match self.test.as_slice() {
            [kind, program @ ..] if kind == "CMD" && !program.is_empty() => program.to_vec(),
            [kind, command] if kind == "CMD-SHELL" => [shell, std::slice::from_ref(command)].concat(),
            _ => return None,
        };
        // Docker's defaults: 30 s, 30 s, and 3 in a row.
        let or = |nanos: u64, default: Millis| match nanos {
            0 => default,
            // Less than a millisecond is one.
            nanos => Millis((nanos / 1_000_000).max(1)),
        };
        let interval = or(self.interval, Millis::from_secs(30));
        let retries = if self.retries == 0 { 3 } else { self.retries };
        let startup = interval.0.saturating_mul(retries.into()).saturating_add(self.start_period / 1_000_000);
        Some(HealthCheck {
            probe: Probe::Command { argv, expected: None },
            interval,
            timeout: or(self.timeout, Millis::from_secs(30)),
            startup: Millis(startup),
            healthy_after: 1,
            unhealthy_after: retries,
            closed_ports: BTreeSet::new(),
        })
    }
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A GET must be answered with this status, or any 2xx or 3xx without one.
    Http {
        /// The port.
        port: u16,
        /// The path, with its query.
        path: String,
        /// The status that counts.
        status: Option<u16>,
    },
    /// A connect must succeed.
    Tcp {
        /// The port.
        port: u16,
    },
    /// A command inside the instance must end well.
    Command {
        /// The program and its arguments.
        argv: Vec<String>,
        /// What it must come to; none if all that counts is that it exits with 0.
        expected: Option<ExpectedRun>,
    },
}

/// What a command must come to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExpectedRun {
    /// The code that it exits with.
    pub exit: u8,
    /// What it prints on its standard output, newlines at the end aside; none for anything.
    pub stdout: Option<String>,
    /// Texts each of which occurs in its standard output or its standard error.
    pub contains: Vec<String>,
    /// Regular expressions each of which matches in its standard output or its standard error.
    pub matches: Vec<String>,
}

/// How an instance's main process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExitStatus {
    /// It returned this code.
    Code(u8),
    /// This signal ended it.
    Signal(u8),
    /// The kernel ended it for using more memory than its limit.
    OutOfMemory,
    /// It is gone and nobody saw how: its init or the machine died with it.
    Unknown,
}

impl ExitStatus {
    /// Whether a job that ends like this did its work.
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Code(0))
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::OutOfMemory => f.write_str("used more memory than its limit and was ended"),
            Self::Unknown => f.write_str("is gone, and nobody saw how it ended"),
        }
    }
}
