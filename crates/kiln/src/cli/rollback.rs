//! `kiln rollback`

use std::collections::BTreeSet;

use kiln_model::event::EnvironmentEvent;
use kiln_model::release::RevisionSpec;
use kiln_model::{Entry, EnvKey, Event, Position, RevisionNumber, ServiceName, Timestamp};
use kiln_store::{Damage, EventLog, Store};
use serde_json::json;

use super::context::Context;
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::follow;
use super::interrupt::Interrupt;
use super::safety::Safety;
use super::table::{count, moment};
use crate::api::client::{Client, RequestError};
use crate::api::wire;

/// Go back to a retained revision
///
/// Without a number: to the revision before the current one. Where its instances are still warm, going back is one switch
/// of the routes. With --service, only that service goes back, and a new revision is composed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln rollback --env prod 41\n  kiln rollback --service web")]
pub(super) struct Args {
    /// The revision, as 41 or #41
    #[arg(value_parser = number)]
    revision: Option<RevisionNumber>,
    /// Take only this service back
    #[arg(long, value_name = "NAME")]
    service: Option<ServiceName>,
    /// Begin with a canary where the revision declares one, instead of moving everything at once
    #[arg(long)]
    careful: bool,
    /// Return once it is recorded, without waiting for its end
    #[arg(long)]
    detach: bool,
}

/// Reads a revision's number, with or without its sign.
pub(super) fn number(text: &str) -> Result<RevisionNumber, String> {
    let digits = text.strip_prefix('#').unwrap_or(text);
    digits.parse().map(RevisionNumber).map_err(|_| "expected a revision's number, such as 41".into())
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Outcome {
    let client = context.client("rollback")?;
    let target = context.target(&client)?;
    // Named, so that a request that is sent twice goes back once.
    let to = match args.revision {
        Some(number) => number,
        None => {
            let previous = client.environment(&target)?.previous;
            previous.map(RevisionNumber).ok_or_else(|| {
                Failure::refused(format!("{target} has no earlier revision to go back to"))
                    .hint("`kiln release list --retained` shows what can still be restored")
            })?
        }
    };
    let safety = look(context, &client, &target, to, args.service.as_ref())?;
    if let Some(safety) = &safety {
        context.screen.note(&format!("rollback-safe: {}", safety.text()));
    }
    let service = args.service.as_ref().map(ServiceName::as_str);
    let accepted =
        client.rollback(&target, Some(to), service, args.careful).map_err(|error| match error {
            RequestError::Problem(problem) if problem.code == "unknown_revision" => {
                let log = EventLog::open_read_only(context.state().path()).ok();
                gone(&target, to, service, log.and_then(|log| released_at(&log, &target, to)))
            }
            error => error.into(),
        })?;
    let Some(rollout) = accepted.rollout else {
        let at = accepted.revision.unwrap_or(to.0);
        return done(context, &format!("{target} is at #{at} already"), at);
    };
    if args.detach {
        return done(context, &format!("{target} goes back to {to}"), to.0);
    }
    let interrupt = Interrupt::listen(|| {});
    let followed = follow::rollout(&client, &target, rollout, context.screen, &interrupt)?;
    let safety = safety.as_ref().map(Safety::json);
    follow::conclude(context, &client, &target, followed, &[("to", json!(to.0)), ("rollback", json!(safety))])
}

/// When a revision was released; none if it never was.
fn released_at(log: &EventLog, env: &EnvKey, number: RevisionNumber) -> Option<Timestamp> {
    let is_it = |entry: &Entry| {
        let Event::Environment(event) = &entry.event else { return false };
        matches!(event, EnvironmentEvent::RevisionReleased { number: released } if *released == number)
    };
    // Numbers begin anew when an environment does: the last one counts.
    log.read_env(env, Position(0)).filter_map(Result::ok).filter(is_it).last().map(|entry| entry.at)
}

fn gone(env: &EnvKey, to: RevisionNumber, service: Option<&str>, released_at: Option<Timestamp>) -> Failure {
    let what = service.map_or_else(|| env.to_string(), |service| format!("{service} in {env}"));
    let cause = match released_at {
        Some(at) => format!("{to} is kept no longer: what only it needed was given up on {}", moment(at)),
        None => format!("{env} has no revision {to}"),
    };
    Failure::refused(format!("cannot roll back {what} to {to}"))
        .cause(cause)
        .hint("`kiln release list --retained` shows what can still be restored")
}

/// Returns what speaks against it, and refuses what can't work; none where there is no such revision.
fn look(
    context: &Context<'_>,
    client: &Client,
    target: &EnvKey,
    to: RevisionNumber,
    service: Option<&ServiceName>,
) -> Result<Option<Safety>, Failure> {
    let detail = match client.revision(target, to) {
        Ok(detail) => detail,
        // What is not there is refused by the controller, with better words.
        Err(RequestError::Problem(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let safety = Safety::of_log(&context.state(), &detail, service)?;
    // Where warm instances are there, nothing is started: that way is the quick one, and is not held up.
    if !detail.revision.warm {
        require_secrets(target, to, &safety)?;
        require_whole(context, target, to, &detail, service)?;
    }
    Ok(Some(safety))
}

/// Refuses to start instances without their secrets.
fn require_secrets(target: &EnvKey, to: RevisionNumber, safety: &Safety) -> Result<(), Failure> {
    let missing: Vec<&str> = safety.missing_secrets().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let failure = Failure::external(format!("{target} can't go back to {to}: a secret is gone"));
    Err(missing
        .into_iter()
        .fold(failure, |failure, secret| failure.cause(secret))
        .hint("`kiln up` in the folder as it was captures it again; what runs was not touched"))
}

/// Refuses to start instances from files that are damaged.
fn require_whole(
    context: &Context<'_>,
    target: &EnvKey,
    to: RevisionNumber,
    detail: &wire::RevisionDetail,
    service: Option<&ServiceName>,
) -> Result<(), Failure> {
    let spec = RevisionSpec::try_from(&detail.sealed)
        .map_err(|error| Failure::bug("the controller's answer can't be used").caused_by(&error))?;
    let store = Store::open(context.state().path())
        .map_err(|error| Failure::external("the store can't be opened").caused_by(&error))?;
    let (mut damaged, mut images) = (BTreeSet::new(), BTreeSet::new());
    let mut verification = store.verification();
    for (name, sealed) in spec.services.iter().filter(|(name, _)| service.is_none_or(|only| only == *name)) {
        let manifest = sealed.spec.image;
        match verification.damage(&manifest) {
            Ok(found) if found.is_empty() => continue,
            Ok(found) => damaged.extend(shown(name, &found)),
            Err(error) => drop(damaged.insert(format!("{name}: {error}"))),
        }
        images.insert(manifest.short());
    }
    verification.remember();
    if damaged.is_empty() {
        return Ok(());
    }
    damaged.extend(store.pack_damage().iter().map(|damage| damage.to_string()));
    let images: Vec<String> = images.into_iter().map(|image| image.to_string()).collect();
    let images = images.join(", ");
    let failure = Failure::external(format!("{target} can't go back to {to}: image {images} is damaged"));
    let first = match store.pack_damage().into_iter().find(|damage| damage.is_index) {
        Some(index) => format!("remove {}; then ", index.path.display()),
        None => String::new(),
    };
    Err(damaged.into_iter().fold(failure, Failure::cause).hint(format!(
        "{first}`kiln bake` in the folder as it was at {to} makes the same files again; what runs was not touched"
    )))
}

/// So many damaged files of an image are named: a pack that is lost takes thousands along.
const DAMAGE_SHOWN_MAX: usize = 5;

/// What is damaged of a service's image, the first of it by name.
fn shown(name: &ServiceName, found: &[Damage]) -> Vec<String> {
    let mut shown: Vec<String> =
        found.iter().take(DAMAGE_SHOWN_MAX).map(|damage| format!("{name}: {damage}")).collect();
    if let Some(more) = found.len().checked_sub(DAMAGE_SHOWN_MAX).filter(|more| *more > 0) {
        shown.push(format!("{name}: {} more", count(more, "file")));
    }
    shown
}

fn done(context: &mut Context<'_>, text: &str, revision: u64) -> Outcome {
    if context.screen.json() {
        context.screen.answer(&json!({ "revision": revision, "outcome": text }));
    } else {
        context.screen.line(text);
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_that_is_gone_is_told_from_one_that_never_was() {
        let env = EnvKey { stack: "shop".parse().unwrap(), env: "prod".parse().unwrap() };
        let text =
            |at| gone(&env, RevisionNumber(41), Some("web"), at).text(super::super::screen::Paint::PLAIN);
        assert_eq!(
            text(Some(Timestamp(1_772_460_309_000))),
            "error: cannot roll back web in shop/prod to #41\n  \
             cause: #41 is kept no longer: what only it needed was given up on 2026-03-02 14:05:09\n  \
             hint:  `kiln release list --retained` shows what can still be restored\n"
        );
        assert!(text(None).contains("cause: shop/prod has no revision #41\n"));
    }

    #[test]
    fn a_revision_is_named_with_or_without_its_sign() {
        assert_eq!(number("#41"), Ok(RevisionNumber(41)));
        assert_eq!(number("41"), Ok(RevisionNumber(41)));
        assert!(number("prod").is_err());
    }
}
