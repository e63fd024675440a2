//! What is sealed: releases, bindings, and the revisions that pair them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::digest::Digest;
use crate::id::RevisionNumber;
use crate::name::{ImageName, RouteName, SecretName, ServiceName, StackName, VariableName};
use crate::notify::Webhook;
use crate::route::Route;
use crate::service::Service;

/// Immutable: image digests and the resolved definition with typed holes; the same in every environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The stack.
    pub stack: StackName,
    /// The snapshot of the stack folder that it was made from; resolving it again with a binding gives the revision.
    pub source: Digest,
    /// What each image was baked to.
    pub images: BTreeMap<ImageName, Digest>,
    /// What an environment must fill in, with the type that it must have, as in `number` or `list(string)`.
    pub holes: BTreeMap<VariableName, String>,
    /// The variables that no environment decides and that were given from outside: name to canonical JSON, or none for a
    /// sensitive one. With the source, they say what the definition is resolved to.
    pub given: BTreeMap<VariableName, Option<String>>,
    /// The checks that must have passed, by image and test name.
    pub checks: Vec<RequiredCheck>,
}

/// A check that a release requires. The verdict is an event about the digest, so that it never changes the release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequiredCheck {
    /// The manifest of the image that it is about.
    pub image: Digest,
    /// The test's name.
    pub test: String,
}

/// Immutable: what one environment fills the holes of a release with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Binding {
    /// The values, as canonical JSON.
    pub variables: BTreeMap<VariableName, String>,
    /// The captured version of each secret that some instance reads.
    pub secrets: BTreeMap<String, String>,
}

/// (release, binding), numbered per environment, with everything resolved: what rollouts move between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// Its number in its environment.
    pub number: RevisionNumber,
    /// The digest of its release.
    pub release: Digest,
    /// The digest of its binding.
    pub binding: Digest,
    /// What runs.
    pub spec: Arc<RevisionSpec>,
    /// Set if it was made of two others: `release` and `binding` are those of the revision that it was made from, and
    /// one service differs from what they say.
    pub composed: Option<Composed>,
}

/// How a revision was made of two others, when one service was rolled back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composed {
    /// The service that was taken from another revision.
    pub service: ServiceName,
    /// That revision.
    pub from: RevisionNumber,
}

/// What runs in an environment: a pure function of (release, binding).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RevisionSpec {
    /// The services.
    pub services: BTreeMap<ServiceName, Service>,
    /// The ways in.
    pub routes: BTreeMap<RouteName, Route>,
    /// Who is told of the rollouts that lead here, by name.
    pub webhooks: BTreeMap<String, Webhook>,
    /// The secrets that the questions of rollouts go with, and their versions.
    pub credentials: BTreeMap<SecretName, String>,
}
