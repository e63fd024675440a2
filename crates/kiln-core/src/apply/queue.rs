//! A rollout that waits for another one to end.

use std::sync::Arc;

use kiln_model::event::EnvironmentEvent;
use kiln_model::{Entry, RevisionNumber};

use super::ApplyError;
use crate::state::{Environment, Queued};

/// The machine of the one place behind a rollout.
pub(super) fn apply(
    env: &mut Environment,
    entry: &Entry,
    event: &EnvironmentEvent,
) -> Result<(), ApplyError> {
    match (&env.queued, event) {
        (None, EnvironmentEvent::RolloutQueued { to, cause })
            if env.rollout.is_some() && env.revisions.contains_key(to) =>
        {
            let (by, since) = (entry.actor.clone(), entry.at);
            env.queued = Some(Arc::new(Queued { to: *to, cause: cause.clone(), by, since }));
            Ok(())
        }
        (Some(_), EnvironmentEvent::RolloutDequeued { .. }) => {
            env.queued = None;
            Ok(())
        }
        (queued, event) => {
            let at = queued.as_ref().map_or("nothing is queued", |_| "a rollout is queued");
            Err(ApplyError::illegal(&env.key, format!("{at}: illegal event {event:?}")))
        }
    }
}

/// A rollout begins: if it is the one that was queued, nothing is any more.
pub(super) fn begin(env: &mut Environment, to: Option<RevisionNumber>) {
    if env.queued.as_ref().is_some_and(|queued| Some(queued.to) == to) {
        env.queued = None;
    }
}
