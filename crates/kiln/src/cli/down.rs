//! `kiln down`

use serde_json::json;

use super::context::Context;
use super::exit::Exit;
use super::failure::Outcome;
use super::follow;
use super::interrupt::Interrupt;

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
            let followed = follow::rollout(&client, &target, rollout, context.screen, &interrupt)?;
            follow::conclude(context, &client, &target, followed, &[])
        }
        started => {
            let text = match started {
                Some(_) => format!("{target} goes down; `kiln status` shows how far it is"),
                None => format!("{target} is down"),
            };
            if context.screen.json() {
                context.screen.answer(&json!({ "environment": target.to_string(), "rollout": started }));
            } else {
                context.screen.line(&text);
            }
            Ok(Exit::Done)
        }
    }
}
