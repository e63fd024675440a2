//! `HEALTHCHECK`.

use super::flags::Flags;
use super::instruction::Health;
use super::parse::command;
use super::problem::Problem;
use super::words::Rest;

/// Docker's least, except for nothing, which means the default.
const LEAST_NS: u64 = 1_000_000;

/// Reads what follows the flags; none is `NONE`.
pub(super) fn read(rest: Rest<'_>, flags: &Flags) -> Result<Option<Health>, Problem> {
    let (kind, line) = rest.split_first();
    match kind.text().to_ascii_uppercase().as_str() {
        "NONE" if line.is_empty() => return Ok(None),
        "CMD" if !line.is_empty() => {}
        "CMD" => return Err(Problem::new(kind.span(), "HEALTHCHECK CMD needs a command")),
        _ => {
            let problem = Problem::new(rest.span(), "HEALTHCHECK takes `CMD` and a command, or `NONE`");
            return Err(problem);
        }
    }
    let time = |name: &str| -> Result<u64, Problem> {
        let Some(flag) = flags.get(name) else { return Ok(0) };
        let nanos = flag.value.as_deref().and_then(nanoseconds);
        match nanos.filter(|nanos| *nanos == 0 || *nanos >= LEAST_NS) {
            Some(nanos) => Ok(nanos),
            None => {
                let problem = Problem::new(flag.value_span, format!("`--{name}` is no time of at least 1ms"));
                Err(problem.help("write it like `30s` or `1m30s`"))
            }
        }
    };
    let retries = match flags.get("retries") {
        None => 0,
        Some(flag) => match flag.value.as_deref().and_then(|text| text.parse().ok()) {
            Some(retries) => retries,
            None => return Err(Problem::new(flag.value_span, "`--retries` is a number")),
        },
    };
    Ok(Some(Health {
        command: command(line)?,
        interval: time("interval")?,
        timeout: time("timeout")?,
        start_period: time("start-period")?,
        start_interval: time("start-interval")?,
        retries,
    }))
}

/// Reads a time as Go writes it, such as `1m30s` or `1.5h`.
fn nanoseconds(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[end..];
    }
    // Go's durations are 63 bits of nanoseconds.
    (!text.is_empty() && total < i64::MAX as f64).then_some(total as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_writes_them() {
        for (text, expected) in [
            ("30s", Some(30_000_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("250ms", Some(250_000_000)),
            ("0", Some(0)),
            ("", None),
            ("30", None),
            ("s", None),
            ("9999999999h", None),
            ("1d", None),
        ] {
            assert_eq!(nanoseconds(text), expected, "{text}");
        }
    }
}
