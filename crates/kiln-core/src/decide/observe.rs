//! What was seen, as events. Observations come at least once and in any order, so each is held against what the log
//! knows: what is old news, late or about nobody is dropped.

use std::collections::BTreeMap;

use kiln_model::event::{ControlEvent, InstanceEvent, RolloutEvent, TrafficEvent};
use kiln_model::instance::ExitStatus;
use kiln_model::outside::{Finding, Number};
use kiln_model::route::{Listener, Sampling};
use kiln_model::{EnvKey, Event, Fence, InstanceId, Position, RolloutId, ServiceName, Term};

use super::work::{Scope, Work, brief};
use crate::asking;
use crate::input::{InstanceSeen, Observation};
use crate::outside::{self, Standing};
use crate::state::{Health, Instance, ListenerPhase, ListenerState, Phase};

/// Writes down what an observation says, and returns whom it may concern.
pub(super) fn run(work: &mut Work<'_>, observation: &Observation) -> Scope {
    match observation {
        Observation::ControllerStarted => {
            let term = Term(work.state().term().0 + 1);
            work.act(None, Event::Control(ControlEvent::ControllerStarted { term }));
            Scope::All
        }
        Observation::ClockJumped { by } => {
            if by.0 > 0 {
                work.act(None, Event::Control(ControlEvent::ClockJumped { by: *by }));
            }
            Scope::All
        }
        Observation::InstanceStarted { id, address } => about(work, *id, |work| started(work, *id, *address)),
        Observation::InstanceHealth { id, .. } => about(work, *id, |work| health(work, *id)),
        Observation::InstanceExited { id, status } => about(work, *id, |work| exited(work, *id, *status)),
        Observation::InstanceRefused { id, reason } => about(work, *id, |work| {
            if phase(work, *id) == Some(Phase::Requested) {
                note(work, *id, InstanceEvent::Refused { reason: brief(reason) });
            }
        }),
        Observation::InstanceDestroyed { id } => about(work, *id, |work| destroyed(work, *id)),
        Observation::BackendIdle { id, .. } => about(work, *id, |_| {}),
        Observation::Listed { as_of, instances } => {
            listed(work, *as_of, instances);
            Scope::All
        }
        Observation::RequestsCounted { .. }
        | Observation::RolloutPredicted { .. }
        | Observation::NoticeGivenUp { .. } => {
            if let Some((env, event)) = note_of(work, observation) {
                work.act(Some(&env), Event::Rollout(event));
            }
            Scope::Global
        }
        // What was counted is looked at where the canary's rollout is.
        Observation::Sampled { env, .. } => Scope::Rollout(env.clone()),
        Observation::Measured { env, service, sampling, metric, known, value } => {
            measured(work, env, (service, *sampling), (metric, *known), value);
            Scope::Rollout(env.clone())
        }
        Observation::Asked { env, rollout, index, known, answer } => {
            asked(work, env, (*rollout, *index), *known, answer);
            Scope::Environment(env.clone())
        }
        Observation::TableAcknowledged { fence } => acknowledged(work, *fence),
        Observation::ListenerOpened { listener, fence } => {
            if awaits_opening(work, *listener, *fence) {
                traffic(work, TrafficEvent::ListenerOpened { listener: *listener });
            }
            Scope::Sockets
        }
        Observation::ListenerFailed { listener, fence, reason } => {
            if awaits_opening(work, *listener, *fence) {
                let reason = brief(reason);
                traffic(work, TrafficEvent::ListenerFailed { listener: *listener, reason });
            }
            Scope::Sockets
        }
        Observation::ListenerClosed { listener, fence } => {
            let found = asked_about(work, *listener, *fence);
            if found.is_some_and(|found| found.phase == ListenerPhase::Releasing) {
                traffic(work, TrafficEvent::ListenerClosed { listener: *listener });
            }
            Scope::Sockets
        }
    }
}

/// What is written down of a rollout and nothing follows from; none of one that never was.
fn note_of(work: &Work<'_>, observation: &Observation) -> Option<(EnvKey, RolloutEvent)> {
    let (env, rollout, event) = match observation.clone() {
        Observation::RequestsCounted { env, rollout, is_end, counts } => {
            let last = work.state().environment(&env).and_then(|env| env.last_rollout.as_ref());
            let extra = last.filter(|last| is_end && last.id == rollout).and_then(|last| last.extra);
            (env, rollout, RolloutEvent::Counted { rollout, is_end, counts, extra })
        }
        Observation::RolloutPredicted { env, rollout, forecast } => {
            (env, rollout, RolloutEvent::Predicted { rollout, forecast })
        }
        Observation::NoticeGivenUp { env, rollout, webhook, occasion, reason } => {
            let reason = brief(&reason);
            (env, rollout, RolloutEvent::NotTold { rollout, webhook, occasion, reason })
        }
        _ => return None,
    };
    (rollout.0 <= work.state().position().0).then_some((env, event))
}

/// Writes down what a metric of outside came to, if it is still asked for.
fn measured(
    work: &mut Work<'_>,
    key: &EnvKey,
    (service, sampling): (&ServiceName, Sampling),
    (name, known): (&str, u32),
    value: &Result<Number, String>,
) {
    let found = work.state().environment(key).and_then(|env| {
        let rollout = env.rollout.as_ref().filter(|rollout| rollout.id == sampling.rollout)?;
        rollout.splits.get(service).filter(|split| split.window == sampling.window)?;
        let (metric, tally) =
            outside::measured(env, rollout, service).find(|(metric, _)| metric.name == name)?;
        let is_asked = tally.asked() == known && outside::standing(metric, tally) == Standing::Measuring;
        is_asked.then(|| match value {
            Ok(value) => (outside::finding(metric, *value), value.to_string()),
            Err(reason) => (Finding::Error, brief(reason)),
        })
    });
    let Some((finding, text)) = found else { return };
    let (service, window, metric) = (service.clone(), sampling.window, name.to_owned());
    work.act(Some(key), Event::Rollout(RolloutEvent::Measured { service, window, metric, finding, text }));
}

/// Writes down what was answered, if it is still asked for. What is answered during a pause counts.
fn asked(
    work: &mut Work<'_>,
    key: &EnvKey,
    (id, index): (RolloutId, u32),
    known: u32,
    answer: &Result<String, String>,
) {
    let rollout = work.state().environment(key).and_then(|env| env.rollout.as_ref());
    let is_asked = rollout.is_some_and(|rollout| {
        let is_this = rollout.id == id && rollout.next == index && rollout.halted.is_none();
        let waits = asking::asked(rollout).is_some_and(|ask| known < ask.again.attempts);
        is_this && waits && rollout.tries.failed == known && !rollout.tries.passed
    });
    if is_asked {
        let (passed, text) = match answer {
            Ok(text) => (true, text),
            Err(text) => (false, text),
        };
        let text = brief(text);
        work.act(Some(key), Event::Rollout(RolloutEvent::Tried { index, passed, text }));
    }
}

/// Looks only at the slot of an instance; nobody cares about one that the log does not know.
fn about<'a>(work: &mut Work<'a>, id: InstanceId, note: impl FnOnce(&mut Work<'a>)) -> Scope {
    note(work);
    Scope::Instance(id)
}

fn env_of(work: &Work<'_>, id: InstanceId) -> Option<EnvKey> {
    work.state().instance(id).map(|instance| instance.env.clone())
}

fn phase(work: &Work<'_>, id: InstanceId) -> Option<Phase> {
    work.state().instance(id).map(|instance| instance.phase.clone())
}

fn note(work: &mut Work<'_>, id: InstanceId, event: InstanceEvent) {
    let env = env_of(work, id);
    work.act(env.as_ref(), Event::Instance(id, event));
}

fn traffic(work: &mut Work<'_>, event: TrafficEvent) {
    work.act(None, Event::Traffic(event));
}

fn started(work: &mut Work<'_>, id: InstanceId, address: std::net::IpAddr) {
    if phase(work, id) == Some(Phase::Requested) {
        note(work, id, InstanceEvent::Started { address });
        // The verdict may have overtaken the news of the start.
        health(work, id);
    }
}

/// Writes down what the probes said last, if that is news.
fn health(work: &mut Work<'_>, id: InstanceId) {
    let Some(seen) = work.observed().health(id) else { return };
    let Some(instance) = work.state().instance(id) else { return };
    let lives = matches!(instance.phase, Phase::Running | Phase::Warm { .. });
    // Without a health check there is nothing that could be probed.
    if !lives || instance.spec.health.is_none() {
        return;
    }
    match (&instance.health, seen.healthy) {
        (Health::Unknown | Health::Unhealthy { .. }, true) => note(work, id, InstanceEvent::BecameHealthy),
        (Health::Unknown | Health::Healthy, false) => {
            let reason = brief(&seen.detail);
            note(work, id, InstanceEvent::BecameUnhealthy { reason });
        }
        (Health::Healthy, true) | (Health::Unhealthy { .. }, false) => {}
    }
}

fn exited(work: &mut Work<'_>, id: InstanceId, status: ExitStatus) {
    let Some(instance) = work.state().instance(id) else { return };
    // Whoever is being destroyed is expected to end.
    let is_news =
        instance.exit.is_none() && !matches!(instance.phase, Phase::Ended { .. } | Phase::Destroying { .. });
    if is_news {
        note(work, id, InstanceEvent::Exited { status });
    }
}

fn destroyed(work: &mut Work<'_>, id: InstanceId) {
    if work.state().disowned.contains_key(&id) {
        work.act(None, Event::Instance(id, InstanceEvent::Destroyed));
        return;
    }
    match phase(work, id) {
        None => {}
        Some(Phase::Destroying { .. }) => note(work, id, InstanceEvent::Destroyed),
        // Somebody else did it.
        Some(_) => exited(work, id, ExitStatus::Unknown),
    }
}

/// Holds a complete list against the log.
fn listed(work: &mut Work<'_>, as_of: Position, instances: &[InstanceSeen]) {
    let seen: BTreeMap<InstanceId, &InstanceSeen> =
        instances.iter().map(|instance| (instance.id, instance)).collect();
    let is_missing = |instance: &&Instance| {
        // What started after the question was asked need not be in the answer; what is to be created or to be destroyed
        // has an action outstanding, whose answer counts.
        let counts = instance.started.is_some_and(|started| started <= as_of);
        let is_expected = !matches!(instance.phase, Phase::Destroying { .. } | Phase::Ended { .. });
        counts && is_expected && instance.exit.is_none() && !seen.contains_key(&instance.id)
    };
    let missing: Vec<InstanceId> =
        work.state().instances().filter(is_missing).map(|found| found.id).collect();
    for id in missing {
        exited(work, id, ExitStatus::Unknown);
    }
    for (id, seen) in seen {
        if work.state().instance(id).is_none() {
            if !work.state().disowned.contains_key(&id) {
                work.act(None, Event::Instance(id, InstanceEvent::Disowned));
            }
            continue;
        }
        if let Some(address) = seen.address {
            started(work, id, address);
        }
        health(work, id);
        if let Some(status) = seen.exited {
            exited(work, id, status);
        }
    }
}

fn acknowledged(work: &mut Work<'_>, fence: Fence) -> Scope {
    let table = work.state().table();
    // An answer from an earlier term counts as well: positions are never given out twice.
    let is_news = fence.position > table.acknowledged && fence.position <= table.version;
    if is_news {
        traffic(work, TrafficEvent::Acknowledged { version: fence.position });
    }
    Scope::Edge
}

/// A socket, if the last intent about it is the one that an answer belongs to.
fn asked_about<'a>(work: &'a Work<'_>, listener: Listener, fence: Fence) -> Option<&'a ListenerState> {
    work.state().listeners.get(&listener).filter(|found| found.since == fence.position)
}

/// Whether an answer about opening a socket is awaited.
fn awaits_opening(work: &Work<'_>, listener: Listener, fence: Fence) -> bool {
    match asked_about(work, listener, fence).map(|found| &found.phase) {
        Some(ListenerPhase::Requested) => true,
        Some(ListenerPhase::Open { term }) => *term < work.state().term(),
        Some(ListenerPhase::Failed { .. } | ListenerPhase::Releasing) | None => false,
    }
}
