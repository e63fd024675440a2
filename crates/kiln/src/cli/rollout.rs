//! `kiln rollout`

mod shown;

use kiln_model::EnvKey;
use serde_json::json;

use super::abort;
use super::context::Context;
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::follow;
use super::interrupt::Interrupt;
use super::logs::last_words;
use crate::api::client::{Client, RequestError};
use crate::api::wire;

/// See what rollouts did and do, and steer the one that runs
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln rollout list --env prod\n  kiln rollout show 57")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List rollouts, the newest first
    #[command(after_help = "Example:\n  kiln rollout list --limit 5")]
    List {
        /// How many
        #[arg(long, default_value_t = 20, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
    },
    /// Show one rollout: its steps, when each began and how long it took
    #[command(after_help = "Example:\n  kiln rollout show 57\n  kiln rollout show --steps")]
    Show {
        /// Its id, as `kiln rollout list` shows it; by default the one that runs, else the last one
        rollout: Option<u64>,
        /// Only the list of steps, as it was planned
        #[arg(long)]
        steps: bool,
    },
    /// Follow the rollout that runs until it ends
    ///
    /// Ctrl-C ends the watching, not the rollout. Exits as `kiln up` does.
    #[command(after_help = "Example:\n  kiln rollout watch --env prod")]
    Watch,
    /// Let no further step of the rollout begin
    ///
    /// The step that runs goes on, and waits as long as it takes. Instances that fail are replaced, and a rollout that fails
    /// goes back.
    #[command(after_help = "Example:\n  kiln rollout pause --env prod")]
    Pause,
    /// Let a paused rollout go on, with the time that it had left; try again one that failed and stopped
    #[command(after_help = "Example:\n  kiln rollout resume --env prod")]
    Resume,
    /// Let the step that waits for time, an analysis or an approval be complete
    ///
    /// This is how somebody approves. It is about one step: repeated, it does not reach the next one. To bring a release into
    /// another environment, see `kiln promote`.
    #[command(after_help = "Example:\n  kiln rollout promote --env prod")]
    Promote {
        /// The step, counted from 1 as `kiln rollout show` does; by default the one that runs
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        step: Option<u32>,
    },
    /// Stop the rollout that runs and go back: the same as `kiln abort`
    #[command(after_help = "Example:\n  kiln rollout abort --env prod")]
    Abort(abort::Args),
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Outcome {
    match &args.verb {
        Verb::List { limit } => list(usize::from(*limit), context),
        Verb::Show { rollout, steps } => show(*rollout, *steps, context),
        Verb::Watch => watch(context),
        Verb::Pause => steer(context, Client::pause, "is paused; `kiln rollout resume` lets it go on"),
        Verb::Resume => steer(context, Client::resume, "goes on; `kiln rollout watch` follows it"),
        Verb::Promote { step } => promote(*step, context),
        Verb::Abort(args) => abort::run(args, context),
    }
}

fn list(limit: usize, context: &mut Context<'_>) -> Outcome {
    let client = context.client("rollout")?;
    let target = context.target(&client)?;
    let rollouts = client.rollouts(&target, limit)?;
    let queued = queued(&client, &target)?;
    if context.screen.json() {
        let mut answer = json!({ "environment": target.to_string(), "rollouts": rollouts });
        if let Some(queued) = &queued {
            answer["queued"] = json!(queued);
        }
        context.screen.answer(&answer);
        return Ok(Exit::Done);
    }
    let mut text = shown::list(&rollouts, client.health().now_ms, context.screen.paint());
    text.extend(queued.iter().map(shown::queued));
    context.screen.print(&text);
    Ok(Exit::Done)
}

fn promote(step: Option<u32>, context: &mut Context<'_>) -> Outcome {
    let client = context.client("rollout")?;
    let target = context.target(&client)?;
    let running = client.environment(&target)?.rollout.filter(|rollout| rollout.ended.is_none());
    let running = running.ok_or_else(|| Failure::refused(format!("no rollout is running in {target}")))?;
    let current = running.steps.iter().position(|step| step.state == "running");
    // Named, so that a request that is sent twice promotes one step.
    let index = match step {
        Some(step) => step - 1,
        None => current.and_then(|at| u32::try_from(at).ok()).ok_or_else(|| {
            Failure::refused(format!("the rollout of {target} is between two steps"))
                .hint("`kiln rollout show` tells what it waits for")
        })?,
    };
    client.promote(&target, Some(index))?;
    let text = usize::try_from(index).ok().and_then(|at| running.steps.get(at)).map(|step| step.text.clone());
    if context.screen.json() {
        let step = index + 1;
        context
            .screen
            .answer(&json!({ "environment": target.to_string(), "rollout": running.id, "step": step }));
    } else {
        context.screen.line(&format!("promoted: {}", text.unwrap_or_default()));
    }
    Ok(Exit::Done)
}

fn show(rollout: Option<u64>, steps: bool, context: &mut Context<'_>) -> Outcome {
    let client = context.client("rollout")?;
    let target = context.target(&client)?;
    // The newest is the one that runs, if any does.
    let newest = client.rollouts(&target, 1)?.first().map(|latest| latest.rollout.id);
    let id = rollout.or(newest).ok_or_else(|| {
        Failure::refused(format!("{target} had no rollout yet")).hint("`kiln up` begins the first one")
    })?;
    let record = client.rollout(&target, id).map_err(|error| match error {
        RequestError::Problem(problem) if problem.code == "no_such_rollout" => {
            Failure::refused(problem.message).hint("`kiln rollout list` shows those that there were")
        }
        error => error.into(),
    })?;
    if context.screen.json() {
        let answer = match steps {
            true => json!({ "environment": target.to_string(), "rollout": id, "steps": planned(&record) }),
            false => json!({ "environment": target.to_string(), "record": record }),
        };
        context.screen.answer(&answer);
        return Ok(Exit::Done);
    }
    let text = match steps {
        true => planned(&record).iter().map(|step| format!("{step}\n")).collect(),
        false => {
            let text = shown::record(&target, &record, client.health().now_ms, context.screen.paint());
            let text = text + &last_printed(context, &client, &target, &record, newest);
            let queued = if record.rollout.ended.is_none() { queued(&client, &target)? } else { None };
            text + &queued.iter().map(shown::queued).collect::<String>()
        }
    };
    context.screen.print(&text);
    Ok(Exit::Done)
}

/// What the instances of a rollout printed at last that failed; of one that others followed it can't be told apart from theirs.
fn last_printed(
    context: &Context<'_>,
    client: &Client,
    env: &EnvKey,
    record: &wire::RolloutRecord,
    newest: Option<u64>,
) -> String {
    let rollout = &record.rollout;
    let has_failed = |end: &&wire::Ended| ["went_back", "stuck"].contains(&end.outcome.as_str());
    let Some(end) = rollout.ended.as_ref().filter(has_failed) else { return String::new() };
    if Some(rollout.id) != newest {
        return String::new();
    }
    let words = last_words(client, &context.state(), env, rollout.id, &end.reason);
    words.into_iter().map(|words| format!("{words}\n")).collect()
}

fn planned(record: &wire::RolloutRecord) -> Vec<&str> {
    record.rollout.steps.iter().map(|step| step.text.as_str()).collect()
}

fn watch(context: &mut Context<'_>) -> Outcome {
    let client = context.client("rollout")?;
    let target = context.target(&client)?;
    let Some(id) = running(&client, &target)? else {
        return Err(Failure::refused(format!("no rollout is running in {target}"))
            .hint("`kiln rollout show` tells of the last one"));
    };
    let interrupt = Interrupt::listen(|| {});
    let followed = follow::rollout(&client, &target, id, context.screen, &interrupt)?;
    follow::conclude(context, &client, &target, followed, &[])
}

/// Asks for something about the rollout that runs, and says what is so now.
fn steer(
    context: &mut Context<'_>,
    ask: impl Fn(&Client, &EnvKey) -> Result<wire::Accepted, RequestError>,
    now: &str,
) -> Outcome {
    let client = context.client("rollout")?;
    let target = context.target(&client)?;
    let accepted = ask(&client, &target)?;
    if context.screen.json() {
        context.screen.answer(&json!({ "environment": target.to_string(), "rollout": accepted.rollout }));
        return Ok(Exit::Done);
    }
    context.screen.line(&format!("the rollout of {target} {now}"));
    Ok(Exit::Done)
}

/// What begins after the rollout that runs. An environment that is gone has nothing queued.
fn queued(client: &Client, target: &EnvKey) -> Result<Option<wire::Queued>, Failure> {
    match client.environment(target) {
        Ok(environment) => Ok(environment.queued),
        Err(RequestError::Problem(problem)) if problem.code == "unknown_environment" => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The id of the rollout that runs.
fn running(client: &Client, target: &EnvKey) -> Result<Option<u64>, Failure> {
    let rollout = client.environment(target)?.rollout;
    Ok(rollout.filter(|rollout| rollout.ended.is_none()).map(|rollout| rollout.id))
}
