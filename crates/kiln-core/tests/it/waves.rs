//! A rolling service moves in waves, and a failure while one soaks takes all of them back.

use kiln_core::state::StepPhase;
use kiln_core::{Command, Reply};
use kiln_model::event::RolloutEvent;
use kiln_model::instance::ExitStatus;
use kiln_model::rollout::{Outcome, Step};
use kiln_model::{Event, InstanceId, Millis};

use super::notation;
use super::shapes::{env, up};
use super::world::World;

/// One, a quarter, all, with a minute between.
const V1: &[&str] = &["web=v1*8+rolling:2-0+waves:1-25%-s60+route:8080"];
const V2: &[&str] = &["web=v2*8+rolling:2-0+waves:1-25%-s60+route:8080"];

fn at_rest(words: &[&str]) -> World {
    let mut world = World::new();
    world.command(up(&env("dev"), words)).reply.unwrap();
    world.wait(Millis::from_secs(5));
    assert!(world.is_at_rest());
    world
}

/// Lets time pass until a soak runs.
fn soaking(world: &mut World) {
    for _ in 0..100 {
        if is_soaking(world) {
            return;
        }
        world.wait(Millis(500));
    }
    panic!("nothing soaks");
}

fn is_soaking(world: &World) -> bool {
    let rollout = world.state.environment(&env("dev")).unwrap().rollout.clone();
    rollout.is_some_and(|it| {
        matches!(it.current_step(), Some(Step::Soak { .. })) && it.step != StepPhase::Waiting
    })
}

/// The instances that have requests, by what they run.
fn serving(world: &World, version: &str) -> Vec<InstanceId> {
    let of = |found: &&kiln_core::state::Instance| found.is_routed() && found.spec.argv[0] == version;
    world.state.instances().filter(of).map(|found| found.id).collect()
}

fn outcome(world: &World) -> (Outcome, String) {
    let last = world.state.environment(&env("dev")).unwrap().last_rollout.clone().unwrap();
    (last.outcome.clone(), last.reason.to_string())
}

#[test]
fn each_wave_serves_and_soaks_before_the_next_one_begins() {
    let mut world = at_rest(V1);
    let reply = world.command(up(&env("dev"), V2)).reply;
    let Ok(Reply::RolloutStarted { .. }) = reply else { panic!("{reply:?}") };
    let rollout = world.state.environment(&env("dev")).unwrap().rollout.clone().unwrap();
    let soaks = rollout.steps.iter().filter(|step| matches!(step, Step::Soak { .. })).map(notation::step);
    assert_eq!(soaks.collect::<Vec<_>>(), ["soak web/0 1m", "soak web/0..2 1m"]);
    for moved in [1, 2] {
        soaking(&mut world);
        assert_eq!((serving(&world, "v2").len(), serving(&world, "v1").len()), (moved, 8 - moved));
        world.wait(Millis::from_secs(55));
        assert!(is_soaking(&world), "a minute is not over");
        world.wait(Millis::from_secs(6));
        assert!(serving(&world, "v2").len() > moved);
    }
    world.wait(Millis::from_secs(60));
    assert_eq!((serving(&world, "v2").len(), outcome(&world).0), (8, Outcome::Completed));
}

#[test]
fn an_instance_that_ends_while_it_soaks_takes_everything_back() {
    let mut world = at_rest(V1);
    world.command(up(&env("dev"), V2)).reply.unwrap();
    soaking(&mut world);
    world.exit(serving(&world, "v2")[0], ExitStatus::Signal(9));
    world.wait(Millis::from_secs(10));
    let (outcome, reason) = outcome(&world);
    assert_eq!((outcome, serving(&world, "v1").len()), (Outcome::WentBack, 8));
    assert!(reason.starts_with("web/0: ") && reason.ends_with("while it soaked"), "{reason}");
}

#[test]
fn an_instance_that_is_ill_while_it_soaks_takes_everything_back_also_during_a_pause() {
    let mut world = at_rest(V1);
    world.command(up(&env("dev"), V2)).reply.unwrap();
    soaking(&mut world);
    world.command(Command::Pause { env: env("dev") }).reply.unwrap();
    world.wait(Millis::from_secs(600));
    assert!(is_soaking(&world), "a pause is no time that passed");
    world.set_health(serving(&world, "v2")[0], false);
    world.wait(Millis::from_secs(10));
    assert_eq!((outcome(&world).0, serving(&world, "v1").len()), (Outcome::WentBack, 8));
}

#[test]
fn an_old_instance_that_ends_meanwhile_is_replaced_and_nothing_else() {
    let mut world = at_rest(V1);
    world.command(up(&env("dev"), V2)).reply.unwrap();
    soaking(&mut world);
    world.exit(serving(&world, "v1")[0], ExitStatus::Signal(9));
    world.wait(Millis::from_secs(300));
    assert_eq!((outcome(&world).0, serving(&world, "v2").len()), (Outcome::Completed, 8));
}

#[test]
fn somebody_may_let_a_soak_be_complete_and_a_rollback_has_none() {
    let mut world = at_rest(V1);
    world.command(up(&env("dev"), V2)).reply.unwrap();
    for _ in 0..2 {
        soaking(&mut world);
        world.command(Command::Promote { env: env("dev"), step: None }).reply.unwrap();
    }
    world.wait(Millis::from_secs(10));
    assert_eq!(outcome(&world).0, Outcome::Completed);
    let back = |careful| Command::Rollback { env: env("dev"), to: None, service: None, careful };
    world.command(back(false)).reply.unwrap();
    world.wait(Millis::from_secs(20));
    assert_eq!((outcome(&world).0, serving(&world, "v1").len()), (Outcome::Completed, 8));
    world.command(back(true)).reply.unwrap();
    soaking(&mut world);
}

#[test]
fn a_restart_in_the_middle_changes_nothing() {
    let mut world = at_rest(V1);
    world.command(up(&env("dev"), V2)).reply.unwrap();
    soaking(&mut world);
    world.restart();
    assert!(is_soaking(&world));
    world.wait(Millis::from_secs(300));
    let started =
        |entry: &&kiln_model::Entry| matches!(&entry.event, Event::Rollout(RolloutEvent::GoingBack { .. }));
    assert_eq!((outcome(&world).0, world.log.iter().filter(started).count()), (Outcome::Completed, 0));
}
