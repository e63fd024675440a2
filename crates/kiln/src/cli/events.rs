//! `kiln events`

use std::time::Duration;

use kiln_model::Timestamp;

use super::context::Context;
use super::exit::Exit;
use super::failure::Outcome;
use super::interrupt::Interrupt;
use super::screen::Paint;
use super::table::moment;
use crate::api::client::{Next, RequestError};
use crate::api::wire;

/// How often Ctrl-C is looked for while nothing happens.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Show what happened, one line per event
///
/// With --json, one JSON object per line. The log is never cut; --from starts at a position of it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln events -f\n  kiln events --from 120 --json")]
pub(super) struct Args {
    /// Go on with what happens from now on
    #[arg(short, long)]
    follow: bool,
    /// Begin at this position
    #[arg(long, default_value_t = 1, value_name = "POSITION")]
    from: u64,
    /// Events of every environment
    #[arg(long)]
    all: bool,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Outcome {
    let client = context.client("events")?;
    let only = if args.all { None } else { context.target(&client).ok().map(|env| env.to_string()) };
    let interrupt = Interrupt::listen(|| std::process::exit(i32::from(Exit::Done.code())));
    let mut after = args.from.saturating_sub(1);
    loop {
        let mut stream = client.events(after, args.follow)?;
        loop {
            match stream.next(LOOK_EVERY) {
                Ok(Next::Item(event)) => {
                    after = event.position;
                    let wanted = only.is_none() || event.env.is_none() || event.env == only;
                    if wanted {
                        show(&event, context);
                    }
                }
                Ok(Next::Idle) if interrupt.is_set() => return Ok(Exit::Done),
                Ok(Next::Idle) => {}
                Ok(Next::End) if !args.follow => return Ok(Exit::Done),
                // The controller was restarted: the log goes on where it was.
                Ok(Next::End) | Err(RequestError::Broken(_)) => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn show(event: &wire::Event, context: &mut Context<'_>) {
    if context.screen.json() {
        let value = serde_json::to_value(event).expect("an event has text keys");
        context.screen.record(&value);
    } else {
        let line = line(event, context.screen.paint());
        context.screen.line(&line);
    }
}

fn line(event: &wire::Event, paint: Paint) -> String {
    let env = event.env.as_deref().unwrap_or("-");
    let place = paint.dim(&format!("{:>6}  {}", event.position, moment(Timestamp(event.at_ms))));
    format!("{place}  {env}  {}  {}", paint.dim(&event.actor), event.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_with_who_and_where() {
        let event = wire::Event {
            position: 12,
            at_ms: 1_772_460_309_000,
            actor: "alice".into(),
            env: Some("shop/dev".into()),
            kind: "rollout.started".into(),
            text: "a rollout began".into(),
            data: serde_json::Value::Null,
        };
        assert_eq!(
            line(&event, Paint::PLAIN),
            "    12  2026-03-02 14:05:09  shop/dev  alice  a rollout began"
        );
    }
}
