//! A rollout that failed and does not go back by itself: it stops, and somebody decides.

use kiln_model::event::RolloutEvent;
use kiln_model::rollout::{Cause, Slots, Step};
use kiln_model::{Event, ServiceName};

use super::rollout::going_back;
use super::work::{Deed, View, brief};
use crate::bounds::HALTED_WITHIN;
use crate::state::{Halt, Rollout};

/// The stop of a rollout that failed; none if it goes back by itself.
///
/// It moves everything or nothing, so one service that it moves and that asks for it is enough. Who goes back already, and who
/// takes everything down, has nothing to look at.
pub(super) fn stop(view: View<'_>, rollout: &Rollout, reason: &str) -> Option<Deed> {
    let is_new = matches!(rollout.cause, Cause::Up | Cause::Promotion { .. });
    let spec = view.env.spec(rollout.to).filter(|_| is_new && !rollout.is_going_back())?;
    let mut asking = spec.services.values().filter(|service| !service.bounds.auto_revert);
    asking.any(|service| rollout.steps.iter().any(|step| is_about(step, &service.name))).then(|| {
        let until = view.now.plus(HALTED_WITHIN);
        Deed::Log(Event::Rollout(RolloutEvent::Halted { reason: brief(reason), until }))
    })
}

/// What becomes of one that stopped: it goes back where nobody decided in time.
pub(super) fn wait(view: View<'_>, rollout: &Rollout, halt: &Halt) -> Vec<Deed> {
    if halt.until > view.now {
        return Vec::new();
    }
    let reason = format!("{}; nobody decided within {HALTED_WITHIN}", halt.reason);
    vec![going_back(view, rollout, brief(&reason))]
}

fn is_about(step: &Step, name: &ServiceName) -> bool {
    let holds = |slots: &[Slots]| slots.iter().any(|range| range.service == *name);
    match step {
        Step::Run { job, .. } => job == name,
        Step::Create { slots } | Step::Shift { slots, .. } => holds(slots),
        // Whatever else is done about a service comes with one of those.
        _ => false,
    }
}
