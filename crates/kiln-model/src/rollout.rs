//! The one step language: blue-green, rolling and canary are lists of these.

use std::fmt;
use std::sync::Arc;

use crate::ask::{Again, Ask};
use crate::id::RevisionNumber;
use crate::name::{EnvName, ServiceName};
use crate::service::{Margin, MetricKind};
use crate::units::{Millis, Weight};

/// The first ordinal of a service's baseline slots: while a canary is compared, they hold fresh instances of the revision
/// that served before. No service has that many replicas.
pub const BASELINE_FIRST: u32 = 1 << 16;

/// The first window of a service in which only copies come to its new instances. No canary has that many stages.
pub const MIRROR_FIRST: u32 = 1 << 16;

/// A slot's place in its service, for people: `3`, or `baseline/0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(pub u32);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.checked_sub(BASELINE_FIRST) {
            Some(ordinal) => write!(f, "baseline/{ordinal}"),
            None => self.0.fmt(f),
        }
    }
}

/// Consecutive slots of one service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slots {
    /// The service.
    pub service: ServiceName,
    /// The first ordinal.
    pub first: u32,
    /// How many; zero is allowed and means that there is nothing to do.
    pub count: u32,
}

impl Slots {
    /// Whether `ordinal` is one of them.
    pub const fn contains(&self, ordinal: u32) -> bool {
        ordinal >= self.first && ordinal - self.first < self.count
    }

    /// Whether they are for a baseline.
    pub const fn is_baseline(&self) -> bool {
        self.first >= BASELINE_FIRST
    }
}

impl fmt::Display for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (service, first) = (&self.service, Place(self.first));
        match self.count {
            1 => write!(f, "{service}/{first}"),
            count => write!(f, "{service}/{first}..{}", self.first % BASELINE_FIRST + count),
        }
    }
}

/// One step of a rollout. *New* instances have the target revision's spec; *old* ones have another.
///
/// A step is complete when what it asks for is so, as told by observations; time only bounds the wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The sockets that the target's routes need are open.
    OpenListeners,
    /// A job ran to its end, successfully.
    Run {
        /// The job.
        job: ServiceName,
        /// How long before the rollout goes back; it runs then even if it did so before. None for a job that runs once for
        /// each revision that changes it: as long as its bounds say.
        within: Option<Millis>,
        /// How often it is tried, with that time for each attempt.
        again: Again,
    },
    /// Somebody asked over HTTP answered as they should.
    Ask(Arc<Ask>),
    /// New instances exist in these slots.
    Create {
        /// Where.
        slots: Vec<Slots>,
    },
    /// The new instances of these slots are healthy.
    WaitHealthy {
        /// Where.
        slots: Vec<Slots>,
        /// How long before the rollout goes back.
        within: Millis,
    },
    /// The new instances of these slots have this share and the old ones the rest, and the edge acknowledged it.
    Shift {
        /// Where.
        slots: Vec<Slots>,
        /// The share of the new.
        weight: Weight,
        /// Whether the target's routes are served from here on, in the same table.
        serve_routes: bool,
    },
    /// The requests of a service are split: this share for its new instances, as much for its baseline if it has one, the
    /// rest for the old ones. Complete once the edge acknowledged it; holds until a [`Step::Shift`] of the service.
    Split {
        /// The service.
        service: ServiceName,
        /// The share of the new instances together; less than all.
        weight: Weight,
        /// Counts the splits of the service in this rollout, from 0: what is compared is what came since it began.
        window: u32,
    },
    /// This share of the safe requests to the old instances of a service is copied to its new ones, which get no others and
    /// whose answers are dropped. Complete once the edge acknowledged it; holds until a [`Step::Split`] or [`Step::Shift`] of
    /// the service, or until another share.
    Mirror {
        /// The service.
        service: ServiceName,
        /// The share; nothing ends it.
        share: Weight,
        /// Tells it from other windows of the service in this rollout, beginning with [`MIRROR_FIRST`].
        window: u32,
    },
    /// Time passes.
    Hold {
        /// How much.
        span: Millis,
    },
    /// Time passes, and none of the new instances of these slots fails: one that ends, is ill, or can't be created takes the
    /// rollout back.
    Soak {
        /// Where.
        slots: Vec<Slots>,
        /// How much.
        span: Millis,
    },
    /// The new instances of a service compare well with its baseline, by the analysis that its strategy declares.
    Analyse {
        /// The service.
        service: ServiceName,
        /// The split whose requests are compared.
        window: u32,
        /// How long it may take before it counts as inconclusive.
        within: Millis,
    },
    /// Somebody approved.
    Approve {
        /// Who may; nobody named means anybody.
        by: Vec<String>,
        /// How long before the rollout goes back.
        within: Millis,
    },
    /// The old instances of these slots, out of the routes, have no request in flight, or the deadline passed.
    Drain {
        /// Where.
        slots: Vec<Slots>,
        /// How long before what is in flight is cut.
        within: Millis,
    },
    /// The old instances of these slots stay, out of the routes, for a quick way back. Completes at once: the rollout
    /// does not wait for them to go.
    KeepWarm {
        /// Where.
        slots: Vec<Slots>,
        /// How long.
        keep_for: Millis,
    },
    /// The old instances of these slots are destroyed.
    Retire {
        /// Where.
        slots: Vec<Slots>,
    },
}

/// What an analysis found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The canary is not worse than the baseline by the margin or more.
    Pass,
    /// It is worse by more than the margin.
    Fail,
    /// There were too few requests to tell.
    Inconclusive,
}

/// What a verdict about one metric rests on. Rates are in millionths, latencies in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// What was compared.
    pub metric: MetricKind,
    /// How much worse was accepted.
    pub worse_by: Margin,
    /// What was found.
    pub verdict: Verdict,
    /// The baseline's estimate with its interval.
    pub baseline: Estimate,
    /// The canary's.
    pub canary: Estimate,
}

/// An estimate and an interval that holds at every moment at once with the analysis' confidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// How many requests it is made of.
    pub samples: u64,
    /// The value that is most likely.
    pub value: u64,
    /// The interval's lower end.
    pub low: u64,
    /// Its upper end.
    pub high: u64,
}

/// Why an environment moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A new revision.
    Up,
    /// Back to a retained revision, as a whole or for one service.
    Rollback {
        /// The revision that it goes back to; `to` of the rollout differs where one service went back.
        to: RevisionNumber,
        /// The only service that goes back.
        service: Option<ServiceName>,
    },
    /// Everything of the environment is to go.
    Down,
    /// A release that another environment of the stack is at, or was.
    Promotion {
        /// That environment.
        from: EnvName,
    },
}

/// How a rollout ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The target is what runs.
    Completed,
    /// It failed and the environment is back where it was.
    WentBack,
    /// It failed, and going back failed too: what still serves was left in place, and maintenance goes on.
    Stuck,
    /// Another one took over from whatever existed at that moment.
    Superseded,
}

/// What became of the requests of one revision of a service since its edge began to count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestCount {
    /// The service.
    pub service: ServiceName,
    /// The revision; 0 where no instance could be chosen.
    pub revision: RevisionNumber,
    /// Ended with the whole answer of an instance.
    pub answered: u64,
    /// Cut, or answered by the edge with an error of its own.
    pub lost: u64,
    /// Further attempts that were made.
    pub retried: u64,
}

/// Who decides about the number of replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReplicaOwner {
    /// The stack.
    Declared,
    /// `kiln scale`, until a revision declares another number than the one before.
    Hand,
    /// The autoscaler.
    Autoscaler,
}
