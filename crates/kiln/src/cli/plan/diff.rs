//! What moving from one revision to the next does, service by service. Pure.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::ask::Again;
use kiln_model::notify::Webhook;
use kiln_model::release::RevisionSpec;
use kiln_model::route::Route;
use kiln_model::service::{Gate, RolloutBounds, Service, ServiceKind, Stage, Strategy, WaveSize, Waves};
use kiln_model::{Digest, ImageName, InstanceSpec, RouteName, ServiceName, Weight};

use super::changes::{Change, Changes, spec_changes};

/// What is done to one service or route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verb {
    /// It is new.
    Create,
    /// Its instances are replaced: something that they see changed.
    Replace {
        /// Whether the new ones exist before the old ones go.
        new_first: bool,
    },
    /// Instances are added or removed; none is replaced.
    Scale,
    /// Nothing that an instance sees changes: a strategy, a deadline, a route's target.
    Adjust,
    /// It goes.
    Remove,
    /// Nothing.
    Keep,
}

/// What is done to one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServicePlan {
    /// The service.
    pub name: ServiceName,
    /// What is done.
    pub verb: Verb,
    /// What it is.
    pub kind: ServiceKind,
    /// How many instances there are and will be.
    pub replicas: (u32, u32),
    /// Why.
    pub changes: Vec<Change>,
}

/// What is done to one route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoutePlan {
    /// The route.
    pub name: RouteName,
    /// What is done.
    pub verb: Verb,
    /// Where it leads, as text.
    pub text: String,
    /// Why.
    pub changes: Vec<Change>,
}

/// What is done about somebody who is told of rollouts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WebhookPlan {
    /// Who.
    pub name: String,
    /// What is done.
    pub verb: Verb,
    /// Why.
    pub changes: Vec<Change>,
}

/// What `up` would do to an environment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    /// By service.
    pub services: Vec<ServicePlan>,
    /// By route.
    pub routes: Vec<RoutePlan>,
    /// Who is told of rollouts, by name.
    pub webhooks: Vec<WebhookPlan>,
    /// What would be sealed. A service whose instances are replaced has another digest, also where its image is still to be baked.
    pub target: RevisionSpec,
    /// The images that are still to be baked, with the size of the last bake of each.
    pub bakes: BTreeMap<ImageName, Option<u64>>,
}

/// A service as it will be, as far as that is known before anything is baked.
#[derive(Debug, Clone)]
pub(crate) struct Forecast {
    /// The service. Where its image is still to be baked, its spec has the manifest of the last bake, if any.
    pub service: Service,
    /// The image's name.
    pub image: ImageName,
    /// What will become of the image.
    pub bake: Bake,
    /// Secrets whose value is another one than the captured one, or was never captured.
    pub recapture: BTreeSet<String>,
}

/// What will become of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bake {
    /// It is baked already; the spec has its digest.
    Done,
    /// It will be baked.
    Due {
        /// Why, as `files changed: web/server.py`; empty for a first bake.
        why: String,
    },
}

/// The numbers that Terraform users look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    /// New services, routes and webhooks.
    pub create: usize,
    /// Services whose instances are replaced.
    pub replace: usize,
    /// Scaled or adjusted in place.
    pub change: usize,
    /// Services and routes that go.
    pub remove: usize,
    /// Services and routes that stay as they are.
    pub keep: usize,
}

impl Plan {
    /// Compares what runs with what would. `images` names the images of the current release, for people.
    pub(crate) fn new(
        old: &RevisionSpec,
        old_images: &BTreeMap<ImageName, Digest>,
        new: &BTreeMap<ServiceName, Forecast>,
        new_routes: &BTreeMap<RouteName, Route>,
        new_webhooks: &BTreeMap<String, Webhook>,
    ) -> Self {
        let names: BTreeSet<&ServiceName> = old.services.keys().chain(new.keys()).collect();
        let one = |name: &ServiceName| plan_service(name, old.services.get(name), old_images, new.get(name));
        let services: Vec<ServicePlan> = names.into_iter().filter_map(one).collect();
        let target =
            RevisionSpec { webhooks: new_webhooks.clone(), ..target(old, new, new_routes, &services) };
        let names: BTreeSet<&RouteName> = old.routes.keys().chain(new_routes.keys()).collect();
        let one = |name: &RouteName| plan_route(name, old.routes.get(name), new_routes.get(name));
        let routes = names.into_iter().filter_map(one).collect();
        let names: BTreeSet<&String> = old.webhooks.keys().chain(new_webhooks.keys()).collect();
        let one = |name: &String| plan_webhook(name, old.webhooks.get(name), new_webhooks.get(name));
        let webhooks = names.into_iter().map(one).collect();
        Self { services, routes, webhooks, target, bakes: BTreeMap::new() }
    }

    /// Counts by verb.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        let verbs = self.services.iter().map(|s| s.verb).chain(self.routes.iter().map(|r| r.verb));
        // Webhooks that stay are no service or route that does.
        let told = self.webhooks.iter().map(|webhook| webhook.verb).filter(|verb| *verb != Verb::Keep);
        for verb in verbs.chain(told) {
            match verb {
                Verb::Create => totals.create += 1,
                Verb::Replace { .. } => totals.replace += 1,
                Verb::Scale | Verb::Adjust => totals.change += 1,
                Verb::Remove => totals.remove += 1,
                Verb::Keep => totals.keep += 1,
            }
        }
        totals
    }

    /// Whether `up` would do anything.
    pub(crate) fn has_changes(&self) -> bool {
        let Totals { create, replace, change, remove, keep: _ } = self.totals();
        create + replace + change + remove > 0
    }
}

/// What would be sealed, as far as it is known.
fn target(
    old: &RevisionSpec,
    new: &BTreeMap<ServiceName, Forecast>,
    routes: &BTreeMap<RouteName, Route>,
    plans: &[ServicePlan],
) -> RevisionSpec {
    let replaced = plans.iter().filter(|plan| matches!(plan.verb, Verb::Replace { .. }));
    let replaced: BTreeSet<&ServiceName> = replaced.map(|plan| &plan.name).collect();
    let service = |(name, forecast): (&ServiceName, &Forecast)| {
        let mut service = forecast.service.clone();
        let known = old.services.get(name).map(|old| old.spec_digest);
        if replaced.contains(name) && known == Some(service.spec_digest) {
            // What it will be follows from the bake; that it is another one is known.
            let bytes = service.spec_digest.as_bytes().map(|byte: u8| !byte);
            service.spec_digest = Digest::new(bytes);
        }
        (name.clone(), service)
    };
    let services = new.iter().map(service).collect();
    RevisionSpec { services, routes: routes.clone(), ..RevisionSpec::default() }
}

fn plan_webhook(name: &str, old: Option<&Webhook>, new: Option<&Webhook>) -> WebhookPlan {
    let events = |it: &Webhook| it.events.iter().map(|it| it.word()).collect::<Vec<_>>().join(", ");
    let mut changes = Changes::default();
    let verb = match (old, new) {
        (None, _) => Verb::Create,
        (Some(_), None) => Verb::Remove,
        (Some(old), Some(new)) if old == new => Verb::Keep,
        (Some(_), Some(_)) => Verb::Adjust,
    };
    changes.optional("url", old.map(|it| it.url.clone()), new.map(|it| it.url.clone()));
    changes.optional("events", old.map(events), new.map(events));
    // A version is a random id: it says that the value is another one, and nothing about it.
    let secret = |it: &Webhook| format!("{}@{}", it.secret.name, it.secret.version);
    changes.optional("secret", old.map(secret), new.map(secret));
    WebhookPlan { name: name.to_owned(), verb, changes: changes.into_vec() }
}

fn plan_service(
    name: &ServiceName,
    old: Option<&Service>,
    old_images: &BTreeMap<ImageName, Digest>,
    new: Option<&Forecast>,
) -> Option<ServicePlan> {
    let plan =
        |verb, kind, replicas, changes| ServicePlan { name: name.clone(), verb, kind, replicas, changes };
    match (old, new) {
        (None, None) => None,
        (Some(old), None) => Some(plan(Verb::Remove, old.kind, (old.replicas, 0), Vec::new())),
        (None, Some(new)) => {
            let changes = first_changes(new);
            Some(plan(Verb::Create, new.service.kind, (0, new.service.replicas), changes))
        }
        (Some(old), Some(new)) => {
            let (verb, changes) = compare(old, old_images, new);
            Some(plan(verb, new.service.kind, (old.replicas, new.service.replicas), changes))
        }
    }
}

/// What is worth saying about a service that is new.
fn first_changes(new: &Forecast) -> Vec<Change> {
    let to = match &new.bake {
        Bake::Done => format!("{} {}", new.image, new.service.spec.image.short()),
        Bake::Due { .. } => format!("{} (will be baked)", new.image),
    };
    vec![Change::new("image", None, Some(to))]
}

fn compare(old: &Service, old_images: &BTreeMap<ImageName, Digest>, new: &Forecast) -> (Verb, Vec<Change>) {
    let mut replacing = image_change(&old.spec, old_images, new);
    replacing.extend(spec_changes(&old.spec, &new.service.spec));
    for name in &new.recapture {
        let mut change = Change::new(format!("secret.{name}"), None, None);
        change.note = "its value changed".into();
        replacing.push(change);
    }
    let mut adjusting = Changes::default();
    adjusting.value("kind", &kind_text(old.kind), &kind_text(new.service.kind));
    adjusting.value("rollout", &strategy_text(&old.strategy), &strategy_text(&new.service.strategy));
    bounds_changes(&mut adjusting, old.bounds, new.service.bounds);
    adjusting.value("rollout.steps", &steps_text(old), &steps_text(&new.service));
    let mut adjusting = adjusting.into_vec();
    let scaled = old.replicas != new.service.replicas;
    let verb = match (replacing.is_empty(), scaled, adjusting.is_empty()) {
        (false, _, _) => Verb::Replace { new_first: new.service.strategy != Strategy::StopThenStart },
        (true, true, _) => Verb::Scale,
        (true, false, false) => Verb::Adjust,
        (true, false, true) => Verb::Keep,
    };
    let mut changes = replacing;
    if scaled {
        let (from, to) = (old.replicas.to_string(), new.service.replicas.to_string());
        changes.push(Change::new("replicas", Some(from), Some(to)));
    }
    changes.append(&mut adjusting);
    (verb, changes)
}

fn image_change(old: &InstanceSpec, old_images: &BTreeMap<ImageName, Digest>, new: &Forecast) -> Vec<Change> {
    let named = |digest: Digest| match old_images.iter().find(|(_, known)| **known == digest) {
        Some((name, _)) => format!("{name} {}", digest.short()),
        None => digest.short(),
    };
    match &new.bake {
        Bake::Done if old.image == new.service.spec.image => Vec::new(),
        Bake::Done => {
            let to = format!("{} {}", new.image, new.service.spec.image.short());
            vec![Change::new("image", Some(named(old.image)), Some(to))]
        }
        Bake::Due { why } => {
            let to = format!("{} (will be rebaked)", new.image);
            let note = why.clone();
            vec![Change { note, ..Change::new("image", Some(named(old.image)), Some(to)) }]
        }
    }
}

fn bounds_changes(changes: &mut Changes, old: RolloutBounds, new: RolloutBounds) {
    let RolloutBounds { progress_deadline, drain_deadline, warm_for, healthy_for, auto_promote, auto_revert } =
        new;
    changes.value("rollout.progress_deadline", &old.progress_deadline, &progress_deadline);
    changes.value("rollout.drain_deadline", &old.drain_deadline, &drain_deadline);
    changes.value("rollout.warm_for", &old.warm_for, &warm_for);
    changes.value("rollout.min_healthy_time", &old.healthy_for, &healthy_for);
    changes.value("rollout.auto_promote", &old.auto_promote, &auto_promote);
    changes.value("rollout.auto_revert", &old.auto_revert, &auto_revert);
}

fn plan_route(name: &RouteName, old: Option<&Route>, new: Option<&Route>) -> Option<RoutePlan> {
    let plan = |verb, route: &Route, changes| RoutePlan {
        name: name.clone(),
        verb,
        text: route_text(route),
        changes,
    };
    match (old, new) {
        (None, None) => None,
        (Some(old), None) => Some(plan(Verb::Remove, old, Vec::new())),
        (None, Some(new)) => Some(plan(Verb::Create, new, Vec::new())),
        (Some(old), Some(new)) => {
            let Route { name: _, listen, host, path, to } = new;
            let mut changes = Changes::default();
            changes.value("listen", &old.listen, listen);
            changes.optional("host", old.host.clone(), host.clone());
            changes.value("path", &old.path, path);
            let target = |to: &kiln_model::service::PortRef| format!("{}.{}", to.service, to.port);
            changes.value("to", &target(&old.to), &target(to));
            let changes = changes.into_vec();
            let verb = if changes.is_empty() { Verb::Keep } else { Verb::Adjust };
            Some(plan(verb, new, changes))
        }
    }
}

/// A route on one line.
pub(crate) fn route_text(route: &Route) -> String {
    let host = route.host.as_deref().unwrap_or("any host");
    format!("{} {host} {} to {}.{}", route.listen, route.path, route.to.service, route.to.port)
}

/// A kind by the word of its block.
pub(crate) const fn kind_text(kind: ServiceKind) -> &'static str {
    match kind {
        ServiceKind::Service => "service",
        ServiceKind::Worker => "worker",
        ServiceKind::Job => "job",
    }
}

/// What a rollout of a service does between its moves.
fn steps_text(service: &Service) -> String {
    let stages = match &service.strategy {
        Strategy::Canary(canary) => canary.stages.as_slice(),
        Strategy::BlueGreen | Strategy::Rolling { .. } | Strategy::StopThenStart => &[],
    };
    let shares = stages.iter().map(|stage| (share_text(stage), stage.gates.as_slice()));
    let moments = service.interludes.lists().map(|(moment, gates)| (moment.to_owned(), gates));
    let [before, created, ready, moved, drained, retired] = moments;
    let all = [before, created, ready].into_iter().chain(shares).chain([moved, drained, retired]);
    let told = all.filter(|(_, gates)| !gates.is_empty()).map(|(moment, gates)| {
        let gates: Vec<String> = gates.iter().map(gate_text).collect();
        format!("{moment}: {}", gates.join(", "))
    });
    let told: Vec<String> = told.collect();
    if told.is_empty() { "none".to_owned() } else { told.join("; ") }
}

fn gate_text(gate: &Gate) -> String {
    match gate {
        Gate::Hold(span) => format!("hold {span}"),
        Gate::Analyse(within) => format!("analyse {within}"),
        Gate::Approve { by, within } if by.is_empty() => format!("approve within {within}"),
        Gate::Approve { by, within } => format!("approve by {} within {within}", by.join(" or ")),
        Gate::Run { job, within } => format!("run {job} within {within}"),
        Gate::Check { job, within, again } => format!("run {job} within {within}{}", again_text(*again)),
        Gate::Mirror { share: Weight::ZERO, .. } => "mirror 0%".to_owned(),
        Gate::Mirror { share, span } => {
            let span = span.map(|span| format!(" for {span}")).unwrap_or_default();
            format!("mirror {}%{span}", f64::from(share.per_mille()) / 10.0)
        }
        Gate::Ask(ask) => {
            let status = ask.status.map(|status| format!(" for {status}")).unwrap_or_default();
            let text = ask.contains.as_ref().map(|text| format!(" with {text:?}")).unwrap_or_default();
            format!("ask {ask}{status}{text} within {}{}", ask.timeout, again_text(ask.again))
        }
    }
}

fn again_text(Again { attempts, interval }: Again) -> String {
    if attempts > 1 { format!(", up to {attempts} times, {interval} apart") } else { String::new() }
}

fn share_text(stage: &Stage) -> String {
    format!("{}%", f64::from(stage.weight.per_mille()) / 10.0)
}

/// A strategy by its word in the stack language.
pub(crate) fn strategy_text(strategy: &Strategy) -> String {
    match strategy {
        Strategy::BlueGreen => "blue_green".into(),
        Strategy::Rolling { max_surge, max_unavailable, waves } => {
            let waves = waves.as_deref().map(waves_text).unwrap_or_default();
            format!("rolling (max_surge {max_surge}, max_unavailable {max_unavailable}{waves})")
        }
        Strategy::StopThenStart => "stop_then_start".into(),
        Strategy::Canary(canary) => {
            let shares: Vec<String> = canary.stages.iter().map(share_text).collect();
            let surge = canary.max_surge.map(|surge| format!(", max_surge {surge}")).unwrap_or_default();
            format!("canary ({}, 100%{surge})", shares.join(", "))
        }
    }
}

fn waves_text(waves: &Waves) -> String {
    let size = |size: &WaveSize| match size {
        WaveSize::Count(count) => count.to_string(),
        WaveSize::Share(share) => format!("{}%", f64::from(share.per_mille()) / 10.0),
    };
    let sizes: Vec<String> = waves.sizes.iter().map(size).collect();
    format!(", waves of {}, 100% with a soak of {}", sizes.join(", "), waves.soak)
}
