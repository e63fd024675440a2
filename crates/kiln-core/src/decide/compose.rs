//! Whether a revision can be served, and how one is made of two.

use std::sync::Arc;

use kiln_model::access;
use kiln_model::release::{Composed, RevisionSpec};
use kiln_model::route::Route;
use kiln_model::service::{Gate, Service};
use kiln_model::{Digest, EnvKey, RevisionNumber, ServiceName};

use crate::bounds::REPLICAS_MAX;
use crate::input::Refusal;
use crate::state::{Environment, State};

/// A revision before it has its number.
pub(super) struct Composition {
    pub(super) release: Digest,
    pub(super) binding: Digest,
    pub(super) spec: Arc<RevisionSpec>,
    pub(super) composed: Composed,
}

/// Takes one service of the target back to what it was in another revision; none if it is that already.
pub(super) fn compose(
    env: &Environment,
    from: RevisionNumber,
    name: &ServiceName,
) -> Result<Option<Composition>, Refusal> {
    let unknown = || Refusal::UnknownService(env.key.clone(), name.clone());
    let target = env.target().and_then(|number| env.revisions.get(&number)).ok_or_else(unknown)?;
    let (Some(now), Some(then)) = (target.spec.services.get(name), env.service(Some(from), name)) else {
        return Err(unknown());
    };
    if now == then {
        return Ok(None);
    }
    let mut spec = RevisionSpec::clone(&target.spec);
    spec.services.insert(name.clone(), then.clone());
    // What a service is checked by is made of it: it comes and goes with it.
    for check in checks(now) {
        spec.services.remove(check);
    }
    let made = checks(then).filter_map(|check| env.service(Some(from), check));
    spec.services.extend(made.map(|check| (check.name.clone(), check.clone())));
    let versions = env.revisions.get(&from).map(|revision| &revision.spec.credentials);
    for secret in access::secrets(&then.strategy, &then.interludes) {
        // One that is still in use has been changed for a reason.
        if let Some(version) = versions.and_then(|versions| versions.get(secret)) {
            spec.credentials.entry(secret.clone()).or_insert_with(|| version.clone());
        }
    }
    if let Some(route) = spec.routes.values().find(|route| route.to.service == *name && !leads(&spec, route))
    {
        return Err(Refusal::RouteUnserved { route: text(route), service: name.clone() });
    }
    validate(&spec)?;
    let composed = Composed { service: name.clone(), from };
    let (release, binding) = (target.release, target.binding);
    Ok(Some(Composition { release, binding, spec: Arc::new(spec), composed }))
}

/// The jobs that check new instances of a service.
fn checks(service: &Service) -> impl Iterator<Item = &ServiceName> {
    service.gates().filter_map(|gate| match gate {
        Gate::Check { job, .. } => Some(job),
        Gate::Hold(_)
        | Gate::Analyse(_)
        | Gate::Approve { .. }
        | Gate::Run { .. }
        | Gate::Ask(_)
        | Gate::Mirror { .. } => None,
    })
}

/// Refuses what no environment can serve. The language checks it too and says where; this is the last line.
pub(super) fn validate(spec: &RevisionSpec) -> Result<(), Refusal> {
    for (name, service) in &spec.services {
        if service.replicas > REPLICAS_MAX {
            return Err(Refusal::TooManyReplicas { max: REPLICAS_MAX });
        }
        if *name != service.name {
            let reason = format!("service {name} is called {} inside", service.name);
            return Err(Refusal::InvalidRevision { reason });
        }
    }
    if let Some(route) = spec.routes.values().find(|route| !leads(spec, route)) {
        let to = format!("{}.{}", route.to.service, route.to.port);
        let reason = format!("route {} leads to {to}, which does not exist", text(route));
        return Err(Refusal::InvalidRevision { reason });
    }
    let mut seen: Vec<&Route> = Vec::new();
    for route in spec.routes.values() {
        if seen.iter().any(|other| is_same(other, route)) {
            let reason = format!("two routes answer for {}", text(route));
            return Err(Refusal::InvalidRevision { reason });
        }
        seen.push(route);
    }
    Ok(())
}

fn leads(spec: &RevisionSpec, route: &Route) -> bool {
    spec.services
        .get(&route.to.service)
        .is_some_and(|service| service.spec.ports.contains_key(&route.to.port))
}

/// Refuses routes that another environment answers for, or is about to.
pub(crate) fn routes_are_free(state: &State, key: &EnvKey, spec: &RevisionSpec) -> Result<(), Refusal> {
    for env in state.environments().filter(|env| env.key != *key) {
        let rollout = env.rollout.iter().flat_map(|rollout| [rollout.from, rollout.to]);
        let queued = env.queued.as_ref().map(|queued| queued.to);
        for number in [env.current, env.routes, queued].into_iter().chain(rollout) {
            let taken = env.spec(number).into_iter().flat_map(|spec| spec.routes.values());
            for other in taken {
                if spec.routes.values().any(|route| is_same(route, other)) {
                    return Err(Refusal::RouteTaken { route: text(other), owner: env.key.clone() });
                }
            }
        }
    }
    Ok(())
}

fn is_same(one: &Route, other: &Route) -> bool {
    one.listen == other.listen && one.host == other.host && one.path == other.path
}

fn text(route: &Route) -> String {
    format!(
        "{}{}{}",
        route.listen,
        route.host.as_deref().map(|host| format!(" {host}")).unwrap_or_default(),
        { if route.path == "/" { String::new() } else { format!(" {}", route.path) } }
    )
}
