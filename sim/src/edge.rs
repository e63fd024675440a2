//! The edge of the simulated world: serves one table, and keeps it on disk before it acknowledges it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kiln_core::Observation;
use kiln_model::route::{Group, Listener, PoolKey, RouteTable, Sampling};
use kiln_model::sample::{GroupSamples, WindowSamples};
use kiln_model::{Fence, InstanceId, Term};

use crate::plant::Plant;
use crate::rng::Rng;

/// What will happen at the edge.
#[derive(Debug, Clone)]
pub enum EdgeEvent {
    /// A table is on disk and served.
    Serve(Arc<RouteTable>),
    /// What was in flight to an instance has ended.
    Idle(InstanceId, Fence),
    /// It is asked what it counted of a pool.
    Count(PoolKey, Sampling),
}

/// What a call leads to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What happens later, after so many milliseconds.
    pub later: Vec<(u64, EdgeEvent)>,
    /// What the controller is told.
    pub said: Vec<Observation>,
}

/// The proxy.
#[derive(Debug)]
pub struct Edge {
    /// Whether its process runs.
    pub up: bool,
    /// Whether it is slow, and requests are in flight for longer than any drain waits.
    pub wild: bool,
    /// Sockets that something else on the machine holds.
    pub taken: BTreeSet<Listener>,
    /// The table on disk, which is the one that is served whenever the process runs.
    served: Option<Arc<RouteTable>>,
    open: BTreeSet<Listener>,
    /// The highest fence of an action on each socket: a late close must not shut what was opened again since.
    sockets: BTreeMap<Listener, Fence>,
    highest: Term,
    plant: Option<Plant>,
    rng: Rng,
}

impl Edge {
    /// Returns an edge that serves nothing.
    pub fn new(rng: Rng, plant: Option<Plant>) -> Self {
        Self {
            up: true,
            wild: true,
            taken: BTreeSet::new(),
            served: None,
            open: BTreeSet::new(),
            sockets: BTreeMap::new(),
            highest: Term(0),
            plant,
            rng,
        }
    }

    /// The table that it serves, or will serve when its process is back.
    pub fn served(&self) -> Option<&Arc<RouteTable>> {
        self.served.as_ref()
    }

    /// The sockets that it accepts connections on.
    pub fn listeners(&self) -> &BTreeSet<Listener> {
        &self.open
    }

    /// Whether requests go to this instance.
    pub fn routes_to(&self, id: InstanceId) -> bool {
        self.served
            .iter()
            .flat_map(|table| table.pools.values())
            .flat_map(|pool| &pool.backends)
            .any(|backend| backend.instance == id)
    }

    /// A controller connects: it is told what is served.
    pub fn hello(&self) -> Vec<Observation> {
        let table = self.served.iter().map(|table| Observation::TableAcknowledged { fence: table.fence });
        let open = self.open.iter().map(|listener| {
            let fence = self.sockets.get(listener).copied().unwrap_or_default();
            Observation::ListenerOpened { listener: *listener, fence }
        });
        table.chain(open).collect()
    }

    /// Whether an action of this fence is late.
    pub fn refuses(&mut self, fence: Fence) -> bool {
        let late = fence.term < self.highest && self.plant != Some(Plant::AcceptOldFence);
        self.highest = fence.term.max(self.highest);
        late
    }

    fn is_older(&self, table: &RouteTable) -> bool {
        let served = self.served.as_ref().map_or_else(Fence::default, |table| table.fence);
        table.fence < served && self.plant != Some(Plant::AcceptOldFence)
    }

    fn is_late_for(&mut self, listener: Listener, fence: Fence) -> bool {
        let highest = self.sockets.entry(listener).or_default();
        let late = fence < *highest && self.plant != Some(Plant::AcceptOldFence);
        *highest = fence.max(*highest);
        late || self.refuses(fence)
    }

    /// Takes a table in.
    pub fn publish(&mut self, table: &Arc<RouteTable>) -> Outcome {
        if self.refuses(table.fence) || self.is_older(table) {
            return Outcome::default();
        }
        let slow = self.wild && self.rng.chance(50);
        let after = if slow { self.rng.between(500, 9_000) } else { self.rng.between(1, 30) };
        let mut outcome = Outcome { later: vec![(after, EdgeEvent::Serve(Arc::clone(table)))], said: vec![] };
        for (key, pool) in &table.pools {
            let Some(sampling) = pool.sampling else { continue };
            for most in [3_000, 60_000] {
                let when = after + self.rng.between(1, most);
                outcome.later.push((when, EdgeEvent::Count(key.clone(), sampling)));
            }
        }
        if self.plant == Some(Plant::RetireBeforeAck) {
            outcome.said.push(Observation::TableAcknowledged { fence: table.fence });
        }
        outcome
    }

    /// Is asked to tell when nothing is in flight to an instance.
    pub fn await_idle(&mut self, id: InstanceId, fence: Fence) -> Outcome {
        if self.refuses(fence) {
            return Outcome::default();
        }
        let stuck = self.wild && self.rng.chance(100);
        let after = if stuck { self.rng.between(10_000, 60_000) } else { self.rng.between(1, 2_000) };
        Outcome { later: vec![(after, EdgeEvent::Idle(id, fence))], said: vec![] }
    }

    /// Is given a socket.
    pub fn open(&mut self, listener: Listener, fence: Fence) -> Outcome {
        if self.is_late_for(listener, fence) {
            return Outcome::default();
        }
        let said = if self.taken.contains(&listener) {
            Observation::ListenerFailed { listener, fence, reason: "address in use".into() }
        } else {
            self.open.insert(listener);
            Observation::ListenerOpened { listener, fence }
        };
        Outcome { later: vec![], said: vec![said] }
    }

    /// Is told to let go of a socket.
    pub fn close(&mut self, listener: Listener, fence: Fence) -> Outcome {
        if self.is_late_for(listener, fence) {
            return Outcome::default();
        }
        self.open.remove(&listener);
        Outcome { later: vec![], said: vec![Observation::ListenerClosed { listener, fence }] }
    }

    /// Something happens. Nothing does while the process is down.
    pub fn happen(&mut self, event: EdgeEvent) -> Vec<Observation> {
        if !self.up {
            return Vec::new();
        }
        match event {
            EdgeEvent::Serve(table) if self.is_older(&table) => Vec::new(),
            EdgeEvent::Serve(table) => {
                let fence = table.fence;
                self.served = Some(table);
                vec![Observation::TableAcknowledged { fence }]
            }
            EdgeEvent::Idle(id, _) if self.routes_to(id) => Vec::new(),
            EdgeEvent::Idle(id, fence) => vec![Observation::BackendIdle { id, fence }],
            EdgeEvent::Count(key, sampling) => {
                let pool = self.served.as_ref().and_then(|table| table.pools.get(&key));
                if pool.is_none_or(|pool| pool.sampling != Some(sampling)) {
                    return Vec::new();
                }
                let samples = Arc::new(self.count());
                vec![Observation::Sampled { env: key.env, service: key.service, sampling, samples }]
            }
        }
    }

    /// No traffic, little of it, or much; the canary is as good as the baseline or much worse.
    fn count(&mut self) -> WindowSamples {
        let requests = *self.rng.pick(&[0, 30, 20_000]);
        let failing = *self.rng.pick(&[0, 0, 2, 10]);
        let group = |failures: u64| GroupSamples {
            ok: requests - failures,
            server_error: failures,
            ..GroupSamples::default()
        };
        let canary = group(requests * failing / 20);
        [(Group::Stable, group(0)), (Group::Baseline, group(0)), (Group::Canary, canary)].into()
    }
}
