//! `kiln plan`

pub(crate) mod changes;
pub(crate) mod diff;
pub(crate) mod expected;
pub(crate) mod file;
pub(crate) mod forecast;
pub(crate) mod render;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use kiln_core::State;
use kiln_model::EnvKey;
use serde_json::json;

use super::context::Context;
use super::deploy::load::{self, Declared};
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::safety::Safety;
use crate::api::client::RequestError;
use crate::api::history::Seen;
use crate::api::{prediction, wire};
use crate::runtime::is_root;
use file::SavedPlan;
use forecast::Last;

/// Show what `kiln up` would do, and why
///
/// Per service: created, replaced, scaled, adjusted, removed or unchanged, and which inputs changed. Bakes nothing and
/// changes nothing. Without root, the state can't be read, and everything is compared with nothing.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  kiln plan --env prod --out next.plan && kiln up next.plan\n  kiln plan --detailed-exitcode"
)]
pub(super) struct Args {
    /// Save the plan; `kiln up FILE` does this or nothing
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// Exit with 0 for no changes, 1 for an error, 2 for changes, as Terraform does
    #[arg(long)]
    pub(super) detailed_exitcode: bool,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Outcome {
    let (env, vars) = (context.env(), context.globals.vars.clone());
    let declared = load::declared(&context.folder()?, &env, &vars, &context.state(), context.screen)?;
    let key = EnvKey { stack: declared.stack.name.clone(), env };
    let last = last(context, &key)?;
    let plan = forecast::plan(&declared, last.as_ref())?;
    let base = last.as_ref().and_then(|last| last.number);
    let leaves = last.as_ref().and_then(|last| last.leaves.as_ref()).filter(|_| plan.has_changes());
    let back = leaves.map(|leaves| Safety::after(&context.state(), leaves, &plan.target)).transpose()?;
    let expected = expected(context, &key, &plan, last.as_ref())?;
    if let Some(path) = &args.out {
        SavedPlan::new(&key, base, &declared.listing, &vars).write(path)?;
    }
    let target = key.to_string();
    if context.screen.json() {
        let mut answer = render::json(&plan, &target, base);
        answer["expected"] = json!(expected);
        answer["rollback"] = json!(back.as_ref().map(Safety::json));
        context.screen.answer(&answer);
    } else {
        let text = render::text(&plan, &target, base, context.screen.paint());
        context.screen.print(&text);
        if let Some(expected) = &expected {
            let text = expected::text(expected, &plan.bakes, context.screen.paint());
            context.screen.print(&text);
        }
        if let Some(back) = &back {
            context.screen.line(&format!("Back to #{} from there: rollback-safe: {}", back.to, back.text()));
        }
        if let Some(path) = &args.out {
            context
                .screen
                .line(&format!("Saved to {0}: `kiln up {0}` does this or nothing.", path.display()));
        }
    }
    let changes = args.detailed_exitcode && plan.has_changes();
    Ok(if changes { Exit::Changes } else { Exit::Done })
}

/// What the rollout would come to; none where there would be none.
fn expected(
    context: &mut Context<'_>,
    key: &EnvKey,
    plan: &diff::Plan,
    last: Option<&Last>,
) -> Result<Option<wire::Prediction>, Failure> {
    if !plan.has_changes() {
        return Ok(None);
    }
    if last.is_none() {
        // Nothing is there, or nobody may look.
        let nothing = (State::new(), Seen::default());
        return Ok(Some(prediction::up(&nothing.0, key, plan.target.clone(), &nothing.1)));
    }
    let predict = wire::Predict { sealed: (&plan.target).into() };
    match context.client("plan")?.predict(key, &predict) {
        Ok(prediction) => Ok(Some(prediction)),
        Err(RequestError::Problem(problem)) if problem.code == "unknown_path" => {
            let unknown = Some("the controller is that of a Kiln before this one".into());
            Ok(Some(wire::Prediction { unknown, ..wire::Prediction::default() }))
        }
        Err(error) => Err(error.into()),
    }
}

/// What the environment is at; none if nothing was ever there, or if nobody may look.
pub(super) fn last(context: &mut Context<'_>, key: &EnvKey) -> Result<Option<Last>, Failure> {
    let state = context.state();
    if !is_root() {
        if state.path().exists() {
            context.screen.note(&format!(
                "note: without root the state in {} can't be read; everything is compared with nothing",
                state.path().display()
            ));
        }
        return Ok(None);
    }
    // A plan starts Kiln only where it has run before: a look must not leave a supervisor behind.
    let client = match context.running_client()? {
        Some(client) => client,
        None if state.path().join("log").exists() => context.client("plan")?,
        None => return Ok(None),
    };
    Last::load(&client, &state, key)
}

/// What `up` shows of its own plan before it begins.
pub(super) fn of(declared: &Declared, last: Option<&Last>) -> Result<diff::Plan, Failure> {
    forecast::plan(declared, last)
}
