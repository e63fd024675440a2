//! Sockets: open while a route or a name needs them. One that is released is closed once no table that the edge may serve
//! leads there: see [`crate::outstanding()`].

use std::collections::BTreeSet;

use kiln_model::Event;
use kiln_model::event::TrafficEvent;
use kiln_model::route::Listener;

use super::work::Work;
use crate::state::{Environment, ListenerPhase};

/// Requests what is needed and missing, and releases what is not needed.
pub(super) fn look(work: &mut Work<'_>) {
    let (state, now) = (work.state(), work.now());
    let needed: BTreeSet<Listener> = state.environments().flat_map(Environment::needed_listeners).collect();
    let mut events = Vec::new();
    for listener in &needed {
        let is_due = match state.listeners.get(listener).map(|found| &found.phase) {
            None | Some(ListenerPhase::Releasing) => true,
            Some(ListenerPhase::Failed { retry_at, .. }) => *retry_at <= now,
            Some(ListenerPhase::Requested | ListenerPhase::Open { .. }) => false,
        };
        if is_due {
            events.push(TrafficEvent::ListenerRequested { listener: *listener });
        }
    }
    for (listener, found) in &state.listeners {
        if !needed.contains(listener) && found.phase != ListenerPhase::Releasing {
            events.push(TrafficEvent::ListenerReleased { listener: *listener });
        }
    }
    for event in events {
        work.act(None, Event::Traffic(event));
    }
}
