//! What somebody asks for: refused with nothing changed, or written down.

use std::sync::Arc;

use kiln_model::event::{CheckEvent, ControlEvent, EnvironmentEvent, InstanceEvent, Purpose, RolloutEvent};
use kiln_model::release::{RequiredCheck, Revision, RevisionSpec};
use kiln_model::rollout::{Cause, Outcome, ReplicaOwner, Step};
use kiln_model::{CheckId, Digest, EnvKey, Event, InstanceSpec, RevisionNumber, RolloutId, ServiceName};

use super::focus::Focus;
use super::work::{Deed, View, Work, brief};
use super::{Reply, admission, check, compose, lifetime, queue, rollout};
use crate::bounds::{ABORTED, ENVIRONMENTS_MAX, REPLICAS_MAX};
use crate::expand::{Manners, expand_forward};
use crate::input::{Admission, Command, IfRunning, Refusal};
use crate::state::{Environment, State, StepPhase};

/// The environment that the command changed, and the answer.
type Answer = Result<(Option<EnvKey>, Reply), Refusal>;

/// Carries out a command on the speculative state. After a refusal the work must be dropped.
pub(super) fn run(work: &mut Work<'_>, command: &Command) -> Answer {
    let reply = match command {
        Command::Up { env, origin, adopt, base, release, binding, spec, checks, admission } => {
            match &admission.promoted_from {
                Some(from) => admission::require_reached(work.state(), env, from, *release)?,
                None => bind(work, env, origin, *adopt)?,
            }
            let wanted = Wanted { release: *release, binding: *binding, spec, checks, admission };
            up(work, env, *base, &wanted)?
        }
        Command::Rollback { env, to, service, careful } => {
            roll_back(work, env, *to, service.as_ref(), *careful)?
        }
        Command::Scale { env, service, replicas, owner } => scale(work, env, service, *replicas, *owner)?,
        Command::Abort { env } => abort(work, env)?,
        Command::Withdraw { env } => queue::withdraw(work, env)?,
        Command::Pause { env } => pause(work, env)?,
        Command::Resume { env } => resume(work, env)?,
        Command::Promote { env, step } => promote(work, env, *step)?,
        Command::Approve { env, release, within } => {
            return Ok((None, admission::approve(work, env, *release, *within)?));
        }
        Command::Down { env } => down(work, env)?,
        Command::Check { env, image, test, spec, spec_digest, within } => {
            let deadline = work.now().plus(*within);
            let question = Question { image: *image, test, spec, spec_digest: *spec_digest };
            return Ok((None, start_check(work, env, &question, deadline)));
        }
        Command::Inspected { env, image, test, question, failure, basis } => {
            let answer = (failure.as_deref(), basis.as_deref());
            return Ok((None, note_inspection(work, env, (*image, test), *question, answer)));
        }
    };
    let (Command::Up { env, .. }
    | Command::Rollback { env, .. }
    | Command::Scale { env, .. }
    | Command::Abort { env }
    | Command::Withdraw { env }
    | Command::Pause { env }
    | Command::Resume { env }
    | Command::Promote { env, .. }
    | Command::Approve { env, .. }
    | Command::Down { env }
    | Command::Check { env, .. }
    | Command::Inspected { env, .. }) = command;
    Ok((Some(env.clone()), reply))
}

struct Wanted<'a> {
    release: Digest,
    binding: Digest,
    spec: &'a Arc<RevisionSpec>,
    checks: &'a [RequiredCheck],
    admission: &'a Admission,
}

struct Question<'a> {
    image: Digest,
    test: &'a str,
    spec: &'a Arc<InstanceSpec>,
    spec_digest: Digest,
}

fn find<'a>(state: &'a State, env: &EnvKey) -> Result<&'a Environment, Refusal> {
    state.environment(env).ok_or_else(|| Refusal::UnknownEnvironment(env.clone()))
}

/// A stack's name belongs to where it comes from.
fn bind(work: &mut Work<'_>, env: &EnvKey, origin: &str, adopt: bool) -> Result<(), Refusal> {
    match work.state().origin(&env.stack) {
        Some(bound) if bound == origin => return Ok(()),
        Some(bound) if !adopt => {
            return Err(Refusal::OtherOrigin { stack: env.stack.clone(), origin: bound.to_owned() });
        }
        Some(_) | None => {}
    }
    let event = ControlEvent::StackBound { stack: env.stack.clone(), origin: origin.to_owned() };
    work.ask(None, Event::Control(event));
    Ok(())
}

fn up(
    work: &mut Work<'_>,
    key: &EnvKey,
    base: Option<RevisionNumber>,
    wanted: &Wanted<'_>,
) -> Result<Reply, Refusal> {
    let found = work.state().environment(key);
    let current = found.and_then(Environment::target);
    if let Some(base) = base.filter(|base| Some(*base) != current) {
        return Err(Refusal::StalePlan { base, current });
    }
    if let Some(env) = found
        && let Some(revision) = current.and_then(|number| env.revisions.get(&number))
        && is_same(revision, wanted)
    {
        let reply = there_already(env, revision.number);
        // What is asked for last is what comes.
        queue::clear(work, key, "what runs was asked for again");
        lifetime::set(work, key, wanted.admission.lasting)?;
        return Ok(reply);
    }
    if let Some(rollout) = found.and_then(|env| env.rollout.as_ref())
        && wanted.admission.if_running == IfRunning::Refuse
    {
        let (rollout, target) = (rollout.id, rollout.target());
        return Err(Refusal::RolloutRuns { env: key.clone(), rollout, target });
    }
    let waits = wanted.admission.if_running == IfRunning::Queue;
    if let Some(env) = found
        && let (Some(rollout), Some(queued)) = (&env.rollout, &env.queued)
        && waits
        && env.revisions.get(&queued.to).is_some_and(|revision| is_same(revision, wanted))
    {
        let reply = Reply::Queued { behind: rollout.id, revision: queued.to };
        lifetime::set(work, key, wanted.admission.lasting)?;
        return Ok(reply);
    }
    compose::validate(wanted.spec)?;
    let missing = wanted.checks.iter().find(|check| {
        let verdict = work.state().verdict(check.image, &check.test);
        !verdict.is_some_and(|verdict| verdict.is_passed())
    });
    if let Some(check) = missing {
        return Err(Refusal::CheckMissing { image: check.image, test: check.test.clone() });
    }
    compose::routes_are_free(work.state(), key, wanted.spec)?;
    let passage = admission::pass(work, key, wanted.release, wanted.admission)?;
    if work.state().environment(key).is_none() {
        let index = free_index(work.state()).ok_or(Refusal::TooManyEnvironments)?;
        work.ask(Some(key), Event::Environment(EnvironmentEvent::Created { index }));
    }
    lifetime::set(work, key, wanted.admission.lasting)?;
    passage.note(work, key);
    let number = seal(work, key, wanted.release, wanted.binding, wanted.spec.clone(), None)?;
    let cause = match &wanted.admission.promoted_from {
        Some(from) => Cause::Promotion { from: from.clone() },
        None => Cause::Up,
    };
    if waits && find(work.state(), key)?.rollout.is_some() {
        return queue::put(work, key, number, cause);
    }
    start(work, key, Some(number), cause, true)
}

fn is_same(revision: &Revision, wanted: &Wanted<'_>) -> bool {
    // A composed revision carries the digests of the one that it was made from, so what runs counts as well.
    revision.release == wanted.release && revision.binding == wanted.binding && revision.spec == *wanted.spec
}

fn there_already(env: &Environment, revision: RevisionNumber) -> Reply {
    match &env.rollout {
        Some(rollout) if rollout.is_going_back() => {
            Reply::GoingBack { rollout: rollout.id, revision: Some(revision) }
        }
        Some(rollout) => Reply::AlreadyRunning { rollout: rollout.id, revision: Some(revision) },
        None => Reply::Unchanged { revision },
    }
}

fn free_index(state: &State) -> Option<u8> {
    (0..ENVIRONMENTS_MAX).find(|index| state.environments().all(|env| env.index != *index))
}

fn seal(
    work: &mut Work<'_>,
    key: &EnvKey,
    release: Digest,
    binding: Digest,
    spec: Arc<RevisionSpec>,
    composed: Option<kiln_model::release::Composed>,
) -> Result<RevisionNumber, Refusal> {
    let number = RevisionNumber(find(work.state(), key)?.last_number.0 + 1);
    let revision = Arc::new(Revision { number, release, binding, spec, composed });
    work.ask(Some(key), Event::Environment(EnvironmentEvent::RevisionSealed { revision }));
    Ok(number)
}

/// Begins a rollout. One that is running ends here: the new one goes on from whatever exists.
fn start(
    work: &mut Work<'_>,
    key: &EnvKey,
    to: Option<RevisionNumber>,
    cause: Cause,
    tries_out: bool,
) -> Result<Reply, Refusal> {
    queue::clear(work, key, "another rollout took over");
    begin(work, key, to, (cause, tries_out), "another rollout took over")
}

fn begin(
    work: &mut Work<'_>,
    key: &EnvKey,
    to: Option<RevisionNumber>,
    (cause, tries_out): (Cause, bool),
    why: &str,
) -> Result<Reply, Refusal> {
    if find(work.state(), key)?.rollout.is_some() {
        let reason = why.to_owned();
        let event = RolloutEvent::Finished { outcome: Outcome::Superseded, reason };
        work.ask(Some(key), Event::Rollout(event));
    }
    let env = find(work.state(), key)?;
    // A job has an effect that going back does not undo: it runs for what is new only.
    let manners = Manners { runs_jobs: matches!(cause, Cause::Up | Cause::Promotion { .. }), tries_out };
    let steps = expand_forward(work.state(), env, to, manners);
    let event = RolloutEvent::Started { from: env.current, to, cause, steps };
    let rollout = RolloutId(work.next_position().0);
    work.ask(Some(key), Event::Rollout(event));
    Ok(Reply::RolloutStarted { rollout, revision: to })
}

fn roll_back(
    work: &mut Work<'_>,
    key: &EnvKey,
    to: Option<RevisionNumber>,
    service: Option<&ServiceName>,
    careful: bool,
) -> Result<Reply, Refusal> {
    let env = find(work.state(), key)?;
    let to = match to.or_else(|| env.previous()) {
        Some(number) if env.revisions.contains_key(&number) => number,
        Some(number) => return Err(Refusal::UnknownRevision(key.clone(), number)),
        None => return Err(Refusal::NothingToRollBackTo(key.clone())),
    };
    let cause = Cause::Rollback { to, service: service.cloned() };
    let Some(service) = service else {
        if env.target() == Some(to) {
            return Ok(there_already(env, to));
        }
        compose::routes_are_free(work.state(), key, &env.revisions[&to].spec)?;
        return start(work, key, Some(to), cause, careful);
    };
    let composed = compose::compose(env, to, service)?;
    let Some(composed) = composed else {
        let current = env.target().ok_or_else(|| Refusal::NothingToRollBackTo(key.clone()))?;
        return Ok(there_already(env, current));
    };
    compose::routes_are_free(work.state(), key, &composed.spec)?;
    let number = seal(work, key, composed.release, composed.binding, composed.spec, Some(composed.composed))?;
    start(work, key, Some(number), cause, careful)
}

fn scale(
    work: &mut Work<'_>,
    key: &EnvKey,
    service: &ServiceName,
    replicas: u32,
    owner: ReplicaOwner,
) -> Result<Reply, Refusal> {
    let env = find(work.state(), key)?;
    let target = env.target();
    let is_there =
        env.service(target, service).is_some_and(|found| found.kind != kiln_model::service::ServiceKind::Job);
    if !is_there {
        return Err(Refusal::UnknownService(key.clone(), service.clone()));
    }
    if replicas > REPLICAS_MAX {
        return Err(Refusal::TooManyReplicas { max: REPLICAS_MAX });
    }
    let is_same = env.replicas(target, service) == replicas && env.replica_owner(service) == owner;
    if !is_same {
        let event = EnvironmentEvent::ReplicasSet { service: service.clone(), replicas, owner };
        work.ask(Some(key), Event::Environment(event));
    }
    let replicas = find(work.state(), key)?.replicas(target, service);
    Ok(Reply::Scaled { service: service.clone(), replicas })
}

fn abort(work: &mut Work<'_>, key: &EnvKey) -> Result<Reply, Refusal> {
    let env = find(work.state(), key)?;
    let Some(running) = &env.rollout else { return Err(Refusal::NoRollout(key.clone())) };
    let reply = Reply::GoingBack { rollout: running.id, revision: running.from };
    if !running.is_going_back() {
        let focus = &Focus::everything();
        let view = View {
            state: work.state(),
            observed: work.observed(),
            now: work.now(),
            env,
            focus,
            before: None,
        };
        if let Deed::Log(event) = rollout::going_back(view, running, ABORTED.to_owned()) {
            work.ask(Some(key), event);
        }
    }
    // Who aborts wants to be where it was, and nothing else to begin.
    queue::clear(work, key, "the rollout before it was aborted");
    Ok(reply)
}

fn pause(work: &mut Work<'_>, key: &EnvKey) -> Result<Reply, Refusal> {
    let env = find(work.state(), key)?;
    let Some(running) = &env.rollout else { return Err(Refusal::NoRollout(key.clone())) };
    if running.is_going_back() {
        return Err(Refusal::GoesBack(key.clone()));
    }
    if running.halted.is_some() {
        return Err(Refusal::Halted(key.clone()));
    }
    let reply = Reply::Paused { rollout: running.id, revision: running.to };
    if running.paused.is_none() {
        work.ask(Some(key), Event::Rollout(RolloutEvent::Paused));
    }
    Ok(reply)
}

fn resume(work: &mut Work<'_>, key: &EnvKey) -> Result<Reply, Refusal> {
    let env = find(work.state(), key)?;
    let Some(running) = &env.rollout else { return Err(Refusal::NoRollout(key.clone())) };
    if running.halted.is_some() {
        let (to, cause) = (running.to, running.cause.clone());
        return begin(work, key, to, (cause, true), "it is tried again");
    }
    let reply = Reply::Resumed { rollout: running.id, revision: running.target() };
    if running.paused.is_some() {
        work.ask(Some(key), Event::Rollout(RolloutEvent::Resumed));
    }
    Ok(reply)
}

/// Lets the current step be complete, if it is one that waits for time, an analysis or an approval.
fn promote(work: &mut Work<'_>, key: &EnvKey, step: Option<u32>) -> Result<Reply, Refusal> {
    let env = find(work.state(), key)?;
    let Some(running) = &env.rollout else { return Err(Refusal::NoRollout(key.clone())) };
    let (rollout, index) = (running.id, running.next);
    if running.halted.is_some() {
        return Err(Refusal::Halted(key.clone()));
    }
    let reply = Reply::Promoted { rollout, step: step.unwrap_or(index) };
    if step.is_some_and(|step| step < index) || running.promoted {
        return Ok(reply);
    }
    let waits = running.is_promotable() && running.step != StepPhase::Waiting;
    if !waits || step.is_some_and(|step| step != index) {
        return Err(Refusal::NothingToPromote(key.clone()));
    }
    if let Some(Step::Approve { by, .. }) = running.current_step()
        && !by.is_empty()
        && !by.iter().any(|name| *name == work.actor().to_string())
    {
        return Err(Refusal::NotAnApprover { by: by.clone() });
    }
    work.ask(Some(key), Event::Rollout(RolloutEvent::Promoted { index }));
    Ok(reply)
}

fn down(work: &mut Work<'_>, key: &EnvKey) -> Result<Reply, Refusal> {
    let env = find(work.state(), key)?;
    let runs = env.rollout.as_ref().filter(|rollout| rollout.target().is_none() && !rollout.is_going_back());
    if let Some(rollout) = runs {
        return Ok(Reply::AlreadyRunning { rollout: rollout.id, revision: None });
    }
    start(work, key, None, Cause::Down, false)
}

/// The same answer to the same question is not written down twice.
fn note_inspection(
    work: &mut Work<'_>,
    env: &EnvKey,
    (image, test): (Digest, &str),
    question: Digest,
    (failure, basis): (Option<&str>, Option<&str>),
) -> Reply {
    let (failure, basis) = (failure.map(brief), basis.map(brief));
    let known = work.state().verdict(image, test);
    if known
        .is_some_and(|known| known.spec_digest == question && known.failure.as_deref() == failure.as_deref())
    {
        return Reply::Noted;
    }
    let id = CheckId(work.next_position().0);
    let event = CheckEvent::Inspected { image, test: brief(test), question, failure, basis };
    work.ask(Some(env), Event::Check(id, event));
    Reply::Noted
}

fn start_check(
    work: &mut Work<'_>,
    env: &EnvKey,
    question: &Question<'_>,
    deadline: kiln_model::Timestamp,
) -> Reply {
    let verdict = work.state().verdict(question.image, question.test);
    let passed = verdict.filter(|known| known.is_passed() && known.spec_digest == question.spec_digest);
    if let Some(known) = passed {
        return Reply::CheckPassed { check: known.check };
    }
    let is_same = |running: &crate::state::Check| {
        running.image == question.image
            && running.test == question.test
            && running.spec_digest == question.spec_digest
    };
    if let Some(check) = check::running(work.state(), is_same) {
        return Reply::CheckStarted { check };
    }
    let id = CheckId(work.next_position().0);
    let event = CheckEvent::Requested {
        image: question.image,
        test: brief(question.test),
        spec: question.spec.clone(),
        spec_digest: question.spec_digest,
        deadline,
    };
    work.ask(Some(env), Event::Check(id, event));
    let instance = work.draw_id();
    let event = InstanceEvent::Requested { purpose: Purpose::Check(id), spec: question.spec_digest };
    work.act(Some(env), Event::Instance(instance, event));
    Reply::CheckStarted { check: id }
}
