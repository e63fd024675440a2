//! The edge of the simulated world: serves one table, and keeps it on disk before it acknowledges it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use kiln_core::Observation;
use kiln_model::route::{Group, Listener, Pool, PoolKey, RouteTable, Sampling};
use kiln_model::sample::WindowSamples;
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
    /// To whom requests go: in how many pools each is, and at which address.
    routed: BTreeMap<InstanceId, (u32, IpAddr)>,
    /// The pools that differ from those of the table before, since this was last taken.
    changed: BTreeSet<PoolKey>,
    /// The table that came in last: counts are asked for where it differs from the one before, in a world so large that to ask
    /// for all of them each time would take longer than all else.
    counts_changes: Option<Arc<RouteTable>>,
    /// Whether the world is that large.
    pub is_large: bool,
    open: BTreeSet<Listener>,
    /// The highest fence of an action on each socket: a late close must not shut what was opened again since.
    sockets: BTreeMap<Listener, Fence>,
    highest: Term,
    /// Requests to a service between two counts, on average.
    pub requests: u64,
    /// What was counted of each pool since its window began; kept over a restart of its process, as the real ledger is.
    counted: BTreeMap<PoolKey, (Sampling, WindowSamples)>,
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
            routed: BTreeMap::new(),
            changed: BTreeSet::new(),
            counts_changes: None,
            is_large: false,
            open: BTreeSet::new(),
            sockets: BTreeMap::new(),
            highest: Term(0),
            requests: 0,
            counted: BTreeMap::new(),
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
        self.routed.contains_key(&id)
    }

    /// The address at which requests go to this instance.
    pub fn address_of(&self, id: InstanceId) -> Option<IpAddr> {
        self.routed.get(&id).map(|(_, address)| *address)
    }

    /// The pools that changed, came or went since this was last asked.
    pub fn take_changed(&mut self) -> BTreeSet<PoolKey> {
        std::mem::take(&mut self.changed)
    }

    fn serve(&mut self, table: Arc<RouteTable>) {
        let before = self.served.replace(Arc::clone(&table));
        let old = before.iter().flat_map(|table| &table.pools);
        for (key, pool) in old.filter(|(key, pool)| table.pools.get(key) != Some(pool)) {
            self.changed.insert(key.clone());
            for backend in &pool.backends {
                if let Entry::Occupied(mut found) = self.routed.entry(backend.instance) {
                    found.get_mut().0 -= 1;
                    if found.get().0 == 0 {
                        found.remove();
                    }
                }
            }
        }
        let was = |key: &PoolKey| before.as_ref().and_then(|before| before.pools.get(key));
        for (key, pool) in table.pools.iter().filter(|(key, pool)| was(key) != Some(pool)) {
            self.changed.insert(key.clone());
            for backend in &pool.backends {
                self.routed.entry(backend.instance).or_insert((0, backend.address.ip())).0 += 1;
            }
        }
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
        let last = self.counts_changes.replace(Arc::clone(table)).filter(|_| self.is_large);
        let is_new = |key: &PoolKey, pool: &Arc<Pool>| {
            last.as_ref().and_then(|last| last.pools.get(key)) != Some(pool)
        };
        for (key, pool) in table.pools.iter().filter(|(key, pool)| is_new(key, pool)) {
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

    /// Something happens; the instances that are ill fail their requests. Nothing does while the process is down.
    pub fn happen(&mut self, event: EdgeEvent, is_ill: impl Fn(InstanceId) -> bool) -> Vec<Observation> {
        if !self.up {
            return Vec::new();
        }
        match event {
            EdgeEvent::Serve(table) if self.is_older(&table) => Vec::new(),
            EdgeEvent::Serve(mut table) => {
                if self.plant == Some(Plant::MixUpRevisions) {
                    mix_up(Arc::make_mut(&mut table));
                }
                let fence = table.fence;
                self.serve(table);
                vec![Observation::TableAcknowledged { fence }]
            }
            EdgeEvent::Idle(id, _) if self.routes_to(id) => Vec::new(),
            EdgeEvent::Idle(id, fence) => vec![Observation::BackendIdle { id, fence }],
            EdgeEvent::Count(key, sampling) => {
                let pool = self.served.as_ref().and_then(|table| table.pools.get(&key));
                let Some(pool) = pool.filter(|pool| pool.sampling == Some(sampling)).cloned() else {
                    return Vec::new();
                };
                let samples = Arc::new(self.count(&key, &pool, sampling, is_ill));
                vec![Observation::Sampled { env: key.env, service: key.service, sampling, samples }]
            }
        }
    }

    /// Counts what came since it last did, by what the instances are: who is ill fails two of three requests.
    fn count(
        &mut self,
        key: &PoolKey,
        pool: &Pool,
        sampling: Sampling,
        is_ill: impl Fn(InstanceId) -> bool,
    ) -> WindowSamples {
        let came = if self.requests == 0 { 0 } else { self.rng.below(2 * self.requests + 1) };
        let all: u64 = pool.backends.iter().map(|backend| u64::from(backend.weight.per_mille())).sum();
        let known = self.counted.get(key).filter(|(window, _)| *window == sampling);
        let mut samples = known.map(|(_, samples)| samples.clone()).unwrap_or_default();
        for group in [Group::Stable, Group::Baseline, Group::Canary] {
            samples.entry(group).or_default();
        }
        for backend in &pool.backends {
            let share = came * u64::from(backend.weight.per_mille()) / all.max(1);
            let failed = if is_ill(backend.instance) { share * 2 / 3 } else { 0 };
            let group = samples.get_mut(&backend.group).expect("every group is there: inserted above");
            group.ok += share - failed;
            group.server_error += failed;
        }
        self.counted.insert(key.clone(), (sampling, samples.clone()));
        samples
    }
}

fn mix_up(table: &mut RouteTable) {
    let first = table.pools.values_mut().find(|pool| !pool.backends.is_empty());
    if let Some(backend) = first.and_then(|pool| Arc::make_mut(pool).backends.first_mut()) {
        backend.revision.0 += 1;
    }
}
