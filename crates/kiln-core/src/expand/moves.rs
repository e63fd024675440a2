//! Which slots have to change, and how.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::rollout::{BASELINE_FIRST, Slots};
use kiln_model::service::{Service, ServiceKind};
use kiln_model::{RevisionNumber, ServiceName};

use super::runs;
use crate::serving::{Want, Wants};
use crate::state::{Environment, Health, Instance, Phase, Slot, State};

/// What has to change in one service.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// Slots that are to get an instance of the target.
    pub(super) enter: Vec<Enter>,
    /// Slots that are to be empty.
    pub(super) leave: Vec<u32>,
    /// Slots that stay as they are but hold instances of others as well.
    pub(super) tidy: Vec<u32>,
    /// Whether some slot of the service, moving or not, does its work already.
    pub(super) is_serving: bool,
}

/// A slot that is to get an instance of the target.
#[derive(Debug)]
pub(super) struct Enter {
    /// Which.
    pub(super) ordinal: u32,
    /// Whether another instance is or was to be there.
    pub(super) has_old: bool,
    /// Whether an instance of the target is there and only needs traffic.
    pub(super) is_ready: bool,
    /// Whether something healthy carries its traffic now.
    pub(super) is_strong: bool,
}

impl Moves {
    /// The slots that enter, as runs.
    pub(super) fn entering(&self, service: &ServiceName) -> Vec<Slots> {
        runs(service, self.enter.iter().map(|slot| slot.ordinal))
    }

    /// The slots that hold or held something else than the target: those that leave are among them.
    pub(super) fn old(&self, service: &ServiceName) -> Vec<Slots> {
        runs(service, self.replaced().chain(self.leave.iter().copied()))
    }

    /// The same without those that leave.
    pub(super) fn old_of_entering(&self, service: &ServiceName) -> Vec<Slots> {
        runs(service, self.replaced())
    }

    fn replaced(&self) -> impl Iterator<Item = u32> {
        self.enter.iter().filter(|slot| slot.has_old).map(|slot| slot.ordinal)
    }
}

/// Returns what has to change in each service so that the environment is at `to`; services without a change are left out.
pub(super) fn moves(
    state: &State,
    env: &Environment,
    to: Option<RevisionNumber>,
) -> BTreeMap<ServiceName, Moves> {
    let target = env.spec(to).into_iter().flat_map(|spec| spec.services.keys());
    let names: BTreeSet<&ServiceName> = env.services.keys().chain(target).collect();
    let mut found = BTreeMap::new();
    for name in names {
        let moves = moves_of(state, env, to, name);
        if !moves.enter.is_empty() || !moves.leave.is_empty() || !moves.tidy.is_empty() {
            found.insert(name.clone(), moves);
        }
    }
    found
}

fn moves_of(state: &State, env: &Environment, to: Option<RevisionNumber>, name: &ServiceName) -> Moves {
    let mut moves = Moves::default();
    let wants = Wants::beside(env, name, to);
    let blank = Slot::default();
    let mut there: Vec<&Instance> = Vec::new();
    let slots = env.services.get(name).map(|service| &service.slots);
    let known = slots.into_iter().flat_map(|slots| slots.iter().map(|(ordinal, slot)| (*ordinal, &**slot)));
    let mut all: Vec<(u32, &Slot)> = known.collect();
    let missing = (0..env.replicas(to, name)).filter(|it| slots.is_none_or(|slots| !slots.contains_key(it)));
    all.extend(missing.map(|ordinal| (ordinal, &blank)));
    all.sort_unstable_by_key(|(ordinal, _)| *ordinal);
    for (ordinal, slot) in all {
        there.clear();
        there.extend(present(state, &wants, slot));
        let present = &there;
        let duty = wants.want(on_duty(env, slot), ordinal);
        moves.is_serving |= duty.is_some();
        // No revision has a baseline of its own: it goes with the rollout that made it.
        match wants.want(to, ordinal).filter(|_| ordinal < BASELINE_FIRST) {
            Some(target) if duty.is_some_and(|duty| duty.digest() == target.digest()) => {
                let is_stranger = |instance: &&Instance| {
                    !target.fits(instance) && !matches!(instance.phase, Phase::Warm { .. })
                };
                if present.iter().any(is_stranger) {
                    moves.tidy.push(ordinal);
                }
            }
            Some(target) => moves.enter.push(enter(ordinal, duty, target, present)),
            None => {
                let is_filled = present.iter().any(|instance| !matches!(instance.phase, Phase::Warm { .. }));
                if duty.is_some() || is_filled {
                    moves.leave.push(ordinal);
                }
            }
        }
    }
    moves
}

fn enter(ordinal: u32, duty: Option<Want<'_>>, target: Want<'_>, present: &[&Instance]) -> Enter {
    let is_ready = |instance: &&Instance| {
        let lives = matches!(instance.phase, Phase::Running | Phase::Warm { .. });
        lives && instance.health == Health::Healthy && instance.address.is_some() && target.fits(instance)
    };
    Enter {
        ordinal,
        has_old: duty.is_some() || present.iter().any(|instance| !target.fits(instance)),
        is_ready: present.iter().any(is_ready),
        is_strong: present.iter().any(|instance| instance.is_routed() && instance.is_routable()),
    }
}

/// The instances of a slot that nobody decided to destroy; a job's are not among them.
fn present<'a>(state: &'a State, wants: &Wants<'a>, slot: &'a Slot) -> impl Iterator<Item = &'a Instance> {
    let instances = slot.instances.iter().filter_map(|id| state.instance(*id));
    instances.filter(|instance| {
        let is_job = |service: &Service| service.kind == ServiceKind::Job;
        !instance.phase.is_leaving() && !wants.service(instance.revision()).is_some_and(is_job)
    })
}

/// The revision that a slot works for: outside a rollout the current one, unless one that was superseded says otherwise.
fn on_duty(env: &Environment, slot: &Slot) -> Option<RevisionNumber> {
    slot.duty.or_else(|| env.current.filter(|_| env.rollout.is_none()))
}
