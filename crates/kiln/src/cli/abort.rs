//! `kiln abort`

use serde_json::json;

use super::context::Context;
use super::exit::Exit;
use super::failure::Outcome;
use super::follow::{self, Followed};
use super::interrupt::Interrupt;
use super::queue;

/// Stop the rollout that is running and go back
///
/// Traffic goes back first, then instances. Waits until the environment is where it was. What is queued behind it does not
/// begin.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln abort --env prod")]
pub(super) struct Args {
    /// Return once it is recorded, without waiting for its end
    #[arg(long)]
    detach: bool,
    /// Only take out what is queued behind the rollout, which goes on
    #[arg(long, conflicts_with = "detach")]
    queued: bool,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Outcome {
    if args.queued {
        return queue::withdraw(context);
    }
    let client = context.client("abort")?;
    let target = context.target(&client)?;
    let running = client.environment(&target)?.rollout.filter(|rollout| rollout.ended.is_none());
    client.abort(&target)?;
    let followed = match running {
        Some(rollout) if !args.detach => {
            let interrupt = Interrupt::listen(|| {});
            Some(follow::rollout(&client, &target, rollout.id, context.screen, &interrupt)?)
        }
        _ => None,
    };
    match followed {
        // Going back is what was asked for, so here it is a success.
        Some(Followed::Ended(progress))
            if progress.rollout.ended.as_ref().is_some_and(|e| e.outcome == "went_back") =>
        {
            let back = progress.rollout.from;
            if context.screen.json() {
                context.screen.answer(&json!({ "environment": target.to_string(), "revision": back }));
            } else {
                let back = back.map_or_else(|| "nothing".into(), |number| format!("#{number}"));
                context.screen.line(&format!("{target} is back at {back}"));
            }
            Ok(Exit::Done)
        }
        Some(followed) => follow::conclude(context, &client, &target, followed, &[]),
        None => {
            if context.screen.json() {
                context.screen.answer(&json!({ "environment": target.to_string() }));
            } else {
                context.screen.line(&format!("{target} goes back; `kiln status` shows how far it is"));
            }
            Ok(Exit::Done)
        }
    }
}
