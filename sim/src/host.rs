//! The provider of the simulated world: creates, lists and destroys, and has no verb to change an instance.
//!
//! What the real one keeps on disk, this one keeps over a restart: the instances, the tombstones, the highest term.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use kiln_core::Observation;
use kiln_core::input::InstanceSeen;
use kiln_model::instance::ExitStatus;
use kiln_model::{Fence, InstanceId, InstanceSpec, Millis, Position, Term};

use crate::plant::Plant;
use crate::rng::Rng;
use crate::stacks::{self, Nature};

/// A small world, so that a bug that reuses an address soon meets the old owner's traffic.
const ADDRESSES: u8 = 120;

/// What will happen at the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostEvent {
    /// The instance's command starts.
    Boot(InstanceId),
    /// Its probes turn.
    Turn(InstanceId, bool),
    /// Its main process ends.
    Exit(InstanceId, ExitStatus),
    /// Nothing is left of it.
    Gone(InstanceId),
}

/// What a call leads to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What happens later, after so many milliseconds.
    pub later: Vec<(u64, HostEvent)>,
    /// What the controller is told.
    pub said: Vec<Observation>,
}

impl Outcome {
    fn say(observation: Observation) -> Self {
        Self { later: Vec::new(), said: vec![observation] }
    }

    fn later(after: u64, event: HostEvent) -> Self {
        Self { later: vec![(after, event)], said: Vec::new() }
    }
}

/// One instance as the host has it.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Its address, for as long as it is listed.
    pub address: Option<IpAddr>,
    /// Whether its command was started.
    pub booted: bool,
    /// What its probes say; none before the first verdict.
    pub healthy: Option<bool>,
    /// How it ended, if it did.
    pub exited: Option<ExitStatus>,
    /// Whether it was asked to go.
    pub leaving: bool,
    spec: Arc<InstanceSpec>,
}

/// The provider.
#[derive(Debug)]
pub struct Host {
    /// Whether its process runs. Instances run on without it.
    pub up: bool,
    /// Whether instances fail by themselves: crash, flap, lie, hang in shutdown.
    pub wild: bool,
    /// Whether an instance of a bad version is as good as any other.
    pub cured: bool,
    guests: BTreeMap<InstanceId, Guest>,
    tombstones: BTreeSet<InstanceId>,
    highest: Term,
    free: Vec<IpAddr>,
    plant: Option<Plant>,
    rng: Rng,
}

impl Host {
    /// Returns a host with nothing on it.
    pub fn new(rng: Rng, plant: Option<Plant>) -> Self {
        let free = (0..ADDRESSES).map(|n| IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2 + n))).collect();
        Self {
            up: true,
            wild: true,
            cured: false,
            guests: BTreeMap::new(),
            tombstones: BTreeSet::new(),
            highest: Term(0),
            free,
            plant,
            rng,
        }
    }

    /// All that it has.
    pub fn guests(&self) -> &BTreeMap<InstanceId, Guest> {
        &self.guests
    }

    /// Its process is back: goes on with what it had accepted, which is on its disk.
    pub fn restart(&mut self) -> Outcome {
        self.up = true;
        let mut outcome = Outcome::default();
        for (id, guest) in &self.guests {
            if guest.leaving {
                outcome.later.push((self.rng.between(1, 500), HostEvent::Gone(*id)));
            } else if !guest.booted {
                outcome.later.push((self.rng.between(1, 500), HostEvent::Boot(*id)));
            }
        }
        outcome
    }

    /// Whether an action of this fence is late.
    pub fn refuses(&self, fence: Fence) -> bool {
        fence.term < self.highest && self.plant != Some(Plant::AcceptOldFence)
    }

    /// Creates an instance.
    pub fn create(&mut self, id: InstanceId, spec: &Arc<InstanceSpec>, fence: Fence) -> Outcome {
        if self.refuses(fence) {
            return Outcome::default();
        }
        self.highest = self.highest.max(fence.term);
        if let Some(guest) = self.guests.get(&id) {
            // Idempotent: a repeated call is told what the first one came to.
            return match guest.address {
                Some(address) if guest.booted => Outcome::say(Observation::InstanceStarted { id, address }),
                _ => Outcome::default(),
            };
        }
        if self.tombstones.contains(&id) {
            return Outcome::say(Observation::InstanceDestroyed { id });
        }
        if stacks::nature(spec) == Nature::Refused && !self.cured {
            return Outcome::say(Observation::InstanceRefused { id, reason: "no such command".into() });
        }
        // The address that was freed last is given first: reuse is as early as it can be.
        let Some(address) = self.free.pop() else { return Outcome::default() };
        self.guests.insert(
            id,
            Guest {
                address: Some(address),
                booted: false,
                healthy: None,
                exited: None,
                leaving: false,
                spec: Arc::clone(spec),
            },
        );
        let slow = self.wild && self.rng.chance(50);
        let after = if slow { self.rng.between(5_000, 60_000) } else { self.rng.between(1, 400) };
        Outcome::later(after, HostEvent::Boot(id))
    }

    /// Destroys an instance.
    pub fn destroy(&mut self, id: InstanceId, grace: Millis, fence: Fence) -> Outcome {
        if self.refuses(fence) {
            return Outcome::default();
        }
        self.highest = self.highest.max(fence.term);
        // From here on its id is used up, even if the create that is on its way comes later.
        self.tombstones.insert(id);
        let Some(guest) = self.guests.get_mut(&id) else {
            return Outcome::say(Observation::InstanceDestroyed { id });
        };
        if guest.leaving {
            return Outcome::default();
        }
        guest.leaving = true;
        let deaf = self.wild && self.rng.chance(100);
        let after = match guest.exited {
            Some(_) => self.rng.between(1, 50),
            None if deaf => grace.0 + self.rng.between(1, 200),
            None => self.rng.between(1, grace.0.clamp(2, 500)),
        };
        Outcome::later(after, HostEvent::Gone(id))
    }

    /// Something happens to an instance. Its processes do not need the host's for that.
    pub fn happen(&mut self, event: &HostEvent) -> Outcome {
        match event {
            HostEvent::Boot(id) => self.boot(*id),
            HostEvent::Turn(id, healthy) => self.turn(*id, *healthy),
            HostEvent::Exit(id, status) => self.exit(*id, *status),
            HostEvent::Gone(id) => self.gone(*id),
        }
    }

    fn boot(&mut self, id: InstanceId) -> Outcome {
        let (wild, cured) = (self.wild, self.cured);
        if !self.up {
            return Outcome::default();
        }
        let Some(guest) = self.guests.get_mut(&id) else { return Outcome::default() };
        if guest.booted || guest.leaving {
            return Outcome::default();
        }
        guest.booted = true;
        let Some(address) = guest.address else { return Outcome::default() };
        let nature =
            if cured && !stacks::is_job(&guest.spec) { Nature::Good } else { stacks::nature(&guest.spec) };
        let later = life(nature, &guest.spec, wild, &mut self.rng, id);
        Outcome { later, said: vec![Observation::InstanceStarted { id, address }] }
    }

    fn turn(&mut self, id: InstanceId, healthy: bool) -> Outcome {
        let Some(guest) = self.guests.get_mut(&id) else { return Outcome::default() };
        if guest.spec.health.is_none()
            || guest.exited.is_some()
            || guest.leaving
            || guest.healthy == Some(healthy)
        {
            return Outcome::default();
        }
        guest.healthy = Some(healthy);
        Outcome::say(Observation::InstanceHealth { id, healthy, detail: "probe".into() })
    }

    fn exit(&mut self, id: InstanceId, status: ExitStatus) -> Outcome {
        let Some(guest) = self.guests.get_mut(&id) else { return Outcome::default() };
        if guest.exited.is_some() {
            return Outcome::default();
        }
        // Nobody sees how a process ends while the host is away, unless its init wrote it down.
        let status = if self.up || self.rng.chance(800) { status } else { ExitStatus::Unknown };
        guest.exited = Some(status);
        if self.plant == Some(Plant::ReuseAddressEarly)
            && let Some(address) = guest.address
        {
            self.free.push(address);
        }
        Outcome::say(Observation::InstanceExited { id, status })
    }

    fn gone(&mut self, id: InstanceId) -> Outcome {
        if !self.up {
            return Outcome::default();
        }
        let Some(guest) = self.guests.remove(&id) else { return Outcome::default() };
        let reused_already = self.plant == Some(Plant::ReuseAddressEarly) && guest.exited.is_some();
        if !reused_already {
            self.free.extend(guest.address);
        }
        Outcome::say(Observation::InstanceDestroyed { id })
    }

    /// Returns the complete list, for a controller that asked when `as_of` was its last position.
    pub fn list(&self, as_of: Position) -> Observation {
        let seen = |(id, guest): (&InstanceId, &Guest)| InstanceSeen {
            id: *id,
            address: guest.address.filter(|_| guest.booted),
            healthy: guest.healthy,
            exited: guest.exited,
        };
        Observation::Listed { as_of, instances: self.guests.iter().map(seen).collect() }
    }
}

/// What becomes of an instance, by its nature and by chance.
fn life(
    nature: Nature,
    spec: &InstanceSpec,
    wild: bool,
    rng: &mut Rng,
    id: InstanceId,
) -> Vec<(u64, HostEvent)> {
    let startup = spec.health.as_ref().map_or(0, |health| health.startup.0);
    let healthy_after = rng.between(1, 1_500);
    let exit = |code| HostEvent::Exit(id, ExitStatus::Code(code));
    if spec.health.is_none() && nature == Nature::NeverHealthy {
        // Without a probe nobody would ever know; such a version ends instead.
        return vec![(healthy_after, exit(1))];
    }
    match nature {
        Nature::Job(code) => vec![(rng.between(10, 8_000), exit(code))],
        Nature::Crashes => vec![(rng.between(1, 3_000), exit(1))],
        Nature::NeverHealthy | Nature::Refused => vec![(startup, HostEvent::Turn(id, false))],
        Nature::Good if wild => wild_life(healthy_after, startup, rng, id),
        Nature::Good => vec![(healthy_after, HostEvent::Turn(id, true))],
    }
}

fn wild_life(healthy_after: u64, startup: u64, rng: &mut Rng, id: InstanceId) -> Vec<(u64, HostEvent)> {
    let mut later = vec![(healthy_after, HostEvent::Turn(id, true))];
    match rng.below(100) {
        // Starts more slowly than its health check allows.
        0..4 => later = vec![(startup, HostEvent::Turn(id, false)), (startup * 2, HostEvent::Turn(id, true))],
        // Ends while it runs.
        4..10 => {
            let status = *rng.pick(&[ExitStatus::Code(0), ExitStatus::Code(70), ExitStatus::OutOfMemory]);
            later.push((rng.between(1, 120_000), HostEvent::Exit(id, status)));
        }
        // Flaps.
        10..15 => {
            let mut at = healthy_after;
            for turn in 0..rng.between(1, 9) {
                at += rng.between(1, 20_000);
                later.push((at, HostEvent::Turn(id, turn % 2 == 1)));
            }
        }
        // Lies: says that it is healthy, and is dead in the next moment.
        15..19 => later.push((healthy_after, HostEvent::Exit(id, ExitStatus::Signal(11)))),
        _ => {}
    }
    later
}
