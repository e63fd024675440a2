//! What environments ask for before they let a release in.

use std::cell::RefCell;

use kiln_model::EnvName;
use kiln_model::gates::{Freeze, Gates, Window};
use kiln_model::{Millis, Timestamp};

use crate::diagnostic::Problem;
use crate::functions;
use crate::reader::{Context, Reader};
use crate::suggest::did_you_mean;
use crate::units::parse_millis;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A release that has to serve for longer is not promoted any more.
const SOAK_MAX: Millis = Millis::from_secs(30 * 24 * 3600);

/// The gates of the chosen environment. Those of the others are read as well, so that what is wrong there is told here.
pub(super) fn gates(context: &Context<'_>, env: &EnvName) -> Gates {
    let mut out = Gates::default();
    for block in &context.resolver.declared.environments {
        let Some((name, _)) = block.labels.first() else { continue };
        let (owner, uses) = (format!("environment \"{name}\""), RefCell::default());
        let reader = Reader::new(context, block, None, &owner, &uses);
        let Some(promote) = reader.block("promote") else { continue };
        let gates = read(promote, name);
        if **name == *env.as_str() {
            out = gates;
        }
    }
    out
}

fn read(promote: Reader<'_>, own: &str) -> Gates {
    let from = promote.parsed("from", "\"staging\"", |text| match text == own {
        true => Err("a release can't come from the environment that it comes into".to_owned()),
        false => EnvName::new(text).map_err(|error| error.to_string()),
    });
    let soak = promote.parsed("soak", "\"1h\"", |text| match parse_millis(text)? {
        soak if soak > SOAK_MAX => Err(format!("it must be at most {SOAK_MAX}")),
        soak => Ok(soak),
    });
    if soak.is_some() && !promote.has("from") {
        let message =
            "`soak` is how long a release must have served in the environment `from`, which is missing";
        promote.report(Problem::new("missing-attribute", promote.span("soak"), message));
    }
    Gates {
        from,
        soak: soak.unwrap_or_default(),
        approve: promote.strings("approve"),
        windows: promote.blocks("window").filter_map(|block| window(promote.within(block))).collect(),
        freezes: promote.blocks("freeze").filter_map(|block| freeze(promote.within(block))).collect(),
    }
}

fn window(window: Reader<'_>) -> Option<Window> {
    let mut days = [!window.has("days"); 7];
    for day in window.strings("days").unwrap_or_default() {
        match DAYS.iter().position(|name| *name == day) {
            Some(at) => days[at] = true,
            None => {
                let help = did_you_mean(&day.to_ascii_lowercase(), DAYS.into_iter())
                    .unwrap_or_else(|| format!("there are \"{}\"", DAYS.join("\", \"")));
                let message = format!("\"{day}\" is no day of the week");
                window.report(Problem::new("wrong-value", window.span("days"), message).help(help));
            }
        }
    }
    let from_minute = window.parsed("from", "\"09:00\"", clock);
    let to_minute = window.parsed("to", "\"16:00\"", clock);
    let (from_minute, to_minute) = (from_minute?, to_minute?);
    if to_minute <= from_minute {
        let message = "a window ends on the day on which it begins, and after that";
        let help = "write two windows for hours around midnight; the end of a day is \"24:00\"";
        window.report(Problem::new("wrong-value", window.span("to"), message).help(help));
        return None;
    }
    Some(Window { days, from_minute, to_minute })
}

/// Minutes since midnight.
fn clock(text: &str) -> Result<u16, String> {
    let wrong = || format!("\"{text}\" is no time of the day, such as \"09:00\"");
    let number = |part: &str| {
        let is_plain = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        part.parse::<u16>().ok().filter(|_| is_plain)
    };
    let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
    let (hour, minute) = (number(hour).ok_or_else(wrong)?, number(minute).ok_or_else(wrong)?);
    let minutes = hour * 60 + minute;
    if minute > 59 || minutes > 24 * 60 { Err(wrong()) } else { Ok(minutes) }
}

fn freeze(freeze: Reader<'_>) -> Option<Freeze> {
    let from = freeze.parsed("from", "\"2026-12-20T00:00:00Z\"", moment);
    let to = freeze.parsed("to", "\"2027-01-02T00:00:00Z\"", moment);
    let reason = freeze.string("reason").unwrap_or_default();
    let (from, to) = (from?, to?);
    if to <= from {
        let message = "a freeze ends after it begins";
        freeze.report(Problem::new("wrong-value", freeze.span("to"), message));
        return None;
    }
    Some(Freeze { from, to, reason })
}

fn moment(text: &str) -> Result<Timestamp, String> {
    let seconds = functions::parse_timestamp(text).and_then(|seconds| u64::try_from(seconds).ok());
    seconds
        .map(|seconds| Timestamp(seconds * 1000))
        .ok_or_else(|| format!("\"{text}\" is no moment, such as \"2026-12-20T00:00:00Z\""))
}
