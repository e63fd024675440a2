//! What the log holds: past facts, and intents, which are facts about what was decided.
//!
//! The enums are closed and split by domain. A stored event is read back for ever, so a variant is never changed in
//! meaning: a new one is added, and `kiln-store` upcasts the old.

use std::net::IpAddr;
use std::sync::Arc;

use crate::digest::Digest;
use crate::forecast::{Extra, Forecast};
use crate::gates::{GateVerdict, Gates};
use crate::id::{Actor, CheckId, EnvKey, InstanceId, Position, RevisionNumber, RolloutId, SlotKey, Term};
use crate::instance::{ExitStatus, InstanceSpec};
use crate::name::{ServiceName, StackName};
use crate::notify::Occasion;
use crate::outside::Finding;
use crate::release::Revision;
use crate::rollout::{Cause, Evidence, Outcome, ReplicaOwner, RequestCount, Step, Verdict};
use crate::route::Listener;
use crate::units::{Millis, Timestamp, Weight};

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place; without gaps, from 1.
    pub position: Position,
    /// When it was decided; never decreases along the log.
    pub at: Timestamp,
    /// The controller that decided it.
    pub term: Term,
    /// Who asked for it.
    pub actor: Actor,
    /// The environment that it is about.
    pub env: Option<EnvKey>,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// About Kiln itself.
    Control(ControlEvent),
    /// About the environment that the entry names.
    Environment(EnvironmentEvent),
    /// About the rollout of the environment that the entry names.
    Rollout(RolloutEvent),
    /// About one instance.
    Instance(InstanceId, InstanceEvent),
    /// About what the edge serves.
    Traffic(TrafficEvent),
    /// About a check on an image.
    Check(CheckId, CheckEvent),
}

/// About Kiln itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlEvent {
    /// A controller took over; its term outranks all before it.
    ControllerStarted {
        /// The new term.
        term: Term,
    },
    /// The wall clock went ahead of the time that passed; every deadline that is running is later by this much.
    ClockJumped {
        /// How far.
        by: Millis,
    },
    /// A stack's name belongs to this origin.
    StackBound {
        /// The stack.
        stack: StackName,
        /// The folder or Git origin that may change it.
        origin: String,
    },
}

/// About one environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvironmentEvent {
    /// It exists.
    Created {
        /// Its index among the environments of this Kiln; free again once it is removed.
        index: u8,
    },
    /// A revision is sealed and can be moved to.
    RevisionSealed {
        /// The revision.
        revision: Arc<Revision>,
    },
    /// A revision can no longer be rolled back to, and what only it needs may be collected.
    RevisionReleased {
        /// The revision.
        number: RevisionNumber,
    },
    /// The number of replicas of a service changed.
    ReplicasSet {
        /// The service.
        service: ServiceName,
        /// The number.
        replicas: u32,
        /// Who decided.
        owner: ReplicaOwner,
    },
    /// Nothing of it runs any more, and it is forgotten.
    Removed,
    /// This must hold from now on before it lets a release in.
    GatesDeclared {
        /// What.
        gates: Arc<Gates>,
    },
    /// The entry's actor lets a release in, as far as it depends on them. The environment need not exist yet.
    ReleaseApproved {
        /// The release.
        release: Digest,
        /// When that is over.
        until: Timestamp,
    },
    /// A release was let in. It changes nothing.
    GatesPassed {
        /// The release.
        release: Digest,
        /// What was found at each gate.
        verdicts: Vec<GateVerdict>,
        /// Why it was let in though some are shut, for people; none if all are open.
        broken: Option<String>,
    },
    /// How long it lasts from now on.
    LifetimeSet {
        /// For how long it was asked for, and when it is over; none for ever.
        lifetime: Option<(Millis, Timestamp)>,
    },
    /// Its time is over: everything of it goes.
    Expired,
    /// The entry's actor wants it moved as soon as the rollout that runs has ended.
    RolloutQueued {
        /// To where.
        to: RevisionNumber,
        /// Why.
        cause: Cause,
    },
    /// The rollout that was to begin then does not.
    RolloutDequeued {
        /// Why, for people.
        reason: String,
    },
}

/// About the one rollout that an environment may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RolloutEvent {
    /// It began.
    Started {
        /// The revision that served before.
        from: Option<RevisionNumber>,
        /// The target; none takes everything down.
        to: Option<RevisionNumber>,
        /// Why.
        cause: Cause,
        /// What will be done.
        steps: Vec<Step>,
    },
    /// A step began.
    StepStarted {
        /// Its index among the steps.
        index: u32,
        /// When the wait for it is over.
        deadline: Option<Timestamp>,
    },
    /// A step is complete.
    StepCompleted {
        /// Its index.
        index: u32,
    },
    /// Somebody, the entry's actor, wants no further step to begin.
    Paused,
    /// It goes on: deadlines that were running are later by as long as it was paused.
    Resumed,
    /// Somebody let a step that waits for time, an analysis or an approval be complete: the entry's actor.
    Promoted {
        /// Its index.
        index: u32,
    },
    /// An analysis came to an end.
    Analysed {
        /// The service.
        service: ServiceName,
        /// The split whose requests were compared.
        window: u32,
        /// What it found.
        verdict: Verdict,
        /// What that rests on, for each metric.
        evidence: Vec<Evidence>,
        /// How many of the requests that were compared the edge had made itself.
        synthetic: u64,
    },
    /// The requests were too few when the time of an analysis was up, so it takes its time again.
    Extended {
        /// The step's index.
        index: u32,
        /// The service.
        service: ServiceName,
        /// How often it did so with this one.
        times: u32,
        /// When its time is up now.
        until: Timestamp,
    },
    /// A metric of outside was measured, or could not be.
    Measured {
        /// The service.
        service: ServiceName,
        /// The split that it is about.
        window: u32,
        /// The metric's name.
        metric: String,
        /// What it came to.
        finding: Finding,
        /// The value, or why there is none, for people.
        text: String,
    },
    /// An attempt of the step that runs came to an end: a question was answered, or not, or a check took too long. A check that
    /// exits is told by its instance.
    Tried {
        /// The step's index.
        index: u32,
        /// Whether it passed.
        passed: bool,
        /// What was answered, or why it failed, for people.
        text: String,
    },
    /// It failed, and stops where it is for somebody to decide; what served before has all requests of what was tried out.
    Halted {
        /// Why, for people.
        reason: String,
        /// When it goes back all the same.
        until: Timestamp,
    },
    /// A step failed or somebody aborted: the way back began. `from` is the target now.
    GoingBack {
        /// Why, for people.
        reason: String,
        /// What will be done.
        steps: Vec<Step>,
    },
    /// What the edge had counted of the environment's requests, soon after a rollout began or ended. It changes nothing: the
    /// difference between the two is the rollout's receipt, and the first of each kind counts.
    Counted {
        /// The rollout; it may have ended since, and another one may run.
        rollout: RolloutId,
        /// Whether it had ended.
        is_end: bool,
        /// The counts, by service and revision; none if they could not be read.
        counts: Option<Vec<RequestCount>>,
        /// What its instances took at the peak, at its end; none where that is not known.
        extra: Option<Extra>,
    },
    /// What was predicted of it by what had been seen before it began. It changes nothing.
    Predicted {
        /// The rollout; it may have ended since.
        rollout: RolloutId,
        /// The prediction, or why there is none, for people.
        forecast: Result<Forecast, String>,
    },
    /// Somebody who was to be told of it could not be. It changes nothing.
    NotTold {
        /// The rollout; it may have ended since.
        rollout: RolloutId,
        /// Who, by name.
        webhook: String,
        /// Of what.
        occasion: Occasion,
        /// Why, for people.
        reason: String,
    },
    /// It ended.
    Finished {
        /// How.
        outcome: Outcome,
        /// Why, for people; empty if all went well.
        reason: String,
    },
}

/// What an instance is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// It fills a slot.
    Slot {
        /// The slot.
        slot: SlotKey,
        /// The revision whose spec it has.
        revision: RevisionNumber,
    },
    /// It boots an image for a check.
    Check(CheckId),
}

/// About one instance, in the order of its life. Being routed is separate: see [`TrafficEvent::Shifted`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstanceEvent {
    /// Intent: it is to be created.
    Requested {
        /// What for.
        purpose: Purpose,
        /// The digest of its spec.
        spec: Digest,
    },
    /// The provider made it and started its command.
    Started {
        /// Its address.
        address: IpAddr,
    },
    /// It proved to be alive.
    BecameHealthy,
    /// It failed its probes.
    BecameUnhealthy {
        /// What the probe saw, for people.
        reason: String,
    },
    /// The provider can't make it: another attempt with the same spec would fail in the same way.
    Refused {
        /// Why, for people.
        reason: String,
    },
    /// Its main process ended.
    Exited {
        /// How.
        status: ExitStatus,
    },
    /// Intent: it stays, out of the routes, until this moment.
    Warmed {
        /// The deadline.
        until: Timestamp,
    },
    /// It is wanted again.
    Recalled,
    /// Intent: it is to go. It is out of the routes in the same batch.
    Retiring {
        /// Why, for people.
        reason: String,
        /// How long its requests in flight may take.
        drain_within: Millis,
    },
    /// The edge acknowledged a table without it; what is in flight may end until this moment.
    Draining {
        /// The deadline.
        deadline: Timestamp,
    },
    /// Intent: nothing is sent to it any more, and it is to be destroyed.
    Destroying {
        /// How long it has after its stop signal.
        grace: Millis,
        /// Whether the drain deadline passed with requests still in flight.
        cut: bool,
    },
    /// The provider has nothing left of it; its address is free.
    Destroyed,
    /// Intent: the provider has it though the log does not know it, or knows it as destroyed: it is to be destroyed.
    Disowned,
}

/// About what the edge serves. The table's version is the position of the last event that changed what it says: a shift,
/// other routes, the beginning or end of a split, a socket that is released, or one of [`Listener::Internal`] that opens or
/// fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrafficEvent {
    /// Intent: these instances of the environment get these weights; zero takes one out.
    Shifted {
        /// The instances.
        weights: Vec<(InstanceId, Weight)>,
    },
    /// Intent: the environment's routes are those of this revision; none for no routes.
    RoutesServed {
        /// The revision.
        revision: Option<RevisionNumber>,
    },
    /// The edge stored and serves the table of this version.
    Acknowledged {
        /// The version.
        version: Position,
    },
    /// Intent: this socket is to be open.
    ListenerRequested {
        /// Which.
        listener: Listener,
    },
    /// The socket is open and the edge has it.
    ListenerOpened {
        /// Which.
        listener: Listener,
    },
    /// The socket can't be opened.
    ListenerFailed {
        /// Which.
        listener: Listener,
        /// Why, for people.
        reason: String,
    },
    /// Intent: no route needs this socket any more.
    ListenerReleased {
        /// Which.
        listener: Listener,
    },
    /// The socket is closed.
    ListenerClosed {
        /// Which.
        listener: Listener,
    },
}

/// About a check on an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckEvent {
    /// Intent: boot the image and see whether it becomes healthy.
    Requested {
        /// The image's manifest.
        image: Digest,
        /// The test's name.
        test: String,
        /// What the instance sees.
        spec: Arc<InstanceSpec>,
        /// The digest of `spec`.
        spec_digest: Digest,
        /// When the wait is over.
        deadline: Timestamp,
    },
    /// The answer.
    Passed,
    /// The answer.
    Failed {
        /// Why, for people.
        reason: String,
    },
    /// A test that boots nothing: question and answer in one.
    Inspected {
        /// The image's manifest.
        image: Digest,
        /// The test's name.
        test: String,
        /// The digest of what was asked.
        question: Digest,
        /// Why it failed, for people; none if it passed.
        failure: Option<String>,
        /// What it was answered by, for people, where the image alone does not decide: a database and its date.
        basis: Option<String>,
    },
}
