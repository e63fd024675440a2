//! What can be rolled back to, and the end of an environment.

use std::collections::BTreeSet;

use kiln_model::event::EnvironmentEvent;
use kiln_model::route::Listener;
use kiln_model::{EnvKey, Event, RevisionNumber};

use super::work::{Deed, View, Work};
use crate::bounds::RETAINED_MAX;
use crate::state::{Environment, State};

/// Releases the revisions that nothing needs and that are too old to go back to.
pub(super) fn release(view: View<'_>) -> Vec<Deed> {
    // A rollout may need any of them for its way back.
    if view.env.rollout.is_some() {
        return Vec::new();
    }
    let kept = kept(view.state, view.env);
    let gone = view.env.revisions.keys().filter(|number| !kept.contains(number));
    let event = |number: &RevisionNumber| {
        Deed::Log(Event::Environment(EnvironmentEvent::RevisionReleased { number: *number }))
    };
    gone.map(event).collect()
}

fn kept(state: &State, env: &Environment) -> BTreeSet<RevisionNumber> {
    let recent = env.completed.iter().rev().take(RETAINED_MAX).copied();
    let fixed = [env.current, env.routes, env.previous()].into_iter().flatten();
    let held = state.instances_of(env).filter_map(|instance| instance.revision());
    recent.chain(fixed).chain(held).collect()
}

/// Forgets environments of which nothing is left after a `down`.
pub(super) fn remove(work: &mut Work<'_>) {
    let state = work.state();
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
