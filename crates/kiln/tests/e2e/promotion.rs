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
