//! `kiln promote`

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::gates::Gates;
use kiln_model::image::Image;
use kiln_model::release::Release;
use kiln_model::stack::Stack;
use kiln_model::{Digest, EnvKey, EnvName, ImageName, SecretName, StackName};
use kiln_store::{Encoded, Sealed, Store};
use serde_json::json;

use super::context::Context;
use super::deploy::captured::{self, Captured};
use super::deploy::seal::{Sealing, seal};
use super::deploy::{folder, integrity, secrets};
use super::exit::Exit;
use super::failure::{Failure, Kind, Outcome};
use super::follow;
use super::gates;
use super::interrupt::Interrupt;
use super::plan;
use super::plan::diff::{Bake, Forecast, Plan, Verb};
use super::plan::forecast::Last;
use super::up;
use crate::api::client::Client;
use crate::api::wire;

/// Bring a release from one environment into another
///
/// The same release, by its digest: nothing is baked, and no file of the folder is read. What the other environment decides
/// fills its holes: the values of its `environment` block as the release has them, `--var`, and the secrets that it has.
/// To let a step of a rollout be complete, see `kiln rollout promote`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  kiln promote --from dev --to staging\n  kiln promote --from staging --to prod --plan"
)]
pub(super) struct Args {
    /// The environment that is at the release
    #[arg(long, value_name = "NAME")]
    from: EnvName,
    /// The environment that it is brought into; created if it is new
    #[arg(long, value_name = "NAME")]
    to: EnvName,
    /// Another release than the current one, by the beginning of its digest, as `kiln release list` shows it
    #[arg(long, value_name = "DIGEST")]
    release: Option<String>,
    /// Show what would change, and change nothing
    #[arg(long)]
    plan: bool,
    /// Read the values of secrets again where the stack says, instead of those that the environment has
    #[arg(long)]
    read_secrets: bool,
    /// Wait until the gates of the environment are open, as far as time or an approval opens them
    #[arg(long, conflicts_with_all = ["plan", "break_glass"])]
    wait: bool,
    /// Bring the release in whatever the environment's gates say; the reason is logged
    #[arg(long, value_name = "REASON")]
    break_glass: Option<String>,
    /// Return once the rollout is recorded, without waiting for its end
    #[arg(long)]
    detach: bool,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Outcome {
    if context.named_env().is_some() {
        return Err(Failure::usage("a promotion is between two environments").hint("leave out `--env`"));
    }
    if args.from == args.to {
        return Err(Failure::usage(format!("{} can't be promoted to itself", args.from)));
    }
    let client = context.client("promote")?;
    let stack = context.target(&client)?.stack;
    let (from, to) = (key(&stack, &args.from), key(&stack, &args.to));
    let digest = chosen(&client, &from, args.release.as_deref())?;
    let interrupt = Interrupt::listen(|| {});
    let mut promotion = Promotion::prepare(context, &client, &to, digest, args.read_secrets)?;
    if args.plan {
        return shown(context, &client, &promotion, &from, &to);
    }
    if args.wait {
        let question = promotion.question(&from);
        // A collection need not wait for as long: what is there then is prepared anew.
        drop(promotion);
        if let Some(exit) = gates::wait(&client, &to, &question, context.screen, &interrupt)? {
            return Ok(exit);
        }
        promotion = Promotion::prepare(context, &client, &to, digest, args.read_secrets)?;
    }
    up::say_plan(context, &to, &promotion.plan);
    promotion.require_whole()?;
    let up = wire::Up { break_glass: args.break_glass.clone(), ..promotion.request(&client, &from)? };
    if up.break_glass.is_none() {
        gates::require_open(&client, &to, &up)?;
    }
    let accepted = client.up(&to, &up).map_err(|error| gates::refused(error, &to))?;
    let Some(rollout) = accepted.rollout else {
        return up::unchanged(context, &client, &to, accepted.revision);
    };
    if args.detach {
        return up::detached(context, &to, &accepted);
    }
    let more = [("release", json!(digest.to_string())), ("promoted_from", json!(from.to_string()))];
    // From here on the log refers to what was stored, and the lease has done its work.
    drop(promotion);
    let followed = follow::rollout(&client, &to, rollout, context.screen, &interrupt)?;
    follow::conclude(context, &client, &to, followed, &more)
}

fn key(stack: &StackName, env: &EnvName) -> EnvKey {
    EnvKey { stack: stack.clone(), env: env.clone() }
}

/// The release that is meant: what the environment is at, or one that it was at.
fn chosen(client: &Client, from: &EnvKey, wanted: Option<&str>) -> Result<Digest, Failure> {
    let revisions = client.revisions(from)?;
    let wanted = wanted.map(|wanted| wanted.strip_prefix("sha256:").unwrap_or(wanted));
    let is_meant = |revision: &&wire::Revision| match wanted {
        None => revision.current,
        Some(beginning) => {
            let digest = revision.release.strip_prefix("sha256:").unwrap_or(&revision.release);
            revision.completed && revision.composed.is_none() && digest.starts_with(beginning)
        }
    };
    let meant: Vec<&wire::Revision> = revisions.iter().filter(is_meant).collect();
    let digests: BTreeSet<&str> = meant.iter().map(|revision| revision.release.as_str()).collect();
    let hint = format!("`kiln release list --env {}` shows what there is", from.env);
    if digests.len() > 1 {
        return Err(Failure::usage("several releases begin with this digest").hint(hint));
    }
    let Some(revision) = meant.first() else {
        return Err(Failure::refused(match wanted {
            None => format!("{from} has no revision yet: there is nothing to promote"),
            Some(wanted) => format!("{from} was never at a release {wanted}, or it is no longer kept"),
        })
        .hint(hint));
    };
    if let Some(made) = &revision.composed {
        return Err(Failure::refused(format!("{from} is at no release as it was made"))
            .cause(format!("#{} has {made}: a service was rolled back by itself", revision.number))
            .hint("`--release DIGEST` names a whole one, `kiln up` makes another"));
    }
    revision
        .release
        .parse()
        .map_err(|error| Failure::bug("the controller named an impossible digest").cause(error))
}

/// A release, sealed for another environment.
struct Promotion {
    digest: Digest,
    release: Release,
    sealing: Sealing,
    gates: Gates,
    plan: Plan,
    base: Option<u64>,
    store: Store,
    /// Keeps a collection away.
    _lease: kiln_store::Lease,
}

impl Promotion {
    fn prepare(
        context: &mut Context<'_>,
        client: &Client,
        to: &EnvKey,
        digest: Digest,
        read_secrets: bool,
    ) -> Result<Self, Failure> {
        let state = context.state();
        let store = Store::open(state.path())
            .map_err(|error| Failure::external("the store can't be opened").caused_by(&error))?;
        let lease = store
            .leases
            .take(&format!("promote to {to}"))
            .map_err(|error| Failure::external("the store can't be used").caused_by(&error))?;
        let lost = |error: kiln_store::ReadError| {
            Failure::external(format!("release {} can't be read", digest.short())).caused_by(&error)
        };
        let release = store.releases.release(&digest).map_err(lost)?;
        let source = Captured::load(&store, &release.source).map_err(lost)?;
        let variables = captured::variables(&release, &context.globals.vars)?;
        let stack = source.resolve(&store, &to.env, variables).require(context.screen)?;
        let image = |(name, digest): (&ImageName, &Digest)| Ok((name.clone(), store.images.get(digest)?));
        let images: Result<BTreeMap<ImageName, Image>, _> = release.images.iter().map(image).collect();
        let images = images.map_err(lost)?;
        let last = Last::load(client, &state, to)?;
        let known = last.as_ref().map(|last| last.secrets().clone()).unwrap_or_default();
        let versions = versions(context, &stack, if read_secrets { None } else { Some(&known) }, to)?;
        let sealing = seal(&stack, &images, &versions, release.source)?;
        let plan = planned(&stack, &sealing, last.as_ref());
        let base = last.and_then(|last| last.number);
        Ok(Self { digest, release, sealing, gates: stack.gates, plan, base, store, _lease: lease })
    }

    /// Refuses to start instances from files that are damaged: nothing looks at them later.
    fn require_whole(&self) -> Result<(), Failure> {
        let moving = self.plan.services.iter().filter(|service| service.verb != Verb::Keep);
        let specs = moving.filter_map(|moving| self.sealing.spec.services.get(&moving.name));
        let started: BTreeSet<Digest> = specs.map(|service| service.spec.image).collect();
        let images = self.release.images.iter().filter(|(_, digest)| started.contains(digest));
        match integrity::damaged(&self.store, None, images)?.first() {
            None => Ok(()),
            Some((name, damage)) => Err(Failure::external(format!("image {name} is damaged: {damage}")).hint(
                "`kiln bake` in the folder that the release was made from makes it again; what runs was not touched",
            )),
        }
    }

    /// Stores the binding, and makes the request that refers to it and to the release.
    fn request(&self, client: &Client, from: &EnvKey) -> Result<wire::Up, Failure> {
        let binding = self.store.releases.put_binding(&self.sealing.binding).map_err(|error| {
            Failure::external("the binding can't be stored")
                .caused_by(&error)
                .hint("free some space on the disk of the state folder; what runs was not touched")
        })?;
        Ok(wire::Up {
            origin: client.environment(from)?.origin.unwrap_or_default(),
            binding: binding.to_string(),
            sealed: (&self.sealing.spec).into(),
            ..self.question(from)
        })
    }

    /// What the gates have to know of the request.
    fn question(&self, from: &EnvKey) -> wire::Up {
        wire::Up {
            origin: String::new(),
            adopt: false,
            base: None,
            release: self.digest.to_string(),
            binding: String::new(),
            sealed: wire::Sealed::default(),
            promoted_from: Some(from.env.to_string()),
            if_running: wire::IfRunning::default(),
            gates: Some(Encoded(self.gates.clone())),
            break_glass: None,
            ttl_ms: None,
        }
    }
}

/// The version of each secret that some instance reads: the one that the environment has, or else its value is read.
fn versions(
    context: &Context<'_>,
    stack: &Stack,
    known: Option<&BTreeMap<String, String>>,
    to: &EnvKey,
) -> Result<BTreeMap<SecretName, String>, Failure> {
    let has = |name: &SecretName| known.and_then(|known| known.get(name.as_str())).cloned();
    let mut versions = BTreeMap::new();
    let mut sealed = None;
    for name in secrets::used(stack) {
        let version = match has(name) {
            Some(version) => version,
            None => {
                let sealed = match &mut sealed {
                    Some(sealed) => sealed,
                    none => none.insert(Sealed::open(context.state().path()).map_err(|error| {
                        Failure::external("the sealed store can't be opened").caused_by(&error)
                    })?),
                };
                capture(context, sealed, stack, name, to)?
            }
        };
        versions.insert(name.clone(), version);
    }
    Ok(versions)
}

/// Reads a value that the environment does not have. A path means the stack's folder, which this one may not be.
fn capture(
    context: &Context<'_>,
    sealed: &Sealed,
    stack: &Stack,
    name: &SecretName,
    to: &EnvKey,
) -> Result<String, Failure> {
    use kiln_model::stack::SecretSource;
    let source = stack.secrets.get(name).ok_or_else(|| {
        Failure::bug(format!("a service reads secret `{name}`, which the stack does not declare"))
    })?;
    let here = context.folder()?;
    if let SecretSource::File(path) = source
        && !path.starts_with('/')
        && folder::stack_name(&here).as_ref() != Some(&stack.name)
    {
        return Err(Failure::new(Kind::Config, format!("{to} has no value of secret `{name}`"))
            .cause(format!("the stack reads it from {path} in its folder, and this is another one"))
            .hint("enter the folder of the stack with `-C DIR`; nothing else of it is read"));
    }
    let value = secrets::read(name, source, &here)?;
    sealed
        .capture(&stack.name, name, &value)
        .map_err(|error| Failure::external(format!("secret `{name}` can't be sealed")).caused_by(&error))
}

/// Compares what the environment is at with what was sealed for it: unlike before a bake, all of it is known.
fn planned(stack: &Stack, sealing: &Sealing, last: Option<&Last>) -> Plan {
    let forecast = |(name, definition): (&_, &kiln_model::stack::ServiceDefinition)| {
        let service = sealing.spec.services.get(name)?.clone();
        let image = definition.image.clone();
        let recapture = BTreeSet::new();
        Some((kiln_model::ServiceName::clone(name), Forecast { service, image, bake: Bake::Done, recapture }))
    };
    let services = stack.services.iter().filter_map(forecast).collect();
    let nothing = kiln_model::release::RevisionSpec::default();
    let (old, images) = last.map_or((&nothing, BTreeMap::new()), |last| (&last.spec, last.images()));
    Plan::new(old, &images, &services, &stack.routes, &sealing.spec.webhooks)
}

fn shown(
    context: &mut Context<'_>,
    client: &Client,
    promotion: &Promotion,
    from: &EnvKey,
    to: &EnvKey,
) -> Outcome {
    let found = client.gates(to, &promotion.question(from))?.gates;
    let (plan, target) = (&promotion.plan, to.to_string());
    if context.screen.json() {
        let mut answer = plan::render::json(plan, &target, promotion.base);
        answer["release"] = json!(promotion.digest.to_string());
        answer["promoted_from"] = json!(from.to_string());
        answer["gates"] = json!(found);
        context.screen.answer(&answer);
    } else {
        let text = plan::render::text(plan, &target, promotion.base, context.screen.paint());
        context.screen.print(&text);
        context.screen.line(&format!("Release {} of {from}, as it is.", promotion.digest.short()));
        for gate in &found {
            let mark = if gate.is_open { "✓" } else { "✗" };
            context.screen.line(&format!("  {mark} {}", gates::line(gate)));
        }
    }
    Ok(Exit::Done)
}
