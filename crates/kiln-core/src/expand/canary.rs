//! A canary: a small share of the requests first, then more, then all.

use kiln_model::release::RevisionSpec;
use kiln_model::rollout::{BASELINE_FIRST, Slots, Step};
use kiln_model::service::{Canary, Gate, Stage, Strategy};
use kiln_model::{ServiceName, Weight};

use super::forward::{Forward, Manner};
use super::{progress, runs};

impl Forward<'_> {
    /// The steps of a service that begins with a canary. Old instances stay in the routes, all of them, until the last
    /// stage is through: until then going back is one table.
    pub(super) fn try_out(&mut self, spec: &RevisionSpec, name: &ServiceName) {
        let service = &spec.services[name];
        let Strategy::Canary(canary) = &service.strategy else { return };
        if self.manner(service) != Manner::TryOut {
            return;
        }
        let Some(moves) = self.moves.get(name) else { return };
        let (entering, leaving) = (moves.enter.iter().map(|slot| slot.ordinal), moves.leave.iter().copied());
        let (entering, leaving): (Vec<u32>, Vec<u32>) = (entering.collect(), leaving.collect());
        let old = moves.old(name);
        let created = self.stages(name, canary, &entering);
        self.create(runs(name, entering[created..].iter().copied()));
        let has_baseline = canary.is_compared();
        let baseline = baseline(0, if has_baseline { created } else { 0 });
        // What an earlier rollout left of its own leaves anyway.
        let baseline: Vec<u32> = baseline.filter(|ordinal| !leaving.contains(ordinal)).collect();
        let old_baseline = runs(name, baseline.iter().copied());
        let slots = runs(name, entering.into_iter().chain(leaving).chain(baseline));
        let serve_routes = self.brings_routes();
        self.steps.push(Step::Shift { slots, weight: Weight::FULL, serve_routes });
        self.old.extend(old);
        self.old.extend(old_baseline);
    }

    /// Returns how many of the slots that enter have their new instance after the last stage.
    fn stages(&mut self, name: &ServiceName, canary: &Canary, entering: &[u32]) -> usize {
        let replicas = self.env.replicas(self.to, name);
        let mut created = 0;
        for (window, stage) in (0u32..).zip(&canary.stages) {
            let needed = needed(replicas, stage.weight).clamp(created, entering.len());
            let mut slots = runs(name, entering[created..needed].iter().copied());
            if canary.is_compared() {
                slots.extend(runs(name, baseline(created, needed)));
            }
            created = needed;
            self.create(slots);
            self.steps.push(Step::Split { service: name.clone(), weight: stage.weight, window });
            self.steps.extend(gates(name, stage, window));
        }
        created
    }

    fn create(&mut self, slots: Vec<Slots>) {
        if slots.is_empty() {
            return;
        }
        let within = progress(self.env, self.to, &slots);
        self.steps.push(Step::Create { slots: slots.clone() });
        self.steps.push(Step::WaitHealthy { slots, within });
    }
}

fn gates(name: &ServiceName, stage: &Stage, window: u32) -> impl Iterator<Item = Step> {
    stage.gates.iter().map(move |gate| match gate {
        Gate::Hold(span) => Step::Hold { span: *span },
        Gate::Analyse(within) => Step::Analyse { service: name.clone(), window, within: *within },
        Gate::Approve { by, within } => Step::Approve { by: by.clone(), within: *within },
    })
}

/// How many instances serve a share as well as all replicas serve all: at least one.
fn needed(replicas: u32, weight: Weight) -> usize {
    let share = u64::from(replicas) * u64::from(weight.per_mille());
    usize::try_from(share.div_ceil(1000)).unwrap_or(usize::MAX).max(1)
}

/// The baseline's slots: as many as the canary's.
fn baseline(from: usize, to: usize) -> impl Iterator<Item = u32> {
    let ordinal = |at: usize| BASELINE_FIRST + u32::try_from(at).expect("a service has fewer replicas");
    (from..to).map(ordinal)
}
