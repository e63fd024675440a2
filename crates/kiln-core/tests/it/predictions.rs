//! What a rollout will come to, before it begins.

use std::sync::Arc;

use kiln_core::{Command, Delays, PredictError, Prediction, Refusal, Risk, predict_up};
use kiln_model::event::RolloutEvent;
use kiln_model::forecast::Extra;
use kiln_model::rollout::{Outcome, Step};
use kiln_model::{ByteSize, Event, Millis, ServiceName};

use super::shapes::{env, revision, service_name, up};
use super::world::World;

fn delays(_: &ServiceName) -> Delays {
    Delays {
        healthy: Millis(3000),
        drain: Millis(700),
        stop: Millis(200),
        run: Millis(10_000),
        analysis: Some(Millis(20_000)),
        per_minute: None,
    }
}

fn predict(world: &World, words: &[&str]) -> Result<Prediction, PredictError> {
    predict_up(&world.state, &env("dev"), &Arc::new(revision(words)), &delays)
}

fn at_rest(words: &[&str]) -> World {
    let mut world = World::new();
    world.command(up(&env("dev"), words));
    world.wait(Millis::from_secs(60));
    assert!(world.is_at_rest());
    world
}

fn took(prediction: &Prediction) -> Vec<(&'static str, Option<u64>)> {
    let word = |step: &Step| match step {
        Step::OpenListeners => "open",
        Step::Run { .. } => "run",
        Step::Ask(_) => "ask",
        Step::Create { .. } => "create",
        Step::WaitHealthy { .. } => "healthy",
        Step::Shift { .. } => "shift",
        Step::Split { .. } => "split",
        Step::Mirror { .. } => "mirror",
        Step::Hold { .. } => "hold",
        Step::Soak { .. } => "soak",
        Step::Analyse { .. } => "analyse",
        Step::Approve { .. } => "approve",
        Step::Drain { .. } => "drain",
        Step::KeepWarm { .. } => "warm",
        Step::Retire { .. } => "retire",
    };
    prediction.steps.iter().map(|it| (word(&it.step), it.took.map(|took| took.0))).collect()
}

/// The steps that the engine itself plans for the same command.
fn planned(world: &mut World, words: &[&str]) -> Vec<Step> {
    let decision = world.command(up(&env("dev"), words));
    let found = decision.events.into_iter().find_map(|draft| match draft.event {
        Event::Rollout(RolloutEvent::Started { steps, .. }) => Some(steps),
        _ => None,
    });
    found.expect("a rollout starts")
}

#[test]
fn a_switch_takes_as_long_as_what_it_waits_for_and_needs_room_for_both() {
    let mut world = at_rest(&["web=v1*3+route:8080+memory:100"]);
    let words = ["web=v2*3+route:8080+memory:150"];
    let found = predict(&world, &words).unwrap();
    let expected = [
        ("open", Some(0)),
        ("create", Some(0)),
        ("healthy", Some(3000)),
        ("shift", Some(5)),
        ("drain", Some(700)),
        ("warm", Some(0)),
    ];
    assert_eq!((took(&found).as_slice(), found.total), (expected.as_slice(), Millis(3705)));
    assert_eq!(found.extra, Extra { memory: ByteSize(450), unlimited: 0 });
    let risk = Risk { replaced: 3, before: 3, fewest: 3 };
    assert_eq!(found.services, [(service_name("web"), risk)].into());
    assert_eq!(predict(&world, &words).unwrap(), found, "it is a function of what it is given");
    let before = world.state.clone();
    assert_eq!(before, world.state);
    let steps: Vec<Step> = found.steps.into_iter().map(|it| it.step).collect();
    assert_eq!(steps, planned(&mut world, &words), "the engine is the same");
}

#[test]
fn a_service_that_stops_before_it_starts_is_away_meanwhile() {
    let world = at_rest(&["db=v1*2+sts+memory:100", "web=v1*2+rolling:0-1"]);
    let found = predict(&world, &["db=v2*2+sts+memory:100", "web=v2*2+rolling:0-1"]).unwrap();
    let away = Risk { replaced: 2, before: 2, fewest: 0 };
    let one_less = Risk { replaced: 2, before: 2, fewest: 1 };
    assert_eq!(found.services, [(service_name("db"), away), (service_name("web"), one_less)].into());
    assert_eq!(found.extra, Extra::default());
}

#[test]
fn what_stands_between_the_moves_takes_its_time() {
    let steps = "at:before:run~migrate~60+at:ready:check~look~60+at:moved:h5";
    let words = |version: &str| format!("web={version}*1+route:8080+{steps}");
    let jobs = ["migrate=once-1+job", "look=once-1+job"];
    let mut world = at_rest(&[&words("v1"), jobs[0], jobs[1]]);
    let words = words("v2");
    let words = [&*words, jobs[0], jobs[1]];
    let found = predict(&world, &words).unwrap();
    let expected = [
        ("open", Some(0)),
        ("run", Some(10_000)),
        ("create", Some(0)),
        ("healthy", Some(3000)),
        ("run", Some(10_000)),
        ("shift", Some(5)),
        ("hold", Some(5000)),
        ("drain", Some(700)),
        ("warm", Some(0)),
    ];
    assert_eq!((took(&found).as_slice(), found.goes_back), (expected.as_slice(), None));
    let steps: Vec<Step> = found.steps.into_iter().map(|it| it.step).collect();
    assert_eq!(steps, planned(&mut world, &words), "the engine is the same");
}

#[test]
fn jobs_holds_analyses_and_approvals_take_their_time() {
    let world = at_rest(&["web=v1*2+route:8080+canary:50h60-b"]);
    let found =
        predict(&world, &["web=v2*2+route:8080+canary:50h60-100a90-250p30-b", "seed=once+job"]).unwrap();
    let of = |word| {
        took(&found).into_iter().filter(|(it, _)| *it == word).map(|(_, took)| took).collect::<Vec<_>>()
    };
    assert_eq!(of("run"), [Some(10_000)]);
    assert_eq!(of("hold"), [Some(60_000)]);
    assert_eq!(of("analyse"), [Some(20_000)]);
    assert_eq!((of("approve"), found.approvals), (vec![Some(0)], 1));
    assert_eq!(found.goes_back, None);
    assert!(found.total > Millis::from_secs(90), "{:?}", found.total);
}

#[test]
fn an_analysis_that_was_never_seen_takes_as_long_as_its_requests() {
    let world = at_rest(&["web=v1*2+route:8080+canary:100a900-b"]);
    let analysed = |per_minute| {
        let unseen = |name: &ServiceName| Delays { analysis: None, per_minute, ..delays(name) };
        let spec = Arc::new(revision(&["web=v2*2+route:8080+canary:100a900-b"]));
        let found = predict_up(&world.state, &env("dev"), &spec, &unseen).unwrap();
        took(&found).into_iter().find(|(it, _)| *it == "analyse").unwrap().1.unwrap()
    };
    let (many, twice) = (analysed(Some(60_000)), analysed(Some(120_000)));
    assert!(many > 1_000 && many.abs_diff(2 * twice) <= 2, "{many} {twice}");
    for none in [None, Some(0)] {
        assert_eq!(analysed(none), 899_999, "all the time that it has");
    }
}

#[test]
fn an_analysis_without_requests_is_predicted_with_all_the_times_that_it_takes_again() {
    let world = at_rest(&["web=v1*2+route:8080+canary:100a900-b"]);
    let unseen = |name: &ServiceName| Delays { analysis: None, per_minute: Some(0), ..delays(name) };
    let spec = Arc::new(revision(&["web=v2*2+route:8080+canary:100a900-b-e2"]));
    let found = predict_up(&world.state, &env("dev"), &spec, &unseen).unwrap();
    let analysis = found.steps.iter().find(|it| matches!(it.step, Step::Analyse { .. })).unwrap();
    assert_eq!((analysis.took, analysis.extended), (Some(Millis(3 * 900_000 - 1)), 2));
}

#[test]
fn requests_that_kiln_makes_itself_are_predicted_where_no_others_come() {
    let world = at_rest(&["web=v1*2+route:8080+canary:100a900-b-y"]);
    let analysed = |per_minute| {
        let unseen = |name: &ServiceName| Delays { analysis: None, per_minute, ..delays(name) };
        let spec = Arc::new(revision(&["web=v2*2+route:8080+canary:100a900-b-y"]));
        let found = predict_up(&world.state, &env("dev"), &spec, &unseen).unwrap();
        took(&found).into_iter().find(|(it, _)| *it == "analyse").unwrap().1.unwrap()
    };
    // Twenty a second for each of both: as many as twelve thousand a minute, of which a tenth goes to each.
    let (none, as_many, more) = (analysed(None), analysed(Some(12_000)), analysed(Some(24_000)));
    assert!(none > 1_000 && none.abs_diff(as_many) <= 2, "{none} {as_many}");
    assert!(as_many.abs_diff(2 * more) <= 2, "{as_many} {more}");
}

#[test]
fn a_rollback_and_a_down_are_predicted_as_well() {
    let mut world = at_rest(&["web=v1*2+route:8080+memory:100"]);
    world.command(up(&env("dev"), &["web=v2*2+route:8080+memory:100"]));
    world.wait(Millis::from_secs(3600));
    let (to, service, careful) = (None, None, false);
    let back = Command::Rollback { env: env("dev"), to, service, careful };
    let found = kiln_core::predict(&world.state, &back, &delays).unwrap();
    assert_eq!(found.extra, Extra { memory: ByteSize(200), unlimited: 0 });
    assert!(found.total >= Millis(3000), "{found:?}");
    let down = kiln_core::predict(&world.state, &Command::Down { env: env("dev") }, &delays).unwrap();
    assert_eq!((down.extra, down.goes_back.as_deref()), (Extra::default(), None));
    let pause = Command::Pause { env: env("dev") };
    assert_eq!(kiln_core::predict(&world.state, &pause, &delays), Err(PredictError::NoEnd));
}

#[test]
fn what_is_predicted_of_the_memory_is_what_the_engine_counts() {
    let mut world = at_rest(&["web=v1*3+route:8080+memory:100", "db=v1+sts"]);
    let words = ["web=v2*3+route:8080+memory:150", "db=v2+sts"];
    let found = predict(&world, &words).unwrap();
    world.command(up(&env("dev"), &words));
    world.wait(Millis::from_secs(3600));
    let last = world.state.environment(&env("dev")).unwrap().last_rollout.clone().unwrap();
    assert_eq!((last.extra, last.outcome.clone()), (Some(found.extra), Outcome::Completed));
    assert!(found.extra.memory >= ByteSize(450), "{found:?}");
}

#[test]
fn a_first_deploy_is_predicted_without_anything_there() {
    let nowhere = kiln_core::State::new();
    let spec = Arc::new(revision(&["web=v1*2+route:8080"]));
    let found = predict_up(&nowhere, &env("dev"), &spec, &delays).unwrap();
    assert_eq!((found.total, found.extra.unlimited), (Millis(3010), 2));
    assert!(found.services.is_empty(), "nobody loses anything");
}

#[test]
fn what_starts_slower_than_it_may_is_told_to_go_back() {
    let world = at_rest(&["web=v1+route:8080"]);
    let slow = |name: &ServiceName| Delays { healthy: Millis::from_secs(200), ..delays(name) };
    let spec = Arc::new(revision(&["web=v2+route:8080"]));
    let found = predict_up(&world.state, &env("dev"), &spec, &slow).unwrap();
    assert!(found.goes_back.is_some_and(|why| why.contains("was not healthy within")));
}

#[test]
fn other_environments_neither_help_nor_hinder() {
    let mut world = at_rest(&["web=v1*2+route:8080"]);
    let alone = predict(&world, &["web=v2*2+route:8080"]).unwrap();
    world.command(up(&env("blog/dev"), &["web=v1*5+route:9090"]));
    assert_eq!(predict(&world, &["web=v2*2+route:8080"]).unwrap(), alone);
}

#[test]
fn what_is_too_large_or_refused_is_not_predicted() {
    let world = at_rest(&["web=v1"]);
    assert_eq!(predict(&world, &["web=v2*1000"]), Err(PredictError::TooLarge(1001)));
    assert!(matches!(
        predict(&world, &["web=v2+route:8080", "api=v2+route:8080"]),
        Err(PredictError::Refused(Refusal::InvalidRevision { .. }))
    ));
}

#[test]
fn the_largest_environment_that_is_simulated_comes_to_its_end() {
    let services: Vec<String> = (0..10).map(|at| format!("s{at}=v1*25")).collect();
    let world = at_rest(&services.iter().map(String::as_str).collect::<Vec<_>>());
    let next: Vec<String> = (0..10).map(|at| format!("s{at}=v2*25")).collect();
    let found = predict(&world, &next.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    assert_eq!(found.extra.unlimited, 250);
    assert!(found.services.values().all(|risk| risk.fewest == 25));
}
