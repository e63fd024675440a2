//! What must hold of the world: always, and when it has come to rest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kiln_core::input::Input;
use kiln_core::state::{Environment, Health, ListenerPhase, Phase};
use kiln_core::{Command, InputKind, Observed, Refusal, State, decide, outstanding, route_table};
use kiln_model::event::Purpose;
use kiln_model::rollout::Outcome;
use kiln_model::route::{Pool, PoolKey, RouteTable};
use kiln_model::service::ServiceKind;
use kiln_model::{Actor, InstanceId, Timestamp};

use crate::Violation;
use crate::edge::Edge;
use crate::host::Host;

/// The edge never routes to an address that belongs to another instance than the table says, nor to one that is gone.
///
/// # Errors
/// It does.
pub fn check_routing(edge: &Edge, host: &Host) -> Result<(), Violation> {
    // While its process is down it routes nothing; what it will serve again is checked the moment it is up.
    let Some(table) = edge.served().filter(|_| edge.up) else { return Ok(()) };
    table.pools.iter().try_for_each(|(key, pool)| check_pool(key, pool, host))?;
    let mut owners = BTreeMap::new();
    for (id, address) in host.guests().iter().filter_map(|(id, guest)| Some((*id, guest.address?))) {
        if let Some(other) = owners.insert(address, id)
            && [id, other].into_iter().any(|id| edge.address_of(id) == Some(address))
        {
            return Err(shared(address, id, other));
        }
    }
    Ok(())
}

/// The same, of one pool and by the instances alone that it names.
///
/// # Errors
/// It routes to what is not there.
pub fn check_pool(key: &PoolKey, pool: &Pool, host: &Host) -> Result<(), Violation> {
    for backend in &pool.backends {
        let address = host.guests().get(&backend.instance).and_then(|guest| guest.address);
        if address != Some(backend.address.ip()) {
            return Err(Violation::new(
                "the edge routes only to what exists",
                format!("{key} to {} at {}, which has {address:?}", backend.instance, backend.address),
            ));
        }
    }
    Ok(())
}

/// The same, of one instance that came or went.
///
/// # Errors
/// Requests go to it and it is gone, or has another address.
pub fn check_moved(edge: &Edge, host: &Host, id: InstanceId) -> Result<(), Violation> {
    let address = host.guests().get(&id).and_then(|guest| guest.address);
    match edge.address_of(id) {
        Some(routed) if address != Some(routed) => Err(Violation::new(
            "the edge routes only to what exists",
            format!("{id} at {routed}, which has {address:?}"),
        )),
        _ => Ok(()),
    }
}

fn shared(address: IpAddr, id: InstanceId, other: InstanceId) -> Violation {
    Violation::new("an address belongs to one instance", format!("{address} to {id}, which {other} has too"))
}

/// Nothing is destroyed while the edge may send requests to it.
///
/// # Errors
/// It is.
pub fn check_unrouted(edge: &Edge, id: InstanceId) -> Result<(), Violation> {
    if edge.routes_to(id) {
        return Err(Violation::new(
            "no destroy before the acknowledgement of a table without it",
            format!("{id} in {}", edge.served().map_or_else(String::new, |table| table.fence.to_string())),
        ));
    }
    Ok(())
}

/// While a rollout goes forward, however long it is held: every slot that what serves is to have is one that the rollout knows,
/// so that somebody who scales has what was asked for.
///
/// # Errors
/// One is not.
pub fn check_slots(state: &State) -> Result<(), Violation> {
    for env in state.environments() {
        let moves = env.rollout.as_ref().is_some_and(|it| it.to.is_some() && !it.is_going_back());
        let spec = env.spec(env.current).filter(|_| moves);
        for name in spec.into_iter().flat_map(|spec| spec.services.keys()) {
            let has_work = |ordinal: &u32| env.slot(name, *ordinal).is_some_and(|slot| slot.duty.is_some());
            if let Some(idle) = (0..env.replicas(env.current, name)).find(|ordinal| !has_work(ordinal)) {
                return Err(Violation::new("every slot has work", format!("{} {name}/{idle}", env.key)));
            }
        }
    }
    Ok(())
}

/// What is published is what the durable log says.
///
/// # Errors
/// It is not.
pub fn check_table(table: &RouteTable, state: &State) -> Result<(), Violation> {
    let expected = route_table(state);
    if *table == expected {
        return Ok(());
    }
    Err(Violation::new("what is published is what the log says", format!("{table:?} is not {expected:?}")))
}

/// Whether nothing is going on that will end by itself.
pub fn is_at_rest(state: &State) -> bool {
    state.environments().all(|env| env.rollout.is_none() && !env.ending)
        && state.checks().next().is_none()
        && outstanding(state).is_empty()
        && state
            .instances()
            .all(|instance| instance.phase == Phase::Running && instance.health == Health::Healthy)
        && unfilled(state).next().is_none()
        && state.table().acknowledged >= state.table().version
        && state.listeners().all(|(_, listener)| matches!(listener.phase, ListenerPhase::Open { .. }))
}

/// Whether a slot waits for a moment at which its instance is created.
pub fn rests(state: &State, now: Timestamp) -> bool {
    let slots = state.environments().flat_map(|env| env.services.values());
    let mut backoffs = slots.flat_map(|service| service.slots.values()).filter_map(|slot| slot.backoff);
    backoffs.any(|rest| rest.not_before > now)
}

/// The services whose slots are not filled with one instance each, and no more.
pub fn unfilled(state: &State) -> impl Iterator<Item = String> {
    state.environments().flat_map(|env| {
        let unfilled = env.services.iter().filter(|(name, service)| {
            let wanted = env.replicas(env.current, name);
            let filled = service.slots.iter().filter(|(_, slot)| !slot.instances.is_empty());
            let right = filled.clone().all(|(ordinal, slot)| *ordinal < wanted && slot.instances.len() == 1);
            !right || filled.count() != wanted as usize
        });
        unfilled.map(|(name, service)| format!("{}/{name}: {:?}", env.key, service.slots))
    })
}

/// Every rollout has ended.
///
/// # Errors
/// One has not.
pub fn check_ended(state: &State) -> Result<(), Violation> {
    for env in state.environments() {
        if let Some(rollout) = &env.rollout {
            return Err(Violation::new("every rollout ends", format!("{}: {rollout:?}", env.key)));
        }
    }
    match state.checks().find(|check| !check.answered) {
        Some(check) => Err(Violation::new("every check is answered", format!("{check:?}"))),
        None => Ok(()),
    }
}

/// The host has nothing that the log does not know.
///
/// # Errors
/// It has.
pub fn check_orphans(state: &State, host: &Host) -> Result<(), Violation> {
    match host.guests().keys().find(|id| state.instance(**id).is_none()) {
        Some(id) => Err(Violation::new("no orphan at rest", format!("{id}"))),
        None => Ok(()),
    }
}

/// At rest, host and edge have exactly what the log says.
///
/// # Errors
/// They have more, less or something else.
pub fn check_rest(state: &State, host: &Host, edge: &Edge) -> Result<(), Violation> {
    check_orphans(state, host)?;
    if let Some(missing) = state.instances().find(|found| !host.guests().contains_key(&found.id)) {
        return Err(Violation::new("the host has what the log says", format!("{missing:?}")));
    }
    let table = route_table(state);
    match edge.served() {
        Some(served) if served.rules != table.rules || served.pools != table.pools => {
            return Err(Violation::new(
                "at rest the edge serves what the log says",
                format!("{served:?} is not {table:?}"),
            ));
        }
        None if !table.rules.is_empty() => {
            return Err(Violation::new("at rest the edge serves what the log says", "no table"));
        }
        _ => {}
    }
    let open: BTreeSet<_> = state.listeners().map(|(listener, _)| listener).collect();
    if open != *edge.listeners() {
        return Err(Violation::new(
            "at rest the sockets are those of the log",
            format!("{:?} is not {open:?}", edge.listeners()),
        ));
    }
    // After a way back that failed as well, what still serves stays in place of what can't be.
    let is_stuck = |env: &&Environment| {
        env.last_rollout.as_ref().is_some_and(|rollout| rollout.outcome == Outcome::Stuck)
    };
    for env in state.environments().filter(|env| !is_stuck(env)) {
        check_env_at_rest(env, state)?;
    }
    Ok(())
}

fn check_env_at_rest(env: &Environment, state: &State) -> Result<(), Violation> {
    for instance in state.instances_of(env) {
        let Purpose::Slot { slot, .. } = &instance.purpose else { continue };
        let wanted = env.service(env.current, &slot.service);
        if wanted.map(|service| service.spec_digest) != Some(instance.spec_digest) {
            return Err(Violation::new("what runs is what was sealed", format!("{instance:?}")));
        }
        let routed = wanted.is_some_and(|service| service.kind == ServiceKind::Service);
        if routed != instance.is_routed() && !instance.spec.ports.is_empty() {
            return Err(Violation::new(
                "at rest every instance of a service is routed",
                format!("{instance:?}"),
            ));
        }
    }
    Ok(())
}

/// A rollback is possible to every retained revision that an environment has reached.
///
/// # Errors
/// It would be refused.
pub fn check_rollbacks(state: &State) -> Result<(), Violation> {
    for env in state.environments() {
        for number in &env.completed {
            let command =
                Command::Rollback { env: env.key.clone(), to: Some(*number), service: None, careful: false };
            let input = Input {
                now: state.now(),
                seed: 1,
                actor: Actor::Controller,
                kind: InputKind::Command(command),
            };
            match decide(state, &Observed::default(), &input).reply {
                // Another environment may have taken its route since; that is no question of retention.
                Ok(_) | Err(Refusal::RouteTaken { .. }) => {}
                Err(refusal) => {
                    return Err(Violation::new(
                        "a rollback is possible to every retained revision",
                        format!("{} {number}: {refusal:?}", env.key),
                    ));
                }
            }
        }
    }
    Ok(())
}
