//! Events about Kiln itself, about environments and about traffic.

use kiln_model::event::{ControlEvent, EnvironmentEvent, TrafficEvent};
use kiln_model::gates::GateVerdict;
use kiln_model::route::Listener;
use kiln_model::{
    Digest, InstanceId, Millis, Position, RevisionNumber, ServiceName, StackName, Term, Timestamp,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::Text;
use super::gates::{GateVerdictWire, GatesWire};
use super::rollout::{CauseWire, OwnerWire, weight_of};
use super::service::RevisionWire;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ControlWire {
    ControllerStarted { term: u64 },
    ClockJumped { by_ms: u64 },
    StackBound { stack: Text<StackName>, origin: String },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum EnvironmentWire {
    Created { index: u8 },
    RevisionSealed { revision: Box<RevisionWire> },
    RevisionReleased { number: u64 },
    ReplicasSet { service: Text<ServiceName>, replicas: u32, owner: OwnerWire },
    Removed,
    GatesDeclared { gates: GatesWire },
    ReleaseApproved { release: Text<Digest>, until: u64 },
    GatesPassed { release: Text<Digest>, verdicts: Vec<GateVerdictWire>, broken: Option<String> },
    LifetimeSet { lifetime: Option<LifetimeWire> },
    Expired,
    RolloutQueued { to: u64, cause: CauseWire },
    RolloutDequeued { reason: String },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LifetimeWire {
    ttl_ms: u64,
    until: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum TrafficWire {
    Shifted { weights: Vec<(Text<InstanceId>, u16)> },
    RoutesServed { revision: Option<u64> },
    Acknowledged { version: u64 },
    ListenerRequested { listener: Text<Listener> },
    ListenerOpened { listener: Text<Listener> },
    ListenerFailed { listener: Text<Listener>, reason: String },
    ListenerReleased { listener: Text<Listener> },
    ListenerClosed { listener: Text<Listener> },
}

impl From<&ControlEvent> for ControlWire {
    fn from(event: &ControlEvent) -> Self {
        match event {
            ControlEvent::ControllerStarted { term } => Self::ControllerStarted { term: term.0 },
            ControlEvent::ClockJumped { by } => Self::ClockJumped { by_ms: by.0 },
            ControlEvent::StackBound { stack, origin } => {
                Self::StackBound { stack: Text(stack.clone()), origin: origin.clone() }
            }
        }
    }
}

impl From<ControlWire> for ControlEvent {
    fn from(wire: ControlWire) -> Self {
        match wire {
            ControlWire::ControllerStarted { term } => Self::ControllerStarted { term: Term(term) },
            ControlWire::ClockJumped { by_ms } => Self::ClockJumped { by: Millis(by_ms) },
            ControlWire::StackBound { stack, origin } => Self::StackBound { stack: stack.0, origin },
        }
    }
}

impl From<&EnvironmentEvent> for EnvironmentWire {
    fn from(event: &EnvironmentEvent) -> Self {
        match event {
            EnvironmentEvent::Created { index } => Self::Created { index: *index },
            EnvironmentEvent::RevisionSealed { revision } => {
                Self::RevisionSealed { revision: Box::new((&**revision).into()) }
            }
            EnvironmentEvent::RevisionReleased { number } => Self::RevisionReleased { number: number.0 },
            EnvironmentEvent::ReplicasSet { service, replicas, owner } => {
                Self::ReplicasSet { service: Text(service.clone()), replicas: *replicas, owner: owner.into() }
            }
            EnvironmentEvent::Removed => Self::Removed,
            EnvironmentEvent::GatesDeclared { gates } => Self::GatesDeclared { gates: (&**gates).into() },
            EnvironmentEvent::ReleaseApproved { release, until } => {
                Self::ReleaseApproved { release: Text(*release), until: until.0 }
            }
            EnvironmentEvent::GatesPassed { release, verdicts, broken } => Self::GatesPassed {
                release: Text(*release),
                verdicts: verdicts.iter().map(GateVerdictWire::from).collect(),
                broken: broken.clone(),
            },
            EnvironmentEvent::LifetimeSet { lifetime } => Self::LifetimeSet {
                lifetime: lifetime.map(|(ttl, until)| LifetimeWire { ttl_ms: ttl.0, until: until.0 }),
            },
            EnvironmentEvent::Expired => Self::Expired,
            EnvironmentEvent::RolloutQueued { to, cause } => {
                Self::RolloutQueued { to: to.0, cause: cause.into() }
            }
            EnvironmentEvent::RolloutDequeued { reason } => Self::RolloutDequeued { reason: reason.clone() },
        }
    }
}

impl From<EnvironmentWire> for EnvironmentEvent {
    fn from(wire: EnvironmentWire) -> Self {
        match wire {
            EnvironmentWire::Created { index } => Self::Created { index },
            EnvironmentWire::RevisionSealed { revision } => {
                Self::RevisionSealed { revision: Arc::new((*revision).into()) }
            }
            EnvironmentWire::RevisionReleased { number } => {
                Self::RevisionReleased { number: RevisionNumber(number) }
            }
            EnvironmentWire::ReplicasSet { service, replicas, owner } => {
                Self::ReplicasSet { service: service.0, replicas, owner: owner.into() }
            }
            EnvironmentWire::Removed => Self::Removed,
            EnvironmentWire::GatesDeclared { gates } => Self::GatesDeclared { gates: Arc::new(gates.into()) },
            EnvironmentWire::ReleaseApproved { release, until } => {
                Self::ReleaseApproved { release: release.0, until: Timestamp(until) }
            }
            EnvironmentWire::GatesPassed { release, verdicts, broken } => Self::GatesPassed {
                release: release.0,
                verdicts: verdicts.into_iter().map(GateVerdict::from).collect(),
                broken,
            },
            EnvironmentWire::LifetimeSet { lifetime } => {
                Self::LifetimeSet { lifetime: lifetime.map(|it| (Millis(it.ttl_ms), Timestamp(it.until))) }
            }
            EnvironmentWire::Expired => Self::Expired,
            EnvironmentWire::RolloutQueued { to, cause } => {
                Self::RolloutQueued { to: RevisionNumber(to), cause: cause.into() }
            }
            EnvironmentWire::RolloutDequeued { reason } => Self::RolloutDequeued { reason },
        }
    }
}

impl From<&TrafficEvent> for TrafficWire {
    fn from(event: &TrafficEvent) -> Self {
        match event {
            TrafficEvent::Shifted { weights } => Self::Shifted {
                weights: weights.iter().map(|(id, weight)| (Text(*id), weight.per_mille())).collect(),
            },
            TrafficEvent::RoutesServed { revision } => {
                Self::RoutesServed { revision: revision.map(|number| number.0) }
            }
            TrafficEvent::Acknowledged { version } => Self::Acknowledged { version: version.0 },
            TrafficEvent::ListenerRequested { listener } => {
                Self::ListenerRequested { listener: Text(*listener) }
            }
            TrafficEvent::ListenerOpened { listener } => Self::ListenerOpened { listener: Text(*listener) },
            TrafficEvent::ListenerFailed { listener, reason } => {
                Self::ListenerFailed { listener: Text(*listener), reason: reason.clone() }
            }
            TrafficEvent::ListenerReleased { listener } => {
                Self::ListenerReleased { listener: Text(*listener) }
            }
            TrafficEvent::ListenerClosed { listener } => Self::ListenerClosed { listener: Text(*listener) },
        }
    }
}

impl TryFrom<TrafficWire> for TrafficEvent {
    type Error = String;

    fn try_from(wire: TrafficWire) -> Result<Self, String> {
        Ok(match wire {
            TrafficWire::Shifted { weights } => {
                let weight = |(id, weight): (Text<InstanceId>, u16)| Ok((id.0, weight_of(weight)?));
                Self::Shifted { weights: weights.into_iter().map(weight).collect::<Result<_, String>>()? }
            }
            TrafficWire::RoutesServed { revision } => {
                Self::RoutesServed { revision: revision.map(RevisionNumber) }
            }
            TrafficWire::Acknowledged { version } => Self::Acknowledged { version: Position(version) },
            TrafficWire::ListenerRequested { listener } => Self::ListenerRequested { listener: listener.0 },
            TrafficWire::ListenerOpened { listener } => Self::ListenerOpened { listener: listener.0 },
            TrafficWire::ListenerFailed { listener, reason } => {
                Self::ListenerFailed { listener: listener.0, reason }
            }
            TrafficWire::ListenerReleased { listener } => Self::ListenerReleased { listener: listener.0 },
            TrafficWire::ListenerClosed { listener } => Self::ListenerClosed { listener: listener.0 },
        })
    }
}
