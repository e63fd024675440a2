//! The way to a target.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::ask::Again;
use kiln_model::interlude::Interludes;
use kiln_model::release::RevisionSpec;
use kiln_model::rollout::{Slots, Step};
use kiln_model::service::{Gate, Service, ServiceKind, Strategy};
use kiln_model::{Millis, RevisionNumber, ServiceName, Weight};

use super::interludes::{Extent, is_old_first, jobs_of_steps};
use super::moves::{Moves, moves};
use super::{by_warmth, drain, in_dependency_order, needs, runs};
use crate::bounds::PROMOTE_WITHIN;
use crate::serving::is_routed;
use crate::state::{Environment, State};

/// Returns the steps that take an environment to `to`; none takes everything down.
///
/// In this order: sockets, so that a port in use fails before anything is created; what is new and needed by others, and
/// changed jobs, each after what it needs; everything that is replaced blue-green, in one switch that also brings the
/// routes; rolling services, batch by batch, and canaries, side by side unless one needs another; what stops before it
/// starts. The old instances of the switch are drained and kept warm at the end, so that going back finds them.
pub(crate) fn expand_forward(
    state: &State,
    env: &Environment,
    to: Option<RevisionNumber>,
    manners: Manners,
) -> Vec<Step> {
    let moves = moves(state, env, to);
    let extent = |(name, moves): (&ServiceName, &Moves)| Some((name.clone(), Extent::of(moves, manners)?));
    let extents = moves.iter().filter_map(extent).collect();
    let (steps, old, paused) = (Vec::new(), Vec::new(), Vec::new());
    let mut way = Forward { env, to, manners, moves, extents, steps, old, paused };
    let blank = RevisionSpec::default();
    let spec = env.spec(to).unwrap_or(&blank);
    let needs_sockets =
        !spec.routes.is_empty() || spec.services.values().any(|service| !service.spec.uses.is_empty());
    if needs_sockets {
        way.steps.push(Step::OpenListeners);
    }
    let order = in_dependency_order(spec);
    way.bring_up_what_is_needed(spec, &order);
    way.switch(spec, &order);
    let mut together: Vec<&ServiceName> = Vec::new();
    for name in &order {
        if together.iter().any(|other| needs(spec, name, other)) {
            way.try_out(spec, &std::mem::take(&mut together));
        }
        way.roll(spec, name);
        if way.is_tried_out(spec, name) {
            together.push(name);
        }
    }
    way.try_out(spec, &together);
    for name in &order {
        way.stop_then_start(spec, name);
    }
    way.clear_up(spec);
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
    pub(super) manners: Manners,
    pub(super) moves: BTreeMap<ServiceName, Moves>,
    /// How much of what the services declare between their moves is done.
    pub(super) extents: BTreeMap<ServiceName, Extent>,
    pub(super) steps: Vec<Step>,
    /// Where old instances of the switch are left.
    pub(super) old: Vec<Slots>,
    /// The services that are in the switch, or moved like one.
    pub(super) paused: Vec<ServiceName>,
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
            Strategy::Canary(ref canary) => {
                // What only gets more replicas, or was not routed before, has nothing to be compared with.
                let replaces = moves.is_some_and(|moves| moves.enter.iter().any(|slot| slot.has_old));
                let before = self.env.service(self.env.current, &service.name);
                let is_routed = is_routed(service) && before.is_some_and(is_routed);
                let tries_out = self.manners.tries_out && is_serving && replaces && is_routed;
                match canary.max_surge {
                    _ if tries_out => Manner::TryOut,
                    // Who is in a hurry has no more room than others.
                    Some(surge) if is_serving && replaces => {
                        Manner::Roll { batch: count(surge).max(1), old_first: false }
                    }
                    _ => Manner::Switch,
                }
            }
            Strategy::StopThenStart => Manner::StopThenStart,
            // Where nothing serves yet there is nothing to go easy on.
            Strategy::Rolling { .. } if !is_serving => Manner::Switch,
            Strategy::Rolling { max_surge: 0, max_unavailable: 0, .. } => {
                Manner::Roll { batch: 1, old_first: false }
            }
            Strategy::Rolling { max_surge: 0, max_unavailable, .. } => {
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
        let mut names: Vec<&ServiceName> = Vec::new();
        let of_steps: BTreeSet<&ServiceName> = jobs_of_steps(spec).collect();
        for name in order {
            let service = &spec.services[*name];
            if service.after.iter().any(|other| names.contains(&other)) {
                self.bring_up(spec, &std::mem::take(&mut names), std::mem::take(&mut together));
            }
            if service.kind == ServiceKind::Job {
                let done = self.env.services.get(*name).and_then(|state| state.job_done);
                let is_due = !of_steps.contains(name) && done != Some(service.spec_digest);
                if self.manners.runs_jobs && is_due {
                    self.steps.push(Step::Run {
                        job: (*name).clone(),
                        within: None,
                        again: Again::default(),
                    });
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
            names.push(name);
        }
        self.bring_up(spec, &names, together);
    }

    /// One table for everything that is replaced at once, and for what is removed.
    fn switch(&mut self, spec: &RevisionSpec, order: &[&ServiceName]) {
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
        let is_in = |name: &&&ServiceName| create.iter().any(|range| range.service == ***name);
        let names: Vec<&ServiceName> = order.iter().filter(is_in).copied().collect();
        let waits = names.iter().any(|name| self.waits_for_somebody(spec, name));
        self.pause_before(spec, &names);
        self.create_and_look(spec, &names, create);
        if waits {
            self.steps.push(Step::Approve { by: Vec::new(), within: PROMOTE_WITHIN });
        }
        if serve_routes || !shift.is_empty() {
            self.steps.push(Step::Shift { slots: shift, weight: Weight::FULL, serve_routes });
        }
        self.pause(spec, &names, |interludes| &interludes.moved);
        self.paused.extend(names.into_iter().cloned());
    }

    /// Whether a service is switched only once somebody says so. Who goes back does not wait, and where nothing serves yet there
    /// is nothing to wait for.
    fn waits_for_somebody(&self, spec: &RevisionSpec, name: &ServiceName) -> bool {
        let is_manual = spec.services.get(name).is_some_and(|service| !service.bounds.auto_promote);
        let is_serving = self.moves.get(name).is_some_and(|moves| moves.is_serving);
        is_manual && is_serving && self.manners.tries_out
    }

    fn bring_up(&mut self, spec: &RevisionSpec, names: &[&ServiceName], slots: Vec<Slots>) {
        if slots.is_empty() {
            return;
        }
        self.pause_before(spec, names);
        self.create_and_look(spec, names, slots.clone());
        self.steps.push(Step::Shift { slots, weight: Weight::FULL, serve_routes: false });
        self.pause(spec, names, |interludes| &interludes.moved);
        self.paused.extend(names.iter().copied().cloned());
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
        let (slots, old) = (moves.entering(name), moves.old(name));
        let between = Between::of(self, service);
        self.steps.extend(stop_then_start(service, slots, &old, between));
    }

    /// The end of what was switched: its old instances go, with what its services do meanwhile.
    fn clear_up(&mut self, spec: &RevisionSpec) {
        let old = std::mem::take(&mut self.old);
        let paused = std::mem::take(&mut self.paused);
        let names: Vec<&ServiceName> = paused.iter().filter(|name| !is_old_first(spec, name)).collect();
        if !old.is_empty() {
            let within = drain(self.env, self.to, &old);
            self.steps.push(Step::Drain { slots: old.clone(), within });
        }
        self.pause(spec, &names, |interludes| &interludes.drained);
        self.send_away(old);
        self.pause(spec, &names, |interludes| &interludes.retired);
    }

    /// Keeps old instances warm, or removes them.
    fn send_away(&mut self, old: Vec<Slots>) {
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

/// What one service does between its moves, as steps.
#[derive(Default)]
pub(super) struct Between {
    pub(super) before: Vec<Step>,
    pub(super) created: Vec<Step>,
    pub(super) ready: Vec<Step>,
    pub(super) moved: Vec<Step>,
    pub(super) drained: Vec<Step>,
    pub(super) retired: Vec<Step>,
}

impl Between {
    pub(super) fn of(way: &Forward<'_>, service: &Service) -> Self {
        let Interludes { before, created, ready, moved, drained, retired } = &*service.interludes;
        let steps = |gates: &[Gate]| way.gates(&service.name, gates, 0);
        Self {
            before: steps(before),
            created: steps(created),
            ready: steps(ready),
            moved: steps(moved),
            drained: steps(drained),
            retired: steps(retired),
        }
    }
}

/// The old ones are out of the routes and gone before the new ones are created.
pub(super) fn stop_then_start(
    service: &Service,
    slots: Vec<Slots>,
    old: &[Slots],
    between: Between,
) -> Vec<Step> {
    let within = service.bounds.progress_deadline;
    let mut steps = between.before;
    steps.push(Step::Shift { slots: slots.clone(), weight: Weight::FULL, serve_routes: false });
    if !old.is_empty() && is_routed(service) {
        steps.push(Step::Drain { slots: old.to_vec(), within: service.bounds.drain_deadline });
    }
    steps.extend(between.drained);
    if !old.is_empty() {
        steps.push(Step::Retire { slots: old.to_vec() });
    }
    steps.extend(between.retired);
    steps.push(Step::Create { slots: slots.clone() });
    steps.extend(between.created);
    steps.push(Step::WaitHealthy { slots, within });
    steps.extend(between.ready);
    steps
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
