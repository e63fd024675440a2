//! `kiln audit`

use std::cmp::Reverse;

use kiln_store::EventLog;
use kiln_store::log::{Anchor, Head, OpenLogError, Verification};
use serde_json::{Value, json};

use super::context::Context;
use super::exit::Exit;
use super::failure::{Failure, Kind, Outcome};
use super::table::{count, moment};
use crate::runtime::Anchors;

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
    // Before the log is opened: it goes on while this looks.
    let anchors = Anchors::read(&state);
    let log = match EventLog::open_read_only(state.path()) {
        Ok(log) => log,
        Err(OpenLogError::Damaged { position, reason }) => {
            return Err(broken(Kind::Failed).cause(format!("at {position}: {reason}")));
        }
        Err(OpenLogError::Missing { .. }) if !anchors.found.is_empty() => {
            let names =
                anchors.found.iter().map(|anchor| anchor.who.as_str()).collect::<Vec<_>>().join(" and ");
            return Err(broken(Kind::Failed).cause(format!("there is no log, but {names} remember one")));
        }
        Err(error @ OpenLogError::Missing { .. }) => {
            return Err(Failure::refused("there is no log yet")
                .caused_by(&error)
                .hint("`kiln up` begins one"));
        }
        Err(error) => return Err(Failure::external("the log can't be opened").caused_by(&error)),
    };
    let found = log
        .verify(&anchors.found)
        .map_err(|error| Failure::external("the log can't be read").caused_by(&error))?;
    if context.screen.json() {
        context.screen.answer(&answer(&found, &anchors.unreadable));
        return Ok(if found.is_sound() { Exit::Done } else { Exit::Failed });
    }
    for reason in &anchors.unreadable {
        context.screen.note(&format!("warning: an anchor can't be read: {reason}"));
    }
    if !found.is_sound() {
        return Err(failure(&found));
    }
    for line in proof(&found) {
        context.screen.line(&line);
    }
    Ok(Exit::Done)
}

/// What is proven, and by whom.
fn proof(found: &Verification) -> Vec<String> {
    let mut lines = vec![format!("{} hold together", count(found.entries as usize, "event"))];
    let mut heads: Vec<Head> = found.proven.iter().map(|anchor| anchor.head).collect();
    heads.sort_by_key(|head| Reverse(head.position));
    heads.dedup();
    for head in &heads {
        let holders: Vec<&Anchor> = found.proven.iter().filter(|anchor| anchor.head == *head).collect();
        let names: Vec<&str> = holders.iter().map(|anchor| anchor.who.as_str()).collect();
        // Each wrote down its own time; the first to know is what counts.
        let since = holders.iter().filter_map(|anchor| anchor.at).min();
        let since = since.map_or_else(String::new, |at| format!(" at {}", moment(at)));
        lines.push(format!("proved up to {}, anchored with {}{since}", head.position, names.join(" and ")));
    }
    match heads.first() {
        None => lines.push("no anchor yet: nobody else remembers a head of this log".into()),
        Some(head) if head.position < found.head.position => {
            let after = count((found.head.position.0 - head.position.0) as usize, "later event");
            lines.push(format!("{after}, up to {}: nobody else remembers them yet", found.head.position));
        }
        Some(_) => {}
    }
    lines
}

/// The log can't be trusted.
pub(super) fn broken(kind: Kind) -> Failure {
    Failure::new(kind, "the log is not what was written").hint(
        "what runs is served meanwhile: end Kiln's processes with `kiln host stop`, keep the state folder's log/ as \
         evidence, put a whole copy of it there, and run `kiln audit verify` again",
    )
}

fn failure(found: &Verification) -> Failure {
    let mut failure = broken(Kind::Failed);
    if let Some((position, reason)) = &found.first_bad {
        failure = failure.cause(format!("at {position}: {reason}"));
    }
    let last = found.proven.iter().max_by_key(|anchor| anchor.head.position);
    if let Some(anchor) = last.filter(|anchor| anchor.head.position.0 > 0) {
        failure = failure.cause(format!("proved up to {} only, by {}", anchor.head.position, anchor.who));
    }
    failure
}

fn answer(found: &Verification, unreadable: &[String]) -> Value {
    let anchors = |anchors: &[Anchor]| -> Vec<Value> {
        anchors
            .iter()
            .map(|anchor| {
                json!({
                    "who": anchor.who,
                    "position": anchor.head.position.0,
                    "hash": anchor.head.hash.to_string(),
                    "at_ms": anchor.at.map(|at| at.0),
                })
            })
            .collect()
    };
    json!({
        "whole": found.is_sound(),
        "entries": found.entries,
        "position": found.head.position.0,
        "hash": found.head.hash.to_string(),
        "proven": anchors(&found.proven),
        "broken": anchors(&found.broken),
        "unreadable": unreadable,
        "first_bad": found.first_bad.as_ref().map(|(position, reason)| json!({ "position": position.0, "reason": reason })),
    })
}

#[cfg(test)]
mod tests {
    use kiln_model::{Digest, Position, Timestamp};

    use super::*;

    #[test]
    fn the_proof_names_who_remembers_what_and_since_when() {
        let head = |position| Head { position: Position(position), hash: Digest::new([1; 32]) };
        let anchor = |who: &str, position, at| Anchor {
            who: who.into(),
            head: head(position),
            at: Some(Timestamp(at)),
        };
        let found = |head: Head, proven| Verification {
            entries: head.position.0,
            head,
            proven,
            broken: Vec::new(),
            first_bad: None,
        };
        let both = vec![anchor("edge", 7, 2_000), anchor("host", 7, 1_000)];
        assert_eq!(
            proof(&found(head(7), both)),
            ["7 events hold together", "proved up to @7, anchored with edge and host at 1970-01-01 00:00:01"]
        );
        let apart = vec![anchor("edge", 5, 0), anchor("host", 7, 0)];
        assert_eq!(
            proof(&found(head(8), apart))[1..],
            [
                "proved up to @7, anchored with host at 1970-01-01 00:00:00",
                "proved up to @5, anchored with edge at 1970-01-01 00:00:00",
                "1 later event, up to @8: nobody else remembers them yet",
            ]
        );
        assert!(proof(&found(head(1), Vec::new()))[1].contains("no anchor yet"));
    }
}
