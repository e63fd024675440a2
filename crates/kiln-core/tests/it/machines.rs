//! The diagrams of docs/state-machines.md, drawn by driving `apply`: from each state that can be reached every event is
//! tried, and those that are not refused are the arrows. With `KILN_BLESS=1` in the environment they are written down.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::path::Path;

use kiln_core::state::{ListenerPhase, StepPhase};
use kiln_core::{Draft, Input, InputKind, State, apply, number};
use kiln_model::event::{CheckEvent, InstanceEvent, RolloutEvent, TrafficEvent};
use kiln_model::instance::ExitStatus;
use kiln_model::rollout::{Cause, Outcome, Step};
use kiln_model::route::Listener;
use kiln_model::{Actor, CheckId, Event, InstanceId, Millis, RevisionNumber, Timestamp, Weight};

use super::shapes::{digest_of, env, instance_spec, up};
use super::world::World;

/// What is drawn of one machine: where it is, by what there is to tell apart, and the event's name.
struct Machine<'a> {
    /// The name of the machine's state; none before it exists and after it is gone.
    label: &'a dyn Fn(&State) -> Option<String>,
    /// What else decides which events are legal, and is not drawn.
    beside: &'a dyn Fn(&State) -> String,
    /// The events that are tried in a state, those of other machines included, which are not drawn.
    events: &'a dyn Fn(&State) -> Vec<(bool, Event)>,
}

type Arrows = BTreeMap<(String, String), BTreeSet<String>>;

const OUTSIDE: &str = "[*]";

fn after(state: &State, event: Event) -> Option<State> {
    let input = Input { now: state.now(), seed: 0, actor: Actor::Controller, kind: InputKind::Tick };
    let draft = Draft { env: Some(env("dev")), event, actor: Some(Actor::Controller) };
    let mut next = state.clone();
    number(state, &[draft], &input).iter().all(|entry| apply(&mut next, entry).is_ok()).then_some(next)
}

fn walk(start: &State, machine: &Machine<'_>) -> Arrows {
    let (mut arrows, mut seen) = (Arrows::new(), BTreeSet::new());
    let mut frontier = VecDeque::from([start.clone()]);
    while let Some(state) = frontier.pop_front() {
        let from = (machine.label)(&state);
        if !seen.insert((from.clone(), (machine.beside)(&state))) {
            continue;
        }
        for (is_drawn, event) in (machine.events)(&state) {
            let name = name(&event);
            let Some(next) = after(&state, event) else { continue };
            let to = (machine.label)(&next);
            if is_drawn {
                let ends = (from.clone().unwrap_or(OUTSIDE.into()), to.clone().unwrap_or(OUTSIDE.into()));
                arrows.entry(ends).or_default().insert(name);
            }
            // What is gone stays gone: an id is used once.
            if to.is_some() {
                frontier.push_back(next);
            }
        }
    }
    arrows
}

/// The event's name, with the outcome of a rollout.
fn name(event: &Event) -> String {
    let text = match event {
        Event::Instance(_, event) => format!("{event:?}"),
        Event::Rollout(RolloutEvent::Finished { outcome, .. }) => return format!("Finished {outcome:?}"),
        Event::Rollout(event) => format!("{event:?}"),
        Event::Traffic(event) => format!("{event:?}"),
        Event::Check(_, event) => format!("{event:?}"),
        other => format!("{other:?}"),
    };
    text.split([' ', '(']).next().unwrap().to_owned()
}

fn draw(title: &str, about: &str, arrows: &Arrows) -> String {
    let mut text = format!("\n## {title}\n\n{about}\n\n```mermaid\nstateDiagram-v2\n");
    let states: BTreeSet<&String> = arrows.keys().flat_map(|(from, to)| [from, to]).collect();
    for state in states.into_iter().filter(|state| *state != OUTSIDE && state.contains(' ')) {
        writeln!(text, "    state \"{state}\" as {}", id(state)).unwrap();
    }
    for ((from, to), events) in arrows {
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        writeln!(text, "    {} --> {}: {}", id(from), id(to), events.join(", ")).unwrap();
    }
    text + "```\n"
}

fn id(state: &str) -> String {
    if state == OUTSIDE { state.to_owned() } else { state.replace([' ', ','], "_") }
}

/// One service that runs, and its environment.
fn running() -> World {
    let mut world = World::new();
    world.command(up(&env("dev"), &["web=v1*1+route:8080"]));
    world.wait(Millis::from_secs(1));
    world
}

fn instances() -> Arrows {
    let world = running();
    let requested = world.log.iter().find_map(|entry| match &entry.event {
        Event::Instance(_, event @ InstanceEvent::Requested { .. }) => Some(event.clone()),
        _ => None,
    });
    let (requested, subject) = (requested.unwrap(), InstanceId::from_seed(99));
    let (soon, span) = (Timestamp(u64::MAX / 2), Millis(1));
    let events = |state: &State| {
        let mine = [
            requested.clone(),
            InstanceEvent::Started { address: [10, 0, 0, 9].into() },
            InstanceEvent::BecameHealthy,
            InstanceEvent::BecameUnhealthy { reason: String::new() },
            InstanceEvent::Refused { reason: String::new() },
            InstanceEvent::Exited { status: ExitStatus::Code(1) },
            InstanceEvent::Warmed { until: soon },
            InstanceEvent::Recalled,
            InstanceEvent::Retiring { reason: String::new(), drain_within: span },
            InstanceEvent::Draining { deadline: soon },
            InstanceEvent::Destroying { grace: span, cut: false },
            InstanceEvent::Destroyed,
        ];
        let weights = [Weight::FULL, Weight::ZERO];
        let shifted = weights.map(|weight| TrafficEvent::Shifted { weights: vec![(subject, weight)] });
        let acknowledged = TrafficEvent::Acknowledged { version: state.table().version };
        let beside = shifted.into_iter().chain([acknowledged]).map(|event| (false, Event::Traffic(event)));
        mine.into_iter().map(|event| (true, Event::Instance(subject, event))).chain(beside).collect()
    };
    let find = |state: &State| state.instance(subject).cloned();
    walk(
        &world.state,
        &Machine {
            label: &|state| find(state).map(|instance| instance.phase.word().to_owned()),
            beside: &|state| {
                let acknowledged = state.table().acknowledged;
                find(state).map_or_else(String::new, |instance| {
                    let is_let_go = instance.unrouted.map(|version| version <= acknowledged);
                    format!(
                        "{} {is_let_go:?} {:?} {:?}",
                        instance.is_routed(),
                        instance.health,
                        instance.exit
                    )
                })
            },
            events: &events,
        },
    )
}

fn rollouts() -> Arrows {
    let mut world = running();
    world.command(up(&env("dev"), &["web=v2*1+route:8080"]));
    world.wait(Millis::from_secs(1));
    let (from, to) = (Some(RevisionNumber(2)), Some(RevisionNumber(1)));
    let find = |state: &State| state.environment(&env("dev")).and_then(|env| env.rollout.clone());
    let nothing = || Step::Create { slots: Vec::new() };
    let events = |state: &State| {
        let index = find(state).map_or(0, |rollout| rollout.next);
        let text = String::new;
        let cause = Cause::Rollback { to: RevisionNumber(1), service: None };
        let outcomes = [Outcome::Completed, Outcome::WentBack, Outcome::Stuck, Outcome::Superseded];
        let finished = outcomes.map(|outcome| RolloutEvent::Finished { outcome, reason: text() });
        let events = [
            RolloutEvent::Started { from, to, cause, steps: vec![nothing(), Step::Hold { span: Millis(1) }] },
            RolloutEvent::StepStarted { index, deadline: Some(Timestamp(u64::MAX / 2)) },
            RolloutEvent::StepCompleted { index },
            RolloutEvent::Promoted { index },
            RolloutEvent::Paused,
            RolloutEvent::Resumed,
            RolloutEvent::Halted { reason: text(), until: Timestamp(u64::MAX / 2) },
            RolloutEvent::GoingBack { reason: text(), steps: vec![nothing()] },
        ];
        events.into_iter().chain(finished).map(|event| (true, Event::Rollout(event))).collect()
    };
    let label = |state: &State| {
        let rollout = find(state)?;
        if rollout.halted.is_some() {
            return Some("forward, stopped".to_owned());
        }
        let direction = if rollout.is_going_back() { "back" } else { "forward" };
        let place = match (rollout.current_step(), rollout.step) {
            (None, _) => "through",
            (Some(_), StepPhase::Waiting) => "between steps",
            (Some(_), StepPhase::Started { .. }) if rollout.promoted => "in a step, promoted",
            (Some(_), StepPhase::Started { .. }) if rollout.is_promotable() => {
                "in a step that may be promoted"
            }
            (Some(_), StepPhase::Started { .. }) => "in a step",
        };
        let paused = if rollout.paused.is_some() { ", paused" } else { "" };
        Some(format!("{direction}, {place}{paused}"))
    };
    let beside = |state: &State| find(state).map_or_else(String::new, |rollout| rollout.next.to_string());
    walk(&world.state, &Machine { label: &label, beside: &beside, events: &events })
}

fn listeners() -> Arrows {
    let listener = Listener::Public(([127, 0, 0, 1], 9).into());
    let reason = String::new;
    let events = |_: &State| {
        let events = [
            TrafficEvent::ListenerRequested { listener },
            TrafficEvent::ListenerOpened { listener },
            TrafficEvent::ListenerFailed { listener, reason: reason() },
            TrafficEvent::ListenerReleased { listener },
            TrafficEvent::ListenerClosed { listener },
        ];
        events.map(|event| (true, Event::Traffic(event))).into()
    };
    let label = |state: &State| {
        let (_, found) = state.listeners().find(|(other, _)| *other == listener)?;
        Some(match found.phase {
            ListenerPhase::Requested => "requested".to_owned(),
            ListenerPhase::Open { .. } => "open".to_owned(),
            ListenerPhase::Failed { .. } => "failed".to_owned(),
            ListenerPhase::Releasing => "releasing".to_owned(),
        })
    };
    walk(&running().state, &Machine { label: &label, beside: &|_| String::new(), events: &events })
}

fn checks() -> Arrows {
    let world = running();
    let (check, spec) = (CheckId(world.state.position().0 + 1), instance_spec("v1"));
    let requested = CheckEvent::Requested {
        image: digest_of("image"),
        test: "starts".into(),
        spec_digest: digest_of(&format!("{spec:?}")),
        spec: spec.into(),
        deadline: Timestamp(u64::MAX / 2),
    };
    let events = |_: &State| {
        let events = [requested.clone(), CheckEvent::Passed, CheckEvent::Failed { reason: String::new() }];
        events.map(|event| (true, Event::Check(check, event))).into()
    };
    let label = |state: &State| {
        let found = state.checks().find(|found| found.id == check)?;
        Some(if found.answered { "answered" } else { "running" }.to_owned())
    };
    walk(&world.state, &Machine { label: &label, beside: &|_| String::new(), events: &events })
}

fn document() -> String {
    let mut text = String::from(
        "# State machines\n\nDrawn by a test that drives `kiln_core::apply`: from every state that can be reached it tries every event, and the arrows are\nthose \
         that are not refused. Whatever is not drawn can't be in a log. Written by\n`KILN_BLESS=1 cargo test -p kiln-core --test it machines`; the same test fails when this page is stale.\n",
    );
    let instance = "Being in the routes is beside these states: an instance goes only once it is out of the routes, and is drained or destroyed only\nonce the edge \
                    acknowledged a table without it. Health changes while it runs or is warm. What ends its life is `Destroyed`.";
    text += &draw("An instance", instance, &instances());
    let rollout = "Its steps are a list; these are the states of going through it. A way back is another list, and is never paused. `Finished` with\n\
                   `Superseded` is a newer rollout that takes over, in any state; one that failed and stopped is tried again by a newer one, too.";
    text += &draw("A rollout", rollout, &rollouts());
    text += &draw("A socket", "A new controller asks again for what is open.", &listeners());
    text += &draw("A check", "It is forgotten when its instance is gone; the verdict stays.", &checks());
    text
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the page is compared with a file")]
fn the_diagrams_in_the_docs_are_what_apply_allows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/state-machines.md");
    let (drawn, written) = (document(), std::fs::read_to_string(&path).unwrap_or_default());
    if drawn != written && std::env::var_os("KILN_BLESS").is_some() {
        std::fs::write(&path, drawn).unwrap();
        return;
    }
    assert!(drawn == written, "docs/state-machines.md is stale: run this test with KILN_BLESS=1");
}
