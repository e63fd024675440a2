//! `kiln down`

use std::time::{Duration, Instant};

use kiln_model::EnvKey;
use serde_json::json;

use super::context::Context;
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::follow;
use super::interrupt::Interrupt;
use crate::api::client::Client;
use crate::api::wire;

/// The edge closes a socket within a round trip; where it is away it is started again first.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// A socket is closed within some milliseconds.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Take an environment down
///
/// Traffic first, then instances; then the environment is forgotten. The log and the images stay.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln down --env staging")]
pub(super) struct Args {
    /// Return once it is recorded, without waiting for its end
    #[arg(long)]
    detach: bool,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Outcome {
    let client = context.client("down")?;
    let target = context.target(&client)?;
    let accepted = client.down(&target)?;
    match accepted.rollout {
        Some(rollout) if !args.detach => {
            let interrupt = Interrupt::listen(|| {});
            match follow::rollout(&client, &target, rollout, context.screen, &interrupt) {
                Ok(followed) => {
                    wait_until_gone(context, &client, &target, &interrupt)?;
                    follow::conclude(context, &client, &target, followed, &[])
                }
                // What is small is gone, its rollout with it, before anybody can look.
                Err(_) if is_gone(&client, &target)? => Ok(tell(context, &target, None)),
                Err(failure) => Err(failure),
            }
        }
        started => Ok(tell(context, &target, started)),
    }
}

/// The instances go with the rollout, the sockets after it: whoever is told that all is down may want the port.
fn wait_until_gone(
    context: &mut Context<'_>,
    client: &Client,
    target: &EnvKey,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let deadline = Instant::now() + GONE_WITHIN;
    while !interrupt.is_set() && client.environments()?.iter().any(|shown| is_going(shown, target)) {
        if Instant::now() > deadline {
            context.screen.note("its sockets are still being closed; `kiln events` tells when they are");
            return Ok(());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// Whether it is there still, though all of it was taken down: one whose rollout failed stays.
fn is_going(shown: &wire::Environment, target: &EnvKey) -> bool {
    let is_down = |rollout: &wire::Rollout| {
        rollout.cause == "down" && rollout.ended.as_ref().is_some_and(|ended| ended.outcome == "completed")
    };
    shown.stack == target.stack.as_str()
        && shown.env == target.env.as_str()
        && shown.rollout.as_ref().is_none_or(is_down)
}

fn is_gone(client: &Client, target: &EnvKey) -> Result<bool, Failure> {
    let (stack, env) = (target.stack.as_str(), target.env.as_str());
    Ok(!client.environments()?.iter().any(|shown| shown.stack == stack && shown.env == env))
}

fn tell(context: &mut Context<'_>, target: &EnvKey, started: Option<u64>) -> Exit {
    let text = match started {
        Some(_) => format!("{target} goes down; `kiln status` shows how far it is"),
        None => format!("{target} is down"),
    };
    if context.screen.json() {
        context.screen.answer(&json!({ "environment": target.to_string(), "rollout": started }));
    } else {
        context.screen.line(&text);
    }
    Exit::Done
}
