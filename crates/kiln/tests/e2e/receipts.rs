//! Does the receipt of a rollout agree with who sent the requests, to the request?

use serde_json::Value;

use crate::load::{Load, Report};
use crate::machine::{Machine, wait_for};
use crate::upload::Upload;

/// A canary that gets a third of the requests, and as long as it wants to end what it began.
const CANARY: &str = "rollout \"canary\" {
    steps          = [\"30%\"]
    drain_deadline = \"10m\"

    analysis {
      within     = \"4m\"
      error_rate = { worse_by = 0.02 }
    }
    match {
      header = \"X-Version\"
      equals = \"next\"
    }
  }";

/// The record of the last rollout, once there is something about it.
#[track_caller]
fn record_with(machine: &Machine, what: &str, is_there: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, || Some(machine.json(&["rollout", "show"])["record"].clone()).filter(&is_there))
}

/// Whether the step that runs is told in these words.
fn runs(steps: &Value, words: &str) -> bool {
    let mut steps = steps.as_array().into_iter().flatten();
    steps.any(|step| {
        step["state"] == "running" && step["text"].as_str().is_some_and(|text| text.contains(words))
    })
}

/// Begins the rollout of the second revision, and waits until the requests before it were counted.
fn begin(machine: &Machine) {
    machine.kiln(&["up", "--detach"]).ok();
    record_with(machine, "the counts at its start are written down", |record| {
        record["rollout"]["to"] == 2 && record["receipt"]["from_ms"].is_u64()
    });
}

/// Ends the load while the upload keeps the rollout from ending, then the upload; returns what was sent, and the record.
fn end(machine: &Machine, load: Load, upload: Upload, outcome: &str) -> (Report, Value) {
    let report = load.stop();
    wait_for("the edge has counted the end of each", || (machine.requests().in_flight == 1).then_some(()));
    // One in twenty that a faulty canary answers is a 500, and this may be that one.
    assert!(upload.end().starts_with("HTTP/1.1 "));
    let record = record_with(machine, "the counts at its end are written down", |record| {
        record["rollout"]["ended"]["outcome"] == outcome && record["receipt"]["until_ms"].is_u64()
    });
    (report, record)
}

/// What the receipt says of a revision: how many requests it served, and how many were lost.
fn served(record: &Value, revision: u64) -> (u64, u64) {
    let all = record["receipt"]["requests"].as_array().expect("the counts are known").iter();
    let own = all.filter(|it| it["revision"] == revision);
    own.map(|it| (it["served"].as_u64().unwrap(), it["lost"].as_u64().unwrap())).next().unwrap_or_default()
}

/// How many requests a version answered well, by the load generator's own count.
fn answered(report: &Report, version: &str) -> u64 {
    report.answers.iter().filter(|it| it.version == version).count() as u64
}

#[test]
fn the_receipt_of_a_rollout_agrees_with_the_load_generator_to_the_request() {
    let machine = Machine::new();
    let patient = "rollout \"blue_green\" {\n    drain_deadline = \"10m\"\n  }";
    machine.write_tiny("v1", 2, patient);
    machine.kiln(&["up"]).ok();
    machine.wait_page("v1");
    // The rollout can't end before this has: what the generator sends meanwhile is all that comes.
    let upload = Upload::begin(&machine);
    machine.write_tiny("v2", 2, patient);
    // Both revisions serve some of it, as a rule; the numbers agree in any case.
    machine.edit_stack("VERSION = \"v2\"", "VERSION = \"v2\", START_MS = \"700\"");
    begin(&machine);
    let load = Load::start(&machine.plan(300));
    machine.kill("controller");
    record_with(&machine, "the old instances drain", |record| runs(&record["rollout"]["steps"], "drain"));
    let (report, record) = end(&machine, load, upload, "completed");
    report.assert_none_lost();
    println!("v1 answered {} and an upload, v2 {}", answered(&report, "v1"), answered(&report, "v2"));
    assert_eq!(served(&record, 1), (answered(&report, "v1") + 1, 0), "{record}");
    assert_eq!(served(&record, 2), (answered(&report, "v2"), 0), "{record}");
    assert!(record["receipt"]["longest_drain_ms"].is_u64(), "{record}");
    let shown = machine.kiln(&["rollout", "show"]).ok().out;
    assert!(shown.contains("Requests meanwhile") && shown.contains("longest drain"), "{shown}");
}

#[test]
fn the_receipt_of_a_good_canary_agrees_with_the_load_generator() {
    let machine = Machine::new();
    machine.write_tiny("v1", 2, CANARY);
    machine.kiln(&["up"]).ok();
    machine.wait_page("v1");
    let upload = Upload::begin(&machine);
    machine.write_tiny("v2", 2, CANARY);
    begin(&machine);
    let load = Load::start(&machine.plan(600));
    record_with(&machine, "the old instances drain", |record| runs(&record["rollout"]["steps"], "drain"));
    let (report, record) = end(&machine, load, upload, "completed");
    report.assert_none_lost();
    assert_eq!(record["analyses"][0]["verdict"], "pass", "{record:#}");
    // The baseline is of the first revision, too.
    assert_eq!(served(&record, 1), (answered(&report, "v1") + 1, 0), "{record}");
    assert_eq!(served(&record, 2), (answered(&report, "v2"), 0), "{record}");
}

#[test]
fn the_receipt_of_a_canary_that_goes_back_agrees_with_the_load_generator() {
    let machine = Machine::new();
    machine.write_tiny("v1", 2, CANARY);
    machine.kiln(&["up"]).ok();
    machine.wait_page("v1");
    machine.write_tiny("v2", 2, CANARY);
    machine.edit_stack("VERSION = \"v2\"", "VERSION = \"v2\", MODE = \"faulty\"");
    begin(&machine);
    // Not before the edge has the table that says so.
    record_with(&machine, "the canary gets requests", |record| runs(&record["rollout"]["steps"], "compare"));
    // The canary has it, and can't be removed before it ends.
    let upload = Upload::begin_with(&machine, "X-Version: next\r\n");
    let load = Load::start(&machine.plan(600));
    record_with(&machine, "the canary drains", |record| runs(&record["way_back"]["steps"], "drain"));
    let (report, record) = end(&machine, load, upload, "went_back");
    let bad = report.losses.iter().filter(|loss| loss.what.contains("500")).count();
    assert_eq!(
        bad,
        report.losses.len(),
        "nothing is lost but what the canary answered badly: {:#?}",
        report.losses
    );
    assert_eq!(served(&record, 1), (answered(&report, "v1"), 0), "{record}");
    assert_eq!(served(&record, 2), (answered(&report, "v2") + bad as u64 + 1, 0), "{record}");
}
