//! What a release needs to come into an environment.

use std::sync::Arc;

use kiln_core::{Admission, Command, Refusal, Reply};
use kiln_model::event::{EnvironmentEvent, RolloutEvent};
use kiln_model::gates::{Freeze, GateKind, Gates};
use kiln_model::instance::ExitStatus;
use kiln_model::rollout::Cause;
use kiln_model::{EnvKey, EnvName, Event, Millis, Timestamp};

use super::shapes::{digest_of, env, up};
use super::world::World;

fn at_rest(words: &[&str]) -> World {
    let mut world = World::new();
    assert!(world.command(up(&env("dev"), words)).reply.is_ok());
    world.wait(Millis::from_secs(2));
    world
}

/// What `up` asks for, as a promotion from another environment.
fn promotion(key: &EnvKey, from: &str, words: &[&str]) -> Command {
    match up(key, words) {
        Command::Up { env, adopt, base, release, binding, spec, checks, .. } => {
            let promoted_from = Some(EnvName::new(from).unwrap());
            let admission = Admission { promoted_from, ..Admission::default() };
            let origin = "not asked for".into();
            Command::Up { env, origin, adopt, base, release, binding, spec, checks, admission }
        }
        _ => panic!("up makes an up"),
    }
}

#[test]
fn only_what_the_other_environment_was_moved_to_is_promoted() {
    let mut world = at_rest(&["web=v1"]);
    let refused = world.command(promotion(&env("prod"), "test", &["web=v1"])).reply;
    assert_eq!(refused, Err(Refusal::UnknownEnvironment(env("test"))));
    let unknown = Refusal::NotReachedThere { from: env("dev"), release: digest_of("web=v2") };
    assert_eq!(world.command(promotion(&env("prod"), "dev", &["web=v2"])).reply, Err(unknown.clone()));
    // A release that is on its way has proved nothing.
    assert!(world.command(up(&env("dev"), &["web=v2"])).reply.is_ok());
    assert_eq!(world.command(promotion(&env("prod"), "dev", &["web=v2"])).reply, Err(unknown));
    world.wait(Millis::from_secs(2));
    for words in [["web=v2"], ["web=v1"]] {
        let decision = world.command(promotion(&env("prod"), "dev", &words));
        let cause = decision.events.iter().find_map(|draft| match &draft.event {
            Event::Rollout(RolloutEvent::Started { cause, .. }) => Some(cause.clone()),
            _ => None,
        });
        assert_eq!(cause, Some(Cause::Promotion { from: EnvName::new("dev").unwrap() }));
    }
    world.wait(Millis::from_secs(2));
    let again = world.command(promotion(&env("prod"), "dev", &["web=v1"]));
    assert!(matches!(again.reply, Ok(Reply::Unchanged { .. })) && again.events.is_empty());
}

/// What `up` asks for, declaring gates.
fn gated(key: &EnvKey, words: &[&str], gates: &Gates, break_glass: Option<&str>) -> Command {
    match up(key, words) {
        Command::Up { env, origin, adopt, base, release, binding, spec, checks, .. } => {
            let gates = Arc::new(gates.clone());
            let admission =
                Admission { gates, break_glass: break_glass.map(Into::into), ..Admission::default() };
            Command::Up { env, origin, adopt, base, release, binding, spec, checks, admission }
        }
        _ => panic!("up makes an up"),
    }
}

/// The gates that were shut for this.
fn shut(reply: Result<Reply, Refusal>) -> Vec<GateKind> {
    match reply {
        Ok(_) => Vec::new(),
        Err(Refusal::GatesShut { verdicts, .. }) => {
            verdicts.iter().filter(|verdict| !verdict.is_open).map(|verdict| verdict.gate).collect()
        }
        Err(other) => panic!("refused for another reason: {other:?}"),
    }
}

fn name(name: &str) -> EnvName {
    EnvName::new(name).unwrap()
}

fn soak() -> Gates {
    Gates { from: Some(name("dev")), soak: Millis::from_secs(60), ..Gates::default() }
}

#[test]
fn a_release_that_drops_the_gates_has_to_pass_them_first() {
    let mut world = at_rest(&["web=v1"]);
    let (prod, gates) = (env("prod"), Gates { approve: Some(Vec::new()), ..Gates::default() });
    let ask = |world: &mut World, words: &[&str], gates: &Gates| {
        let reply = world.command(gated(&prod, words, gates, None)).reply;
        world.wait(Millis::from_secs(2));
        shut(reply)
    };
    assert_eq!(ask(&mut world, &["web=v1"], &Gates::default()), [], "nothing is asked for");
    assert_eq!(ask(&mut world, &["web=v2"], &gates), [], "what it declares counts from then on");
    assert_eq!(ask(&mut world, &["web=v3"], &Gates::default()), [GateKind::Approval]);
    assert_eq!(ask(&mut world, &["web=v2"], &Gates::default()), [], "it is there already: as it was let in");
    assert_eq!(
        ask(&mut world, &["web=v3"], &Gates::default()),
        [GateKind::Approval],
        "and brings no other gates"
    );
    // A new environment is what it is declared to be from its first release on.
    let other = world.command(gated(&env("test"), &["web=v1"], &gates, None)).reply;
    assert_eq!(shut(other), [GateKind::Approval]);
    assert!(world.state.environment(&env("test")).is_none());
}

#[test]
fn a_release_soaks_from_the_end_of_its_rollout_and_anew_after_a_failure() {
    let mut world = at_rest(&["web=v1"]);
    let ask = |world: &mut World, words: &[&str]| {
        shut(world.command(gated(&env("prod"), words, &soak(), None)).reply)
    };
    assert_eq!(ask(&mut world, &["web=v1"]), [GateKind::Soak]);
    assert_eq!(ask(&mut world, &["web=v2"]), [GateKind::From, GateKind::Soak]);
    world.wait(Millis::from_secs(40));
    let failed = world.state.instances().next().unwrap().id;
    world.exit(failed, ExitStatus::Code(1));
    world.wait(Millis::from_secs(40));
    assert_eq!(ask(&mut world, &["web=v1"]), [GateKind::Soak], "it failed 40 seconds ago");
    world.wait(Millis::from_secs(25));
    // What comes after it does not take away what it has proved.
    assert!(world.command(up(&env("dev"), &["web=v2"])).reply.is_ok());
    world.wait(Millis::from_secs(10));
    assert_eq!(ask(&mut world, &["web=v2"]), [GateKind::Soak]);
    assert_eq!(ask(&mut world, &["web=v1"]), []);
}

#[test]
fn only_who_is_named_approves_and_an_approval_ends() {
    let mut world = at_rest(&["web=v1"]);
    let me = "ann".to_owned();
    let gates = |by: &str| Gates { approve: Some(vec![by.into()]), ..Gates::default() };
    let approve = |release: &str| Command::Approve {
        env: env("prod"),
        release: digest_of(release),
        within: Millis::from_secs(60),
    };
    let unknown = Refusal::UnknownRelease(env("prod").stack, digest_of("web=v9"));
    assert_eq!(world.command(approve("web=v9")).reply, Err(unknown));
    assert!(world.command(approve("web=v1")).reply.is_ok(), "the environment is to be made yet");
    let ask = |world: &mut World, by: &str, words: &[&str]| {
        shut(world.command(gated(&env("prod"), words, &gates(by), None)).reply)
    };
    assert_eq!(ask(&mut world, "olga", &["web=v1"]), [GateKind::Approval], "it is not olga's");
    assert_eq!(ask(&mut world, &me, &["web=v2"]), [GateKind::Approval], "it is another release's");
    world.wait(Millis::from_secs(61));
    assert_eq!(ask(&mut world, &me, &["web=v1"]), [GateKind::Approval], "it is over");
    assert!(world.command(approve("web=v1")).reply.is_ok());
    assert_eq!(ask(&mut world, &me, &["web=v1"]), []);
    world.wait(Millis::from_secs(2));
    assert!(world.command(gated(&env("prod"), &["web=v2"], &gates("olga"), Some("x"))).reply.is_ok());
    let refused = Refusal::MayNotApprove { env: env("prod"), by: vec!["olga".into()] };
    assert_eq!(world.command(approve("web=v1")).reply, Err(refused));
}

#[test]
fn breaking_the_glass_is_written_down_and_a_rollback_asks_nobody() {
    let mut world = at_rest(&["web=v1"]);
    let freeze = Freeze { from: Timestamp(0), to: Timestamp(u64::MAX), reason: "holidays".into() };
    let frozen = Gates { freezes: vec![freeze], ..Gates::default() };
    assert!(world.command(gated(&env("dev"), &["web=v2"], &frozen, None)).reply.is_ok());
    world.wait(Millis::from_secs(2));
    assert_eq!(shut(world.command(gated(&env("dev"), &["web=v3"], &frozen, None)).reply), [GateKind::Freeze]);
    let decision = world.command(gated(&env("dev"), &["web=v3"], &frozen, Some("the shop is down")));
    let broken = decision.events.iter().find_map(|draft| match &draft.event {
        Event::Environment(EnvironmentEvent::GatesPassed { verdicts, broken, .. }) => {
            Some((verdicts.len(), broken.clone()))
        }
        _ => None,
    });
    assert_eq!(broken, Some((1, Some("the shop is down".into()))));
    world.wait(Millis::from_secs(2));
    let back = Command::Rollback { env: env("dev"), to: None, service: None, careful: false };
    assert!(matches!(world.command(back).reply, Ok(Reply::RolloutStarted { .. })));
}
