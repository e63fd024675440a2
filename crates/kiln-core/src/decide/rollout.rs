//! The engine: one step after the other, and the way back.

use std::sync::Arc;

use kiln_model::event::RolloutEvent;
use kiln_model::rollout::{Outcome, Step};
use kiln_model::{Event, Timestamp};

use super::gate::{self, Gate};
use super::work::{Deed, View, brief};
use super::{halt, queue, step};
use crate::bounds::ROLLOUT_EXITS_MAX;
use crate::expand::{deadline_of, expand_back, patience};
use crate::state::{Direction, Rollout, StepPhase};

/// Moves the rollout as far as one look allows.
pub(super) fn advance(view: View<'_>) -> Vec<Deed> {
    let Some(rollout) = &view.env.rollout else { return queue::begin(view) };
    if let Some(halt) = &rollout.halted {
        return halt::wait(view, rollout, halt);
    }
    if let Some(reason) = hopeless(view, rollout) {
        return fail(view, rollout, &reason);
    }
    // What they are judged by is no matter of instances.
    let is_judged = view.focus.rollout || view.focus.is_everything;
    if is_judged && let Some((verdict, reason)) = gate::failed(view, rollout) {
        return [vec![verdict], fail(view, rollout, &reason)].concat();
    }
    let Some(step) = rollout.current_step() else { return vec![finished(rollout)] };
    match rollout.step {
        StepPhase::Waiting if rollout.paused.is_some() => Vec::new(),
        StepPhase::Waiting => begin(view, rollout, step),
        StepPhase::Started { deadline } => go_on(view, rollout, step, deadline),
    }
}

fn log(event: RolloutEvent) -> Deed {
    Deed::Log(Event::Rollout(event))
}

fn begin(view: View<'_>, rollout: &Rollout, step: &Step) -> Vec<Deed> {
    if !step::may_begin(view, rollout, step) {
        let is_over = rollout.moved_at.plus(patience(view.env, rollout)) <= view.now;
        return if is_over { fail(view, rollout, &step::too_few(view, rollout, step)) } else { Vec::new() };
    }
    let deadline = deadline_of(view.state, view.env, rollout, step, view.now);
    let mut deeds = vec![log(RolloutEvent::StepStarted { index: rollout.next, deadline })];
    deeds.extend(step::enter(view, rollout, step));
    deeds
}

fn go_on(view: View<'_>, rollout: &Rollout, step: &Step, deadline: Option<Timestamp>) -> Vec<Deed> {
    let completed = || vec![log(RolloutEvent::StepCompleted { index: rollout.next })];
    if step::is_complete(view, rollout, step) {
        return completed();
    }
    let is_late = rollout.paused.is_none() && deadline.is_some_and(|deadline| deadline <= view.now);
    if let Step::Analyse { service, window, .. } = step {
        return match gate::analyse(view, rollout, (service, *window), is_late) {
            Gate::Wait(deeds) => deeds,
            Gate::Open(deeds) => [deeds, completed()].concat(),
            Gate::Shut(deeds, reason) => [deeds, fail(view, rollout, &reason)].concat(),
        };
    }
    if !is_late {
        return step::insist(view, rollout, step);
    }
    if let Some(deeds) = step::try_again(view, rollout, step) {
        return deeds;
    }
    match step {
        // What is in flight is cut when its instance goes, and what is not destroyed yet will be: neither is a reason to
        // undo a switch that is complete.
        Step::Drain { .. } | Step::Retire { .. } | Step::KeepWarm { .. } => completed(),
        Step::Hold { .. } => completed(),
        Step::Soak { slots, .. } if step::are_well(view, rollout, slots) => completed(),
        Step::OpenListeners
        | Step::Run { .. }
        | Step::Ask(_)
        | Step::Create { .. }
        | Step::WaitHealthy { .. }
        | Step::Shift { .. }
        | Step::Split { .. }
        | Step::Mirror { .. }
        | Step::Analyse { .. }
        | Step::Soak { .. }
        | Step::Approve { .. } => fail(view, rollout, &step::too_late(view, rollout, step)),
    }
}

/// Why there is no sense in waiting; none if there is.
fn hopeless(view: View<'_>, rollout: &Rollout) -> Option<Arc<str>> {
    if let Some(reason) = &rollout.hopeless {
        return Some(reason.clone());
    }
    if rollout.exits >= ROLLOUT_EXITS_MAX {
        let last = rollout.last_exit.as_deref().unwrap_or("an instance ended");
        return Some(format!("{last}; new instances ended {} times", rollout.exits).into());
    }
    step::failed_listener(view, rollout)
}

fn fail(view: View<'_>, rollout: &Rollout, reason: &str) -> Vec<Deed> {
    if let Direction::Back { reason: first } = &rollout.direction {
        let reason = brief(&format!("going back failed: {reason}; it went back because {first}"));
        return vec![log(RolloutEvent::Finished { outcome: Outcome::Stuck, reason })];
    }
    vec![halt::stop(view, rollout, reason).unwrap_or_else(|| going_back(view, rollout, brief(reason)))]
}

/// The event that turns a rollout round.
pub(super) fn going_back(view: View<'_>, rollout: &Rollout, reason: String) -> Deed {
    let steps = expand_back(view.state, view.env, rollout.from);
    log(RolloutEvent::GoingBack { reason, steps })
}

fn finished(rollout: &Rollout) -> Deed {
    let (outcome, reason) = match &rollout.direction {
        Direction::Forward => (Outcome::Completed, String::new()),
        Direction::Back { reason } if rollout.from.is_none() => {
            (Outcome::WentBack, format!("{reason}; there was nothing to go back to, so nothing serves"))
        }
        Direction::Back { reason } => (Outcome::WentBack, reason.to_string()),
    };
    log(RolloutEvent::Finished { outcome, reason })
}
