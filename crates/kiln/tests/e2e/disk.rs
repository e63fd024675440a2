//! A full disk and a damaged one: what is served goes on, what was acknowledged stays, and the error says what to do.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

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
    // What needs no more than a line of the log: taken, or refused with a reason. What a collection frees meanwhile ends the trouble,
    // and then it is taken.
    let is_scaled = wait_for("a command is taken, or status tells why it is not", || {
        let scaled = machine.kiln(&["scale", "tiny=3"]);
        if scaled.code == 0 {
            return Some(true);
        }
        assert_eq!(scaled.code, 5, "{}", scaled.err);
        assert!(scaled.err.contains("hint:  free some space"), "{}", scaled.err);
        let status = machine.kiln(&["status"]).ok();
        status.out.contains("! nothing new can be recorded: ").then_some(false)
    });
    machine.kill("controller");
    machine.kill("host");
    machine.wait_page("v1");
    std::fs::remove_file(ballast).unwrap();

    machine.kiln(&["up"]).ok();
    machine.wait_page("v2");
    let replicas = if is_scaled { 3 } else { 2 };
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

/// Flips a bit of what is stored of a file's content, as a bad disk would: the size stays, and nobody is told.
fn damage(machine: &Machine, shelf: &str, file: &Path) {
    let sum = Command::new("sha256sum").arg(file).output().unwrap().stdout;
    let hex = String::from_utf8(sum[..64].to_vec()).unwrap();
    let stored = machine.state().join("store").join(shelf).join(&hex[..2]).join(&hex);
    let mut bytes = std::fs::read(&stored).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&stored, bytes).unwrap();
}

#[test]
fn damaged_files_are_found_before_anything_starts_from_them_and_a_bake_makes_them_again() {
    let machine = Machine::new();
    let binary = machine.stack().join("tiny");
    let brief = "rollout \"blue_green\" {\n    warm_for = \"0s\"\n  }";
    machine.write_tiny("v1", 2, brief);
    let first = std::fs::read(&binary).unwrap();
    machine.kiln(&["up"]).ok();
    machine.write_tiny("v2", 2, brief);
    machine.write("tiny", [&first[..], b"more"].concat());
    machine.kiln(&["up"]).ok();
    wait_for("the first ones are gone", || (machine.instances().len() == 2).then_some(()));

    machine.write("tiny", &first);
    damage(&machine, "objects", &binary);
    damage(&machine, "blobs/sha256", &binary);
    let refused = machine.kiln(&["rollback"]);
    assert_eq!(refused.code, 5, "{}", refused.err);
    for text in ["can't go back to #1", "cause: tiny: /tiny is damaged in the store", "hint:  `kiln bake`"] {
        assert!(refused.err.contains(text), "`{text}` is not in\n{}", refused.err);
    }
    machine.wait_page("v2");

    // The folder as it was: the same bytes come out, from an input that is damaged itself.
    machine.write_tiny("v1", 2, brief);
    machine.write("tiny", &first);
    let baked = machine.kiln(&["bake"]).ok();
    assert!(baked.err.contains("/tiny is damaged in the store"), "{}", baked.err);
    assert!(baked.err.contains("it is made again"), "{}", baked.err);
    let whole = machine.kiln(&["bake"]).ok();
    assert!(!whole.err.contains("damaged"), "{}", whole.err);
    machine.kiln(&["rollback"]).ok();
    machine.wait_page("v1");

    // What is about to be started is looked at by `up` itself.
    damage(&machine, "objects", &binary);
    machine.write_tiny("v3", 2, brief);
    machine.write("tiny", &first);
    let up = machine.kiln(&["up"]).ok();
    assert!(up.err.contains("/tiny is damaged in the store"), "{}", up.err);
    machine.wait_page("v3");
}
