//! Does the same release come into another environment, with what that environment decides, and without its folder?

use serde_json::Value;

use crate::machine::{Machine, get, wait_for};

/// Two environments with a route each; the version that a page shows is made of the release's and the environment's part.
const ENVIRONMENTS: &str = r#"
variable "colour" {
  default = "grey"
}

variable "place" {
  scope = "environment"
}

environment "dev" {
  variables = { place = "dev" }
}

environment "staging" {
  variables = { place = "staging" }
}

secret "a" {
  file = "secrets/a"
}
"#;

fn write_stack(machine: &Machine, version: &str) {
    machine.write_tiny(
        &format!("{version}-${{var.colour}}-${{var.place}}"),
        1,
        "secrets = { \"/a\" = secret.a }",
    );
    machine.edit_stack(
        "to     = service.tiny.http",
        "host   = \"${var.place}.test\"\n  to     = service.tiny.http",
    );
    let stack = std::fs::read_to_string(machine.stack().join("stack.hcl")).unwrap();
    machine.write("stack.hcl", stack + ENVIRONMENTS);
}

fn wait_page(machine: &Machine, env: &str, version: &str) {
    wait_for(&format!("{env} to serve {version}"), || {
        let page = get(machine.address, &format!("{env}.test"), "/").ok()?;
        page.starts_with(version).then_some(())
    });
}

fn release(machine: &Machine, env: &str) -> Value {
    machine.json(&["release", "show", "--stack", "tiny", "--env", env])["revision"]["release"].clone()
}

#[test]
fn a_release_is_promoted_by_its_digest_without_its_folder_and_goes_back() {
    let machine = Machine::new();
    let promote = |more: &[&str]| {
        machine.kiln(&[&["promote", "--stack", "tiny", "--from", "dev", "--to", "staging"], more].concat())
    };
    machine.write("secrets/a", "hush\n");
    write_stack(&machine, "v1");
    machine.kiln(&["up", "--var", "colour=red"]).ok();
    wait_page(&machine, "dev", "v1-red-dev ");

    // What the folder holds by now is of no interest, but for the value of a secret that the environment does not have.
    std::fs::remove_file(machine.stack().join("tiny")).unwrap();
    std::fs::remove_file(machine.stack().join("stack.hcl")).unwrap();
    promote(&[]).fails_with("has no value of secret `a`").fails_with("-C DIR");
    promote(&["--var", "colour=blue"]).fails_with("variable colour is sealed in the release");
    machine.write("stack.hcl", "stack \"tiny\" {}\n");
    promote(&[]).ok();
    wait_page(&machine, "staging", "v1-red-staging ");
    assert_eq!(release(&machine, "staging"), release(&machine, "dev"), "the same bytes");
    let again = promote(&["--json"]).ok();
    assert!(again.out.contains("\"unchanged\""), "{}", again.out);
    let history = machine.kiln(&["events", "--all"]).ok().out;
    assert!(history.contains("a promotion from dev began"), "{history}");

    write_stack(&machine, "v2");
    machine.kiln(&["up"]).ok();
    std::fs::remove_dir_all(machine.stack().join("secrets")).unwrap();
    let plan = promote(&["--plan", "--json"]).ok();
    assert!(plan.out.contains("v2-grey-staging"), "{}", plan.out);
    wait_page(&machine, "staging", "v1-red-staging ");
    promote(&[]).ok();
    wait_page(&machine, "staging", "v2-grey-staging ");
    assert_eq!(release(&machine, "staging"), release(&machine, "dev"));
    machine.kiln(&["rollback", "--env", "staging"]).ok();
    wait_page(&machine, "staging", "v1-red-staging ");
}

/// The name under which the commands of this test are logged.
fn me(machine: &Machine) -> String {
    let rollouts = machine.json(&["rollout", "list"]);
    rollouts["rollouts"][0]["rollout"]["actor"].as_str().expect("an actor").to_owned()
}

#[test]
fn an_environment_with_gates_lets_in_what_somebody_approved() {
    let machine = Machine::new();
    machine.write("secrets/a", "hush\n");
    write_stack(&machine, "v1");
    machine.kiln(&["up"]).ok();
    let gates = format!(
        "variables = {{ place = \"staging\" }}\n  promote {{\n    from = \"dev\"\n    approve = [\"{}\"]\n  }}",
        me(&machine)
    );
    machine.edit_stack("variables = { place = \"staging\" }", &gates);
    machine.kiln(&["up", "--env", "staging"]).fails_with("dev must be moved to it first");
    machine.kiln(&["up"]).ok();
    let promote = ["promote", "--from", "dev", "--to", "staging"];
    machine.kiln(&promote).fails_with("must approve it").fails_with("kiln release approve");
    machine.kiln(&["up", "--env", "staging"]).fails_with("must approve it");

    // Whoever waits is told for what, and goes on once it is so.
    let digest = release(&machine, "dev").as_str().expect("a digest").to_owned();
    let approve = || {
        machine.kiln(&["release", "approve", &digest, "--env", "staging"]).ok();
    };
    machine.kiln_until(&[&promote[..], &["--wait"]].concat(), "must approve it", approve).ok();
    wait_page(&machine, "staging", "v1-grey-staging ");
    assert_eq!(release(&machine, "staging"), release(&machine, "dev"));

    machine.edit_stack("v1-", "v2-");
    machine.kiln(&["up", "--env", "staging", "--break-glass", "the site is down"]).ok();
    wait_page(&machine, "staging", "v2-grey-staging ");
    let history = machine.kiln(&["events", "--all"]).ok().out;
    assert!(history.contains("the site is down") && history.contains("approved it"), "{history}");
    machine.kiln(&["rollback", "--env", "staging"]).ok();
    wait_page(&machine, "staging", "v1-grey-staging ");
}

#[test]
fn an_environment_with_a_time_to_live_ends_by_itself_with_all_it_owns() {
    let machine = Machine::new();
    machine.write_tiny("v1", 1, "");
    machine.kiln(&["up", "--env", "pr-42", "--ttl", "8h"]).ok();
    let ends = machine.kiln(&["status", "--env", "pr-42"]).ok().out;
    assert!(ends.contains("ends by itself in"), "{ends}");
    // Shorter from here on, and whoever is killed meanwhile knows it from the log. On a slow machine it may end before the command
    // has told of it.
    let _ = machine.kiln(&["up", "--env", "pr-42", "--ttl", "1s"]);
    machine.kill("controller");
    wait_for("the environment to end", || {
        let status = machine.json(&["status"]);
        status["environments"].as_array().is_some_and(Vec::is_empty).then_some(())
    });
    let history = machine.kiln(&["events", "--all"]).ok().out;
    assert!(history.contains("its time is over"), "{history}");
}
