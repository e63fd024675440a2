//! The one step language: blue-green, rolling and, later, canary are lists of these.

use std::fmt;

use crate::id::RevisionNumber;
use crate::name::ServiceName;
use crate::units::{Millis, Weight};

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
}

impl fmt::Display for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => write!(f, "{}/{}", self.service, self.first),
            _ => write!(f, "{}/{}..{}", self.service, self.first, self.first + self.count),
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
    },
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
