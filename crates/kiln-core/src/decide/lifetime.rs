//! Environments that end: when one's time is over, everything of it goes.

use kiln_model::event::{EnvironmentEvent, RolloutEvent};
use kiln_model::rollout::{Cause, Outcome};
use kiln_model::{EnvKey, Event, RevisionNumber, Timestamp};

use super::work::Work;
use crate::expand::{Manners, expand_forward};
use crate::input::{Lasting, Refusal};
use crate::state::Environment;

/// Writes down how long the environment is to last from now on, if anything is asked for or it ends by itself.
pub(super) fn set(work: &mut Work<'_>, key: &EnvKey, lasting: Lasting) -> Result<(), Refusal> {
    let found = work.state().environment(key);
    let before = found.and_then(|env| env.lifetime);
    // What was never meant to end holds what people rely on; a word on the command line must not change that.
    if matches!(lasting, Lasting::For(_)) && found.is_some_and(is_lasting) {
        return Err(Refusal::LastsForEver(key.clone()));
    }
    let ttl = match lasting {
        Lasting::For(ttl) => Some(ttl),
        Lasting::AsBefore => before.map(|lifetime| lifetime.ttl),
        Lasting::ForEver => None,
    };
    if ttl.is_none() && before.is_none() {
        return Ok(());
    }
    let event = EnvironmentEvent::LifetimeSet { lifetime: ttl.map(|ttl| (ttl, work.now().plus(ttl))) };
    work.ask(Some(key), Event::Environment(event));
    Ok(())
}

/// Whether it was made without an end. One that was created just now was not made yet.
fn is_lasting(env: &Environment) -> bool {
    env.lifetime.is_none() && env.last_number > RevisionNumber(0)
}

/// Takes down what has outlived its time, whatever it is about, and returns whether anything had. What goes back to nothing is
/// let alone until it has: then nothing is left that a rollout could take down, or it is taken down as all others are.
pub(super) fn end(work: &mut Work<'_>) -> bool {
    let now = work.now();
    let is_over = |env: &&Environment| {
        let goes = env.ending || env.rollout.as_ref().is_some_and(|it| it.target().is_none());
        !goes && is_over(env, now)
    };
    let over: Vec<EnvKey> = work.state().environments().filter(is_over).map(|env| env.key.clone()).collect();
    for key in &over {
        take_down(work, key);
    }
    !over.is_empty()
}

/// Whether its time is over.
pub(super) fn is_over(env: &Environment, now: Timestamp) -> bool {
    env.lifetime.is_some_and(|lifetime| lifetime.until <= now)
}

fn take_down(work: &mut Work<'_>, key: &EnvKey) {
    work.act(Some(key), Event::Environment(EnvironmentEvent::Expired));
    if work.state().environment(key).is_some_and(|env| env.queued.is_some()) {
        let reason = "the time of the environment is over".to_owned();
        work.act(Some(key), Event::Environment(EnvironmentEvent::RolloutDequeued { reason }));
    }
    if work.state().environment(key).is_some_and(|env| env.rollout.is_some()) {
        let reason = "the time of the environment is over".to_owned();
        let event = RolloutEvent::Finished { outcome: Outcome::Superseded, reason };
        work.act(Some(key), Event::Rollout(event));
    }
    let Some(env) = work.state().environment(key) else { return };
    let steps = expand_forward(work.state(), env, None, Manners { runs_jobs: false, tries_out: false });
    let event = RolloutEvent::Started { from: env.current, to: None, cause: Cause::Down, steps };
    work.act(Some(key), Event::Rollout(event));
}
