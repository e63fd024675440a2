//! A canary that nobody asks: Kiln asks it itself, and what clients sent is counted apart from that to the request.

use std::time::Duration;

use serde_json::Value;

use crate::machine::{Machine, wait_for};

/// A share, an analysis that Kiln helps with, and somebody who lets it go on.
const HELPED: &str = "rollout \"canary\" {
    step { shift = \"30%\" }
    step { analyse = \"4m\" }
    step { approve = [] }

    analysis {
      error_rate = { worse_by = 0.01 }

      synthetic {
        path = \"/page\"
        rate = 200
      }
    }
  }";

fn record(machine: &Machine) -> Value {
    machine.json(&["rollout", "show"])["record"].clone()
}

/// How many requests of Kiln's own a side has had; none as well where no controller is there to tell.
fn made(machine: &Machine, side: &str) -> u64 {
    let ran = machine.command(&["rollout", "show", "--json"]).output().unwrap();
    let shown: Value = serde_json::from_slice(&ran.stdout).unwrap_or_default();
    shown["record"]["rollout"]["canaries"][0][side]["synthetic"].as_u64().unwrap_or(0)
}

#[test]
fn a_canary_without_traffic_is_judged_by_requests_that_kiln_makes_and_counts_apart() {
    let machine = Machine::new();
    machine.write_tiny("v1", 1, HELPED);
    machine.kiln(&["up"]).ok();
    machine.write_tiny("v2", 1, HELPED);
    machine.kiln(&["up", "--detach"]).ok();
    wait_for("the receipt begins", || record(&machine)["receipt"]["from_ms"].is_u64().then_some(()));
    wait_for("it asks both", || {
        (made(&machine, "canary") > 0 && made(&machine, "baseline") > 0).then_some(())
    });
    let mut sent = 0;
    for _ in 0..20 {
        machine.get("/page").unwrap();
        sent += 1;
    }
    wait_for("the analysis passes", || {
        let record = record(&machine);
        assert_eq!(record["rollout"]["going_back"], Value::Null, "{record:#}");
        (record["analyses"][0]["verdict"] == "pass").then_some(())
    });
    // At this rate two looks see the same only once it has stopped.
    wait_for("it stops with the step", || {
        let before = made(&machine, "canary");
        std::thread::sleep(Duration::from_millis(300));
        (made(&machine, "canary") == before).then_some(())
    });
    let shown = machine.kiln(&["rollout", "show"]).ok().out;
    assert!(shown.contains("of them Kiln's own") && shown.contains("were Kiln's own"), "{shown}");
    for _ in 0..20 {
        machine.get("/page").unwrap();
        sent += 1;
    }
    machine.kiln(&["rollout", "promote"]).ok();
    let ended = wait_for("the receipt is written", || {
        Some(record(&machine)).filter(|record| record["receipt"]["until_ms"].is_u64())
    });
    assert_eq!(ended["rollout"]["ended"]["outcome"], "completed", "{ended:#}");
    assert!(ended["analyses"][0]["synthetic"].as_u64() > Some(100), "{ended:#}");
    let counts = ended["receipt"]["requests"].as_array().unwrap();
    let sum = |what: &str| counts.iter().map(|it| it[what].as_u64().unwrap_or(0)).sum::<u64>();
    assert_eq!((sum("served"), sum("lost")), (sent, 0), "{ended:#}");
}

#[test]
fn a_bad_canary_without_traffic_goes_back_by_itself() {
    let machine = Machine::new();
    machine.write_tiny("v1", 1, HELPED);
    machine.kiln(&["up"]).ok();
    machine.write_tiny("v2", 1, HELPED);
    machine.edit_stack("VERSION = \"v2\"", "VERSION = \"v2\", MODE = \"faulty\"");
    machine.command(&["up"]).output().unwrap();
    let record = record(&machine);
    assert_eq!(record["rollout"]["ended"]["outcome"], "went_back", "{record:#}");
    assert_eq!(record["analyses"][0]["verdict"], "fail", "{record:#}");
}

#[test]
fn each_side_gets_its_count_once_though_edge_and_controller_are_killed() {
    // So small a margin that these few can't tell.
    let helped = HELPED
        .replace("worse_by = 0.01", "worse_by = 0.0001")
        .replace("rate = 200", "rate = 50\n        count = 200");
    let machine = Machine::new();
    machine.write_tiny("v1", 1, &helped);
    machine.kiln(&["up"]).ok();
    machine.write_tiny("v2", 1, &helped);
    machine.kiln(&["up", "--detach"]).ok();
    wait_for("it has begun", || (made(&machine, "canary") > 10).then_some(()));
    machine.kill("edge");
    wait_for("the next edge goes on", || (made(&machine, "canary") > 60).then_some(()));
    machine.kill("controller");
    wait_for("each side has had its count", || {
        let sides = ["canary", "baseline"].map(|side| made(&machine, side));
        assert!(sides.iter().all(|made| *made <= 200), "{sides:?}");
        (sides == [200, 200]).then_some(())
    });
    machine.kiln(&["rollout", "abort"]).ok();
}
