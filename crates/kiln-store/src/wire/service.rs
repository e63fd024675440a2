//! Services, routes and the revisions that they make up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use kiln_model::release::{Composed, Revision, RevisionSpec};
use kiln_model::route::Route;
use kiln_model::service::{PortRef, RolloutBounds, Service, ServiceKind, Strategy};
use kiln_model::{Digest, Millis, PortName, RevisionNumber, RouteName, SecretName, ServiceName};
use serde::{Deserialize, Serialize};

use super::canary::CanaryWire;
use super::interlude::InterludesWire;
use super::notify::WebhookWire;
use super::waves::WavesWire;
use super::{SpecWire, Text};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RevisionWire {
    number: u64,
    release: Text<Digest>,
    binding: Text<Digest>,
    services: BTreeMap<Text<ServiceName>, ServiceWire>,
    routes: BTreeMap<Text<RouteName>, RouteWire>,
    composed: Option<ComposedWire>,
    // Left out where there is none: what was stored before it existed stays what it is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    webhooks: BTreeMap<String, WebhookWire>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    credentials: BTreeMap<Text<SecretName>, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ComposedWire {
    service: Text<ServiceName>,
    from: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceWire {
    kind: KindWire,
    spec: SpecWire,
    spec_digest: Text<Digest>,
    replicas: u32,
    strategy: StrategyWire,
    after: BTreeSet<Text<ServiceName>>,
    progress_deadline_ms: u64,
    drain_deadline_ms: u64,
    warm_for_ms: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    healthy_for_ms: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    manual_promote: bool,
    #[serde(default, skip_serializing_if = "InterludesWire::is_empty")]
    interludes: InterludesWire,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    manual_revert: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KindWire {
    Service,
    Worker,
    Job,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum StrategyWire {
    BlueGreen,
    Rolling {
        max_surge: u32,
        max_unavailable: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        waves: Option<WavesWire>,
    },
    StopThenStart,
    Canary(CanaryWire),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteWire {
    listen: Text<SocketAddr>,
    host: Option<String>,
    path: String,
    service: Text<ServiceName>,
    port: Text<PortName>,
}

/// A service on its own.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedServiceWire {
    name: Text<ServiceName>,
    service: ServiceWire,
}

/// A route on its own.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedRouteWire {
    name: Text<RouteName>,
    route: RouteWire,
}

impl From<&Service> for NamedServiceWire {
    fn from(service: &Service) -> Self {
        Self { name: Text(service.name.clone()), service: service.into() }
    }
}

impl From<NamedServiceWire> for Service {
    fn from(wire: NamedServiceWire) -> Self {
        wire.service.into_model(wire.name.0)
    }
}

impl From<&Route> for NamedRouteWire {
    fn from(route: &Route) -> Self {
        Self { name: Text(route.name.clone()), route: route.into() }
    }
}

impl From<NamedRouteWire> for Route {
    fn from(wire: NamedRouteWire) -> Self {
        wire.route.into_model(wire.name.0)
    }
}

impl From<&Revision> for RevisionWire {
    fn from(revision: &Revision) -> Self {
        let composed = |composed: &Composed| ComposedWire {
            service: Text(composed.service.clone()),
            from: composed.from.0,
        };
        let spec = &revision.spec;
        Self {
            number: revision.number.0,
            release: Text(revision.release),
            binding: Text(revision.binding),
            services: spec.services.iter().map(|(name, it)| (Text(name.clone()), it.into())).collect(),
            routes: spec.routes.iter().map(|(name, it)| (Text(name.clone()), it.into())).collect(),
            composed: revision.composed.as_ref().map(composed),
            webhooks: spec.webhooks.iter().map(|(name, it)| (name.clone(), it.into())).collect(),
            credentials: spec.credentials.iter().map(|(name, it)| (Text(name.clone()), it.clone())).collect(),
        }
    }
}

impl From<RevisionWire> for Revision {
    fn from(wire: RevisionWire) -> Self {
        let services = wire.services.into_iter().map(|(Text(name), it)| (name.clone(), it.into_model(name)));
        let routes = wire.routes.into_iter().map(|(Text(name), it)| (name.clone(), it.into_model(name)));
        let webhooks = wire.webhooks.into_iter().map(|(name, it)| (name, it.into()));
        let spec = RevisionSpec {
            services: services.collect(),
            routes: routes.collect(),
            webhooks: webhooks.collect(),
            credentials: wire.credentials.into_iter().map(|(Text(name), version)| (name, version)).collect(),
        };
        let composed = |it: ComposedWire| Composed { service: it.service.0, from: RevisionNumber(it.from) };
        Self {
            number: RevisionNumber(wire.number),
            release: wire.release.0,
            binding: wire.binding.0,
            spec: Arc::new(spec),
            composed: wire.composed.map(composed),
        }
    }
}

impl From<&Service> for ServiceWire {
    fn from(service: &Service) -> Self {
        Self {
            kind: match service.kind {
                ServiceKind::Service => KindWire::Service,
                ServiceKind::Worker => KindWire::Worker,
                ServiceKind::Job => KindWire::Job,
            },
            spec: (&*service.spec).into(),
            spec_digest: Text(service.spec_digest),
            replicas: service.replicas,
            strategy: match &service.strategy {
                Strategy::BlueGreen => StrategyWire::BlueGreen,
                Strategy::Rolling { max_surge, max_unavailable, waves } => StrategyWire::Rolling {
                    max_surge: *max_surge,
                    max_unavailable: *max_unavailable,
                    waves: waves.as_deref().map(WavesWire::from),
                },
                Strategy::StopThenStart => StrategyWire::StopThenStart,
                Strategy::Canary(canary) => StrategyWire::Canary((&**canary).into()),
            },
            after: service.after.iter().cloned().map(Text).collect(),
            progress_deadline_ms: service.bounds.progress_deadline.0,
            drain_deadline_ms: service.bounds.drain_deadline.0,
            warm_for_ms: service.bounds.warm_for.0,
            healthy_for_ms: service.bounds.healthy_for.0,
            manual_promote: !service.bounds.auto_promote,
            interludes: (&*service.interludes).into(),
            manual_revert: !service.bounds.auto_revert,
        }
    }
}

impl ServiceWire {
    fn into_model(self, name: ServiceName) -> Service {
        Service {
            name,
            kind: match self.kind {
                KindWire::Service => ServiceKind::Service,
                KindWire::Worker => ServiceKind::Worker,
                KindWire::Job => ServiceKind::Job,
            },
            spec: Arc::new(self.spec.into()),
            spec_digest: self.spec_digest.0,
            replicas: self.replicas,
            strategy: match self.strategy {
                StrategyWire::BlueGreen => Strategy::BlueGreen,
                StrategyWire::Rolling { max_surge, max_unavailable, waves } => {
                    let waves = waves.map(|waves| Arc::new(waves.into()));
                    Strategy::Rolling { max_surge, max_unavailable, waves }
                }
                StrategyWire::StopThenStart => Strategy::StopThenStart,
                StrategyWire::Canary(canary) => Strategy::Canary(Arc::new(canary.into())),
            },
            after: self.after.into_iter().map(|name| name.0).collect(),
            bounds: RolloutBounds {
                progress_deadline: Millis(self.progress_deadline_ms),
                drain_deadline: Millis(self.drain_deadline_ms),
                warm_for: Millis(self.warm_for_ms),
                healthy_for: Millis(self.healthy_for_ms),
                auto_promote: !self.manual_promote,
                auto_revert: !self.manual_revert,
            },
            interludes: Arc::new(self.interludes.into()),
        }
    }
}

/// What is nothing is not written: what was stored before there was such a thing reads the same.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl From<&Route> for RouteWire {
    fn from(route: &Route) -> Self {
        Self {
            listen: Text(route.listen),
            host: route.host.clone(),
            path: route.path.clone(),
            service: Text(route.to.service.clone()),
            port: Text(route.to.port.clone()),
        }
    }
}

impl RouteWire {
    fn into_model(self, name: RouteName) -> Route {
        Route {
            name,
            listen: self.listen.0,
            host: self.host,
            path: self.path,
            to: PortRef { service: self.service.0, port: self.port.0 },
        }
    }
}
