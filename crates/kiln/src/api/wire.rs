//! What travels over the socket: versioned JSON, changed only by adding.
//!
//! A reader ignores fields that it does not know and fills in the ones that it misses, so a command line and a controller
//! one version apart understand each other. The golden files in `api/golden/` show every shape.

use kiln_model::gates::Gates;
use kiln_store::Encoded;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use super::canaries::{Canary, Copies, Measurement, Outlook, Outside, Side};
pub use super::foreseen::{AssumedDelay, Predict, Predicted, PredictedStep, Prediction, ServiceRisk};
pub use super::gates::{Approve, Gate, GatesFound};
pub use super::running::{Halted, IfRunning, Queued};
pub use super::sealed::{Sealed, SealedRoute, SealedService, Spec};

/// The version of these shapes. It grows when a meaning changes or a field goes; a new field leaves it as it is.
pub const VERSION: u32 = 1;

/// The header that carries [`VERSION`] in both directions.
pub const VERSION_HEADER: &str = "kiln-api";

/// Whether a peer that speaks `version` is understood: one version back and forth, so that the binary can be replaced
/// while its processes still run.
pub const fn is_compatible(version: u32) -> bool {
    version.abs_diff(VERSION) <= 1
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Health {
    /// The version of Kiln, such as `0.1.0`.
    pub version: String,
    /// The version of the wire.
    pub api: u32,
    /// The controller's process.
    pub pid: u32,
    /// The controller's term.
    pub term: u64,
    /// The head of the log.
    pub position: u64,
    /// The controller's time, in milliseconds since the epoch.
    pub now_ms: u64,
    /// Why nothing new can be recorded at the moment, for people; empty if it can.
    #[serde(default)]
    pub trouble: String,
    /// How much room the store takes, where there is a disk budget and since it was looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
    /// What is wrong with the packs, and what to do, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<String>,
}

/// How much room the store takes of how much.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Disk {
    /// How much it may take.
    pub budget_bytes: u64,
    /// How much it takes, or would.
    pub used_bytes: u64,
    /// What holds it, the largest first, if it is too much.
    pub held: Vec<Held>,
}

impl Disk {
    /// Whether more is taken than there may be.
    pub const fn is_short(&self) -> bool {
        self.used_bytes > self.budget_bytes
    }
}

/// What takes room and stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Held {
    /// What it is, for people.
    pub what: String,
    /// The room that it takes.
    pub bytes: u64,
}

/// Every environment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Environments {
    /// In the order of their names.
    pub environments: Vec<Environment>,
    /// How many tests of images are not over, the removal of their instances included: they belong to no environment.
    #[serde(default)]
    pub checks: usize,
}

/// One environment as it is at one position of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// The stack.
    pub stack: String,
    /// The environment's name.
    pub env: String,
    /// The folder or Git origin that the stack belongs to.
    pub origin: Option<String>,
    /// The revision that it is at, or moves away from.
    pub current: Option<u64>,
    /// The revision that a rollback without a number goes to.
    pub previous: Option<u64>,
    /// The digest of the current release.
    pub release: Option<String>,
    /// The rollout that runs, or the last one.
    pub rollout: Option<Rollout>,
    /// When it ends by itself; none if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_ms: Option<u64>,
    /// What begins once the rollout that runs has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued: Option<Queued>,
    /// What it waits for, for people; empty at rest.
    pub waits_for: Vec<String>,
    /// The services of the current revision, and those that still have instances.
    pub services: Vec<Service>,
    /// The ways in that are served.
    pub routes: Vec<Route>,
    /// All that exists, whatever its revision.
    pub instances: Vec<Instance>,
    /// The log position that this shows.
    pub position: u64,
    /// The controller's time.
    pub now_ms: u64,
}

/// One service of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// `service`, `worker` or `job`.
    pub kind: String,
    /// `blue_green`, `rolling` or `stop_then_start`.
    pub strategy: String,
    /// How many instances are wanted.
    pub replicas: u32,
    /// Who decided that: `declared`, `hand` or `autoscaler`.
    pub replicas_owner: String,
    /// How many of the current spec are healthy.
    pub healthy: u32,
    /// How many requests are sent to, whatever their spec.
    pub serving: u32,
    /// The manifest of the image.
    pub image: String,
    /// What went wrong last, for people; empty if nothing did.
    pub trouble: String,
}

/// A way in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// Where to point a browser on this machine.
    pub url: String,
    /// Where the edge listens.
    pub listen: String,
    /// The host that it answers for.
    pub host: Option<String>,
    /// The path prefix.
    pub path: String,
    /// The service behind it.
    pub service: String,
    /// Its port.
    pub port: String,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// The service; empty for a check's.
    pub service: String,
    /// Its place among the replicas.
    pub ordinal: u32,
    /// The revision whose spec it has.
    pub revision: u64,
    /// `starting`, `healthy`, `unhealthy`, `exited`, `refused`, `warm`, `retiring`, `draining` or `stopping`.
    pub state: String,
    /// When it was asked for.
    pub since_ms: u64,
    /// Its address, once started.
    pub address: Option<String>,
    /// Its share of the requests in per-mille, relative to its peers; none if it is not routed.
    pub weight: Option<u16>,
    /// Until when it is kept warm.
    pub warm_until_ms: Option<u64>,
    /// What a probe or the kernel said last, for people.
    pub detail: String,
}

/// A rollout.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Rollout {
    /// The log position at which it started.
    pub id: u64,
    /// The revision that served before.
    pub from: Option<u64>,
    /// The target; none takes everything down.
    pub to: Option<u64>,
    /// `up`, `rollback` or `down`.
    pub cause: String,
    /// Who asked for it.
    pub actor: String,
    /// When it started.
    pub started_ms: u64,
    /// Why it goes back, if it does.
    pub going_back: Option<String>,
    /// What is done, in order; since a rollout goes back, the way back.
    pub steps: Vec<Step>,
    /// What went wrong last, for people; empty if nothing did.
    pub trouble: String,
    /// What is seen of its canaries, while it runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub canaries: Vec<Canary>,
    /// Who paused it, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
    /// That it failed and waits for somebody to decide, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub halted: Option<Halted>,
    /// How it ended, if it did.
    pub ended: Option<Ended>,
}

/// A pause: no further step begins, and no wait for one is over.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Paused {
    /// Who wants it.
    pub by: String,
    /// Since when.
    pub since_ms: u64,
}

/// One step of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Step {
    /// What it does, for people.
    pub text: String,
    /// `waiting`, `running` or `done`; in a history also `stopped`, where the rollout turned round or ended in it.
    pub state: String,
    /// When it started, if it did.
    pub started_ms: Option<u64>,
    /// When it was over, if it is; only a history knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// When the wait for it is over, if it ends.
    pub deadline_ms: Option<u64>,
    /// What is to be said about it, for people: who let it be complete, or which attempt is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// How long it was to be expected to take by the rollouts before; only a history knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_ms: Option<u64>,
}

/// How a rollout ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Ended {
    /// When.
    pub at_ms: u64,
    /// `completed`, `went_back`, `superseded` or `stuck`.
    pub outcome: String,
    /// Why, for people; empty if all went well.
    pub reason: String,
}

/// The rollouts of an environment, as the log tells them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Rollouts {
    /// The newest first, without their steps.
    pub rollouts: Vec<RolloutRecord>,
}

/// A rollout as the log tells it, whether it runs or is long over.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RolloutRecord {
    /// What it was. Its steps are those that were planned at its start, with what became of each.
    pub rollout: Rollout,
    /// The only service that it took back, of a rollback of one service.
    pub service: Option<String>,
    /// The way back, if it turned round.
    pub way_back: Option<WayBack>,
    /// When it was paused, by whom, in order; without the pause that it is in.
    pub pauses: Vec<PauseRecord>,
    /// What it came to: none where nothing was counted, as for rollouts of Kilns before.
    pub receipt: Option<Receipt>,
    /// What was expected of it when it began; how long each step was expected to take is said with the steps. None where
    /// nothing was stored, as for rollouts of Kilns before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted: Option<Predicted>,
    /// What the analyses of its canaries found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub analyses: Vec<Analysis>,
    /// What others measured for them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub measurements: Vec<Measurement>,
}

/// What a rollout came to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Receipt {
    /// From when on requests were counted; none if they could not be.
    pub from_ms: Option<u64>,
    /// Until when; none as long as it runs, or if they could not be.
    pub until_ms: Option<u64>,
    /// What became of the requests meanwhile, by service and revision; none unless it is known from when until when.
    pub requests: Option<Vec<ServedRequests>>,
    /// How long the longest step took that waited for requests in flight to end.
    pub longest_drain_ms: Option<u64>,
    /// How much more memory instances took at the peak than at the start, by their limits; none where it was not counted.
    pub memory_extra_bytes: Option<u64>,
    /// How many more instances without such a limit there were at the peak than at the start.
    pub unlimited_extra: Option<u32>,
}

/// What became of the requests to one revision of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ServedRequests {
    /// The service.
    pub service: String,
    /// The revision; 0 where no instance could be chosen.
    pub revision: u64,
    /// Ended with the whole answer of an instance.
    pub served: u64,
    /// Cut, or answered by the edge with an error of its own.
    pub lost: u64,
    /// Further attempts that were made.
    pub retried: u64,
}

/// A pause that is over.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PauseRecord {
    /// Who wanted it.
    pub by: String,
    /// When it began.
    pub since_ms: u64,
    /// When the rollout went on, turned round or ended.
    pub until_ms: u64,
}

/// What the analysis of a canary found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Analysis {
    /// When.
    pub at_ms: u64,
    /// The service.
    pub service: String,
    /// Which split of its requests, from 0.
    pub window: u32,
    /// `pass`, `fail` or `inconclusive`.
    pub verdict: String,
    /// What that rests on.
    pub metrics: Vec<MetricEvidence>,
    /// How many of the requests that were compared the edge had made itself.
    #[serde(skip_serializing_if = "super::canaries::is_none")]
    pub synthetic: u64,
}

/// What the verdict about one metric rests on. Rates are in millionths, latencies in microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MetricEvidence {
    /// As in `error rate` or `p99`.
    pub metric: String,
    /// `pass`, `fail` or `inconclusive`.
    pub verdict: String,
    /// How much worse was accepted, for people.
    pub worse_by: String,
    /// The baseline's.
    pub baseline: Estimate,
    /// The canary's.
    pub canary: Estimate,
}

/// An estimate, and an interval that holds at every moment at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Estimate {
    /// How many requests it is made of.
    pub samples: u64,
    /// The most likely value.
    pub value: u64,
    /// The interval's lower end.
    pub low: u64,
    /// Its upper end.
    pub high: u64,
}

/// The way back of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WayBack {
    /// When the rollout turned round.
    pub at_ms: u64,
    /// Who turned it round: the controller, or whoever aborted it.
    pub actor: String,
    /// What was done for it.
    pub steps: Vec<Step>,
}

/// One line of the stream of a rollout's progress: the whole picture, so that a reader may miss any.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// The log position that this shows.
    pub position: u64,
    /// The controller's time.
    pub now_ms: u64,
    /// The rollout.
    pub rollout: Rollout,
    /// What exists, by service.
    pub services: Vec<ServiceProgress>,
    /// The ways in of the target.
    pub routes: Vec<Route>,
}

/// How far one service is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceProgress {
    /// The service.
    pub service: String,
    /// How many the target wants.
    pub wanted: u32,
    /// Those with the target's spec.
    pub new: Counts,
    /// All others.
    pub old: Counts,
    /// What went wrong last, for people; empty if nothing did.
    pub trouble: String,
}

/// How many instances, in which condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// All that are not on their way out.
    pub instances: u32,
    /// Those that are healthy.
    pub healthy: u32,
    /// Those that requests are sent to.
    pub routed: u32,
    /// Those that are kept for a quick way back.
    pub warm: u32,
    /// Those that drain or are being destroyed.
    pub leaving: u32,
}

/// The retained revisions of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Revisions {
    /// The newest first.
    pub revisions: Vec<Revision>,
}

/// A revision.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Revision {
    /// Its number.
    pub number: u64,
    /// The digest of its release.
    pub release: String,
    /// The digest of its binding.
    pub binding: String,
    /// Whether it is what the environment is at.
    pub current: bool,
    /// Whether an instance of it is kept warm: going back to it takes one table swap.
    pub warm: bool,
    /// Whether a rollout reached it.
    pub completed: bool,
    /// How it was made of two others, if one service was rolled back: `web from #41`.
    pub composed: Option<String>,
    /// How many services it has.
    pub services: u32,
}

/// A revision with all that runs in it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RevisionDetail {
    /// The revision.
    pub revision: Revision,
    /// What runs.
    pub sealed: Sealed,
    /// What the log knows that makes going back to it unsafe.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hazards: Vec<Hazard>,
}

/// Why going back to a revision may not lead to what it was.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hazard {
    /// `volume_migrated`, `volume_shared`, `route_taken`, `image_gone`, `image_damaged` or `secret_gone`.
    pub code: String,
    /// What it is, for people.
    pub text: String,
    /// The service that is endangered; none if it is the whole revision.
    pub service: Option<String>,
}

/// Asks to move an environment to what was sealed. The store holds the release and the binding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Up {
    /// Where the stack comes from.
    pub origin: String,
    /// Whether a stack of another origin is taken over.
    #[serde(default)]
    pub adopt: bool,
    /// What it was planned against; none skips the check.
    #[serde(default)]
    pub base: Option<u64>,
    /// The digest of the release.
    pub release: String,
    /// The digest of the binding.
    pub binding: String,
    /// What runs.
    pub sealed: Sealed,
    /// The environment that the release is promoted from; none if it comes from a stack folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted_from: Option<String>,
    /// What becomes of a rollout to something else that is running.
    #[serde(default, skip_serializing_if = "IfRunning::is_default")]
    pub if_running: IfRunning,
    /// What the environment is to ask for from now on before it lets a release in; none for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gates: Option<Encoded<Gates>>,
    /// Why it is to be let in whatever the gates say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub break_glass: Option<String>,
    /// For how long from now on the environment is to last, in milliseconds; 0 for ever, none as long as it was said before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

/// Asks to go back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Rollback {
    /// The revision; none means the one before.
    pub to: Option<u64>,
    /// Only this service.
    pub service: Option<String>,
    /// Whether services that declare it begin with a canary.
    #[serde(default)]
    pub careful: bool,
}

/// Asks that a step which waits for time, an analysis or an approval counts as complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promote {
    /// Its index, from 0; none means the current one.
    pub step: Option<u32>,
}

/// Asks for a number of replicas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    /// The service.
    pub service: String,
    /// The number.
    pub replicas: u32,
}

/// Asks to boot an image and see whether it comes to answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The image's manifest.
    pub image: String,
    /// The test's name.
    pub test: String,
    /// What the instance sees; its health is what must come to hold.
    pub spec: Spec,
    /// The digest of that.
    pub spec_digest: String,
    /// How long it may take.
    pub within_ms: u64,
}

/// Tells what was found in an image without booting it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspected {
    /// The image's manifest.
    pub image: String,
    /// The test's name.
    pub test: String,
    /// The digest of what was asked.
    pub question: String,
    /// Why it failed, for people; none if it passed.
    pub failure: Option<String>,
    /// What it was answered by, for people, where the image alone does not decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<String>,
}

/// Asks to collect what nothing needs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Collect {
    /// Whether to look only.
    pub dry_run: bool,
    /// Whether what is kept and not used is packed, too.
    pub pack: bool,
}

/// What a collection removed, or with `dry_run` would remove, and why the rest stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Collection {
    /// Whether it was only looked.
    pub dry_run: bool,
    /// The images that go.
    pub gone: Vec<CollectedImage>,
    /// The images that stay.
    pub kept: Vec<CollectedImage>,
    /// How many trees go: those of images, between the steps of bakes, and variants with more mount points.
    pub trees: u64,
    /// How many files of images go.
    pub files: u64,
    /// How many blobs go: manifests, layers, releases, captured folders.
    pub blobs: u64,
    /// How many secret values go.
    pub secrets: u64,
    /// How many files and layers that were packed go.
    pub packed: u64,
    /// The caches of RUN steps that go, since they are beyond their bound.
    pub caches: Vec<CollectedCache>,
    /// How many packages and other files that bakes fetched go, since they do not fit the disk budget.
    pub fetched: u64,
    /// The bytes of all but the secrets. A look does not know how much room packs will make.
    pub bytes: u64,
    /// What packing came to, where it was asked for or the disk budget needs it.
    pub packing: Option<Packing>,
    /// How much room is taken afterwards, where there is a disk budget. A look does not know how much packing makes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
}

/// A folder that RUN steps keep between bakes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CollectedCache {
    /// What the Dockerfile calls it.
    pub id: String,
    /// The room that it takes.
    pub size_bytes: u64,
}

/// What packing came to, or would begin with.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Packing {
    /// How many files and layers are packed alone from now on.
    pub files: u64,
    /// How many bytes they took.
    pub bytes: u64,
    /// How many bytes all packs take.
    pub packs_bytes: u64,
}

/// An image that a collection looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CollectedImage {
    /// Its manifest.
    pub digest: String,
    /// What it is called.
    pub names: Vec<String>,
    /// How large it is; other images may share most of it.
    pub size_bytes: u64,
    /// Why it stays, for people, or why it goes where the disk budget is why.
    pub reasons: Vec<String>,
    /// Whether it must be unpacked before it is started, which happens by itself.
    pub packed: bool,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Accepted {
    /// The head of the log after it.
    pub position: u64,
    /// The rollout that runs because of it; none if nothing had to move.
    pub rollout: Option<u64>,
    /// The revision that the environment is at or moves to.
    pub revision: Option<u64>,
    /// The rollout that has to end before it moves there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<u64>,
}

/// What is recorded about a test of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Verdict {
    /// `missing`, `running`, `passed` or `failed`.
    pub state: String,
    /// Why it failed, for people.
    pub reason: String,
    /// When it was answered.
    pub at_ms: Option<u64>,
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its place.
    pub position: u64,
    /// When it was decided.
    pub at_ms: u64,
    /// Who asked for it.
    pub actor: String,
    /// The stack and environment that it is about, as `shop/dev`.
    #[serde(default)]
    pub env: Option<String>,
    /// What kind it is, as `rollout.started`.
    pub kind: String,
    /// What happened, for people.
    pub text: String,
    /// The entry as the log holds it.
    #[serde(default)]
    pub data: Value,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `refused`, `denied`, `invalid`, `version`, `unavailable` or `internal`.
    pub kind: String,
    /// What exactly, for programs, as `stale_plan`.
    pub code: String,
    /// For people.
    pub message: String,
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemBody {
    /// The problem.
    pub problem: Problem,
}
