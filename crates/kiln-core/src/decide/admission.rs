//! What must hold before a release comes into an environment.

use kiln_model::event::EnvironmentEvent;
use kiln_model::{Digest, EnvKey, EnvName, Event, Millis};

use super::Reply;
use super::work::{Work, brief};
use crate::bounds::APPROVAL_MAX;
use crate::gates::{has_reached, is_at, judge};
use crate::input::{Admission, Refusal};
use crate::state::State;

/// A promotion takes what another environment of the stack was moved to successfully, and nothing else.
pub(super) fn require_reached(
    state: &State,
    env: &EnvKey,
    from: &EnvName,
    release: Digest,
) -> Result<(), Refusal> {
    let from = EnvKey { stack: env.stack.clone(), env: from.clone() };
    let found = state.environment(&from).ok_or_else(|| Refusal::UnknownEnvironment(from.clone()))?;
    if has_reached(found, release) {
        return Ok(());
    }
    Err(Refusal::NotReachedThere { from, release })
}

/// What is to be written down about the gates once the environment exists.
pub(super) struct Passage {
    passed: Option<EnvironmentEvent>,
    declared: Option<EnvironmentEvent>,
}

/// Lets a release through the gates, or refuses it with all that is in its way.
pub(super) fn pass(
    work: &Work<'_>,
    env: &EnvKey,
    release: Digest,
    admission: &Admission,
) -> Result<Passage, Refusal> {
    let verdicts = judge(work.state(), env, release, admission, work.now());
    let is_shut = verdicts.iter().any(|verdict| !verdict.is_open);
    let broken = admission.break_glass.as_deref().filter(|_| is_shut).map(brief);
    if is_shut && broken.is_none() {
        return Err(Refusal::GatesShut { env: env.clone(), verdicts });
    }
    let passed =
        (!verdicts.is_empty()).then_some(EnvironmentEvent::GatesPassed { release, verdicts, broken });
    let found = work.state().environment(env);
    let in_force = found.map(|env| env.gates.clone()).unwrap_or_default();
    // Another binding of the release that is there needs less to come in, so it does not bring other gates.
    let is_new = found.is_none_or(|env| !is_at(env, release));
    let declared = (is_new && in_force != admission.gates)
        .then(|| EnvironmentEvent::GatesDeclared { gates: admission.gates.clone() });
    Ok(Passage { passed, declared })
}

impl Passage {
    /// Writes it down.
    pub(super) fn note(self, work: &mut Work<'_>, env: &EnvKey) {
        for event in self.passed.into_iter().chain(self.declared) {
            work.ask(Some(env), Event::Environment(event));
        }
    }
}

/// Somebody approves a release. Where it is known who may, others are told so at once; the gate asks again.
pub(super) fn approve(
    work: &mut Work<'_>,
    env: &EnvKey,
    release: Digest,
    within: Millis,
) -> Result<Reply, Refusal> {
    let is_known = work.state().environments().any(|other| {
        other.key.stack == env.stack && other.revisions.values().any(|it| it.release == release)
    });
    if !is_known {
        return Err(Refusal::UnknownRelease(env.stack.clone(), release));
    }
    let by = work.state().environment(env).and_then(|found| found.gates.approve.clone()).unwrap_or_default();
    if !by.is_empty() && !by.contains(&work.actor().to_string()) {
        return Err(Refusal::MayNotApprove { env: env.clone(), by });
    }
    let until = work.now().plus(within.min(APPROVAL_MAX));
    let event = EnvironmentEvent::ReleaseApproved { release, until };
    work.ask(Some(env), Event::Environment(event));
    Ok(Reply::Noted)
}
