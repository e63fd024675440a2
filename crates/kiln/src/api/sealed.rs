//! What runs, on the wire: a revision's services, specs and routes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use kiln_model::instance::{
    self, ExpectedRun, HealthCheck, Limits, Probe, SecretRef, Security, StopPolicy, VolumeMount,
};
use kiln_model::interlude::Interludes;
use kiln_model::notify::Webhook;
use kiln_model::release::RevisionSpec;
use kiln_model::route::Route;
use kiln_model::service::{self, PortRef, RolloutBounds, ServiceKind};
use kiln_model::{ByteSize, Digest, MilliCpu, Millis, ServiceName};
use kiln_store::Encoded;
use serde::{Deserialize, Serialize};

/// What can't be what it says to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Malformed {
    what: &'static str,
    why: String,
}

/// All that runs in an environment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sealed {
    /// By name.
    pub services: BTreeMap<String, SealedService>,
    /// By name.
    #[serde(default)]
    pub routes: BTreeMap<String, SealedRoute>,
    /// Who is told of rollouts, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub webhooks: BTreeMap<String, Encoded<Webhook>>,
    /// The versions of the secrets that questions of rollouts go with, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub credentials: BTreeMap<String, String>,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedService {
    /// `service`, `worker` or `job`.
    pub kind: String,
    /// What each instance sees.
    pub spec: Spec,
    /// The digest of that.
    pub spec_digest: String,
    /// How many.
    pub replicas: u32,
    /// How it moves.
    pub strategy: Strategy,
    /// The services that are created before it.
    #[serde(default)]
    pub after: Vec<String>,
    /// In milliseconds.
    pub progress_deadline_ms: u64,
    /// In milliseconds.
    pub drain_deadline_ms: u64,
    /// In milliseconds.
    pub warm_for_ms: u64,
    /// In milliseconds.
    #[serde(default)]
    pub healthy_for_ms: u64,
    /// Whether somebody lets traffic move to its new instances.
    #[serde(default)]
    pub manual_promote: bool,
    /// What its rollout does between its moves, as the log stores it; none if nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interludes: Option<Encoded<Interludes>>,
    /// Whether a rollout of it that fails stops where it is.
    #[serde(default)]
    pub manual_revert: bool,
}

/// How a service moves from one revision to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Strategy {
    /// All new beside the old.
    BlueGreen,
    /// A few at a time.
    Rolling {
        /// More than the replicas.
        max_surge: u32,
        /// Fewer than the replicas.
        max_unavailable: u32,
        /// The groups that move one after the other, as the log stores them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        waves: Option<Encoded<service::Waves>>,
    },
    /// Never both.
    StopThenStart,
    /// A small share of the requests first.
    Canary {
        /// How, as the log stores it.
        canary: Encoded<service::Canary>,
    },
}

/// A way in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedRoute {
    /// Where the edge listens.
    pub listen: String,
    /// The host; none means any.
    #[serde(default)]
    pub host: Option<String>,
    /// The path prefix.
    pub path: String,
    /// The service.
    pub service: String,
    /// Its port.
    pub port: String,
}

/// What one instance sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The image's manifest.
    pub image: String,
    /// What runs.
    pub argv: Vec<String>,
    /// Its environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Its working folder.
    pub workdir: String,
    /// Its user.
    #[serde(default)]
    pub user: String,
    /// Secrets by path: name and version, never a value.
    #[serde(default)]
    pub secrets: BTreeMap<String, (String, String)>,
    /// Volumes by path, and whether they are read-only.
    #[serde(default)]
    pub volumes: BTreeMap<String, (String, bool)>,
    /// Writable memory by path, in bytes.
    #[serde(default)]
    pub scratch: BTreeMap<String, u64>,
    /// Ports by name.
    #[serde(default)]
    pub ports: BTreeMap<String, u16>,
    /// How it is probed.
    #[serde(default)]
    pub health: Option<Health>,
    /// In bytes.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// In thousandths of a core.
    #[serde(default)]
    pub cpu_milli: Option<u32>,
    /// Processes and threads.
    pub pids: u32,
    /// Capabilities added.
    #[serde(default)]
    pub add_capabilities: Vec<String>,
    /// Capabilities dropped.
    #[serde(default)]
    pub drop_capabilities: Vec<String>,
    /// The signal that asks it to stop.
    pub stop_signal: String,
    /// How long it has then.
    pub stop_grace_ms: u64,
    /// The services whose names it resolves.
    #[serde(default)]
    pub uses: Vec<String>,
}

/// How health is probed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What is asked.
    pub probe: ProbeWire,
    /// How often.
    pub interval_ms: u64,
    /// How long one may take.
    pub timeout_ms: u64,
    /// How long the first success may take.
    pub startup_ms: u64,
    /// Successes in a row.
    pub healthy_after: u32,
    /// Failures in a row.
    pub unhealthy_after: u32,
    /// Ports that must be closed.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub closed_ports: BTreeSet<u16>,
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ProbeWire {
    /// A GET.
    Http {
        /// The port.
        port: u16,
        /// The path.
        path: String,
        /// The status that counts.
        #[serde(default)]
        status: Option<u16>,
    },
    /// A connect.
    Tcp {
        /// The port.
        port: u16,
    },
    /// A command.
    Command {
        /// The program and its arguments.
        argv: Vec<String>,
        /// What it must come to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expected: Option<ExpectedWire>,
    },
}

/// What a command must come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedWire {
    /// The code that it exits with.
    pub exit: u8,
    /// What it prints.
    #[serde(default)]
    pub stdout: Option<String>,
    /// Texts that occur in what it prints.
    #[serde(default)]
    pub contains: Vec<String>,
    /// Regular expressions that match in what it prints.
    #[serde(default)]
    pub matches: Vec<String>,
}

impl From<&RevisionSpec> for Sealed {
    fn from(spec: &RevisionSpec) -> Self {
        let service = |(name, service): (&ServiceName, &service::Service)| (name.to_string(), service.into());
        Self {
            services: spec.services.iter().map(service).collect(),
            routes: spec.routes.iter().map(|(name, route)| (name.to_string(), route.into())).collect(),
            webhooks: spec.webhooks.iter().map(|(name, it)| (name.clone(), Encoded(it.clone()))).collect(),
            credentials: spec.credentials.iter().map(|(name, it)| (name.to_string(), it.clone())).collect(),
        }
    }
}

impl TryFrom<&Sealed> for RevisionSpec {
    type Error = Malformed;

    fn try_from(wire: &Sealed) -> Result<Self, Malformed> {
        let service = |(name, wire): (&String, &SealedService)| {
            let service = service_from(name, wire)?;
            Ok((service.name.clone(), service))
        };
        let route = |(name, wire): (&String, &SealedRoute)| {
            let route = route_from(name, wire)?;
            Ok((route.name.clone(), route))
        };
        let version = |(name, version): (&String, &String)| Ok((parse("secret", name)?, version.clone()));
        Ok(Self {
            services: wire.services.iter().map(service).collect::<Result<_, _>>()?,
            routes: wire.routes.iter().map(route).collect::<Result<_, _>>()?,
            webhooks: wire.webhooks.iter().map(|(name, it)| (name.clone(), it.0.clone())).collect(),
            credentials: wire.credentials.iter().map(version).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&service::Service> for SealedService {
    fn from(service: &service::Service) -> Self {
        let service::Service {
            name: _,
            kind,
            spec,
            spec_digest,
            replicas,
            strategy,
            after,
            bounds,
            interludes,
        } = service;
        Self {
            kind: match kind {
                ServiceKind::Service => "service".into(),
                ServiceKind::Worker => "worker".into(),
                ServiceKind::Job => "job".into(),
            },
            spec: spec.as_ref().into(),
            spec_digest: spec_digest.to_string(),
            replicas: *replicas,
            strategy: match strategy {
                service::Strategy::BlueGreen => Strategy::BlueGreen,
                service::Strategy::Rolling { max_surge, max_unavailable, waves } => Strategy::Rolling {
                    max_surge: *max_surge,
                    max_unavailable: *max_unavailable,
                    waves: waves.as_deref().cloned().map(Encoded),
                },
                service::Strategy::StopThenStart => Strategy::StopThenStart,
                service::Strategy::Canary(canary) => {
                    Strategy::Canary { canary: Encoded(service::Canary::clone(canary)) }
                }
            },
            after: after.iter().map(ToString::to_string).collect(),
            progress_deadline_ms: bounds.progress_deadline.0,
            drain_deadline_ms: bounds.drain_deadline.0,
            warm_for_ms: bounds.warm_for.0,
            healthy_for_ms: bounds.healthy_for.0,
            manual_promote: !bounds.auto_promote,
            interludes: (!interludes.is_empty()).then(|| Encoded(Interludes::clone(interludes))),
            manual_revert: !bounds.auto_revert,
        }
    }
}

fn service_from(name: &str, wire: &SealedService) -> Result<service::Service, Malformed> {
    Ok(service::Service {
        name: parse("service", name)?,
        kind: match wire.kind.as_str() {
            "service" => ServiceKind::Service,
            "worker" => ServiceKind::Worker,
            "job" => ServiceKind::Job,
            other => return Err(Malformed { what: "kind", why: format!("`{other}` is none") }),
        },
        spec: Arc::new((&wire.spec).try_into()?),
        spec_digest: parse("spec_digest", &wire.spec_digest)?,
        replicas: wire.replicas,
        strategy: match &wire.strategy {
            Strategy::BlueGreen => service::Strategy::BlueGreen,
            Strategy::Rolling { max_surge, max_unavailable, waves } => service::Strategy::Rolling {
                max_surge: *max_surge,
                max_unavailable: *max_unavailable,
                waves: waves.as_ref().map(|Encoded(waves)| Arc::new(waves.clone())),
            },
            Strategy::StopThenStart => service::Strategy::StopThenStart,
            Strategy::Canary { canary: Encoded(canary) } => {
                service::Strategy::Canary(Arc::new(canary.clone()))
            }
        },
        after: wire.after.iter().map(|name| parse("after", name)).collect::<Result<_, _>>()?,
        bounds: RolloutBounds {
            progress_deadline: Millis(wire.progress_deadline_ms),
            drain_deadline: Millis(wire.drain_deadline_ms),
            warm_for: Millis(wire.warm_for_ms),
            healthy_for: Millis(wire.healthy_for_ms),
            auto_promote: !wire.manual_promote,
            auto_revert: !wire.manual_revert,
        },
        interludes: Arc::new(wire.interludes.clone().map(|Encoded(found)| found).unwrap_or_default()),
    })
}

impl From<&Route> for SealedRoute {
    fn from(route: &Route) -> Self {
        let Route { name: _, listen, host, path, to } = route;
        Self {
            listen: listen.to_string(),
            host: host.clone(),
            path: path.clone(),
            service: to.service.to_string(),
            port: to.port.to_string(),
        }
    }
}

fn route_from(name: &str, wire: &SealedRoute) -> Result<Route, Malformed> {
    Ok(Route {
        name: parse("route", name)?,
        listen: parse("listen", &wire.listen)?,
        host: wire.host.clone(),
        path: wire.path.clone(),
        to: PortRef { service: parse("service", &wire.service)?, port: parse("port", &wire.port)? },
    })
}

impl From<&instance::InstanceSpec> for Spec {
    fn from(spec: &instance::InstanceSpec) -> Self {
        let strings = |items: &std::collections::BTreeSet<String>| items.iter().cloned().collect();
        Self {
            image: spec.image.to_string(),
            argv: spec.argv.clone(),
            env: spec.env.clone(),
            workdir: spec.workdir.clone(),
            user: spec.user.clone(),
            secrets: keyed(&spec.secrets, |secret| (secret.name.to_string(), secret.version.clone())),
            volumes: keyed(&spec.volumes, |mount| (mount.volume.to_string(), mount.read_only)),
            scratch: keyed(&spec.scratch, |size| size.0),
            ports: keyed(&spec.ports, |port| *port),
            health: spec.health.as_ref().map(Health::from),
            memory_bytes: spec.limits.memory.map(|size| size.0),
            cpu_milli: spec.limits.cpu.map(|cpu| cpu.0),
            pids: spec.limits.pids,
            add_capabilities: strings(&spec.security.add_capabilities),
            drop_capabilities: strings(&spec.security.drop_capabilities),
            stop_signal: spec.stop.signal.clone(),
            stop_grace_ms: spec.stop.grace.0,
            uses: spec.uses.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<&Spec> for instance::InstanceSpec {
    type Error = Malformed;

    fn try_from(wire: &Spec) -> Result<Self, Malformed> {
        let secret = |(path, (name, version)): (&String, &(String, String))| {
            Ok((path.clone(), SecretRef { name: parse("secret", name)?, version: version.clone() }))
        };
        let volume = |(path, (name, read_only)): (&String, &(String, bool))| {
            Ok((path.clone(), VolumeMount { volume: parse("volume", name)?, read_only: *read_only }))
        };
        let port = |(name, port): (&String, &u16)| Ok((parse("port", name)?, *port));
        Ok(Self {
            image: parse::<Digest>("image", &wire.image)?,
            argv: wire.argv.clone(),
            env: wire.env.clone(),
            workdir: wire.workdir.clone(),
            user: wire.user.clone(),
            secrets: wire.secrets.iter().map(secret).collect::<Result<_, Malformed>>()?,
            volumes: wire.volumes.iter().map(volume).collect::<Result<_, Malformed>>()?,
            scratch: wire.scratch.iter().map(|(path, size)| (path.clone(), ByteSize(*size))).collect(),
            ports: wire.ports.iter().map(port).collect::<Result<_, Malformed>>()?,
            health: wire.health.as_ref().map(HealthCheck::from),
            limits: Limits {
                memory: wire.memory_bytes.map(ByteSize),
                cpu: wire.cpu_milli.map(MilliCpu),
                pids: wire.pids,
            },
            security: Security {
                add_capabilities: wire.add_capabilities.iter().cloned().collect(),
                drop_capabilities: wire.drop_capabilities.iter().cloned().collect(),
            },
            stop: StopPolicy { signal: wire.stop_signal.clone(), grace: Millis(wire.stop_grace_ms) },
            uses: wire.uses.iter().map(|name| parse("uses", name)).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&HealthCheck> for Health {
    fn from(health: &HealthCheck) -> Self {
        let HealthCheck { probe, interval, timeout, startup, healthy_after, unhealthy_after, closed_ports } =
            health;
        Self {
            probe: match probe.clone() {
                Probe::Http { port, path, status } => ProbeWire::Http { port, path, status },
                Probe::Tcp { port } => ProbeWire::Tcp { port },
                Probe::Command { argv, expected } => {
                    ProbeWire::Command { argv, expected: expected.map(ExpectedWire::from) }
                }
            },
            interval_ms: interval.0,
            timeout_ms: timeout.0,
            startup_ms: startup.0,
            healthy_after: *healthy_after,
            unhealthy_after: *unhealthy_after,
            closed_ports: closed_ports.clone(),
        }
    }
}

impl From<&Health> for HealthCheck {
    fn from(wire: &Health) -> Self {
        Self {
            probe: match wire.probe.clone() {
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
            closed_ports: wire.closed_ports.clone(),
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

fn keyed<K: Display, V, W>(map: &BTreeMap<K, V>, value: impl Fn(&V) -> W) -> BTreeMap<String, W> {
    map.iter().map(|(key, item)| (key.to_string(), value(item))).collect()
}

/// Reads one checked value.
pub fn parse<T: FromStr>(what: &'static str, text: &str) -> Result<T, Malformed>
where
    T::Err: Display,
{
    text.parse().map_err(|error: T::Err| Malformed { what, why: error.to_string() })
}

/// A revision that has something in every field.
#[cfg(test)]
pub(crate) fn sample() -> RevisionSpec {
    use kiln_model::notify::Occasion;
    use kiln_model::{PortName, RouteName, SecretName, VolumeName};
    let service = ServiceName::new("web").expect("a plain word");
    let port = PortName::new("http").expect("a plain word");
    let text = |text: &str| text.to_owned();
    let spec = instance::InstanceSpec {
        image: Digest::new([1; 32]),
        argv: vec![text("python3"), text("/app/server.py")],
        env: BTreeMap::from([(text("GREETING"), text("Hello"))]),
        workdir: text("/app"),
        user: text("www-data"),
        secrets: BTreeMap::from([(
            text("/run/secrets/db"),
            SecretRef { name: SecretName::new("db").expect("a plain word"), version: text("v1") },
        )]),
        volumes: BTreeMap::from([(
            text("/data"),
            VolumeMount { volume: VolumeName::new("data").expect("a plain word"), read_only: true },
        )]),
        scratch: BTreeMap::from([(text("/cache"), ByteSize::from_mib(8))]),
        ports: BTreeMap::from([(port.clone(), 8080)]),
        health: Some(HealthCheck {
            probe: Probe::Http { port: 8080, path: text("/healthz"), status: Some(200) },
            interval: Millis(1000),
            timeout: Millis(500),
            startup: Millis(30_000),
            healthy_after: 1,
            unhealthy_after: 3,
            closed_ports: [22].into(),
        }),
        limits: Limits { memory: Some(ByteSize::from_mib(64)), cpu: Some(MilliCpu(500)), pids: 64 },
        security: Security {
            add_capabilities: [text("NET_RAW")].into(),
            drop_capabilities: [text("CHOWN")].into(),
        },
        stop: StopPolicy { signal: text("SIGTERM"), grace: Millis(10_000) },
        uses: [ServiceName::new("orders").expect("a plain word")].into(),
    };
    let web = service::Service {
        name: service.clone(),
        kind: ServiceKind::Service,
        spec: Arc::new(spec),
        spec_digest: Digest::new([2; 32]),
        replicas: 2,
        strategy: service::Strategy::Rolling { max_surge: 1, max_unavailable: 0, waves: None },
        after: [ServiceName::new("orders").expect("a plain word")].into(),
        bounds: RolloutBounds::default(),
        interludes: Arc::default(),
    };
    let route = Route {
        name: RouteName::new("public").expect("a plain word"),
        listen: "0.0.0.0:8080".parse().expect("an address"),
        host: Some(text("shop.localhost")),
        path: text("/"),
        to: PortRef { service: service.clone(), port },
    };
    let hook = Webhook {
        url: text("https://chat.example/hook"),
        events: [Occasion::Completed].into(),
        secret: SecretRef { name: SecretName::new("hook").expect("a plain word"), version: text("v2") },
    };
    RevisionSpec {
        services: BTreeMap::from([(service, web)]),
        routes: BTreeMap::from([(route.name.clone(), route)]),
        credentials: BTreeMap::from([(hook.secret.name.clone(), text("v3"))]),
        webhooks: BTreeMap::from([(text("chat"), hook)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_survives_the_wire() {
        let spec = sample();
        let text = serde_json::to_string(&Sealed::from(&spec)).unwrap();
        let back: Sealed = serde_json::from_str(&text).unwrap();
        assert_eq!(RevisionSpec::try_from(&back), Ok(spec));
    }

    #[test]
    fn what_can_not_be_is_refused() {
        let good = Sealed::from(&sample());
        let spoil: [fn(&mut SealedService); 3] = [
            |web| web.kind = "daemon".into(),
            |web| web.spec_digest = "sha256:".into(),
            |web| web.spec.uses = vec!["../x".into()],
        ];
        for spoil in spoil {
            let mut bad = good.clone();
            bad.services.values_mut().for_each(spoil);
            assert!(RevisionSpec::try_from(&bad).is_err());
        }
    }
}
