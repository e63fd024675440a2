//! What the log folds to.
//!
//! Everything here is plain data that only [`crate::apply()`] changes. Fields are public for reading: nobody outside this
//! crate holds a `&mut` to what is inside a [`State`].

mod check;
mod environment;
mod instance;
mod listener;
mod occupants;
mod parts;
mod queue;
mod rollout;
mod room;
mod shared_map;
mod soak;
mod tries;
mod used;

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_model::digest::Digest;
use kiln_model::route::Listener;
use kiln_model::{CheckId, EnvKey, InstanceId, Position, StackName, Term, Timestamp};

pub use check::{Check, Verdict};
pub use environment::{Backoff, Environment, Lifetime, ReplicaOverride, ServiceState, Share, Slot};
pub use instance::{Health, Instance, Phase};
pub use listener::{ListenerPhase, ListenerState};
pub use occupants::Occupants;
pub use parts::{Parts, PartsError};
pub use queue::Queued;
pub use rollout::{Direction, FinishedRollout, Halt, Pause, Rollout, Split, StepPhase};
pub use room::{Peak, Room};
pub use shared_map::SharedMap;
pub use soak::{Approval, Served};
pub use tries::Tries;
pub(crate) use used::UsedIds;

/// The fold of the log. A clone shares what it has in common with its original, so that a batch can be decided against
/// a speculative one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    pub(crate) term: Term,
    pub(crate) position: Position,
    pub(crate) now: Timestamp,
    pub(crate) origins: BTreeMap<StackName, Arc<str>>,
    pub(crate) environments: BTreeMap<EnvKey, Arc<Environment>>,
    pub(crate) instances: SharedMap<InstanceId, Arc<Instance>>,
    /// The instances for which an action may be outstanding: see [`Phase::is_pending`].
    pub(crate) pending: SharedMap<InstanceId, ()>,
    /// The instances that wait until nothing is sent to them any more: see [`Phase::awaits_edge`].
    pub(crate) leaving: SharedMap<InstanceId, ()>,
    /// The instances for which time alone makes a difference, by when it does: see [`Instance::timer`].
    pub(crate) timers: SharedMap<(Timestamp, InstanceId), ()>,
    pub(crate) disowned: BTreeMap<InstanceId, Position>,
    pub(crate) used: UsedIds,
    pub(crate) checks: BTreeMap<CheckId, Arc<Check>>,
    pub(crate) verdicts: SharedMap<(Digest, String), Verdict>,
    pub(crate) listeners: BTreeMap<Listener, ListenerState>,
    pub(crate) table: TableState,
    pub(crate) approvals: BTreeMap<EnvKey, Vec<Approval>>,
}

/// How far the edge has followed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableState {
    /// The position of the last event that changed the table: the version that is to be served.
    pub version: Position,
    /// The highest version that the edge acknowledged.
    pub acknowledged: Position,
}

impl State {
    /// Returns the state before the first entry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the term of the controller that appends now.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Returns the position of the last entry.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Returns the time of the last entry.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Returns where a stack comes from, once it is bound.
    pub fn origin(&self, stack: &StackName) -> Option<&str> {
        self.origins.get(stack).map(AsRef::as_ref)
    }

    /// Returns an environment.
    pub fn environment(&self, env: &EnvKey) -> Option<&Environment> {
        self.environments.get(env).map(AsRef::as_ref)
    }

    /// Returns all environments in order.
    pub fn environments(&self) -> impl Iterator<Item = &Environment> {
        self.environments.values().map(AsRef::as_ref)
    }

    /// Returns an instance that is not destroyed yet.
    pub fn instance(&self, id: InstanceId) -> Option<&Instance> {
        self.instances.get(&id).map(AsRef::as_ref)
    }

    /// Returns all instances that are not destroyed yet, those of checks included, in the order of their ids.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values().map(AsRef::as_ref)
    }

    /// Returns the instances of an environment by service and ordinal, the oldest of a slot first.
    pub fn instances_of<'a>(&'a self, env: &'a Environment) -> impl Iterator<Item = &'a Instance> {
        let slots = env.services.values().flat_map(|service| service.slots.values());
        slots.flat_map(|slot| slot.instances.iter()).filter_map(|id| self.instance(*id))
    }

    /// Returns the checks that are running.
    pub fn checks(&self) -> impl Iterator<Item = &Check> {
        self.checks.values().map(AsRef::as_ref)
    }

    /// Returns the last answer of a check about an image.
    pub fn verdict(&self, image: Digest, test: &str) -> Option<&Verdict> {
        self.verdicts.get(&(image, test.to_owned()))
    }

    /// Returns who approved which release for an environment, the last one last. Some may be over.
    pub fn approvals(&self, env: &EnvKey) -> impl Iterator<Item = &Approval> {
        self.approvals.get(env).into_iter().flatten()
    }

    /// Returns the sockets that are open or wanted.
    pub fn listeners(&self) -> impl Iterator<Item = (Listener, &ListenerState)> {
        self.listeners.iter().map(|(listener, state)| (*listener, state))
    }

    /// Returns how far the edge has followed.
    pub fn table(&self) -> TableState {
        self.table
    }

    /// Whether the edge serves what the log says, or something later.
    pub(crate) fn is_acknowledged(&self, version: Position) -> bool {
        self.table.acknowledged >= version
    }
}
