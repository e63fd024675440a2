//! Any process may be killed at any instruction: the traffic of the last good revision is served.

use std::time::Duration;

use crate::load::{Load, Report};
use crate::machine::{Machine, signal, wait_for};
use crate::processes::{inits, servers};

/// Moments of a rollout, by what `kiln up` says at it: before the command is taken, and in the middle of each step.
const MOMENTS: [&str; 5] = ["image tiny", "open the sockets", "wait until", "send 100%", "drain the old"];

/// Rolls out while something is killed at each of several moments, under load. The `up` that sees it must complete: who
/// waits for a rollout must not have to start Kiln again by hand.
fn rollouts_with_kills(rate: u32, kill: impl Fn(&Machine)) -> (Machine, Report) {
    let machine = Machine::new();
    machine.write_tiny("v0", 2, "");
    machine.kiln(&["up"]).ok();
    machine.wait_page("v0");
    let load = Load::start(&machine.plan(rate));
    for (round, moment) in MOMENTS.iter().enumerate() {
        let version = format!("v{}", round + 1);
        machine.write_tiny(&version, 2, "");
        machine.kiln_until(&["up"], moment, || kill(&machine)).ok();
        machine.wait_page(&version);
    }
    let report = load.stop();
    machine.kiln(&["audit", "verify"]).ok();
    (machine, report)
}

#[test]
fn a_killed_controller_drops_no_request() {
    let (_machine, report) = rollouts_with_kills(1000, |machine| machine.kill("controller"));
    report.assert_none_lost();
}

#[test]
fn a_killed_host_drops_no_request_and_cuts_no_stream() {
    let (machine, report) = rollouts_with_kills(1000, |machine| machine.kill("host"));
    report.assert_none_lost();
    // Eight at a time, two seconds each: some were under way at every kill.
    assert!(report.streams >= 8, "{} streams", report.streams);
    machine.kiln(&["status"]).ok();
}

/// Nothing but the waiting command is left to start a host, and nothing but a host starts a controller.
#[test]
fn a_command_that_waits_starts_again_what_it_waits_for() {
    let machine = Machine::new();
    machine.write_tiny("v1", 2, "");
    machine.kiln(&["up"]).ok();
    machine.write_tiny("v2", 2, "");
    // Else a rollout may be over before the command has first asked how far it is.
    machine.edit_stack("VERSION = \"v2\"", "VERSION = \"v2\", START_MS = \"2000\"");
    let before = machine.pid("host");
    let kill = || {
        let victims = [machine.pid("host"), machine.pid("controller")];
        victims.iter().for_each(|pid| signal(*pid, 9));
    };
    machine.kiln_until(&["up"], "wait until", kill).ok();
    machine.wait_page("v2");
    assert_ne!(machine.pid("host"), before, "another host runs");
}

#[test]
fn inits_killed_in_the_middle_of_a_rollout_are_replaced_and_it_completes() {
    let machine = Machine::new();
    machine.write_tiny("v1", 2, "");
    machine.kiln(&["up"]).ok();
    let old = inits(&machine);
    machine.write_tiny("v2", 2, "");
    machine.edit_stack("VERSION = \"v2\"", "VERSION = \"v2\", START_MS = \"1000\"");
    let load = Load::start(&machine.plan(500));
    // They are not routed before they listen: nobody may notice.
    let kill = || {
        let new = wait_for("the new inits run", || {
            let new: Vec<i32> = inits(&machine).into_iter().filter(|pid| !old.contains(pid)).collect();
            (new.len() == 2).then_some(new)
        });
        new.iter().for_each(|pid| signal(*pid, 9));
    };
    machine.kiln_until(&["up"], "wait until", kill).ok();
    machine.wait_page("v2");
    load.stop().assert_none_lost();
}

/// New and old ones, routed, draining and warm: whichever it hits, the rollout completes.
#[test]
fn an_init_killed_at_any_moment_of_a_rollout_costs_what_its_instance_was_answering() {
    let (machine, report) = rollouts_with_kills(200, |machine| {
        let newest = inits(machine).into_iter().max().expect("instances run");
        signal(newest, 9);
    });
    let ledger = machine.requests();
    assert_eq!(ledger.lost, report.losses.len() as u64, "{ledger:?} {:#?}", report.losses);
}

/// An instance that dies takes with it what it was answering. The client's count and the ledger's are the same.
#[test]
fn a_killed_init_takes_its_instance_with_it_and_the_ledger_counts_what_it_was_answering() {
    let machine = Machine::new();
    machine.write_tiny("v1", 2, "");
    machine.kiln(&["up"]).ok();
    let before = inits(&machine);
    let load = Load::start(&machine.plan(200));
    std::thread::sleep(Duration::from_millis(500));
    signal(before[0], 9);
    wait_for("two inits run, one of them new", || {
        let now = inits(&machine);
        (now.len() == 2 && now != before && servers(&machine).len() == 2).then_some(())
    });
    let report = load.stop();
    assert!(!report.losses.is_empty(), "streams were in flight, so the test saw a kill at all");
    let ledger = machine.requests();
    assert_eq!(ledger.lost, report.losses.len() as u64, "{ledger:?} {:#?}", report.losses);
    machine.wait_page("v1");
}

#[test]
fn all_killed_at_once_under_load_come_back_and_the_rollout_completes() {
    let machine = Machine::new();
    machine.write_tiny("v0", 2, "");
    machine.kiln(&["up"]).ok();
    let load = Load::start(&machine.plan(300));
    for (round, moment) in ["wait until", "send 100%"].iter().enumerate() {
        let version = format!("v{}", round + 1);
        machine.write_tiny(&version, 2, "");
        let kill = || {
            let mut victims = ["host", "controller", "edge"].map(|process| machine.pid(process)).to_vec();
            victims.extend(inits(&machine));
            victims.iter().for_each(|pid| signal(*pid, 9));
        };
        // With nothing to drain a rollout may be over before it is told of. And where it was complete before the kill, `up` has
        // nothing left to wait for, and the next command starts Kiln.
        machine.kiln_until_or_after(&["up"], moment, |_| kill()).ok();
        machine.kiln(&["status"]).ok();
        machine.wait_page(&version);
    }
    // Without a host and an edge nobody listens: what is lost is lost, but only while nothing ran.
    load.stop();
    machine.kiln(&["audit", "verify"]).ok();
    wait_for("two instances of the newest run", || {
        let found = machine.instances();
        let serving = found.iter().filter(|instance| instance["state"] == "healthy").count();
        (serving == 2).then_some(())
    });
}

#[test]
fn all_killed_at_once_come_back_with_the_next_command() {
    let machine = Machine::new();
    machine.write_tiny("v1", 2, "");
    machine.kiln(&["up"]).ok();
    let mut victims = ["host", "controller", "edge"].map(|process| machine.pid(process)).to_vec();
    victims.extend(inits(&machine));
    victims.iter().for_each(|pid| signal(*pid, 9));
    machine.kiln(&["status"]).ok();
    machine.wait_page("v1");
    wait_for("two instances run", || (inits(&machine).len() == 2).then_some(()));
}
