//! A rollout that fails and does not go back by itself.

use kiln_core::state::Halt;
use kiln_core::{Command, IfRunning, Refusal, Reply, Wait, waiting};
use kiln_model::event::RolloutEvent;
use kiln_model::rollout::Outcome;
use kiln_model::{Event, Millis, RevisionNumber};

use super::shapes::{env, up};
use super::world::World;

const V1: &[&str] = &["web=v1*2+stays+route:8080"];
const CRASH: &[&str] = &["web=crash*2+stays+route:8080"];
const DAY: Millis = Millis::from_secs(24 * 3600);

/// `first` serves, and a rollout to `second` failed.
fn halted(first: &[&str], second: &[&str]) -> World {
    let mut world = World::new();
    world.command(up(&env("dev"), first)).reply.unwrap();
    world.wait(Millis::from_secs(5));
    assert!(world.is_at_rest());
    world.command(up(&env("dev"), second)).reply.unwrap();
    for _ in 0..400 {
        if halt(&world).is_some() {
            return world;
        }
        world.wait(Millis(500));
    }
    panic!("it did not stop");
}

fn halt(world: &World) -> Option<Halt> {
    world.state.environment(&env("dev"))?.rollout.as_ref()?.halted.clone()
}

fn outcomes(world: &World) -> Vec<Outcome> {
    let finished = world.log.iter().filter_map(|entry| match &entry.event {
        Event::Rollout(RolloutEvent::Finished { outcome, .. }) => Some(outcome.clone()),
        _ => None,
    });
    finished.collect()
}

/// What has requests.
fn serving(world: &World) -> Vec<String> {
    let mut found: Vec<String> = world
        .state
        .instances()
        .filter(|found| found.is_routed())
        .map(|found| found.spec.argv[0].clone())
        .collect();
    found.sort();
    found
}

#[test]
fn it_stops_where_it_is_and_says_what_it_waits_for_until_it_goes_back() {
    let mut world = halted(V1, CRASH);
    let Halt { reason, until } = halt(&world).unwrap();
    assert!(reason.contains("ended 3 times"), "{reason}");
    assert_eq!(waiting(&world.state, &env("dev"), world.now)[0], Wait::Decision { reason, until });
    world.wait(Millis(DAY.0 - 60_000));
    assert_eq!((outcomes(&world).len(), serving(&world)), (1, vec!["v1".to_owned(); 2]));
    world.restart();
    assert!(halt(&world).is_some());
    world.wait(Millis::from_secs(120));
    let last = world.state.environment(&env("dev")).unwrap().last_rollout.clone().unwrap();
    assert_eq!(last.outcome, Outcome::WentBack);
    assert!(
        last.reason.ends_with("nobody decided within 24h") || last.reason.ends_with("within 1d"),
        "{last:?}"
    );
}

#[test]
fn an_abort_takes_it_back_and_nothing_else_can_be_asked_of_it() {
    let mut world = halted(V1, CRASH);
    let refused = Err(Refusal::Halted(env("dev")));
    assert_eq!(world.command(Command::Pause { env: env("dev") }).reply, refused);
    assert_eq!(world.command(Command::Promote { env: env("dev"), step: None }).reply, refused);
    world.command(Command::Abort { env: env("dev") }).reply.unwrap();
    world.wait(Millis::from_secs(30));
    assert_eq!(outcomes(&world)[1..], [Outcome::WentBack]);
    assert!(world.is_at_rest());
}

#[test]
fn who_resumes_tries_again_and_keeps_what_is_queued() {
    // It becomes healthy after five seconds, and has four.
    let mut world = halted(V1, &["web=sick*2+stays+route:8080"]);
    let mut queued = up(&env("dev"), &["web=v3*2+stays+route:8080"]);
    if let Command::Up { admission, .. } = &mut queued {
        admission.if_running = IfRunning::Queue;
    }
    world.command(queued).reply.unwrap();
    let again = world.command(Command::Resume { env: env("dev") }).reply;
    assert!(
        matches!(again, Ok(Reply::RolloutStarted { revision: Some(RevisionNumber(2)), .. })),
        "{again:?}"
    );
    assert_eq!(outcomes(&world)[1..], [Outcome::Superseded]);
    world.wait(Millis::from_secs(1));
    for id in world.bodies.keys().copied().collect::<Vec<_>>() {
        world.set_health(id, true);
    }
    world.wait(Millis::from_secs(60));
    assert_eq!(outcomes(&world)[1..], [Outcome::Superseded, Outcome::Completed, Outcome::Completed]);
    assert_eq!(serving(&world), ["v3", "v3"]);
}

#[test]
fn a_new_release_takes_over() {
    let mut world = halted(V1, CRASH);
    world.command(up(&env("dev"), &["web=v3*2+stays+route:8080"])).reply.unwrap();
    world.wait(Millis::from_secs(10));
    assert_eq!(outcomes(&world)[1..], [Outcome::Superseded, Outcome::Completed]);
}

#[test]
fn a_canary_that_stopped_has_no_requests_any_more() {
    let canary = |version: &str| format!("web={version}*2+stays+route:8080+canary:100h600");
    let mut world = World::new();
    world.command(up(&env("dev"), &[&canary("v1")])).reply.unwrap();
    world.wait(Millis::from_secs(5));
    world.command(up(&env("dev"), &[&canary("v2")])).reply.unwrap();
    world.wait(Millis::from_secs(5));
    assert_eq!(serving(&world), ["v1", "v1", "v2"], "it is tried out");
    for _ in 0..3 {
        let new = world.state.instances().find(|it| it.spec.argv[0] == "v2" && it.is_routed());
        let new = new.map(|found| found.id).unwrap();
        world.exit(new, kiln_model::instance::ExitStatus::Code(1));
        world.wait(Millis::from_secs(3));
    }
    assert!(halt(&world).is_some());
    world.wait(Millis::from_secs(3600));
    assert_eq!(serving(&world), ["v1", "v1"]);
}

#[test]
fn a_rollback_that_fails_goes_back_by_itself() {
    let mut world = World::new();
    for version in ["slow1", "v2"] {
        world.command(up(&env("dev"), &[&format!("web={version}+stays+warm:0+route:8080")])).reply.unwrap();
        world.wait(Millis::from_secs(20));
    }
    let to = Some(RevisionNumber(1));
    world.command(Command::Rollback { env: env("dev"), to, service: None, careful: false }).reply.unwrap();
    for _ in 0..3 {
        world.run();
        let old = world.bodies.iter().find(|(_, body)| body.spec.argv[0] == "slow1" && body.exited.is_none());
        let old = *old.expect("one is created again").0;
        world.exit(old, kiln_model::instance::ExitStatus::Code(1));
        world.wait(Millis::from_secs(2));
    }
    world.wait(Millis::from_secs(60));
    assert_eq!(outcomes(&world)[2..], [Outcome::WentBack]);
    assert_eq!(serving(&world), ["v2"]);
}

#[test]
fn one_service_that_is_not_moved_does_not_hold_the_others_up() {
    let mut world = World::new();
    world.command(up(&env("dev"), &["web=v1+route:8080", "mail=v1+stays"])).reply.unwrap();
    world.wait(Millis::from_secs(5));
    world.command(up(&env("dev"), &["web=crash+route:8080", "mail=v1+stays"])).reply.unwrap();
    world.wait(Millis::from_secs(30));
    assert_eq!(outcomes(&world)[1..], [Outcome::WentBack]);
}
