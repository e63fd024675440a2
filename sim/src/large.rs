//! A canary rollout of very many instances, through the whole simulated world: the real controller, host, edge, links and clock.
//!
//! All invariants are looked at that are looked at in a history, but what is served only where it changed, and whole once
//! the rollout is over; see `docs/decisions/0147-a-hundred-thousand-instances-in-the-simulated-world.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use kiln_core::{Admission, Command, State};
use kiln_model::release::RevisionSpec;
use kiln_model::rollout::Outcome;
use kiln_model::route::Route;
use kiln_model::service::{
    Audience, Canary, Gate, PortRef, RolloutBounds, Service, ServiceKind, Stage, Strategy,
};
use kiln_model::{EnvKey, InstanceSpec, Millis, PortName, RouteName, ServiceName, Weight};

use crate::faults::Fault;
use crate::stacks::{self, digest};
use crate::world::World;
use crate::{Violation, invariants, witness};

/// As many as a service may have.
const REPLICAS: u32 = 1_000;

/// How long a rollout may take in virtual time: the steps of a hundred services follow each other, each with its pauses.
const WITHIN: u64 = 24 * 60 * 60 * 1_000;

/// A world in which the first release runs.
pub struct Large {
    world: World,
    size: u32,
}

/// What a rollout came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Came {
    /// Its virtual time, in milliseconds.
    pub took_ms: u64,
    /// The entries that it wrote.
    pub entries: u64,
    /// The steps of the controller.
    pub steps: u64,
    /// Its lives: more than one if it was killed.
    pub lives: u64,
}

impl Large {
    /// Brings up the first release.
    ///
    /// # Errors
    /// An invariant that does not hold.
    pub fn new(seed: u64, size: u32) -> Result<Self, Violation> {
        let mut large = Self { world: World::large(seed, size), size };
        large.release(1)?;
        Ok(large)
    }

    /// Lets the controller, the edge and the host die in turn, soon after the rollout begins that is asked for next.
    pub fn let_processes_die(&mut self) {
        let deaths = [Fault::KillController(300), Fault::KillEdge(700), Fault::KillHost(1_500)];
        for (at, fault) in (0..).zip(deaths) {
            self.world.strike_at(self.world.now() + 500 + at * 4_000, fault);
        }
    }

    /// Rolls out the next release as canaries.
    ///
    /// # Errors
    /// An invariant that does not hold; that the rollout completes is one.
    pub fn roll_out(&mut self) -> Result<Came, Violation> {
        let (began, before) = (self.world.now(), self.world.stats.clone());
        self.release(2)?;
        let after = &self.world.stats;
        Ok(Came {
            took_ms: self.world.now() - began,
            entries: after.entries - before.entries,
            steps: after.steps - before.steps,
            lives: after.lives - before.lives + 1,
        })
    }

    fn release(&mut self, version: u32) -> Result<(), Violation> {
        let env = stacks::environments().swap_remove(0);
        self.world.carry_out(up(&env, self.size, version), WITHIN)?;
        self.world.check_all()?;
        completed(self.world.witness.state(), &env, self.size)
    }

    /// Compares what runs with a fold of the whole log, and asks whether each revision can be gone back to.
    ///
    /// # Errors
    /// It differs, or one can't.
    pub fn check_end(&self) -> Result<(), Violation> {
        if let Some(live) = self.world.live() {
            witness::check_replay(&self.world.machine.borrow().durable, live, "the end")?;
        }
        invariants::check_rollbacks(self.world.witness.state())
    }
}

fn completed(state: &State, env: &EnvKey, size: u32) -> Result<(), Violation> {
    let last = state.environment(env).and_then(|env| env.last_rollout.as_ref());
    let is_complete = last.is_some_and(|last| last.outcome == Outcome::Completed);
    let routed = state.instances().filter(|instance| instance.is_routed()).count();
    if is_complete && routed == size as usize {
        return Ok(());
    }
    Err(Violation::new("the rollout completes", format!("{routed} of {size} have requests: {last:?}")))
}

fn up(env: &EnvKey, size: u32, version: u32) -> Command {
    let spec = revision(size, version);
    let text = version.to_le_bytes();
    Command::Up {
        env: env.clone(),
        origin: "/src/shop".into(),
        adopt: false,
        base: None,
        release: digest(&[b"release", &text]),
        binding: digest(&[b"binding", &text]),
        spec: Arc::new(spec),
        checks: Vec::new(),
        admission: Admission::default(),
    }
}

/// So many instances, in services as large as they may be, each with a route.
fn revision(size: u32, version: u32) -> RevisionSpec {
    let mut revision = RevisionSpec::default();
    for index in 0..size.div_ceil(REPLICAS) {
        let name = stacks::service(&format!("service-{index}"));
        let replicas = REPLICAS.min(size - index * REPLICAS);
        let route = Route {
            name: RouteName::new(name.as_str()).expect("a service's name is a route's name here"),
            listen: SocketAddr::from(([0, 0, 0, 0], 8000)),
            host: None,
            path: format!("/{name}"),
            to: PortRef { service: name.clone(), port: http() },
        };
        revision.routes.insert(route.name.clone(), route);
        revision.services.insert(name.clone(), service(name, replicas, version));
    }
    revision
}

fn http() -> PortName {
    PortName::new("http").expect("a valid name, written here")
}

/// A canary at 5 %, then at 25 %, each looked at for a minute.
fn service(name: ServiceName, replicas: u32, version: u32) -> Service {
    let spec = InstanceSpec {
        ports: BTreeMap::from([(http(), 8080)]),
        health: Some(stacks::health()),
        ..InstanceSpec::plain(
            digest(&[name.as_str().as_bytes(), &version.to_le_bytes()]),
            vec!["/app".into()],
        )
    };
    let stages = [50, 250].map(|weight| Stage {
        weight: Weight::new(weight).expect("below a thousand"),
        gates: vec![Gate::Hold(Millis::from_secs(60))],
    });
    let canary =
        Canary { stages: stages.to_vec(), analysis: None, audience: Audience::default(), max_surge: None };
    Service {
        spec_digest: digest(&[format!("{spec:?}").as_bytes()]),
        name,
        kind: ServiceKind::Service,
        spec: Arc::new(spec),
        replicas,
        strategy: Strategy::Canary(Arc::new(canary)),
        after: BTreeSet::new(),
        bounds: RolloutBounds::default(),
        interludes: Arc::default(),
    }
}
