//! Any process may be killed at any instruction: the traffic of the last good revision is served.

use std::time::Duration;

use crate::load::Load;
use crate::machine::{Machine, signal, wait_for};

/// Moments of a rollout, in milliseconds after `kiln up` was started.
const MOMENTS: [u64; 5] = [0, 60, 150, 300, 600];

/// Rolls out while one process is killed at each of several moments, under load; returns what was lost.
fn rollouts_with_kills_of(process: &str) -> (Machine, crate::load::Report) {
    let machine = Machine::new();
    machine.write_tiny("v0", 2, "");
    machine.kiln(&["up"]).ok();
    machine.wait_page("v0");
    let load = Load::start(&machine.plan(1000));
    for (round, moment) in MOMENTS.iter().enumerate() {
        let version = format!("v{}", round + 1);
        machine.write_tiny(&version, 2, "");
        let mut up = machine.command(&["up"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(*moment));
        machine.kill(process);
        if !up.wait().unwrap().success() {
            // The host or the controller died before it took the command: nothing was lost, and asking again is safe.
            machine.kiln(&["up"]).ok();
        }
        machine.wait_page(&version);
    }
    let report = load.stop();
    (machine, report)
}

#[test]
fn a_killed_controller_drops_no_request() {
    let (_machine, report) = rollouts_with_kills_of("controller");
    assert!(report.losses.is_empty(), "{:#?}", &report.losses[..report.losses.len().min(20)]);
}

#[test]
fn a_killed_host_drops_no_request_and_the_next_command_starts_it_again() {
    let (machine, report) = rollouts_with_kills_of("host");
    assert!(report.losses.is_empty(), "{:#?}", &report.losses[..report.losses.len().min(20)]);
    machine.kiln(&["status"]).ok();
}

#[test]
fn a_killed_edge_loses_what_was_in_flight_and_nothing_else() {
    let machine = Machine::new();
    machine.write_tiny("v1", 2, "");
    machine.kiln(&["up"]).ok();
    machine.wait_page("v1");
    let plan = machine.plan(1000);
    let load = Load::start(&plan);
    let mut kills = 0;
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(400));
        machine.kill("edge");
        kills += 1;
        machine.wait_page("v1");
    }
    let report = load.stop();
    let in_flight_max = kills * (plan.workers + plan.streams) as usize;
    assert!(report.losses.len() <= in_flight_max, "{} lost", report.losses.len());
    let refused: Vec<_> = report.losses.iter().filter(|loss| loss.0.contains("refused")).collect();
    assert!(refused.is_empty(), "no connect is refused: {refused:#?}");
    assert!(!report.losses.is_empty(), "streams were in flight, so the test saw a kill at all");
}

#[test]
fn all_killed_at_once_come_back_with_the_next_command() {
    let machine = Machine::new();
    machine.write_tiny("v1", 2, "");
    machine.kiln(&["up"]).ok();
    let mut victims: Vec<i32> =
        ["host", "controller", "edge"].iter().map(|process| machine.pid(process)).collect();
    victims.extend(inits(&machine));
    for pid in victims {
        signal(pid, 9);
    }
    machine.kiln(&["status"]).ok();
    machine.wait_page("v1");
    wait_for("two instances run", || (inits(&machine).len() == 2).then_some(()));
}

#[test]
fn a_killed_init_takes_its_instance_with_it_and_another_takes_its_place() {
    let machine = Machine::new();
    machine.write_tiny("v1", 2, "");
    machine.kiln(&["up"]).ok();
    let before = inits(&machine);
    signal(before[0], 9);
    wait_for("two inits run, one of them new", || {
        let now = inits(&machine);
        (now.len() == 2 && now != before).then_some(())
    });
    machine.wait_page("v1");
}

/// The pids of the instances' inits: in this machine's cgroups, and pid 1 of their own namespace.
fn inits(machine: &Machine) -> Vec<i32> {
    let id = std::fs::read_to_string(machine.state().join("id")).unwrap();
    let of_this = |pid: &i32| {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let inner = |status: String| {
            let line = status.lines().find(|line| line.starts_with("NSpid:")).map(str::to_owned);
            line.is_some_and(|line| line.split_whitespace().count() == 3 && line.ends_with("\t1"))
        };
        let alive = !read("status").contains("State:\tZ");
        read("cgroup").contains(&format!("kiln-{}/", id.trim())) && inner(read("status")) && alive
    };
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut pids: Vec<i32> = pids.filter(of_this).collect();
    pids.sort_unstable();
    pids
}
