//! Never fewer than the allowed healthy instances behind a route because of a rollout.
//!
//! Two views. In the log, of every history: no shift of traffic takes a service below what its strategy allows, by what
//! the log knew. At the edge, of the histories in which instances don't fail by themselves: no table that is served leaves
//! fewer instances that really are healthy.

use std::collections::{BTreeMap, BTreeSet};

use kiln_core::State;
use kiln_core::state::{Environment, Health, Instance};
use kiln_model::rollout::BASELINE_FIRST;
use kiln_model::route::{Group, PoolKey};
use kiln_model::service::{ServiceKind, Strategy};
use kiln_model::{EnvKey, Fence, InstanceId, RevisionNumber, ServiceName, Weight};

use crate::Violation;
use crate::edge::Edge;
use crate::host::Host;

/// Remembers what was before.
#[derive(Debug, Default)]
pub struct Floor {
    shifted: BTreeSet<ServiceName>,
    routed: BTreeMap<ServiceName, u32>,
    allowed: BTreeMap<ServiceName, u32>,
    served: Option<Fence>,
    ready: BTreeMap<PoolKey, u32>,
    /// The lowest that was allowed since the table that is served was decided.
    lowest: BTreeMap<PoolKey, u32>,
}

impl Floor {
    /// Remembers what is routed before an entry that shifts traffic of an environment, of the services whose traffic it shifts.
    pub fn before(&mut self, state: &State, env: &EnvKey, weights: &[(InstanceId, Weight)]) {
        let instances = weights.iter().filter_map(|(id, _)| state.instance(*id)?.slot());
        self.shifted = instances.map(|(service, _)| service.clone()).collect();
        self.routed = healthy(state, env, &self.shifted, is_stable);
        self.allowed.clear();
        for service in self.routed.keys() {
            self.allowed.insert(service.clone(), allowed(state, env, service));
        }
    }

    /// Checks what is routed after it.
    ///
    /// # Errors
    /// A service has fewer healthy instances than it had, and fewer than its strategy allows.
    pub fn after(&mut self, state: &State, env: &EnvKey) -> Result<(), Violation> {
        let routed = healthy(state, env, &self.shifted, |_, _| true);
        for (service, before) in &self.routed {
            let allowed = allowed(state, env, service).min(self.allowed[service]);
            let now = routed.get(service).copied().unwrap_or(0);
            if now < *before && now < allowed {
                return Err(Violation::new(
                    "never fewer than the allowed healthy instances behind a route",
                    format!(
                        "{env}/{service} has {now} of {before}, {allowed} allowed, in the log at {}",
                        state.position()
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Remembers the lowest that was allowed while a table was on its way.
    pub fn note(&mut self, state: &State) {
        for key in self.ready.keys() {
            let allowed = allowed(state, &key.env, &key.service);
            let lowest = self.lowest.entry(key.clone()).or_insert(allowed);
            *lowest = allowed.min(*lowest);
        }
    }

    /// Checks what the edge serves: all of it, or the pools that changed.
    ///
    /// # Errors
    /// As [`Floor::after`], by what is really so.
    pub fn served(
        &mut self,
        (edge, changed): (&Edge, Option<&BTreeSet<PoolKey>>),
        host: &Host,
        state: &State,
    ) -> Result<(), Violation> {
        let Some(table) = edge.served() else { return Ok(()) };
        if self.served == Some(table.fence) {
            return Ok(());
        }
        self.served = Some(table.fence);
        let is_ready = |id: InstanceId| {
            host.guests().get(&id).is_some_and(|guest| guest.healthy == Some(true) && guest.exited.is_none())
        };
        let (mut ready, mut stable) = (BTreeMap::new(), BTreeMap::new());
        for (key, pool) in &table.pools {
            if let Some(known) = self.ready.get(key).filter(|_| changed.is_some_and(|it| !it.contains(key))) {
                // Nobody falls ill by himself in a world that looks at what changed alone.
                ready.insert(key.clone(), *known);
                stable.insert(key.clone(), *known);
                continue;
            }
            // Who has no weight gets copies alone.
            let live = || pool.backends.iter().filter(|backend| backend.weight > Weight::ZERO);
            let backends = || live().filter(|backend| is_ready(backend.instance));
            ready.insert(key.clone(), backends().count() as u32);
            let rested_on = backends().filter(|backend| backend.group == Group::Stable);
            stable.insert(key.clone(), rested_on.count() as u32);
        }
        for (key, before) in &self.ready {
            // Without a rule that leads to it there is no pool: the routes were taken away on purpose.
            let Some(now) = ready.get(key).copied() else { continue };
            let now_allowed = allowed(state, &key.env, &key.service);
            let allowed = self.lowest.get(key).map_or(now_allowed, |lowest| now_allowed.min(*lowest));
            if now < *before && now < allowed {
                return Err(Violation::new(
                    "never fewer than the allowed healthy instances behind a route",
                    format!("{key} has {now} of {before}, {allowed} allowed, at the edge in {}", table.fence),
                ));
            }
        }
        self.ready = stable;
        self.lowest.clear();
        self.note(state);
        Ok(())
    }
}

/// Whether a service rests on an instance: whether it does the work of its slot. A canary and its baseline come on top of
/// that, and may go again.
fn is_stable(env: &Environment, instance: &Instance) -> bool {
    let Some((service, ordinal)) = instance.slot() else { return false };
    if env.rollout.is_none() {
        return true;
    }
    let duty = env.slot(service, ordinal).and_then(|slot| slot.duty);
    let wanted = env.service(duty, service).map(|service| service.spec_digest);
    Some(instance.spec_digest) == wanted && ordinal < BASELINE_FIRST
}

/// How many of these instances of each of these services are routed and healthy, by what the log knows.
fn healthy(
    state: &State,
    env: &EnvKey,
    services: &BTreeSet<ServiceName>,
    counts_it: impl Fn(&Environment, &Instance) -> bool,
) -> BTreeMap<ServiceName, u32> {
    let mut counts = BTreeMap::new();
    let Some(env) = state.environment(env) else { return counts };
    let slots = services.iter().filter_map(|name| env.services.get(name)).flat_map(|it| it.slots.values());
    let instances = slots.flat_map(|slot| &slot.instances).filter_map(|id| state.instance(*id));
    for instance in instances.filter(|instance| counts_it(env, instance)) {
        let is_healthy = instance.health == Health::Healthy && instance.exit.is_none();
        if let Some((service, _)) = instance.slot().filter(|_| instance.is_routed() && is_healthy) {
            *counts.entry(service.clone()).or_default() += 1;
        }
    }
    counts
}

/// How many healthy instances a service has to have whatever is going on.
fn allowed(state: &State, env: &EnvKey, service: &ServiceName) -> u32 {
    let Some(env) = state.environment(env) else { return 0 };
    let rollout = env.rollout.as_deref();
    let revisions = match rollout {
        Some(rollout) => vec![rollout.from, rollout.to, env.current, env.routes],
        None => vec![env.current, env.routes],
    };
    revisions.into_iter().map(|revision| allowed_at(env, revision, service)).min().unwrap_or(0)
}

fn allowed_at(env: &Environment, revision: Option<RevisionNumber>, name: &ServiceName) -> u32 {
    let Some(service) = env.service(revision, name).filter(|found| found.kind == ServiceKind::Service) else {
        return 0;
    };
    let replicas = env.replicas(revision, name);
    match service.strategy {
        Strategy::BlueGreen | Strategy::Canary(_) => replicas,
        Strategy::Rolling { max_unavailable, .. } => replicas.saturating_sub(max_unavailable),
        Strategy::StopThenStart => 0,
    }
}
