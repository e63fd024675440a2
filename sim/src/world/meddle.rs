//! What meets a rollout just as one of its steps begins: another release, somebody's command, an approval, the death of a
//! process. At random moments most of these would fall into the long steps alone.

use std::collections::BTreeSet;

use kiln::controller::Peer;
use kiln_core::{Command, State};
use kiln_model::event::RolloutEvent;
use kiln_model::rollout::Step;
use kiln_model::{Digest, Entry, EnvKey, Event, RevisionNumber};

use super::{Happening, World};
use crate::Violation;
use crate::drill::Drill;
use crate::faults::Fault;
use crate::plant::Plant;

/// What met a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Met {
    /// A newer release.
    Release,
    /// Another command.
    Command,
    /// An approval, by whoever.
    Approval,
    /// The death of the controller.
    Death,
    /// Another fault.
    Fault,
}

/// In how many milliseconds most approvals come that are given all day for.
const APPROVED_WITHIN: u64 = 60_000;

impl World {
    /// Lets something meet the steps that begin in these entries.
    pub(super) fn watch_steps(&mut self, news: &[Entry]) {
        if self.peace {
            return;
        }
        for entry in news {
            let (Some(env), Event::Rollout(RolloutEvent::StepStarted { index, .. })) =
                (&entry.env, &entry.event)
            else {
                continue;
            };
            let rollout = self.witness.state().environment(env).and_then(|found| found.rollout.as_ref());
            // One that went on in the same decision waits for nothing.
            let Some(rollout) = rollout.filter(|rollout| rollout.next == *index) else { continue };
            let Some(step) = rollout.current_step().cloned() else { continue };
            if let Step::Approve { within, .. } = &step {
                self.approve(env, *index, within.0);
            }
            // The steps that only a canary or a wave has are rare.
            let is_rare = matches!(
                step,
                Step::Split { .. }
                    | Step::Hold { .. }
                    | Step::Soak { .. }
                    | Step::Analyse { .. }
                    | Step::Approve { .. }
                    | Step::Ask(_)
                    | Step::Mirror { .. }
            );
            if self.meddler.chance(self.faults.meddling * if is_rare { 3 } else { 1 }) {
                self.meddle(env, *index, kind(&step));
            }
        }
    }

    /// Somebody approves, in time or too late, perhaps twice, perhaps nobody.
    fn approve(&mut self, env: &EnvKey, index: u32, within: u64) {
        for _ in 0..self.meddler.below(4) {
            let ask = self.client.approve(env, index);
            // Nobody waits for a day here.
            let after = self.meddler.between(1, within.min(APPROVED_WITHIN) * 3 / 2);
            self.note("approve", Met::Approval);
            self.queue.add(self.now() + after, Happening::Ask(Box::new(ask)));
        }
    }

    fn meddle(&mut self, env: &EnvKey, index: u32, step: &'static str) {
        // Most often in the same moment, when what the step asks for is on its way.
        let after = if self.meddler.chance(700) { self.meddler.below(5) } else { self.meddler.below(3_000) };
        let away = self.meddler.between(10, 2_000);
        let (met, happening) = match self.meddler.below(8) {
            0..2 => (Met::Death, Happening::Fault(Fault::KillController(away))),
            2 => {
                let peer = *self.meddler.pick(&[Peer::Host, Peer::Edge]);
                let faults = [Fault::KillEdge(away), Fault::KillHost(away), Fault::BreakLink(peer)];
                (Met::Fault, Happening::Fault(*self.meddler.pick(&faults)))
            }
            _ => {
                let ask = self.client.meddle(self.witness.state(), env, index);
                let is_release = matches!(ask.command, Command::Up { .. });
                (if is_release { Met::Release } else { Met::Command }, Happening::Ask(Box::new(ask)))
            }
        };
        self.note(step, met);
        self.queue.add(self.now() + after, happening);
    }

    fn note(&mut self, step: &'static str, met: Met) {
        *self.stats.met.entry((step, met)).or_default() += 1;
    }

    /// Tries on a copy of the state whether some environment can go back to some revision that it has reached.
    pub(super) fn drill(&mut self) -> Result<(), Violation> {
        let state = self.witness.state();
        let reached = |env: &kiln_core::state::Environment| {
            env.completed.iter().map(|number| (env.key.clone(), *number)).collect::<Vec<_>>()
        };
        let all: Vec<(EnvKey, RevisionNumber)> = state.environments().flat_map(reached).collect();
        if all.is_empty() {
            return Ok(());
        }
        let missing =
            if self.plant == Some(Plant::CollectEarly) { old_images(state) } else { BTreeSet::new() };
        let (env, to) = self.meddler.pick(&all).clone();
        self.stats.drills += 1;
        Drill::new(self.witness.state(), missing).roll_back(&env, to).map_err(|detail| {
            Violation::new("a rollback is possible at any moment", format!("{env} to {to}: {detail}"))
        })
    }
}

/// The images that no current revision has.
fn old_images(state: &State) -> BTreeSet<Digest> {
    let images = |is_wanted: &dyn Fn(&kiln_core::state::Environment, RevisionNumber) -> bool| {
        let mut found = BTreeSet::new();
        for env in state.environments() {
            for (number, revision) in env.revisions.iter().filter(|(number, _)| is_wanted(env, **number)) {
                debug_assert_eq!(*number, revision.number);
                found.extend(revision.spec.services.values().map(|service| service.spec.image));
            }
        }
        found
    };
    let current = images(&|env, number| env.current == Some(number));
    images(&|_, _| true).difference(&current).copied().collect()
}

/// The kind of a step, in a word.
fn kind(step: &Step) -> &'static str {
    match step {
        Step::OpenListeners => "open listeners",
        Step::Run { .. } => "run",
        Step::Ask(_) => "ask",
        Step::Create { .. } => "create",
        Step::WaitHealthy { .. } => "wait healthy",
        Step::Shift { .. } => "shift",
        Step::Split { .. } => "split",
        Step::Mirror { .. } => "mirror",
        Step::Hold { .. } => "hold",
        Step::Soak { .. } => "soak",
        Step::Analyse { .. } => "analyse",
        Step::Approve { .. } => "approve",
        Step::Drain { .. } => "drain",
        Step::KeepWarm { .. } => "keep warm",
        Step::Retire { .. } => "retire",
    }
}
