//! `kiln check`

use kiln_model::service::ServiceKind;
use serde_json::json;

use super::context::Context;
use super::deploy::{load, registries};
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::screen::Paint;
use super::table::count;

/// Check the stack in this folder
///
/// Parses and resolves it for the environment, and shows all errors at once. Needs no root and changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln check --env prod")]
pub(super) struct Args {}

pub(super) fn run(_: &Args, context: &mut Context<'_>) -> Outcome {
    let env = context.env();
    let folder = context.folder()?;
    let mut found = load::find(&folder, &env, &context.globals.vars, &context.state())?;
    registries::check_files(&mut found, &folder);
    let errors = found.errors();
    if context.screen.json() {
        let stack = found.stack.as_ref().map(|stack| stack.name.to_string());
        context.screen.answer(&json!({
            "ok": errors == 0,
            "stack": stack,
            "environment": env.as_str(),
            "diagnostics": found.json(),
        }));
        return Ok(if errors == 0 { Exit::Done } else { Exit::Config });
    }
    let colour = context.screen.err_paint() != Paint::PLAIN;
    let Some(stack) = found.stack.as_ref().filter(|_| errors == 0) else {
        return Err(Failure::diagnostics(found.report(colour), errors));
    };
    if !found.diagnostics.is_empty() {
        context.screen.note(&found.report(colour));
    }
    // What a step's check runs is a job, too, and nobody declared it as a service.
    let jobs = stack.services.values().filter(|service| service.kind == ServiceKind::Job).count();
    let parts: Vec<String> = [
        Some(count(stack.services.len() - jobs, "service")),
        (jobs > 0).then(|| count(jobs, "job")),
        Some(count(stack.images.len(), "image")),
        Some(count(stack.routes.len(), "route")),
    ]
    .into_iter()
    .flatten()
    .collect();
    context.screen.line(&format!("{}/{env} is well formed: {}", stack.name, parts.join(", ")));
    Ok(Exit::Done)
}
