//! Who works for whom: which spec a slot's instances must have, and which sockets an environment needs.

use std::collections::BTreeSet;

use kiln_model::digest::Digest;
use kiln_model::rollout::BASELINE_FIRST;
use kiln_model::route::Listener;
use kiln_model::service::{Service, ServiceKind, Strategy};
use kiln_model::{RevisionNumber, ServiceName, Weight};

use crate::state::{Environment, Instance, Slot};

/// A revision's answer to what one slot is filled with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Want<'a> {
    /// The revision.
    pub(crate) revision: RevisionNumber,
    /// Its service.
    pub(crate) service: &'a Service,
}

impl Want<'_> {
    /// Whether the instance is what the revision wants.
    pub(crate) fn fits(&self, instance: &Instance) -> bool {
        instance.spec_digest == self.service.spec_digest
    }

    /// The digest of the wanted spec.
    pub(crate) fn digest(&self) -> Digest {
        self.service.spec_digest
    }
}

/// What a slot is to hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Roles<'a> {
    /// What does the slot's work; none if nothing may.
    pub(crate) duty: Option<Want<'a>>,
    /// The target of a rollout that the slot has not moved to yet; none if it has, or if none runs.
    pub(crate) next: Option<Want<'a>>,
    /// The traffic of `next`; the rest is that of `duty`.
    pub(crate) share: Weight,
}

/// Returns what a revision wants in a slot.
pub(crate) fn want<'a>(
    env: &'a Environment,
    revision: Option<RevisionNumber>,
    name: &ServiceName,
    ordinal: u32,
) -> Option<Want<'a>> {
    let service = env.service(revision, name)?;
    let is_wanted = if ordinal >= BASELINE_FIRST {
        // A baseline is of the revision that a rollout comes from, and ends when it turns round.
        let rollout = env.rollout.as_ref().filter(|rollout| !rollout.is_going_back());
        rollout.is_some_and(|rollout| rollout.from == revision && rollout.to != revision)
    } else {
        ordinal < env.replicas(revision, name)
    };
    is_wanted.then_some(Want { revision: revision?, service })
}

/// Returns what a slot is to hold.
pub(crate) fn roles<'a>(env: &'a Environment, name: &ServiceName, ordinal: u32, slot: &Slot) -> Roles<'a> {
    let Some(rollout) = &env.rollout else {
        return Roles { duty: want(env, env.current, name, ordinal), next: None, share: Weight::ZERO };
    };
    let duty = want(env, slot.duty, name, ordinal);
    let target = want(env, rollout.target(), name, ordinal);
    let is_there = match (&duty, &target) {
        (Some(duty), Some(target)) => duty.digest() == target.digest(),
        _ => false,
    };
    Roles { duty, next: target.filter(|_| !is_there), share: slot.share.0 }
}

impl Roles<'_> {
    /// The share of the slot's traffic that the instance is to have while it is healthy.
    pub(crate) fn share_of(&self, instance: &Instance) -> Weight {
        if self.duty.is_some_and(|duty| duty.fits(instance)) {
            return Weight::new(1000 - self.share.per_mille()).unwrap_or(Weight::ZERO);
        }
        if self.next.is_some_and(|next| next.fits(instance)) { self.share } else { Weight::ZERO }
    }
}

/// Whether requests are sent to the instances of a service.
pub(crate) fn is_routed(service: &Service) -> bool {
    service.kind == ServiceKind::Service && !service.spec.ports.is_empty()
}

/// How many of a service's replicas must stay healthy and routed while it moves.
pub(crate) fn required(service: &Service, replicas: u32) -> u32 {
    match service.strategy {
        Strategy::BlueGreen | Strategy::Canary(_) => replicas,
        // None may be missing and none may be more: one more is the smaller evil, see `expand`.
        Strategy::Rolling { max_unavailable, .. } => replicas.saturating_sub(max_unavailable),
        Strategy::StopThenStart => 0,
    }
}

impl Environment {
    /// The revisions that something of it may need now.
    fn revisions_in_use(&self) -> BTreeSet<RevisionNumber> {
        let rollout = self.rollout.iter().flat_map(|rollout| [rollout.from, rollout.to]);
        [self.current, self.routes].into_iter().chain(rollout).flatten().collect()
    }

    /// Returns the listener of its services' names, if any service calls another by name.
    pub fn internal_listener(&self) -> Option<Listener> {
        let revisions = self.revisions_in_use();
        let mut specs = revisions.iter().filter_map(|number| self.spec(Some(*number)));
        let is_needed = specs.any(|spec| spec.services.values().any(|service| !service.spec.uses.is_empty()));
        is_needed.then_some(Listener::Internal(self.index))
    }

    /// Returns the sockets that it needs.
    pub fn needed_listeners(&self) -> BTreeSet<Listener> {
        let mut needed: BTreeSet<Listener> = self.internal_listener().into_iter().collect();
        for number in self.revisions_in_use() {
            let routes = self.spec(Some(number)).into_iter().flat_map(|spec| spec.routes.values());
            needed.extend(routes.map(|route| Listener::Public(route.listen)));
        }
        needed
    }
}
