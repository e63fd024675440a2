//! The way to a target.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::release::RevisionSpec;
use kiln_model::rollout::{Slots, Step};
use kiln_model::service::{Service, ServiceKind, Strategy};
use kiln_model::{Millis, RevisionNumber, ServiceName, Weight};

use super::moves::{Enter, Moves, moves};
use super::{by_warmth, drain, in_dependency_order, progress, runs};
use crate::bounds::PROMOTE_WITHIN;
use crate::serving::is_routed;
use crate::state::{Environment, State};

/// Returns the steps that take an environment to `to`; none takes everything down.
///
/// In this order: sockets, so that a port in use fails before anything is created; what is new and needed by others, and
/// changed jobs, each after what it needs; everything that is replaced blue-green, in one switch that also brings the
/// routes; rolling services, batch by batch; what stops before it starts. The old instances of the switch are drained and
/// kept warm at the end, so that going back finds them.
pub(crate) fn expand_forward(
    state: &State,
    env: &Environment,
    to: Option<RevisionNumber>,
    manners: Manners,
) -> Vec<Step> {
    let moves = moves(state, env, to);
    let mut way = Forward { env, to, manners, moves, steps: Vec::new(), old: Vec::new() };
    let blank = RevisionSpec::default();
    let spec = env.spec(to).unwrap_or(&blank);
    let needs_sockets =
        !spec.routes.is_empty() || spec.services.values().any(|service| !service.spec.uses.is_empty());
    if needs_sockets {
        way.steps.push(Step::OpenListeners);
    }
    let order = in_dependency_order(spec);
    way.bring_up_what_is_needed(spec, &order);
    way.switch(spec);
    for name in &order {
        way.roll(spec, name);
        way.try_out(spec, name);
    }
    for name in &order {
        way.stop_then_start(spec, name);
    }
    way.clear_up();
    way.steps
}

/// What a rollout does besides moving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Manners {
    /// Whether jobs run.
    pub(crate) runs_jobs: bool,
    /// Whether services that declare it begin with a canary, or wait for somebody before they are switched.
    pub(crate) tries_out: bool,
}

pub(super) struct Forward<'a> {
    pub(super) env: &'a Environment,
    pub(super) to: Option<RevisionNumber>,
    manners: Manners,
    pub(super) moves: BTreeMap<ServiceName, Moves>,
    pub(super) steps: Vec<Step>,
    /// Where old instances of the switch are left.
    pub(super) old: Vec<Slots>,
}

/// How a service's entering slots are handled.
#[derive(PartialEq)]
pub(super) enum Manner {
    Switch,
    TryOut,
    Roll { batch: usize, old_first: bool },
    StopThenStart,
}

impl Forward<'_> {
    pub(super) fn manner(&self, service: &Service) -> Manner {
        let moves = self.moves.get(&service.name);
        let is_serving = moves.is_some_and(|moves| moves.is_serving);
        match service.strategy {
            Strategy::Canary(_) => {
                // What only gets more replicas, or was not routed before, has nothing to be compared with.
                let replaces = moves.is_some_and(|moves| moves.enter.iter().any(|slot| slot.has_old));
                let before = self.env.service(self.env.current, &service.name);
                let is_routed = is_routed(service) && before.is_some_and(is_routed);
                let tries_out = self.manners.tries_out && is_serving && replaces && is_routed;
                if tries_out { Manner::TryOut } else { Manner::Switch }
            }
            Strategy::StopThenStart => Manner::StopThenStart,
            // Where nothing serves yet there is nothing to go easy on.
            Strategy::Rolling { .. } if !is_serving => Manner::Switch,
            Strategy::Rolling { max_surge: 0, max_unavailable: 0 } => {
                Manner::Roll { batch: 1, old_first: false }
            }
            Strategy::Rolling { max_surge: 0, max_unavailable } => {
                Manner::Roll { batch: count(max_unavailable), old_first: true }
            }
            Strategy::Rolling { max_surge, .. } => Manner::Roll { batch: count(max_surge), old_first: false },
            Strategy::BlueGreen => Manner::Switch,
        }
    }

    /// Services that nothing serves yet and that others or jobs need can be served at once: nobody calls them today. Their
    /// callers may not come to be healthy without them.
    fn bring_up_what_is_needed(&mut self, spec: &RevisionSpec, order: &[&ServiceName]) {
        let needed: BTreeSet<&ServiceName> =
            spec.services.values().flat_map(|service| &service.after).collect();
        let mut together: Vec<Slots> = Vec::new();
        let mut names: BTreeSet<&ServiceName> = BTreeSet::new();
        for name in order {
            let service = &spec.services[*name];
            if service.after.iter().any(|other| names.contains(other)) {
                self.create_and_shift(std::mem::take(&mut together), false);
                names.clear();
            }
            if service.kind == ServiceKind::Job {
                let done = self.env.services.get(*name).and_then(|state| state.job_done);
                if self.manners.runs_jobs && done != Some(service.spec_digest) {
                    self.steps.push(Step::Run { job: (*name).clone() });
                }
                continue;
            }
            let is_early = needed.contains(name) && self.manner(service) == Manner::Switch;
            let Some(moves) = self.moves.get_mut(*name).filter(|moves| is_early && !moves.is_serving) else {
                continue;
            };
            together.extend(moves.entering(name));
            // What leaves goes with the switch, which names it.
            self.old.extend(moves.old_of_entering(name));
            moves.enter.clear();
            names.insert(name);
        }
        self.create_and_shift(together, false);
    }

    /// One table for everything that is replaced at once, and for what is removed.
    fn switch(&mut self, spec: &RevisionSpec) {
        let (mut create, mut shift) = (Vec::new(), Vec::new());
        for (name, moves) in &self.moves {
            let leaving = runs(name, moves.leave.iter().copied());
            let manner = spec.services.get(name).map(|service| self.manner(service));
            if manner == Some(Manner::TryOut) {
                // All of it stays until the canary is through.
                continue;
            }
            if manner == Some(Manner::Switch) {
                create.extend(moves.entering(name));
                shift.extend(runs(
                    name,
                    moves.enter.iter().map(|slot| slot.ordinal).chain(moves.leave.iter().copied()),
                ));
                self.old.extend(moves.old(name));
            } else {
                shift.extend(leaving.clone());
                self.old.extend(leaving);
            }
            self.old.extend(runs(name, moves.tidy.iter().copied()));
        }
        let rolls = |(name, moves): (&ServiceName, &Moves)| {
            let service = spec.services.get(name).filter(|_| !moves.enter.is_empty());
            service
                .is_some_and(|service| matches!(self.manner(service), Manner::Roll { .. } | Manner::TryOut))
        };
        let serve_routes = self.env.routes != self.to && (!shift.is_empty() || !self.moves.iter().any(rolls));
        if !create.is_empty() {
            let within = progress(self.env, self.to, &create);
            self.steps.push(Step::Create { slots: create.clone() });
            let waits = create.iter().any(|range| self.waits_for_somebody(spec, &range.service));
            self.steps.push(Step::WaitHealthy { slots: create, within });
            if waits {
                self.steps.push(Step::Approve { by: Vec::new(), within: PROMOTE_WITHIN });
            }
        }
        if serve_routes || !shift.is_empty() {
            self.steps.push(Step::Shift { slots: shift, weight: Weight::FULL, serve_routes });
        }
    }

    /// Whether a service is switched only once somebody says so. Who goes back does not wait, and where nothing serves yet there
    /// is nothing to wait for.
    fn waits_for_somebody(&self, spec: &RevisionSpec, name: &ServiceName) -> bool {
        let is_manual = spec.services.get(name).is_some_and(|service| !service.bounds.auto_promote);
        let is_serving = self.moves.get(name).is_some_and(|moves| moves.is_serving);
        is_manual && is_serving && self.manners.tries_out
    }

    fn create_and_shift(&mut self, slots: Vec<Slots>, serve_routes: bool) {
        if slots.is_empty() {
            return;
        }
        let within = progress(self.env, self.to, &slots);
        self.steps.push(Step::Create { slots: slots.clone() });
        self.steps.push(Step::WaitHealthy { slots: slots.clone(), within });
        self.steps.push(Step::Shift { slots, weight: Weight::FULL, serve_routes });
    }

    fn roll(&mut self, spec: &RevisionSpec, name: &ServiceName) {
        let service = &spec.services[name];
        let Manner::Roll { batch, old_first } = self.manner(service) else { return };
        let Some(moves) = self.moves.get(name) else { return };
        // What is down already has nothing to lose, and may be what the new revision repairs.
        let mut order: Vec<&Enter> = moves.enter.iter().collect();
        order.sort_by_key(|slot| (slot.is_strong, slot.ordinal));
        let batches: Vec<Vec<Slots>> =
            order.chunks(batch).map(|slots| runs(name, slots.iter().map(|slot| slot.ordinal))).collect();
        let last = batches.len().saturating_sub(1);
        for (at, slots) in batches.into_iter().enumerate() {
            let serve_routes = at == last && self.brings_routes();
            let shift = Step::Shift { slots: slots.clone(), weight: Weight::FULL, serve_routes };
            let create = Step::Create { slots: slots.clone() };
            let wait = Step::WaitHealthy { slots: slots.clone(), within: service.bounds.progress_deadline };
            let drain = Step::Drain { slots: slots.clone(), within: service.bounds.drain_deadline };
            let retire = Step::Retire { slots };
            self.steps.extend(match old_first {
                true => [shift, drain, retire, create, wait],
                false => [create, wait, shift, drain, retire],
            });
        }
    }

    /// Whether the routes of the target are still to be served.
    pub(super) fn brings_routes(&self) -> bool {
        let is_switched =
            self.steps.iter().any(|step| matches!(step, Step::Shift { serve_routes: true, .. }));
        !is_switched && self.env.routes != self.to
    }

    fn stop_then_start(&mut self, spec: &RevisionSpec, name: &ServiceName) {
        let service = &spec.services[name];
        let Some(moves) = self.moves.get(name).filter(|moves| !moves.enter.is_empty()) else { return };
        if self.manner(service) != Manner::StopThenStart {
            return;
        }
        let slots = moves.entering(name);
        self.steps.extend(stop_then_start(service, slots, &moves.old(name)));
    }

    fn clear_up(&mut self) {
        let old = std::mem::take(&mut self.old);
        if old.is_empty() {
            return;
        }
        let within = drain(self.env, self.to, &old);
        self.steps.push(Step::Drain { slots: old.clone(), within });
        let is_kept = |range: &Slots| {
            if range.is_baseline() {
                return false;
            }
            let service = self.env.service(self.to, &range.service);
            let before = self.env.service(self.env.current, &range.service);
            // What is not routed works for as long as it runs: kept warm, it would work twice.
            before.or(service).is_some_and(is_routed) && self.to.is_some()
        };
        let (kept, mut gone): (Vec<_>, Vec<_>) = old.into_iter().partition(is_kept);
        for (keep_for, slots) in by_warmth(self.env, self.to, kept) {
            if keep_for == Millis(0) {
                gone.extend(slots);
            } else {
                self.steps.push(Step::KeepWarm { slots, keep_for });
            }
        }
        if !gone.is_empty() {
            self.steps.push(Step::Retire { slots: gone });
        }
    }
}

/// The old ones are out of the routes and gone before the new ones are created.
pub(super) fn stop_then_start(service: &Service, slots: Vec<Slots>, old: &[Slots]) -> Vec<Step> {
    let within = service.bounds.progress_deadline;
    let mut steps = vec![Step::Shift { slots: slots.clone(), weight: Weight::FULL, serve_routes: false }];
    if !old.is_empty() {
        if is_routed(service) {
            steps.push(Step::Drain { slots: old.to_vec(), within: service.bounds.drain_deadline });
        }
        steps.push(Step::Retire { slots: old.to_vec() });
    }
    steps.push(Step::Create { slots: slots.clone() });
    steps.push(Step::WaitHealthy { slots, within });
    steps
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
