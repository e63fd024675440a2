//! What applications do to the machine and to their users: a clear error or a clean recovery, and nothing is lost.

use std::fs;
use std::process::{Command, Stdio};

use crate::machine::{Machine, Ran, wait_for};
use crate::processes::servers;

/// A first good deploy, then a bad one: it must go back by itself and say why and what to do.
#[track_caller]
fn goes_back(more: &str, env: &str, says: &[&str]) -> Ran {
    let machine = Machine::new();
    machine.write_tiny("good", 2, "");
    machine.kiln(&["up"]).ok();
    let quick = "rollout \"blue_green\" {\n    progress_deadline = \"5s\"\n  }";
    machine.write_tiny("bad", 2, &format!("{quick}\n{more}"));
    machine.edit_stack("VERSION = \"bad\"", &format!("VERSION = \"bad\", {env}"));
    machine.edit_stack("interval = \"1s\"", "interval = \"1s\"\n    startup  = \"1s\"");
    let ran = machine.kiln(&["up"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    let missing: Vec<_> = says.iter().filter(|text| !ran.err.contains(**text)).collect();
    assert!(missing.is_empty(), "{missing:?} is not in\n{}", ran.err);
    assert!(ran.err.contains("tiny/dev is back at #1") && ran.err.contains("hint:"), "{}", ran.err);
    machine.wait_page("good");
    machine.kiln(&["status"]).ok();
    ran
}

#[test]
fn an_instance_that_exits_at_once_fails_the_rollout_which_goes_back() {
    goes_back("", "MODE = \"exit\"", &["exited with code 3", "printed:", "tiny: asked to exit"]);
}

#[test]
fn an_instance_that_never_becomes_healthy_fails_the_rollout_which_goes_back() {
    goes_back("", "MODE = \"sick\"", &["healthy", "500"]);
}

#[test]
fn a_command_that_does_not_exist_is_named() {
    goes_back("command = [\"/no/such/program\"]", "MODE = \"\"", &["/no/such/program"]);
}

#[test]
fn an_instance_that_needs_to_write_to_its_root_is_pointed_to_scratch() {
    goes_back("", "MODE = \"needs\"", &["Read-only file system", "hint:  ", "`scratch`"]);
}

#[test]
fn an_instance_that_takes_too_much_memory_at_once_is_told_so() {
    let says = ["used more memory than its limit", "hint:  ", "`memory`"];
    goes_back("resources {\n    memory = \"32MiB\"\n  }", "MODE = \"hog\"", &says);
}

#[test]
fn an_instance_that_runs_out_of_memory_is_replaced_and_the_events_say_why() {
    let machine = Machine::new();
    machine.write_tiny("v1", 2, "resources {\n    memory = \"32MiB\"\n  }");
    machine.kiln(&["up"]).ok();
    let before = machine.instances();
    // Never answered: the kernel ends the server while it takes more and more.
    machine.get("/hog").unwrap_err();
    let ids = |instances: &[serde_json::Value]| -> Vec<String> {
        let healthy = instances.iter().filter(|instance| instance["state"] == "healthy");
        healthy.map(|instance| instance["id"].as_str().unwrap().to_owned()).collect()
    };
    let now = wait_for("another instance is healthy", || {
        let now = machine.instances();
        (ids(&now).len() == 2 && ids(&now) != ids(&before)).then_some(now)
    });
    let kept = ids(&now).iter().filter(|id| ids(&before).contains(id)).count();
    assert_eq!(kept, 1, "the other instance was left alone");
    let events = machine.kiln(&["events"]).ok().out;
    assert!(events.contains("used more memory than its limit and was ended"), "{events}");
}

#[test]
fn an_instance_that_ignores_sigterm_is_killed_after_its_grace() {
    let machine = Machine::new();
    machine.write_tiny("v1", 1, "stop {\n    grace = \"1s\"\n  }");
    machine.edit_stack("VERSION = \"v1\"", "VERSION = \"v1\", MODE = \"deaf\"");
    machine.kiln(&["up"]).ok();
    machine.kiln(&["down"]).ok();
    assert!(machine.get("/page").is_err(), "nothing answers any more");
    assert!(crate::processes::servers(&machine).is_empty(), "nothing is left of it");
}

#[test]
fn a_fork_bomb_is_bounded_and_can_be_taken_down() {
    let machine = Machine::new();
    let bounds = "resources {\n    pids = 64\n    cpu = 0.2\n  }\n\n  rollout \"blue_green\" {\n    progress_deadline = \"3s\"\n  }";
    machine.write_tiny("v1", 1, bounds);
    machine.edit_stack("VERSION = \"v1\"", "VERSION = \"v1\", MODE = \"bomb\"");
    machine.kiln(&["up"]).fails_with("healthy");
    machine.kiln(&["down"]).ok();
    assert!(crate::processes::servers(&machine).is_empty(), "nothing is left of it");
}

#[test]
fn a_write_to_the_root_is_refused_by_the_kernel_and_the_log_hints_at_scratch() {
    let machine = Machine::new();
    machine.write_tiny("v1", 1, "");
    machine.edit_stack("VERSION = \"v1\"", "VERSION = \"v1\", MODE = \"write\"");
    machine.kiln(&["up"]).ok();
    let logs = wait_for("the log tells of it", || {
        let logs = machine.kiln(&["logs", "tiny"]).ok();
        logs.out.contains("Read-only file system").then_some(logs)
    });
    assert!(logs.err.contains("`scratch`"), "{}", logs.err);
}

#[test]
fn what_kiln_and_its_instances_may_open_does_not_depend_on_the_shell_that_started_it() {
    let machine = Machine::new();
    machine.write_tiny("v1", 1, "");
    let up = machine.command(&["up"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -S -n 300; ulimit -S -s 1024; exec \"$@\"", "sh"]);
    shell.arg(up.get_program()).args(up.get_args()).current_dir(machine.stack());
    shell.env("KILN_STATE", machine.state()).stdin(Stdio::null());
    let up = shell.output().unwrap();
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let limit = |pid: i32, name: &str| -> Vec<String> {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().take(2).map(str::to_owned).collect()
    };
    // Only soft ones: root of a container may be unable to raise what is hard.
    for process in ["host", "edge", "controller"] {
        let [soft, hard] = &limit(machine.pid(process), "Max open files")[..] else { panic!("two limits") };
        assert_eq!(soft, hard, "{process}");
    }
    let [server] = servers(&machine)[..] else { panic!("one instance") };
    assert_ne!(limit(server, "Max open files")[0], "300");
    assert_eq!(limit(server, "Max stack size")[0], "8388608");
}
