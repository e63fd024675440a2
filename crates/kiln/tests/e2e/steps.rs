//! What a stack puts between the moves of its rollouts.

use serde_json::Value;

use crate::machine::Machine;
use crate::record::assert_went_back;

/// Without arguments it serves, and never ends.
const SERVES: &str = "[\"/tiny\"]";

/// A command that prints this and exits with a code.
fn says(text: &str, code: u8) -> String {
    format!("[\"/tiny\", \"{text}\", \"{code}\"]")
}

/// Deploys a version with what its migration and its check run, and returns how its rollout went.
fn deploy(machine: &Machine, version: &str, migrate: &str, check: &str) -> Value {
    // Who ends has all the time that a loaded machine takes.
    let timeout = if check == SERVES { "1s" } else { "1m" };
    let steps = format!(
        "rollout \"blue_green\" {{
    step {{ run = job.migrate }}
    step {{
      check {{
        exec    = {check}
        timeout = \"{timeout}\"
      }}
    }}
    step {{ shift = \"100%\" }}
    step {{ run = job.smoke }}
  }}"
    );
    machine.write_tiny(version, 1, &steps);
    let smoke = if version == "broken" { 1 } else { 0 };
    let jobs = format!(
        "job \"migrate\" {{\n  image   = image.tiny\n  command = {migrate}\n}}\n\n\
         job \"smoke\" {{\n  image   = image.tiny\n  command = [\"/tiny\", \"smoke of {version}\", \"{smoke}\"]\n}}\n"
    );
    machine.write("jobs.hcl", jobs);
    // It follows the rollout to its end, which comes by itself; how it ends is for the test to say.
    machine.command(&["up"]).output().unwrap();
    machine.json(&["rollout", "show"])["record"].clone()
}

/// Whether the step began whose text is this.
fn has_begun(record: &Value, text: &str) -> bool {
    let steps = record["rollout"]["steps"].as_array().unwrap();
    let found = steps.iter().find(|step| step["text"] == text);
    found.unwrap_or_else(|| panic!("no step `{text}`: {record:#}"))["started_ms"].is_u64()
}

#[test]
fn jobs_and_checks_run_where_steps_say_and_one_that_fails_or_hangs_takes_the_rollout_back() {
    let machine = Machine::new();
    let (migrated, looked) = (says("migrated", 0), says("looked", 0));
    let first = deploy(&machine, "v1", &migrated, &looked);
    assert_eq!(first["rollout"]["ended"]["outcome"], "completed", "{first:#}");
    // Nothing of the job changed, and it runs again: the service did.
    let second = deploy(&machine, "v2", &migrated, &looked);
    assert_eq!(second["rollout"]["ended"]["outcome"], "completed", "{second:#}");
    let steps = machine.kiln(&["rollout", "show", "--steps"]).ok().out;
    let at = |text: &str| steps.find(text).unwrap_or_else(|| panic!("no `{text}` in {steps}"));
    assert!(at("run migrate") < at("create tiny/0") && at("is healthy") < at("run tiny-check-1"), "{steps}");
    assert!(at("run tiny-check-1") < at("send 100%") && at("send 100%") < at("run smoke"), "{steps}");

    let failed = deploy(&machine, "v3", &says("no such table", 3), &looked);
    assert_went_back(&failed, "migrate/0: exited with code 3");
    assert!(has_begun(&failed, "run migrate") && !has_begun(&failed, "create tiny/0"), "{failed:#}");
    let shown = machine.kiln(&["rollout", "show"]).ok().out;
    assert!(shown.contains("no such table"), "what it printed is there: {shown}");

    let hangs = deploy(&machine, "v4", &migrated, SERVES);
    assert_went_back(&hangs, "job tiny-check-1 did not end within 1s");
    assert!(!has_begun(&hangs, "send 100% of the requests to tiny/0"), "{hangs:#}");

    let broken = deploy(&machine, "broken", &migrated, &looked);
    assert_went_back(&broken, "smoke/0: exited with code 1");
    machine.wait_page("v2");
}
