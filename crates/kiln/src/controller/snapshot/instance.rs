//! Instances, checks and their verdicts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use kiln_core::state::{Check, Environment, Health, Instance, Phase, Verdict};
use kiln_model::event::Purpose;
use kiln_model::instance::ExitStatus;
use kiln_model::{CheckId, Digest, EnvKey, InstanceId, InstanceSpec, Millis, Position, Timestamp};
use kiln_store::{Encoded, Text};
use serde::{Deserialize, Serialize};

use super::environment::weight;
use super::{DecodeError, EnvWire};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InstanceWire {
    id: Text<InstanceId>,
    env: EnvWire,
    purpose: Encoded<Purpose>,
    /// None where it is the one of its revision's service, or of its check.
    spec: Option<Encoded<InstanceSpec>>,
    spec_digest: Text<Digest>,
    requested: u64,
    requested_at: u64,
    phase: PhaseWire,
    address: Option<Text<IpAddr>>,
    started: Option<u64>,
    started_at: Option<u64>,
    health: HealthWire,
    healthy_since: Option<u64>,
    exit: Option<Encoded<ExitStatus>>,
    weight: u16,
    unrouted: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum PhaseWire {
    Requested,
    Running,
    Warm { until: u64 },
    Ended { refused: Option<String> },
    Retiring { reason: String, drain_within_ms: u64 },
    Draining { deadline: u64, since: u64 },
    Destroying { grace_ms: u64, cut: bool, since: u64 },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum HealthWire {
    Unknown,
    Healthy,
    Unhealthy { reason: String },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckWire {
    id: u64,
    env: EnvWire,
    image: Text<Digest>,
    test: String,
    spec: Encoded<InstanceSpec>,
    spec_digest: Text<Digest>,
    deadline: u64,
    instance: Option<Text<InstanceId>>,
    answered: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VerdictWire {
    image: Text<Digest>,
    test: String,
    check: u64,
    spec_digest: Text<Digest>,
    failure: Option<String>,
    at: u64,
}

/// Where the specs of instances come from.
pub(super) struct Sources<'a> {
    environments: BTreeMap<&'a EnvKey, &'a Environment>,
    checks: BTreeMap<CheckId, &'a Check>,
}

impl<'a> Sources<'a> {
    pub(super) fn new(environments: &'a [Arc<Environment>], checks: &'a [Arc<Check>]) -> Self {
        Self {
            environments: environments.iter().map(|env| (&env.key, &**env)).collect(),
            checks: checks.iter().map(|check| (check.id, &**check)).collect(),
        }
    }

    /// The spec that an instance with this purpose was created with.
    fn spec_of(&self, purpose: &Purpose) -> Option<&Arc<InstanceSpec>> {
        match purpose {
            Purpose::Slot { slot, revision } => {
                let env = self.environments.get(&slot.env)?;
                Some(&env.service(Some(*revision), &slot.service)?.spec)
            }
            Purpose::Check(id) => Some(&self.checks.get(id)?.spec),
        }
    }
}

impl InstanceWire {
    pub(super) fn of(instance: &Instance, sources: &Sources<'_>) -> Self {
        let Instance {
            id,
            env,
            purpose,
            spec,
            spec_digest,
            requested,
            requested_at,
            phase,
            address,
            started,
            started_at,
            health,
            healthy_since,
            exit,
            weight,
            unrouted,
        } = instance;
        let is_its_sources = sources.spec_of(purpose) == Some(spec);
        Self {
            id: Text(*id),
            env: env.into(),
            purpose: Encoded(purpose.clone()),
            spec: (!is_its_sources).then(|| Encoded(InstanceSpec::clone(spec))),
            spec_digest: Text(*spec_digest),
            requested: requested.0,
            requested_at: requested_at.0,
            phase: phase.into(),
            address: address.map(Text),
            started: started.map(|position| position.0),
            started_at: started_at.map(|at| at.0),
            health: health.into(),
            healthy_since: healthy_since.map(|at| at.0),
            exit: exit.map(Encoded),
            weight: weight.per_mille(),
            unrouted: unrouted.map(|position| position.0),
        }
    }

    pub(super) fn into_model(self, sources: &Sources<'_>) -> Result<Instance, DecodeError> {
        let purpose = self.purpose.0;
        let spec = match self.spec {
            Some(spec) => Arc::new(spec.0),
            None => sources.spec_of(&purpose).cloned().ok_or_else(|| {
                DecodeError::Impossible(format!("nothing says what instance {} runs", self.id.0))
            })?,
        };
        Ok(Instance {
            id: self.id.0,
            env: self.env.into(),
            purpose,
            spec,
            spec_digest: self.spec_digest.0,
            requested: Position(self.requested),
            requested_at: Timestamp(self.requested_at),
            phase: self.phase.into(),
            address: self.address.map(|address| address.0),
            started: self.started.map(Position),
            started_at: self.started_at.map(Timestamp),
            health: self.health.into(),
            healthy_since: self.healthy_since.map(Timestamp),
            exit: self.exit.map(|exit| exit.0),
            weight: weight(self.weight)?,
            unrouted: self.unrouted.map(Position),
        })
    }
}

impl From<&Phase> for PhaseWire {
    fn from(phase: &Phase) -> Self {
        match phase {
            Phase::Requested => Self::Requested,
            Phase::Running => Self::Running,
            Phase::Warm { until } => Self::Warm { until: until.0 },
            Phase::Ended { refused } => Self::Ended { refused: refused.as_ref().map(ToString::to_string) },
            Phase::Retiring { reason, drain_within } => {
                Self::Retiring { reason: reason.to_string(), drain_within_ms: drain_within.0 }
            }
            Phase::Draining { deadline, since } => Self::Draining { deadline: deadline.0, since: since.0 },
            Phase::Destroying { grace, cut, since } => {
                Self::Destroying { grace_ms: grace.0, cut: *cut, since: since.0 }
            }
        }
    }
}

impl From<PhaseWire> for Phase {
    fn from(wire: PhaseWire) -> Self {
        match wire {
            PhaseWire::Requested => Self::Requested,
            PhaseWire::Running => Self::Running,
            PhaseWire::Warm { until } => Self::Warm { until: Timestamp(until) },
            PhaseWire::Ended { refused } => {
                Self::Ended { refused: refused.map(|reason| reason.as_str().into()) }
            }
            PhaseWire::Retiring { reason, drain_within_ms } => {
                Self::Retiring { reason: reason.as_str().into(), drain_within: Millis(drain_within_ms) }
            }
            PhaseWire::Draining { deadline, since } => {
                Self::Draining { deadline: Timestamp(deadline), since: Position(since) }
            }
            PhaseWire::Destroying { grace_ms, cut, since } => {
                Self::Destroying { grace: Millis(grace_ms), cut, since: Position(since) }
            }
        }
    }
}

impl From<&Health> for HealthWire {
    fn from(health: &Health) -> Self {
        match health {
            Health::Unknown => Self::Unknown,
            Health::Healthy => Self::Healthy,
            Health::Unhealthy { reason } => Self::Unhealthy { reason: reason.to_string() },
        }
    }
}

impl From<HealthWire> for Health {
    fn from(wire: HealthWire) -> Self {
        match wire {
            HealthWire::Unknown => Self::Unknown,
            HealthWire::Healthy => Self::Healthy,
            HealthWire::Unhealthy { reason } => Self::Unhealthy { reason: reason.as_str().into() },
        }
    }
}

impl From<&Check> for CheckWire {
    fn from(check: &Check) -> Self {
        let Check { id, env, image, test, spec, spec_digest, deadline, instance, answered } = check;
        Self {
            id: id.0,
            env: env.into(),
            image: Text(*image),
            test: test.clone(),
            spec: Encoded(InstanceSpec::clone(spec)),
            spec_digest: Text(*spec_digest),
            deadline: deadline.0,
            instance: instance.map(Text),
            answered: *answered,
        }
    }
}

impl From<CheckWire> for Check {
    fn from(wire: CheckWire) -> Self {
        Self {
            id: CheckId(wire.id),
            env: wire.env.into(),
            image: wire.image.0,
            test: wire.test,
            spec: Arc::new(wire.spec.0),
            spec_digest: wire.spec_digest.0,
            deadline: Timestamp(wire.deadline),
            instance: wire.instance.map(|id| id.0),
            answered: wire.answered,
        }
    }
}

impl From<&((Digest, String), Verdict)> for VerdictWire {
    fn from(((image, test), verdict): &((Digest, String), Verdict)) -> Self {
        let Verdict { check, spec_digest, failure, at } = verdict;
        Self {
            image: Text(*image),
            test: test.clone(),
            check: check.0,
            spec_digest: Text(*spec_digest),
            failure: failure.as_ref().map(ToString::to_string),
            at: at.0,
        }
    }
}

impl VerdictWire {
    pub(super) fn into_model(self) -> ((Digest, String), Verdict) {
        let verdict = Verdict {
            check: CheckId(self.check),
            spec_digest: self.spec_digest.0,
            failure: self.failure.map(|reason| reason.as_str().into()),
            at: Timestamp(self.at),
        };
        ((self.image.0, self.test), verdict)
    }
}
