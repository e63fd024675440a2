//! A full disk and a damaged one: what is served goes on, what was acknowledged stays, and the error says what to do.

use std::collections::BTreeSet;

use crate::load::Load;
use crate::machine::{Machine, wait_for};

#[test]
fn a_full_disk_stops_what_is_new_and_nothing_else() {
    let machine = Machine::with_disk("48m");
    machine.write_tiny("v1", 2, "");
    machine.kiln(&["up"]).ok();
    machine.wait_page("v1");
    let load = Load::start(&machine.plan(300));
    let ballast = machine.fill_disk();

    machine.write_tiny("v2", 2, "");
    machine.write("more.txt", "x".repeat(300_000));
    let said = machine.kiln(&["up"]);
    assert_eq!(said.code, 5, "{}", said.err);
    for text in ["No space left on device", "hint:  free some space on the disk of the state folder"] {
        assert!(said.err.contains(text), "`{text}` is not in\n{}", said.err);
    }
    machine.kiln(&["status"]).ok();
    machine.wait_page("v1");
    // What needs no more than a line of the log: taken, or refused with a reason.
    let scaled = machine.kiln(&["scale", "tiny=3"]);
    if scaled.code != 0 {
        assert_eq!(scaled.code, 5, "{}", scaled.err);
        assert!(scaled.err.contains("hint:  free some space"), "{}", scaled.err);
    }
    machine.kill("controller");
    machine.kill("host");
    machine.wait_page("v1");
    std::fs::remove_file(ballast).unwrap();

    machine.kiln(&["up"]).ok();
    machine.wait_page("v2");
    let replicas = if scaled.code == 0 { 3 } else { 2 };
    let pages = || (0..40).filter_map(|_| machine.get("/page").ok()).collect::<BTreeSet<_>>();
    wait_for("as many as were acknowledged answer", || (pages().len() == replicas).then_some(()));
    load.stop().assert_none_lost();
    machine.kiln(&["audit", "verify"]).ok();
}

#[test]
fn an_edge_that_is_killed_while_the_disk_is_full_serves_again() {
    let machine = Machine::with_disk("48m");
    machine.write_tiny("v1", 2, "");
    machine.kiln(&["up"]).ok();
    machine.wait_page("v1");
    let ballast = machine.fill_disk();
    machine.kill("edge");
    machine.wait_page("v1");
    crate::machine::signal(crate::processes::inits(&machine)[0], 9);
    std::fs::remove_file(ballast).unwrap();
    machine.kiln(&["status"]).ok();
    wait_for("the instance that died is replaced", || {
        (crate::processes::inits(&machine).len() == 2).then_some(())
    });
    machine.wait_page("v1");
}
