//! Canaries: a small share of the requests first, then more, then all. Those of services that do not need each other move side by
//! side, stage by stage, and take over in one table.

use kiln_model::release::RevisionSpec;
use kiln_model::rollout::{BASELINE_FIRST, Slots, Step};
use kiln_model::service::{Canary, Strategy, needed};
use kiln_model::{Millis, ServiceName, Weight};

use super::forward::{Between, Forward, Manner};
use super::{drain, progress, runs};

/// One service that is tried out.
struct Trial<'a> {
    name: &'a ServiceName,
    canary: &'a Canary,
    /// The slots that get a new instance, the first ones first.
    entering: Vec<u32>,
    /// The slots that are to be empty.
    leaving: Vec<u32>,
    old: Vec<Slots>,
    /// How many of the slots that enter have their new instance.
    created: usize,
    /// How many slots its baseline has.
    beside: usize,
}

impl Trial<'_> {
    /// How many of those that are left after the last stage are replaced at once; none for all of them.
    fn surge(&self) -> Option<usize> {
        let surge = usize::try_from(self.canary.max_surge?).unwrap_or(usize::MAX).max(1);
        (self.created < self.entering.len()).then_some(surge)
    }

    /// The slots of its baseline. What an earlier rollout left of its own leaves anyway.
    fn baseline(&self) -> impl Iterator<Item = u32> {
        baseline(0, self.beside).filter(|ordinal| !self.leaving.contains(ordinal))
    }

    /// The slots that change hands in the switch.
    fn taking_over(&self) -> Vec<u32> {
        let entering = if self.surge().is_some() { &self.entering[..self.created] } else { &self.entering };
        entering.iter().chain(&self.leaving).copied().chain(self.baseline()).collect()
    }

    /// Where instances are left after it.
    fn leftovers(&self) -> Vec<Slots> {
        let mut old = self.old.clone();
        if self.surge().is_some() {
            let taken = self.taking_over();
            let ordinals = old.iter().flat_map(|range| range.first..range.first + range.count);
            let moved: Vec<u32> = ordinals.filter(|ordinal| taken.contains(ordinal)).collect();
            old = runs(self.name, moved);
        }
        old.extend(runs(self.name, self.baseline()));
        old
    }
}

impl Forward<'_> {
    /// Whether a service begins with a canary.
    pub(super) fn is_tried_out(&self, spec: &RevisionSpec, name: &ServiceName) -> bool {
        self.manner(&spec.services[name]) == Manner::TryOut && self.moves.contains_key(name)
    }

    /// The steps of services that begin with a canary, side by side. Old instances stay in the routes, all of them, until the
    /// last stage of each is through: until then going back is one table.
    pub(super) fn try_out(&mut self, spec: &RevisionSpec, names: &[&ServiceName]) {
        let mut trials: Vec<Trial<'_>> = names.iter().filter_map(|name| self.trial(spec, name)).collect();
        if trials.is_empty() {
            return;
        }
        let moving: Vec<&ServiceName> = trials.iter().map(|trial| trial.name).collect();
        self.pause(spec, &moving, |interludes| &interludes.before);
        let stages = trials.iter().map(|trial| trial.canary.stages.len()).max().unwrap_or(0);
        for stage in 0..stages {
            self.stage(spec, &mut trials, stage);
        }
        let at_once = trials.iter().filter(|it| it.surge().is_none());
        self.create(
            at_once.flat_map(|it| runs(it.name, it.entering[it.created..].iter().copied())).collect(),
        );
        let batched: Vec<&Trial<'_>> = trials.iter().filter(|it| it.surge().is_some()).collect();
        let slots = trials.iter().flat_map(|it| runs(it.name, it.taking_over())).collect();
        // Those of the target are served with the last instances that take over.
        let serve_routes = batched.is_empty() && self.brings_routes();
        self.steps.push(Step::Shift { slots, weight: Weight::FULL, serve_routes });
        for (at, trial) in batched.iter().enumerate() {
            self.follow(spec, trial, at + 1 == batched.len());
        }
        let switched = trials.iter().filter(|it| it.surge().is_none());
        let names: Vec<&ServiceName> = switched.clone().map(|it| it.name).collect();
        self.pause(spec, &names, |interludes| &interludes.moved);
        self.paused.extend(names.into_iter().cloned());
        self.old.extend(switched.flat_map(Trial::leftovers));
    }

    /// The rest of a service whose first new instances have taken over, a few at a time: what they replaced makes room for the
    /// next ones.
    fn follow(&mut self, spec: &RevisionSpec, trial: &Trial<'_>, is_last: bool) {
        let Some(surge) = trial.surge() else { return };
        let name = trial.name;
        self.make_room(trial.leftovers());
        let mut moved = trial.created;
        for slots in trial.entering[trial.created..].chunks(surge) {
            moved += slots.len();
            let serve_routes = is_last && moved == trial.entering.len() && self.brings_routes();
            let slots = runs(name, slots.iter().copied());
            self.create(slots.clone());
            self.steps.push(Step::Shift { slots: slots.clone(), weight: Weight::FULL, serve_routes });
            self.make_room(slots);
        }
        let service = &spec.services[name];
        let Between { moved, drained, retired, .. } = Between::of(self, service);
        self.steps.extend([moved, drained, retired].concat());
    }

    fn make_room(&mut self, old: Vec<Slots>) {
        if !old.is_empty() {
            let within = drain(self.env, self.to, &old);
            self.steps.push(Step::Drain { slots: old.clone(), within });
            self.steps.push(Step::Retire { slots: old });
        }
    }

    fn trial<'a>(&self, spec: &'a RevisionSpec, name: &'a ServiceName) -> Option<Trial<'a>> {
        let Strategy::Canary(canary) = &spec.services[name].strategy else { return None };
        let moves = self.moves.get(name)?;
        let entering = moves.enter.iter().map(|slot| slot.ordinal).collect();
        let (leaving, old) = (moves.leave.clone(), moves.old(name));
        Some(Trial { name, canary, entering, leaving, old, created: 0, beside: 0 })
    }

    /// One stage of each that has so many. Who has fewer keeps its last share until the others are through.
    fn stage(&mut self, spec: &RevisionSpec, trials: &mut [Trial<'_>], index: usize) {
        let (mut slots, mut splits, mut gates) = (Vec::new(), Vec::new(), Vec::new());
        let names: Vec<&ServiceName> = trials.iter().map(|trial| trial.name).collect();
        let window = u32::try_from(index).expect("a canary has few stages");
        for trial in trials {
            let Some(stage) = trial.canary.stages.get(index) else { continue };
            let replicas = self.env.replicas(self.to, trial.name);
            let (from, entering) = (trial.created, &trial.entering);
            let needed = usize::try_from(needed(replicas, stage.weight)).unwrap_or(usize::MAX);
            trial.created = needed.clamp(from, entering.len());
            slots.extend(runs(trial.name, entering[from..trial.created].iter().copied()));
            if trial.canary.compares_at(stage.weight) {
                slots.extend(runs(trial.name, baseline(trial.beside, trial.created)));
                trial.beside = trial.created;
            }
            splits.push(Step::Split { service: trial.name.clone(), weight: stage.weight, window });
            gates.push(self.gates(trial.name, &stage.gates, window));
        }
        // The first ones are looked at before they get anything.
        match index {
            0 => self.create_and_look(spec, &names, slots),
            _ => self.create(slots),
        }
        self.steps.extend(splits);
        self.steps.extend(together(gates));
    }

    fn create(&mut self, slots: Vec<Slots>) {
        self.create_and_look(&RevisionSpec::default(), &[], slots);
    }

    /// Creates instances, with what their services do until they get requests.
    pub(super) fn create_and_look(&mut self, spec: &RevisionSpec, names: &[&ServiceName], slots: Vec<Slots>) {
        if slots.is_empty() {
            return;
        }
        let within = progress(self.env, self.to, &slots);
        self.steps.push(Step::Create { slots: slots.clone() });
        self.pause(spec, names, |interludes| &interludes.created);
        self.steps.push(Step::WaitHealthy { slots, within });
        self.pause(spec, names, |interludes| &interludes.ready);
    }
}

/// What must hold after a stage of several services: the first thing of each, then the second, and so on. Time passes for all at
/// once, and who approves one approves all that ask the same people.
fn together(gates: Vec<Vec<Step>>) -> Vec<Step> {
    let longest = gates.iter().map(Vec::len).max().unwrap_or(0);
    let mut gates: Vec<_> = gates.into_iter().map(Vec::into_iter).collect();
    let mut steps = Vec::new();
    for _ in 0..longest {
        let (mut hold, mut others) = (None::<Millis>, Vec::new());
        let mut approvals: Vec<(Vec<String>, Millis)> = Vec::new();
        for step in gates.iter_mut().filter_map(Iterator::next) {
            match step {
                Step::Hold { span } => hold = hold.max(Some(span)),
                Step::Approve { by, within } => match approvals.iter_mut().find(|(other, _)| *other == by) {
                    Some((_, until)) => *until = (*until).min(within),
                    None => approvals.push((by, within)),
                },
                other => others.push(other),
            }
        }
        steps.extend(hold.map(|span| Step::Hold { span }));
        steps.extend(others);
        steps.extend(approvals.into_iter().map(|(by, within)| Step::Approve { by, within }));
    }
    steps
}

/// The baseline's slots: as many as the canary's.
fn baseline(from: usize, to: usize) -> impl Iterator<Item = u32> {
    let ordinal = |at: usize| BASELINE_FIRST + u32::try_from(at).expect("a service has fewer replicas");
    (from..to).map(ordinal)
}
