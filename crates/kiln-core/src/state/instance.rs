//! One-shot copies.

use std::net::IpAddr;
use std::sync::Arc;

use crate::bounds::SETTLE;
use kiln_model::digest::Digest;
use kiln_model::event::Purpose;
use kiln_model::instance::{ExitStatus, InstanceSpec};
use kiln_model::{EnvKey, InstanceId, Millis, Position, RevisionNumber, ServiceName, Timestamp, Weight};

/// One copy, from the intent to create it until nothing is left of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// The environment that it runs for; a check's need not exist.
    pub env: EnvKey,
    /// What it is for.
    pub purpose: Purpose,
    /// What it sees.
    pub spec: Arc<InstanceSpec>,
    /// The digest of `spec`.
    pub spec_digest: Digest,
    /// The position of the intent to create it.
    pub requested: Position,
    /// When that was.
    pub requested_at: Timestamp,
    /// Where it is in its life.
    pub phase: Phase,
    /// Its address, once started.
    pub address: Option<IpAddr>,
    /// The position at which its start was logged.
    pub started: Option<Position>,
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// What its probes say.
    pub health: Health,
    /// Since when it is healthy without a break.
    pub healthy_since: Option<Timestamp>,
    /// How it ended, if it did.
    pub exit: Option<ExitStatus>,
    /// Its share in the last table; zero is out of the routes.
    pub weight: Weight,
    /// The position of the table that took it out of the routes; none while it is in them or if it never was.
    pub unrouted: Option<Position>,
}

/// Where an instance is in its life. Being routed is separate: see [`Instance::weight`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// It is to be created.
    Requested,
    /// It runs.
    Running,
    /// It runs out of the routes until this moment, for a quick way back.
    Warm {
        /// The deadline.
        until: Timestamp,
    },
    /// Its main process ended, or the provider can't create it; nobody decided yet that it is to go.
    Ended {
        /// Why the provider can't create it; none if it ran.
        refused: Option<Arc<str>>,
    },
    /// It is to go: waits until the edge acknowledges a table without it.
    Retiring {
        /// Why, for people.
        reason: Arc<str>,
        /// How long its requests in flight may take from then on.
        drain_within: Millis,
    },
    /// It is to go: waits until nothing is in flight, or the deadline.
    Draining {
        /// The deadline.
        deadline: Timestamp,
        /// The position of the event.
        since: Position,
    },
    /// It is to be destroyed.
    Destroying {
        /// How long it has after its stop signal.
        grace: Millis,
        /// Whether requests were still in flight.
        cut: bool,
        /// The position of the intent.
        since: Position,
    },
}

/// What an instance's probes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Nothing yet.
    Unknown,
    /// It is alive.
    Healthy,
    /// It failed its probes.
    Unhealthy {
        /// What the probe saw.
        reason: Arc<str>,
    },
}

impl Phase {
    /// Whether an action on the instance is outstanding.
    pub const fn is_pending(&self) -> bool {
        matches!(self, Self::Requested | Self::Draining { .. } | Self::Destroying { .. })
    }

    /// Whether the instance goes once the edge let go of it, or nothing is in flight to it.
    pub(crate) const fn awaits_edge(&self) -> bool {
        matches!(self, Self::Retiring { .. } | Self::Draining { .. })
    }

    /// Whether it was decided that the instance goes.
    pub const fn is_leaving(&self) -> bool {
        matches!(self, Self::Retiring { .. } | Self::Draining { .. } | Self::Destroying { .. })
    }

    /// Returns one word for people.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Requested => "starting",
            Self::Running => "running",
            Self::Warm { .. } => "warm",
            Self::Ended { refused: Some(_) } => "refused",
            Self::Ended { refused: None } => "exited",
            Self::Retiring { .. } => "retiring",
            Self::Draining { .. } => "draining",
            Self::Destroying { .. } => "stopping",
        }
    }
}

impl Instance {
    /// Returns the service and ordinal of the slot that it fills.
    pub fn slot(&self) -> Option<(&ServiceName, u32)> {
        match &self.purpose {
            Purpose::Slot { slot, .. } => Some((&slot.service, slot.ordinal)),
            Purpose::Check(_) => None,
        }
    }

    /// Returns the revision whose spec it has.
    pub fn revision(&self) -> Option<RevisionNumber> {
        match &self.purpose {
            Purpose::Slot { revision, .. } => Some(*revision),
            Purpose::Check(_) => None,
        }
    }

    /// Returns when time alone makes a difference to it.
    pub fn timer(&self) -> Option<Timestamp> {
        match &self.phase {
            Phase::Running => self.settles_at(),
            Phase::Warm { until } => Some(*until),
            Phase::Draining { deadline, .. } => Some(*deadline),
            Phase::Requested | Phase::Ended { .. } | Phase::Retiring { .. } | Phase::Destroying { .. } => {
                None
            }
        }
    }

    /// Returns when an instance that has no health check counts as healthy; none if it has one or already does.
    pub(crate) fn settles_at(&self) -> Option<Timestamp> {
        let is_open = self.spec.health.is_none() && self.health == Health::Unknown;
        self.started_at.filter(|_| is_open).map(|started| started.plus(SETTLE))
    }

    /// Whether requests are sent to it.
    pub fn is_routed(&self) -> bool {
        self.weight > Weight::ZERO
    }

    /// Whether requests may be sent to it.
    pub fn is_routable(&self) -> bool {
        self.phase == Phase::Running && self.health == Health::Healthy && self.address.is_some()
    }

    /// Whether it was never in a table.
    pub fn was_never_routed(&self) -> bool {
        !self.is_routed() && self.unrouted.is_none()
    }

    /// Whether it fills its slot, or will once it is up: it was requested or runs, and no probe has failed.
    pub fn is_hopeful(&self) -> bool {
        matches!(self.phase, Phase::Requested | Phase::Running) && !self.is_unhealthy()
    }

    /// Whether its probes failed.
    pub fn is_unhealthy(&self) -> bool {
        matches!(self.health, Health::Unhealthy { .. })
    }
}
