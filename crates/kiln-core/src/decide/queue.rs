//! A release that arrives while another one is rolled out, and waits for its end.

use kiln_model::event::{EnvironmentEvent, RolloutEvent};
use kiln_model::rollout::Cause;
use kiln_model::{EnvKey, Event, RevisionNumber};

use super::work::{Deed, View, Work};
use super::{Reply, lifetime};
use crate::expand::{Manners, expand_forward};
use crate::input::Refusal;

/// Lets a rollout wait for the one that runs. There is one place: who is in it already gives way, for the newer one is what is
/// wanted now.
pub(super) fn put(
    work: &mut Work<'_>,
    key: &EnvKey,
    to: RevisionNumber,
    cause: Cause,
) -> Result<Reply, Refusal> {
    let running = work.state().environment(key).and_then(|env| env.rollout.as_ref());
    let behind = running.map(|rollout| rollout.id).ok_or_else(|| Refusal::NoRollout(key.clone()))?;
    clear(work, key, &format!("{to} took its place"));
    work.ask(Some(key), Event::Environment(EnvironmentEvent::RolloutQueued { to, cause }));
    Ok(Reply::Queued { behind, revision: to })
}

/// Takes what is queued out, if anything is.
pub(super) fn clear(work: &mut Work<'_>, key: &EnvKey, reason: &str) -> Option<RevisionNumber> {
    let to = work.state().environment(key)?.queued.as_ref()?.to;
    let event = EnvironmentEvent::RolloutDequeued { reason: reason.to_owned() };
    work.ask(Some(key), Event::Environment(event));
    Some(to)
}

/// Somebody does not want any more what is queued.
pub(super) fn withdraw(work: &mut Work<'_>, key: &EnvKey) -> Result<Reply, Refusal> {
    if work.state().environment(key).is_none() {
        return Err(Refusal::UnknownEnvironment(key.clone()));
    }
    let revision = clear(work, key, "it was withdrawn").ok_or_else(|| Refusal::NothingQueued(key.clone()))?;
    Ok(Reply::Withdrawn { revision })
}

/// Begins what waited, once nothing runs any more: however that ended. It was asked for when that was known to be under way, and
/// after a failure it may be what repairs it. In an environment whose time is over nothing begins.
pub(super) fn begin(view: View<'_>) -> Vec<Deed> {
    let env = view.env;
    let may_begin = env.rollout.is_none() && !lifetime::is_over(env, view.now);
    let Some(queued) = env.queued.as_ref().filter(|_| may_begin) else { return Vec::new() };
    let to = Some(queued.to);
    let steps = expand_forward(view.state, env, to, Manners { runs_jobs: true, tries_out: true });
    let event = RolloutEvent::Started { from: env.current, to, cause: queued.cause.clone(), steps };
    vec![Deed::AskedBy(queued.by.clone(), Event::Rollout(event))]
}
