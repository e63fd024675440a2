//! What becomes of a newer release that arrives while a rollout runs, and does a switch wait for who is to let it?

use crate::machine::{Machine, wait_for};

/// The switch waits until somebody lets it.
const MANUAL: &str = "rollout \"blue_green\" {\n    auto_promote = false\n  }";

/// `v1` serves, and the rollout to `v2` waits for somebody to let the switch.
fn waiting_for_somebody() -> Machine {
    let machine = Machine::new();
    machine.write_tiny("v1", 1, MANUAL);
    machine.kiln(&["up"]).ok();
    machine.wait_page("v1");
    machine.write_tiny("v2", 1, MANUAL);
    machine.kiln(&["up", "--detach"]).ok();
    wait_for("the switch waits for somebody", || {
        let steps = machine.json(&["status"])["environments"][0]["rollout"]["steps"].clone();
        let running = steps.as_array()?.iter().find(|step| step["state"] == "running")?.clone();
        running["text"].as_str()?.contains("wait for an approval").then_some(())
    });
    machine
}

/// Where each rollout went and how it ended, the newest first.
fn history(machine: &Machine) -> Vec<(u64, String)> {
    let listed = machine.json(&["rollout", "list"]);
    let shown = |record: &serde_json::Value| {
        let rollout = &record["rollout"];
        let outcome = rollout["ended"]["outcome"].as_str().unwrap_or("running").to_owned();
        (rollout["to"].as_u64().unwrap_or_default(), outcome)
    };
    listed["rollouts"].as_array().expect("a list").iter().map(shown).collect()
}

#[test]
fn a_release_that_is_queued_begins_when_the_one_before_has_ended() {
    let machine = waiting_for_somebody();
    machine.wait_page("v1");
    machine.write_tiny("v3", 1, "");
    machine.kiln(&["up", "--if-running", "refuse"]).fails_with("is running, to #2");
    let queued = machine.json(&["up", "--if-running", "queue", "--detach"]);
    assert_eq!((&queued["outcome"], &queued["revision"]), (&"queued".into(), &3.into()), "{queued}");
    for words in [&["rollout", "list"][..], &["rollout", "show"]] {
        let shown = machine.kiln(words).ok().out;
        assert!(shown.contains("Next, when the one that runs has ended: #3"), "{shown}");
    }
    let status = machine.kiln(&["status"]).ok().out;
    assert!(status.contains("to end: then #3 begins"), "{status}");
    machine.kiln(&["rollout", "abort", "--queued"]).ok();
    machine.kiln(&["rollout", "abort", "--queued"]).fails_with("waits for its turn");
    // Asked for once more, and waited for: somebody lets the one before be complete.
    let promote = || {
        machine.kiln(&["rollout", "promote"]).ok();
    };
    machine.kiln_until(&["up", "--if-running", "queue"], "#4 is next", promote).ok();
    machine.wait_page("v3");
    let expected = [(4, "completed"), (2, "completed"), (1, "completed")];
    assert_eq!(history(&machine), expected.map(|(to, outcome)| (to, outcome.to_owned())));
}

#[test]
fn a_release_that_supersedes_goes_on_from_what_is_there_and_an_abort_ends_what_is_queued() {
    let machine = waiting_for_somebody();
    machine.write_tiny("v3", 1, MANUAL);
    machine.kiln(&["up", "--detach"]).ok();
    machine.write_tiny("v4", 1, "");
    machine.kiln(&["up", "--if-running", "queue", "--detach"]).ok();
    machine.kiln(&["rollout", "abort"]).ok();
    let expected = [(3, "went_back"), (2, "superseded"), (1, "completed")];
    assert_eq!(history(&machine), expected.map(|(to, outcome)| (to, outcome.to_owned())));
    machine.wait_page("v1");
}
