//! A newer release that arrives while a rollout runs.

use kiln_core::{Admission, Command, IfRunning, Lasting, Refusal, Reply, Wait, waiting};
use kiln_model::event::RolloutEvent;
use kiln_model::rollout::Outcome;
use kiln_model::{Actor, Entry, Event, Millis, RevisionNumber, RolloutId};

use super::shapes::{env, up};
use super::world::World;

/// Asks for a stack, and does not want to end what another one asked for.
fn up_unless_running(words: &[&str]) -> Command {
    up_if_running(IfRunning::Refuse, words)
}

fn up_if_running(if_running: IfRunning, words: &[&str]) -> Command {
    let mut command = up(&env("dev"), words);
    let Command::Up { admission, .. } = &mut command else { panic!("up makes an up") };
    *admission = Admission { if_running, ..Admission::default() };
    command
}

const V1: &[&str] = &["web=v1+route:8080"];
const V3: &[&str] = &["web=v3+route:8080"];
const V4: &[&str] = &["web=v4+route:8080"];

/// `v1` serves, a rollout to `second` runs, and `v3` is queued behind it.
fn queued(second: &str) -> (World, RolloutId) {
    let mut world = at_rest(V1);
    world.command(up(&env("dev"), &[second])).reply.unwrap();
    world.run();
    let behind = running(&world);
    let reply = world.command(up_if_running(IfRunning::Queue, V3)).reply;
    assert_eq!(reply, Ok(Reply::Queued { behind, revision: RevisionNumber(3) }));
    assert_eq!(running(&world), behind, "what runs goes on");
    (world, behind)
}

fn current(world: &World) -> Option<u64> {
    world.state.environment(&env("dev")).unwrap().current.map(|number| number.0)
}

fn next(world: &World) -> Option<u64> {
    world.state.environment(&env("dev")).unwrap().queued.as_ref().map(|queued| queued.to.0)
}

fn outcomes(world: &World) -> Vec<Outcome> {
    let finished = world.log.iter().filter_map(|entry| match &entry.event {
        Event::Rollout(RolloutEvent::Finished { outcome, .. }) => Some(outcome.clone()),
        _ => None,
    });
    finished.collect()
}

fn at_rest(words: &[&str]) -> World {
    let mut world = World::new();
    world.command(up(&env("dev"), words)).reply.unwrap();
    world.wait(Millis::from_secs(5));
    assert!(world.is_at_rest());
    world
}

fn running(world: &World) -> RolloutId {
    world.state.environment(&env("dev")).unwrap().rollout.as_ref().unwrap().id
}

#[test]
fn who_would_not_end_another_rollout_is_refused_and_nothing_changes() {
    let mut world = at_rest(&["web=v1+route:8080"]);
    let rollout = match world.command(up(&env("dev"), &["web=slow2+route:8080"])).reply {
        Ok(Reply::RolloutStarted { rollout, .. }) => rollout,
        other => panic!("{other:?}"),
    };
    let before = world.state.clone();
    let decision = world.command(up_unless_running(&["web=v3+route:8080"]));
    let target = Some(RevisionNumber(2));
    let expected = Refusal::RolloutRuns { env: env("dev"), rollout, target };
    assert_eq!((decision.reply, decision.events), (Err(expected), Vec::new()));
    assert_eq!(world.state, before);
    // Otherwise the newer one takes over.
    let reply = world.command(up(&env("dev"), &["web=v3+route:8080"])).reply;
    assert!(matches!(reply, Ok(Reply::RolloutStarted { .. })), "{reply:?}");
    assert_ne!(running(&world), rollout);
}

#[test]
fn a_rollout_that_goes_back_is_one_that_runs() {
    let mut world = at_rest(&["web=v1+route:8080"]);
    world.command(up(&env("dev"), &["web=slow2+route:8080"])).reply.unwrap();
    world.run();
    // Nobody destroys anything, so the way back stays where it is.
    world.provider_is_away = true;
    world.command(Command::Abort { env: env("dev") }).reply.unwrap();
    let reply = world.command(up_unless_running(&["web=v3+route:8080"])).reply;
    let target = Some(RevisionNumber(1));
    assert_eq!(reply, Err(Refusal::RolloutRuns { env: env("dev"), rollout: running(&world), target }));
}

#[test]
fn the_same_again_is_not_another_rollout() {
    let mut world = at_rest(&["web=v1+route:8080"]);
    world.command(up_unless_running(&["web=slow2+route:8080"])).reply.unwrap();
    let rollout = running(&world);
    let again = world.command(up_unless_running(&["web=slow2+route:8080"])).reply;
    assert_eq!(again, Ok(Reply::AlreadyRunning { rollout, revision: Some(RevisionNumber(2)) }));
}

#[test]
fn who_is_queued_begins_when_the_one_before_is_complete_also_after_a_restart() {
    let (mut world, behind) = queued("web=slow2+route:8080");
    let waits = waiting(&world.state, &env("dev"), world.now);
    let by = Actor::User("ann".into());
    assert!(waits.contains(&Wait::Turn { revision: RevisionNumber(3), by: by.clone(), behind }), "{waits:?}");
    world.restart();
    assert_eq!(next(&world), Some(3));
    world.wait(Millis::from_secs(60));
    assert_eq!((current(&world), next(&world)), (Some(3), None));
    assert_eq!(outcomes(&world), [Outcome::Completed, Outcome::Completed, Outcome::Completed]);
    let last = world.state.environment(&env("dev")).unwrap().last_rollout.clone().unwrap();
    assert_eq!(last.actor, by, "who queued it asked for it");
}

#[test]
fn who_is_queued_begins_also_when_the_one_before_went_back_by_itself() {
    let (mut world, _) = queued("web=crash+route:8080");
    world.wait(Millis::from_secs(60));
    assert_eq!(outcomes(&world)[1..], [Outcome::WentBack, Outcome::Completed]);
    assert_eq!(current(&world), Some(3));
}

#[test]
fn who_aborts_wants_nothing_else_to_begin() {
    let (mut world, _) = queued("web=slow2+route:8080");
    world.command(Command::Abort { env: env("dev") }).reply.unwrap();
    world.wait(Millis::from_secs(60));
    assert_eq!((current(&world), next(&world)), (Some(1), None));
    assert_eq!(outcomes(&world)[1..], [Outcome::WentBack]);
    let revisions = &world.state.environment(&env("dev")).unwrap().revisions;
    assert!(!revisions.contains_key(&RevisionNumber(3)), "what never came is not kept");
}

#[test]
fn one_that_is_withdrawn_does_not_begin_and_what_runs_goes_on() {
    let (mut world, behind) = queued("web=slow2+route:8080");
    let withdraw = || Command::Withdraw { env: env("dev") };
    let revision = RevisionNumber(3);
    assert_eq!(world.command(withdraw()).reply, Ok(Reply::Withdrawn { revision }));
    assert_eq!(world.command(withdraw()).reply, Err(Refusal::NothingQueued(env("dev"))));
    assert_eq!(running(&world), behind);
    world.wait(Millis::from_secs(60));
    assert_eq!((current(&world), outcomes(&world).len()), (Some(2), 2));
}

#[test]
fn a_second_one_takes_the_place_of_the_first_and_the_same_again_changes_nothing() {
    let (mut world, behind) = queued("web=slow2+route:8080");
    let again = world.command(up_if_running(IfRunning::Queue, V3));
    assert_eq!(again.reply, Ok(Reply::Queued { behind, revision: RevisionNumber(3) }));
    assert_eq!(again.events, []);
    let other = world.command(up_if_running(IfRunning::Queue, V4)).reply;
    assert_eq!(other, Ok(Reply::Queued { behind, revision: RevisionNumber(4) }));
    world.wait(Millis::from_secs(60));
    assert_eq!((current(&world), outcomes(&world).len()), (Some(4), 3), "the first one never began");
}

#[test]
fn what_is_asked_for_last_is_what_comes() {
    // Another one supersedes all of it.
    let (mut world, _) = queued("web=slow2+route:8080");
    world.command(up(&env("dev"), V4)).reply.unwrap();
    assert_eq!(next(&world), None);
    world.wait(Millis::from_secs(60));
    assert_eq!((current(&world), outcomes(&world).len()), (Some(4), 3));
    // What runs is asked for again.
    let (mut world, _) = queued("web=slow2+route:8080");
    world.command(up(&env("dev"), &["web=slow2+route:8080"])).reply.unwrap();
    assert_eq!(next(&world), None);
    // Everything goes.
    let (mut world, _) = queued("web=slow2+route:8080");
    world.command(Command::Down { env: env("dev") }).reply.unwrap();
    world.wait(Millis::from_secs(60));
    assert!(world.state.environment(&env("dev")).is_none());
}

#[test]
fn nothing_waits_where_nothing_runs() {
    let mut world = at_rest(V1);
    let reply = world.command(up_if_running(IfRunning::Queue, V3)).reply;
    assert!(matches!(reply, Ok(Reply::RolloutStarted { .. })), "{reply:?}");
}

#[test]
fn the_routes_of_what_is_queued_are_not_given_to_another_environment() {
    let mut world = at_rest(V1);
    world.command(up(&env("dev"), &["web=slow2+route:8080"])).reply.unwrap();
    world.command(up_if_running(IfRunning::Queue, &["web=v3+route:9000"])).reply.unwrap();
    let taken = world.command(up(&env("prod"), &["web=v1+route:9000"])).reply;
    assert!(matches!(taken, Err(Refusal::RouteTaken { .. })), "{taken:?}");
}

/// Asks for a stack for twenty seconds from now on.
fn lasting(words: &[&str], if_running: IfRunning) -> Command {
    let mut command = up(&env("dev"), words);
    let Command::Up { admission, .. } = &mut command else { panic!("up makes an up") };
    let lasting = Lasting::For(Millis::from_secs(20));
    *admission = Admission { if_running, lasting, ..Admission::default() };
    command
}

#[test]
fn an_environment_whose_time_is_over_begins_nothing_more() {
    let mut world = World::new();
    world.command(lasting(V1, IfRunning::Supersede)).reply.unwrap();
    world.wait(Millis::from_secs(5));
    world.command(lasting(&["web=sick+route:8080"], IfRunning::Supersede)).reply.unwrap();
    world.command(lasting(V3, IfRunning::Queue)).reply.unwrap();
    world.wait(Millis::from_secs(300));
    assert!(world.state.environment(&env("dev")).is_none() && world.bodies.is_empty());
}

#[test]
fn nor_does_one_whose_time_ends_while_its_first_release_goes_back_to_nothing() {
    let mut world = World::new();
    world.command(lasting(&["web=slow+route:8080"], IfRunning::Supersede)).reply.unwrap();
    world.run();
    // What it has begun can't be taken away before the time is over.
    world.provider_is_away = true;
    world.command(Command::Abort { env: env("dev") }).reply.unwrap();
    let queued = world.command(lasting(V3, IfRunning::Queue)).reply;
    assert!(matches!(queued, Ok(Reply::Queued { .. })), "{queued:?}");
    world.wait(Millis::from_secs(25));
    world.provider_is_away = false;
    world.wait(Millis::from_secs(300));
    assert!(world.state.environment(&env("dev")).is_none() && world.bodies.is_empty());
    let third = |entry: &&Entry| matches!(&entry.event, Event::Rollout(RolloutEvent::Started { to: Some(to), .. }) if to.0 == 2);
    assert_eq!(world.log.iter().filter(third).count(), 0, "what was queued never began");
}
