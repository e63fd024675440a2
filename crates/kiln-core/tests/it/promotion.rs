//! What a release needs to come into an environment.

use kiln_core::{Admission, Command, Refusal, Reply};
use kiln_model::event::RolloutEvent;
use kiln_model::rollout::Cause;
use kiln_model::{EnvKey, EnvName, Event, Millis};

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
