//! The log and the state as lines of text, with short names for the instances in the order of their creation.

use std::collections::BTreeMap;
use std::fmt::Write;

use kiln_core::State;
use kiln_core::state::{Health, Instance};
use kiln_model::ask::Again;
use kiln_model::event::{
    CheckEvent, ControlEvent, EnvironmentEvent, InstanceEvent, Purpose, RolloutEvent, TrafficEvent,
};
use kiln_model::rollout::{Slots, Step};
use kiln_model::{Entry, Event, InstanceId, RevisionNumber, Timestamp};

/// Short names for instances.
#[derive(Default)]
pub(crate) struct Names {
    names: BTreeMap<InstanceId, String>,
}

impl Names {
    pub(crate) fn of(&self, id: InstanceId) -> &str {
        self.names.get(&id).map_or("?", String::as_str)
    }

    /// Returns the line of an entry; none for those that only say that time went on.
    pub(crate) fn line(&mut self, entry: &Entry) -> String {
        match &entry.event {
            Event::Control(ControlEvent::ControllerStarted { term }) => format!("controller {term}"),
            Event::Control(ControlEvent::ClockJumped { by }) => format!("clock jumped {by}"),
            Event::Control(ControlEvent::StackBound { stack, origin }) => {
                format!("{stack} bound to {origin}")
            }
            Event::Environment(event) => {
                let env = entry.env.as_ref().unwrap();
                match event {
                    EnvironmentEvent::Created { index } => format!("{env} created {index}"),
                    EnvironmentEvent::RevisionSealed { revision } => {
                        let composed = revision.composed.as_ref();
                        let composed = composed.map(|c| format!(" with {} of {}", c.service, c.from));
                        format!("sealed {}{}", revision.number, composed.unwrap_or_default())
                    }
                    EnvironmentEvent::RevisionReleased { number } => format!("released {number}"),
                    EnvironmentEvent::ReplicasSet { service, replicas, owner } => {
                        format!("replicas {service} {replicas} {owner:?}")
                    }
                    EnvironmentEvent::Removed => format!("{env} removed"),
                    EnvironmentEvent::GatesDeclared { .. } => format!("{env} gates declared"),
                    EnvironmentEvent::ReleaseApproved { release, .. } => {
                        format!("{env} release {} approved", release.short())
                    }
                    EnvironmentEvent::GatesPassed { .. } => format!("{env} gates passed"),
                    EnvironmentEvent::LifetimeSet { lifetime } => {
                        format!(
                            "{env} lasts {}",
                            lifetime.map_or("for ever".to_owned(), |(ttl, _)| ttl.to_string())
                        )
                    }
                    EnvironmentEvent::Expired => format!("{env} expired"),
                    EnvironmentEvent::RolloutQueued { to, .. } => format!("queued {to}"),
                    EnvironmentEvent::RolloutDequeued { reason } => format!("dequeued: {reason}"),
                }
            }
            Event::Rollout(event) => rollout(event),
            Event::Instance(id, event) => {
                if let InstanceEvent::Requested { purpose, .. } = event {
                    let name = format!("i{}", self.names.len() + 1);
                    self.names.insert(*id, name.clone());
                    return match purpose {
                        Purpose::Slot { slot, revision } => {
                            format!("{name} {}/{} {revision} requested", slot.service, slot.ordinal)
                        }
                        Purpose::Check(check) => format!("{name} {check} requested"),
                    };
                }
                format!("{} {}", self.of(*id), instance(entry.at, event))
            }
            Event::Traffic(event) => self.traffic(event),
            Event::Check(id, event) => match event {
                CheckEvent::Requested { test, .. } => format!("check {test} requested"),
                CheckEvent::Passed => format!("{id} passed"),
                CheckEvent::Failed { reason } => format!("{id} failed: {reason}"),
                CheckEvent::Inspected { test, failure: None, .. } => {
                    format!("test {test} passed by inspection")
                }
                CheckEvent::Inspected { test, failure: Some(why), .. } => {
                    format!("test {test} failed by inspection: {why}")
                }
            },
        }
    }

    fn traffic(&self, event: &TrafficEvent) -> String {
        match event {
            TrafficEvent::Shifted { weights } => {
                let all: Vec<String> = weights
                    .iter()
                    .map(|(id, weight)| format!("{}={}", self.of(*id), weight.per_mille()))
                    .collect();
                format!("shifted {}", all.join(" "))
            }
            TrafficEvent::RoutesServed { revision } => format!("routes of {}", number(*revision)),
            TrafficEvent::Acknowledged { .. } => "acknowledged".into(),
            TrafficEvent::ListenerRequested { listener } => format!("listener {listener} requested"),
            TrafficEvent::ListenerOpened { listener } => format!("listener {listener} opened"),
            TrafficEvent::ListenerFailed { listener, reason } => {
                format!("listener {listener} failed: {reason}")
            }
            TrafficEvent::ListenerReleased { listener } => format!("listener {listener} released"),
            TrafficEvent::ListenerClosed { listener } => format!("listener {listener} closed"),
        }
    }
}

fn rollout(event: &RolloutEvent) -> String {
    match event {
        RolloutEvent::Started { from, to, steps, .. } => {
            format!("rollout {} -> {}: {}", number(*from), number(*to), list(steps))
        }
        RolloutEvent::StepStarted { index, .. } => format!("step {index}"),
        RolloutEvent::StepCompleted { index } => format!("step {index} complete"),
        RolloutEvent::Paused => "paused".into(),
        RolloutEvent::Resumed => "resumed".into(),
        RolloutEvent::Promoted { index } => format!("step {index} promoted"),
        RolloutEvent::Measured { service, window, metric, finding, text } => {
            format!("{metric} of {service} window {window}: {finding:?} {text}")
        }
        RolloutEvent::Analysed { service, window, verdict, .. } => {
            format!("analysed {service} window {window}: {verdict:?}")
        }
        RolloutEvent::Extended { service, times, .. } => format!("analysis of {service} extended {times}"),
        RolloutEvent::Tried { passed: true, text, .. } => format!("passed: {text}"),
        RolloutEvent::Tried { passed: false, text, .. } => format!("failed: {text}"),
        RolloutEvent::Halted { reason, .. } => format!("halted: {reason}"),
        RolloutEvent::GoingBack { reason, steps } => format!("going back ({reason}): {}", list(steps)),
        RolloutEvent::Counted { rollout, is_end, .. } => {
            format!("{rollout} counted at its {}", if *is_end { "end" } else { "start" })
        }
        RolloutEvent::NotTold { rollout, webhook, occasion, reason } => {
            format!("{webhook} not told of {rollout} {occasion:?}: {reason}")
        }
        RolloutEvent::Predicted { rollout, forecast } => {
            format!("{rollout} predicted: {}", if forecast.is_ok() { "known" } else { "not known" })
        }
        RolloutEvent::Finished { outcome, reason } if reason.is_empty() => format!("finished {outcome:?}"),
        RolloutEvent::Finished { outcome, reason } => format!("finished {outcome:?}: {reason}"),
    }
}

fn instance(at: Timestamp, event: &InstanceEvent) -> String {
    match event {
        InstanceEvent::Requested { .. } => "requested".into(),
        InstanceEvent::Started { .. } => "started".into(),
        InstanceEvent::BecameHealthy => "healthy".into(),
        InstanceEvent::BecameUnhealthy { reason } => format!("unhealthy: {reason}"),
        InstanceEvent::Refused { reason } => format!("refused: {reason}"),
        InstanceEvent::Exited { status } => status.to_string(),
        InstanceEvent::Warmed { until } => format!("warm for {}", until.since(at)),
        InstanceEvent::Recalled => "recalled".into(),
        InstanceEvent::Retiring { reason, .. } => format!("retiring: {reason}"),
        InstanceEvent::Draining { deadline } => format!("draining for {}", deadline.since(at)),
        InstanceEvent::Destroying { cut: true, .. } => "destroying, requests were cut".into(),
        InstanceEvent::Destroying { .. } => "destroying".into(),
        InstanceEvent::Destroyed => "destroyed".into(),
        InstanceEvent::Disowned => "disowned".into(),
    }
}

fn number(revision: Option<RevisionNumber>) -> String {
    revision.map_or_else(|| "none".into(), |number| number.to_string())
}

pub(crate) fn list(steps: &[Step]) -> String {
    steps.iter().map(step).collect::<Vec<_>>().join(", ")
}

pub(crate) fn step(step: &Step) -> String {
    let all = |slots: &[Slots]| slots.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    match step {
        Step::OpenListeners => "open".into(),
        Step::Run { job, within: None, .. } => format!("run {job}"),
        Step::Run { job, within: Some(within), again } => format!("run {job} {within}{}", times(*again)),
        Step::Ask(ask) => format!("ask {ask} {}{}", ask.timeout, times(ask.again)),
        Step::Create { slots } => format!("create {}", all(slots)),
        Step::WaitHealthy { slots, within } => format!("wait {} {within}", all(slots)),
        Step::Shift { slots, weight, serve_routes } => {
            let routes = if *serve_routes { " with routes" } else { "" };
            let share =
                if weight.per_mille() == 1000 { String::new() } else { format!(" {}", weight.per_mille()) };
            let space = if slots.is_empty() { "" } else { " " };
            format!("shift{space}{}{share}{routes}", all(slots))
        }
        Step::Split { service, weight, window } => {
            format!("split {service} {} window {window}", weight.per_mille())
        }
        Step::Mirror { service, share, .. } => format!("mirror {service} {}", share.per_mille()),
        Step::Hold { span } => format!("hold {span}"),
        Step::Soak { slots, span } => format!("soak {} {span}", all(slots)),
        Step::Analyse { service, window, within } => format!("analyse {service} window {window} {within}"),
        Step::Approve { by, within } => {
            format!("approve {}{within}", by.iter().fold(String::new(), |all, name| all + name + " "))
        }
        Step::Drain { slots, within } => format!("drain {} {within}", all(slots)),
        Step::KeepWarm { slots, keep_for } => format!("warm {} {keep_for}", all(slots)),
        Step::Retire { slots } => format!("retire {}", all(slots)),
    }
}

fn times(Again { attempts, interval }: Again) -> String {
    if attempts > 1 { format!(" {attempts} times {interval}") } else { String::new() }
}

/// The state of all environments, a line each for instances and backends.
pub(crate) fn status(state: &State, names: &Names) -> String {
    let mut text = String::new();
    for env in state.environments() {
        let running = env.rollout.as_ref().map(|r| format!(", moving to {}", number(r.target())));
        writeln!(text, "  {} at {}{}", env.key, number(env.current), running.unwrap_or_default()).unwrap();
        for found in state.instances_of(env) {
            writeln!(text, "  {}", instance_line(found, names)).unwrap();
        }
    }
    for rule in kiln_core::route_table(state).rules {
        let pool = &kiln_core::route_table(state).pools[&rule.pool];
        let host = rule.host.map(|host| format!(" {host}")).unwrap_or_default();
        let backends: Vec<&str> = pool.backends.iter().map(|backend| names.of(backend.instance)).collect();
        let sticky = if pool.sticky.is_some() { ", sticky" } else { "" };
        let aimed = if pool.aim.is_empty() { "" } else { ", aimed" };
        let mirrored = if pool.mirror.is_some() { ", mirrored" } else { "" };
        let made = if pool.synthetic.is_some() { ", with requests of Kiln's" } else { "" };
        let sorted = format!("{sticky}{aimed}{mirrored}{made}");
        writeln!(text, "  {}{host} -> {}{sorted}", rule.listener, backends.join(" ")).unwrap();
    }
    text
}

fn instance_line(found: &Instance, names: &Names) -> String {
    let (service, ordinal) = found.slot().unwrap();
    let health = match &found.health {
        Health::Unknown => "",
        Health::Healthy => " healthy",
        Health::Unhealthy { .. } => " unhealthy",
    };
    let routed = if found.is_routed() { " routed" } else { "" };
    let revision = number(found.revision());
    format!("{} {service}/{ordinal} {revision} {}{health}{routed}", names.of(found.id), found.phase.word())
}
