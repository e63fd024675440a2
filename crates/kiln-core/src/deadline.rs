//! When time alone makes a difference.

use kiln_model::Timestamp;

use crate::expand::patience;
use crate::state::{Environment, ListenerPhase, State, StepPhase};

/// Returns the first moment after `now` at which a tick may change something; none if only news can.
///
/// What lies at or before `now` was taken into account by the decision at `now`.
pub fn next_deadline(state: &State, now: Timestamp) -> Option<Timestamp> {
    // They are in order, and what is over has made its difference.
    let instances = state.timers.keys().map(|(moment, _)| *moment).find(|moment| *moment > now);
    let environments = state.environments().flat_map(of_environment);
    let checks = state.checks().filter(|check| !check.answered).map(|check| check.deadline);
    let listeners = state.listeners.values().filter_map(|listener| match &listener.phase {
        ListenerPhase::Failed { retry_at, .. } => Some(*retry_at),
        ListenerPhase::Requested | ListenerPhase::Open { .. } | ListenerPhase::Releasing => None,
    });
    let all = instances.into_iter().chain(environments).chain(checks).chain(listeners);
    all.filter(|moment| *moment > now).min()
}

fn of_environment(env: &Environment) -> impl Iterator<Item = Timestamp> {
    let running = env.rollout.as_ref().filter(|rollout| rollout.paused.is_none());
    let rollout = running.and_then(|rollout| match rollout.step {
        StepPhase::Started { deadline } => deadline,
        StepPhase::Waiting => Some(rollout.moved_at.plus(patience(env, rollout))),
    });
    let resting = env
        .services
        .values()
        .flat_map(|service| service.resting.iter().filter_map(|ordinal| service.slots.get(ordinal)?.backoff));
    let backoffs = resting.map(|backoff| backoff.not_before);
    rollout.into_iter().chain(backoffs)
}
