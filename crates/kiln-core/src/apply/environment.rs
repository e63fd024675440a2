//! Environments and their revisions.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_model::event::EnvironmentEvent;
use kiln_model::rollout::ReplicaOwner;
use kiln_model::route::Listener;
use kiln_model::{Entry, EnvKey, RevisionNumber, ServiceName};

use super::{ApplyError, environment_of, key_of, queue, soak};
use crate::bounds::{ENVIRONMENTS_MAX, EXPIRE_RETRY, REPLICAS_MAX};
use crate::state::{Environment, Lifetime, ReplicaOverride, ServiceState, State};

pub(super) fn apply(state: &mut State, entry: &Entry, event: &EnvironmentEvent) -> Result<(), ApplyError> {
    match event {
        EnvironmentEvent::Created { index } => created(state, entry, *index),
        EnvironmentEvent::RevisionSealed { revision } => {
            let env = environment_of(state, entry)?;
            let expected = RevisionNumber(env.last_number.0 + 1);
            if revision.number != expected {
                let reason = format!("its next revision is {expected}, not {}", revision.number);
                return Err(ApplyError::illegal(&env.key, reason));
            }
            env.last_number = expected;
            env.revisions.insert(expected, revision.clone());
            Ok(())
        }
        EnvironmentEvent::RevisionReleased { number } => {
            let env = environment_of(state, entry)?;
            let queued = env.queued.as_ref().map(|queued| queued.to);
            let in_use = [env.current, env.routes, env.target(), queued].contains(&Some(*number));
            if in_use || env.revisions.remove(number).is_none() {
                return Err(ApplyError::illegal(&env.key, format!("revision {number} can't be released")));
            }
            env.completed.retain(|other| other != number);
            soak::forget(env);
            Ok(())
        }
        EnvironmentEvent::ReplicasSet { service, replicas, owner } => {
            let env = environment_of(state, entry)?;
            replicas_set(env, service, *replicas, *owner)
        }
        EnvironmentEvent::Removed => removed(state, entry),
        EnvironmentEvent::GatesDeclared { gates } => {
            environment_of(state, entry)?.gates = gates.clone();
            Ok(())
        }
        EnvironmentEvent::ReleaseApproved { release, until } => {
            soak::approved(state, entry, *release, *until)
        }
        EnvironmentEvent::GatesPassed { .. } => environment_of(state, entry).map(drop),
        EnvironmentEvent::LifetimeSet { lifetime } => {
            environment_of(state, entry)?.lifetime = lifetime.map(|(ttl, until)| Lifetime { ttl, until });
            Ok(())
        }
        EnvironmentEvent::Expired => {
            let env = environment_of(state, entry)?;
            let Some(lifetime) = env.lifetime.as_mut().filter(|it| it.until <= entry.at) else {
                return Err(ApplyError::illegal(&env.key, "its time is not over"));
            };
            // Taking it down may fail: then it is tried again.
            lifetime.until = entry.at.plus(EXPIRE_RETRY);
            Ok(())
        }
        EnvironmentEvent::RolloutQueued { .. } | EnvironmentEvent::RolloutDequeued { .. } => {
            queue::apply(environment_of(state, entry)?, entry, event)
        }
    }
}

fn created(state: &mut State, entry: &Entry, index: u8) -> Result<(), ApplyError> {
    let key = key_of(entry)?;
    let is_taken = state.environments.values().any(|env| env.index == index);
    if is_taken || index >= ENVIRONMENTS_MAX || state.environments.contains_key(key) {
        return Err(ApplyError::illegal(key, format!("can't be created with index {index}")));
    }
    let env = Environment {
        key: key.clone(),
        index,
        created_at: entry.at,
        revisions: BTreeMap::new(),
        last_number: RevisionNumber(0),
        completed: Vec::new(),
        current: None,
        routes: None,
        rollout: None,
        last_rollout: None,
        services: BTreeMap::new(),
        ending: false,
        gates: crate::gates::none(),
        served: Vec::new(),
        lifetime: None,
        queued: None,
    };
    state.environments.insert(key.clone(), Arc::new(env));
    Ok(())
}

fn replicas_set(
    env: &mut Environment,
    service: &ServiceName,
    replicas: u32,
    owner: ReplicaOwner,
) -> Result<(), ApplyError> {
    let declared = env.service(env.target(), service).map(|found| found.replicas);
    let Some(declared) = declared.filter(|_| replicas <= REPLICAS_MAX) else {
        return Err(ApplyError::illegal(&env.key, format!("{service} can't have {replicas} replicas")));
    };
    let state = Arc::make_mut(env.services.entry(service.clone()).or_default());
    state.replicas = match owner {
        ReplicaOwner::Declared => None,
        ReplicaOwner::Hand | ReplicaOwner::Autoscaler => Some(ReplicaOverride { replicas, owner, declared }),
    };
    super::scale::follow(env, service);
    Ok(())
}

fn removed(state: &mut State, entry: &Entry) -> Result<(), ApplyError> {
    let key: &EnvKey = key_of(entry)?;
    let env = state.environments.get(key).ok_or_else(|| ApplyError::UnknownEnvironment(key.clone()))?;
    let is_gone = env.rollout.is_none()
        && state.instances_of(env).next().is_none()
        && env.routes.is_none()
        && !state.listeners.contains_key(&Listener::Internal(env.index));
    if !is_gone {
        return Err(ApplyError::illegal(key, "something of it is left"));
    }
    state.environments.remove(key);
    state.approvals.remove(key);
    Ok(())
}

/// Forgets a slot that says nothing any more, and then its service if that says nothing either.
pub(super) fn prune(env: &mut Environment, service: &ServiceName, ordinal: u32) {
    let Some(found) = env.services.get_mut(service) else { return };
    let is_blank = found.slots.get(&ordinal).is_some_and(|slot| **slot == Default::default());
    if is_blank {
        Arc::make_mut(found).slots.remove(&ordinal);
    }
    if **found == ServiceState::default() {
        env.services.remove(service);
    }
}
