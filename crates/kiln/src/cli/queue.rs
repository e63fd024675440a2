//! A release that waits for the rollout that runs.

use kiln_model::EnvKey;
use serde_json::json;

use super::context::Context;
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::follow::{self, Followed};
use super::interrupt::Interrupt;
use crate::api::client::Client;

/// Rollouts among which the one of a revision is looked for once its turn came: others may have followed it since.
const LOOKED_THROUGH_MAX: usize = 50;

/// Says what it waits for.
pub(super) fn say(context: &mut Context<'_>, key: &EnvKey, revision: u64, behind: u64) {
    context.screen.note(&format!(
        "{key}: #{revision} is next, and begins when rollout {behind} has ended; `kiln rollout abort --queued` takes it out"
    ));
}

/// The answer of who does not wait for it.
pub(super) fn detached(context: &mut Context<'_>, key: &EnvKey, revision: u64, behind: u64) -> Exit {
    if context.screen.json() {
        context.screen.answer(&json!({
            "environment": key.to_string(),
            "revision": revision,
            "behind": behind,
            "outcome": "queued",
        }));
    }
    Exit::Done
}

/// Follows what runs before until the revision has its turn, and returns its rollout; none if the user has seen enough.
///
/// # Errors
/// It does not begin any more.
pub(super) fn turn(
    context: &mut Context<'_>,
    client: &Client,
    key: &EnvKey,
    (revision, mut behind): (u64, u64),
    interrupt: &Interrupt,
) -> Result<Option<u64>, Failure> {
    loop {
        let followed = follow::rollout(client, key, behind, context.screen, interrupt)?;
        if matches!(followed, Followed::Detached) {
            context.screen.note(&format!("Detached: #{revision} stays next in {key}."));
            return Ok(None);
        }
        if let Followed::Halted(before) = &followed {
            let stays = format!("#{revision} stays next in {key}");
            return Err(follow::halted(key, &before.rollout).cause(stays));
        }
        // The one before ends, and the next one begins, in one and the same moment.
        let began = client.rollouts(key, LOOKED_THROUGH_MAX)?;
        if let Some(own) = began.iter().find(|record| record.rollout.to == Some(revision)) {
            return Ok(Some(own.rollout.id));
        }
        let environment = client.environment(key)?;
        let is_next = environment.queued.is_some_and(|queued| queued.revision == revision);
        match environment.rollout.filter(|rollout| rollout.ended.is_none() && is_next) {
            Some(running) => behind = running.id,
            None => {
                return Err(Failure::failed(format!("#{revision} did not begin in {key}"))
                    .cause("somebody took it out of the queue, or something newer took its place")
                    .hint("`kiln events` tells who and what"));
            }
        }
    }
}

/// Takes out what is queued.
pub(super) fn withdraw(context: &mut Context<'_>) -> Outcome {
    let client = context.client("abort")?;
    let target = context.target(&client)?;
    let revision = client.withdraw(&target)?.revision.unwrap_or_default();
    if context.screen.json() {
        context.screen.answer(&json!({ "environment": target.to_string(), "withdrawn": revision }));
    } else {
        context.screen.line(&format!("{target}: #{revision} does not begin; what runs goes on"));
    }
    Ok(Exit::Done)
}
