//! When time alone makes a difference.

use kiln_model::Timestamp;

use crate::bounds::SETTLE;
use crate::expand::patience;
use crate::state::{Environment, Health, Instance, ListenerPhase, Phase, State, StepPhase};

/// Returns the first moment after `now` at which a tick may change something; none if only news can.
///
/// What lies at or before `now` was taken into account by the decision at `now`.
pub fn next_deadline(state: &State, now: Timestamp) -> Option<Timestamp> {
    let instances = state.instances().filter_map(of_instance);
    let environments = state.environments().flat_map(of_environment);
    let checks = state.checks().filter(|check| !check.answered).map(|check| check.deadline);
    let listeners = state.listeners.values().filter_map(|listener| match &listener.phase {
        ListenerPhase::Failed { retry_at, .. } => Some(*retry_at),
        ListenerPhase::Requested | ListenerPhase::Open { .. } | ListenerPhase::Releasing => None,
    });
    let all = instances.chain(environments).chain(checks).chain(listeners);
    all.filter(|moment| *moment > now).min()
}

fn of_instance(instance: &Instance) -> Option<Timestamp> {
    match &instance.phase {
        Phase::Running => settles_at(instance),
        Phase::Warm { until } => Some(*until),
        Phase::Draining { deadline, .. } => Some(*deadline),
        Phase::Requested | Phase::Ended { .. } | Phase::Retiring { .. } | Phase::Destroying { .. } => None,
    }
}

/// When an instance that has no health check counts as healthy; none if it has one or already does.
pub(crate) fn settles_at(instance: &Instance) -> Option<Timestamp> {
    let is_open = instance.spec.health.is_none() && instance.health == Health::Unknown;
    instance.started_at.filter(|_| is_open).map(|started| started.plus(SETTLE))
}

fn of_environment(env: &Environment) -> impl Iterator<Item = Timestamp> {
    let rollout = env.rollout.as_ref().and_then(|rollout| match rollout.step {
        StepPhase::Started { deadline } => deadline,
        StepPhase::Waiting => Some(rollout.moved_at.plus(patience(env, rollout))),
    });
    let slots = env.services.values().flat_map(|service| service.slots.values());
    let backoffs = slots.filter_map(|slot| slot.backoff).map(|backoff| backoff.not_before);
    rollout.into_iter().chain(backoffs)
}
