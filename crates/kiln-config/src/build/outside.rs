//! Metrics that others measure.

use kiln_model::Millis;
use kiln_model::outside::{Comparison, Condition, Number, OutsideMetric};
use kiln_model::service::{Gate, Stage};

use super::access::access;
use crate::diagnostic::Problem;
use crate::reader::Reader;
use crate::source::Span;
use crate::units::parse_millis;

/// More can't be watched by a person, and each is asked for every few seconds.
const METRICS_MAX: usize = 16;

/// How long before each measurement: as often as Prometheus mostly looks itself.
const INTERVAL: Millis = Millis::from_secs(30);

/// How many make it pass: one may be chance.
const COUNT: u32 = 3;

/// Each measurement is an entry of the log.
const COUNT_MAX: u32 = 1000;

/// As in Argo Rollouts.
const ERROR_LIMIT: u32 = 4;

/// More than this nobody reads, and a proxy on the way may take no longer address.
const QUERY_CHARS_MAX: usize = 4000;

pub(super) fn outside(analysis: Reader<'_>) -> Vec<OutsideMetric> {
    let mut found: Vec<OutsideMetric> = Vec::new();
    for block in analysis.blocks("metric") {
        let Some((name, span)) = block.labels.first() else { continue };
        let reader = analysis.within(block);
        if !is_name(name) {
            let message = format!("\"{name}\" is no name of a metric");
            wrong(reader, *span, &message, "1 to 64 letters, digits, `_` and `-`");
        }
        found.extend(metric(reader, name));
    }
    if found.len() > METRICS_MAX {
        wrong(
            analysis,
            analysis.header,
            &format!("an analysis has at most {METRICS_MAX} `metric` blocks"),
            "",
        );
    }
    found
}

/// Says which metric can't be measured often enough while its analysis is waited for.
pub(super) fn refuse_too_slow(analysis: Reader<'_>, metrics: &[OutsideMetric], stages: &[Stage]) {
    let gates = stages.iter().flat_map(|stage| &stage.gates);
    let shortest = gates.filter_map(|gate| match gate {
        Gate::Analyse(within) => Some(*within),
        Gate::Hold(_) | Gate::Approve { .. } | Gate::Run { .. } | Gate::Check { .. } => None,
        Gate::Ask(_) | Gate::Mirror { .. } => None,
    });
    let Some(shortest) = shortest.min() else { return };
    for metric in metrics {
        let needed = Millis(metric.interval.0.saturating_mul(u64::from(metric.count)));
        let block = analysis
            .blocks("metric")
            .find(|block| block.labels.iter().any(|(name, _)| **name == *metric.name));
        if let (true, Some(block)) = (needed > shortest, block) {
            let (name, count, interval) = (&metric.name, metric.count, metric.interval);
            let message =
                format!("\"{name}\" takes {count} times {interval}, and the analysis ends after {shortest}");
            wrong(
                analysis,
                block.header(),
                &message,
                "measure it less often, or let the analysis take longer",
            );
        }
    }
}

fn metric(block: Reader<'_>, name: &str) -> Option<OutsideMetric> {
    for (attribute, example) in [
        ("prometheus", "prometheus = \"http://127.0.0.1:9090\""),
        ("query", "query = \"sum(rate(errors[1m]))\""),
    ] {
        if !block.has(attribute) {
            wrong(
                block,
                block.header,
                &format!("a `metric` has a `{attribute}`"),
                &format!("as in `{example}`"),
            );
        }
    }
    if !block.has("success") && !block.has("failure") {
        let help = "as in `success = \"result < 0.05\"`";
        wrong(block, block.header, "a `metric` says what counts as a `success` or a `failure`", help);
    }
    let prometheus = block.parsed("prometheus", "\"http://127.0.0.1:9090\"", url);
    let query = block.parsed("query", "\"sum(rate(errors[1m]))\"", |text| match text.trim() {
        "" => Err("it must ask something".to_owned()),
        text if text.chars().count() > QUERY_CHARS_MAX => {
            Err(format!("it has more than {QUERY_CHARS_MAX} characters"))
        }
        text => Ok(text.to_owned()),
    });
    let interval = block.parsed("interval", "\"30s\"", |text| match parse_millis(text)? {
        Millis(..1000) => Err("it must be at least a second".to_owned()),
        millis if millis > Millis::from_secs(24 * 3600) => Err("it must be at most a day".to_owned()),
        millis => Ok(millis),
    });
    let limit = |name, default| block.int(name, 0..=COUNT_MAX).unwrap_or(default);
    Some(OutsideMetric {
        name: name.to_owned(),
        success: block.parsed("success", "\"result < 0.05\"", condition),
        failure: block.parsed("failure", "\"result > 0.2\"", condition),
        interval: interval.unwrap_or(INTERVAL),
        count: block.int("count", 1..=COUNT_MAX).unwrap_or(COUNT),
        failure_limit: limit("failure_limit", 0),
        inconclusive_limit: limit("inconclusive_limit", 0),
        error_limit: limit("error_limit", ERROR_LIMIT),
        dry_run: block.bool("dry_run").unwrap_or(false),
        access: access(block, prometheus.as_deref())?,
        prometheus: prometheus?,
        query: query?,
    })
}

pub(super) fn is_name(text: &str) -> bool {
    let is_fine = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(is_fine)
}

/// `http://host:9090/prefix`: who is asked or told. What says who asks belongs into a secret.
pub(super) fn url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let Some(rest) = rest else { return Err("it begins with `http://` or `https://`".to_owned()) };
    let host = rest.split('/').next().unwrap_or_default();
    let is_plain = |b: u8| b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b);
    if host.contains('@') {
        return Err("a user and a password would be stored in clear".to_owned());
    }
    if rest.contains(['?', '#']) {
        return Err("it ends with a path, without `?` and `#`".to_owned());
    }
    if host.is_empty() || host.starts_with(':') || !rest.bytes().all(is_plain) {
        return Err("it names no host".to_owned());
    }
    if let Some((_, port)) =
        host.rsplit_once(':').filter(|(name, _)| !name.starts_with('[') || name.ends_with(']'))
        && port.parse::<u16>().is_err()
    {
        return Err(format!("`{port}` is no port"));
    }
    Ok(text.to_owned())
}

/// `result < 0.05`, or `result[0] < 0.05` as others write it.
fn condition(text: &str) -> Result<Condition, String> {
    let fail = || format!("`{text}` is no comparison such as `result < 0.05`");
    let rest = text.trim().strip_prefix("result").ok_or_else(fail)?;
    let rest = rest.strip_prefix("[0]").unwrap_or(rest).trim_start();
    let signs = [
        ("<=", Comparison::AtMost),
        (">=", Comparison::AtLeast),
        ("==", Comparison::Equal),
        ("!=", Comparison::Other),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    let found = signs.into_iter().find_map(|(sign, comparison)| Some((comparison, rest.strip_prefix(sign)?)));
    let (comparison, number) = found.ok_or_else(fail)?;
    let number = number.trim();
    // `inf` and `nan` are floats to Rust, and nothing to compare with.
    let is_number = number.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    let with = number.parse::<f64>().ok().filter(|with| is_number && with.is_finite()).ok_or_else(fail)?;
    Ok(Condition { comparison, with: Number(with) })
}

fn wrong(reader: Reader<'_>, span: Span, message: &str, help: &str) {
    let problem = Problem::new("wrong-value", span, message);
    reader.report(if help.is_empty() { problem } else { problem.help(help) });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_one_comparison_with_a_number() {
        let read = |text: &str| condition(text).map(|condition| condition.to_string());
        assert_eq!(read("result < 0.05").as_deref(), Ok("result < 0.05"));
        assert_eq!(read(" result[0]>=95 ").as_deref(), Ok("result >= 95"));
        assert_eq!(read("result != -1e3").as_deref(), Ok("result != -1000"));
        for wrong in [
            "",
            "0.05",
            "result",
            "result <",
            "result < x",
            "result < NaN",
            "result < inf",
            "result < 1e999",
            "result[1] < 2",
            "result = 2",
            "result < 1 || result > 2",
            "len(result) == 0",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_url_names_a_host_and_no_password() {
        for fine in [
            "http://127.0.0.1:9090",
            "https://prometheus.example/prefix/",
            "http://[::1]:9090",
            "http://[::1]",
        ] {
            assert_eq!(url(fine).as_deref(), Ok(fine));
        }
        for wrong in [
            "",
            "prometheus:9090",
            "ftp://x",
            "http://",
            "http://:9090",
            "http://u:p@h",
            "http://h:port",
            "http://h/?x",
            "http://h:99999",
            "http://a b",
        ] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }
}
