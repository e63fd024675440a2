//! A newer release that arrives while a rollout runs.

use kiln_core::{Admission, Command, IfRunning, Refusal, Reply};
use kiln_model::{Millis, RevisionNumber, RolloutId};

use super::shapes::{env, up};
use super::world::World;

/// Asks for a stack, and does not want to end what another one asked for.
fn up_unless_running(words: &[&str]) -> Command {
    let mut command = up(&env("dev"), words);
    let Command::Up { admission, .. } = &mut command else { panic!("up makes an up") };
    *admission = Admission { if_running: IfRunning::Refuse, ..Admission::default() };
    command
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
