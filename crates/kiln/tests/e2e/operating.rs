//! Can whoever operates it see what a rollout did, follow it at any time, and steer it?

use serde_json::Value;

use crate::machine::{Machine, wait_for};
use crate::upload::Upload;

/// A revision whose instances don't answer before the test is over, and a rollout that has the patience to wait for them.
fn write_stuck(machine: &Machine) {
    let patient = "rollout \"blue_green\" {\n    progress_deadline = \"10m\"\n  }";
    machine.write_tiny("stuck", 2, patient);
    machine.edit_stack("VERSION = \"stuck\"", "VERSION = \"stuck\", START_MS = \"600000\"");
    machine.edit_stack("interval = \"1s\"", "interval = \"1s\"\n    startup  = \"10m\"");
}

/// The rollout that runs, as `kiln status` tells of it.
fn running(machine: &Machine) -> Value {
    machine.json(&["status"])["environments"][0]["rollout"].clone()
}

/// What is shown of each rollout: where to, by what, and how it ended.
fn history(machine: &Machine) -> Vec<(Option<u64>, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let listed = machine.json(&["rollout", "list"]);
    let shown = |record: &Value| {
        let rollout = &record["rollout"];
        (rollout["to"].as_u64(), text(&rollout["cause"]), text(&rollout["ended"]["outcome"]))
    };
    listed["rollouts"].as_array().expect("a list").iter().map(shown).collect()
}

#[test]
fn a_rollout_is_watched_aborted_and_found_in_the_history_whatever_happened_since() {
    let machine = Machine::new();
    machine.write_tiny("v1", 2, "");
    machine.kiln(&["up"]).ok();
    machine.kiln(&["rollout", "watch"]).fails_with("no rollout is running");
    machine.kiln(&["rollout", "show", "999999"]).fails_with("never had a rollout 999999");
    write_stuck(&machine);
    machine.kiln(&["up", "--detach"]).ok();
    let abort = || {
        machine.kiln(&["rollout", "abort", "--detach"]).ok();
    };
    let watched = machine.kiln_until(&["rollout", "watch"], "wait until tiny/0..2 is healthy", abort);
    assert_eq!(watched.code, 1, "it went back: {}", watched.err);
    machine.wait_page("v1");
    // What another controller knows, it knows from the log.
    machine.kill("controller");
    machine.kiln(&["down"]).ok();
    let expected = [
        (None, "down".to_owned(), "completed".to_owned()),
        (Some(2), "up".to_owned(), "went_back".to_owned()),
        (Some(1), "up".to_owned(), "completed".to_owned()),
    ];
    assert_eq!(history(&machine), expected, "also after the environment was forgotten");
    let second =
        machine.json(&["rollout", "list", "--limit", "2"])["rollouts"][1]["rollout"]["id"].to_string();
    let record = machine.json(&["rollout", "show", &second])["record"].clone();
    let state = |step: &Value| step["state"].as_str().unwrap_or_default().to_owned();
    let steps: Vec<String> =
        record["rollout"]["steps"].as_array().expect("steps").iter().map(state).collect();
    let stopped = steps.iter().position(|state| state == "stopped").expect("one step was left half-way");
    assert!(steps[..stopped].iter().all(|state| state == "done"), "{steps:?}");
    assert!(steps[stopped + 1..].iter().all(|state| state == "waiting"), "{steps:?}");
    let back = record["way_back"]["steps"].as_array().expect("a way back").clone();
    assert!(!back.is_empty() && back.iter().all(|step| state(step) == "done"), "{back:?}");
    let shown = machine.kiln(&["rollout", "show", &second]).ok().out;
    assert!(
        shown.contains("✗ wait until tiny/0..2 is healthy") && shown.contains("it was aborted"),
        "{shown}"
    );
    let planned = machine.kiln(&["rollout", "show", &second, "--steps"]).ok().out;
    assert_eq!(planned.lines().count(), steps.len());
}

/// Whether the rollout that runs has come to a step, and how far it is with it.
fn step(machine: &Machine, text: &str) -> Option<String> {
    let steps = running(machine)["steps"].clone();
    let found =
        steps.as_array()?.iter().find(|step| step["text"].as_str().is_some_and(|it| it.contains(text)))?;
    found["state"].as_str().map(ToOwned::to_owned)
}

#[test]
fn a_paused_rollout_waits_also_through_a_new_controller_until_somebody_resumes() {
    let machine = Machine::new();
    let patient = "rollout \"blue_green\" {\n    drain_deadline = \"10m\"\n  }";
    machine.write_tiny("v1", 2, patient);
    machine.kiln(&["up"]).ok();
    machine.kiln(&["rollout", "pause"]).fails_with("no rollout is running");
    let upload = Upload::begin(&machine);
    machine.write_tiny("v2", 2, patient);
    machine.kiln(&["up", "--detach"]).ok();
    wait_for("the old instances drain", || step(&machine, "drain").filter(|state| state == "running"));
    machine.kiln(&["rollout", "pause"]).ok();
    machine.kiln(&["rollout", "pause"]).ok();
    let answer = upload.end();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("v1"),
        "the old revision answers: {answer}"
    );
    wait_for("the step that ran is complete", || step(&machine, "drain").filter(|state| state == "done"));
    machine.kill("controller");
    let rollout = running(&machine);
    assert!(rollout["paused"]["by"].is_string() && rollout["ended"].is_null(), "{rollout}");
    assert_eq!(step(&machine, "keep the old").as_deref(), Some("waiting"));
    assert!(machine.kiln(&["status"]).ok().out.contains("paused by "));
    let resume = || {
        machine.kiln(&["rollout", "resume"]).ok();
    };
    machine.kiln_until(&["rollout", "watch"], "paused by ", resume).ok();
    machine.wait_page("v2");
    let shown = machine.json(&["rollout", "show"]);
    assert_eq!(shown["record"]["pauses"].as_array().map(Vec::len), Some(1), "{shown}");
}

#[test]
fn what_makes_a_way_back_unsafe_is_said_before_it_is_gone() {
    let machine = Machine::new();
    let volume = "volumes = { \"/data\" = volume.data }";
    let write = |version: &str| {
        machine.write_tiny(version, 1, volume);
        let stack = std::fs::read_to_string(machine.stack().join("stack.hcl")).expect("it was written");
        machine.write("stack.hcl", stack + "\nvolume \"data\" {}\n");
    };
    let safe = |shown: &Value| shown["rollback"]["safe"].as_bool().expect("it is said");
    write("v1");
    assert_eq!(machine.json(&["plan"])["rollback"], Value::Null, "there is nothing to go back to");
    machine.kiln(&["up"]).ok();
    assert!(safe(&machine.json(&["release", "show"])));
    machine.edit_stack("replicas = 1", "replicas = 2");
    assert!(safe(&machine.json(&["plan"])), "the same program goes on with the volume");
    write("v2");
    let why = "no, because volume data, which tiny mounts, is written to by tiny";
    let planned = machine.kiln(&["plan"]).ok().out;
    assert!(planned.contains(&format!("Back to #1 from there: rollback-safe: {why} as well")), "{planned}");
    machine.kiln(&["up"]).ok();
    let shown = machine.kiln(&["release", "show", "1"]).ok().out;
    assert!(shown.contains(&format!("{why} of #2 as well")), "{shown}");
    assert!(safe(&machine.json(&["release", "show", "2"])));
    let back = machine.kiln(&["rollback"]).ok();
    assert!(back.err.contains(&format!("rollback-safe: {why} of #2 as well")), "{}", back.err);
    machine.wait_page("v1");
}

#[test]
fn a_plan_foresees_the_rollout_by_what_the_last_ones_took() {
    let machine = Machine::new();
    machine.write_tiny("v1", 2, "");
    let first = machine.json(&["plan"])["expected"].clone();
    assert_eq!(first["delays"][0]["seen"], 0, "nothing ever ran: {first}");
    machine.kiln(&["up"]).ok();
    machine.write_tiny("v2", 2, "");
    let expected = machine.json(&["plan"])["expected"].clone();
    let healthy = expected["delays"].as_array().expect("a list").iter().find(|it| it["what"] == "healthy");
    assert_eq!(healthy.expect("instances are waited for")["seen"], 1, "{expected}");
    let risk = serde_json::json!([{ "service": "tiny", "replaced": 2, "before": 2, "fewest": 2 }]);
    assert_eq!((&expected["services"], &expected["unlimited_extra"]), (&risk, &Value::from(2)));
    assert!(machine.kiln(&["plan"]).ok().out.contains("never fewer than 2 of 2 at work"));
    machine.kiln(&["up"]).ok();
    let happened = machine.json(&["rollout", "show", "--steps"])["steps"].clone();
    let foreseen: Vec<Value> =
        expected["steps"].as_array().expect("a list").iter().map(|step| step["text"].clone()).collect();
    assert_eq!(Value::from(foreseen), happened);
    let shown = machine.json(&["rollout", "show"])["record"]["rollout"]["steps"].clone();
    let waits = |steps: &Value, name: &str| {
        let step = steps
            .as_array()
            .expect("a list")
            .iter()
            .find(|it| it["text"].as_str().is_some_and(|text| text.starts_with("wait until")));
        step.expect("instances are waited for")[name].clone()
    };
    assert_eq!(waits(&shown, "expected_ms"), healthy.expect("as before")["ms"], "{shown}");
    // It is computed beside the rollout, and the requests are counted after its end.
    let record = wait_for("what was predicted and what was measured is told", || {
        let record = machine.json(&["rollout", "show"])["record"].clone();
        let is_told = record["predicted"].is_object() && record["receipt"]["unlimited_extra"].is_u64();
        is_told.then_some(record)
    });
    assert_eq!(record["predicted"]["total_ms"], expected["total_ms"], "{record:#}");
    assert_eq!(
        (&record["predicted"]["unlimited_extra"], &record["receipt"]["unlimited_extra"]),
        (&2.into(), &2.into())
    );
    assert!(machine.kiln(&["rollout", "show"]).ok().out.contains(", predicted "), "{record:#}");
    machine.kiln(&["rollback"]).ok();
    wait_for("a way back is predicted as well", || {
        machine.json(&["rollout", "show"])["record"]["predicted"]["total_ms"].is_u64().then_some(())
    });
}
