//! What the edge serves, and the sockets that it serves on.

use std::sync::Arc;

use kiln_model::event::TrafficEvent;
use kiln_model::route::Listener;
use kiln_model::{Entry, InstanceId, Position, Weight};

use super::{ApplyError, environment_of, key_of};
use crate::bounds::LISTENER_RETRY;
use crate::state::{ListenerPhase, ListenerState, State};

pub(super) fn apply(state: &mut State, entry: &Entry, event: &TrafficEvent) -> Result<(), ApplyError> {
    match event {
        TrafficEvent::Shifted { weights } => {
            environment_of(state, entry)?;
            for (id, weight) in weights {
                set_weight(state, entry, *id, *weight)?;
            }
            table_changed(state, entry)
        }
        TrafficEvent::RoutesServed { revision } => {
            let env = environment_of(state, entry)?;
            if revision.is_some_and(|number| !env.revisions.contains_key(&number)) {
                return Err(ApplyError::illegal(
                    &env.key,
                    "the revision whose routes are served is not retained",
                ));
            }
            env.routes = *revision;
            table_changed(state, entry)
        }
        TrafficEvent::Acknowledged { version } => acknowledged(state, *version),
        TrafficEvent::ListenerRequested { listener }
        | TrafficEvent::ListenerOpened { listener }
        | TrafficEvent::ListenerFailed { listener, .. }
        | TrafficEvent::ListenerReleased { listener }
        | TrafficEvent::ListenerClosed { listener } => advance_listener(state, entry, *listener, event),
    }
}

fn table_changed(state: &mut State, entry: &Entry) -> Result<(), ApplyError> {
    state.table.version = entry.position;
    let env = environment_of(state, entry)?;
    if let Some(rollout) = &mut env.rollout {
        Arc::make_mut(rollout).table = entry.position;
    }
    Ok(())
}

fn set_weight(state: &mut State, entry: &Entry, id: InstanceId, weight: Weight) -> Result<(), ApplyError> {
    let env = key_of(entry)?;
    let instance = state.instances.get_mut(&id).ok_or(ApplyError::UnknownInstance(id))?;
    let instance = Arc::make_mut(instance);
    let is_legal = instance.env == *env
        && instance.slot().is_some()
        && (weight <= instance.weight || instance.is_routable());
    if !is_legal {
        let reason =
            format!("it is {} and can't get a weight of {}", instance.phase.word(), weight.per_mille());
        return Err(ApplyError::illegal(id, reason));
    }
    if weight > Weight::ZERO {
        instance.unrouted = None;
    } else if instance.is_routed() {
        instance.unrouted = Some(entry.position);
    }
    instance.weight = weight;
    Ok(())
}

fn acknowledged(state: &mut State, version: Position) -> Result<(), ApplyError> {
    let table = &mut state.table;
    if version > table.version || version <= table.acknowledged {
        let reason = format!("{version} can't be acknowledged after {}", table.acknowledged);
        return Err(ApplyError::illegal("the table", reason));
    }
    table.acknowledged = version;
    Ok(())
}

/// The machine of one socket.
fn advance_listener(
    state: &mut State,
    entry: &Entry,
    listener: Listener,
    event: &TrafficEvent,
) -> Result<(), ApplyError> {
    use TrafficEvent as E;
    let before = state.listeners.get(&listener);
    let since = before.map_or(entry.position, |state| state.since);
    let phase = before.map(|state| &state.phase);
    let (since, phase) = match (phase, event) {
        (
            None | Some(ListenerPhase::Failed { .. } | ListenerPhase::Releasing),
            E::ListenerRequested { .. },
        ) => (entry.position, ListenerPhase::Requested),
        (Some(ListenerPhase::Requested | ListenerPhase::Open { .. }), E::ListenerOpened { .. }) => {
            (since, ListenerPhase::Open { term: entry.term })
        }
        (Some(ListenerPhase::Requested | ListenerPhase::Open { .. }), E::ListenerFailed { reason, .. }) => {
            let retry_at = entry.at.plus(LISTENER_RETRY);
            (since, ListenerPhase::Failed { reason: reason.as_str().into(), retry_at })
        }
        (
            Some(ListenerPhase::Requested | ListenerPhase::Open { .. } | ListenerPhase::Failed { .. }),
            E::ListenerReleased { .. },
        ) => (entry.position, ListenerPhase::Releasing),
        (Some(ListenerPhase::Releasing), E::ListenerClosed { .. }) => {
            state.listeners.remove(&listener);
            return Ok(());
        }
        (phase, event) => {
            return Err(ApplyError::illegal(listener, format!("it is {phase:?}: illegal event {event:?}")));
        }
    };
    // The names of an environment's services are served while their socket is open, and a socket is closed only once the
    // edge acknowledged a table from which nothing leads there any more.
    let was_open = matches!(before.map(|state| &state.phase), Some(ListenerPhase::Open { .. }));
    let is_open = matches!(phase, ListenerPhase::Open { .. });
    let is_internal = matches!(listener, Listener::Internal(_));
    if (is_internal && was_open != is_open) || phase == ListenerPhase::Releasing {
        state.table.version = entry.position;
    }
    state.listeners.insert(listener, ListenerState { since, phase });
    Ok(())
}
