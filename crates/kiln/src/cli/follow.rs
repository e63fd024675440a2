//! Follows a rollout to its end: redrawn on a terminal, in lines in a pipe.

pub(crate) mod advice;
pub(crate) mod canaries;
pub(crate) mod frame;

use std::time::Duration;

use kiln_model::{EnvKey, Millis, Timestamp};
use serde_json::{Value, json};

use super::context::Context;
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::interrupt::Interrupt;
use super::logs::last_words;
use super::screen::Screen;
use super::table::{moment, now, span};
use crate::api::client::{Client, Next, RequestError};
use crate::api::wire;

/// A frame is drawn at least this often: the seconds count up, and Ctrl-C is seen.
const FRAME_EVERY: Duration = Duration::from_millis(100);

/// How following ended.
#[derive(Debug)]
pub(crate) enum Followed {
    /// The rollout ended.
    Ended(Box<wire::Progress>),
    /// The rollout failed and stopped: somebody decides.
    Halted(Box<wire::Progress>),
    /// The user has seen enough; the rollout goes on.
    Detached,
}

/// Shows a rollout until it ends or the user presses Ctrl-C. A controller that is restarted meanwhile is waited for.
pub(crate) fn rollout(
    client: &Client,
    env: &EnvKey,
    rollout: u64,
    screen: &mut Screen,
    interrupt: &Interrupt,
) -> Result<Followed, Failure> {
    let mut lines = frame::Lines::default();
    let mut last: Option<wire::Progress> = None;
    let mut seen_at = now();
    loop {
        let mut stream = match client.progress(env, rollout) {
            Ok(stream) => stream,
            Err(error) => return lost(error, last),
        };
        loop {
            if interrupt.is_set() {
                screen.keep();
                return Ok(Followed::Detached);
            }
            match stream.next(FRAME_EVERY) {
                Ok(Next::Item(progress)) => {
                    seen_at = now();
                    if !screen.is_live() {
                        for line in lines.update(&progress) {
                            screen.note(&line);
                        }
                    }
                    let over = progress.rollout.ended.is_some() || progress.rollout.halted.is_some();
                    last = Some(progress);
                    if over {
                        break;
                    }
                }
                Ok(Next::Idle) => {}
                // The controller was restarted: the rollout goes on in the new one, and so does the display.
                Ok(Next::End) | Err(RequestError::Broken(_)) => break,
                Err(error) => return Err(error.into()),
            }
            if let Some(progress) = &last {
                let ago = now().since(seen_at);
                screen.draw(&frame::frame(progress, ago, screen.err_paint()));
            }
        }
        if let Some(progress) = last.take_if(|progress| progress.rollout.ended.is_some()) {
            screen.draw(&frame::frame(&progress, Millis(0), screen.err_paint()));
            screen.keep();
            return Ok(Followed::Ended(Box::new(progress)));
        }
        if let Some(progress) = last.take_if(|progress| progress.rollout.halted.is_some()) {
            screen.draw(&frame::frame(&progress, Millis(0), screen.err_paint()));
            screen.keep();
            return Ok(Followed::Halted(Box::new(progress)));
        }
    }
}

/// The rollout is unknown: another one ended after it, while the controller was away.
fn lost(error: RequestError, last: Option<wire::Progress>) -> Result<Followed, Failure> {
    match (&error, last) {
        (RequestError::Problem(problem), Some(mut last))
            if problem.code == "no_rollout" || problem.code == "unknown_environment" =>
        {
            let outcome = if last.rollout.cause == "down" { "completed" } else { "superseded" };
            last.rollout.ended =
                Some(wire::Ended { at_ms: last.now_ms, outcome: outcome.into(), reason: String::new() });
            Ok(Followed::Ended(Box::new(last)))
        }
        _ => Err(error.into()),
    }
}

/// Says how a rollout ended, and turns it into the command's outcome. `more` joins the JSON answer.
pub(crate) fn conclude(
    context: &mut Context<'_>,
    client: &Client,
    env: &EnvKey,
    followed: Followed,
    more: &[(&str, Value)],
) -> Outcome {
    let state = context.state();
    let screen = &mut *context.screen;
    if let Followed::Halted(progress) = &followed {
        return Err(halted(env, &progress.rollout));
    }
    let Followed::Ended(progress) = followed else {
        screen.note(&format!(
            "Detached: the rollout of {env} goes on. `kiln rollout watch --env {}` follows it again, `kiln abort --env {}` stops it.",
            env.env, env.env
        ));
        return Ok(Exit::Detached);
    };
    let rollout = &progress.rollout;
    let ended = rollout.ended.clone().unwrap_or_default();
    let took = Millis(ended.at_ms.saturating_sub(rollout.started_ms));
    if ended.outcome != "completed" {
        let words = match ended.outcome.as_str() {
            "superseded" => Vec::new(),
            _ => last_words(client, &state, env, rollout.id, &ended.reason),
        };
        let failure = failure(env, rollout, &ended, took);
        let failure = match advice::about(&ended.reason, &words) {
            Some(advice) => failure.hint(advice),
            None => failure,
        };
        return Err(words.into_iter().fold(failure, |failure, words| failure.cause(words)));
    }
    if screen.json() {
        let mut answer = json!({
            "environment": env.to_string(),
            "revision": rollout.to,
            "from": rollout.from,
            "rollout": rollout.id,
            "outcome": ended.outcome,
            "took_ms": took.0,
            "urls": progress.routes.iter().map(|route| route.url.as_str()).collect::<Vec<_>>(),
        });
        for (key, value) in more {
            answer[*key] = value.clone();
        }
        screen.answer(&answer);
        return Ok(Exit::Done);
    }
    let paint = screen.paint();
    let what = match rollout.to {
        Some(number) => format!("{env} is at #{number}"),
        None => format!("{env} is down"),
    };
    screen.line(&format!("{} {what} after {}", paint.green("✓"), span(took)));
    for route in &progress.routes {
        screen.line(&format!("  {}", paint.bold(&route.url)));
    }
    Ok(Exit::Done)
}

/// Why a rollout stopped, and what somebody may do about it.
pub(super) fn halted(env: &EnvKey, rollout: &wire::Rollout) -> Failure {
    let wire::Halted { reason, until_ms } = rollout.halted.clone().unwrap_or_default();
    let target = rollout.to.map_or_else(String::new, |number| format!(" to #{number}"));
    let until = moment(Timestamp(until_ms));
    Failure::failed(format!("the rollout of {env}{target} failed, and stopped where it is")).cause(reason).hint(format!(
        "`kiln rollout resume` tries again, `kiln rollout abort` goes back, a new release takes over; by itself it goes back at {until}"
    ))
}

fn failure(env: &EnvKey, rollout: &wire::Rollout, ended: &wire::Ended, took: Millis) -> Failure {
    let target =
        rollout.to.map_or_else(|| "taking it down".into(), |number| format!("the rollout to #{number}"));
    let back = rollout.from.map_or_else(|| "nothing, as before".into(), |number| format!("#{number}"));
    let after = span(took);
    let failure = match ended.outcome.as_str() {
        "went_back" => Failure::failed(format!("{target} failed after {after}; {env} is back at {back}"))
            .hint(format!("`kiln logs --ended --env {}` shows all that the instances said", env.env)),
        "superseded" => Failure::failed(format!("{target} was superseded after {after} by another one"))
            .hint(format!("`kiln status --env {}` shows the one that runs", env.env)),
        _ => {
            Failure::failed(format!("{target} is stuck after {after}, and so is the way back")).hint(format!(
                "what still serves was left in place; `kiln status --env {}` shows what is missing",
                env.env
            ))
        }
    };
    match ended.reason.is_empty() {
        true => failure,
        false => failure.cause(&ended.reason),
    }
}
