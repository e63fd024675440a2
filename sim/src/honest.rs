//! Where the requests go, and what a rollout waits for: by what Kiln knows, at the end of every decision.

use kiln_core::state::{Environment, Instance, Phase, Rollout, Slot, StepPhase};
use kiln_core::{State, Wait, next_deadline, waiting};
use kiln_model::event::RolloutEvent;
use kiln_model::rollout::{MIRROR_FIRST, Step};
use kiln_model::route::{Group, Pool, PoolKey, Sampling};
use kiln_model::{Entry, Event, Millis, ServiceName, Weight};

use crate::Violation;
use crate::edge::Edge;

/// No wait of a rollout of this world is longer: a step may take a minute, and the retirement of what is deaf a little more.
const WAIT_MAX: Millis = Millis::from_secs(120);

const TRAFFIC: &str = "traffic reaches only what is healthy and of a release that is wanted";
const WAITS: &str = "a rollout ends or says what it waits for";

/// Checks what the log says of the requests.
///
/// # Errors
/// They go to an instance that is not well while another one of its service is, or to one that nobody wants while one that
/// is wanted is there.
pub fn check_traffic(state: &State) -> Result<(), Violation> {
    check_traffic_of(state, |_| true)
}

/// The same, of some services.
///
/// # Errors
/// As [`check_traffic`].
pub fn check_traffic_of(state: &State, is_it: impl Fn(&ServiceName) -> bool) -> Result<(), Violation> {
    for env in state.environments() {
        for (name, service) in env.services.iter().filter(|(name, _)| is_it(name)) {
            let slots =
                service.slots.values().flat_map(|slot| slot.instances.iter().map(move |id| (slot, *id)));
            let routed = slots.filter_map(|(slot, id)| Some((&**slot, state.instance(id)?)));
            let routed: Vec<(&Slot, &Instance)> =
                routed.filter(|(_, instance)| instance.is_routed()).collect();
            for (slot, instance) in &routed {
                let retained = instance.revision().is_some_and(|number| env.revisions.contains_key(&number));
                let others = || routed.iter().filter(|(slot, other)| !is_apart(env, name, slot, other));
                let ill = !instance.is_routable() && others().any(|(_, other)| other.is_routable());
                let misled = !is_wanted(env, name, slot, instance)
                    && others().any(|(place, other)| {
                        let takes_over = std::ptr::eq(*place, *slot) || is_given_up(env, name, instance);
                        takes_over && other.is_routable() && is_wanted(env, name, place, other)
                    });
                if instance.phase != Phase::Running || !retained || ill || misled {
                    return Err(Violation::new(TRAFFIC, format!("{}/{name}: {instance:?}", env.key)));
                }
            }
        }
    }
    Ok(())
}

/// Whether no request is drawn for an instance: it gets copies or what is aimed at it, and is of what the rollout moves to, beside what does the slot's work.
fn is_apart(env: &Environment, name: &ServiceName, slot: &Slot, instance: &Instance) -> bool {
    let Some(rollout) = &env.rollout else { return false };
    let is_of = |revision| {
        env.service(revision, name).is_some_and(|service| service.spec_digest == instance.spec_digest)
    };
    let is_apart = rollout.splits.get(name).is_some_and(kiln_core::state::Split::is_apart);
    is_apart && is_of(rollout.target()) && !is_of(slot.duty)
}

/// Whether such an instance does the slot's work, or is to.
fn is_wanted(env: &Environment, name: &ServiceName, slot: &Slot, instance: &Instance) -> bool {
    let target = env.rollout.as_ref().and_then(|rollout| rollout.target());
    let on_duty = if env.rollout.is_some() { slot.duty } else { env.current };
    let mut wanted = [on_duty, target].into_iter().filter_map(|number| env.service(number, name));
    wanted.any(|service| service.spec_digest == instance.spec_digest)
}

/// Whether a rollout that goes back brought it. What an earlier one left serves on, though it may be of the same spec.
fn is_given_up(env: &Environment, name: &ServiceName, instance: &Instance) -> bool {
    let rollout = env.rollout.as_ref().filter(|rollout| rollout.is_going_back());
    let rollout = rollout.filter(|rollout| rollout.to == instance.revision());
    let failed = rollout.and_then(|rollout| env.service(rollout.to, name));
    failed.is_some_and(|service| service.spec_digest == instance.spec_digest)
}

/// Checks what is really served.
///
/// # Errors
/// Requests go to an instance that the log does not know, or knows as one of another revision.
pub fn check_served(edge: &Edge, state: &State) -> Result<(), Violation> {
    let Some(table) = edge.served().filter(|_| edge.up) else { return Ok(()) };
    table.pools.iter().try_for_each(|(key, pool)| check_pool(key, pool, state))
}

/// The same, of one pool.
///
/// # Errors
/// As [`check_served`].
pub fn check_pool(key: &PoolKey, pool: &Pool, state: &State) -> Result<(), Violation> {
    let retained = state.environment(&key.env).map(|env| &env.revisions);
    let is_apart = pool.sampling.is_some_and(|sampling| is_apart_in(state, key, sampling));
    for backend in &pool.backends {
        if is_apart && backend.group == Group::Canary && backend.weight > Weight::ZERO {
            let detail = format!("{key}: {backend:?}");
            return Err(Violation::new("no request is drawn for who has no share", detail));
        }
        let known = state.instance(backend.instance).and_then(Instance::revision);
        let is_retained = retained.is_some_and(|revisions| revisions.contains_key(&backend.revision));
        if known != Some(backend.revision) || !is_retained {
            let detail = format!("{key}: {backend:?}, which is of {known:?}");
            return Err(Violation::new("traffic reaches only known releases", detail));
        }
    }
    Ok(())
}

/// Whether a table that counts in this window draws no request for the canary.
fn is_apart_in(state: &State, key: &PoolKey, sampling: Sampling) -> bool {
    let rollout = state.environment(&key.env).and_then(|env| env.rollout.as_ref());
    let running = rollout.filter(|rollout| rollout.id == sampling.rollout);
    let split = running.and_then(|rollout| rollout.splits.get(&key.service));
    let now = split.filter(|split| split.window == sampling.window);
    sampling.window >= MIRROR_FIRST || now.is_some_and(|split| split.is_apart())
}

/// Checks that no rollout waits without an end and without saying for what.
///
/// # Errors
/// One does.
pub fn check_waits(state: &State) -> Result<(), Violation> {
    for env in state.environments() {
        if let Some(rollout) = &env.rollout
            && let Some(odd) = unsaid(state, env, rollout)
        {
            return Err(Violation::new(WAITS, format!("{}: {odd}: {rollout:?}", env.key)));
        }
    }
    Ok(())
}

/// The longest wait of a step: what somebody is to let go on waits for as long as it says.
fn longest(step: Option<&Step>) -> Millis {
    match step {
        Some(Step::Approve { within, .. }) => WAIT_MAX.max(*within),
        _ => WAIT_MAX,
    }
}

/// What is odd about the wait of a rollout.
fn unsaid(state: &State, env: &Environment, rollout: &Rollout) -> Option<&'static str> {
    let now = state.now();
    let waits = waiting(state, &env.key, now);
    if !waits.iter().any(|wait| matches!(wait, Wait::Step { .. })) {
        return Some("it names no step");
    }
    if rollout.paused.is_some() {
        let says_so = waits.iter().any(|wait| matches!(wait, Wait::Resume { .. }));
        return (!says_so).then_some("it is paused and does not say so");
    }
    if rollout.halted.is_some() {
        let says_so = waits.iter().any(|wait| matches!(wait, Wait::Decision { until, .. } if *until > now));
        return (!says_so).then_some("it stopped and does not say until when");
    }
    match (rollout.step, rollout.current_step()) {
        (StepPhase::Started { deadline: None }, Some(Step::KeepWarm { .. })) => None,
        (StepPhase::Started { deadline: None }, _) => Some("its step has no deadline"),
        (StepPhase::Started { deadline: Some(deadline) }, _) if deadline <= now => {
            Some("its deadline is over")
        }
        (StepPhase::Started { deadline: Some(deadline) }, step) if deadline.since(now) > longest(step) => {
            Some("its deadline is too far away")
        }
        (StepPhase::Started { .. }, _) => None,
        (StepPhase::Waiting, _) => next_deadline(state, now).is_none().then_some("nothing wakes it"),
    }
}

/// Checks that whoever approved may do so.
///
/// # Errors
/// Only others may.
pub fn check_approval(entry: &Entry, before: &State) -> Result<(), Violation> {
    let Event::Rollout(RolloutEvent::Promoted { index }) = &entry.event else { return Ok(()) };
    let env = entry.env.as_ref().and_then(|env| before.environment(env));
    let Some(rollout) = env.and_then(|env| env.rollout.as_ref()) else { return Ok(()) };
    let Some(Step::Approve { by, .. }) = rollout.current_step() else { return Ok(()) };
    let may = by.is_empty() || by.contains(&entry.actor.to_string());
    if may && *index == rollout.next {
        return Ok(());
    }
    let detail = format!("{} at step {index}, which is for {by:?}", entry.actor);
    Err(Violation::new("only who may approve does", detail))
}
