//! Health, as the provider sees it.
#![allow(clippy::unwrap_used, reason = "tests say by their panics what went wrong")]

mod world;

use std::time::Duration;

use kiln_model::instance::{ExitStatus, HealthCheck, InstanceSpec, Probe};
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
    let id = world.create(with_probe(&["file-when", "300"], Probe::Command { argv }));
    world.started(id);
    assert_eq!(world.healthy(id), (true, "the command succeeds".into()));
    let argv = ["/absent"].map(str::to_owned).to_vec();
    let mut broken = with_probe(&["sleep"], Probe::Command { argv });
    broken.health.as_mut().unwrap().startup = Millis(0);
    let (healthy, detail) = world.healthy(world.create(broken));
    assert!(!healthy && detail.contains("does not exist"), "{detail}");
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
