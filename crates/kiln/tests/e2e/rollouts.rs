//! Does a deploy ever drop a request, and can one always get back?

use std::time::{Duration, Instant};

use crate::load::Load;
use crate::machine::{Machine, signal, wait_for};
use crate::processes;

/// The rate that the acceptance asks for, in requests a second.
const RATE: u32 = 2000;

#[test]
fn a_changed_file_is_served_by_new_instances_and_rollback_takes_it_back() {
    let machine = Machine::new();
    machine.write_tiny("v1", 2, "");
    machine.kiln(&["up"]).ok();
    machine.wait_page("v1");
    machine.write_tiny("v2", 2, "");
    machine.kiln(&["up"]).ok();
    machine.wait_page("v2");
    machine.kiln(&["rollback"]).ok();
    machine.wait_page("v1");
    // A rollback is a rollout: it can itself be rolled back.
    machine.kiln(&["rollback"]).ok();
    machine.wait_page("v2");
}

#[test]
fn up_with_nothing_changed_replaces_nothing() {
    let machine = Machine::new();
    machine.write_tiny("v1", 2, "");
    machine.kiln(&["up"]).ok();
    let before = machine.get("/page").unwrap();
    machine.kiln(&["up"]).ok();
    machine.kiln(&["plan", "--detailed-exitcode"]).ok();
    let hosts =
        |count| (0..count).map(|_| machine.get("/page").unwrap()).collect::<std::collections::BTreeSet<_>>();
    assert!(hosts(20).contains(&before), "the same instances answer");
}

#[test]
fn twenty_ups_and_twenty_rollbacks_with_controller_kills_lose_no_request() {
    let machine = Machine::new();
    machine.write_tiny("v0", 3, "");
    machine.kiln(&["up"]).ok();
    machine.wait_page("v0");
    let load = Load::start(&machine.plan(RATE));
    let kill_after = |round: u64, step: u64| {
        if round.is_multiple_of(2) {
            std::thread::sleep(Duration::from_millis(step * round));
            machine.kill("controller");
        }
    };
    for round in 1..=20 {
        machine.write_tiny(&format!("v{round}"), 3, "");
        machine.kiln_while(&["up"], || kill_after(round, 40)).ok();
        machine.wait_page(&format!("v{round}"));
    }
    for round in 1..=20 {
        machine.kiln_while(&["rollback"], || kill_after(round, 3)).ok();
    }
    load.stop().assert_none_lost();
}

#[test]
fn a_rollback_to_a_warm_revision_is_one_switch() {
    let machine = Machine::new();
    machine.write_tiny("old", 3, "");
    machine.kiln(&["up"]).ok();
    machine.write_tiny("new", 3, "");
    machine.kiln(&["up"]).ok();
    machine.wait_page("new");
    let load = Load::start(&machine.plan(RATE));
    std::thread::sleep(Duration::from_millis(500));
    let asked = Instant::now();
    machine.kiln(&["rollback"]).ok();
    std::thread::sleep(Duration::from_millis(500));
    let report = load.stop();
    report.assert_none_lost();
    let last = report.last_sent_to("new").expect("the new one served before the rollback");
    let switched = last.saturating_duration_since(asked);
    println!(
        "rollback at {RATE}/s: the last request to the revision that was left began {switched:?} after the command"
    );
    assert!(report.last_sent_to("old").is_some_and(|at| at > last), "the old one serves now");
}

#[test]
fn scaling_replaces_nothing_and_loses_nothing() {
    let machine = Machine::new();
    machine.write_tiny("v1", 2, "");
    machine.kiln(&["up"]).ok();
    let load = Load::start(&machine.plan(500));
    let before: std::collections::BTreeSet<String> = (0..20).map(|_| machine.get("/page").unwrap()).collect();
    machine.kiln(&["scale", "tiny=5"]).ok();
    let now = || (0..50).map(|_| machine.get("/page").unwrap()).collect::<std::collections::BTreeSet<_>>();
    let five = wait_for("five instances answer", || Some(now()).filter(|found| found.len() == 5));
    assert!(before.is_subset(&five), "those that ran still run");
    machine.kiln(&["scale", "tiny=1"]).ok();
    wait_for("one instance answers", || (now().len() == 1).then_some(()));
    load.stop().assert_none_lost();
}

#[test]
fn rolling_replaces_a_few_at_a_time_and_loses_nothing() {
    let machine = Machine::new();
    let rolling = "rollout \"rolling\" {\n    max_surge = 1\n  }";
    machine.write_tiny("v1", 4, rolling);
    machine.kiln(&["up"]).ok();
    let load = Load::start(&machine.plan(500));
    machine.write_tiny("v2", 4, rolling);
    machine.kiln(&["up"]).ok();
    machine.wait_page("v2");
    load.stop().assert_none_lost();
}

#[test]
fn an_instance_that_is_killed_is_replaced_by_another() {
    let machine = Machine::new();
    machine.write_tiny("v1", 2, "");
    machine.kiln(&["up"]).ok();
    let host_of = |page: String| page.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let answering = || {
        (0..20)
            .filter_map(|_| machine.get("/page").ok().map(host_of))
            .collect::<std::collections::BTreeSet<_>>()
    };
    let before = answering();
    assert_eq!(before.len(), 2);
    let victim = processes::servers(&machine)[0];
    signal(victim, 9);
    wait_for("another one answers in its place", || {
        let now = answering();
        (now.len() == 2 && now != before).then_some(())
    });
}

#[test]
fn what_is_down_has_let_go_of_its_port_and_does_not_go_on() {
    let machine = Machine::new();
    for version in ["v1", "v2", "v3"] {
        machine.write_tiny(version, 1, "");
        machine.kiln(&["up"]).ok();
        machine.kiln(&["down"]).ok();
        assert!(std::net::TcpListener::bind(machine.address).is_ok(), "the port is free at once");
    }
    let stop = machine.kiln(&["host", "stop"]).ok();
    assert!(stop.out.contains("Kiln is stopped."), "no environment goes on: {}", stop.out);
}
