//! From the state to what the edge serves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use kiln_model::route::{Backend, Group, Listener, Mirror, Pool, PoolKey, RouteTable, Rule, Sampling};
use kiln_model::service::{Audience, Strategy};
use kiln_model::{Fence, InstanceSpec, PortName, RevisionNumber, ServiceName, Weight};

use crate::serving::{Wants, is_routed};
use crate::split;
use crate::state::{Environment, Instance, ListenerPhase, Slot, State};

/// Returns what the edge is to serve.
///
/// A pure function of the weights and of the routes that each environment serves, so it changes only with an event that
/// makes a new version.
pub fn route_table(state: &State) -> RouteTable {
    let fence = Fence { term: state.term, position: state.table.version };
    let mut table = RouteTable { fence, ..RouteTable::default() };
    for env in state.environments() {
        add_environment(&mut table, state, env);
    }
    table
}

fn add_environment(table: &mut RouteTable, state: &State, env: &Environment) {
    let served = env.spec(env.routes);
    for route in served.into_iter().flat_map(|spec| spec.routes.values()) {
        let service = env.service(env.routes, &route.to.service);
        let Some(number) = service.and_then(|service| service.spec.ports.get(&route.to.port)) else {
            continue;
        };
        let pool = PoolKey { env: env.key.clone(), service: route.to.service.clone(), port: *number };
        add_pool(table, state, env, &pool, &route.to.port);
        let listener = Listener::Public(route.listen);
        table.rules.push(Rule { listener, host: route.host.clone(), path: route.path.clone(), pool });
    }
    let listener = Listener::Internal(env.index);
    let found = state.listeners.get(&listener).map(|found| &found.phase);
    if matches!(found, Some(ListenerPhase::Open { .. })) {
        add_internal(table, state, env, listener);
    }
}

/// The instances of a service to which requests are sent, by ordinal.
fn routed<'a>(
    state: &'a State,
    env: &'a Environment,
    service: &ServiceName,
) -> impl Iterator<Item = &'a Instance> {
    let slots = env.services.get(service).into_iter().flat_map(|service| service.slots.values());
    let instances = slots.flat_map(|slot| &slot.instances).filter_map(|id| state.instance(*id));
    instances.filter(|instance| instance.is_routed())
}

/// Every service is reached by name: those of the revision that is served, and those that have routed instances already.
fn add_internal(table: &mut RouteTable, state: &State, env: &Environment, listener: Listener) {
    let mut ports: BTreeMap<&ServiceName, (&PortName, u16)> = BTreeMap::new();
    for name in env.services.keys() {
        let newest = routed(state, env, name).max_by_key(|instance| instance.requested);
        if let Some(port) = newest.and_then(|instance| main_port(&instance.spec)) {
            ports.insert(name, port);
        }
    }
    for (name, service) in env.spec(env.routes).into_iter().flat_map(|spec| &spec.services) {
        if let Some(port) = main_port(&service.spec).filter(|_| is_routed(service)) {
            ports.insert(name, port);
        }
    }
    for (name, (port, number)) in ports {
        let pool = PoolKey { env: env.key.clone(), service: name.clone(), port: number };
        add_pool(table, state, env, &pool, port);
        let host = Some(internal_host(name, env));
        table.rules.push(Rule { listener, host, path: "/".to_owned(), pool });
    }
}

fn add_pool(table: &mut RouteTable, state: &State, env: &Environment, key: &PoolKey, port: &PortName) {
    if table.pools.contains_key(key) {
        return;
    }
    let wants = Wants::new(env, &key.service);
    let split = env.rollout.as_ref().and_then(|rollout| rollout.splits.get(&key.service));
    let is_apart = split::is_apart(env, &key.service, Some(Group::Canary));
    // A backend listens where its own spec says: during a rollout a port may have two numbers.
    let backend = |ordinal: u32, slot: &Slot, instance: &Instance| {
        let number = instance.spec.ports.get(port)?;
        // Outside of a canary all are alike.
        let of_slot = split.and_then(|_| split::group(&wants.roles(ordinal, slot), ordinal, instance));
        let group = of_slot.unwrap_or_default();
        Some(Backend {
            instance: instance.id,
            revision: instance.revision().unwrap_or(RevisionNumber(0)),
            address: SocketAddr::new(instance.address?, *number),
            weight: if is_apart && group == Group::Canary { Weight::ZERO } else { instance.weight },
            group,
        })
    };
    let mut backends = Vec::new();
    for (ordinal, slot) in env.services.get(&key.service).into_iter().flat_map(|service| service.slots.iter())
    {
        let instances = slot.instances.iter().filter_map(|id| state.instance(*id));
        let routed = instances.filter(|instance| instance.is_routed());
        backends.extend(routed.filter_map(|instance| backend(*ordinal, slot, instance)));
    }
    let sampling = env.rollout.as_ref().and_then(|rollout| {
        let split = rollout.splits.get(&key.service)?;
        Some(Sampling { rollout: rollout.id, window: split.window })
    });
    let Audience { sticky, aim, mirror } = audience(env, &key.service);
    let synthetic = split::synthetic(env, &key.service).filter(|it| it.port == *port).cloned();
    let pool = Pool { backends, sampling, sticky, aim, mirror, synthetic };
    table.pools.insert(key.clone(), Arc::new(pool));
}

/// Which requests the new instances of a service get while they are a canary.
fn audience(env: &Environment, service: &ServiceName) -> Audience {
    let rollout = env.rollout.as_ref().filter(|rollout| rollout.splits.contains_key(service));
    let copied = rollout.and_then(|rollout| rollout.splits.get(service)?.mirror);
    if let Some(share) = copied {
        return Audience { mirror: Some(Mirror { share }), ..Audience::default() };
    }
    match rollout.and_then(|rollout| env.service(rollout.to, service)).map(|service| &service.strategy) {
        Some(Strategy::Canary(canary)) => canary.audience.clone(),
        _ => Audience::default(),
    }
}

/// The port that a service's name stands for: `http`, or else the lowest.
fn main_port(spec: &InstanceSpec) -> Option<(&PortName, u16)> {
    let http = spec.ports.iter().find(|(name, _)| name.as_str() == "http");
    http.or_else(|| spec.ports.iter().min_by_key(|(_, number)| **number))
        .map(|(name, number)| (name, *number))
}

/// The name by which the services of an environment call one of them.
pub(crate) fn internal_host(service: &ServiceName, env: &Environment) -> String {
    format!("{service}.{}.kiln", env.key.stack)
}
