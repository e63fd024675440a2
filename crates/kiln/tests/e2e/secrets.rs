//! A secret that changes replaces those that read it, and shows nowhere.

use std::collections::BTreeMap;

use crate::machine::Machine;

/// Two services beside `tiny`, each with a secret of its own.
fn write_stack(machine: &Machine) {
    machine.write_tiny("v1", 1, "secrets = { \"/run/secrets/a\" = secret.a }");
    let stack = std::fs::read_to_string(machine.stack().join("stack.hcl")).unwrap();
    let more = r#"
secret "a" {
  file = "secrets/a"
}

secret "b" {
  file = "secrets/b"
}

service "other" {
  image   = image.tiny
  secrets = { "/run/secrets/b" = secret.b }

  port "http" {
    number = 8080
  }
}
"#;
    machine.write("stack.hcl", stack + more);
}

fn instances(machine: &Machine) -> BTreeMap<String, String> {
    let healthy = machine.instances().into_iter().filter(|instance| instance["state"] != "warm");
    let text = |instance: &serde_json::Value, key: &str| instance[key].as_str().unwrap().to_owned();
    healthy.map(|instance| (text(&instance, "service"), text(&instance, "id"))).collect()
}

#[test]
fn a_changed_secret_replaces_only_the_instances_that_read_it_and_is_never_shown() {
    let machine = Machine::new();
    machine.write("secrets/a", "first-hush\n");
    machine.write("secrets/b", "other-hush\n");
    write_stack(&machine);
    machine.kiln(&["up"]).ok();
    let before = instances(&machine);

    machine.write("secrets/a", "second-hush\n");
    let plan = machine.kiln(&["plan"]).ok().out;
    assert!(plan.contains("service.tiny will be replaced") && plan.contains("secret"), "{plan}");
    assert!(!plan.contains("service.other will"), "{plan}");
    let up = machine.kiln(&["up"]).ok();
    let now = instances(&machine);
    assert_ne!(now["tiny"], before["tiny"], "it read the secret");
    assert_eq!(now["other"], before["other"], "it did not");

    let mut said = plan + &up.out + &up.err;
    for words in
        [&["events", "--all", "--json"][..], &["status", "--json"], &["release", "show", "2"], &["ps"]]
    {
        said += &machine.kiln(words).ok().out;
    }
    assert!(!said.contains("hush"), "{said}");
    // Nor in what is kept beside the sealed store, in the open.
    let found =
        std::process::Command::new("grep").args(["-rl", "-hush"]).arg(machine.state()).output().unwrap();
    assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
    // The value of the revision before is kept for the way back to it.
    machine.kiln(&["rollback"]).ok();
}
