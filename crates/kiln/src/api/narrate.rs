//! Events as people read them: one line each.

use kiln_model::event::{
    CheckEvent, ControlEvent, EnvironmentEvent, InstanceEvent, Purpose, RolloutEvent, TrafficEvent,
};
use kiln_model::gates::GateVerdict;
use kiln_model::rollout::{Cause, Outcome, Place, ReplicaOwner};
use kiln_model::{CheckId, Entry, Event, InstanceId, RevisionNumber, Timestamp, Weight};
use serde_json::json;

use super::verdicts;
use super::view::{often, step_text};
use super::wire;

/// More instances than this in one line are counted, not listed.
const SHOWN_MAX: usize = 6;

/// Shows a line of the log.
pub fn event(entry: &Entry) -> wire::Event {
    let (kind, text) = narrate(&entry.event);
    let data = match &entry.event {
        Event::Instance(id, InstanceEvent::Requested { purpose: Purpose::Slot { slot, revision }, .. }) => {
            json!({
                "instance": id.as_str(),
                "service": slot.service.as_str(),
                "ordinal": slot.ordinal,
                "revision": revision.0,
                "term": entry.term.0,
            })
        }
        Event::Instance(id, InstanceEvent::Requested { purpose: Purpose::Check(check), .. }) => {
            json!({ "instance": id.as_str(), "check": check.0, "term": entry.term.0 })
        }
        Event::Instance(id, InstanceEvent::Exited { status }) => {
            let succeeded = status.is_success();
            json!({ "instance": id.as_str(), "term": entry.term.0, "succeeded": succeeded })
        }
        Event::Instance(id, _) => json!({ "instance": id.as_str(), "term": entry.term.0 }),
        Event::Check(id, CheckEvent::Inspected { image, test, basis, .. }) => {
            json!({
                "check": id.0,
                "image": image.to_string(),
                "test": test,
                "basis": basis,
                "term": entry.term.0,
            })
        }
        Event::Check(id, _) => json!({ "check": id.0, "term": entry.term.0 }),
        Event::Environment(EnvironmentEvent::RevisionSealed { revision }) => {
            json!({ "revision": revision.number.0, "term": entry.term.0 })
        }
        Event::Environment(EnvironmentEvent::ReleaseApproved { release, until }) => {
            json!({ "release": release.to_string(), "until_ms": until.0, "term": entry.term.0 })
        }
        _ => json!({ "term": entry.term.0 }),
    };
    wire::Event {
        position: entry.position.0,
        at_ms: entry.at.0,
        actor: entry.actor.to_string(),
        env: entry.env.as_ref().map(ToString::to_string),
        kind: kind.into(),
        text,
        data,
    }
}

fn narrate(event: &Event) -> (&'static str, String) {
    match event {
        Event::Control(event) => control(event),
        Event::Environment(event) => environment(event),
        Event::Rollout(event) => rollout(event),
        Event::Instance(id, event) => instance(*id, event),
        Event::Traffic(event) => traffic(event),
        Event::Check(id, event) => check(*id, event),
    }
}

fn control(event: &ControlEvent) -> (&'static str, String) {
    match event {
        ControlEvent::ControllerStarted { term } => {
            ("control.controller_started", format!("a controller took over as {term}"))
        }
        ControlEvent::ClockJumped { by } => {
            ("control.clock_jumped", format!("the clock jumped ahead by {by}; deadlines moved with it"))
        }
        ControlEvent::StackBound { stack, origin } => {
            ("control.stack_bound", format!("stack {stack} belongs to {origin}"))
        }
    }
}

fn environment(event: &EnvironmentEvent) -> (&'static str, String) {
    match event {
        EnvironmentEvent::Created { index } => {
            ("environment.created", format!("the environment was created as number {index}"))
        }
        EnvironmentEvent::RevisionSealed { revision } => {
            let made = match &revision.composed {
                Some(made) => format!(", made by taking {} from {}", made.service, made.from),
                None => String::new(),
            };
            let text = format!(
                "revision {} was sealed from release {}{made}",
                revision.number,
                revision.release.short()
            );
            ("environment.revision_sealed", text)
        }
        EnvironmentEvent::RevisionReleased { number } => {
            ("environment.revision_released", format!("revision {number} is no longer kept"))
        }
        EnvironmentEvent::ReplicasSet { service, replicas, owner } => {
            let owner = match owner {
                ReplicaOwner::Declared => "as declared",
                ReplicaOwner::Hand => "by hand",
                ReplicaOwner::Autoscaler => "by the autoscaler",
            };
            ("environment.replicas_set", format!("{service} is to have {replicas} replicas, {owner}"))
        }
        EnvironmentEvent::Removed => ("environment.removed", "the environment is gone".into()),
        EnvironmentEvent::LifetimeSet { lifetime: Some((ttl, _)) } => {
            ("environment.lifetime_set", format!("it lasts for {ttl} from now on"))
        }
        EnvironmentEvent::LifetimeSet { lifetime: None } => {
            ("environment.lifetime_set", "it lasts until somebody takes it down".into())
        }
        EnvironmentEvent::Expired => {
            ("environment.expired", "its time is over: everything of it goes".into())
        }
        EnvironmentEvent::RolloutQueued { to, cause: _ } => {
            ("environment.rollout_queued", format!("{to} is next, once the rollout that runs has ended"))
        }
        EnvironmentEvent::RolloutDequeued { reason } => {
            ("environment.rollout_dequeued", format!("the rollout that was next does not begin: {reason}"))
        }
        EnvironmentEvent::GatesDeclared { .. } => {
            ("environment.gates_declared", "other gates count from now on".into())
        }
        EnvironmentEvent::ReleaseApproved { release, until: _ } => {
            ("environment.release_approved", format!("release {} was approved", release.short()))
        }
        EnvironmentEvent::GatesPassed { release, verdicts, broken } => {
            ("environment.gates_passed", gates_passed(&release.short(), verdicts, broken.as_deref()))
        }
    }
}

fn gates_passed(release: &str, verdicts: &[GateVerdict], broken: Option<&str>) -> String {
    let wanted = verdicts.iter().filter(|verdict| verdict.is_open == broken.is_none());
    let details: Vec<&str> = wanted.map(|verdict| verdict.detail.as_str()).collect();
    let details = details.join("; ");
    match broken {
        None => format!("release {release} was let in: {details}"),
        Some(why) => format!("release {release} was let in by breaking the glass ({why}), though: {details}"),
    }
}

fn rollout(event: &RolloutEvent) -> (&'static str, String) {
    match event {
        RolloutEvent::Started { from, to, cause, steps } => {
            let verb = match cause {
                Cause::Up => "a rollout".to_string(),
                Cause::Rollback { to, service: Some(service) } => format!("a rollback of {service} to {to}"),
                Cause::Rollback { to, service: None } => format!("a rollback to {to}"),
                Cause::Down => "taking everything down".to_string(),
                Cause::Promotion { from } => format!("a promotion from {from}"),
            };
            let text = format!("{verb} began: {} to {}, {} steps", number(*from), number(*to), steps.len());
            ("rollout.started", text)
        }
        RolloutEvent::StepStarted { index, .. } => {
            ("rollout.step_started", format!("step {} began", index + 1))
        }
        RolloutEvent::StepCompleted { index } => {
            ("rollout.step_completed", format!("step {} is complete", index + 1))
        }
        RolloutEvent::Paused => ("rollout.paused", "the rollout is paused: no further step begins".into()),
        RolloutEvent::Resumed => ("rollout.resumed", "the rollout goes on".into()),
        RolloutEvent::Promoted { index } => ("rollout.promoted", format!("step {} was promoted", index + 1)),
        RolloutEvent::Analysed { .. } | RolloutEvent::Extended { .. } | RolloutEvent::Measured { .. } => {
            learned(event)
        }
        RolloutEvent::Tried { index, passed, text } => {
            let how = if *passed { "passed" } else { "failed" };
            ("rollout.tried", format!("an attempt of step {} {how}: {text}", index + 1))
        }
        RolloutEvent::Halted { reason, until: _ } => {
            ("rollout.halted", format!("the rollout stopped, for somebody to decide: {reason}"))
        }
        RolloutEvent::GoingBack { reason, steps } => {
            let first = steps.first().map(|step| format!("; first: {}", step_text(step))).unwrap_or_default();
            ("rollout.going_back", format!("the rollout goes back: {reason}{first}"))
        }
        RolloutEvent::NotTold { rollout, webhook, occasion, reason } => {
            let what = occasion.word();
            ("rollout.not_told", format!("{webhook} could not be told that {rollout} {what}: {reason}"))
        }
        RolloutEvent::Predicted { rollout, forecast } => {
            let text = match forecast {
                Ok(forecast) => format!("{rollout} is expected to take {}", forecast.total),
                Err(why) => format!("what {rollout} takes is not predicted: {why}"),
            };
            ("rollout.predicted", text)
        }
        RolloutEvent::Counted { rollout, is_end, counts, .. } => {
            let when = if *is_end { "ended" } else { "began" };
            let text = match counts {
                Some(_) => format!("the requests were counted, for {rollout} {when}"),
                None => format!("the requests could not be counted when {rollout} {when}"),
            };
            ("rollout.counted", text)
        }
        RolloutEvent::Finished { outcome, reason } => {
            let how = match outcome {
                Outcome::Completed => "is complete",
                Outcome::WentBack => "went back",
                Outcome::Superseded => "was superseded",
                Outcome::Stuck => "is stuck: what still serves was left in place",
            };
            ("rollout.finished", format!("the rollout {how}{}", because(reason)))
        }
    }
}

/// What is known of a canary.
fn learned(event: &RolloutEvent) -> (&'static str, String) {
    match event {
        RolloutEvent::Analysed { service, window, verdict, evidence, synthetic } => {
            let found = verdicts::analysis(Timestamp(0), service, *window, *verdict, evidence, *synthetic);
            ("rollout.analysed", verdicts::sentence(&found))
        }
        RolloutEvent::Extended { service, times, .. } => {
            let text = format!(
                "the requests to the new {service} are too few to tell: its analysis takes its time again, {}",
                often(*times)
            );
            ("rollout.extended", text)
        }
        RolloutEvent::Measured { service, window, metric, finding, text } => {
            let found = verdicts::measurement(Timestamp(0), (service, *window), metric, *finding, text);
            ("rollout.measured", verdicts::measurement_sentence(&found))
        }
        _ => ("rollout.learned", String::new()),
    }
}

fn instance(id: InstanceId, event: &InstanceEvent) -> (&'static str, String) {
    match event {
        InstanceEvent::Requested { purpose: Purpose::Slot { slot, revision }, .. } => {
            let text = format!("{id} is to fill {}/{} at {revision}", slot.service, Place(slot.ordinal));
            ("instance.requested", text)
        }
        InstanceEvent::Requested { purpose: Purpose::Check(check), .. } => {
            ("instance.requested", format!("{id} is to boot an image for {check}"))
        }
        InstanceEvent::Started { address } => ("instance.started", format!("{id} started at {address}")),
        InstanceEvent::BecameHealthy => ("instance.became_healthy", format!("{id} is healthy")),
        InstanceEvent::BecameUnhealthy { reason } => {
            ("instance.became_unhealthy", format!("{id} is unhealthy{}", because(reason)))
        }
        InstanceEvent::Refused { reason } => {
            ("instance.refused", format!("{id} can't be created{}", because(reason)))
        }
        InstanceEvent::Exited { status } => ("instance.exited", format!("{id} {status}")),
        InstanceEvent::Warmed { .. } => ("instance.warmed", format!("{id} stays warm, out of the routes")),
        InstanceEvent::Recalled => ("instance.recalled", format!("{id} is wanted again")),
        InstanceEvent::Retiring { reason, .. } => {
            ("instance.retiring", format!("{id} is to go{}", because(reason)))
        }
        InstanceEvent::Draining { .. } => {
            ("instance.draining", format!("{id} is out of the routes; what is in flight may end"))
        }
        InstanceEvent::Destroying { cut: true, .. } => {
            ("instance.destroying", format!("{id} is stopped; the drain deadline cut what was in flight"))
        }
        InstanceEvent::Destroying { cut: false, .. } => ("instance.destroying", format!("{id} is stopped")),
        InstanceEvent::Destroyed => ("instance.destroyed", format!("{id} is gone")),
        InstanceEvent::Disowned => {
            ("instance.disowned", format!("{id} is unknown to the log and is removed"))
        }
    }
}

fn traffic(event: &TrafficEvent) -> (&'static str, String) {
    match event {
        TrafficEvent::Shifted { weights } => {
            let shown: Vec<String> = weights.iter().take(SHOWN_MAX).map(share).collect();
            let more = match weights.len().saturating_sub(SHOWN_MAX) {
                0 => String::new(),
                n => format!(" and {n} more"),
            };
            ("traffic.shifted", format!("requests go to {}{more}", shown.join(", ")))
        }
        TrafficEvent::RoutesServed { revision } => {
            ("traffic.routes_served", format!("the routes are those of {}", number(*revision)))
        }
        TrafficEvent::Acknowledged { version } => {
            ("traffic.acknowledged", format!("the edge serves table {version}"))
        }
        TrafficEvent::ListenerRequested { listener } => {
            ("traffic.listener_requested", format!("{listener} is to be opened"))
        }
        TrafficEvent::ListenerOpened { listener } => {
            ("traffic.listener_opened", format!("{listener} is open"))
        }
        TrafficEvent::ListenerFailed { listener, reason } => {
            ("traffic.listener_failed", format!("{listener} can't be opened{}", because(reason)))
        }
        TrafficEvent::ListenerReleased { listener } => {
            ("traffic.listener_released", format!("{listener} is to be closed"))
        }
        TrafficEvent::ListenerClosed { listener } => {
            ("traffic.listener_closed", format!("{listener} is closed"))
        }
    }
}

fn check(id: CheckId, event: &CheckEvent) -> (&'static str, String) {
    match event {
        CheckEvent::Requested { image, test, .. } => {
            ("check.requested", format!("{id}: test {test} of image {} began", image.short()))
        }
        CheckEvent::Passed => ("check.passed", format!("{id} passed")),
        CheckEvent::Failed { reason } => ("check.failed", format!("{id} failed{}", because(reason))),
        CheckEvent::Inspected { image, test, failure: None, basis, .. } => {
            let by = basis.as_ref().map_or(String::new(), |basis| format!(", by {basis}"));
            ("check.inspected", format!("{} of image {} passed{by}", inspection(test), image.short()))
        }
        CheckEvent::Inspected { image, test, failure: Some(reason), .. } => {
            let text = format!("{} of image {} failed{}", inspection(test), image.short(), because(reason));
            ("check.inspected", text)
        }
    }
}

/// A name that begins with a colon is no test's, such as that of the scan.
fn inspection(test: &str) -> String {
    test.strip_prefix(':').map_or_else(|| format!("test {test}"), str::to_owned)
}

fn share((id, weight): &(InstanceId, Weight)) -> String {
    format!("{id} {}%", f64::from(weight.per_mille()) / 10.0)
}

fn number(revision: Option<RevisionNumber>) -> String {
    revision.map_or_else(|| "nothing".into(), |number| number.to_string())
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}
