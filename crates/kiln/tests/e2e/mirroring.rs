//! A new version that is tried on copies of requests before it has any.

use crate::machine::{Machine, wait_for};

const STEPS: &str = "rollout \"blue_green\" {
    step { mirror = \"100%\" }
    step { approve = [] }
  }";

/// More than the pages of which the faulty version fails one.
const PAGES: u64 = 60;

/// What became of the copies, as `kiln rollout show` tells.
fn copies(machine: &Machine, count: &str) -> u64 {
    let canaries = machine.json(&["rollout", "show"])["record"]["rollout"]["canaries"].clone();
    canaries[0]["copies"][count].as_u64().unwrap_or(0)
}

#[test]
fn a_new_version_gets_copies_before_its_first_request_and_their_differences_are_counted() {
    let machine = Machine::new();
    machine.write_tiny("v1", 1, STEPS);
    machine.kiln(&["up"]).ok();
    machine.write_tiny("v2", 1, STEPS);
    machine.edit_stack("VERSION = \"v2\"", "VERSION = \"v2\", MODE = \"faulty\"");
    machine.kiln(&["up", "--detach"]).ok();
    wait_for("an approval is waited for", || {
        let steps = machine.json(&["rollout", "show"])["record"]["rollout"]["steps"].clone();
        let mut steps = steps.as_array()?.iter();
        let waits =
            |step: &serde_json::Value| step["text"].as_str().is_some_and(|it| it.contains("approval"));
        steps.any(|step| waits(step) && step["state"] == "running").then_some(())
    });
    for _ in 0..PAGES {
        let page = machine.get("/page").unwrap();
        assert!(page.starts_with("v1 "), "nobody sees the new version: {page}");
    }
    // A copy is counted after the answer that it is a copy of.
    wait_for("every request is copied", || {
        let told: u64 = ["answered", "lost", "skipped"].iter().map(|count| copies(&machine, count)).sum();
        (told >= PAGES).then_some(())
    });
    assert!(copies(&machine, "differed") > 0, "the new version fails each twentieth page");
    let shown = machine.kiln(&["rollout", "show"]).ok().out;
    assert!(shown.contains("answered differently"), "{shown}");

    machine.kiln(&["rollout", "promote"]).ok();
    machine.wait_page("v2");
    wait_for("it takes over", || {
        let record = machine.json(&["rollout", "show"])["record"].clone();
        (record["rollout"]["ended"]["outcome"] == "completed").then_some(())
    });
}
