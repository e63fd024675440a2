//! Health, as the provider sees it.
#![allow(clippy::unwrap_used, reason = "tests say by their panics what went wrong")]

mod world;

use std::time::Duration;

use kiln_model::instance::{ExitStatus, ExpectedRun, HealthCheck, InstanceSpec, Probe};
use kiln_model::{InstanceId, Millis};
use kiln_provider::Provider;
use world::{World, eventually, fresh_id, lines, request, spec};

fn with_probe(argv: &[&str], probe: Probe) -> InstanceSpec {
    let mut spec = spec(argv);
    spec.health = Some(HealthCheck {
        probe,
        interval: Millis(50),
        timeout: Millis(2000),
        startup: Millis(20_000),
        healthy_after: 1,
        unhealthy_after: 2,
        closed_ports: [].into(),
    });
    spec
}

fn signal(world: &World, id: InstanceId) {
    // The init passes it on to the program.
    let identity = std::fs::read_to_string(world.instance_folder(id).join("init")).unwrap();
    let pid: i32 =
        identity.split(|c: char| !c.is_ascii_digit()).find(|word| !word.is_empty()).unwrap().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
}

#[test]
fn an_instance_without_a_probe_is_healthy_when_it_runs() {
    let world = World::new();
    assert_eq!(world.healthy(world.run(&["sleep"])), (true, "runs".into()));
}

#[test]
fn an_http_probe_waits_for_a_slow_starter_and_sees_it_turn_and_turn_back() {
    let world = World::new();
    let probe = Probe::Http { port: 8080, path: "/healthz".into(), status: None };
    let id = world.create(with_probe(&["serve", "8080", "400"], probe));
    world.started(id);
    assert_eq!(world.healthy(id), (true, "answers 200".into()));
    signal(&world, id);
    assert_eq!(world.healthy(id), (false, "answers 503".into()));
    assert_eq!(world.host().list().unwrap().instances[0].healthy, Some(false));
    signal(&world, id);
    assert_eq!(world.healthy(id), (true, "answers 200".into()));
}

#[test]
fn a_tcp_probe_needs_somebody_who_listens() {
    let world = World::new();
    let id = world.create(with_probe(&["serve", "8080", "100"], Probe::Tcp { port: 8080 }));
    assert!(world.healthy(id).0);
    let mut deaf = with_probe(&["sleep"], Probe::Tcp { port: 8080 });
    deaf.health.as_mut().unwrap().startup = Millis(100);
    let (healthy, detail) = world.healthy(world.create(deaf));
    assert!(!healthy && detail.contains("refused"), "{detail}");
}

#[test]
fn a_command_probe_runs_inside_the_instance() {
    let world = World::new();
    let argv = ["/app", "access", "/tmp/ready"].map(str::to_owned).to_vec();
    let id = world.create(with_probe(&["file-when", "300"], Probe::Command { argv, expected: None }));
    world.started(id);
    assert_eq!(world.healthy(id), (true, "the command succeeds".into()));
    let argv = ["/absent"].map(str::to_owned).to_vec();
    let mut broken = with_probe(&["sleep"], Probe::Command { argv, expected: None });
    broken.health.as_mut().unwrap().startup = Millis(0);
    let (healthy, detail) = world.healthy(world.create(broken));
    assert!(!healthy && detail.contains("does not exist"), "{detail}");
}

#[test]
fn what_a_command_prints_is_looked_at_and_told_where_it_is_not_what_is_expected() {
    let world = World::new();
    let spec = |file: &str, stdout: &str| {
        let argv = ["/app", "cat", file].map(str::to_owned).to_vec();
        let expected = ExpectedRun { stdout: Some(stdout.into()), ..ExpectedRun::default() };
        let mut spec = with_probe(&["sleep"], Probe::Command { argv, expected: Some(expected) });
        let health = spec.health.as_mut().unwrap();
        // The first answer counts, however long it takes.
        (health.startup, health.unhealthy_after, health.timeout) = (Millis(0), 1, Millis(60_000));
        spec
    };
    let told = |spec| world.healthy(world.create(spec));
    assert_eq!(told(spec("/proc/self/comm", "app")), (true, "the command does what is expected".into()));
    assert_eq!(
        told(spec("/proc/self/comm", "web")),
        (false, "the command printed \"app\", expected was \"web\"".into())
    );
    // More than a pipe holds: the command must not wait for ever, and what was cut is not compared.
    let (healthy, detail) = told(spec("/app", ""));
    assert!(!healthy && detail.contains("more than 64 KiB"), "{detail}");
}

#[test]
fn a_port_that_must_be_closed_is_looked_at_once_the_probe_holds() {
    let world = World::new();
    let spec = |closed: &[u16]| {
        let mut spec = with_probe(&["serve", "8080", "100"], Probe::Tcp { port: 8080 });
        let health = spec.health.as_mut().unwrap();
        health.closed_ports = closed.iter().copied().collect();
        health.timeout = Millis(60_000);
        spec
    };
    assert_eq!(world.healthy(world.create(spec(&[22, 8081]))), (true, "port 8081 is closed".into()));
    let mut open = spec(&[22, 8080]);
    // Until it listens, the probe fails; then the port is open.
    open.health.as_mut().unwrap().startup = Millis(2000);
    let (healthy, detail) = world.healthy(world.create(open));
    assert!(!healthy && detail == "port 8080 takes connections and must be closed", "{detail}");
}

#[test]
fn a_command_runs_inside_under_the_same_restrictions_and_ends_at_its_timeout() {
    let world = World::new();
    let mut user = spec(&["sleep"]);
    user.user = "web".into();
    let id = fresh_id();
    world.host().create(&request(id, user)).unwrap();
    world.started(id);
    let run = |argv: &[&str], ms| {
        let argv: Vec<String> = argv.iter().map(|text| (*text).to_owned()).collect();
        world.host().exec(id, &argv, Duration::from_millis(ms))
    };
    let who = run(&["/app", "who"], 30_000).unwrap();
    assert!(who.output.contains("uid=33 gid=44") && who.output.contains("host=web-"), "{who:?}");
    let status = run(&["/app", "cat", "/proc/self/status"], 30_000).unwrap().output;
    assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    assert_eq!(run(&["/app", "exit", "9"], 30_000).unwrap().status, ExitStatus::Code(9));
    assert!(run(&["/app", "sleep"], 200).unwrap_err().to_string().contains("longer"));
    assert!(run(&["/absent"], 30_000).unwrap_err().to_string().contains("does not exist"));
    let group = format!("kiln-{}/{id}", world.state_id());
    assert!(run(&["/app", "cat", "/proc/self/cgroup"], 30_000).unwrap().output.contains("0::/"), "{group}");
}

#[test]
fn what_is_to_go_is_no_longer_probed() {
    let world = World::new();
    let probe = Probe::Http { port: 8080, path: "/".into(), status: None };
    let id = world.create(with_probe(&["serve", "8080"], probe));
    assert!(world.healthy(id).0);
    world.destroy(id, Millis(60_000));
    // It has no handler for SIGTERM, but its init passes the signal on.
    assert_eq!(world.exited(id), ExitStatus::Signal(15));
    world.destroyed(id);
    eventually("its log can be read", || lines(world.host(), id).is_empty());
}
