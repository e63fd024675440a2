//! A world of so many instances that not everything can be looked at after every happening.

use std::collections::BTreeSet;

use kiln_core::Command;
use kiln_model::event::{EnvironmentEvent, InstanceEvent, RolloutEvent, TrafficEvent};
use kiln_model::rollout::Step;
use kiln_model::route::PoolKey;
use kiln_model::{Entry, Event, InstanceId, Position};

use super::{Happening, World};
use crate::edge::Edge;
use crate::faults::{Fault, Faults};
use crate::host::{Host, SharedHost};
use crate::rng::Rng;
use crate::{Violation, honest, invariants};

/// Inputs that the controller gets through in a millisecond of its own time. What comes meanwhile is decided with the next step:
/// in small worlds a step takes no time, and there each of a hundred thousand would be a step of its own.
const INPUTS_PER_MS: u64 = 20;

/// Instances among which it finds in a millisecond what is outstanding.
const INSTANCES_PER_MS: u64 = 2_000;

/// Of so many decisions one is followed by a look at the whole state.
const CHECKED_EVERY: u64 = 20;

impl World {
    /// A world without users, in which nothing goes wrong by itself: of as many instances, old and new ones side by side.
    pub(crate) fn large(seed: u64, size: u32) -> Self {
        let mut world = Self::new(seed, None, false);
        world.faults = Faults::none();
        world.queue = Default::default();
        world.queue.add(0, Happening::Start);
        let mut rng = Rng::new(seed);
        let mut host = Host::with_addresses(rng.fork(), None, size.saturating_mul(2).saturating_add(100));
        host.wild = false;
        world.host = SharedHost::new(host);
        world.edge = Edge::new(rng.fork(), None);
        (world.edge.wild, world.edge.is_large, world.peace) = (false, true, true);
        world.machine.borrow_mut().unknown_per_mille = 0;
        world
    }

    /// Asks for something, and turns until the rollout that follows is over.
    pub(crate) fn carry_out(&mut self, command: Command, within: u64) -> Result<(), Violation> {
        let until = self.now() + within;
        let asked = self.stats.acknowledged + self.stats.refused;
        self.ask(command);
        self.turn(until, |world| world.stats.acknowledged + world.stats.refused > asked)?;
        self.turn(until, |world| world.witness.state().environments().all(|env| env.rollout.is_none()))
    }

    /// Lets something go wrong at a moment.
    pub(crate) fn strike_at(&mut self, at: u64, fault: Fault) {
        self.queue.add(at, Happening::Fault(fault));
    }

    /// Looks at everything that is looked at after each happening of a small world.
    pub(crate) fn check_all(&mut self) -> Result<(), Violation> {
        let host = self.host.lock();
        invariants::check_routing(&self.edge, &host)?;
        honest::check_served(&self.edge, self.witness.state())
    }

    /// Checks what must hold whenever a decision is complete; in a large world, of the services whose requests it is about, and now and
    /// then of all.
    pub(super) fn check_decided(&self, news: &[Entry]) -> Result<(), Violation> {
        if !self.edge.is_large || self.stats.steps.is_multiple_of(CHECKED_EVERY) {
            return self.witness.check_decided();
        }
        let state = self.witness.state();
        let mut services = BTreeSet::new();
        for entry in news {
            match &entry.event {
                Event::Traffic(TrafficEvent::Shifted { weights }) => {
                    let instances = weights.iter().filter_map(|(id, _)| state.instance(*id)?.slot());
                    services.extend(instances.map(|(service, _)| service));
                }
                Event::Rollout(RolloutEvent::StepStarted { index, .. }) => {
                    let env = entry.env.as_ref().and_then(|env| state.environment(env));
                    let steps = env.and_then(|env| env.rollout.as_ref()).map(|rollout| &rollout.steps);
                    if let Some(Step::Split { service, .. }) = steps.and_then(|it| it.get(*index as usize)) {
                        services.insert(service);
                    }
                }
                _ => {}
            }
        }
        honest::check_traffic_of(state, |service| services.contains(service))
    }

    /// When the controller is done with a step of so many inputs.
    pub(super) fn busy_until(&self, inputs: usize) -> u64 {
        if !self.edge.is_large {
            return 0;
        }
        let instances = self.host.lock().guests().len() as u64;
        self.now() + inputs as u64 / INPUTS_PER_MS + instances / INSTANCES_PER_MS
    }

    /// Checks what is served where it changed: pools, instances that came or went, and what the log says since `read`.
    pub(super) fn check_changes(
        &self,
        host: &Host,
        changed: &BTreeSet<PoolKey>,
        moved: &[InstanceId],
        read: Position,
    ) -> Result<(), Violation> {
        let Some(table) = self.edge.served().filter(|_| self.edge.up) else { return Ok(()) };
        let state = self.witness.state();
        for (key, pool) in changed.iter().filter_map(|key| table.pools.get_key_value(key)) {
            invariants::check_pool(key, pool, host)?;
            honest::check_pool(key, pool, state)?;
        }
        for id in moved {
            invariants::check_moved(&self.edge, host, *id)?;
        }
        let machine = self.machine.borrow();
        for entry in machine.durable.get(read.0 as usize..).unwrap_or_default() {
            match &entry.event {
                Event::Instance(id, InstanceEvent::Destroyed) => invariants::check_unrouted(&self.edge, *id)?,
                Event::Environment(EnvironmentEvent::RevisionReleased { .. }) => {
                    honest::check_served(&self.edge, state)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}
