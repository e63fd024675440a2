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

/// What a revision says about a service, and how many replicas it has there.
type Said<'a> = (&'a Service, u32);

/// What the revisions say about one service: looked up once, asked for each of its slots.
pub(crate) struct Wants<'a> {
    env: &'a Environment,
    name: &'a ServiceName,
    /// The revisions of which most slots are.
    known: [Option<(RevisionNumber, Option<Said<'a>>)>; 3],
    /// Of which revision a baseline is.
    baseline: Option<RevisionNumber>,
}

impl<'a> Wants<'a> {
    /// Asks about a service of an environment.
    pub(crate) fn new(env: &'a Environment, name: &'a ServiceName) -> Self {
        Self::beside(env, name, None)
    }

    /// The same, where another revision is asked about as well.
    pub(crate) fn beside(env: &'a Environment, name: &'a ServiceName, other: Option<RevisionNumber>) -> Self {
        // A baseline is of the revision that a rollout comes from, and ends when it turns round.
        let forward = env.rollout.as_ref().filter(|rollout| !rollout.is_going_back());
        let baseline = forward.and_then(|rollout| rollout.from.filter(|_| rollout.from != rollout.to));
        let of_revision = |number| (number, of_revision(env, number, name));
        let known = [env.current, env.target(), other].map(|number| number.map(of_revision));
        Self { env, name, known, baseline }
    }

    /// Returns the service that is asked about.
    pub(crate) fn name(&self) -> &'a ServiceName {
        self.name
    }

    /// Returns the service as it is in a revision.
    pub(crate) fn service(&self, revision: Option<RevisionNumber>) -> Option<&'a Service> {
        Some(self.said(revision?)?.0)
    }

    fn said(&self, revision: RevisionNumber) -> Option<Said<'a>> {
        let known = self.known.iter().flatten().find(|(number, _)| *number == revision);
        known.map_or_else(|| of_revision(self.env, revision, self.name), |(_, found)| *found)
    }

    /// Returns what a revision wants in a slot.
    pub(crate) fn want(&self, revision: Option<RevisionNumber>, ordinal: u32) -> Option<Want<'a>> {
        let revision = revision?;
        let (service, replicas) = self.said(revision)?;
        let is_wanted = match ordinal >= BASELINE_FIRST {
            true => self.baseline == Some(revision),
            false => ordinal < replicas,
        };
        is_wanted.then_some(Want { revision, service })
    }

    /// Returns what a slot is to hold.
    pub(crate) fn roles(&self, ordinal: u32, slot: &Slot) -> Roles<'a> {
        let Some(rollout) = &self.env.rollout else {
            let duty = self.want(self.env.current, ordinal);
            return Roles { duty, next: None, share: Weight::ZERO };
        };
        let duty = self.want(slot.duty, ordinal);
        let target = self.want(rollout.target(), ordinal);
        let is_there = match (&duty, &target) {
            (Some(duty), Some(target)) => duty.digest() == target.digest(),
            _ => false,
        };
        Roles { duty, next: target.filter(|_| !is_there), share: slot.share.0 }
    }
}

fn of_revision<'a>(env: &'a Environment, revision: RevisionNumber, name: &ServiceName) -> Option<Said<'a>> {
    let service = env.service(Some(revision), name)?;
    Some((service, env.replicas(Some(revision), name)))
}

/// Returns what a revision wants in a slot.
pub(crate) fn want<'a>(
    env: &'a Environment,
    revision: Option<RevisionNumber>,
    name: &'a ServiceName,
    ordinal: u32,
) -> Option<Want<'a>> {
    Wants::new(env, name).want(revision, ordinal)
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
