//! Environments: their revisions, slots and rollouts.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_core::state::{
    Approval, Backoff, Direction, Environment, FinishedRollout, Halt, Lifetime, Pause, Queued,
    ReplicaOverride, Rollout, Served, ServiceState, Share, Slot, Split, StepPhase,
};
use kiln_model::gates::Gates;
use kiln_model::notify::Webhook;
use kiln_model::release::{Composed, Revision, RevisionSpec};
use kiln_model::rollout::{Cause, Outcome, ReplicaOwner, Step};
use kiln_model::route::Route;
use kiln_model::service::Service;
use kiln_model::{
    Actor, Digest, InstanceId, Millis, Position, RevisionNumber, RolloutId, SecretName, ServiceName,
    Timestamp, Weight,
};
use kiln_store::{Encoded, Text};
use serde::{Deserialize, Serialize};

use super::measured::{self, TallyWire};
use super::room::{ExtraWire, RoomWire};
use super::service_table::{self, ServiceTable};
use super::tries::TriesWire;
use super::{DecodeError, EnvWire};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EnvironmentWire {
    key: EnvWire,
    index: u8,
    created_at: u64,
    revisions: Vec<RevisionWire>,
    last_number: u64,
    completed: Vec<u64>,
    current: Option<u64>,
    routes: Option<u64>,
    rollout: Option<RolloutWire>,
    last_rollout: Option<FinishedWire>,
    services: BTreeMap<Text<ServiceName>, ServiceStateWire>,
    ending: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gates: Option<Encoded<Gates>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    served: Vec<ServedWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lifetime: Option<LifetimeWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    queued: Option<QueuedWire>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct QueuedWire {
    to: u64,
    cause: Encoded<Cause>,
    by: ActorWire,
    since: u64,
}

impl From<&Queued> for QueuedWire {
    fn from(queued: &Queued) -> Self {
        let Queued { to, cause, by, since } = queued;
        Self { to: to.0, cause: Encoded(cause.clone()), by: by.into(), since: since.0 }
    }
}

impl From<QueuedWire> for Queued {
    fn from(wire: QueuedWire) -> Self {
        let (to, since) = (RevisionNumber(wire.to), Timestamp(wire.since));
        Self { to, cause: wire.cause.0, by: wire.by.into(), since }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LifetimeWire {
    ttl_ms: u64,
    until: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServedWire {
    release: Text<Digest>,
    since: Option<u64>,
    stretch_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApprovalWire {
    release: Text<Digest>,
    by: ActorWire,
    until: u64,
}

impl From<&Approval> for ApprovalWire {
    fn from(approval: &Approval) -> Self {
        let Approval { release, by, until } = approval;
        Self { release: Text(*release), by: by.into(), until: until.0 }
    }
}

impl From<ApprovalWire> for Approval {
    fn from(wire: ApprovalWire) -> Self {
        Self { release: wire.release.0, by: wire.by.into(), until: Timestamp(wire.until) }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevisionWire {
    number: u64,
    release: Text<Digest>,
    binding: Text<Digest>,
    /// Places in the table of services.
    services: Vec<u32>,
    routes: Vec<Encoded<Route>>,
    composed: Option<ComposedWire>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    webhooks: BTreeMap<String, Encoded<Webhook>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    credentials: BTreeMap<Text<SecretName>, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ComposedWire {
    service: Text<ServiceName>,
    from: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceStateWire {
    slots: BTreeMap<u32, SlotWire>,
    replicas: Option<OverrideWire>,
    job_done: Option<Text<Digest>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OverrideWire {
    replicas: u32,
    owner: Encoded<ReplicaOwner>,
    declared: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SlotWire {
    instances: Vec<Text<InstanceId>>,
    duty: Option<u64>,
    share: u16,
    create_step: Option<u32>,
    backoff: Option<BackoffWire>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackoffWire {
    spec: Text<Digest>,
    failures: u32,
    not_before: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RolloutWire {
    id: u64,
    started_at: u64,
    actor: ActorWire,
    from: Option<u64>,
    to: Option<u64>,
    cause: Encoded<Cause>,
    /// Why it goes back; none while it goes forward.
    back: Option<String>,
    steps: Vec<Encoded<Step>>,
    next: u32,
    step: StepPhaseWire,
    moved_at: u64,
    table: u64,
    exits: u32,
    last_exit: Option<String>,
    hopeless: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    paused: Option<PauseWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    halted: Option<HaltWire>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    splits: BTreeMap<Text<ServiceName>, SplitWire>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    measured: BTreeMap<Text<ServiceName>, BTreeMap<String, TallyWire>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    promoted: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    undecided: bool,
    #[serde(default, skip_serializing_if = "is_none")]
    extended: u32,
    #[serde(default, skip_serializing_if = "TriesWire::is_default")]
    tries: TriesWire,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    room: Option<RoomWire>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it")]
fn is_none(count: &u32) -> bool {
    *count == 0
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PauseWire {
    by: ActorWire,
    since: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HaltWire {
    reason: String,
    until: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SplitWire {
    weight: u16,
    window: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mirror: Option<u16>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum StepPhaseWire {
    Waiting,
    Started { deadline: Option<u64> },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ActorWire {
    User(String),
    Controller,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FinishedWire {
    id: u64,
    started_at: u64,
    finished_at: u64,
    actor: ActorWire,
    from: Option<u64>,
    to: Option<u64>,
    cause: Encoded<Cause>,
    outcome: Encoded<Outcome>,
    reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    extra: Option<ExtraWire>,
}

fn numbers(numbers: Option<RevisionNumber>) -> Option<u64> {
    numbers.map(|number| number.0)
}

fn text(text: Option<String>) -> Option<Arc<str>> {
    text.map(|text| text.as_str().into())
}

impl EnvironmentWire {
    pub(super) fn of(env: &Environment, table: &mut ServiceTable) -> Self {
        let Environment {
            key,
            index,
            created_at,
            revisions,
            last_number,
            completed,
            current,
            routes,
            rollout,
            last_rollout,
            services,
            ending,
            gates,
            served,
            lifetime,
            queued,
        } = env;
        let stretch = |served: &Served| {
            let Served { release, since, stretch } = served;
            ServedWire { release: Text(*release), since: since.map(|at| at.0), stretch_ms: stretch.0 }
        };
        let service = |(name, it): (&ServiceName, &Arc<ServiceState>)| {
            (Text(name.clone()), ServiceStateWire::from(&**it))
        };
        Self {
            key: key.into(),
            index: *index,
            created_at: created_at.0,
            revisions: revisions.values().map(|revision| RevisionWire::of(revision, table)).collect(),
            last_number: last_number.0,
            completed: completed.iter().map(|number| number.0).collect(),
            current: numbers(*current),
            routes: numbers(*routes),
            rollout: rollout.as_ref().map(|rollout| RolloutWire::from(&**rollout)),
            last_rollout: last_rollout.as_ref().map(|rollout| FinishedWire::from(&**rollout)),
            services: services.iter().map(service).collect(),
            ending: *ending,
            gates: (**gates != Gates::default()).then(|| Encoded(Gates::clone(gates))),
            served: served.iter().map(stretch).collect(),
            lifetime: lifetime.map(|Lifetime { ttl, until }| LifetimeWire { ttl_ms: ttl.0, until: until.0 }),
            queued: queued.as_ref().map(|queued| QueuedWire::from(&**queued)),
        }
    }

    pub(super) fn into_model(self, services: &[Service]) -> Result<Environment, DecodeError> {
        let revision = |wire: RevisionWire| {
            let revision = wire.into_model(services)?;
            Ok((revision.number, Arc::new(revision)))
        };
        let service =
            |(name, wire): (Text<ServiceName>, ServiceStateWire)| Ok((name.0, Arc::new(wire.into_model()?)));
        let stretch = |wire: ServedWire| Served {
            release: wire.release.0,
            since: wire.since.map(Timestamp),
            stretch: Millis(wire.stretch_ms),
        };
        Ok(Environment {
            key: self.key.into(),
            index: self.index,
            created_at: Timestamp(self.created_at),
            revisions: self.revisions.into_iter().map(revision).collect::<Result<_, DecodeError>>()?,
            last_number: RevisionNumber(self.last_number),
            completed: self.completed.into_iter().map(RevisionNumber).collect(),
            current: self.current.map(RevisionNumber),
            routes: self.routes.map(RevisionNumber),
            rollout: self.rollout.map(RolloutWire::into_model).transpose()?.map(Arc::new),
            last_rollout: self.last_rollout.map(|rollout| Arc::new(rollout.into())),
            services: self.services.into_iter().map(service).collect::<Result<_, DecodeError>>()?,
            ending: self.ending,
            gates: Arc::new(self.gates.map(|gates| gates.0).unwrap_or_default()),
            served: self.served.into_iter().map(stretch).collect(),
            lifetime: self.lifetime.map(|it| Lifetime { ttl: Millis(it.ttl_ms), until: Timestamp(it.until) }),
            queued: self.queued.map(|queued| Arc::new(queued.into())),
        })
    }
}

impl RevisionWire {
    fn of(revision: &Revision, table: &mut ServiceTable) -> Self {
        let Revision { number, release, binding, spec, composed } = revision;
        let RevisionSpec { services, routes, webhooks, credentials } = &**spec;
        let composed = composed
            .as_ref()
            .map(|Composed { service, from }| ComposedWire { service: Text(service.clone()), from: from.0 });
        Self {
            number: number.0,
            release: Text(*release),
            binding: Text(*binding),
            services: services.values().map(|service| table.place_of(service)).collect(),
            routes: routes.values().cloned().map(Encoded).collect(),
            composed,
            webhooks: webhooks.iter().map(|(name, it)| (name.clone(), Encoded(it.clone()))).collect(),
            credentials: credentials.iter().map(|(name, it)| (Text(name.clone()), it.clone())).collect(),
        }
    }

    fn into_model(self, services: &[Service]) -> Result<Revision, DecodeError> {
        let service = |place| {
            let service = service_table::at(services, place)?;
            Ok((service.name.clone(), service))
        };
        let spec = RevisionSpec {
            services: self.services.into_iter().map(service).collect::<Result<_, DecodeError>>()?,
            routes: self.routes.into_iter().map(|Encoded(route)| (route.name.clone(), route)).collect(),
            webhooks: self.webhooks.into_iter().map(|(name, Encoded(it))| (name, it)).collect(),
            credentials: self.credentials.into_iter().map(|(Text(name), version)| (name, version)).collect(),
        };
        let composed = |it: ComposedWire| Composed { service: it.service.0, from: RevisionNumber(it.from) };
        Ok(Revision {
            number: RevisionNumber(self.number),
            release: self.release.0,
            binding: self.binding.0,
            spec: Arc::new(spec),
            composed: self.composed.map(composed),
        })
    }
}

impl From<&ServiceState> for ServiceStateWire {
    fn from(service: &ServiceState) -> Self {
        // What rests is looked up by its back-off: it is made again.
        let ServiceState { slots, replicas, job_done, .. } = service;
        let replicas = replicas.map(|ReplicaOverride { replicas, owner, declared }| OverrideWire {
            replicas,
            owner: Encoded(owner),
            declared,
        });
        Self {
            slots: slots.iter().map(|(ordinal, slot)| (*ordinal, SlotWire::from(&**slot))).collect(),
            replicas,
            job_done: job_done.map(Text),
        }
    }
}

impl ServiceStateWire {
    fn into_model(self) -> Result<ServiceState, DecodeError> {
        let slot = |(ordinal, wire): (u32, SlotWire)| Ok((ordinal, Arc::new(wire.into_model()?)));
        let slots = self.slots.into_iter().map(slot).collect::<Result<_, DecodeError>>()?;
        let replicas = self.replicas.map(|it| ReplicaOverride {
            replicas: it.replicas,
            owner: it.owner.0,
            declared: it.declared,
        });
        Ok(ServiceState::new(slots, replicas, self.job_done.map(|digest| digest.0)))
    }
}

impl From<&Slot> for SlotWire {
    fn from(slot: &Slot) -> Self {
        let Slot { instances, duty, share: Share(share), create_step, backoff } = slot;
        let backoff = backoff.map(|Backoff { spec, failures, not_before }| BackoffWire {
            spec: Text(spec),
            failures,
            not_before: not_before.0,
        });
        Self {
            instances: instances.iter().copied().map(Text).collect(),
            duty: numbers(*duty),
            share: share.per_mille(),
            create_step: *create_step,
            backoff,
        }
    }
}

impl SlotWire {
    fn into_model(self) -> Result<Slot, DecodeError> {
        let backoff = |it: BackoffWire| Backoff {
            spec: it.spec.0,
            failures: it.failures,
            not_before: Timestamp(it.not_before),
        };
        Ok(Slot {
            instances: self.instances.into_iter().map(|id| id.0).collect(),
            duty: self.duty.map(RevisionNumber),
            share: Share(weight(self.share)?),
            create_step: self.create_step,
            backoff: self.backoff.map(backoff),
        })
    }
}

/// Reads a weight back, which has a range.
pub(super) fn weight(per_mille: u16) -> Result<Weight, DecodeError> {
    Weight::new(per_mille)
        .ok_or_else(|| DecodeError::Impossible(format!("a weight of {per_mille} per mille")))
}

impl From<&Rollout> for RolloutWire {
    fn from(rollout: &Rollout) -> Self {
        let Rollout {
            id,
            started_at,
            actor,
            from,
            to,
            cause,
            direction,
            steps,
            next,
            step,
            moved_at,
            table,
            exits,
            last_exit,
            hopeless,
            paused,
            halted,
            splits,
            measured,
            promoted,
            undecided,
            extended,
            tries,
            room,
        } = rollout;
        Self {
            id: id.0,
            started_at: started_at.0,
            actor: actor.into(),
            from: numbers(*from),
            to: numbers(*to),
            cause: Encoded(cause.clone()),
            back: match direction {
                Direction::Forward => None,
                Direction::Back { reason } => Some(reason.to_string()),
            },
            steps: steps.iter().cloned().map(Encoded).collect(),
            next: *next,
            step: match step {
                StepPhase::Waiting => StepPhaseWire::Waiting,
                StepPhase::Started { deadline } => {
                    StepPhaseWire::Started { deadline: deadline.map(|at| at.0) }
                }
            },
            moved_at: moved_at.0,
            table: table.0,
            exits: *exits,
            last_exit: last_exit.as_ref().map(ToString::to_string),
            hopeless: hopeless.as_ref().map(ToString::to_string),
            paused: paused.as_ref().map(|Pause { by, since }| PauseWire { by: by.into(), since: since.0 }),
            halted: halted
                .as_ref()
                .map(|Halt { reason, until }| HaltWire { reason: reason.to_string(), until: until.0 }),
            splits: splits.iter().map(|(name, split)| (Text(name.clone()), split.into())).collect(),
            measured: measured
                .iter()
                .map(|(name, tallies)| (Text(name.clone()), measured::stored(tallies)))
                .collect(),
            promoted: *promoted,
            undecided: *undecided,
            extended: *extended,
            tries: tries.into(),
            room: room.map(RoomWire::from),
        }
    }
}

impl From<&Split> for SplitWire {
    fn from(Split { weight, window, mirror }: &Split) -> Self {
        Self { weight: weight.per_mille(), window: *window, mirror: mirror.map(Weight::per_mille) }
    }
}

impl RolloutWire {
    fn into_model(self) -> Result<Rollout, DecodeError> {
        let wire = self;
        let split = |(name, split): (Text<ServiceName>, SplitWire)| {
            let mirror = split.mirror.map(weight).transpose()?;
            Ok((name.0, Split { weight: weight(split.weight)?, window: split.window, mirror }))
        };
        Ok(Rollout {
            id: RolloutId(wire.id),
            started_at: Timestamp(wire.started_at),
            actor: wire.actor.into(),
            from: wire.from.map(RevisionNumber),
            to: wire.to.map(RevisionNumber),
            cause: wire.cause.0,
            direction: match wire.back {
                None => Direction::Forward,
                Some(reason) => Direction::Back { reason: reason.as_str().into() },
            },
            steps: wire.steps.into_iter().map(|step| step.0).collect(),
            next: wire.next,
            step: match wire.step {
                StepPhaseWire::Waiting => StepPhase::Waiting,
                StepPhaseWire::Started { deadline } => {
                    StepPhase::Started { deadline: deadline.map(Timestamp) }
                }
            },
            moved_at: Timestamp(wire.moved_at),
            table: Position(wire.table),
            exits: wire.exits,
            last_exit: text(wire.last_exit),
            hopeless: text(wire.hopeless),
            paused: wire.paused.map(|it| Pause { by: it.by.into(), since: Timestamp(it.since) }),
            halted: wire
                .halted
                .map(|it| Halt { reason: it.reason.as_str().into(), until: Timestamp(it.until) }),
            splits: wire.splits.into_iter().map(split).collect::<Result<_, DecodeError>>()?,
            measured: wire
                .measured
                .into_iter()
                .map(|(name, tallies)| (name.0, measured::read(tallies)))
                .collect(),
            promoted: wire.promoted,
            undecided: wire.undecided,
            extended: wire.extended,
            tries: wire.tries.into(),
            room: wire.room.map(RoomWire::into_model),
        })
    }
}

impl From<&FinishedRollout> for FinishedWire {
    fn from(rollout: &FinishedRollout) -> Self {
        let FinishedRollout { id, started_at, finished_at, actor, from, to, cause, outcome, reason, extra } =
            rollout;
        Self {
            id: id.0,
            started_at: started_at.0,
            finished_at: finished_at.0,
            actor: actor.into(),
            from: numbers(*from),
            to: numbers(*to),
            cause: Encoded(cause.clone()),
            outcome: Encoded(outcome.clone()),
            reason: reason.to_string(),
            extra: extra.map(ExtraWire::from),
        }
    }
}

impl From<FinishedWire> for FinishedRollout {
    fn from(wire: FinishedWire) -> Self {
        Self {
            id: RolloutId(wire.id),
            started_at: Timestamp(wire.started_at),
            finished_at: Timestamp(wire.finished_at),
            actor: wire.actor.into(),
            from: wire.from.map(RevisionNumber),
            to: wire.to.map(RevisionNumber),
            cause: wire.cause.0,
            outcome: wire.outcome.0,
            reason: wire.reason.as_str().into(),
            extra: wire.extra.map(ExtraWire::into_model),
        }
    }
}

impl From<&Actor> for ActorWire {
    fn from(actor: &Actor) -> Self {
        match actor {
            Actor::User(name) => Self::User(name.clone()),
            Actor::Controller => Self::Controller,
        }
    }
}

impl From<ActorWire> for Actor {
    fn from(wire: ActorWire) -> Self {
        match wire {
            ActorWire::User(name) => Self::User(name),
            ActorWire::Controller => Self::Controller,
        }
    }
}
