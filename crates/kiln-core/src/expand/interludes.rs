//! What a service's rollout does between its moves.

use kiln_model::ServiceName;
use kiln_model::ask::Again;
use kiln_model::interlude::Interludes;
use kiln_model::release::RevisionSpec;
use kiln_model::rollout::{MIRROR_FIRST, Step};
use kiln_model::service::{Gate, Service, Strategy};
use kiln_model::{Millis, Weight};

use super::forward::{Forward, Manner, Manners};
use super::moves::Moves;
use crate::serving::is_routed;

/// How much of what a service declares is done in a rollout that moves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Everything.
    All,
    /// What nobody has to be there for: where nothing serves yet, nobody is hurt by what comes.
    Unattended,
}

impl Extent {
    /// None where nothing is done: what only gets more replicas has nothing new, and who goes back is in a hurry.
    pub(super) fn of(moves: &Moves, manners: Manners) -> Option<Self> {
        let replaces = moves.enter.iter().any(|slot| slot.has_old);
        match (manners.tries_out, moves.is_serving) {
            (false, _) => None,
            (true, true) => replaces.then_some(Self::All),
            (true, false) => (!moves.enter.is_empty()).then_some(Self::Unattended),
        }
    }
}

/// The jobs that steps of services run: nothing else runs them.
pub(super) fn jobs_of_steps(spec: &RevisionSpec) -> impl Iterator<Item = &ServiceName> {
    spec.services.values().flat_map(Service::gates).filter_map(|gate| match gate {
        Gate::Run { job, .. } | Gate::Check { job, .. } => Some(job),
        Gate::Hold(_) | Gate::Analyse(_) | Gate::Approve { .. } | Gate::Ask(_) | Gate::Mirror { .. } => None,
    })
}

impl Forward<'_> {
    /// The steps of gates of a service. `window` is the split of its requests that is looked at.
    pub(super) fn gates(&self, name: &ServiceName, gates: &[Gate], window: u32) -> Vec<Step> {
        let Some(extent) = self.extents.get(name) else { return Vec::new() };
        let step = |gate: &Gate| match gate {
            // A job has an effect that going back does not undo: it runs for what is new only.
            Gate::Run { job, within } => self.manners.runs_jobs.then(|| {
                let again = Again::default();
                Step::Run { job: job.clone(), within: Some(*within), again }
            }),
            Gate::Check { job, within, again } => {
                Some(Step::Run { job: job.clone(), within: Some(*within), again: *again })
            }
            Gate::Ask(ask) => Some(Step::Ask(ask.clone())),
            _ if *extent == Extent::Unattended => None,
            // Several steps, see below.
            Gate::Mirror { .. } => None,
            Gate::Hold(span) => Some(Step::Hold { span: *span }),
            Gate::Analyse(within) => Some(Step::Analyse { service: name.clone(), window, within: *within }),
            Gate::Approve { by, within } => Some(Step::Approve { by: by.clone(), within: *within }),
        };
        let steps = |(at, gate): (usize, &Gate)| match gate {
            Gate::Mirror { share, span } => self.mirror(name, (*share, *span), at),
            gate => step(gate).into_iter().collect(),
        };
        gates.iter().enumerate().flat_map(steps).collect()
    }

    /// Copies requests, where there are any to copy and new instances that get none: where they stand beside those that serve.
    fn mirror(&self, name: &ServiceName, (share, span): (Weight, Option<Millis>), at: usize) -> Vec<Step> {
        let before = self.env.service(self.env.current, name).filter(|service| is_routed(service));
        let service = before.and_then(|_| self.env.service(self.to, name));
        let stands_beside = |service: &Service| {
            let is_beside = matches!(service.strategy, Strategy::BlueGreen | Strategy::Canary(_));
            is_beside && is_routed(service) && matches!(self.manner(service), Manner::Switch | Manner::TryOut)
        };
        if !service.is_some_and(stands_beside) || self.extents.get(name) != Some(&Extent::All) {
            return Vec::new();
        }
        let at = u32::try_from(at).expect("a rollout has few steps");
        let step = |share| Step::Mirror { service: name.clone(), share, window: MIRROR_FIRST + at };
        let end = span.into_iter().flat_map(|span| [Step::Hold { span }, step(Weight::ZERO)]);
        [step(share)].into_iter().chain(end).collect()
    }

    /// Does what these services declare for a moment of theirs, in this order.
    pub(super) fn pause(
        &mut self,
        spec: &RevisionSpec,
        names: &[&ServiceName],
        moment: impl Fn(&Interludes) -> &[Gate],
    ) {
        for name in names {
            let Some(service) = spec.services.get(*name) else { continue };
            let steps = self.gates(name, moment(&service.interludes), 0);
            self.steps.extend(steps);
        }
    }

    /// Does what stands before new instances of a service that is not replaced slot by slot.
    pub(super) fn pause_before(&mut self, spec: &RevisionSpec, names: &[&ServiceName]) {
        self.pause(spec, names, |interludes| &interludes.before);
        let old_first: Vec<&ServiceName> =
            names.iter().copied().filter(|name| is_old_first(spec, name)).collect();
        self.pause(spec, &old_first, |interludes| &interludes.drained);
        self.pause(spec, &old_first, |interludes| &interludes.retired);
    }
}

pub(super) fn is_old_first(spec: &RevisionSpec, name: &ServiceName) -> bool {
    spec.services.get(name).is_some_and(|service| service.strategy.is_old_first())
}
