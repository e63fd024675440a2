//! `kiln release approve`

use std::collections::BTreeSet;

use kiln_model::{EnvKey, Millis};
use serde_json::json;

use crate::api::client::Client;
use crate::api::wire;
use crate::cli::context::Context;
use crate::cli::exit::Exit;
use crate::cli::failure::{Failure, Outcome};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The release, by the beginning of its digest, as `kiln release list` shows it in the environment where it is
    #[arg(value_name = "DIGEST")]
    release: String,
    /// For how long, at most 30 days
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    within: Millis,
}

/// Reads a duration as the stack language writes it.
fn duration(text: &str) -> Result<Millis, String> {
    match kiln_config::parse_millis(text)? {
        Millis(0) => Err("it must be longer than nothing".into()),
        within if within > kiln_core::APPROVAL_MAX => Err("an approval holds for 30 days at most".into()),
        within => Ok(within),
    }
}

pub(super) fn run(args: &Args, client: &Client, target: &EnvKey, context: &mut Context<'_>) -> Outcome {
    let release = find(client, target, &args.release)?;
    client.approve(target, &wire::Approve { release: release.clone(), within_ms: args.within.0 })?;
    if context.screen.json() {
        context.screen.answer(&json!({ "environment": target.to_string(), "release": release }));
    } else {
        let within = args.within;
        context.screen.line(&format!("approved for {target}, for {within}: {release}"));
    }
    Ok(Exit::Done)
}

/// The release that is meant, of those that any environment of the stack has.
fn find(client: &Client, target: &EnvKey, wanted: &str) -> Result<String, Failure> {
    let wanted = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    let mut found = BTreeSet::new();
    for environment in client.environments()? {
        let Ok(env) = environment.env.parse() else { continue };
        if environment.stack != target.stack.as_str() {
            continue;
        }
        let revisions = client.revisions(&EnvKey { stack: target.stack.clone(), env })?;
        let digests = revisions.into_iter().map(|revision| revision.release);
        found.extend(digests.filter(|it| it.strip_prefix("sha256:").unwrap_or(it).starts_with(wanted)));
    }
    let hint = "`kiln release list --env NAME` shows the releases of an environment";
    match found.len() {
        1 => Ok(found.pop_first().expect("there is one")),
        0 => {
            Err(Failure::refused(format!("no environment of {} has a release {wanted}", target.stack))
                .hint(hint))
        }
        _ => Err(Failure::usage("several releases begin with this digest").hint(hint)),
    }
}
