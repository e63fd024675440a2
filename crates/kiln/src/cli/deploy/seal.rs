//! What is moved to: a stack, its images and its secrets' versions, sealed. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kiln_model::access;
use kiln_model::image::Image;
use kiln_model::instance::SecretRef;
use kiln_model::notify::{Webhook, WebhookDefinition};
use kiln_model::release::{Binding, Release, RequiredCheck, RevisionSpec};
use kiln_model::service::Service;
use kiln_model::stack::{ServiceDefinition, Stack};
use kiln_model::{Digest, ImageName, SecretName, ServiceName};
use kiln_store::canonical::spec_digest;

use super::{inspections, scans};
use crate::cli::failure::{Failure, Kind};

/// A release and its binding with what runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sealing {
    /// The same in every environment.
    pub release: Release,
    /// What this environment fills in.
    pub binding: Binding,
    /// What runs.
    pub spec: RevisionSpec,
}

/// Seals a stack.
///
/// # Errors
/// A service can't be sealed: neither it nor its image says what to run.
pub(crate) fn seal(
    stack: &Stack,
    images: &BTreeMap<ImageName, Image>,
    versions: &BTreeMap<SecretName, String>,
    source: Digest,
) -> Result<Sealing, Failure> {
    let mut services = BTreeMap::new();
    for (name, definition) in &stack.services {
        services.insert(name.clone(), service(name, definition, images, versions)?);
    }
    let release = Release {
        stack: stack.name.clone(),
        source,
        images: images.iter().map(|(name, image)| (name.clone(), image.manifest)).collect(),
        holes: stack.holes.clone(),
        given: stack.given.clone(),
        checks: required(stack, images),
    };
    let binding = Binding {
        variables: stack.bound.clone(),
        secrets: versions.iter().map(|(name, version)| (name.to_string(), version.clone())).collect(),
    };
    let (routes, webhooks) = (stack.routes.clone(), webhooks(stack, versions)?);
    let credentials = credentials(&services, versions)?;
    Ok(Sealing { release, binding, spec: RevisionSpec { services, routes, webhooks, credentials } })
}

/// The versions of the secrets that questions of rollouts go with.
fn credentials(
    services: &BTreeMap<ServiceName, Service>,
    versions: &BTreeMap<SecretName, String>,
) -> Result<BTreeMap<SecretName, String>, Failure> {
    let names = services.values().flat_map(|service| access::secrets(&service.strategy, &service.interludes));
    names.map(|name| Ok((name.clone(), captured(name, versions)?))).collect()
}

fn captured(name: &SecretName, versions: &BTreeMap<SecretName, String>) -> Result<String, Failure> {
    let version = versions.get(name).cloned();
    version.ok_or_else(|| Failure::bug(format!("secret `{name}` was not captured")))
}

/// Seals who is told of rollouts.
///
/// # Errors
/// A secret was not captured, which is a mistake of ours.
pub(crate) fn webhooks(
    stack: &Stack,
    versions: &BTreeMap<SecretName, String>,
) -> Result<BTreeMap<String, Webhook>, Failure> {
    let seal = |(name, it): (&String, &WebhookDefinition)| {
        let secret = SecretRef { name: it.secret.clone(), version: captured(&it.secret, versions)? };
        Ok((name.clone(), Webhook { url: it.url.clone(), events: it.events.clone(), secret }))
    };
    stack.webhooks.iter().map(seal).collect()
}

/// Seals one service over its image.
///
/// # Errors
/// As [`seal`].
pub(crate) fn service(
    name: &ServiceName,
    definition: &ServiceDefinition,
    images: &BTreeMap<ImageName, Image>,
    versions: &BTreeMap<SecretName, String>,
) -> Result<Service, Failure> {
    let image = images.get(&definition.image).ok_or_else(|| {
        Failure::bug(format!("image `{}` of service {name} was not baked", definition.image))
    })?;
    let spec = definition.seal(image, versions).map_err(|error| {
        Failure::new(Kind::Config, format!("service {name} can't be sealed"))
            .cause(error)
            .hint(format!("set `command` in service \"{name}\" or in image \"{}\"", definition.image))
    })?;
    Ok(Service {
        name: name.clone(),
        kind: definition.kind,
        spec_digest: spec_digest(&spec),
        spec: Arc::clone(&spec),
        replicas: definition.replicas,
        strategy: definition.strategy.clone(),
        after: definition.after.clone(),
        bounds: definition.bounds,
        interludes: Arc::clone(&definition.interludes),
    })
}

/// Every test and the scan of every image, each digest and name once.
fn required(stack: &Stack, images: &BTreeMap<ImageName, Image>) -> Vec<RequiredCheck> {
    let checks: BTreeSet<RequiredCheck> = images
        .iter()
        .flat_map(|(name, image)| {
            let recipe = stack.images.get(name);
            let tests = recipe.map(|recipe| recipe.tests.as_slice()).unwrap_or_default();
            let scan = recipe.and_then(|recipe| recipe.scan.as_ref()).map(|_| scans::NAME.to_owned());
            let names = tests.iter().flat_map(inspections::names).chain(scan);
            names.map(|test| RequiredCheck { image: image.manifest, test })
        })
        .collect();
    checks.into_iter().collect()
}
