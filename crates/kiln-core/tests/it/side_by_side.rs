//! Several canaries of one stack.

use kiln_model::event::RolloutEvent;
use kiln_model::instance::ExitStatus;
use kiln_model::rollout::{Outcome, Step};
use kiln_model::{Event, Millis};

use super::notation;
use super::shapes::{env, up};
use super::world::World;

fn at_rest(words: &[&str]) -> World {
    let mut world = World::new();
    world.command(up(&env("dev"), words)).reply.unwrap();
    world.wait(Millis::from_secs(5));
    assert!(world.is_at_rest());
    world
}

/// Asks for it, and returns the steps up to the last switch.
fn steps(world: &mut World, words: &[&str]) -> Vec<String> {
    let decision = world.command(up(&env("dev"), words));
    let found = decision.events.into_iter().find_map(|draft| match draft.event {
        Event::Rollout(RolloutEvent::Started { steps, .. }) => Some(steps),
        _ => None,
    });
    let steps: Vec<Step> = found.expect("a rollout starts");
    let last = steps.iter().rposition(|step| matches!(step, Step::Shift { .. })).unwrap();
    steps[..=last].iter().map(notation::step).collect()
}

#[test]
fn canaries_that_do_not_need_each_other_move_stage_by_stage_and_take_over_together() {
    let words = |version: &str| {
        [
            format!("api={version}*2+route:8081+canary:100h30-500p60"),
            format!("web={version}*4+route:8080+canary:50h60-250p30-500h5"),
        ]
    };
    let [old, new] = ["v1", "v2"].map(words);
    let mut world = at_rest(&old.each_ref().map(String::as_str));
    let expected = [
        "open",
        "create api/0 web/0",
        "wait api/0 web/0 2m",
        "split api 100 window 0",
        "split web 50 window 0",
        "hold 1m",
        "split api 500 window 1",
        "split web 250 window 1",
        "approve 30s",
        "create web/1",
        "wait web/1 2m",
        "split web 500 window 2",
        "hold 5s",
        "create api/1 web/2..4",
        "wait api/1 web/2..4 2m",
        "shift api/0..2 web/0..4 with routes",
    ];
    let found = steps(&mut world, &new.each_ref().map(String::as_str));
    let found: Vec<String> = found.iter().map(|step| step.replace(", ", " ")).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_canary_that_needs_another_follows_it() {
    let words = |version: &str| {
        [
            format!("api={version}*2+route:8081+canary:100h30"),
            // It needs the other by something that is switched at once.
            "middle=v1+uses:api".to_owned(),
            format!("web={version}*2+route:8080+uses:middle+canary:100h30"),
        ]
    };
    let [old, new] = ["v1", "v2"].map(words);
    let mut world = at_rest(&old.each_ref().map(String::as_str));
    let steps = steps(&mut world, &new.each_ref().map(String::as_str));
    let at = |text: &str| steps.iter().position(|step| step.starts_with(text)).expect(text);
    assert!(at("shift api") < at("split web"), "{steps:#?}");
}

#[test]
fn services_that_change_together_go_back_together() {
    let words = |version: &str, web: &str| {
        [
            format!("api={version}*2+route:8081+canary:100h3600"),
            "orders=v1*2+rolling:1-0".to_owned(),
            format!("web={web}*2+route:8080+canary:500h3600"),
        ]
    };
    let old = words("v1", "v1");
    let mut world = at_rest(&old.each_ref().map(String::as_str));
    let new = words("v2", "v2");
    world.command(up(&env("dev"), &new.each_ref().map(String::as_str))).reply.unwrap();
    world.wait(Millis::from_secs(5));
    let splits = world.state.environment(&env("dev")).unwrap().rollout.as_ref().unwrap().splits.len();
    assert_eq!(splits, 2, "both are tried out at a time");
    for _ in 0..3 {
        let new = world.state.instances().find(|it| {
            it.slot().is_some_and(|(name, _)| name.as_str() == "web")
                && it.spec.argv[0] == "v2"
                && it.exit.is_none()
        });
        let new = new.map(|found| found.id).unwrap();
        world.exit(new, ExitStatus::Code(1));
        world.wait(Millis::from_secs(3));
    }
    world.wait(Millis::from_secs(60));
    let found = world.state.environment(&env("dev")).unwrap();
    assert_eq!(found.last_rollout.as_ref().unwrap().outcome, Outcome::WentBack);
    let serving = world.state.instances().filter(|it| it.is_routed());
    let serving: Vec<&str> = serving.map(|it| it.spec.argv[0].as_str()).collect();
    assert!(serving.len() >= 4 && serving.iter().all(|version| *version == "v1"), "{serving:?}");
}
