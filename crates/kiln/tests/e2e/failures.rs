//! What is not seen at first: who dies a little later never gets a request, a wave that fails takes everything back, and where
//! somebody wants to look, a failure stops instead.

use serde_json::Value;

use crate::load::Load;
use crate::machine::{Machine, signal, wait_for};
use crate::processes::servers_of;

/// A rate at which every instance has requests within a moment.
const RATE: u32 = 200;

/// `v1` serves, by this rollout.
fn serving_v1(replicas: u32, rollout: &str) -> Machine {
    let machine = Machine::new();
    machine.write_tiny("v1", replicas, rollout);
    machine.kiln(&["up"]).ok();
    machine.wait_page("v1");
    machine
}

/// Declares `v2`, with more of its environment.
fn write_v2(machine: &Machine, replicas: u32, rollout: &str, more: &str) {
    machine.write_tiny("v2", replicas, rollout);
    machine.edit_stack("VERSION = \"v2\"", &format!("VERSION = \"v2\"{more}"));
}

fn last_rollout(machine: &Machine) -> Value {
    machine.json(&["rollout", "show"])["record"]["rollout"].clone()
}

#[test]
fn who_dies_soon_after_it_became_healthy_never_gets_a_request() {
    let proven =
        "rollout \"blue_green\" {\n    min_healthy_time  = \"4s\"\n    progress_deadline = \"5s\"\n  }";
    let machine = serving_v1(1, "");
    let load = Load::start(&machine.plan(RATE));
    write_v2(&machine, 1, proven, ", DIE_MS = \"1500\"");
    machine.kiln(&["up"]).fails_with("is back at #1");
    let report = load.stop();
    report.assert_none_lost();
    assert!(report.last_sent_to("v2").is_none() && report.last_sent_to("v1").is_some());
}

#[test]
fn a_wave_that_fails_while_it_soaks_takes_everything_back() {
    let waves = "rollout \"rolling\" {\n    waves = [\"1\", \"100%\"]\n    soak  = \"1h\"\n  }";
    let machine = serving_v1(3, waves);
    write_v2(&machine, 3, waves, "");
    machine.kiln(&["up", "--detach"]).ok();
    let soaking = || {
        let steps = last_rollout(&machine)["steps"].clone();
        let soak = steps.as_array()?.iter().find(|step| step["text"] == "let tiny/0 soak for 1h")?.clone();
        (soak["state"] == "running").then_some(())
    };
    wait_for("the first wave soaks", soaking);
    let planned = machine.kiln(&["rollout", "show", "--steps"]).ok().out;
    assert_eq!(planned.matches(" soak for ").count(), 1, "{planned}");
    let [new] = servers_of(&machine, "v2")[..] else { panic!("one of three is new") };
    signal(new, 9);
    let ended = wait_for("it went back", || Some(last_rollout(&machine)).filter(|it| !it["ended"].is_null()));
    assert_eq!(ended["ended"]["outcome"], "went_back", "{ended:#}");
    let reason = ended["ended"]["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.starts_with("tiny/0: ") && reason.ends_with("while it soaked"), "{reason}");
    machine.wait_page("v1");
}

#[test]
fn a_rollout_that_does_not_go_back_by_itself_stops_and_is_tried_again() {
    let stays = "rollout \"blue_green\" {\n    auto_revert = false\n  }";
    let machine = serving_v1(1, stays);
    write_v2(&machine, 1, stays, ", MODE = \"exit\"");
    let up = machine.kiln(&["up"]).fails_with("failed, and stopped where it is");
    assert_eq!(up.code, 1);
    assert!(machine.kiln(&["status"]).ok().out.contains("waits for somebody to decide"));
    assert!(machine.kiln(&["rollout", "list"]).ok().out.contains("stopped"));
    machine.kiln(&["rollout", "pause"]).fails_with("failed and stopped");
    machine.wait_page("v1");
    let first = last_rollout(&machine)["id"].clone();
    machine.kiln(&["rollout", "resume"]).ok();
    assert_ne!(last_rollout(&machine)["id"], first, "it is another one");
    wait_for("it failed once more", || last_rollout(&machine)["halted"]["reason"].as_str().map(drop));
    machine.kiln(&["rollout", "abort"]).ok();
    assert_eq!(last_rollout(&machine)["ended"]["outcome"], "went_back");
    machine.wait_page("v1");
}
