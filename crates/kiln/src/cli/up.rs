//! `kiln up`

use std::collections::BTreeSet;
use std::path::PathBuf;

use kiln_edge::ledger::LedgerSnapshot;
use kiln_model::{EnvKey, EnvName, ImageName, Millis};
use kiln_store::{Encoded, Sealed};
use serde_json::{Value, json};

use super::bake::{Baked, Cache, Verify, bake};
use super::context::Context;
use super::deploy::integrity::Ahead;
use super::deploy::load::{self, Declared};
use super::deploy::seal::{Sealing, seal};
use super::deploy::{checks, origin, secrets};
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::follow::{self, Followed};
use super::gates;
use super::hosts;
use super::interrupt::Interrupt;
use super::plan;
use super::plan::diff::{Plan, Verb};
use super::plan::file::SavedPlan;
use super::plan::forecast::Last;
use super::queue;
use super::table::count;
use crate::api::client::Client;
use crate::api::wire;
use crate::runtime::StateDir;

/// Bake, check, seal and move the environment to it
///
/// Starts Kiln where it does not run. Shows the rollout until it is complete; Ctrl-C detaches and the rollout goes on. A
/// rollout that fails goes back by itself, traffic first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln up --env prod\n  kiln plan --out next.plan && kiln up next.plan")]
pub(super) struct Args {
    /// Carry out a saved plan, or refuse if the folder or the environment moved on since
    #[arg(value_name = "PLANFILE")]
    plan: Option<PathBuf>,
    /// Return once the rollout is recorded, without waiting for its end
    #[arg(long)]
    detach: bool,
    /// Take over a stack name that belongs to another folder or Git origin
    #[arg(long)]
    adopt: bool,
    /// What becomes of a rollout to something else that is running
    #[arg(long, value_enum, default_value_t = IfRunning::Supersede)]
    if_running: IfRunning,
    /// Bring the release in whatever the environment's gates say; the reason is logged
    #[arg(long, value_name = "REASON")]
    break_glass: Option<String>,
    /// End the environment by itself after this long, such as 8h; each `kiln up` begins the time anew, `none` lifts it
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    ttl: Option<Millis>,
}

/// What becomes of a rollout that is running.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum IfRunning {
    /// It ends, and the new one goes on from whatever exists
    Supersede,
    /// It goes on, and the new one is refused
    Refuse,
    /// It goes on, and the new one begins when it has ended
    Queue,
}

/// Longer than this is no environment that comes and goes.
const TTL_MAX: Millis = Millis::from_secs(90 * 24 * 3600);

/// Reads how long an environment is to last; nothing for `none`.
fn ttl(text: &str) -> Result<Millis, String> {
    if text == "none" {
        return Ok(Millis(0));
    }
    match kiln_config::parse_millis(text)? {
        Millis(0) => Err("it must be longer than nothing; `none` lifts it".into()),
        ttl if ttl > TTL_MAX => Err("an environment that ends lasts for 90 days at most".into()),
        ttl => Ok(ttl),
    }
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Outcome {
    kiln_bake::share_heap();
    context.require_root("up")?;
    let saved = args.plan.as_deref().map(SavedPlan::read).transpose()?;
    let (env, vars) = asked(context, saved.as_ref())?;
    let folder = context.folder()?;
    let mut declared = load::declared(&folder, &env, &vars, &context.state(), context.screen)?;
    let key = EnvKey { stack: declared.stack.name.clone(), env };
    let client = context.client("up")?;
    let state = context.state();
    let last = Last::load(&client, &state, &key)?;
    if let Some(saved) = &saved {
        saved.require_same_folder(&declared.listing)?;
        saved.require_base(last.as_ref().and_then(|last| last.number))?;
    }
    let plan = plan::of(&declared, last.as_ref())?;
    say_plan(context, &key, &plan);
    let interrupt = Interrupt::listen(|| {});
    let started = images_to_start(&plan, &declared);
    let wanted = |name: &_| started.contains(name);
    let ahead = Some(Ahead::begin(&state, &declared.stack, started.iter()));
    let verify = Verify { wanted: &wanted, ahead };
    let baked = bake(&mut declared, &state, Cache::Used, verify, context.screen, &interrupt)?;
    if let Some(saved) = saved.as_ref().filter(|_| declared.changed) {
        saved.require_same_folder(&declared.listing)?;
    }
    checks::run(
        (&client, &baked.store),
        &state,
        &key,
        (&declared.stack, &declared.folder),
        &baked.images,
        context.screen,
        &interrupt,
    )?;
    let sealing = sealed(&declared, &baked, &state)?;
    let up = request(args, &declared, &baked, &sealing, saved.as_ref())?;
    let before = hosts::ledger(&state);
    let accepted = client.up(&key, &up).map_err(|error| gates::refused(error, &key))?;
    // From here on the log refers to what was stored, and the lease has done its work.
    drop(baked);
    let rollout = match (accepted.rollout, accepted.behind) {
        (Some(rollout), _) if !args.detach => rollout,
        (Some(_), _) => return detached(context, &key, &accepted),
        (None, None) => return unchanged(context, &client, &key, accepted.revision),
        (None, Some(behind)) => {
            let revision = accepted.revision.unwrap_or_default();
            queue::say(context, &key, revision, behind);
            match args.detach {
                true => return Ok(queue::detached(context, &key, revision, behind)),
                false => match queue::turn(context, &client, &key, (revision, behind), &interrupt)? {
                    Some(rollout) => rollout,
                    None => return Ok(Exit::Detached),
                },
            }
        }
    };
    let followed = follow::rollout(&client, &key, rollout, context.screen, &interrupt)?;
    conclude(context, &client, &key, followed, (&plan, before))
}

/// The environment and the variables: those of the saved plan, which nothing may contradict.
fn asked(
    context: &Context<'_>,
    saved: Option<&SavedPlan>,
) -> Result<(EnvName, Vec<(String, String)>), Failure> {
    let vars = context.globals.vars.clone();
    let Some(saved) = saved else { return Ok((context.env(), vars)) };
    let env = EnvName::new(saved.env.as_str())
        .map_err(|error| Failure::usage("the saved plan names no environment").cause(error))?;
    if context.named_env().is_some_and(|named| *named != env) {
        return Err(Failure::usage(format!("the plan is for the environment {env}")).hint("leave out --env"));
    }
    if !vars.is_empty() && vars != saved.vars {
        return Err(
            Failure::usage("the plan has variables of its own").hint("leave out --var, or plan again")
        );
    }
    Ok((env, saved.vars.clone()))
}

pub(super) fn say_plan(context: &mut Context<'_>, key: &EnvKey, plan: &Plan) {
    let mut line = format!("{key}: {}", plan::render::summary(plan));
    let moving: Vec<&str> = plan
        .services
        .iter()
        .filter(|service| service.verb != Verb::Keep)
        .map(|service| service.name.as_str())
        .collect();
    // A handful of names helps; a thousand don't.
    if (1..=8).contains(&moving.len()) {
        line = format!("{line} ({})", moving.join(", "));
    }
    context.screen.note(&line);
}

/// The images that new instances will be started from: they are verified before, for nothing does it later.
fn images_to_start(plan: &Plan, declared: &Declared) -> BTreeSet<ImageName> {
    let moving = plan.services.iter().filter(|service| service.verb != Verb::Keep);
    let definitions = moving.filter_map(|moving| {
        declared.stack.services.iter().find(|(name, _)| name.as_str() == moving.name.as_str())
    });
    definitions.map(|(_, definition)| definition.image.clone()).collect()
}

fn sealed(declared: &Declared, baked: &Baked, state: &StateDir) -> Result<Sealing, Failure> {
    let store = Sealed::open(state.path())
        .map_err(|error| Failure::external("the sealed store can't be opened").caused_by(&error))?;
    let versions = secrets::capture(&store, &declared.stack, &declared.folder)?;
    seal(&declared.stack, &baked.images, &versions, baked.source)
}

/// Stores the release and its binding, and makes the request that refers to them.
fn request(
    args: &Args,
    declared: &Declared,
    baked: &Baked,
    sealing: &Sealing,
    saved: Option<&SavedPlan>,
) -> Result<wire::Up, Failure> {
    let failed = |error: kiln_store::PutError| {
        Failure::external("the release can't be stored")
            .caused_by(&error)
            .hint("free some space on the disk of the state folder; what runs was not touched")
    };
    let releases = &baked.store.releases;
    Ok(wire::Up {
        origin: origin::of(&declared.folder),
        adopt: args.adopt,
        base: saved.and_then(|saved| saved.base),
        release: releases.put_release(&sealing.release).map_err(failed)?.to_string(),
        binding: releases.put_binding(&sealing.binding).map_err(failed)?.to_string(),
        sealed: (&sealing.spec).into(),
        promoted_from: None,
        if_running: match args.if_running {
            IfRunning::Supersede => wire::IfRunning::Supersede,
            IfRunning::Refuse => wire::IfRunning::Refuse,
            IfRunning::Queue => wire::IfRunning::Queue,
        },
        gates: Some(Encoded(declared.stack.gates.clone())),
        break_glass: args.break_glass.clone(),
        ttl_ms: args.ttl.map(|ttl| ttl.0),
    })
}

pub(super) fn unchanged(
    context: &mut Context<'_>,
    client: &Client,
    key: &EnvKey,
    revision: Option<u64>,
) -> Outcome {
    let environment = client.environment(key)?;
    let urls: Vec<String> = environment.routes.iter().map(|route| route.url.clone()).collect();
    let number = revision.or(environment.current).unwrap_or_default();
    if context.screen.json() {
        context.screen.answer(&json!({
            "environment": key.to_string(),
            "revision": number,
            "outcome": "unchanged",
            "urls": urls,
        }));
        return Ok(Exit::Done);
    }
    let paint = context.screen.paint();
    context.screen.line(&format!("{} {key} is at #{number} already: nothing to do", paint.green("✓")));
    for url in &urls {
        context.screen.line(&format!("  {}", paint.bold(url)));
    }
    Ok(Exit::Done)
}

pub(super) fn detached(context: &mut Context<'_>, key: &EnvKey, accepted: &wire::Accepted) -> Outcome {
    let number = accepted.revision.unwrap_or_default();
    if context.screen.json() {
        context.screen.answer(&json!({
            "environment": key.to_string(),
            "revision": number,
            "rollout": accepted.rollout,
            "outcome": "running",
        }));
    } else {
        let env = &key.env;
        context
            .screen
            .line(&format!("{key} moves to #{number}; `kiln status --env {env}` shows how far it is"));
    }
    Ok(Exit::Done)
}

fn conclude(
    context: &mut Context<'_>,
    client: &Client,
    key: &EnvKey,
    followed: Followed,
    (plan, before): (&Plan, Option<LedgerSnapshot>),
) -> Outcome {
    let ended = matches!(followed, Followed::Ended(_));
    let total =
        |ledger: Option<&LedgerSnapshot>| ledger.map(|ledger| ledger.total_of(key, None)).unwrap_or_default();
    let (before, after) = (total(before.as_ref()), total(hosts::ledger(&context.state()).as_ref()));
    let served = after.answered.saturating_sub(before.answered);
    let lost = after.lost().saturating_sub(before.lost());
    let totals = plan.totals();
    let more: [(&str, Value); 2] = [
        ("requests", json!({ "served": served, "lost": lost })),
        (
            "changes",
            json!({
                "create": totals.create,
                "replace": totals.replace,
                "change": totals.change,
                "remove": totals.remove,
            }),
        ),
    ];
    let exit = follow::conclude(context, client, key, followed, &more)?;
    if ended && !context.screen.json() {
        if served + lost > 0 {
            let served = count(usize::try_from(served).unwrap_or(usize::MAX), "request");
            context.screen.line(&format!("  meanwhile {served} served, {lost} lost"));
        }
        context.screen.line("  `kiln rollback` goes back, `kiln logs -f` shows what the instances say");
    }
    Ok(exit)
}
