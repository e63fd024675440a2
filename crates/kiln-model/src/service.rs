//! A workload, resolved for one environment.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ask::{Again, Ask};
use crate::digest::Digest;
use crate::instance::InstanceSpec;
use crate::interlude::Interludes;
use crate::name::{PortName, ServiceName};
use crate::outside::OutsideMetric;
use crate::route::{Aim, Mirror, Sticky, Synthetic};
use crate::units::{Millis, Weight};

/// What kind of workload a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceKind {
    /// Routed; replaced by its strategy.
    Service,
    /// Not routed; stopped, then started, unless it declares a strategy.
    Worker,
    /// Runs to its end once per revision that changes it, before anything is created.
    Job,
}

/// A service of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Its kind.
    pub kind: ServiceKind,
    /// What each instance sees.
    pub spec: Arc<InstanceSpec>,
    /// The digest of `spec`: the only thing that decides whether instances are replaced.
    pub spec_digest: Digest,
    /// Declared replicas; the log may hold another owner's number.
    pub replicas: u32,
    /// How it moves from one revision to another.
    pub strategy: Strategy,
    /// The services that it calls, created before it.
    pub after: BTreeSet<ServiceName>,
    /// The bounds of a rollout.
    pub bounds: RolloutBounds,
    /// What its rollout does between its moves.
    pub interludes: Arc<Interludes>,
}

impl Service {
    /// Returns everything that its rollouts do between their moves.
    pub fn gates(&self) -> impl Iterator<Item = &Gate> {
        let stages = match &self.strategy {
            Strategy::Canary(canary) => canary.stages.as_slice(),
            Strategy::BlueGreen | Strategy::Rolling { .. } | Strategy::StopThenStart => &[],
        };
        self.interludes.gates().chain(stages.iter().flat_map(|stage| &stage.gates))
    }
}

/// How a service moves from one revision to another; each expands to the one step list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Strategy {
    /// All new instances beside the old ones, then one switch.
    BlueGreen,
    /// A few at a time.
    Rolling {
        /// How many more than the replicas may exist at once; at least 1 when `max_unavailable` is 0.
        max_surge: u32,
        /// How many fewer than the replicas may be healthy and routed.
        max_unavailable: u32,
        /// The groups that move one after the other; none moves all without a stop between.
        waves: Option<Arc<Waves>>,
    },
    /// The old ones are gone before the new ones start: for what must not run twice.
    StopThenStart,
    /// A small share of the requests first, then more.
    Canary(Arc<Canary>),
}

impl Strategy {
    /// Whether old instances go before the new ones that take their places are created.
    pub const fn is_old_first(&self) -> bool {
        match self {
            Self::StopThenStart => true,
            Self::Rolling { max_surge, max_unavailable, .. } => *max_surge == 0 && *max_unavailable > 0,
            Self::BlueGreen | Self::Canary(_) => false,
        }
    }
}

/// Groups of slots that move one after the other, each once the ones before have proven themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waves {
    /// How many have moved after each wave; after the last one all the others follow.
    pub sizes: Vec<WaveSize>,
    /// For how long nothing of what has moved may fail before the next wave begins.
    pub soak: Millis,
}

/// How many slots have moved after a wave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaveSize {
    /// So many.
    Count(u32),
    /// This share of those that are to move, rounded up.
    Share(Weight),
}

impl WaveSize {
    /// Returns how many that is of `all`, and all at most.
    pub fn of(self, all: u32) -> u32 {
        match self {
            Self::Count(count) => count.min(all),
            Self::Share(share) => {
                let part = (u64::from(all) * u64::from(share.per_mille())).div_ceil(1000);
                u32::try_from(part).unwrap_or(all)
            }
        }
    }
}

/// How a canary goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary {
    /// Its stages, each with a greater share than the one before and less than all; after the last one everything moves. The
    /// first one may have no share: then only requests that its audience aims at it come, and copies.
    pub stages: Vec<Stage>,
    /// What the new instances are compared by with a baseline; none compares nothing.
    pub analysis: Option<Analysis>,
    /// Which requests it gets, beside its share of all.
    pub audience: Audience,
    /// How many more than the replicas may exist at once; none replaces all that are left at once after the last stage.
    pub max_surge: Option<u32>,
}

impl Canary {
    /// How many instances come on top of so many replicas while this share is held: the new ones, and as many of a baseline.
    pub fn extra_at(&self, weight: Weight, replicas: u32) -> u32 {
        needed(replicas, weight).saturating_mul(if self.compares_at(weight) { 2 } else { 1 })
    }

    /// Whether it is compared with a baseline: what only others measure needs none.
    pub fn is_compared(&self) -> bool {
        self.analysis.as_ref().is_some_and(|analysis| !analysis.metrics.is_empty())
    }

    /// Whether it is compared with a baseline at this share. Without one only testers come, who are no random sample.
    pub fn compares_at(&self, weight: Weight) -> bool {
        weight > Weight::ZERO && self.is_compared()
    }

    /// How many of its shares are compared: they have the chance of a false alarm together.
    pub fn compared_shares(&self) -> usize {
        self.stages.iter().filter(|stage| stage.weight > Weight::ZERO).count()
    }
}

/// How many instances serve a share as well as all replicas serve all: at least one.
pub fn needed(replicas: u32, weight: Weight) -> u32 {
    let share = u64::from(replicas) * u64::from(weight.per_mille());
    u32::try_from(share.div_ceil(1000)).unwrap_or(u32::MAX).max(1)
}

/// Which requests a canary gets, beside its share of all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Audience {
    /// What stands for a user, who then stays with one version while the canary is compared.
    pub sticky: Option<Sticky>,
    /// Requests that go to a version whatever the shares are.
    pub aim: Vec<Aim>,
    /// Copies of safe requests, whose answers nobody gets.
    pub mirror: Option<Mirror>,
}

/// One stage of a canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The share of the requests that go to new instances.
    pub weight: Weight,
    /// What must hold, in this order, before the next stage.
    pub gates: Vec<Gate>,
}

/// What must hold before a rollout goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// This much time passed.
    Hold(Millis),
    /// The analysis passed, within this time.
    Analyse(Millis),
    /// Somebody approved.
    Approve {
        /// Who may; nobody named means anybody.
        by: Vec<String>,
        /// How long before the rollout goes back.
        within: Millis,
    },
    /// A job ran to its end, successfully.
    Run {
        /// The job.
        job: ServiceName,
        /// How long before the rollout goes back.
        within: Millis,
    },
    /// The same of a job that only looks: it runs on a careful way back, too.
    Check {
        /// The job.
        job: ServiceName,
        /// How long one attempt may take.
        within: Millis,
        /// How often it is tried.
        again: Again,
    },
    /// Somebody asked over HTTP answered as they should.
    Ask(Arc<Ask>),
    /// This share of the safe requests is copied to the new instances, which get no others. For [`Strategy::BlueGreen`] and
    /// before the first stage of a canary.
    Mirror {
        /// The share; nothing ends it.
        share: Weight,
        /// For how long; none until it is ended, or until the new instances get requests.
        span: Option<Millis>,
    },
}

/// What a canary is compared by with a baseline: fresh instances of the revision that served before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Analysis {
    /// What is compared; may be empty if others measure.
    pub metrics: Vec<Metric>,
    /// What others measure.
    pub outside: Vec<OutsideMetric>,
    /// The chance, in millionths, that any of all looks at a canary that is no worse says that it is.
    pub alpha: u32,
    /// What happens when time is up, for the last time, and the requests were too few to tell.
    pub inconclusive: Inconclusive,
    /// How often it takes its time again before that.
    pub extensions: u32,
    /// What Kiln asks itself where too few others do, while the analysis is waited for.
    pub synthetic: Option<Arc<Synthetic>>,
    /// Whether verdicts are only written down.
    pub dry_run: bool,
}

/// One thing that is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// Of what.
    pub kind: MetricKind,
    /// How much worse than the baseline is still accepted.
    pub worse_by: Margin,
}

/// Of what a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MetricKind {
    /// The share of requests that ended in a server error or without an answer.
    ErrorRate,
    /// How many answers said that the request was wrong, a status from 400 to 499, for each request.
    ClientErrors,
    /// A quantile of the time until the answer begins.
    Latency {
        /// Which, in millionths: 990,000 is the 99th percentile.
        quantile: u32,
    },
}

/// How much worse is still accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Margin {
    /// By this much: in millionths for a rate, in microseconds for a latency.
    Absolute(u64),
    /// By this share of the baseline's, in millionths.
    Relative(u64),
}

/// What an inconclusive analysis means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inconclusive {
    /// The rollout goes back.
    Stop,
    /// The rollout goes on.
    Continue,
    /// The rollout waits for an approval for as long again.
    Ask,
}

/// The bounds of a rollout of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RolloutBounds {
    /// How long new instances may take to become healthy before the rollout goes back.
    pub progress_deadline: Millis,
    /// How long requests in flight may take to end before they are cut.
    pub drain_deadline: Millis,
    /// How long the old instances are kept for a quick way back.
    pub warm_for: Millis,
    /// For how long, without a break, a new instance must have been healthy before its rollout goes on.
    pub healthy_for: Millis,
    /// Whether traffic moves to the new instances as soon as they are healthy; otherwise somebody lets it. For
    /// [`Strategy::BlueGreen`].
    pub auto_promote: bool,
    /// Whether a rollout that fails goes back by itself; otherwise it stops where it is, and somebody decides.
    pub auto_revert: bool,
}

impl Default for RolloutBounds {
    fn default() -> Self {
        Self {
            // Kubernetes waits 10 minutes; nobody watches a terminal that long. A slow starter says so.
            progress_deadline: Millis::from_secs(120),
            // Long enough for an ordinary slow request; an upload service raises it.
            drain_deadline: Millis::from_secs(30),
            // Most bad deploys are noticed within minutes.
            warm_for: Millis::from_secs(600),
            // A health check says so itself how often it must be passed.
            healthy_for: Millis(0),
            auto_promote: true,
            auto_revert: true,
        }
    }
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRef {
    /// The service.
    pub service: ServiceName,
    /// Its port.
    pub port: PortName,
}
