//! `kiln down`

use kiln_model::EnvKey;
use serde_json::json;

use super::context::Context;
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::follow;
use super::interrupt::Interrupt;
use crate::api::client::Client;

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
                Ok(followed) => follow::conclude(context, &client, &target, followed, &[]),
                // What is small is gone, its rollout with it, before anybody can look.
                Err(_) if is_gone(&client, &target)? => Ok(tell(context, &target, None)),
                Err(failure) => Err(failure),
            }
        }
        started => Ok(tell(context, &target, started)),
    }
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
