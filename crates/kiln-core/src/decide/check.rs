//! Checks on images: boot one, see whether it comes to be healthy, and write down the answer.

use kiln_model::event::{CheckEvent, InstanceEvent};
use kiln_model::{CheckId, Event, Millis};

use super::retire::advance_one;
use super::work::{Deed, Work, brief};
use crate::state::{Check, Health, Instance, Phase, State};

/// Moves every check as far as it goes.
pub(super) fn look(work: &mut Work<'_>) {
    loop {
        let state = work.state();
        let next = state.checks().find_map(|check| Some((check.env.clone(), next_of(work, state, check)?)));
        let Some((env, event)) = next else { return };
        work.act(Some(&env), event);
    }
}

fn next_of(work: &Work<'_>, state: &State, check: &Check) -> Option<Event> {
    let instance = state.instance(check.instance?)?;
    if !check.answered {
        return answer(work, check, instance).map(|event| Event::Check(check.id, event)).or_else(|| {
            let has_settled = instance.phase == Phase::Running
                && instance.settles_at().is_some_and(|moment| moment <= work.now());
            has_settled.then_some(Event::Instance(instance.id, InstanceEvent::BecameHealthy))
        });
    }
    if !instance.phase.is_leaving() {
        let retiring =
            InstanceEvent::Retiring { reason: "the check is over".into(), drain_within: Millis(0) };
        return Some(Event::Instance(instance.id, retiring));
    }
    match advance_one(state, work.observed(), work.now(), instance) {
        Some(Deed::Log(event)) => Some(event),
        Some(Deed::Create { .. } | Deed::AskedBy(..)) | None => None,
    }
}

fn answer(work: &Work<'_>, check: &Check, instance: &Instance) -> Option<CheckEvent> {
    let failed = |reason: String| Some(CheckEvent::Failed { reason: brief(&reason) });
    match (&instance.phase, instance.exit) {
        (Phase::Ended { refused: Some(reason) }, _) => {
            failed(format!("the instance can't be created: {reason}"))
        }
        // Without a health check doing its work and ending well is as good as running.
        (Phase::Ended { .. }, Some(status)) if check.spec.health.is_none() && status.is_success() => {
            Some(CheckEvent::Passed)
        }
        (Phase::Ended { .. }, Some(status)) => failed(format!("the instance {status} before it was healthy")),
        (Phase::Running, None) if instance.health == Health::Healthy => Some(CheckEvent::Passed),
        // Its probes say so only once it has had its time.
        (Phase::Running, None) if let Health::Unhealthy { reason } = &instance.health => {
            failed(format!("the instance was not healthy in time: {reason}"))
        }
        _ if check.deadline <= work.now() => {
            let seen = work.observed().health(instance.id).filter(|seen| !seen.detail.is_empty());
            let detail = seen.map(|seen| format!(": {}", seen.detail)).unwrap_or_default();
            failed(format!("the instance was not healthy in time{detail}"))
        }
        _ => None,
    }
}

/// The check that is running for the same question, if any.
pub(super) fn running(state: &State, is_same: impl Fn(&Check) -> bool) -> Option<CheckId> {
    state.checks().find(|check| !check.answered && is_same(check)).map(|check| check.id)
}
