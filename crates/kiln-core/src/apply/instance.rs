//! The life of an instance.

use std::sync::Arc;

use kiln_model::digest::Digest;
use kiln_model::event::{InstanceEvent, Purpose};
use kiln_model::service::ServiceKind;
use kiln_model::{Entry, InstanceId, InstanceSpec, Millis, Timestamp, Weight};

use super::rollout::slot_mut;
use super::{ApplyError, environment_of, soak, tries};
use crate::bounds::{BACKOFF_FIRST, BACKOFF_FORGET, BACKOFF_MAX};
use crate::state::{Backoff, Environment, Health, Instance, Phase, Rollout, Room, SharedMap, State};

pub(super) fn apply(
    state: &mut State,
    entry: &Entry,
    id: InstanceId,
    event: &InstanceEvent,
) -> Result<(), ApplyError> {
    match event {
        InstanceEvent::Requested { purpose, spec } => request(state, entry, id, purpose, *spec),
        InstanceEvent::Disowned => {
            if state.instances.contains_key(&id) {
                return Err(ApplyError::illegal(id, "it is known, so it can't be disowned"));
            }
            state.used.insert(id);
            state.disowned.insert(id, entry.position);
            Ok(())
        }
        InstanceEvent::Destroyed if state.disowned.remove(&id).is_some() => Ok(()),
        InstanceEvent::Destroyed => destroyed(state, id),
        _ => {
            let before = state.instances.get(&id).cloned().ok_or(ApplyError::UnknownInstance(id))?;
            advance(state, entry, id, event)?;
            keep_index(state, &before);
            count_failure(state, entry, &before, event);
            Ok(())
        }
    }
}

fn request(
    state: &mut State,
    entry: &Entry,
    id: InstanceId,
    purpose: &Purpose,
    digest: Digest,
) -> Result<(), ApplyError> {
    if !state.used.insert(id) {
        return Err(ApplyError::IdReused(id));
    }
    let (env, spec, expected) = match purpose {
        Purpose::Slot { slot, revision } => {
            let env = environment_of(state, entry)?;
            let service = env.service(Some(*revision), &slot.service);
            let service =
                service.ok_or_else(|| ApplyError::illegal(slot, "its revision has no such service"))?;
            let (spec, expected) = (service.spec.clone(), service.spec_digest);
            slot_mut(env, &slot.service, slot.ordinal).instances.push(id);
            (slot.env.clone(), spec, expected)
        }
        Purpose::Check(check) => {
            let found = state.checks.get_mut(check);
            let found = found.ok_or_else(|| ApplyError::illegal(id, "its check does not exist"))?;
            let found = Arc::make_mut(found);
            found.instance = Some(id);
            (found.env.clone(), found.spec.clone(), found.spec_digest)
        }
    };
    if expected != digest {
        return Err(ApplyError::illegal(id, "its spec is not the one of its revision"));
    }
    let instance = new_instance(entry, id, env, purpose.clone(), spec, digest);
    count_room(state, &instance, |room| room.arrive(&instance));
    state.instances.insert(id, Arc::new(instance));
    state.pending.insert(id, ());
    Ok(())
}

/// Takes into account that an instance of a slot comes or goes while a rollout runs.
fn count_room(state: &mut State, instance: &Instance, count: impl FnOnce(&mut Room)) {
    let Purpose::Slot { slot, .. } = &instance.purpose else { return };
    let Some(env) = state.environments.get_mut(&slot.env).filter(|env| env.rollout.is_some()) else { return };
    if let Some(rollout) = &mut Arc::make_mut(env).rollout
        && rollout.room.is_some()
        && let Some(room) = &mut Arc::make_mut(rollout).room
    {
        count(room);
    }
}

fn new_instance(
    entry: &Entry,
    id: InstanceId,
    env: kiln_model::EnvKey,
    purpose: Purpose,
    spec: Arc<InstanceSpec>,
    spec_digest: Digest,
) -> Instance {
    Instance {
        id,
        env,
        purpose,
        spec,
        spec_digest,
        requested: entry.position,
        requested_at: entry.at,
        phase: Phase::Requested,
        address: None,
        started: None,
        started_at: None,
        health: Health::Unknown,
        healthy_since: None,
        exit: None,
        weight: Weight::ZERO,
        unrouted: None,
    }
}

/// The machine of one instance: what may follow what.
fn advance(
    state: &mut State,
    entry: &Entry,
    id: InstanceId,
    event: &InstanceEvent,
) -> Result<(), ApplyError> {
    use InstanceEvent as E;
    let acknowledged = state.table.acknowledged;
    let instance = Arc::make_mut(state.instances.get_mut(&id).expect("the caller found it"));
    let is_out = !instance.is_routed();
    // Nothing is sent to an instance that never was in a table, or that an acknowledged table lacks.
    let is_let_go = is_out && instance.unrouted.is_none_or(|version| version <= acknowledged);
    match (&instance.phase, event) {
        (Phase::Requested, E::Started { address }) => {
            instance.phase = Phase::Running;
            instance.address = Some(*address);
            instance.started = Some(entry.position);
            instance.started_at = Some(entry.at);
        }
        (Phase::Running | Phase::Warm { .. }, E::BecameHealthy) => {
            instance.health = Health::Healthy;
            instance.healthy_since = Some(entry.at);
        }
        (Phase::Running | Phase::Warm { .. }, E::BecameUnhealthy { reason }) => {
            instance.health = Health::Unhealthy { reason: reason.as_str().into() };
            instance.healthy_since = None;
        }
        (Phase::Requested, E::Refused { reason }) => {
            instance.phase = Phase::Ended { refused: Some(reason.as_str().into()) };
        }
        (Phase::Requested | Phase::Running | Phase::Warm { .. }, E::Exited { status }) => {
            instance.phase = Phase::Ended { refused: None };
            instance.exit = Some(*status);
        }
        (phase, E::Exited { status }) if phase.is_leaving() && instance.exit.is_none() => {
            instance.exit = Some(*status);
        }
        (Phase::Running, E::Warmed { until }) if is_out => instance.phase = Phase::Warm { until: *until },
        (Phase::Warm { .. }, E::Recalled) => instance.phase = Phase::Running,
        (
            Phase::Requested | Phase::Running | Phase::Warm { .. } | Phase::Ended { .. },
            E::Retiring { reason, drain_within },
        ) if is_out => {
            instance.phase = Phase::Retiring { reason: reason.as_str().into(), drain_within: *drain_within };
        }
        (Phase::Retiring { .. }, E::Draining { deadline }) if is_let_go => {
            instance.phase = Phase::Draining { deadline: *deadline, since: entry.position };
        }
        (Phase::Retiring { .. } | Phase::Draining { .. }, E::Destroying { grace, cut }) if is_let_go => {
            instance.phase = Phase::Destroying { grace: *grace, cut: *cut, since: entry.position };
        }
        (phase, event) => {
            let routed = if is_out { "" } else { " and routed" };
            let waits = if is_let_go { "" } else { ", and the edge has not let go of it" };
            let reason = format!("it is {}{routed}{waits}: illegal event {event:?}", phase.word());
            return Err(ApplyError::illegal(id, reason));
        }
    }
    Ok(())
}

fn destroyed(state: &mut State, id: InstanceId) -> Result<(), ApplyError> {
    let instance = state.instances.get(&id).ok_or(ApplyError::UnknownInstance(id))?;
    if !matches!(instance.phase, Phase::Destroying { .. }) {
        let reason = format!("it is {}: nobody decided to destroy it", instance.phase.word());
        return Err(ApplyError::illegal(id, reason));
    }
    let instance = state.instances.remove(&id).expect("found above");
    state.pending.remove(&id);
    if let Some(moment) = instance.timer() {
        state.timers.remove(&(moment, id));
    }
    count_room(state, &instance, |room| room.leave(&instance));
    match &instance.purpose {
        Purpose::Slot { slot, .. } => {
            if let Some(env) = state.environments.get_mut(&slot.env) {
                let env = Arc::make_mut(env);
                if let Some(service) = env.services.get_mut(&slot.service) {
                    let service = Arc::make_mut(service);
                    if let Some(place) = service.slots.get_mut(&slot.ordinal) {
                        Arc::make_mut(place).instances.remove(id);
                    }
                }
                super::environment::prune(env, &slot.service, slot.ordinal);
            }
        }
        Purpose::Check(check) => {
            if state.checks.get(check).is_some_and(|check| check.answered) {
                state.checks.remove(check);
            }
        }
    }
    Ok(())
}

/// Keeps what is looked up by phase and by time in step with the instance.
fn keep_index(state: &mut State, before: &Instance) {
    let id = before.id;
    let after = state.instances.get(&id).expect("an event other than its end leaves it there");
    keep(&mut state.pending, id, [before, after].map(|it| it.phase.is_pending()));
    keep(&mut state.leaving, id, [before, after].map(|it| it.phase.awaits_edge()));
    let (old, new) = (before.timer(), after.timer());
    if old != new {
        if let Some(moment) = old {
            state.timers.remove(&(moment, id));
        }
        if let Some(moment) = new {
            state.timers.insert((moment, id), ());
        }
    }
}

/// Keeps an instance in an index, or out of it.
fn keep(index: &mut SharedMap<InstanceId, ()>, id: InstanceId, [was, is]: [bool; 2]) {
    match (was, is) {
        (false, true) => drop(index.insert(id, ())),
        (true, false) => drop(index.remove(&id)),
        (false, false) | (true, true) => {}
    }
}

/// Remembers in the slot and in the rollout that an instance did not do its work.
fn count_failure(state: &mut State, entry: &Entry, before: &Instance, event: &InstanceEvent) {
    let (what, is_final) = match event {
        InstanceEvent::Exited { status } => (status.to_string(), false),
        InstanceEvent::Refused { reason } => (format!("can't be created: {reason}"), true),
        InstanceEvent::BecameUnhealthy { reason } => (format!("unhealthy: {reason}"), false),
        _ => return,
    };
    let Purpose::Slot { slot, .. } = &before.purpose else { return };
    if before.phase.is_leaving() || matches!(before.phase, Phase::Warm { .. }) {
        return;
    }
    let Some(env) = state.environments.get_mut(&slot.env) else { return };
    let env = Arc::make_mut(env);
    let revision = before.revision();
    let is_job = env.service(revision, &slot.service).is_some_and(|service| service.kind == ServiceKind::Job);
    let job_succeeded = is_job && matches!(event, InstanceEvent::Exited { status } if status.is_success());
    if job_succeeded {
        let service = Arc::make_mut(env.services.entry(slot.service.clone()).or_default());
        service.job_done = Some(before.spec_digest);
        return;
    }
    if !is_job && !before.is_unhealthy() {
        push_back(env, entry.at, before);
    }
    soak::failed(env, revision, entry.at);
    if let Some(rollout) = &mut env.rollout
        && rollout.is_for_target(&before.purpose)
    {
        let text: Arc<str> = format!("{}/{}: {what}", slot.service, slot.ordinal).into();
        let rollout = Arc::make_mut(rollout);
        rollout.last_exit = Some(text.clone());
        if rollout.hopeless.is_none() && rollout.soaks(&slot.service, slot.ordinal) {
            rollout.hopeless = Some(format!("{text}, while it soaked").into());
        }
        if is_job && !is_final && tries::failed_job(rollout, &slot.service, entry.at, &text) {
            return;
        }
        if !matches!(event, InstanceEvent::BecameUnhealthy { .. }) {
            count_exit(rollout, text, is_final || is_job);
        }
    }
}

fn count_exit(rollout: &mut Rollout, text: Arc<str>, is_final: bool) {
    rollout.exits += 1;
    if is_final && rollout.hopeless.is_none() {
        rollout.hopeless = Some(text);
    }
}

/// Sets the moment before which the slot gets no other instance with this spec.
fn push_back(env: &mut Environment, at: Timestamp, failed: &Instance) {
    let Purpose::Slot { slot, .. } = &failed.purpose else { return };
    let Some(service) = env.services.get_mut(&slot.service) else { return };
    let service = Arc::make_mut(service);
    let Some(place) = service.slots.get_mut(&slot.ordinal) else { return };
    let place = Arc::make_mut(place);
    let was_well = failed.healthy_since.is_some_and(|since| at.since(since) >= BACKOFF_FORGET);
    let failures = match place.backoff {
        Some(backoff) if backoff.spec == failed.spec_digest && !was_well => {
            backoff.failures.saturating_add(1)
        }
        _ => 1,
    };
    let not_before = at.plus(delay(failures));
    place.backoff = Some(Backoff { spec: failed.spec_digest, failures, not_before });
    service.resting.insert(slot.ordinal);
}

/// How long the slot rests after so many failures in a row: 0, 1 s, 2 s, 4 s and so on.
fn delay(failures: u32) -> Millis {
    match failures.checked_sub(2) {
        None => Millis(0),
        Some(doublings) => {
            let factor = 1u64.checked_shl(doublings).unwrap_or(u64::MAX);
            Millis(BACKOFF_FIRST.0.saturating_mul(factor).min(BACKOFF_MAX.0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_does_not_wait_and_no_wait_is_longer_than_the_limit() {
        assert_eq!([1, 2, 3, 4].map(delay), [0, 1000, 2000, 4000].map(Millis));
        assert_eq!(delay(100), BACKOFF_MAX);
        assert_eq!(delay(u32::MAX), BACKOFF_MAX);
    }
}
