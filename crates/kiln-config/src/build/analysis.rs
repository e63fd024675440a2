//! What a canary is compared by with its baseline.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_model::ask::Method;
use kiln_model::route::Synthetic;
use kiln_model::service::{Analysis, Gate, Inconclusive, Margin, Metric, MetricKind, Stage};
use kiln_model::{Millis, PortName, ServiceName};

use super::checks::port;
use super::image::request_path;
use super::outside::outside;
use super::rollout::{STEP_MAX, bounded, wrong};
use crate::diagnostic::Problem;
use crate::reader::Reader;
use crate::suggest::did_you_mean;
use crate::units::parse_millis;
use crate::value::{Kind, Value};

/// How long an analysis may take before it counts as inconclusive.
const ANALYSE_WITHIN: Millis = Millis::from_secs(600);

/// The chance that a canary that is no worse is stopped.
const ALPHA: u32 = 50_000;

/// Requests a second that Kiln makes for each side: more than that is a load test, and one of Kiln's machine.
const RATE_MAX: u32 = 200;

/// How many it makes for each side at each share, where the stack does not say: what the error rate of a good service takes.
const MADE: u32 = 10_000;

/// A week at the highest rate would be more; nobody waits for that.
const MADE_MAX: u32 = 1_000_000;

/// How often an analysis that had too few requests takes its time again, where the stack does not say.
const EXTENSIONS: u32 = 3;

/// More than that is a longer `within`.
const EXTENSIONS_MAX: u32 = 100;

/// What an analysis has beside its metrics.
const KNOWN: [&str; 6] = ["within", "alpha", "inconclusive", "extend_limit", "then", "dry_run"];

/// What is often compared.
const METRICS: [&str; 5] = ["error_rate", "client_errors", "latency_p50", "latency_p95", "latency_p99"];

/// Whether an analysis can tell anything where the canary has no share: nothing is counted of testers, who are no random sample.
pub(super) fn measures_at_nothing(analysis: &Analysis) -> bool {
    analysis.metrics.is_empty()
}

/// Reads an analysis, and how long it may take at each share.
pub(super) fn analysis(
    block: Reader<'_>,
    of: (&ServiceName, &BTreeMap<PortName, u16>),
) -> (Analysis, Millis) {
    let (mut metrics, mut is_empty) = (Vec::new(), true);
    for (name, span) in block.attributes() {
        let kind = match name {
            name if KNOWN.contains(&name) => continue,
            "error_rate" => Some(MetricKind::ErrorRate),
            "client_errors" => Some(MetricKind::ClientErrors),
            other => other.strip_prefix("latency_p").and_then(quantile),
        };
        is_empty = false;
        match kind {
            Some(kind) => metrics.extend(metric(block, name, kind)),
            None => {
                let message = format!("there is no metric `{name}`");
                let help = did_you_mean(name, KNOWN.into_iter().chain(METRICS)).unwrap_or_else(|| {
                    "there are `error_rate`, `client_errors` and latencies such as `latency_p99`".to_owned()
                });
                block.report(Problem::new("unknown-attribute", span, message).help(help));
            }
        }
    }
    let outside = outside(block);
    if is_empty && block.block("metric").is_none() {
        let help = "as in `error_rate = { worse_by = 0.01 }`";
        block.report(Problem::new("missing-attribute", block.header, "nothing is compared").help(help));
    }
    let dry_run = block.bool("dry_run").unwrap_or(false);
    let within = bounded(block, "within").unwrap_or(ANALYSE_WITHIN);
    let (inconclusive, extensions) = inconclusive(block, within, dry_run);
    let alpha = fraction(block, "alpha", 0.000_1..=0.5).unwrap_or(ALPHA);
    let synthetic = block.block("synthetic").and_then(|it| synthetic(it, of)).map(Arc::new);
    if let Some(made) = block.block("synthetic").filter(|_| is_empty) {
        let message = "what others measure needs no requests of Kiln's";
        let help = "leave `synthetic` out, or compare something, as in `error_rate = { worse_by = 0.01 }`";
        made.report(Problem::new("wrong-value", made.header, message).help(help));
    }
    (Analysis { metrics, outside, alpha, inconclusive, extensions, synthetic, dry_run }, within)
}

/// What Kiln asks itself where too few others do.
fn synthetic(
    block: Reader<'_>,
    (name, ports): (&ServiceName, &BTreeMap<PortName, u16>),
) -> Option<Synthetic> {
    for needed in ["path", "rate"].into_iter().filter(|needed| !block.has(needed)) {
        let help = "as in `synthetic { path = \"/search?q=kiln\"  rate = 20 }`";
        let message = format!("`synthetic` says its `{needed}`");
        block.report(Problem::new("missing-attribute", block.header, message).help(help));
    }
    let path = block.parsed("path", "\"/search?q=kiln\"", request_path);
    let rate = block.int("rate", 1..=RATE_MAX);
    let count = if block.has("count") { block.int("count", 1..=MADE_MAX) } else { Some(MADE) };
    let safe = |text: &str| match Method::of_word(text) {
        Some(Method::Post) | None => Err(format!(
            "\"{text}\" may change something, and nobody asked for it; there are \"GET\" and \"HEAD\""
        )),
        Some(safe) => Ok(safe),
    };
    let method =
        if block.has("method") { block.parsed("method", "\"GET\"", safe) } else { Some(Method::Get) };
    let host = match block.has("host") {
        true => block.parsed("host", "\"shop.example\"", host),
        false => Some(name.to_string()),
    };
    let port = port(block, name, ports);
    Some(Synthetic { method: method?, path: path?, host: host?, port: port?, rate: rate?, count: count? })
}

/// The value of a `Host` header: a name, and perhaps a port.
fn host(text: &str) -> Result<String, String> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
    if (1..=253).contains(&text.len()) && text.bytes().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err("expected a host such as \"shop.example\"".to_owned())
}

/// Synthetic requests are for the steps that analyse.
pub(super) fn refuse_unused(block: Reader<'_>, stages: &[Stage]) {
    let mut gates = stages.iter().flat_map(|stage| &stage.gates);
    let Some(made) = block.block("synthetic") else { return };
    if !stages.is_empty() && !gates.any(|gate| matches!(gate, Gate::Analyse(_))) {
        let message = "synthetic requests are sent while a step analyses, and none does";
        let help = "write `step { analyse = \"10m\" }` after a `shift`, or leave `synthetic` out";
        made.report(Problem::new("wrong-value", made.header, message).help(help));
    }
}

/// What happens where the requests were too few: how often they are waited for again, and what then.
fn inconclusive(block: Reader<'_>, within: Millis, dry_run: bool) -> (Inconclusive, u32) {
    let extends = block.parsed("inconclusive", "\"stop\"", |text| match text {
        "extend" => Ok(None),
        text => word(text, &["stop", "continue", "ask", "extend"]).map(Some),
    });
    let Some(None) = extends else {
        for name in ["extend_limit", "then"].into_iter().filter(|name| block.has(name)) {
            let message = format!("`{name}` is for an analysis that is extended");
            let help = "write `inconclusive = \"extend\"`, or leave it out";
            block.report(Problem::new("wrong-value", block.span(name), message).help(help));
        }
        return (extends.flatten().unwrap_or(Inconclusive::Stop), 0);
    };
    let then = block.parsed("then", "\"stop\"", |text| word(text, &["stop", "continue", "ask"]));
    let limit = block.int("extend_limit", 1..=EXTENSIONS_MAX).unwrap_or(EXTENSIONS);
    let whole = within.0.saturating_mul(u64::from(limit) + 1);
    let refuse = |message: String, help: &str| {
        block.report(Problem::new("wrong-value", block.span("inconclusive"), message).help(help));
    };
    if dry_run {
        let message = "a `dry_run` goes on whatever it finds, so there is nothing to extend it for";
        refuse(message.to_owned(), "leave `inconclusive` out, or `dry_run`");
    } else if Millis(whole) > STEP_MAX {
        let message = format!("extended {limit} times it takes {}, more than {STEP_MAX}", Millis(whole));
        refuse(message, "lower `extend_limit` or `within`");
    }
    (then.unwrap_or(Inconclusive::Stop), limit)
}

fn word(text: &str, known: &[&str]) -> Result<Inconclusive, String> {
    match text {
        "stop" => Ok(Inconclusive::Stop),
        "continue" => Ok(Inconclusive::Continue),
        "ask" => Ok(Inconclusive::Ask),
        other => {
            let (last, others) = known.split_last().expect("there are some");
            Err(format!("there is no \"{other}\"; there are \"{}\" and \"{last}\"", others.join("\", \"")))
        }
    }
}

/// The quantile that stands after `latency_p`: `99`, or `999` for the 99.9th.
fn quantile(digits: &str) -> Option<MetricKind> {
    // Three digits and more are a fine one beyond the 90th: `p100` would else be the 10th.
    let is_fine = digits.len() == 2 || ((3..=4).contains(&digits.len()) && digits.starts_with('9'));
    let is_number = is_fine && digits.bytes().all(|b| b.is_ascii_digit());
    let mut millionths = is_number.then(|| digits.parse::<u32>().ok())?? * 10_000;
    for _ in 2..digits.len() {
        millionths /= 10;
    }
    (1..1_000_000).contains(&millionths).then_some(MetricKind::Latency { quantile: millionths })
}

/// A number of a range, in millionths.
fn fraction(block: Reader<'_>, name: &str, range: std::ops::RangeInclusive<f64>) -> Option<u32> {
    let (value, expr) = block.value(name)?;
    let number = match &value.kind {
        Kind::Number(number) => Some(number.to_f64()),
        _ => None,
    };
    match number.filter(|number| range.contains(number)) {
        Some(number) => Some((number * 1e6).round() as u32),
        None => {
            let (low, high) = range.into_inner();
            let message = format!("`{name}` is a number from {low} to {high}");
            wrong(block, expr.span, &message);
            None
        }
    }
}

fn metric(block: Reader<'_>, name: &str, kind: MetricKind) -> Option<Metric> {
    let (mut worse_by, mut is_missing) = (None, true);
    let example = match kind {
        MetricKind::ErrorRate => "an object such as `{ worse_by = 0.01 }`",
        MetricKind::ClientErrors => "an object such as `{ worse_by = \"50%\" }`",
        MetricKind::Latency { .. } => "an object such as `{ worse_by = \"20%\" }`",
    };
    for (key, value, span) in block.entries(name, example)? {
        is_missing &= key != "worse_by";
        match (key.as_str(), margin(kind, &value)) {
            ("worse_by", Ok(margin)) => worse_by = Some(margin),
            ("worse_by", Err(reason)) => wrong(block, span, &format!("`worse_by` of `{name}`: {reason}")),
            (other, _) => {
                wrong(block, span, &format!("`{name}` has `worse_by` and nothing else, found `{other}`"))
            }
        }
    }
    if is_missing {
        wrong(block, block.span(name), &format!("`{name}` says how much worse is accepted: `worse_by`"));
    }
    worse_by.map(|worse_by| Metric { kind, worse_by })
}

/// How much worse is accepted: `0.01` (a rate), `"20%"` (of the baseline's) or `"50ms"` (a latency).
fn margin(kind: MetricKind, value: &Value) -> Result<Margin, String> {
    let example = match kind {
        MetricKind::ErrorRate | MetricKind::ClientErrors => {
            "a rate such as 0.01, or a share of the baseline's such as \"50%\""
        }
        MetricKind::Latency { .. } => {
            "a share of the baseline's such as \"20%\", or a duration such as \"50ms\""
        }
    };
    let fail = || format!("expected {example}, found {}", value.describe());
    match (&value.kind, value.as_str(), kind) {
        (Kind::Number(number), _, MetricKind::ErrorRate | MetricKind::ClientErrors) => {
            let rate = number.to_f64();
            if (0.000_01..=0.5).contains(&rate) {
                return Ok(Margin::Absolute((rate * 1e6).round() as u64));
            }
            Err(format!("{rate} is not between 0.00001 and 0.5"))
        }
        (_, Some(text), _) if text.ends_with('%') => {
            let percent = text.trim_end_matches('%').parse::<f64>().map_err(|_| fail())?;
            if (1.0..=10_000.0).contains(&percent) {
                return Ok(Margin::Relative((percent * 10_000.0).round() as u64));
            }
            Err(format!("{text} is not between 1% and 10000%"))
        }
        (_, Some(text), MetricKind::Latency { .. }) => match parse_millis(text)? {
            Millis(0) => Err("it must be longer than nothing".to_owned()),
            millis => Ok(Margin::Absolute(millis.0.saturating_mul(1000))),
        },
        _ => Err(fail()),
    }
}
