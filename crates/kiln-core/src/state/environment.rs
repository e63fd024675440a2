//! Environments, their services and slots.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kiln_model::digest::Digest;
use kiln_model::gates::Gates;
use kiln_model::release::{Revision, RevisionSpec};
use kiln_model::rollout::ReplicaOwner;
use kiln_model::service::{Service, ServiceKind};
use kiln_model::{EnvKey, Millis, RevisionNumber, ServiceName, Timestamp, Weight};

use super::occupants::Occupants;
use super::queue::Queued;
use super::rollout::{FinishedRollout, Rollout};
use super::shared_map::SharedMap;
use super::soak::Served;

/// A stack in an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Which.
    pub key: EnvKey,
    /// Its index among the environments of this Kiln.
    pub index: u8,
    /// When it was created.
    pub created_at: Timestamp,
    /// The revisions that are retained.
    pub revisions: BTreeMap<RevisionNumber, Arc<Revision>>,
    /// The highest number that was given to a revision.
    pub last_number: RevisionNumber,
    /// The retained revisions that a rollout reached, in the order in which each did so last.
    pub completed: Vec<RevisionNumber>,
    /// The revision that the last complete rollout reached; none before the first and after a `down`.
    pub current: Option<RevisionNumber>,
    /// The revision whose routes are served.
    pub routes: Option<RevisionNumber>,
    /// The rollout that runs.
    pub rollout: Option<Arc<Rollout>>,
    /// The one before it.
    pub last_rollout: Option<Arc<FinishedRollout>>,
    /// The services that have, had or are to have slots.
    pub services: BTreeMap<ServiceName, Arc<ServiceState>>,
    /// Whether a `down` is complete: the environment is forgotten once nothing of it is left.
    pub ending: bool,
    /// What must hold before it lets a release in.
    pub gates: Arc<Gates>,
    /// How long the releases of the retained revisions served.
    pub served: Vec<Served>,
    /// When it ends by itself; none if it does not.
    pub lifetime: Option<Lifetime>,
    /// Where it goes once the rollout that runs has ended.
    pub queued: Option<Arc<Queued>>,
}

/// When an environment ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// For how long it was asked for.
    pub ttl: Millis,
    /// When it is over.
    pub until: Timestamp,
}

/// A service of an environment, whatever the revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceState {
    /// Its slots by ordinal.
    pub slots: SharedMap<u32, Arc<Slot>>,
    /// Another number of replicas than the declared one.
    pub replicas: Option<ReplicaOverride>,
    /// The spec with which the job last ran to a successful end.
    pub job_done: Option<Digest>,
    /// The slots that have a back-off, over or not.
    pub(crate) resting: BTreeSet<u32>,
}

/// A number of replicas that somebody else than the stack decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaOverride {
    /// The number.
    pub replicas: u32,
    /// Who decided.
    pub owner: ReplicaOwner,
    /// The declared number that it stands for: a revision that declares another one ends it.
    pub declared: u32,
}

/// A place of a service, filled by one instance per revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slot {
    /// All its instances that are not destroyed, the oldest first.
    pub instances: Occupants,
    /// While a rollout runs: the revision whose instance carries the slot's work. None if nothing does yet, and always
    /// outside a rollout, where it is the environment's current one.
    pub duty: Option<RevisionNumber>,
    /// While a rollout runs: what the target's instance carries beside the one on duty.
    pub share: Share,
    /// While a rollout runs: the step from which on the target's instance is to exist.
    pub create_step: Option<u32>,
    /// Why the next instance must wait.
    pub backoff: Option<Backoff>,
}

/// A share of a slot's traffic; zero by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(pub Weight);

impl Default for Share {
    fn default() -> Self {
        Self(Weight::ZERO)
    }
}

/// Failures in a row of instances with the same spec in one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The spec; another one is tried at once.
    pub spec: Digest,
    /// How many.
    pub failures: u32,
    /// The next instance is created no earlier.
    pub not_before: Timestamp,
}

impl ServiceState {
    /// Puts a service's state together of what it says.
    pub fn new(
        slots: SharedMap<u32, Arc<Slot>>,
        replicas: Option<ReplicaOverride>,
        job_done: Option<Digest>,
    ) -> Self {
        let resting = slots.iter().filter(|(_, slot)| slot.backoff.is_some()).map(|(ordinal, _)| *ordinal);
        Self { resting: resting.collect(), slots, replicas, job_done }
    }
}

impl Environment {
    /// Returns the revision that it is to be at: the target of the rollout that runs, or else the current one.
    pub fn target(&self) -> Option<RevisionNumber> {
        match &self.rollout {
            Some(rollout) => rollout.target(),
            None => self.current,
        }
    }

    /// Returns what a retained revision says.
    pub fn spec(&self, revision: Option<RevisionNumber>) -> Option<&RevisionSpec> {
        Some(&*self.revisions.get(&revision?)?.spec)
    }

    /// Returns a service of a retained revision.
    pub fn service(&self, revision: Option<RevisionNumber>, name: &ServiceName) -> Option<&Service> {
        self.spec(revision)?.services.get(name)
    }

    /// Returns how many replicas a service has at a revision: what its owner decided. A job has none.
    pub fn replicas(&self, revision: Option<RevisionNumber>, name: &ServiceName) -> u32 {
        let Some(service) = self.service(revision, name) else { return 0 };
        if service.kind == ServiceKind::Job {
            return 0;
        }
        match self.services.get(name).and_then(|state| state.replicas) {
            Some(other) if other.declared == service.replicas => other.replicas,
            _ => service.replicas,
        }
    }

    /// Returns who decides about a service's replicas at its target.
    pub fn replica_owner(&self, name: &ServiceName) -> ReplicaOwner {
        let declared = self.service(self.target(), name).map(|service| service.replicas);
        match self.services.get(name).and_then(|state| state.replicas) {
            Some(other) if Some(other.declared) == declared => other.owner,
            _ => ReplicaOwner::Declared,
        }
    }

    /// Returns a slot.
    pub fn slot(&self, name: &ServiceName, ordinal: u32) -> Option<&Slot> {
        self.services.get(name)?.slots.get(&ordinal).map(AsRef::as_ref)
    }

    /// Returns the revision that a rollback without a number goes to: where the one that runs came from, or else what was
    /// reached before the current one.
    pub fn previous(&self) -> Option<RevisionNumber> {
        match &self.rollout {
            Some(rollout) => rollout.from,
            None => self.completed.iter().rev().copied().find(|number| Some(*number) != self.current),
        }
    }
}
