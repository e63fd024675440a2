//! `kiln audit`

use kiln_store::EventLog;
use kiln_store::log::{OpenLogError, Verification};
use serde_json::{Value, json};

use super::context::Context;
use super::exit::Exit;
use super::failure::{Failure, Outcome};

/// Prove that the log is what was written
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln audit verify")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Verify the chain of all events, up to the last anchor
    #[command(after_help = "Example:\n  kiln audit verify --json")]
    Verify,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Outcome {
    let Verb::Verify = args.verb;
    context.require_root("audit verify")?;
    let state = context.state();
    let log = match EventLog::open_read_only(state.path()) {
        Ok(log) => log,
        Err(OpenLogError::Damaged { position, reason }) => {
            return Err(broken().cause(format!("at {position}: {reason}")));
        }
        Err(error @ OpenLogError::Missing { .. }) => {
            return Err(Failure::refused("there is no log yet")
                .caused_by(&error)
                .hint("`kiln up` begins one"));
        }
        Err(error) => return Err(Failure::external("the log can't be opened").caused_by(&error)),
    };
    let found =
        log.verify(&[]).map_err(|error| Failure::external("the log can't be read").caused_by(&error))?;
    if context.screen.json() {
        context.screen.answer(&answer(&found));
        return Ok(if is_whole(&found) { Exit::Done } else { Exit::Failed });
    }
    if !is_whole(&found) {
        return Err(failure(&found));
    }
    context.screen.line(&format!("{} events hold together up to {}", found.entries, found.head.position));
    match found.proven.iter().max_by_key(|anchor| anchor.head.position) {
        Some(anchor) => context
            .screen
            .line(&format!("proven up to {}, which {} remembers", anchor.head.position, anchor.who)),
        None => context.screen.line("no anchor yet: nobody else remembers a head of this log"),
    }
    Ok(Exit::Done)
}

fn is_whole(found: &Verification) -> bool {
    found.first_bad.is_none() && found.broken.is_empty()
}

fn broken() -> Failure {
    Failure::failed("the log is not what was written")
        .hint("stop Kiln with `kiln host stop`, keep the folder as evidence, and restore log/ from a backup; instances go on")
}

fn failure(found: &Verification) -> Failure {
    let mut failure = broken();
    if let Some((position, reason)) = &found.first_bad {
        failure = failure.cause(format!("at {position}: {reason}"));
    }
    for anchor in &found.broken {
        failure = failure.cause(format!("{} remembers another {}", anchor.who, anchor.head.position));
    }
    failure
}

fn answer(found: &Verification) -> Value {
    let anchors = |anchors: &[kiln_store::log::Anchor]| -> Vec<Value> {
        anchors
            .iter()
            .map(|anchor| {
                json!({
                    "who": anchor.who,
                    "position": anchor.head.position.0,
                    "hash": anchor.head.hash.to_string(),
                })
            })
            .collect()
    };
    json!({
        "whole": is_whole(found),
        "entries": found.entries,
        "position": found.head.position.0,
        "hash": found.head.hash.to_string(),
        "proven": anchors(&found.proven),
        "broken": anchors(&found.broken),
        "first_bad": found.first_bad.as_ref().map(|(position, reason)| json!({ "position": position.0, "reason": reason })),
    })
}
