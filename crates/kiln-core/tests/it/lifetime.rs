//! Environments that end by themselves.

use kiln_core::{Admission, Command, Lasting, Refusal, Reply, next_deadline};
use kiln_model::event::{EnvironmentEvent, RolloutEvent};
use kiln_model::rollout::Outcome;
use kiln_model::{Event, Millis};

use super::shapes::{env, up};
use super::world::World;

const TTL: Lasting = Lasting::For(Millis::from_secs(60));

fn lasting(words: &[&str], lasting: Lasting) -> Command {
    match up(&env("pr"), words) {
        Command::Up { env, origin, adopt, base, release, binding, spec, checks, .. } => {
            let admission = Admission { lasting, ..Admission::default() };
            Command::Up { env, origin, adopt, base, release, binding, spec, checks, admission }
        }
        _ => panic!("up makes an up"),
    }
}

/// Asks, and lets two seconds pass.
fn ask(world: &mut World, words: &[&str], how: Lasting) -> Result<Reply, Refusal> {
    let reply = world.command(lasting(words, how)).reply;
    world.wait(Millis::from_secs(2));
    reply
}

fn is_gone(world: &World) -> bool {
    world.state.environment(&env("pr")).is_none() && world.bodies.is_empty() && world.sockets.is_empty()
}

#[test]
fn an_environment_goes_with_all_it_owns_when_its_time_is_over_and_not_before() {
    let mut world = World::new();
    ask(&mut world, &["web=v1*2+route:8080"], TTL).unwrap();
    world.wait(Millis::from_secs(56));
    assert!(world.state.environment(&env("pr")).is_some() && !world.bodies.is_empty());
    assert!(next_deadline(&world.state, world.now).is_some(), "a tick is due when it ends");
    world.wait(Millis::from_secs(120));
    assert!(is_gone(&world));
}

#[test]
fn each_up_begins_its_time_anew_even_where_nothing_changes() {
    let mut world = World::new();
    ask(&mut world, &["web=v1"], TTL).unwrap();
    for _ in 0..3 {
        world.wait(Millis::from_secs(40));
        let reply = ask(&mut world, &["web=v1"], Lasting::AsBefore);
        assert!(matches!(reply, Ok(Reply::Unchanged { .. })));
    }
    world.wait(Millis::from_secs(200));
    assert!(is_gone(&world));
}

#[test]
fn an_end_can_be_lifted_and_what_was_made_to_last_is_not_given_one() {
    let mut world = World::new();
    ask(&mut world, &["web=v1"], TTL).unwrap();
    ask(&mut world, &["web=v1"], Lasting::ForEver).unwrap();
    world.wait(Millis::from_secs(200));
    assert!(world.is_at_rest() && !is_gone(&world));
    assert_eq!(ask(&mut world, &["web=v2"], TTL), Err(Refusal::LastsForEver(env("pr"))));
}

#[test]
fn a_rollout_that_is_under_way_at_the_end_is_no_reason_to_stay() {
    let mut world = World::new();
    ask(&mut world, &["web=v1"], TTL).unwrap();
    world.wait(Millis::from_secs(30));
    ask(&mut world, &["web=sick"], Lasting::For(Millis::from_secs(10))).unwrap();
    assert!(world.state.environment(&env("pr")).is_some_and(|env| env.rollout.is_some()));
    world.wait(Millis::from_secs(200));
    assert!(is_gone(&world));
    let ended = world.log.iter().any(|entry| {
        let Event::Rollout(RolloutEvent::Finished { outcome, reason }) = &entry.event else { return false };
        *outcome == Outcome::Superseded && reason.contains("time of the environment is over")
    });
    let expired =
        world.log.iter().filter(|entry| matches!(entry.event, Event::Environment(EnvironmentEvent::Expired)));
    assert_eq!((ended, expired.count()), (true, 1));
}

#[test]
fn an_end_survives_a_restart() {
    let mut world = World::new();
    ask(&mut world, &["web=v1"], TTL).unwrap();
    world.restart();
    world.wait(Millis::from_secs(200));
    assert!(is_gone(&world));
}
