//! A workload, resolved for one environment.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::digest::Digest;
use crate::instance::InstanceSpec;
use crate::name::{PortName, ServiceName};
use crate::units::Millis;

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
}

/// How a service moves from one revision to another; each expands to the one step list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// All new instances beside the old ones, then one switch.
    BlueGreen,
    /// A few at a time.
    Rolling {
        /// How many more than the replicas may exist at once; at least 1 when `max_unavailable` is 0.
        max_surge: u32,
        /// How many fewer than the replicas may be healthy and routed.
        max_unavailable: u32,
    },
    /// The old ones are gone before the new ones start: for what must not run twice.
    StopThenStart,
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
