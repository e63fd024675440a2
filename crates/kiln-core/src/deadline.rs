//! When time alone makes a difference.

use kiln_model::rollout::{Slots, Step};
use kiln_model::{Millis, Timestamp};

use crate::decide::proven_at;
use crate::expand::patience;
use crate::state::{Environment, ListenerPhase, Rollout, State, StepPhase};

/// Returns the first moment after `now` at which a tick may change something; none if only news can.
///
/// What lies at or before `now` was taken into account by the decision at `now`.
pub fn next_deadline(state: &State, now: Timestamp) -> Option<Timestamp> {
    // They are in order, and what is over has made its difference.
    let instances = state.timers.keys().map(|(moment, _)| *moment).find(|moment| *moment > now);
    let environments = state.environments().flat_map(|env| of_environment(state, env));
    let checks = state.checks().filter(|check| !check.answered).map(|check| check.deadline);
    let listeners = state.listeners.values().filter_map(|listener| match &listener.phase {
        ListenerPhase::Failed { retry_at, .. } => Some(*retry_at),
        ListenerPhase::Requested | ListenerPhase::Open { .. } | ListenerPhase::Releasing => None,
    });
    let all = instances.into_iter().chain(environments).chain(checks).chain(listeners);
    all.filter(|moment| *moment > now).min()
}

fn of_environment<'a>(state: &'a State, env: &'a Environment) -> impl Iterator<Item = Timestamp> + use<'a> {
    let running = env.rollout.as_ref().filter(|rollout| rollout.paused.is_none());
    let rollout = running.and_then(|rollout| match (&rollout.halted, rollout.step) {
        (Some(halt), _) => Some(halt.until),
        (None, StepPhase::Started { deadline }) => deadline,
        (None, StepPhase::Waiting) => Some(rollout.moved_at.plus(patience(env, rollout))),
    });
    let tries = running.map(|rollout| rollout.tries.due);
    let proofs = env.rollout.iter().flat_map(|rollout| proofs(state, env, rollout));
    let resting = env
        .services
        .values()
        .flat_map(|service| service.resting.iter().filter_map(|ordinal| service.slots.get(ordinal)?.backoff));
    let backoffs = resting.map(|backoff| backoff.not_before);
    let lifetime = env.lifetime.map(|lifetime| lifetime.until);
    rollout.into_iter().chain(tries).chain(proofs).chain(backoffs).chain(lifetime)
}

/// When the instances that a step waits for have been healthy for long enough.
fn proofs<'a>(
    state: &'a State,
    env: &'a Environment,
    rollout: &'a Rollout,
) -> impl Iterator<Item = Timestamp> + use<'a> {
    let waited_for: &[Slots] = match (rollout.current_step(), rollout.step) {
        (Some(Step::WaitHealthy { slots, .. }), StepPhase::Started { .. }) => slots,
        _ => &[],
    };
    waited_for.iter().flat_map(move |range| {
        // A baseline is of what served before.
        let revision = if range.is_baseline() { rollout.from } else { rollout.target() };
        let service =
            env.service(revision, &range.service).filter(|service| service.bounds.healthy_for > Millis(0));
        let slots = service.and_then(|_| env.services.get(&range.service)).into_iter();
        let slots = slots.flat_map(|state| state.slots.iter()).filter(|(at, _)| range.contains(**at));
        let instances = slots.flat_map(|(_, slot)| &slot.instances).filter_map(|id| state.instance(*id));
        instances.filter_map(move |instance| {
            let service = service.filter(|service| service.spec_digest == instance.spec_digest)?;
            proven_at(rollout, service, instance)
        })
    })
}
