//! What users do wrong, and what applications do to them: a clear error or a clean recovery, and nothing is lost.

use std::net::TcpListener;
use std::process::Command;

use crate::machine::{Machine, wait_for};

/// A first good deploy, then a bad one: it must go back by itself and say why.
#[track_caller]
fn goes_back(more: &str, env: &str, says: &str) {
    let machine = Machine::new();
    machine.write_tiny("good", 2, "");
    machine.kiln(&["up"]).ok();
    let quick = "rollout \"blue_green\" {\n    progress_deadline = \"5s\"\n  }";
    machine.write_tiny("bad", 2, &format!("{quick}\n{more}"));
    let stack = std::fs::read_to_string(machine.stack().join("stack.hcl")).unwrap();
    machine.write("stack.hcl", stack.replace("VERSION = \"bad\"", &format!("VERSION = \"bad\", {env}")));
    machine.kiln(&["up"]).fails_with(says);
    machine.wait_page("good");
    machine.kiln(&["status"]).ok();
}

#[test]
fn an_instance_that_exits_at_once_fails_the_rollout_which_goes_back() {
    goes_back("", "MODE = \"exit\"", "exited with code 3");
}

#[test]
fn an_instance_that_never_becomes_healthy_fails_the_rollout_which_goes_back() {
    goes_back("", "MODE = \"sick\"", "healthy");
}

#[test]
fn a_command_that_does_not_exist_is_named() {
    goes_back("command = [\"/no/such/program\"]", "MODE = \"\"", "/no/such/program");
}

#[test]
fn a_port_in_use_is_said_before_anything_is_created() {
    let machine = Machine::new();
    let _taken = TcpListener::bind(machine.address).unwrap();
    machine.write_tiny("v1", 1, "");
    machine.kiln(&["up"]).fails_with(&machine.address.port().to_string());
}

#[test]
fn an_instance_that_ignores_sigterm_is_killed_after_its_grace() {
    let machine = Machine::new();
    machine.write_tiny("v1", 1, "");
    let stack = std::fs::read_to_string(machine.stack().join("stack.hcl")).unwrap();
    let deaf = stack.replace("VERSION = \"v1\"", "VERSION = \"v1\", MODE = \"deaf\"");
    machine.write(
        "stack.hcl",
        deaf.replace("  port \"http\"", "  stop {\n    grace = \"1s\"\n  }\n\n  port \"http\""),
    );
    machine.kiln(&["up"]).ok();
    machine.kiln(&["down"]).ok();
    assert!(machine.get("/page").is_err(), "nothing answers any more");
}

#[test]
fn a_fork_bomb_is_bounded_and_can_be_taken_down() {
    let machine = Machine::new();
    let bounds = "resources {\n    pids = 64\n    cpu = 0.2\n  }\n\n  rollout \"blue_green\" {\n    progress_deadline = \"3s\"\n  }";
    machine.write_tiny("v1", 1, bounds);
    let stack = std::fs::read_to_string(machine.stack().join("stack.hcl")).unwrap();
    machine.write("stack.hcl", stack.replace("VERSION = \"v1\"", "VERSION = \"v1\", MODE = \"bomb\""));
    machine.kiln(&["up"]).fails_with("healthy");
    machine.kiln(&["down"]).ok();
}

#[test]
fn a_write_to_the_root_is_refused_by_the_kernel() {
    let machine = Machine::new();
    machine.write_tiny("v1", 1, "");
    let stack = std::fs::read_to_string(machine.stack().join("stack.hcl")).unwrap();
    machine.write("stack.hcl", stack.replace("VERSION = \"v1\"", "VERSION = \"v1\", MODE = \"write\""));
    machine.kiln(&["up"]).ok();
    wait_for("the log tells of it", || {
        machine.kiln(&["logs", "tiny"]).ok().out.contains("Read-only file system").then_some(())
    });
}

#[test]
fn two_stacks_that_want_one_route_are_told_apart() {
    let machine = Machine::new();
    machine.write_tiny("v1", 1, "");
    machine.kiln(&["up"]).ok();
    let other = std::fs::read_to_string(machine.stack().join("stack.hcl")).unwrap();
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::write(folder.path().join("stack.hcl"), other.replace("stack \"tiny\"", "stack \"other\""))
        .unwrap();
    std::fs::copy(machine.stack().join("tiny"), folder.path().join("tiny")).unwrap();
    let up = machine.command(&["up"]).current_dir(folder.path()).output().unwrap();
    assert!(!up.status.success());
    let said = String::from_utf8_lossy(&up.stderr).into_owned();
    assert!(said.contains("tiny/dev"), "the owner is named: {said}");
    machine.wait_page("v1");
}

#[test]
fn another_folder_needs_adopt_to_change_a_stack() {
    let machine = Machine::new();
    machine.write_tiny("v1", 1, "");
    machine.kiln(&["up"]).ok();
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::copy(machine.stack().join("tiny"), folder.path().join("tiny")).unwrap();
    let stack = std::fs::read_to_string(machine.stack().join("stack.hcl")).unwrap();
    std::fs::write(folder.path().join("stack.hcl"), stack.replace("\"v1\"", "\"v2\"")).unwrap();
    let up = |words: &[&str]| machine.command(words).current_dir(folder.path()).output().unwrap();
    let refused = up(&["up"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--adopt"));
    assert!(up(&["up", "--adopt"]).status.success());
    machine.wait_page("v2");
}

#[test]
fn a_stale_plan_is_refused() {
    let machine = Machine::new();
    machine.write_tiny("v1", 1, "");
    machine.kiln(&["up"]).ok();
    machine.write_tiny("v2", 1, "");
    machine.kiln(&["plan", "--out", "plan.kiln"]).ok();
    machine.write_tiny("v3", 1, "");
    machine.kiln(&["up"]).ok();
    machine.kiln(&["up", "plan.kiln"]).fails_with("plan");
    machine.wait_page("v3");
}

#[test]
fn two_ups_at_once_end_with_one_of_them() {
    let machine = Machine::new();
    machine.write_tiny("v1", 2, "");
    machine.kiln(&["up"]).ok();
    machine.write_tiny("v2", 2, "");
    let mut first = machine.command(&["up"]).spawn().unwrap();
    let mut second = machine.command(&["up"]).spawn().unwrap();
    let (first, second) = (first.wait().unwrap(), second.wait().unwrap());
    assert!(first.success() || second.success());
    machine.wait_page("v2");
}

#[test]
fn a_log_that_was_edited_is_noticed_by_audit_verify() {
    let machine = Machine::new();
    machine.write_tiny("v1", 1, "");
    machine.kiln(&["up"]).ok();
    machine.kiln(&["audit", "verify"]).ok();
    machine.kiln(&["down"]).ok();
    machine.kiln(&["host", "stop"]).ok();
    let database = machine.state().join("log/events.db");
    let script = "import sqlite3,sys\ndb=sqlite3.connect(sys.argv[1])\n\
        for (name,) in db.execute(\"select name from sqlite_master where type='trigger'\").fetchall(): db.execute('drop trigger '+name)\n\
        table=db.execute(\"select name from sqlite_master where type='table' and sql like '%prev_hash%'\").fetchone()[0]\n\
        db.execute('update '+table+' set at=at+1 where position=3')\ndb.commit()\n";
    assert!(Command::new("python3").args(["-c", script]).arg(&database).status().unwrap().success());
    machine.kiln(&["audit", "verify"]).fails_with("3");
    // The rest of the test's clean-up needs a log that can be read.
    std::fs::remove_dir_all(machine.state().join("log")).unwrap();
}
