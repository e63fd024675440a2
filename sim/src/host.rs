//! The host of the simulated world. To the controller it is a provider like any other, by [`SharedHost`]; to the world it
//! is what may be killed, and where something happens to instances.
//!
//! What the real one keeps on disk, this one keeps over a restart: the instances, the tombstones, the highest term.

mod feed;
mod port;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use kiln_model::instance::ExitStatus;
use kiln_model::{Fence, InstanceId, InstanceSpec, Term};
use kiln_provider::{
    CreateRequest, Cursor, DestroyRequest, InstanceStatus, Listing, ProviderError, Transition, Watched,
};

pub use feed::KEPT;
pub use port::SharedHost;

use crate::plant::Plant;
use crate::rng::Rng;
use crate::stacks::{self, Nature};
use feed::Feed;

/// A small world, so that a bug that reuses an address soon meets the old owner's traffic.
pub(crate) const ADDRESSES: u32 = 120;

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
    /// Why it can't be created, if so.
    pub refused: Option<String>,
    /// Whether it was asked to go.
    pub leaving: bool,
    /// Whether it fails its requests, whatever its probes say.
    pub ill: bool,
    asked: CreateRequest,
}

impl Guest {
    fn spec(&self) -> &InstanceSpec {
        &self.asked.spec
    }

    fn status(&self) -> InstanceStatus {
        InstanceStatus {
            id: self.asked.id,
            address: self.address.filter(|_| self.booted),
            healthy: self.healthy,
            exited: self.exited,
            refused: self.refused.clone(),
        }
    }

    /// What was told of it so far.
    fn history(&self) -> Vec<Transition> {
        let started = self.address.filter(|_| self.booted).map(|address| Transition::Started { address });
        let last = match (self.exited, &self.refused) {
            (Some(status), _) => Some(Transition::Exited { status }),
            (None, Some(reason)) => Some(Transition::Refused { reason: reason.clone() }),
            (None, None) => self.healthy.map(turned),
        };
        started.into_iter().chain(last).collect()
    }
}

/// The host.
#[derive(Debug)]
pub struct Host {
    /// Whether instances fail by themselves: crash, flap, lie, hang in shutdown.
    pub wild: bool,
    /// Whether an instance of a bad version is as good as any other.
    pub cured: bool,
    /// Whether its process runs. Instances run on without it.
    up: bool,
    guests: BTreeMap<InstanceId, Guest>,
    tombstones: BTreeSet<InstanceId>,
    highest: Term,
    addresses: u32,
    free: Vec<IpAddr>,
    /// The instances that came, went or got an address since this was last taken.
    moved: Vec<InstanceId>,
    feed: Feed,
    /// What it set going and nobody has taken up yet, each after so many milliseconds.
    later: Vec<(u64, HostEvent)>,
    plant: Option<Plant>,
    rng: Rng,
}

impl Host {
    /// Returns a host with nothing on it.
    pub fn new(rng: Rng, plant: Option<Plant>) -> Self {
        Self::with_addresses(rng, plant, ADDRESSES)
    }

    /// Returns one that can give out as many addresses.
    pub fn with_addresses(mut rng: Rng, plant: Option<Plant>, addresses: u32) -> Self {
        let first = u32::from(Ipv4Addr::new(10, 0, 0, 2));
        let free = (0..addresses).map(|n| IpAddr::V4(Ipv4Addr::from(first + n))).collect();
        Self {
            wild: true,
            cured: false,
            up: true,
            guests: BTreeMap::new(),
            tombstones: BTreeSet::new(),
            highest: Term(0),
            addresses,
            free,
            moved: Vec::new(),
            feed: Feed::new(&mut rng),
            later: Vec::new(),
            plant,
            rng,
        }
    }

    /// All that it has.
    pub fn guests(&self) -> &BTreeMap<InstanceId, Guest> {
        &self.guests
    }

    /// Whether one fails its requests.
    pub fn is_ill(&self, id: InstanceId) -> bool {
        self.guests.get(&id).is_some_and(|guest| guest.ill)
    }

    /// The instances that came or went since this was last asked.
    pub fn take_moved(&mut self) -> Vec<InstanceId> {
        std::mem::take(&mut self.moved)
    }

    /// Whether its process runs.
    pub const fn is_up(&self) -> bool {
        self.up
    }

    /// Its process dies; what it told is forgotten with it.
    pub const fn kill(&mut self) {
        self.up = false;
    }

    /// Its process is back, in a new life: goes on with what it had accepted, which is on its disk.
    pub fn restart(&mut self) {
        self.up = true;
        self.feed = Feed::new(&mut self.rng);
        for (id, guest) in &self.guests {
            if guest.leaving {
                self.later.push((self.rng.between(1, 500), HostEvent::Gone(*id)));
            } else if !guest.booted && guest.refused.is_none() {
                self.later.push((self.rng.between(1, 500), HostEvent::Boot(*id)));
            }
        }
    }

    /// What it has set going since this was last asked, and after how many milliseconds it happens.
    pub fn take_later(&mut self) -> Vec<(u64, HostEvent)> {
        std::mem::take(&mut self.later)
    }

    /// Whether an action of this fence is late.
    pub fn refuses(&self, fence: Fence) -> bool {
        fence.term < self.highest && self.plant != Some(Plant::AcceptOldFence)
    }

    fn admit(&mut self, fence: Fence) -> Result<(), ProviderError> {
        if self.refuses(fence) {
            return Err(ProviderError::Fenced { asked: fence.term, seen: self.highest });
        }
        self.highest = self.highest.max(fence.term);
        Ok(())
    }

    /// Tells who watches; without its process there is nobody to tell.
    fn tell(&mut self, id: InstanceId, transition: Transition) {
        if self.up {
            self.feed.tell(id, transition);
        }
    }

    fn create(&mut self, request: &CreateRequest) -> Result<(), ProviderError> {
        self.admit(request.fence)?;
        let id = request.id;
        if self.tombstones.contains(&id) {
            return Err(ProviderError::Tombstoned(id));
        }
        if let Some(guest) = self.guests.get(&id) {
            if !is_same(&guest.asked, request) {
                return Err(ProviderError::Refused {
                    reason: format!("instance {id} exists with another spec"),
                });
            }
            // Idempotent: a repeated call is told what the first one came to.
            guest.history().into_iter().for_each(|transition| self.feed.tell(id, transition));
            return Ok(());
        }
        // The address that was freed last is given first: reuse is as early as it can be.
        let Some(address) = self.free.pop() else {
            return Err(ProviderError::Refused { reason: "every address is taken".into() });
        };
        let guest = Guest {
            address: Some(address),
            booted: false,
            healthy: None,
            exited: None,
            refused: None,
            leaving: false,
            ill: false,
            asked: request.clone(),
        };
        self.guests.insert(id, guest);
        self.moved.push(id);
        let slow = self.wild && self.rng.chance(50);
        let after = if slow { self.rng.between(5_000, 60_000) } else { self.rng.between(1, 400) };
        self.later.push((after, HostEvent::Boot(id)));
        Ok(())
    }

    fn destroy(&mut self, request: &DestroyRequest) -> Result<(), ProviderError> {
        self.admit(request.fence)?;
        let (id, grace) = (request.id, request.grace);
        // From here on its id is used up, even if the create that is on its way comes later.
        self.tombstones.insert(id);
        let Some(guest) = self.guests.get_mut(&id) else {
            self.tell(id, Transition::Destroyed);
            return Ok(());
        };
        if guest.leaving {
            return Ok(());
        }
        guest.leaving = true;
        let deaf = self.wild && self.rng.chance(100);
        let after = match (guest.exited, &guest.refused) {
            (Some(_), _) | (_, Some(_)) => self.rng.between(1, 50),
            (None, None) if deaf => grace.0 + self.rng.between(1, 200),
            (None, None) => self.rng.between(1, grace.0.clamp(2, 500)),
        };
        self.later.push((after, HostEvent::Gone(id)));
        Ok(())
    }

    fn list(&self) -> Listing {
        Listing { cursor: self.feed.cursor(), instances: self.guests.values().map(Guest::status).collect() }
    }

    fn after(&self, cursor: Cursor) -> Option<Watched> {
        self.feed.after(cursor)
    }

    /// Something happens to an instance. Its processes do not need the host's for that.
    pub fn happen(&mut self, event: &HostEvent) {
        match event {
            HostEvent::Boot(id) => self.boot(*id),
            HostEvent::Turn(id, healthy) => self.turn(*id, *healthy),
            HostEvent::Exit(id, status) => self.exit(*id, *status),
            HostEvent::Gone(id) => self.gone(*id),
        }
    }

    fn boot(&mut self, id: InstanceId) {
        let (up, wild, cured) = (self.up, self.wild, self.cured);
        let Some(guest) = self
            .guests
            .get_mut(&id)
            .filter(|guest| up && !guest.booted && !guest.leaving && guest.refused.is_none())
        else {
            return;
        };
        let born = stacks::nature(guest.spec());
        let nature = if cured && !stacks::is_job(guest.spec()) { Nature::Good } else { born };
        if nature == Nature::Refused {
            let reason = String::from("no such command");
            guest.refused = Some(reason.clone());
            return self.tell(id, Transition::Refused { reason });
        }
        guest.booted = true;
        guest.ill = nature == Nature::Lies || (wild && self.rng.chance(30));
        let Some(address) = guest.address else { return };
        self.later.extend(life(nature, guest.spec(), wild, &mut self.rng, id));
        self.tell(id, Transition::Started { address });
    }

    fn turn(&mut self, id: InstanceId, healthy: bool) {
        let Some(guest) = self.guests.get_mut(&id) else { return };
        if guest.spec().health.is_none()
            || guest.exited.is_some()
            || guest.leaving
            || guest.healthy == Some(healthy)
        {
            return;
        }
        guest.healthy = Some(healthy);
        self.tell(id, turned(healthy));
    }

    fn exit(&mut self, id: InstanceId, status: ExitStatus) {
        let Some(guest) = self.guests.get_mut(&id) else { return };
        if guest.exited.is_some() {
            return;
        }
        // Nobody sees how a process ends while the host is away, unless its init wrote it down.
        let status = if self.up || self.rng.chance(800) { status } else { ExitStatus::Unknown };
        guest.exited = Some(status);
        if self.plant == Some(Plant::ReuseAddressEarly)
            && let Some(address) = guest.address
        {
            self.free.push(address);
        }
        self.tell(id, Transition::Exited { status });
    }

    fn gone(&mut self, id: InstanceId) {
        if !self.up {
            return;
        }
        let Some(guest) = self.guests.remove(&id) else { return };
        self.moved.push(id);
        let reused_already = self.plant == Some(Plant::ReuseAddressEarly) && guest.exited.is_some();
        if !reused_already {
            self.free.extend(guest.address);
        }
        self.tell(id, Transition::Destroyed);
    }
}

fn turned(healthy: bool) -> Transition {
    Transition::Health { healthy, detail: "probe".into() }
}

/// A repeated action is issued by a later term, perhaps; what is asked for must be the same.
fn is_same(known: &CreateRequest, asked: &CreateRequest) -> bool {
    known.spec == asked.spec && known.env == asked.env && known.service == asked.service
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
        Nature::Good | Nature::Lies if wild => wild_life(healthy_after, startup, rng, id),
        Nature::Good | Nature::Lies => vec![(healthy_after, HostEvent::Turn(id, true))],
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
        // Its probe fails for good although it answers.
        19..23 => later.push((healthy_after + rng.between(1, 60_000), HostEvent::Turn(id, false))),
        // Lies: says that it is healthy, and is dead in the next moment.
        15..19 => later.push((healthy_after, HostEvent::Exit(id, ExitStatus::Signal(11)))),
        _ => {}
    }
    later
}
