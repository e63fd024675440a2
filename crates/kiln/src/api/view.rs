//! The state as the command line sees it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use kiln_core::state::Tries;
use kiln_core::state::{
    Direction, Environment, FinishedRollout, Health, Instance, Phase, Rollout, StepPhase,
};
use kiln_core::{State, Wait, waiting};
use kiln_model::release::Revision;
use kiln_model::rollout::{Cause, Outcome, ReplicaOwner, Slots, Step};
use kiln_model::route::Route;
use kiln_model::service::{Service, ServiceKind, Strategy};
use kiln_model::{Digest, EnvKey, RevisionNumber, ServiceName, Timestamp, Weight};

use super::hazards::hazard;
use super::wire;

/// Shows an environment.
pub fn environment(state: &State, env: &Environment, now: Timestamp) -> wire::Environment {
    let instances: Vec<&Instance> = state.instances_of(env).collect();
    let mut by_service: BTreeMap<&ServiceName, Vec<&Instance>> = BTreeMap::new();
    for instance in &instances {
        if let Some((service, _)) = instance.slot() {
            by_service.entry(service).or_default().push(instance);
        }
    }
    let target = env.target();
    let declared = env.spec(target).into_iter().flat_map(|spec| spec.services.keys());
    let names: BTreeSet<&ServiceName> = declared.chain(by_service.keys().copied()).collect();
    let service = |name: &ServiceName| {
        let own = by_service.get(name).map(Vec::as_slice).unwrap_or_default();
        service_view(env, name, own)
    };
    wire::Environment {
        stack: env.key.stack.to_string(),
        env: env.key.env.to_string(),
        origin: state.origin(&env.key.stack).map(Into::into),
        current: env.current.map(|number| number.0),
        previous: env.previous().map(|number| number.0),
        release: env.current.and_then(|number| env.revisions.get(&number)).map(|r| r.release.to_string()),
        rollout: current_rollout(env),
        ends_ms: env.lifetime.map(|lifetime| lifetime.until.0),
        queued: env.queued.as_ref().map(|queued| wire::Queued {
            revision: queued.to.0,
            by: queued.by.to_string(),
            since_ms: queued.since.0,
        }),
        waits_for: waits(state, env, now),
        services: names.into_iter().map(service).collect(),
        routes: routes(env, env.routes),
        instances: instances.into_iter().map(instance_view).collect(),
        position: state.position().0,
        now_ms: now.0,
    }
}

/// What an environment waits for, the most telling first; more than a few help nobody.
fn waits(state: &State, env: &Environment, now: Timestamp) -> Vec<String> {
    const SHOWN_MAX: usize = 4;
    let target = env.rollout.as_ref().and_then(|rollout| target(rollout));
    waiting(state, &env.key, now).iter().take(SHOWN_MAX).map(|wait| wait_text(wait, target, now)).collect()
}

fn wait_text(wait: &Wait, target: Option<u64>, now: Timestamp) -> String {
    let left = |until: &Timestamp| format!("{}s left", until.since(now).0.div_ceil(1000));
    match wait {
        Wait::Resume { by, since } => {
            format!("{by} to resume the rollout, paused for {}s", now.since(*since).0 / 1000)
        }
        Wait::Decision { reason, until } => {
            format!("somebody to decide, {} before it goes back: {reason}", left(until))
        }
        Wait::Step { index, step, deadline, tries } => {
            let left = deadline.as_ref().map(|until| format!(", {}", left(until))).unwrap_or_default();
            let tried = tried(step, tries).map(|tried| format!(" ({tried})")).unwrap_or_default();
            format!("step {}: {}{tried}{left}", index + 1, text_towards(target, step))
        }
        Wait::Turn { revision, by, behind } => {
            format!("{behind} to end: then {revision} begins, which {by} asked for")
        }
        Wait::Acknowledgement { version, acknowledged } => {
            format!("the edge to serve table {version}; it serves {acknowledged}")
        }
        Wait::Socket { listener, reason: Some(reason) } => format!("{listener} to be opened: {reason}"),
        Wait::Socket { listener, reason: None } => format!("{listener} to be opened"),
        Wait::Rest { service, ordinal, failures, until } => {
            format!("{service}/{ordinal} to be tried again after {failures} failures, {}", left(until))
        }
        Wait::Start { id } => format!("{id} to start"),
        Wait::Drain { id, deadline } => format!("the requests in flight to {id} to end, {}", left(deadline)),
        Wait::Destroy { id } => format!("{id} to be removed"),
    }
}

/// Shows how far the rollout of an environment is; `last` is what was shown before, which still knows the steps of a
/// rollout that has ended since. None if there is no such rollout any more.
pub fn progress(
    state: &State,
    key: &EnvKey,
    id: u64,
    now: Timestamp,
    last: Option<&wire::Progress>,
) -> Option<wire::Progress> {
    let Some(env) = state.environment(key) else {
        // `down` is complete: the environment is forgotten together with its rollout.
        return last.map(|last| ended(last.clone(), state, now, "completed", ""));
    };
    let rollout = match (&env.rollout, &env.last_rollout) {
        (Some(running), _) if running.id.0 == id => rollout_view(running),
        (_, Some(finished)) if finished.id.0 == id => {
            let steps = last.map(|last| last.rollout.steps.clone()).unwrap_or_default();
            finished_view(finished, steps)
        }
        // It ended, and another one ended after it, between two looks.
        _ => {
            return last
                .map(|last| ended(last.clone(), state, now, "superseded", "another rollout took over"));
        }
    };
    let target = env.target().or(env.current);
    Some(wire::Progress {
        position: state.position().0,
        now_ms: now.0,
        services: service_progress(state, env),
        routes: routes(env, target),
        rollout,
    })
}

fn ended(
    mut last: wire::Progress,
    state: &State,
    now: Timestamp,
    outcome: &str,
    reason: &str,
) -> wire::Progress {
    last.position = state.position().0;
    last.now_ms = now.0;
    for step in &mut last.rollout.steps {
        if outcome == "completed" {
            step.state = "done".into();
        }
    }
    if outcome == "completed" {
        last.services.clear();
    }
    last.rollout.ended = Some(wire::Ended { at_ms: now.0, outcome: outcome.into(), reason: reason.into() });
    last
}

/// Tells until when the step that runs may take: the log knows when it was to end first, before pauses and jumps of the clock.
pub(super) fn correct_deadline(state: &State, key: &EnvKey, record: &mut wire::RolloutRecord) {
    let running = state.environment(key).and_then(|env| env.rollout.as_ref());
    let Some(rollout) = running.filter(|rollout| rollout.id.0 == record.rollout.id) else { return };
    let steps = match &mut record.way_back {
        Some(back) => &mut back.steps,
        None => &mut record.rollout.steps,
    };
    let step = usize::try_from(rollout.next).ok().and_then(|next| steps.get_mut(next));
    if let (Some(step), StepPhase::Started { deadline }) = (step, rollout.step)
        && step.state == "running"
    {
        // It does not come nearer while the rollout is paused.
        step.deadline_ms = deadline.filter(|_| rollout.paused.is_none()).map(|at| at.0);
    }
}

/// Shows the retained revisions, the newest first.
pub fn revisions(state: &State, env: &Environment) -> Vec<wire::Revision> {
    let warm: BTreeSet<RevisionNumber> = state
        .instances_of(env)
        .filter(|instance| matches!(instance.phase, Phase::Warm { .. }))
        .filter_map(Instance::revision)
        .collect();
    env.revisions.values().rev().map(|revision| revision_view(env, revision, &warm)).collect()
}

/// Shows one revision with all that runs in it.
pub fn revision(state: &State, env: &Environment, number: RevisionNumber) -> Option<wire::RevisionDetail> {
    let revision = env.revisions.get(&number)?;
    let view = revisions(state, env).into_iter().find(|view| view.number == number.0)?;
    let found = kiln_core::hazards(state, &env.key, number).unwrap_or_default();
    Some(wire::RevisionDetail {
        revision: view,
        sealed: revision.spec.as_ref().into(),
        hazards: found.iter().map(hazard).collect(),
    })
}

fn revision_view(env: &Environment, revision: &Revision, warm: &BTreeSet<RevisionNumber>) -> wire::Revision {
    wire::Revision {
        number: revision.number.0,
        release: revision.release.to_string(),
        binding: revision.binding.to_string(),
        current: env.current == Some(revision.number),
        warm: warm.contains(&revision.number),
        completed: env.completed.contains(&revision.number),
        composed: revision.composed.as_ref().map(|made| format!("{} from {}", made.service, made.from)),
        services: u32::try_from(revision.spec.services.len()).unwrap_or(u32::MAX),
    }
}

/// Shows what is recorded about a test of an image.
pub fn verdict(state: &State, image: Digest, test: &str, spec: Digest) -> wire::Verdict {
    let running = state.checks().any(|check| {
        check.image == image && check.test == test && check.spec_digest == spec && !check.answered
    });
    let known = state.verdict(image, test).filter(|verdict| verdict.spec_digest == spec);
    let (word, reason) = match known {
        _ if running => ("running", String::new()),
        None => ("missing", String::new()),
        Some(verdict) => match &verdict.failure {
            None => ("passed", String::new()),
            Some(reason) => ("failed", reason.to_string()),
        },
    };
    wire::Verdict { state: word.into(), reason, at_ms: known.map(|verdict| verdict.at.0) }
}

fn current_rollout(env: &Environment) -> Option<wire::Rollout> {
    match (&env.rollout, &env.last_rollout) {
        (Some(running), _) => Some(rollout_view(running)),
        (None, Some(finished)) => Some(finished_view(finished, Vec::new())),
        (None, None) => None,
    }
}

fn rollout_view(rollout: &Rollout) -> wire::Rollout {
    let next = rollout.next as usize;
    let step = |(index, step): (usize, &Step)| {
        let (state, deadline_ms) = match rollout.step {
            _ if index < next => ("done", None),
            StepPhase::Started { .. } if index == next && rollout.halted.is_some() => ("stopped", None),
            StepPhase::Started { deadline } if index == next => ("running", deadline.map(|at| at.0)),
            _ => ("waiting", None),
        };
        let started_ms = (state == "running").then_some(rollout.moved_at.0);
        wire::Step {
            text: text_towards(target(rollout), step),
            state: state.into(),
            started_ms,
            ended_ms: None,
            deadline_ms,
            note: tried(step, &rollout.tries).filter(|_| state == "running"),
            expected_ms: None,
        }
    };
    wire::Rollout {
        id: rollout.id.0,
        from: rollout.from.map(|number| number.0),
        to: rollout.to.map(|number| number.0),
        cause: cause_word(&rollout.cause).into(),
        actor: rollout.actor.to_string(),
        started_ms: rollout.started_at.0,
        going_back: match &rollout.direction {
            Direction::Forward => None,
            Direction::Back { reason } => Some(reason.to_string()),
        },
        steps: rollout.steps.iter().enumerate().map(step).collect(),
        trouble: rollout
            .hopeless
            .as_ref()
            .or(rollout.last_exit.as_ref())
            .map(ToString::to_string)
            .unwrap_or_default(),
        canaries: Vec::new(),
        paused: rollout
            .paused
            .as_ref()
            .map(|pause| wire::Paused { by: pause.by.to_string(), since_ms: pause.since.0 }),
        halted: rollout
            .halted
            .as_ref()
            .map(|halt| wire::Halted { reason: halt.reason.to_string(), until_ms: halt.until.0 }),
        ended: None,
    }
}

fn finished_view(finished: &FinishedRollout, mut steps: Vec<wire::Step>) -> wire::Rollout {
    let completed = finished.outcome == Outcome::Completed;
    for step in steps.iter_mut().filter(|_| completed) {
        step.state = "done".into();
        step.deadline_ms = None;
    }
    wire::Rollout {
        id: finished.id.0,
        from: finished.from.map(|number| number.0),
        to: finished.to.map(|number| number.0),
        cause: cause_word(&finished.cause).into(),
        actor: finished.actor.to_string(),
        started_ms: finished.started_at.0,
        going_back: None,
        steps,
        trouble: String::new(),
        canaries: Vec::new(),
        paused: None,
        halted: None,
        ended: Some(wire::Ended {
            at_ms: finished.finished_at.0,
            outcome: outcome_word(&finished.outcome).into(),
            reason: finished.reason.to_string(),
        }),
    }
}

fn service_progress(state: &State, env: &Environment) -> Vec<wire::ServiceProgress> {
    let target = env.target();
    let mut by_service: BTreeMap<ServiceName, wire::ServiceProgress> = BTreeMap::new();
    let blank = |name: &ServiceName| wire::ServiceProgress {
        service: name.to_string(),
        wanted: env.replicas(target, name),
        trouble: trouble(state, env, name),
        ..wire::ServiceProgress::default()
    };
    for service in env.spec(target).into_iter().flat_map(|spec| spec.services.values()) {
        if service.kind != ServiceKind::Job {
            by_service.insert(service.name.clone(), blank(&service.name));
        }
    }
    for instance in state.instances_of(env) {
        let Some((name, _)) = instance.slot() else { continue };
        let own = by_service.entry(name.clone()).or_insert_with(|| blank(name));
        let is_new =
            env.service(target, name).is_some_and(|wanted| wanted.spec_digest == instance.spec_digest);
        tally(if is_new { &mut own.new } else { &mut own.old }, instance);
    }
    by_service.into_values().collect()
}

fn tally(counts: &mut wire::Counts, instance: &Instance) {
    match instance.phase {
        Phase::Warm { .. } => counts.warm += 1,
        ref phase if phase.is_leaving() => counts.leaving += 1,
        Phase::Ended { .. } => {}
        _ => {
            counts.instances += 1;
            counts.healthy += u32::from(instance.health == Health::Healthy);
        }
    }
    counts.routed += u32::from(instance.is_routed());
}

/// What is wrong with a service now, for people; empty if nothing is.
fn trouble(state: &State, env: &Environment, name: &ServiceName) -> String {
    let own =
        || state.instances_of(env).filter(|instance| instance.slot().is_some_and(|(own, _)| own == name));
    let bad = own().find_map(|instance| match (&instance.phase, &instance.health) {
        (Phase::Ended { refused: Some(reason) }, _) => Some(reason.to_string()),
        (Phase::Ended { refused: None }, _) => Some(exit_text(instance)),
        (_, Health::Unhealthy { reason }) => Some(reason.to_string()),
        _ => None,
    });
    let failures = env.services.get(name).and_then(|service| {
        service.slots.values().filter_map(|slot| slot.backoff).map(|backoff| backoff.failures).max()
    });
    match (bad, failures) {
        (Some(reason), _) => reason,
        (None, Some(failures)) if failures > 1 => format!("ended {failures} times in a row"),
        (None, _) => String::new(),
    }
}

fn exit_text(instance: &Instance) -> String {
    instance.exit.map_or_else(|| "ended".into(), |status| status.to_string())
}

fn service_view(env: &Environment, name: &ServiceName, instances: &[&Instance]) -> wire::Service {
    let service: Option<&Service> = env.service(env.target(), name);
    let fits =
        |instance: &&&Instance| service.is_some_and(|wanted| wanted.spec_digest == instance.spec_digest);
    let healthy =
        |instance: &&&Instance| instance.phase == Phase::Running && instance.health == Health::Healthy;
    let trouble = instances.iter().find_map(|instance| match (&instance.phase, &instance.health) {
        (Phase::Ended { refused: Some(reason) }, _) => Some(reason.to_string()),
        (Phase::Ended { refused: None }, _) => Some(exit_text(instance)),
        (_, Health::Unhealthy { reason }) => Some(reason.to_string()),
        _ => None,
    });
    wire::Service {
        name: name.to_string(),
        kind: service.map_or("gone", |service| kind_word(service.kind)).into(),
        strategy: service.map_or("", |service| strategy_word(&service.strategy)).into(),
        replicas: env.replicas(env.target(), name),
        replicas_owner: owner_word(env.replica_owner(name)).into(),
        healthy: instances.iter().filter(fits).filter(healthy).count().try_into().unwrap_or(u32::MAX),
        serving: instances
            .iter()
            .filter(|instance| instance.is_routed())
            .count()
            .try_into()
            .unwrap_or(u32::MAX),
        image: service.map(|service| service.spec.image.to_string()).unwrap_or_default(),
        trouble: trouble.unwrap_or_default(),
    }
}

fn instance_view(instance: &Instance) -> wire::Instance {
    let (service, ordinal) = instance.slot().map_or((String::new(), 0), |(name, n)| (name.to_string(), n));
    let state = match (&instance.phase, &instance.health) {
        (Phase::Running, Health::Healthy) => "healthy",
        (Phase::Running, Health::Unhealthy { .. }) => "unhealthy",
        (Phase::Running, Health::Unknown) => "starting",
        (phase, _) => phase.word(),
    };
    let detail = match (&instance.phase, &instance.health) {
        (Phase::Ended { refused: Some(reason) } | Phase::Retiring { reason, .. }, _) => reason.to_string(),
        (Phase::Ended { refused: None }, _) => exit_text(instance),
        (_, Health::Unhealthy { reason }) => reason.to_string(),
        _ => String::new(),
    };
    wire::Instance {
        id: instance.id.to_string(),
        service,
        ordinal,
        revision: instance.revision().map_or(0, |number| number.0),
        state: state.into(),
        since_ms: instance.requested_at.0,
        address: instance.address.map(|address| address.to_string()),
        weight: instance.is_routed().then(|| instance.weight.per_mille()),
        warm_until_ms: match instance.phase {
            Phase::Warm { until } => Some(until.0),
            _ => None,
        },
        detail,
    }
}

fn routes(env: &Environment, revision: Option<RevisionNumber>) -> Vec<wire::Route> {
    env.spec(revision).into_iter().flat_map(|spec| spec.routes.values()).map(route_view).collect()
}

fn route_view(route: &Route) -> wire::Route {
    wire::Route {
        name: route.name.to_string(),
        url: url(route),
        listen: route.listen.to_string(),
        host: route.host.clone(),
        path: route.path.clone(),
        service: route.to.service.to_string(),
        port: route.to.port.to_string(),
    }
}

/// Where to look from this machine.
pub fn url(route: &Route) -> String {
    let ip = route.listen.ip();
    let host = match &route.host {
        Some(host) => host.clone(),
        None if ip.is_unspecified() || ip.is_loopback() => "localhost".into(),
        None if ip.is_ipv6() => format!("[{ip}]"),
        None => ip.to_string(),
    };
    match route.listen.port() {
        80 => format!("http://{host}{}", route.path),
        port => format!("http://{host}:{port}{}", route.path),
    }
}

/// Which attempt of a step is made, and what the one before came to: `2 of 5: it answered 503`. None of a step that is not
/// tried again.
fn tried(step: &Step, tries: &Tries) -> Option<String> {
    let attempts = match step {
        Step::Ask(ask) => ask.again.attempts,
        Step::Run { again, .. } => again.attempts,
        _ => 1,
    };
    let last = if tries.last.is_empty() { String::new() } else { format!(": {}", tries.last) };
    (attempts > 1).then(|| format!("{} of {attempts}{last}", (tries.failed + 1).min(attempts)))
}

/// How often, as people say it.
pub(super) fn often(times: u32) -> String {
    match times {
        1 => "once".into(),
        2 => "twice".into(),
        times => format!("{times} times"),
    }
}

/// A step as people say it, on the way to a revision or to none: there nothing is new.
pub(super) fn text_towards(target: Option<u64>, step: &Step) -> String {
    match step {
        Step::Shift { slots, .. } if target.is_none() && has_any(slots) => {
            format!("send no more requests to {}", list(slots))
        }
        _ => step_text(step),
    }
}

/// A step as people say it, on the way to a revision.
pub fn step_text(step: &Step) -> String {
    match step {
        Step::OpenListeners => "open the sockets".into(),
        Step::Run { job, .. } => format!("run {job}"),
        Step::Ask(ask) => format!("ask {ask}"),
        Step::Create { slots } => format!("create {}", list(slots)),
        Step::WaitHealthy { slots, .. } => format!("wait until {} is healthy", list(slots)),
        // Only the routes differ, or nothing does but the release.
        Step::Shift { slots, .. } if !has_any(slots) => "switch the routes".into(),
        Step::Shift { slots, weight, .. } => {
            format!("send {}% of the requests to {}", f64::from(weight.per_mille()) / 10.0, list(slots))
        }
        Step::Split { service, weight: Weight::ZERO, .. } => {
            format!("send the new {service} only the requests that are aimed at it")
        }
        Step::Split { service, weight, .. } => {
            format!("send {}% of the requests to the new {service}", f64::from(weight.per_mille()) / 10.0)
        }
        Step::Mirror { service, share: Weight::ZERO, .. } => format!("end the copies for the new {service}"),
        Step::Mirror { service, share, .. } => {
            format!("copy {}% of the safe requests to the new {service}", f64::from(share.per_mille()) / 10.0)
        }
        Step::Hold { span } => format!("hold for {span}"),
        Step::Soak { slots, span } => format!("let {} soak for {span}", list(slots)),
        Step::Analyse { service, within, .. } => {
            format!("compare the new {service} with its baseline, for {within} at most")
        }
        Step::Approve { by, within } if by.is_empty() => {
            format!("wait for an approval, for {within} at most")
        }
        Step::Approve { by, within } => {
            format!("wait for an approval by {}, for {within} at most", by.join(" or "))
        }
        Step::Drain { slots, .. } => format!("drain the old {}", list(slots)),
        Step::KeepWarm { slots, keep_for } => format!("keep the old {} warm for {keep_for}", list(slots)),
        Step::Retire { slots } => format!("remove the old {}", list(slots)),
    }
}

fn has_any(slots: &[Slots]) -> bool {
    slots.iter().any(|slots| slots.count > 0)
}

fn list(slots: &[Slots]) -> String {
    let shown: Vec<String> = slots.iter().filter(|slots| slots.count > 0).map(ToString::to_string).collect();
    match shown.len() {
        0 => "nothing".into(),
        1..=4 => shown.join(", "),
        n => format!("{}, … ({n} services)", shown[..3].join(", ")),
    }
}

/// The revision that a rollout is on the way to, or back to.
fn target(rollout: &Rollout) -> Option<u64> {
    let number = match rollout.direction {
        Direction::Forward => rollout.to,
        Direction::Back { .. } => rollout.from,
    };
    number.map(|number| number.0)
}

pub(crate) const fn cause_word(cause: &Cause) -> &'static str {
    match cause {
        Cause::Up => "up",
        Cause::Rollback { .. } => "rollback",
        Cause::Down => "down",
        Cause::Promotion { .. } => "promotion",
    }
}

pub(super) const fn outcome_word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Completed => "completed",
        Outcome::WentBack => "went_back",
        Outcome::Superseded => "superseded",
        Outcome::Stuck => "stuck",
    }
}

const fn kind_word(kind: ServiceKind) -> &'static str {
    match kind {
        ServiceKind::Service => "service",
        ServiceKind::Worker => "worker",
        ServiceKind::Job => "job",
    }
}

const fn strategy_word(strategy: &Strategy) -> &'static str {
    match strategy {
        Strategy::BlueGreen => "blue_green",
        Strategy::Rolling { .. } => "rolling",
        Strategy::StopThenStart => "stop_then_start",
        Strategy::Canary(_) => "canary",
    }
}

const fn owner_word(owner: ReplicaOwner) -> &'static str {
    match owner {
        ReplicaOwner::Declared => "declared",
        ReplicaOwner::Hand => "hand",
        ReplicaOwner::Autoscaler => "autoscaler",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_model::service::PortRef;
    use kiln_model::{PortName, RouteName};

    fn route(listen: &str, host: Option<&str>, path: &str) -> Route {
        Route {
            name: RouteName::new("public").unwrap(),
            listen: listen.parse().unwrap(),
            host: host.map(Into::into),
            path: path.into(),
            to: PortRef { service: ServiceName::new("web").unwrap(), port: PortName::new("http").unwrap() },
        }
    }

    #[test]
    fn a_route_is_shown_as_what_a_browser_takes() {
        for (listen, host, path, shown) in [
            ("0.0.0.0:8080", None, "/", "http://localhost:8080/"),
            ("127.0.0.1:80", None, "/a", "http://localhost/a"),
            ("0.0.0.0:80", Some("shop.localhost"), "/", "http://shop.localhost/"),
            ("10.1.2.3:8080", None, "/", "http://10.1.2.3:8080/"),
            ("[2001:db8::1]:8080", None, "/", "http://[2001:db8::1]:8080/"),
        ] {
            assert_eq!(url(&route(listen, host, path)), shown);
        }
    }

    #[test]
    fn a_switch_says_what_becomes_of_the_requests() {
        let shift = |count| Step::Shift {
            slots: vec![Slots { service: ServiceName::new("web").unwrap(), first: 0, count }],
            weight: Weight::FULL,
            serve_routes: true,
        };
        assert_eq!(text_towards(Some(2), &shift(2)), "send 100% of the requests to web/0..2");
        assert_eq!(text_towards(None, &shift(2)), "send no more requests to web/0..2");
        for target in [Some(2), None] {
            assert_eq!(text_towards(target, &shift(0)), "switch the routes");
        }
    }
}
