//! Every limit of the core, with its reason.

use kiln_model::Millis;

/// Each environment owns an address on the instances' bridge, whose last byte is its index.
pub const ENVIRONMENTS_MAX: u8 = 250;

/// A bridge ends at 1,023 ports; a service that needs more on one machine is several services.
pub const REPLICAS_MAX: u32 = 1000;

/// How many complete revisions can be rolled back to: two weeks of a deploy per working day.
pub const RETAINED_MAX: usize = 10;

/// A slot keeps one instance warm: several generations would multiply the memory of a quick series of deploys.
pub(crate) const WARM_PER_SLOT_MAX: usize = 1;

/// Instances of the target that end before a rollout gives up. One may be bad luck, three are a program that can't run.
pub(crate) const ROLLOUT_EXITS_MAX: u32 = 3;

/// How long an instance without a health check must run to count as healthy. Nothing but time can be observed of it;
/// most programs that can't start are gone within milliseconds.
pub(crate) const SETTLE: Millis = Millis(1000);

/// The second failure in a row waits this long, each further one twice as long; the first one does not wait.
pub(crate) const BACKOFF_FIRST: Millis = Millis(1000);

/// No wait is longer: whoever repairs what an instance needs should not have to wait for minutes.
pub(crate) const BACKOFF_MAX: Millis = Millis::from_secs(60);

/// An instance that was healthy this long ends the row of failures.
pub(crate) const BACKOFF_FORGET: Millis = Millis::from_secs(60);

/// How long opening the sockets may take: it is one system call each, but the host may just be starting.
pub(crate) const LISTENERS_WITHIN: Millis = Millis::from_secs(30);

/// How long a socket that can't be opened rests before it is tried again.
pub(crate) const LISTENER_RETRY: Millis = Millis::from_secs(5);

/// How long the edge may take to store and serve a table. It takes milliseconds; an edge that was killed is back within
/// a second.
pub(crate) const SHIFT_WITHIN: Millis = Millis::from_secs(60);

/// How much longer than an attempt may take its answer is waited for: a controller that was killed in between is back within
/// seconds, and asks again.
pub(crate) const ASKED_WITHIN: Millis = Millis::from_secs(30);

/// How long a switch that somebody is to let waits for them: somebody is there on the next day.
pub(crate) const PROMOTE_WITHIN: Millis = Millis::from_secs(24 * 3600);

/// How long a rollout that failed and stopped waits for somebody: somebody is there on the next day.
pub(crate) const HALTED_WITHIN: Millis = Millis::from_secs(24 * 3600);

/// How much longer than drain and grace together destroying may take before a rollout ends without waiting for it.
pub(crate) const DESTROY_WITHIN: Millis = Millis::from_secs(30);

/// Several times the instances of the largest environment that was tried, old and new ones side by side; what is forgotten is told
/// again with the next complete list.
pub(crate) const OBSERVED_MAX: usize = 1_000_000;

/// Services whose canaries are compared at a time; of one that is forgotten the edge tells again.
pub(crate) const SAMPLED_MAX: usize = 1000;

/// Reasons are text from outside, kept in the log for ever.
pub(crate) const REASON_CHARS_MAX: usize = 400;

/// A decision that changes anything is reached in a few passes; a rollout of one batch per instance takes a handful of
/// passes for each. More than this is a bug that must not become an endless loop.
pub(crate) const PASSES_MAX: usize = 100_000;

/// Nobody remembers what an approval that is older was for.
pub const APPROVAL_MAX: Millis = Millis::from_secs(30 * 24 * 3600);

/// Approvals of an environment that are kept: more than are given within the time for which one holds.
pub(crate) const APPROVALS_MAX: usize = 100;

/// An environment that could not be taken down when its time was over is tried again so much later.
pub(crate) const EXPIRE_RETRY: Millis = Millis::from_secs(60);

/// Why a rollout goes back that somebody aborted: the entry's actor.
pub const ABORTED: &str = "it was aborted";
