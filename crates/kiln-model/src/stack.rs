//! What a stack folder says, resolved for one environment but not baked yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::gates::Gates;
use crate::image::{Image, ImageConfig};
use crate::instance::{HealthCheck, InstanceSpec, Limits, SecretRef, Security, StopPolicy, VolumeMount};
use crate::interlude::Interludes;
use crate::name::{
    BaseName, EnvName, ImageName, PortName, RouteName, SecretName, ServiceName, StackName, VariableName,
    VolumeName,
};
use crate::notify::WebhookDefinition;
use crate::recipe::{BaseRecipe, ImageRecipe};
use crate::route::Route;
use crate::service::{RolloutBounds, ServiceKind, Strategy};
use crate::units::{ByteSize, Millis};

/// What a stack folder says for one environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// Its name.
    pub name: StackName,
    /// The environment that it was resolved for.
    pub env: EnvName,
    /// The environments that it declares.
    pub environments: BTreeSet<EnvName>,
    /// The golden bases.
    pub bases: BTreeMap<BaseName, BaseRecipe>,
    /// The images.
    pub images: BTreeMap<ImageName, ImageRecipe>,
    /// What is wanted of images of registries, by what their names begin with; `*` for all.
    pub registries: BTreeMap<String, RegistryRules>,
    /// Where each secret's value comes from.
    pub secrets: BTreeMap<SecretName, SecretSource>,
    /// The volumes.
    pub volumes: BTreeSet<VolumeName>,
    /// The services.
    pub services: BTreeMap<ServiceName, ServiceDefinition>,
    /// The ways in.
    pub routes: BTreeMap<RouteName, Route>,
    /// What an environment fills in: name to type, as in `number`.
    pub holes: BTreeMap<VariableName, String>,
    /// What this environment filled in: name to canonical JSON. A sensitive variable is left out.
    pub bound: BTreeMap<VariableName, String>,
    /// The variables that no environment decides and that were given from outside: name to canonical JSON, or none for a
    /// sensitive one.
    pub given: BTreeMap<VariableName, Option<String>>,
    /// What this environment asks for before it lets a release in.
    pub gates: Gates,
    /// Who is told of rollouts, by name.
    pub webhooks: BTreeMap<String, WebhookDefinition>,
}

/// What is wanted of the images of a registry, or of a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryRules {
    /// Public keys in PEM, one of which must have signed an image before anything is made from it.
    pub signed_by: Vec<String>,
}

/// Where a secret's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file below the stack folder, or an absolute path. One trailing newline is not part of the value.
    File(String),
    /// An environment variable of the command that deploys.
    Environment(String),
}

/// A service before its image is baked and its secrets are captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceDefinition {
    /// Its kind.
    pub kind: ServiceKind,
    /// The image of the same stack that it boots.
    pub image: ImageName,
    /// Replaces the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command.
    pub command: Option<Vec<String>>,
    /// Laid over the image's environment.
    pub env: BTreeMap<String, String>,
    /// Replaces the image's working folder.
    pub workdir: Option<String>,
    /// Replaces the image's user.
    pub user: Option<String>,
    /// Which secret appears at which path.
    pub secrets: BTreeMap<String, SecretName>,
    /// Which volume is mounted at which path.
    pub volumes: BTreeMap<String, VolumeMount>,
    /// Writable memory by path.
    pub scratch: BTreeMap<String, ByteSize>,
    /// The ports.
    pub ports: BTreeMap<PortName, u16>,
    /// How health is probed.
    pub health: Option<HealthCheck>,
    /// What it may use.
    pub limits: Limits,
    /// What it may do.
    pub security: Security,
    /// Replaces the image's stop signal.
    pub stop_signal: Option<String>,
    /// How long it has to stop before SIGKILL.
    pub stop_grace: Millis,
    /// The services whose `url` it refers to.
    pub uses: BTreeSet<ServiceName>,
    /// The services that must be created first: `uses` and `depends_on`.
    pub after: BTreeSet<ServiceName>,
    /// Replicas.
    pub replicas: u32,
    /// How it moves from one revision to another.
    pub strategy: Strategy,
    /// The bounds of a rollout.
    pub bounds: RolloutBounds,
    /// What its rollout does between its moves.
    pub interludes: Arc<Interludes>,
}

/// Why a definition can't be sealed into an [`InstanceSpec`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealError {
    /// Neither the service nor its image says what to run.
    NoCommand,
    /// A secret has no captured version.
    MissingSecret(SecretName),
}

impl std::fmt::Display for SealError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoCommand => f.write_str("neither the service nor its image has a command"),
            Self::MissingSecret(name) => write!(f, "secret `{name}` has no captured value"),
        }
    }
}

impl std::error::Error for SealError {}

impl ServiceDefinition {
    /// Lays the definition over its baked image and fills in the secrets' versions.
    ///
    /// A service that sets `entrypoint` drops the image's `command`, as with `docker run --entrypoint`. One that does not say how its
    /// health is asked has the image's way; a job runs to its end, and is not asked.
    pub fn seal(
        &self,
        image: &Image,
        versions: &BTreeMap<SecretName, String>,
    ) -> Result<Arc<InstanceSpec>, SealError> {
        let base = &image.config;
        let mut env = base.env.clone();
        env.extend(self.env.clone());
        let mut scratch = self.scratch.clone();
        for path in &base.volumes {
            if !self.volumes.contains_key(path) {
                scratch.entry(path.clone()).or_insert(IMAGE_VOLUME_SIZE);
            }
        }
        Ok(Arc::new(InstanceSpec {
            image: image.manifest,
            argv: self.argv(base)?,
            env,
            workdir: non_empty(self.workdir.as_deref(), &base.workdir, "/"),
            user: non_empty(self.user.as_deref(), &base.user, ""),
            secrets: self.secret_refs(versions)?,
            volumes: self.volumes.clone(),
            scratch,
            ports: self.ports.clone(),
            health: self
                .health
                .clone()
                .or_else(|| base.health.clone().filter(|_| self.kind != ServiceKind::Job)),
            limits: self.limits.clone(),
            security: self.security.clone(),
            stop: self.stop(base),
            uses: self.uses.clone(),
        }))
    }

    fn argv(&self, base: &ImageConfig) -> Result<Vec<String>, SealError> {
        let entrypoint = self.entrypoint.as_ref().unwrap_or(&base.entrypoint);
        let command = match (&self.command, &self.entrypoint) {
            (Some(command), _) => command.as_slice(),
            (None, Some(_)) => &[],
            (None, None) => base.command.as_slice(),
        };
        let argv: Vec<String> = entrypoint.iter().chain(command).cloned().collect();
        if argv.is_empty() { Err(SealError::NoCommand) } else { Ok(argv) }
    }

    fn stop(&self, base: &ImageConfig) -> StopPolicy {
        let signal = non_empty(self.stop_signal.as_deref(), &base.stop_signal, "SIGTERM");
        StopPolicy { signal, grace: self.stop_grace }
    }

    fn secret_refs(
        &self,
        versions: &BTreeMap<SecretName, String>,
    ) -> Result<BTreeMap<String, SecretRef>, SealError> {
        let sealed = |(path, name): (&String, &SecretName)| {
            let version = versions.get(name).ok_or_else(|| SealError::MissingSecret(name.clone()))?;
            Ok((path.clone(), SecretRef { name: name.clone(), version: version.clone() }))
        };
        self.secrets.iter().map(sealed).collect()
    }
}

/// A VOLUME of an image is memory unless a volume is mounted there, so it must not take the machine's.
pub const IMAGE_VOLUME_SIZE: ByteSize = ByteSize::from_mib(64);

fn non_empty(first: Option<&str>, second: &str, last: &str) -> String {
    match first {
        Some(text) => text,
        None if !second.is_empty() => second,
        None => last,
    }
    .into()
}
