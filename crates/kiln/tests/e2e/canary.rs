//! Is a bad canary caught before it hurts, and does a good one get through, without anybody watching?

use serde_json::Value;

use crate::load::{Load, Report};
use crate::machine::{Machine, wait_for};
use crate::record::assert_went_back;

/// Half as much as the other tests' load: three groups share the machine.
const RATE: u32 = 1000;

/// A third of the requests: the canary and its baseline get as much as the stable instances.
fn compared_by(metric: &str) -> String {
    format!(
        "rollout \"canary\" {{
    steps = [\"30%\"]

    analysis {{
      within = \"4m\"
      {metric}
    }}
  }}"
    )
}

fn last_rollout(machine: &Machine) -> Value {
    machine.json(&["rollout", "show"])["record"].clone()
}

/// Deploys a good first version and then, under load, one in this mode; returns how the second rollout went.
fn try_out(mode: &str, canary: &str) -> (Machine, Report, Value) {
    let machine = Machine::new();
    machine.write_tiny("v1", 2, canary);
    machine.kiln(&["up"]).ok();
    machine.wait_page("v1");
    let load = Load::start(&machine.plan(RATE));
    machine.write_tiny("v2", 2, canary);
    machine.edit_stack("VERSION = \"v2\"", &format!("VERSION = \"v2\", MODE = \"{mode}\""));
    // It follows the rollout to its end, which comes by itself; how it ends is for the test to say.
    machine.command(&["up"]).output().unwrap();
    let record = last_rollout(&machine);
    assert_eq!(record["rollout"]["to"], 2, "{record:#}");
    (machine, load.stop(), record)
}

#[test]
fn a_good_canary_passes_and_takes_over_without_losing_a_request() {
    let (machine, report, record) = try_out("good", &compared_by("error_rate = { worse_by = 0.05 }"));
    report.assert_none_lost();
    assert_eq!(record["rollout"]["ended"]["outcome"], "completed", "{record:#}");
    let verdict = &record["analyses"][0];
    assert_eq!(verdict["verdict"], "pass", "{record:#}");
    assert!(verdict["metrics"][0]["canary"]["samples"].as_u64().unwrap() > 20, "{verdict:#}");
    machine.wait_page("v2");
    // What was compared with is gone.
    wait_for("two instances serve", || {
        let serving =
            machine.instances().into_iter().filter(|found| found["weight"].as_u64() > Some(0)).count();
        (serving == 2).then_some(())
    });
}

#[test]
fn a_canary_with_five_percent_errors_goes_back_by_itself() {
    let (machine, report, record) = try_out("faulty", &compared_by("error_rate = { worse_by = 0.01 }"));
    assert_went_back(&record, "worse than its baseline");
    assert_eq!(record["analyses"][0]["verdict"], "fail", "{record:#}");
    machine.wait_page("v1");
    let others: Vec<_> = report.losses.iter().filter(|loss| !loss.what.contains("500")).collect();
    assert!(others.is_empty(), "nothing is lost but what the canary answered badly: {others:#?}");
}

#[test]
fn a_canary_that_no_longer_finds_its_pages_goes_back_by_itself() {
    let (machine, report, record) = try_out("lost", &compared_by("client_errors = { worse_by = \"50%\" }"));
    assert_went_back(&record, "requests were answered with 400 to 499");
    let metric = &record["analyses"][0]["metrics"][0];
    assert_eq!(
        (&metric["metric"], &metric["verdict"]),
        (&"client errors".into(), &"fail".into()),
        "{record:#}"
    );
    machine.wait_page("v1");
    let others: Vec<_> = report.losses.iter().filter(|loss| !loss.what.contains("404")).collect();
    assert!(others.is_empty(), "nothing is lost but what the canary answered badly: {others:#?}");
}

#[test]
fn a_canary_with_a_slow_tail_goes_back_by_itself() {
    let canary = compared_by("latency_p99 = { worse_by = \"300ms\" }");
    let (_machine, report, record) = try_out("slow", &canary);
    assert_went_back(&record, "p99");
    report.assert_none_lost();
}

#[test]
fn a_canary_that_crashes_again_and_again_goes_back_by_itself() {
    let (machine, report, record) = try_out("exit", &compared_by("error_rate = { worse_by = 0.05 }"));
    assert_went_back(&record, "exited with code 3; new instances ended 3 times");
    report.assert_none_lost();
    machine.wait_page("v1");
}

#[test]
fn an_analysis_without_requests_says_that_it_will_never_tell() {
    let machine = Machine::new();
    let canary = compared_by("error_rate = { worse_by = 0.05 }");
    machine.write_tiny("v1", 2, &canary);
    machine.kiln(&["up"]).ok();
    machine.write_tiny("v2", 2, &canary);
    machine.kiln(&["up", "--detach"]).ok();
    wait_for("the traffic is known", || {
        let outlook = last_rollout(&machine)["rollout"]["canaries"][0]["outlook"].clone();
        (outlook["per_minute"] == 0 && outlook["until_ms"].is_u64()).then(|| {
            assert_eq!(outlook["undecided"], serde_json::json!(["error rate"]), "{outlook}");
            assert!(outlook["needed_ms"].is_null(), "{outlook}");
        })
    });
    let shown = machine.kiln(&["rollout", "show"]).ok().out;
    assert!(
        shown.contains("tiny: error rate: no requests come: never at this traffic; inconclusive in"),
        "{shown}"
    );
    machine.kiln(&["rollout", "abort"]).ok();
}

#[test]
fn an_analysis_without_requests_takes_its_time_again_and_then_does_what_the_stack_says() {
    let canary = |then: &str| {
        format!(
            "rollout \"canary\" {{
    steps = [\"30%\"]

    analysis {{
      error_rate   = {{ worse_by = 0.05 }}
      within       = \"1s\"
      inconclusive = \"extend\"
      extend_limit = 2
      then         = \"{then}\"
    }}
  }}"
        )
    };
    let machine = Machine::new();
    machine.write_tiny("v1", 1, &canary("stop"));
    machine.kiln(&["up"]).ok();
    for (version, then, outcome) in [("v2", "stop", "went_back"), ("v3", "continue", "completed")] {
        machine.write_tiny(version, 1, &canary(then));
        let planned = machine.kiln(&["plan"]).ok().out;
        assert!(planned.contains("and again twice"), "{planned}");
        machine.command(&["up"]).output().unwrap();
        let record = last_rollout(&machine);
        assert_eq!(record["rollout"]["ended"]["outcome"], outcome, "{record:#}");
        assert_eq!(record["analyses"][0]["verdict"], "inconclusive", "{record:#}");
        let shown = machine.kiln(&["rollout", "show"]).ok().out;
        assert!(shown.contains("extended twice, for want of requests"), "{shown}");
    }
    let events = machine.kiln(&["events"]).ok().out;
    assert_eq!(events.matches("its analysis takes its time again").count(), 4, "{events}");
}

#[test]
fn a_canary_that_leaks_until_the_kernel_ends_it_goes_back_by_itself() {
    let held = "rollout \"canary\" {
    steps = [\"30%\"]
    hold  = \"1h\"
  }

  resources {
    memory = \"32MiB\"
  }";
    let (machine, _, record) = try_out("leak", held);
    assert_went_back(&record, "used more memory than its limit");
    machine.wait_page("v1");
}

#[test]
fn a_canary_waits_for_who_may_approve_and_goes_on_from_there() {
    let machine = Machine::new();
    let canary = |by: &str| {
        format!(
            "rollout \"canary\" {{
    step {{
      shift = \"50%\"
    }}
    step {{
      hold = \"1h\"
    }}
    step {{
      approve = [{by}]
    }}
  }}"
        )
    };
    machine.write_tiny("v1", 2, &canary("\"nobody-here\""));
    machine.kiln(&["up"]).ok();
    machine.write_tiny("v2", 2, &canary("\"nobody-here\""));
    machine.kiln(&["up", "--detach"]).ok();
    let running = |machine: &Machine| -> String {
        let steps = last_rollout(machine)["rollout"]["steps"].clone();
        let steps = steps.as_array().unwrap().clone();
        let running = steps.into_iter().find(|step| step["state"] == "running");
        running.map(|step| step["text"].as_str().unwrap().to_owned()).unwrap_or_default()
    };
    wait_for("it is held", || running(&machine).contains("hold").then_some(()));
    // Both versions serve, and neither of them alone.
    wait_for("the canary is asked", || machine.get("/page").unwrap().starts_with("v2").then_some(()));
    wait_for("the stable one is asked", || machine.get("/page").unwrap().starts_with("v1").then_some(()));
    machine.kiln(&["rollout", "promote"]).ok();
    wait_for("it waits for an approval", || running(&machine).contains("approval").then_some(()));
    machine.kiln(&["rollout", "promote"]).fails_with("waits for an approval by nobody-here");
    machine.kiln(&["rollout", "abort"]).ok();
    machine.wait_page("v1");
    machine.kiln(&["rollout", "promote"]).fails_with("no rollout is running");
    // Whoever names nobody lets anybody.
    machine.write_tiny("v3", 2, &canary(""));
    machine.kiln(&["up", "--detach"]).ok();
    for step in ["hold", "approval"] {
        wait_for(step, || running(&machine).contains(step).then_some(()));
        machine.kill("controller");
        wait_for("the next controller goes on", || {
            machine.command(&["rollout", "promote"]).output().unwrap().status.success().then_some(())
        });
    }
    wait_for("it takes over", || {
        (last_rollout(&machine)["rollout"]["ended"]["outcome"] == "completed").then_some(())
    });
    machine.wait_page("v3");
    // Going back is one switch, whatever the strategy.
    machine.kiln(&["rollback"]).ok();
    machine.wait_page("v1");
}
