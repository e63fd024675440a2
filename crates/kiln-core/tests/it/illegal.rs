//! A log that breaks an invariant is refused, whoever wrote it.

use kiln_core::{ApplyError, Draft, Input, InputKind, State, apply, number};
use kiln_model::event::{ControlEvent, EnvironmentEvent, InstanceEvent, RolloutEvent, TrafficEvent};
use kiln_model::rollout::Outcome;
use kiln_model::{
    Actor, Entry, Event, InstanceId, Millis, Position, RevisionNumber, Term, Timestamp, Weight,
};

use super::shapes::{env, up};
use super::world::World;

/// One service that runs two instances.
fn running() -> (World, InstanceId) {
    let mut world = World::new();
    world.command(up(&env("dev"), &["web=v1*2+route:8080"]));
    world.wait(Millis::from_secs(1));
    let id = world.state.instances().next().unwrap().id;
    (world, id)
}

fn entries(world: &World, events: &[Event]) -> Vec<Entry> {
    let drafts: Vec<Draft> = events
        .iter()
        .map(|event| Draft { env: Some(env("dev")), event: event.clone(), actor: Some(Actor::Controller) })
        .collect();
    let input = Input { now: world.now, seed: 0, actor: Actor::Controller, kind: InputKind::Tick };
    number(&world.state, &drafts, &input)
}

/// Applies all but the last event, which must be legal, and returns what the last one leads to.
fn last(world: &World, events: &[Event]) -> Result<State, ApplyError> {
    let mut state = world.state.clone();
    let entries = entries(world, events);
    let (end, before) = entries.split_last().unwrap();
    for entry in before {
        apply(&mut state, entry).unwrap();
    }
    apply(&mut state, end).map(|()| state)
}

fn instance(id: InstanceId, event: InstanceEvent) -> Event {
    Event::Instance(id, event)
}

fn unroute(id: InstanceId) -> Event {
    Event::Traffic(TrafficEvent::Shifted { weights: vec![(id, Weight::ZERO)] })
}

fn retire(id: InstanceId) -> Event {
    instance(id, InstanceEvent::Retiring { reason: "test".into(), drain_within: Millis(0) })
}

fn destroy(id: InstanceId) -> Event {
    instance(id, InstanceEvent::Destroying { grace: Millis(0), cut: false })
}

#[test]
fn an_instance_is_not_retired_while_it_is_routed() {
    let (world, id) = running();
    assert!(matches!(last(&world, &[retire(id)]), Err(ApplyError::Illegal { .. })));
    assert!(last(&world, &[unroute(id), retire(id)]).is_ok());
}

#[test]
fn an_instance_is_not_destroyed_before_the_edge_acknowledged_a_table_without_it() {
    let (world, id) = running();
    let out = [unroute(id), retire(id)];
    assert!(matches!(
        last(&world, &[out.to_vec(), vec![destroy(id)]].concat()),
        Err(ApplyError::Illegal { .. })
    ));
    let version = Position(world.state.position().0 + 1);
    let acknowledged = Event::Traffic(TrafficEvent::Acknowledged { version });
    assert!(last(&world, &[out.to_vec(), vec![acknowledged, destroy(id)]].concat()).is_ok());
}

#[test]
fn nothing_unhealthy_gets_traffic() {
    let (world, id) = running();
    let sick = instance(id, InstanceEvent::BecameUnhealthy { reason: "test".into() });
    let shift = Event::Traffic(TrafficEvent::Shifted { weights: vec![(id, Weight::FULL)] });
    assert!(matches!(last(&world, &[sick, unroute(id), shift]), Err(ApplyError::Illegal { .. })));
}

#[test]
fn an_id_is_used_once() {
    let (world, id) = running();
    let asked = world.log.iter().find_map(|entry| match &entry.event {
        Event::Instance(other, event @ InstanceEvent::Requested { .. }) if *other == id => {
            Some(event.clone())
        }
        _ => None,
    });
    assert_eq!(last(&world, &[instance(id, asked.unwrap())]), Err(ApplyError::IdReused(id)));
}

#[test]
fn nobody_is_destroyed_without_an_intent() {
    let (world, id) = running();
    assert!(matches!(
        last(&world, &[instance(id, InstanceEvent::Destroyed)]),
        Err(ApplyError::Illegal { .. })
    ));
    let stranger = InstanceId::from_seed(99);
    let unknown = last(&world, &[instance(stranger, InstanceEvent::Destroyed)]);
    assert_eq!(unknown, Err(ApplyError::UnknownInstance(stranger)));
}

#[test]
fn only_what_was_published_can_be_acknowledged() {
    let (world, _) = running();
    let version = Position(world.state.table().version.0 + 1);
    let event = Event::Traffic(TrafficEvent::Acknowledged { version });
    assert!(matches!(last(&world, &[event]), Err(ApplyError::Illegal { .. })));
}

#[test]
fn a_rollout_event_without_a_rollout_is_refused() {
    let (world, _) = running();
    for event in [
        RolloutEvent::StepStarted { index: 0, deadline: None },
        RolloutEvent::StepCompleted { index: 0 },
        RolloutEvent::Finished { outcome: Outcome::Completed, reason: String::new() },
        RolloutEvent::GoingBack { reason: String::new(), steps: Vec::new() },
    ] {
        assert!(matches!(last(&world, &[Event::Rollout(event)]), Err(ApplyError::Illegal { .. })));
    }
}

#[test]
fn a_paused_rollout_begins_no_step_and_a_way_back_is_not_paused() {
    let (mut world, _) = running();
    world.command(up(&env("dev"), &["web=sick*2+route:8080"]));
    world.wait(Millis::from_secs(1));
    let event = |event| Event::Rollout(event);
    let next = world.state.environment(&env("dev")).unwrap().rollout.clone().unwrap().next;
    let completed = event(RolloutEvent::StepCompleted { index: next });
    let started = event(RolloutEvent::StepStarted { index: next + 1, deadline: None });
    let (pause, resume) = (event(RolloutEvent::Paused), event(RolloutEvent::Resumed));
    assert!(last(&world, &[completed.clone(), started.clone()]).is_ok());
    assert!(last(&world, &[pause.clone(), completed.clone(), resume.clone(), started.clone()]).is_ok());
    let back = event(RolloutEvent::GoingBack { reason: String::new(), steps: Vec::new() });
    for illegal in [
        vec![pause.clone(), completed, started],
        vec![pause.clone(), pause.clone()],
        vec![resume.clone()],
        vec![back.clone(), pause.clone()],
        vec![pause, back, resume],
    ] {
        assert!(matches!(last(&world, &illegal), Err(ApplyError::Illegal { .. })), "{illegal:?}");
    }
}

#[test]
fn what_is_served_is_not_released_and_what_runs_is_not_removed() {
    let (world, _) = running();
    for event in [EnvironmentEvent::RevisionReleased { number: RevisionNumber(1) }, EnvironmentEvent::Removed]
    {
        assert!(matches!(last(&world, &[Event::Environment(event)]), Err(ApplyError::Illegal { .. })));
    }
}

#[test]
fn entries_come_without_gaps_in_time_and_from_one_controller() {
    let (world, _) = running();
    let event = Event::Control(ControlEvent::ClockJumped { by: Millis(1) });
    let good = entries(&world, &[event]).remove(0);
    let refused = |change: &dyn Fn(&mut Entry)| {
        let (mut state, mut entry) = (world.state.clone(), good.clone());
        change(&mut entry);
        apply(&mut state, &entry).unwrap_err()
    };
    let gap = refused(&|entry| entry.position = Position(entry.position.0 + 1));
    assert!(matches!(gap, ApplyError::Gap { .. }));
    assert!(matches!(refused(&|entry| entry.at = Timestamp(0)), ApplyError::TimeWentBack { .. }));
    assert!(matches!(refused(&|entry| entry.term = Term(9)), ApplyError::OtherTerm { .. }));
    let old = refused(&|entry| {
        entry.term = Term(1);
        entry.event = Event::Control(ControlEvent::ControllerStarted { term: Term(1) });
    });
    assert!(matches!(old, ApplyError::OtherTerm { .. }), "a controller that starts outranks the ones before");
}
