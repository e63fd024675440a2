//! Events: a kind and a schema beside a JSON body, so that a reader knows before it parses whether it can.

use std::net::IpAddr;
use std::sync::Arc;

use kiln_model::event::{CheckEvent, InstanceEvent, Purpose};
use kiln_model::instance::ExitStatus;
use kiln_model::{
    CheckId, Digest, EnvKey, EnvName, Event, InstanceId, Millis, RevisionNumber, ServiceName, SlotKey,
    StackName, Timestamp,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::control::{ControlWire, EnvironmentWire, TrafficWire};
use super::rollout::RolloutWire;
use super::{SpecWire, Text, to_json};

/// The schema in which every event is written today.
const SCHEMA: u32 = 1;

/// The kind of what is said about rollouts: their history is looked for by it.
pub(crate) const ROLLOUT_KIND: &str = "rollout";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AboutInstance {
    instance: Text<InstanceId>,
    event: InstanceWire,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum InstanceWire {
    Requested { purpose: PurposeWire, spec: Text<Digest> },
    Started { address: Text<IpAddr> },
    BecameHealthy,
    BecameUnhealthy { reason: String },
    Refused { reason: String },
    Exited { status: ExitWire },
    Warmed { until: u64 },
    Recalled,
    Retiring { reason: String, drain_within_ms: u64 },
    Draining { deadline: u64 },
    Destroying { grace_ms: u64, cut: bool },
    Destroyed,
    Disowned,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum PurposeWire {
    Slot {
        stack: Text<StackName>,
        env: Text<EnvName>,
        service: Text<ServiceName>,
        ordinal: u32,
        revision: u64,
    },
    Check {
        check: u64,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExitWire {
    Code(u8),
    Signal(u8),
    OutOfMemory,
    Unknown,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AboutCheck {
    check: u64,
    event: CheckWire,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum CheckWire {
    Requested {
        image: Text<Digest>,
        test: String,
        spec: Box<SpecWire>,
        spec_digest: Text<Digest>,
        deadline: u64,
    },
    Passed,
    Failed {
        reason: String,
    },
    Inspected {
        image: Text<Digest>,
        test: String,
        question: Text<Digest>,
        failure: Option<String>,
        // Left out where there is none: what was stored before it existed stays what it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        basis: Option<String>,
    },
}

/// Why a stored event can't be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// Its kind or its schema is not known: a newer Kiln wrote it.
    Unknown,
    /// Its bytes are not what its kind and schema promise.
    Malformed(String),
}

/// Encodes an event: its kind, its schema, its body.
pub(crate) fn encode_event(event: &Event) -> (&'static str, u32, Vec<u8>) {
    let (kind, body) = match event {
        Event::Control(event) => ("control", to_json(&ControlWire::from(event))),
        Event::Environment(event) => ("environment", to_json(&EnvironmentWire::from(event))),
        Event::Rollout(event) => (ROLLOUT_KIND, to_json(&RolloutWire::from(event))),
        Event::Instance(id, event) => {
            ("instance", to_json(&AboutInstance { instance: Text(*id), event: event.into() }))
        }
        Event::Traffic(event) => ("traffic", to_json(&TrafficWire::from(event))),
        Event::Check(id, event) => ("check", to_json(&AboutCheck { check: id.0, event: event.into() })),
    };
    (kind, SCHEMA, body)
}

/// Decodes an event. One of an older schema would be brought up to date here, by pure functions of its body.
pub(crate) fn decode_event(kind: &str, schema: u32, body: &[u8]) -> Result<Event, DecodeError> {
    if schema != SCHEMA {
        return Err(DecodeError::Unknown);
    }
    let malformed = DecodeError::Malformed;
    Ok(match kind {
        "control" => Event::Control(parse::<ControlWire>(body)?.into()),
        "environment" => Event::Environment(parse::<EnvironmentWire>(body)?.into()),
        ROLLOUT_KIND => Event::Rollout(parse::<RolloutWire>(body)?.try_into().map_err(malformed)?),
        "instance" => {
            let about: AboutInstance = parse(body)?;
            Event::Instance(about.instance.0, about.event.into())
        }
        "traffic" => Event::Traffic(parse::<TrafficWire>(body)?.try_into().map_err(malformed)?),
        "check" => {
            let about: AboutCheck = parse(body)?;
            Event::Check(CheckId(about.check), about.event.into())
        }
        _ => return Err(DecodeError::Unknown),
    })
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        // A variant that is missing here was added by a newer Kiln; everything else is damage.
        if text.starts_with("unknown variant") { DecodeError::Unknown } else { DecodeError::Malformed(text) }
    })
}

impl From<&InstanceEvent> for InstanceWire {
    fn from(event: &InstanceEvent) -> Self {
        match event {
            InstanceEvent::Requested { purpose, spec } => {
                Self::Requested { purpose: purpose.into(), spec: Text(*spec) }
            }
            InstanceEvent::Started { address } => Self::Started { address: Text(*address) },
            InstanceEvent::BecameHealthy => Self::BecameHealthy,
            InstanceEvent::BecameUnhealthy { reason } => Self::BecameUnhealthy { reason: reason.clone() },
            InstanceEvent::Refused { reason } => Self::Refused { reason: reason.clone() },
            InstanceEvent::Exited { status } => Self::Exited { status: status.into() },
            InstanceEvent::Warmed { until } => Self::Warmed { until: until.0 },
            InstanceEvent::Recalled => Self::Recalled,
            InstanceEvent::Retiring { reason, drain_within } => {
                Self::Retiring { reason: reason.clone(), drain_within_ms: drain_within.0 }
            }
            InstanceEvent::Draining { deadline } => Self::Draining { deadline: deadline.0 },
            InstanceEvent::Destroying { grace, cut } => Self::Destroying { grace_ms: grace.0, cut: *cut },
            InstanceEvent::Destroyed => Self::Destroyed,
            InstanceEvent::Disowned => Self::Disowned,
        }
    }
}

impl From<InstanceWire> for InstanceEvent {
    fn from(wire: InstanceWire) -> Self {
        match wire {
            InstanceWire::Requested { purpose, spec } => {
                Self::Requested { purpose: purpose.into(), spec: spec.0 }
            }
            InstanceWire::Started { address } => Self::Started { address: address.0 },
            InstanceWire::BecameHealthy => Self::BecameHealthy,
            InstanceWire::BecameUnhealthy { reason } => Self::BecameUnhealthy { reason },
            InstanceWire::Refused { reason } => Self::Refused { reason },
            InstanceWire::Exited { status } => Self::Exited { status: status.into() },
            InstanceWire::Warmed { until } => Self::Warmed { until: Timestamp(until) },
            InstanceWire::Recalled => Self::Recalled,
            InstanceWire::Retiring { reason, drain_within_ms } => {
                Self::Retiring { reason, drain_within: Millis(drain_within_ms) }
            }
            InstanceWire::Draining { deadline } => Self::Draining { deadline: Timestamp(deadline) },
            InstanceWire::Destroying { grace_ms, cut } => Self::Destroying { grace: Millis(grace_ms), cut },
            InstanceWire::Destroyed => Self::Destroyed,
            InstanceWire::Disowned => Self::Disowned,
        }
    }
}

impl From<&Purpose> for PurposeWire {
    fn from(purpose: &Purpose) -> Self {
        match purpose {
            Purpose::Slot { slot, revision } => Self::Slot {
                stack: Text(slot.env.stack.clone()),
                env: Text(slot.env.env.clone()),
                service: Text(slot.service.clone()),
                ordinal: slot.ordinal,
                revision: revision.0,
            },
            Purpose::Check(id) => Self::Check { check: id.0 },
        }
    }
}

impl From<PurposeWire> for Purpose {
    fn from(wire: PurposeWire) -> Self {
        match wire {
            PurposeWire::Slot { stack, env, service, ordinal, revision } => Self::Slot {
                slot: SlotKey { env: EnvKey { stack: stack.0, env: env.0 }, service: service.0, ordinal },
                revision: RevisionNumber(revision),
            },
            PurposeWire::Check { check } => Self::Check(CheckId(check)),
        }
    }
}

impl From<&ExitStatus> for ExitWire {
    fn from(status: &ExitStatus) -> Self {
        match *status {
            ExitStatus::Code(code) => Self::Code(code),
            ExitStatus::Signal(signal) => Self::Signal(signal),
            ExitStatus::OutOfMemory => Self::OutOfMemory,
            ExitStatus::Unknown => Self::Unknown,
        }
    }
}

impl From<ExitWire> for ExitStatus {
    fn from(wire: ExitWire) -> Self {
        match wire {
            ExitWire::Code(code) => Self::Code(code),
            ExitWire::Signal(signal) => Self::Signal(signal),
            ExitWire::OutOfMemory => Self::OutOfMemory,
            ExitWire::Unknown => Self::Unknown,
        }
    }
}

impl From<&CheckEvent> for CheckWire {
    fn from(event: &CheckEvent) -> Self {
        match event {
            CheckEvent::Requested { image, test, spec, spec_digest, deadline } => Self::Requested {
                image: Text(*image),
                test: test.clone(),
                spec: Box::new((&**spec).into()),
                spec_digest: Text(*spec_digest),
                deadline: deadline.0,
            },
            CheckEvent::Passed => Self::Passed,
            CheckEvent::Failed { reason } => Self::Failed { reason: reason.clone() },
            CheckEvent::Inspected { image, test, question, failure, basis } => Self::Inspected {
                image: Text(*image),
                test: test.clone(),
                question: Text(*question),
                failure: failure.clone(),
                basis: basis.clone(),
            },
        }
    }
}

impl From<CheckWire> for CheckEvent {
    fn from(wire: CheckWire) -> Self {
        match wire {
            CheckWire::Requested { image, test, spec, spec_digest, deadline } => Self::Requested {
                image: image.0,
                test,
                spec: Arc::new((*spec).into()),
                spec_digest: spec_digest.0,
                deadline: Timestamp(deadline),
            },
            CheckWire::Passed => Self::Passed,
            CheckWire::Failed { reason } => Self::Failed { reason },
            CheckWire::Inspected { image, test, question, failure, basis } => {
                Self::Inspected { image: image.0, test, question: question.0, failure, basis }
            }
        }
    }
}
