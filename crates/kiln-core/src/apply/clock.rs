//! A jump of the wall clock is no time that passed: what is running goes on for as long as it was meant to.

use std::collections::BTreeSet;
use std::sync::Arc;

use kiln_model::{InstanceId, Millis, Timestamp};

use crate::state::{Environment, Instance, ListenerPhase, Phase, SharedMap, State, StepPhase};

/// Moves every deadline that is running, and every moment from which one derives.
pub(super) fn extend(state: &mut State, by: Millis) {
    for instance in state.instances.values_mut() {
        extend_instance(Arc::make_mut(instance), by);
    }
    let timers = state.instances.values().filter_map(|instance| Some((instance.timer()?, instance.id)));
    let timers: BTreeSet<(Timestamp, InstanceId)> = timers.collect();
    state.timers = SharedMap::default();
    for timer in timers {
        state.timers.insert(timer, ());
    }
    for env in state.environments.values_mut() {
        extend_environment(Arc::make_mut(env), by);
    }
    for check in state.checks.values_mut() {
        later(&mut Arc::make_mut(check).deadline, by);
    }
    for listener in state.listeners.values_mut() {
        if let ListenerPhase::Failed { retry_at, .. } = &mut listener.phase {
            later(retry_at, by);
        }
    }
}

fn extend_instance(instance: &mut Instance, by: Millis) {
    match &mut instance.phase {
        Phase::Warm { until } => later(until, by),
        Phase::Draining { deadline, .. } => later(deadline, by),
        Phase::Requested
        | Phase::Running
        | Phase::Ended { .. }
        | Phase::Retiring { .. }
        | Phase::Destroying { .. } => {}
    }
    for moment in [&mut instance.started_at, &mut instance.healthy_since].into_iter().flatten() {
        later(moment, by);
    }
}

fn extend_environment(env: &mut Environment, by: Millis) {
    if let Some(lifetime) = &mut env.lifetime {
        later(&mut lifetime.until, by);
    }
    for since in env.served.iter_mut().filter_map(|served| served.since.as_mut()) {
        later(since, by);
    }
    if let Some(rollout) = &mut env.rollout {
        let rollout = Arc::make_mut(rollout);
        later(&mut rollout.moved_at, by);
        later(&mut rollout.tries.due, by);
        if let StepPhase::Started { deadline: Some(deadline) } = &mut rollout.step {
            later(deadline, by);
        }
        if let Some(pause) = &mut rollout.paused {
            later(&mut pause.since, by);
        }
        if let Some(halt) = &mut rollout.halted {
            later(&mut halt.until, by);
        }
    }
    for service in env.services.values_mut() {
        for slot in Arc::make_mut(service).slots.values_mut() {
            if slot.backoff.is_some() {
                let backoff = Arc::make_mut(slot).backoff.as_mut();
                later(&mut backoff.expect("it is there: checked above").not_before, by);
            }
        }
    }
}

fn later(moment: &mut Timestamp, by: Millis) {
    *moment = moment.plus(by);
}
