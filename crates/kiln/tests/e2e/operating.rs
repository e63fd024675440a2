//! Can whoever operates it see what a rollout did, follow it at any time, and steer it?

use serde_json::Value;

use crate::machine::Machine;

/// A revision whose instances don't answer before the test is over, and a rollout that has the patience to wait for them.
fn write_stuck(machine: &Machine) {
    let patient = "rollout \"blue_green\" {\n    progress_deadline = \"10m\"\n  }";
    machine.write_tiny("stuck", 2, patient);
    machine.edit_stack("VERSION = \"stuck\"", "VERSION = \"stuck\", START_MS = \"600000\"");
    machine.edit_stack("interval = \"1s\"", "interval = \"1s\"\n    startup  = \"10m\"");
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
