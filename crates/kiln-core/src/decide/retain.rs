//! What can be rolled back to, and the end of an environment.

use std::collections::BTreeSet;

use kiln_model::event::EnvironmentEvent;
use kiln_model::route::Listener;
use kiln_model::{EnvKey, Event, RevisionNumber};

use super::work::{Deed, View, Work};
use crate::bounds::RETAINED_MAX;
use crate::state::Environment;

/// Releases the revisions that nothing needs and that are too old to go back to.
pub(super) fn release(view: View<'_>) -> Vec<Deed> {
    // A rollout may need any of them for its way back.
    if view.env.rollout.is_some() {
        return Vec::new();
    }
    let needed = needed(view.env);
    let mut gone: BTreeSet<RevisionNumber> =
        view.env.revisions.keys().copied().filter(|number| !needed.contains(number)).collect();
    if gone.is_empty() {
        return Vec::new();
    }
    for instance in view.state.instances_of(view.env) {
        gone.retain(|number| instance.revision() != Some(*number));
    }
    let event = |number: &RevisionNumber| {
        Deed::Log(Event::Environment(EnvironmentEvent::RevisionReleased { number: *number }))
    };
    gone.iter().map(event).collect()
}

/// The revisions that are kept whether or not an instance of them is left.
fn needed(env: &Environment) -> BTreeSet<RevisionNumber> {
    let recent = env.completed.iter().rev().take(RETAINED_MAX).copied();
    let queued = env.queued.as_ref().map(|queued| queued.to);
    let fixed = [env.current, env.routes, env.previous(), queued].into_iter().flatten();
    recent.chain(fixed).collect()
}

/// Forgets environments of which nothing is left after a `down`.
pub(super) fn remove(work: &mut Work<'_>) {
    let state = work.state();
    if !state.environments().any(|env| env.ending) {
        return;
    }
    // Whoever is told that all is gone may want the port: sockets that nobody needs are closed first, whose ever they were.
    let needed: BTreeSet<Listener> = state.environments().flat_map(Environment::needed_listeners).collect();
    if state.listeners.keys().any(|listener| !needed.contains(listener)) {
        return;
    }
    let is_gone = |env: &&Environment| {
        env.ending
            && env.rollout.is_none()
            && env.routes.is_none()
            && state.is_acknowledged(state.table.version)
            && state.instances_of(env).next().is_none()
            && !state.listeners.contains_key(&Listener::Internal(env.index))
    };
    let gone: Vec<EnvKey> = state.environments().filter(is_gone).map(|env| env.key.clone()).collect();
    for key in gone {
        work.act(Some(&key), Event::Environment(EnvironmentEvent::Removed));
    }
}
