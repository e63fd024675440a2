//! What the core is told.

use std::net::IpAddr;
use std::sync::Arc;

use kiln_model::digest::Digest;
use kiln_model::forecast::Forecast;
use kiln_model::gates::{GateVerdict, Gates};
use kiln_model::instance::{ExitStatus, InstanceSpec};
use kiln_model::notify::Occasion;
use kiln_model::outside::Number;
use kiln_model::release::{RequiredCheck, RevisionSpec};
use kiln_model::rollout::{ReplicaOwner, RequestCount};
use kiln_model::route::{Listener, Sampling};
use kiln_model::sample::WindowSamples;
use kiln_model::{
    Actor, EnvKey, EnvName, Fence, InstanceId, Millis, Position, RevisionNumber, RolloutId, ServiceName,
    StackName, Timestamp,
};

/// One thing that the core is told, with all that it may not find out by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// max(last logged, wall clock).
    pub now: Timestamp,
    /// Fresh random bits: new instance ids derive from it.
    pub seed: u64,
    /// Who is behind it.
    pub actor: Actor,
    /// What it is.
    pub kind: InputKind,
}

/// What the core is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputKind {
    /// Somebody asks for something.
    Command(Command),
    /// Something was seen.
    Observation(Observation),
    /// A deadline may have passed.
    Tick,
}

/// What somebody asks for. Each is safe to repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Move an environment to what was sealed. Equal to what runs: no rollout. One that is running is superseded: it goes
    /// straight on to the new target from whatever exists.
    Up {
        /// The environment; created if it is new.
        env: EnvKey,
        /// Where the stack comes from: its folder or Git origin.
        origin: String,
        /// Whether a stack bound to another origin is taken over.
        adopt: bool,
        /// What the caller planned against; refused if the environment has moved on since. None skips the check.
        base: Option<RevisionNumber>,
        /// The digest of the release.
        release: Digest,
        /// The digest of the binding.
        binding: Digest,
        /// What runs.
        spec: Arc<RevisionSpec>,
        /// The checks that the release requires; each must have passed.
        checks: Vec<RequiredCheck>,
        /// How the release comes into the environment.
        admission: Admission,
    },
    /// Go back to a retained revision.
    Rollback {
        /// The environment.
        env: EnvKey,
        /// The revision; none means the one that served before the current one.
        to: Option<RevisionNumber>,
        /// Take only this service back: composes a new revision.
        service: Option<ServiceName>,
        /// Whether services that declare it begin with a canary; otherwise everything moves at once.
        careful: bool,
    },
    /// Change the number of replicas.
    Scale {
        /// The environment.
        env: EnvKey,
        /// The service.
        service: ServiceName,
        /// The number.
        replicas: u32,
        /// Who decides.
        owner: ReplicaOwner,
    },
    /// Stop the rollout that is running and go back. What is queued behind it does not begin.
    Abort {
        /// The environment.
        env: EnvKey,
    },
    /// Do not begin what is queued behind the rollout that is running, which goes on.
    Withdraw {
        /// The environment.
        env: EnvKey,
    },
    /// Let no further step of the rollout that is running begin, and no wait run out, until it is resumed. Instances that
    /// fail are replaced meanwhile, and a rollout that fails goes back.
    Pause {
        /// The environment.
        env: EnvKey,
    },
    /// Let a rollout that is paused go on, or try again what failed and stopped.
    Resume {
        /// The environment.
        env: EnvKey,
    },
    /// Let the step that a rollout waits for be complete, if it waits for time, an analysis or an approval.
    Promote {
        /// The environment.
        env: EnvKey,
        /// The step's index; one that is complete already is none of anybody's business. None means the current one.
        step: Option<u32>,
    },
    /// Let a release in, as far as it depends on who asks.
    Approve {
        /// The environment; it need not exist yet.
        env: EnvKey,
        /// The release; some environment of the stack has it.
        release: Digest,
        /// For how long; [`crate::APPROVAL_MAX`] at most.
        within: Millis,
    },
    /// Take everything of an environment down: traffic first, then instances; then forget it.
    Down {
        /// The environment.
        env: EnvKey,
    },
    /// Boot an image as an unrouted instance and record whether it comes to be healthy.
    Check {
        /// The environment on whose behalf; it need not exist.
        env: EnvKey,
        /// The image's manifest.
        image: Digest,
        /// The test's name.
        test: String,
        /// What the instance sees; its health is what must come to hold.
        spec: Arc<InstanceSpec>,
        /// The digest of `spec`.
        spec_digest: Digest,
        /// How long it may take.
        within: Millis,
    },
    /// Record what was found in an image without booting it.
    Inspected {
        /// The environment on whose behalf; it need not exist.
        env: EnvKey,
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

/// How a release comes into an environment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admission {
    /// The environment of the same stack that it is promoted from; none if it comes from a stack folder. A promotion is
    /// judged by that environment instead of the origin.
    pub promoted_from: Option<EnvName>,
    /// What becomes of a rollout to something else that is running.
    pub if_running: IfRunning,
    /// What the environment is to ask for from now on.
    pub gates: Arc<Gates>,
    /// Why it is to be let in whatever the gates say; none if they count.
    pub break_glass: Option<String>,
    /// How long the environment is to last.
    pub lasting: Lasting,
}

/// What becomes of a rollout that is running when somebody asks for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IfRunning {
    /// It ends, and the new one goes on from whatever exists.
    #[default]
    Supersede,
    /// It goes on, and the new one is refused.
    Refuse,
    /// It goes on, and the new one begins when it has ended.
    Queue,
}

/// How long an environment is to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lasting {
    /// As long as was said last, from now on: for ever if nobody said anything.
    #[default]
    AsBefore,
    /// From now on for this long; then everything of it goes. For an environment that is new, or ends already.
    For(Millis),
    /// Until somebody takes it down.
    ForEver,
}

/// Something that was seen. Delivered at least once and in any order: each is harmless when repeated or late, but for the
/// answers about one socket, which come in the order of the questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// A controller started; its term is one above the log's.
    ControllerStarted,
    /// The wall clock went ahead of the monotonic one by this much since the last input.
    ClockJumped {
        /// How far.
        by: Millis,
    },
    /// An instance runs.
    InstanceStarted {
        /// Which.
        id: InstanceId,
        /// Its address.
        address: IpAddr,
    },
    /// An instance's probes turned. Ignored where the spec has no health check: such an instance is healthy once it has
    /// run for a moment, which the core counts by itself.
    InstanceHealth {
        /// Which.
        id: InstanceId,
        /// To what.
        healthy: bool,
        /// What the probe saw, for people.
        detail: String,
    },
    /// An instance's main process ended.
    InstanceExited {
        /// Which.
        id: InstanceId,
        /// How.
        status: ExitStatus,
    },
    /// The provider can't create it, and another attempt would end the same way.
    InstanceRefused {
        /// Which.
        id: InstanceId,
        /// Why, for people.
        reason: String,
    },
    /// The provider has nothing left of it, or never had.
    InstanceDestroyed {
        /// Which.
        id: InstanceId,
    },
    /// All that the provider has.
    Listed {
        /// The last position that was durable when the list was asked for: what started later is not judged by it.
        as_of: Position,
        /// The instances.
        instances: Vec<InstanceSeen>,
    },
    /// The edge stored and serves this table.
    TableAcknowledged {
        /// The table's fence.
        fence: Fence,
    },
    /// What the edge counted until now of the requests of a service that are split.
    Sampled {
        /// The environment.
        env: EnvKey,
        /// The service.
        service: ServiceName,
        /// The window that is counted.
        sampling: Sampling,
        /// The counts since its beginning.
        samples: Arc<WindowSamples>,
    },
    /// Somebody outside was asked for a metric of an analysis.
    Measured {
        /// The environment.
        env: EnvKey,
        /// The service.
        service: ServiceName,
        /// The split that it is about.
        sampling: Sampling,
        /// The metric's name.
        metric: String,
        /// How many answers were known when it was asked: one that comes later than the next one counts for nothing.
        known: u32,
        /// The value, or why there is none, for people.
        value: Result<Number, String>,
    },
    /// Somebody was asked what a rollout waits for.
    Asked {
        /// The environment.
        env: EnvKey,
        /// Its rollout.
        rollout: RolloutId,
        /// The step's index.
        index: u32,
        /// How many attempts had failed when it was asked: an answer to an earlier one counts for nothing.
        known: u32,
        /// What was answered, or why it is not what was asked for, for people.
        answer: Result<String, String>,
    },
    /// The edge has no request in flight to it and no pooled connection left, and does not route to it.
    BackendIdle {
        /// Which.
        id: InstanceId,
        /// The fence of the action that asked: an answer to an earlier question says nothing about a later one.
        fence: Fence,
    },
    /// What the edge has counted of an environment's requests: asked for by nobody, and nothing follows from it but an entry.
    RequestsCounted {
        /// The environment; it may be gone.
        env: EnvKey,
        /// The rollout that began or ended.
        rollout: RolloutId,
        /// Whether it ended.
        is_end: bool,
        /// The counts; none if they can't be read.
        counts: Option<Vec<RequestCount>>,
    },
    /// What was to be expected of a rollout when it began: nothing follows from it but an entry.
    RolloutPredicted {
        /// The environment; it may be gone.
        env: EnvKey,
        /// The rollout.
        rollout: RolloutId,
        /// What was predicted, or why nothing was, for people.
        forecast: Result<Forecast, String>,
    },
    /// Somebody who was to be told of a rollout could not be, and nobody tries any more: nothing follows from it but an entry.
    NoticeGivenUp {
        /// The environment; it may be gone.
        env: EnvKey,
        /// The rollout.
        rollout: RolloutId,
        /// Who, by name.
        webhook: String,
        /// Of what.
        occasion: Occasion,
        /// Why, for people.
        reason: String,
    },
    /// A socket is open and the edge has it.
    ListenerOpened {
        /// Which.
        listener: Listener,
        /// The fence of the action that asked, as for every answer about a socket: one to an earlier question says nothing.
        fence: Fence,
    },
    /// A socket can't be opened.
    ListenerFailed {
        /// Which.
        listener: Listener,
        /// The fence of the action that asked.
        fence: Fence,
        /// Why, for people.
        reason: String,
    },
    /// A socket is closed, or never was open.
    ListenerClosed {
        /// Which.
        listener: Listener,
        /// The fence of the action that asked.
        fence: Fence,
    },
}

/// One instance in a complete list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceSeen {
    /// Which.
    pub id: InstanceId,
    /// Its address, once started.
    pub address: Option<IpAddr>,
    /// What its probes say; none before the first verdict.
    pub healthy: Option<bool>,
    /// How it ended, if it did.
    pub exited: Option<ExitStatus>,
}

/// Why a command is refused; nothing changed. A value, not an error of Kiln's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The environment does not exist.
    UnknownEnvironment(EnvKey),
    /// The service does not exist in the current revision.
    UnknownService(EnvKey, ServiceName),
    /// The revision does not exist or is no longer retained.
    UnknownRevision(EnvKey, RevisionNumber),
    /// There is no revision to go back to.
    NothingToRollBackTo(EnvKey),
    /// No rollout is running.
    NoRollout(EnvKey),
    /// Another rollout is running, and whoever asks would not end it.
    RolloutRuns {
        /// The environment.
        env: EnvKey,
        /// The rollout.
        rollout: RolloutId,
        /// Where it goes now; none takes everything down.
        target: Option<RevisionNumber>,
    },
    /// The rollout failed and stopped: it can only be tried again, or go back.
    Halted(EnvKey),
    /// No rollout is queued.
    NothingQueued(EnvKey),
    /// The rollout goes back already: a way back is not held up.
    GoesBack(EnvKey),
    /// The rollout waits for nothing that somebody could decide.
    NothingToPromote(EnvKey),
    /// Only others may approve.
    NotAnApprover {
        /// Who.
        by: Vec<String>,
    },
    /// The stack belongs to another origin.
    OtherOrigin {
        /// The stack.
        stack: StackName,
        /// Whose it is.
        origin: String,
    },
    /// The environment moved on since the plan was made.
    StalePlan {
        /// What the plan was made against.
        base: RevisionNumber,
        /// What is there now.
        current: Option<RevisionNumber>,
    },
    /// Rolling one service back would leave a route without the port that it leads to.
    RouteUnserved {
        /// The route, as text.
        route: String,
        /// The service.
        service: ServiceName,
    },
    /// A route or an instance needs something that the revision does not have.
    InvalidRevision {
        /// What, for people.
        reason: String,
    },
    /// Another stack's route answers for the same listener, host and path.
    RouteTaken {
        /// The route, as text.
        route: String,
        /// Whose it is.
        owner: EnvKey,
    },
    /// This Kiln has as many environments as it can address.
    TooManyEnvironments,
    /// A required check has not passed.
    CheckMissing {
        /// The image's manifest.
        image: Digest,
        /// The test's name.
        test: String,
    },
    /// A promotion of what the other environment does not have, or never was at.
    NotReachedThere {
        /// The environment that it was to come from.
        from: EnvKey,
        /// The release.
        release: Digest,
    },
    /// The environment does not let the release in now.
    GatesShut {
        /// The environment.
        env: EnvKey,
        /// What was found at each of its gates.
        verdicts: Vec<GateVerdict>,
    },
    /// Only others may let a release in.
    MayNotApprove {
        /// The environment.
        env: EnvKey,
        /// Who.
        by: Vec<String>,
    },
    /// The environment was made to last: it is not given an end by the way.
    LastsForEver(EnvKey),
    /// No environment of the stack has such a release.
    UnknownRelease(StackName, Digest),
    /// The number is beyond what one service may have.
    TooManyReplicas {
        /// The limit.
        max: u32,
    },
}
