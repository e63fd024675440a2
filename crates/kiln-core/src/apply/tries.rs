//! The attempts of a check: how they end, and when the next one is due.

use kiln_model::ask::Again;
use kiln_model::rollout::Step;
use kiln_model::{Millis, ServiceName, Timestamp};

use crate::bounds::ASKED_WITHIN;
use crate::state::{Rollout, StepPhase};

/// Whether the step that runs is one of attempts, and waits for one.
pub(super) fn may_end(rollout: &Rollout) -> bool {
    let is_running = rollout.step != StepPhase::Waiting && rollout.halted.is_none();
    is_running && !rollout.tries.passed && bound(rollout).is_some()
}

/// Takes the end of an attempt.
pub(super) fn ended(rollout: &mut Rollout, at: Timestamp, passed: bool, text: &str) {
    if passed {
        rollout.tries.passed = true;
        rollout.tries.last = text.into();
        return;
    }
    fail(rollout, at, text);
    if rollout.hopeless.is_none()
        && bound(rollout).is_some_and(|(again, _)| rollout.tries.failed >= again.attempts)
    {
        let told = rollout.tries.told();
        rollout.hopeless = Some(match rollout.current_step() {
            Some(Step::Ask(ask)) => format!("{ask}: {told}").into(),
            _ => told,
        });
    }
}

/// Takes the failure of a check's job. False if it is no check, or if nothing more is tried.
pub(super) fn failed_job(rollout: &mut Rollout, job: &ServiceName, at: Timestamp, text: &str) -> bool {
    let is_tried = matches!(rollout.current_step(), Some(Step::Run { job: other, .. }) if other == job);
    if !is_tried || !may_end(rollout) {
        return false;
    }
    ended(rollout, at, false, text);
    true
}

/// How often the step that runs is tried, and how long one attempt may take.
fn bound(rollout: &Rollout) -> Option<(Again, Millis)> {
    match rollout.current_step()? {
        Step::Ask(ask) => Some((ask.again, Millis(ask.timeout.0.saturating_add(ASKED_WITHIN.0)))),
        Step::Run { within: Some(within), again, .. } if again.attempts > 1 => Some((*again, *within)),
        _ => None,
    }
}

fn fail(rollout: &mut Rollout, at: Timestamp, text: &str) {
    let Some((again, within)) = bound(rollout) else { return };
    // The time of a pause is added to what is waited for when it ends.
    let now = rollout.paused.as_ref().map_or(at, |pause| pause.since.min(at));
    if let Some(deadline) = rollout.tries.fail(again, within, now, text) {
        rollout.step = StepPhase::Started { deadline: Some(deadline) };
    }
}
