//! How fast decisions about large environments are, on one thread: what `cargo xtask bench decide` prints. Lines of a name and a
//! number.
//!
//! `pace SIZE...` measures environments of so many instances; `pace rollout SIZE` a whole canary of one.
#![allow(missing_docs, clippy::print_stdout)]
// The library is a function; this is a program around it.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_core::state::Phase;
use kiln_core::{
    Action, ActionKind, Admission, Command, Input, InputKind, Observation, Observed, State, apply, decide,
    number, observe, outstanding,
};
use kiln_model::instance::{HealthCheck, InstanceSpec, Probe};
use kiln_model::release::RevisionSpec;
use kiln_model::rollout::Outcome;
use kiln_model::route::Route;
use kiln_model::service::{
    Audience, Canary, Gate, PortRef, RolloutBounds, Service, ServiceKind, Stage, Strategy,
};
use kiln_model::{
    Actor, Digest, EnvKey, EnvName, Fence, InstanceId, Millis, PortName, RouteName, ServiceName, StackName,
    Timestamp, Weight,
};

/// As many as a service may have.
const REPLICAS: u32 = 1000;

/// Instances whose health changes while it is timed: the median of so many is steady.
const LOOKS: usize = 101;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let sizes = |words: &[String]| -> Vec<u32> { words.iter().map(|word| word.parse().unwrap()).collect() };
    if words.first().is_some_and(|word| word == "rollout") {
        for size in sizes(&words[1..]) {
            for strategy in ["canary", "blue_green"] {
                rollout(size, strategy);
            }
        }
        return;
    }
    for size in sizes(&words) {
        decisions(size);
    }
}

/// What single decisions take, and what an instance takes in memory.
fn decisions(size: u32) {
    let before = resident();
    let mut world = World::new();
    world.up(size, "v1", "canary");
    world.run();
    world.forget();
    let bytes = resident().saturating_sub(before) / u64::from(size);
    println!("memory_per_instance_{size} {bytes}");

    let ids: Vec<InstanceId> = world.state.instances().map(|instance| instance.id).collect();
    let step = (ids.len() / LOOKS).max(1);
    let ids: Vec<InstanceId> = ids.into_iter().step_by(step).take(LOOKS).collect();
    let mut lost = Vec::new();
    for id in &ids {
        lost.push(world.see(health(*id, false)));
    }
    world.run();
    println!("health_change_us_{size} {:.1}", micros(median(lost)));

    for strategy in ["canary", "blue_green"] {
        let spec = revision(size, "v2", strategy);
        let times = (0..5).map(|_| world.clone().command(up("v2", &spec)));
        println!("new_release_{strategy}_ms_{size} {:.2}", micros(median(times.collect())) / 1e3);
    }
}

/// What a whole rollout takes, of which every action is answered at once.
fn rollout(size: u32, strategy: &str) {
    let mut world = World::new();
    world.up(size, "v1", strategy);
    world.run();
    world.times.clear();
    let begin = Instant::now();
    world.up(size, "v2", strategy);
    world.run();
    let took = begin.elapsed();
    let last = world.state.environment(&key()).unwrap().last_rollout.clone().unwrap();
    assert_eq!(last.outcome, Outcome::Completed, "{}", last.reason);
    println!("rollout_{strategy}_ms_{size} {:.0}", micros(took) / 1e3);
    for (kind, (count, total, most)) in &world.times {
        let (each, total, most) = (micros(*total) / *count as f64, micros(*total) / 1e3, micros(*most) / 1e3);
        println!(
            "# {kind:<20} {count:>8} inputs {each:>9.1} us each {total:>9.0} ms in all {most:>7.1} ms at most"
        );
    }
}

#[derive(Clone)]
struct World {
    state: State,
    observed: Observed,
    now: Timestamp,
    seed: u64,
    addresses: u32,
    wake_at: Option<Timestamp>,
    issued: HashSet<(Fence, u8, Option<InstanceId>)>,
    times: BTreeMap<&'static str, (u64, Duration, Duration)>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            state: State::new(),
            observed: Observed::default(),
            now: Timestamp(1_000_000),
            seed: 0,
            addresses: 0,
            wake_at: None,
            issued: HashSet::new(),
            times: BTreeMap::new(),
        };
        world.see(Observation::ControllerStarted);
        world
    }

    fn up(&mut self, size: u32, version: &str, strategy: &str) {
        self.command(up(version, &revision(size, version, strategy)));
    }

    fn command(&mut self, command: Command) -> Duration {
        self.feed("command", InputKind::Command(command))
    }

    fn see(&mut self, observation: Observation) -> Duration {
        let name = match &observation {
            Observation::InstanceStarted { .. } => "started",
            Observation::InstanceHealth { .. } => "health",
            Observation::InstanceDestroyed { .. } => "destroyed",
            Observation::BackendIdle { .. } => "idle",
            Observation::TableAcknowledged { .. } => "acknowledged",
            _ => "other",
        };
        self.feed(name, InputKind::Observation(observation))
    }

    /// Decides, and returns how long that took.
    fn feed(&mut self, name: &'static str, kind: InputKind) -> Duration {
        self.seed += 1_000_003;
        let input = Input { now: self.now, seed: self.seed, actor: Actor::User("ann".into()), kind };
        observe(&mut self.observed, &input);
        let begin = Instant::now();
        let decision = decide(&self.state, &self.observed, &input);
        let took = begin.elapsed();
        assert!(decision.reply.is_ok(), "{:?}", decision.reply);
        for entry in number(&self.state, &decision.events, &input) {
            apply(&mut self.state, &entry).unwrap();
        }
        self.wake_at = decision.wake_at;
        let (count, total, most) = self.times.entry(name).or_default();
        (*count, *total, *most) = (*count + 1, *total + took, took.max(*most));
        took
    }

    /// Answers everything at once until nothing is left to do.
    fn run(&mut self) {
        loop {
            let begin = Instant::now();
            let mut actions = outstanding(&self.state);
            let (count, total, most) = self.times.entry("(outstanding)").or_default();
            let took = begin.elapsed();
            (*count, *total, *most) = (*count + 1, *total + took, took.max(*most));
            actions.retain(|action| self.issued.insert(subject(action)));
            let mut answers: Vec<Observation> =
                actions.into_iter().flat_map(|action| self.answer(action)).collect();
            // What is told last is what is known last.
            answers.sort_by_key(|answer| matches!(answer, Observation::InstanceHealth { .. }));
            if answers.is_empty() {
                let runs = self.state.environments().any(|env| env.rollout.is_some());
                let Some(next) = self.wake_at.filter(|_| runs) else { return };
                self.now = next;
                self.feed("tick", InputKind::Tick);
            }
            for answer in answers {
                self.see(answer);
            }
        }
    }

    fn answer(&mut self, Action { fence, kind }: Action) -> Vec<Observation> {
        match kind {
            ActionKind::OpenListener(listener) => vec![Observation::ListenerOpened { listener, fence }],
            ActionKind::CloseListener(listener) => vec![Observation::ListenerClosed { listener, fence }],
            ActionKind::CreateInstance { id, .. } => {
                self.addresses += 1;
                let address = IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + self.addresses));
                vec![Observation::InstanceStarted { id, address }, health(id, true)]
            }
            ActionKind::DestroyInstance { id, .. } => vec![Observation::InstanceDestroyed { id }],
            ActionKind::PublishTable(_) => vec![Observation::TableAcknowledged { fence }],
            ActionKind::AwaitIdle(id) => vec![Observation::BackendIdle { id, fence }],
        }
    }

    /// Lets go of what is no part of the core's memory.
    fn forget(&mut self) {
        self.issued = HashSet::new();
        assert!(self.state.instances().all(|instance| instance.phase == Phase::Running));
    }
}

fn subject(action: &Action) -> (Fence, u8, Option<InstanceId>) {
    let (kind, id) = match &action.kind {
        ActionKind::OpenListener(_) => (0, None),
        ActionKind::CloseListener(_) => (1, None),
        ActionKind::CreateInstance { id, .. } => (2, Some(*id)),
        ActionKind::DestroyInstance { id, .. } => (3, Some(*id)),
        ActionKind::PublishTable(_) => (4, None),
        ActionKind::AwaitIdle(id) => (5, Some(*id)),
    };
    (action.fence, kind, id)
}

fn health(id: InstanceId, healthy: bool) -> Observation {
    Observation::InstanceHealth { id, healthy, detail: String::new() }
}

fn key() -> EnvKey {
    EnvKey { stack: StackName::new("shop").unwrap(), env: EnvName::new("prod").unwrap() }
}

fn up(version: &str, spec: &Arc<RevisionSpec>) -> Command {
    Command::Up {
        env: key(),
        origin: "/src/shop".into(),
        adopt: false,
        base: None,
        release: digest(version),
        binding: digest("binding"),
        spec: spec.clone(),
        checks: Vec::new(),
        admission: Admission::default(),
    }
}

/// So many instances, in services as large as they may be, the first one with a route.
fn revision(size: u32, version: &str, strategy: &str) -> Arc<RevisionSpec> {
    let mut revision = RevisionSpec::default();
    let (mut left, mut index) = (size, 0);
    while left > 0 {
        let replicas = left.min(REPLICAS);
        let name = ServiceName::new(format!("service-{index}")).unwrap();
        revision.services.insert(name.clone(), service(name, replicas, version, strategy));
        (left, index) = (left - replicas, index + 1);
    }
    let route = Route {
        name: RouteName::new("web").unwrap(),
        listen: "127.0.0.1:8080".parse().unwrap(),
        host: None,
        path: "/".into(),
        to: PortRef { service: ServiceName::new("service-0").unwrap(), port: PortName::new("http").unwrap() },
    };
    revision.routes.insert(route.name.clone(), route);
    Arc::new(revision)
}

fn service(name: ServiceName, replicas: u32, version: &str, strategy: &str) -> Service {
    let spec = InstanceSpec {
        ports: BTreeMap::from([(PortName::new("http").unwrap(), 8080)]),
        health: Some(HealthCheck {
            probe: Probe::Tcp { port: 8080 },
            interval: Millis(1000),
            timeout: Millis(1000),
            startup: Millis(60_000),
            healthy_after: 1,
            unhealthy_after: 3,
            closed_ports: BTreeSet::new(),
        }),
        ..InstanceSpec::plain(digest("image"), vec![version.to_owned()])
    };
    let stages = [50, 250].map(|weight| Stage {
        weight: Weight::new(weight).unwrap(),
        gates: vec![Gate::Hold(Millis::from_secs(60))],
    });
    let canary =
        Canary { stages: stages.to_vec(), analysis: None, audience: Audience::default(), max_surge: None };
    Service {
        spec_digest: digest(&format!("{name} {version}")),
        name,
        kind: ServiceKind::Service,
        spec: Arc::new(spec),
        replicas,
        strategy: if strategy == "canary" { Strategy::Canary(Arc::new(canary)) } else { Strategy::BlueGreen },
        after: BTreeSet::new(),
        bounds: RolloutBounds::default(),
        interludes: Arc::default(),
    }
}

/// Bytes that differ with the text; nothing is proved with them (FNV-1a).
fn digest(text: &str) -> Digest {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&hash.to_be_bytes());
    Digest::new(bytes)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The memory that this process has, in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
