//! What is refused, what is answered, and what a single decision holds.

use kiln_core::state::{Phase, StepPhase};
use kiln_core::{Command, RETAINED_MAX, Refusal, Reply, Wait, outstanding, waiting};
use kiln_model::event::{EnvironmentEvent, InstanceEvent, TrafficEvent};
use kiln_model::release::RequiredCheck;
use kiln_model::rollout::{Outcome, ReplicaOwner};
use kiln_model::{Event, Millis, RevisionNumber};

use super::shapes::{digest_of, env, instance_spec, service_name, up};
use super::world::World;

fn at_rest(words: &[&str]) -> World {
    let mut world = World::new();
    then(&mut world, words);
    world
}

fn then(world: &mut World, words: &[&str]) {
    assert!(matches!(world.command(up(&env("dev"), words)).reply, Ok(Reply::RolloutStarted { .. })));
    world.wait(Millis::from_secs(2));
    assert!(world.is_at_rest());
}

fn rollback(to: Option<u64>) -> Command {
    Command::Rollback { env: env("dev"), to: to.map(RevisionNumber), service: None, careful: false }
}

#[test]
fn rolling_back_to_warm_instances_shifts_in_the_decision_of_the_command() {
    let mut world = at_rest(&["web=v1*3+route:8080"]);
    then(&mut world, &["web=v2*3+route:8080"]);
    let decision = world.command(rollback(None));
    let shifts = decision.events.iter().filter(|draft| {
        matches!(&draft.event, Event::Traffic(TrafficEvent::Shifted { weights }) if weights.len() == 6)
    });
    assert_eq!(shifts.count(), 1);
    let creates = decision
        .events
        .iter()
        .any(|draft| matches!(draft.event, Event::Instance(_, InstanceEvent::Requested { .. })));
    assert!(!creates);
}

#[test]
fn a_plan_made_against_another_revision_is_refused_and_changes_nothing() {
    let mut world = at_rest(&["web=v1"]);
    let Command::Up { env, origin, adopt, release, binding, spec, checks, admission, .. } =
        up(&env("dev"), &["web=v2"])
    else {
        panic!("up makes an up");
    };
    let stale = |base| Command::Up {
        env: env.clone(),
        origin: origin.clone(),
        adopt,
        base: Some(RevisionNumber(base)),
        release,
        binding,
        spec: spec.clone(),
        checks: checks.clone(),
        admission: admission.clone(),
    };
    let before = world.state.clone();
    let decision = world.command(stale(7));
    let expected = Refusal::StalePlan { base: RevisionNumber(7), current: Some(RevisionNumber(1)) };
    assert_eq!((decision.reply, decision.events), (Err(expected), Vec::new()));
    assert_eq!(world.state, before);
    assert!(world.command(stale(1)).reply.is_ok());
    // The target counts while a rollout runs: the second of two that planned at the same time is refused.
    assert!(matches!(world.command(stale(1)).reply, Err(Refusal::StalePlan { .. })));
}

#[test]
fn a_stack_of_another_origin_is_refused_unless_it_is_adopted() {
    let mut world = at_rest(&["web=v1"]);
    let other = |adopt| match up(&env("dev"), &["web=v2"]) {
        Command::Up { env, base, release, binding, spec, checks, admission, .. } => {
            let origin = "/elsewhere".into();
            Command::Up { env, origin, adopt, base, release, binding, spec, checks, admission }
        }
        _ => panic!("up makes an up"),
    };
    assert!(matches!(world.command(other(false)).reply, Err(Refusal::OtherOrigin { .. })));
    assert_eq!(world.state.origin(&env("dev").stack), Some("/src/shop"));
    assert!(world.command(other(true)).reply.is_ok());
    assert_eq!(world.state.origin(&env("dev").stack), Some("/elsewhere"));
}

#[test]
fn a_release_is_refused_until_its_checks_have_passed() {
    let mut world = World::new();
    let wanted = |image: &str| match up(&env("dev"), &["web=v1"]) {
        Command::Up { env, origin, adopt, base, release, binding, spec, admission, .. } => {
            let checks = vec![RequiredCheck { image: digest_of(image), test: "starts".into() }];
            Command::Up { env, origin, adopt, base, release, binding, spec, checks, admission }
        }
        _ => panic!("up makes an up"),
    };
    let check = |version: &str| {
        let spec = instance_spec(version);
        let spec_digest = digest_of(&format!("{spec:?}"));
        let (test, within) = ("starts".to_owned(), Millis::from_secs(5));
        Command::Check {
            env: env("dev"),
            image: digest_of(version),
            test,
            spec: spec.into(),
            spec_digest,
            within,
        }
    };
    assert!(matches!(world.command(wanted("v1")).reply, Err(Refusal::CheckMissing { .. })));
    for (version, passes) in [("v1", true), ("crash", false)] {
        assert!(matches!(world.command(check(version)).reply, Ok(Reply::CheckStarted { .. })));
        // Asked again while it runs, it is the same check.
        assert!(matches!(world.command(check(version)).reply, Ok(Reply::CheckStarted { .. })));
        assert_eq!(world.state.checks().count(), 1);
        world.wait(Millis::from_secs(1));
        assert_eq!(world.state.verdict(digest_of(version), "starts").unwrap().is_passed(), passes);
        assert_eq!((world.state.checks().count(), world.state.instances().count()), (0, 0));
    }
    assert!(matches!(world.command(wanted("crash")).reply, Err(Refusal::CheckMissing { .. })));
    assert!(world.command(wanted("v1")).reply.is_ok());
}

#[test]
fn an_inspection_is_a_verdict_and_is_written_down_once() {
    let mut world = World::new();
    let wanted = match up(&env("dev"), &["web=v1"]) {
        Command::Up { env, origin, adopt, base, release, binding, spec, admission, .. } => {
            let checks = vec![RequiredCheck { image: digest_of("v1"), test: "hardened".into() }];
            Command::Up { env, origin, adopt, base, release, binding, spec, checks, admission }
        }
        _ => panic!("up makes an up"),
    };
    let inspected = |question: &str, failure: Option<&str>| Command::Inspected {
        env: env("dev"),
        image: digest_of("v1"),
        test: "hardened".into(),
        question: digest_of(question),
        failure: failure.map(str::to_owned),
        basis: None,
    };
    let mut events = Vec::new();
    for (question, failure) in [
        ("a", Some("its user is root")),
        ("a", Some("its user is root")),
        ("a", None),
        ("a", None),
        ("b", None),
    ] {
        let said = world.command(inspected(question, failure));
        events.push(said.events.len());
        assert_eq!(said.reply, Ok(Reply::Noted));
        if failure.is_some() {
            assert!(matches!(world.command(wanted.clone()).reply, Err(Refusal::CheckMissing { .. })));
        }
    }
    assert_eq!(events, [1, 0, 1, 0, 1]);
    assert_eq!(world.state.checks().count(), 0, "nothing is booted");
    assert!(world.command(wanted).reply.is_ok());
}

#[test]
fn the_last_complete_revisions_are_retained_and_no_others() {
    let mut world = World::new();
    let shapes: Vec<String> = (0..15).map(|version| format!("web=v{version}+warm:0+route:8080")).collect();
    for shape in &shapes {
        then(&mut world, &[shape]);
    }
    let retained = &world.state.environment(&env("dev")).unwrap().revisions;
    assert_eq!(retained.len(), RETAINED_MAX);
    assert!(retained.contains_key(&RevisionNumber(6)) && retained.contains_key(&RevisionNumber(15)));
    assert!(matches!(world.command(rollback(Some(5))).reply, Err(Refusal::UnknownRevision(..))));
    assert!(matches!(world.command(rollback(Some(6))).reply, Ok(Reply::RolloutStarted { .. })));
    world.wait(Millis::from_secs(2));
    assert_eq!(world.state.environment(&env("dev")).unwrap().current, Some(RevisionNumber(6)));
}

#[test]
fn a_changed_revision_with_equal_specs_adopts_what_runs() {
    let mut world = at_rest(&["web=v1*2+route:8080"]);
    let before: Vec<_> = world.state.instances().map(|instance| instance.id).collect();
    then(&mut world, &["web=v1*2+route:8081+rolling:1-0+drain:7"]);
    let after: Vec<_> = world.state.instances().map(|instance| instance.id).collect();
    assert_eq!(before, after);
    assert_eq!(world.table.rules[0].listener.to_string(), "127.0.0.1:8081");
    assert_eq!(world.sockets.len(), 1, "the socket that no route needs is closed");
}

#[test]
fn the_first_environment_beyond_the_limit_is_refused() {
    let mut world = World::new();
    for number in 0..kiln_core::ENVIRONMENTS_MAX {
        let reply = world.command(up(&env(&format!("e{number}")), &["web=v1"])).reply;
        assert!(reply.is_ok(), "{reply:?}");
    }
    let reply = world.command(up(&env("onemore"), &["web=v1"])).reply;
    assert_eq!(reply, Err(Refusal::TooManyEnvironments));
    world.command(Command::Down { env: env("e7") });
    world.wait(Millis::from_secs(60));
    let decision = world.command(up(&env("onemore"), &["web=v1"]));
    let index = decision.events.iter().find_map(|draft| match draft.event {
        Event::Environment(EnvironmentEvent::Created { index }) => Some(index),
        _ => None,
    });
    assert_eq!(index, Some(7), "an index is free again once nothing of its environment is left");
}

#[test]
fn two_routes_for_the_same_way_in_are_refused_in_one_stack_as_well() {
    let mut world = World::new();
    let reply = world.command(up(&env("dev"), &["web=v1+route:8080", "orders=v1+route:8080"])).reply;
    assert!(matches!(reply, Err(Refusal::InvalidRevision { .. })), "{reply:?}");
    assert!(world.state.environment(&env("dev")).is_none());
}

#[test]
fn the_autoscaler_and_a_hand_are_told_apart() {
    let mut world = at_rest(&["web=v1*2"]);
    let scale =
        |replicas, owner| Command::Scale { env: env("dev"), service: service_name("web"), replicas, owner };
    let owner = |world: &World| {
        let found = world.state.environment(&env("dev")).unwrap();
        (found.replicas(found.current, &service_name("web")), found.replica_owner(&service_name("web")))
    };
    assert_eq!(owner(&world), (2, ReplicaOwner::Declared));
    world.command(scale(5, ReplicaOwner::Autoscaler)).reply.unwrap();
    assert_eq!(owner(&world), (5, ReplicaOwner::Autoscaler));
    world.command(scale(3, ReplicaOwner::Hand)).reply.unwrap();
    assert_eq!(owner(&world), (3, ReplicaOwner::Hand));
    world.command(scale(0, ReplicaOwner::Declared)).reply.unwrap();
    assert_eq!(owner(&world), (2, ReplicaOwner::Declared));
}

#[test]
fn every_action_carries_the_term_of_the_controller_that_issues_it() {
    let mut world = World::new();
    world.provider_is_away = true;
    world.command(up(&env("dev"), &["web=v1*2"]));
    let first = outstanding(&world.state);
    assert_eq!(first.len(), 2);
    world.restart();
    let second = outstanding(&world.state);
    assert_eq!(second.len(), 2);
    for (old, new) in first.iter().zip(&second) {
        assert_eq!((&old.kind, old.fence.position), (&new.kind, new.fence.position));
        assert!(new.fence > old.fence);
    }
}

#[test]
fn what_is_waited_for_is_told() {
    let mut world = World::new();
    world.provider_is_away = true;
    world.command(up(&env("dev"), &["web=v1+route:8080"]));
    world.run();
    let waits = waiting(&world.state, &env("dev"), world.now);
    assert!(matches!(waits[0], Wait::Step { index: 2, deadline: Some(_), .. }), "{waits:?}");
    assert!(waits.iter().any(|wait| matches!(wait, Wait::Start { .. })));
    world.provider_is_away = false;
    world.wait(Millis::from_secs(1));
    assert_eq!(waiting(&world.state, &env("dev"), world.now), []);
    assert_eq!(waiting(&world.state, &env("nowhere"), world.now), []);
}

#[test]
fn a_pause_is_safe_to_repeat_and_tells_who_is_waited_for() {
    let mut world = at_rest(&["web=v1*2+route:8080"]);
    let pause = || Command::Pause { env: env("dev") };
    let resume = || Command::Resume { env: env("dev") };
    assert_eq!(world.command(pause()).reply, Err(Refusal::NoRollout(env("dev"))));
    assert_eq!(world.command(resume()).reply, Err(Refusal::NoRollout(env("dev"))));
    world.command(up(&env("dev"), &["web=sick*2+route:8080"]));
    world.wait(Millis::from_secs(1));
    let first = world.command(pause());
    assert!(matches!(first.reply, Ok(Reply::Paused { .. })) && first.events.len() == 1);
    let again = world.command(pause());
    assert_eq!((again.reply, again.events), (first.reply, Vec::new()));
    let since = world.now;
    world.wait(Millis::from_secs(3600));
    let told = waiting(&world.state, &env("dev"), world.now);
    let by = kiln_model::Actor::User("ann".into());
    assert_eq!(told[0], Wait::Resume { by, since });
    assert!(
        matches!(told[1], Wait::Step { deadline: None, .. }),
        "its deadline does not come nearer: {told:?}"
    );
    assert!(matches!(world.command(resume()).reply, Ok(Reply::Resumed { .. })));
    assert!(world.command(resume()).events.is_empty());
    world.command(Command::Abort { env: env("dev") });
    assert_eq!(world.command(pause()).reply, Err(Refusal::GoesBack(env("dev"))));
}

#[test]
fn a_pause_costs_a_rollout_no_time_whatever_the_clock_did_meanwhile() {
    // It has two minutes to be healthy: a part before the pause, the rest after it.
    let mut world = at_rest(&["web=v1*2+route:8080"]);
    world.command(up(&env("dev"), &["web=sick*2+route:8080"]));
    world.wait(Millis::from_secs(50));
    world.command(Command::Pause { env: env("dev") });
    world.wait(Millis::from_secs(1000));
    world.jump(Millis::from_secs(5000));
    world.wait(Millis::from_secs(1000));
    world.command(Command::Resume { env: env("dev") });
    let goes_back = |world: &World| {
        let rollout = world.state.environment(&env("dev")).unwrap().rollout.clone();
        rollout.is_none_or(|rollout| rollout.is_going_back())
    };
    world.wait(Millis::from_secs(69));
    assert!(!goes_back(&world), "it still has a second");
    world.wait(Millis::from_secs(2));
    assert!(goes_back(&world));
}

#[test]
fn an_instance_that_never_starts_ends_the_rollout_at_its_deadline() {
    let mut world = at_rest(&["web=v1+route:8080"]);
    world.provider_is_away = true;
    world.command(up(&env("dev"), &["web=v2+route:8080"]));
    world.wait(Millis::from_secs(119));
    let running = world.state.environment(&env("dev")).unwrap().rollout.clone().unwrap();
    assert!(matches!(running.step, StepPhase::Started { deadline: Some(_) }));
    world.wait(Millis::from_secs(130));
    let found = world.state.environment(&env("dev")).unwrap();
    // The provider never answers, so the new instance can't be destroyed either; the rollout ends all the same.
    assert!(found.rollout.is_none());
    assert_eq!(found.last_rollout.as_ref().unwrap().outcome, Outcome::WentBack);
    assert!(world.state.instances().any(|instance| matches!(instance.phase, Phase::Destroying { .. })));
    world.provider_is_away = false;
    world.run();
    assert!(world.is_at_rest());
}

#[test]
fn news_that_overtakes_the_tick_does_not_swallow_a_deadline() {
    let mut world = at_rest(&["web=v1*2+route:8080+warm:5", "orders=v1"]);
    then(&mut world, &["web=v2*2+route:8080+warm:5", "orders=v1"]);
    let other =
        world.state.instances().find(|found| found.slot().unwrap().0.as_str() == "orders").unwrap().id;
    world.now = world.now.plus(Millis::from_secs(10));
    let decision =
        world.see(kiln_core::Observation::InstanceHealth { id: other, healthy: false, detail: "503".into() });
    let retired = decision.events.iter().filter(
        |draft| matches!(&draft.event, Event::Instance(id, InstanceEvent::Retiring { .. }) if *id != other),
    );
    assert_eq!(retired.count(), 2, "the time of the warm instances is over");
}
