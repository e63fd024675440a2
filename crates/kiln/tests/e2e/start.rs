//! A command starts Kiln, whoever else is at it.

use std::time::Duration;

use kiln::runtime::{Lock, StateDir};

use crate::machine::Machine;

#[test]
fn a_command_starts_the_host_that_another_one_was_about_to_start() {
    let machine = Machine::new();
    machine.write_tiny("v1", 1, "");
    machine.kiln(&["up"]).ok();
    machine.kiln(&["host", "stop"]).ok();
    // As a command holds it that noticed that the host is gone, for as long as it lives.
    let held = Lock::try_take(&StateDir::new(machine.state()).lock_file("host")).unwrap();
    let mut status = machine.command(&["status"]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(status.try_wait().unwrap().is_none(), "it waits");
    drop(held);
    assert!(status.wait().unwrap().success());
    machine.wait_page("v1");
}
