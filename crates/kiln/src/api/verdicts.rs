//! What the analyses of canaries found, on the wire and in words.

use kiln_model::gates::{GateKind, GateVerdict};
use kiln_model::outside::Finding;
use kiln_model::rollout::{self, Evidence, Verdict};
use kiln_model::service::{Margin, MetricKind};
use kiln_model::{ServiceName, Timestamp};

use super::wire;

/// What an analysis found, on the wire.
pub(crate) fn analysis(
    at: Timestamp,
    service: &ServiceName,
    window: u32,
    verdict: Verdict,
    evidence: &[Evidence],
    synthetic: u64,
) -> wire::Analysis {
    let estimate = |it: rollout::Estimate| wire::Estimate {
        samples: it.samples,
        value: it.value,
        low: it.low,
        high: it.high,
    };
    let metric = |it: &Evidence| wire::MetricEvidence {
        metric: metric_text(it.metric),
        verdict: verdict_word(it.verdict).into(),
        worse_by: margin_text(it.metric, it.worse_by),
        baseline: estimate(it.baseline),
        canary: estimate(it.canary),
    };
    wire::Analysis {
        at_ms: at.0,
        service: service.to_string(),
        window,
        verdict: verdict_word(verdict).into(),
        metrics: evidence.iter().map(metric).collect(),
        synthetic,
    }
}

/// An analysis in one sentence.
pub(crate) fn sentence(found: &wire::Analysis) -> String {
    let how = match found.verdict.as_str() {
        "pass" => "is not worse than its baseline",
        "fail" => "is worse than its baseline",
        _ => "can't be told from its baseline: the requests were too few",
    };
    let told = |metric: &&wire::MetricEvidence| metric.verdict == found.verdict;
    let metrics: Vec<String> = found.metrics.iter().filter(told).map(metric_sentence).collect();
    if metrics.is_empty() {
        // What others measured decided, or nothing was counted.
        let how = match found.verdict.as_str() {
            "pass" => "passed",
            "fail" => "failed",
            _ => "came to no verdict",
        };
        return format!("the analysis of the new {} {how}", found.service);
    }
    let made = match found.synthetic {
        0 => String::new(),
        made => format!("; {made} of the requests to both were Kiln's own"),
    };
    format!("the new {} {how}: {}{made}", found.service, metrics.join("; "))
}

/// One measurement of a metric of outside, on the wire.
pub(super) fn measurement(
    at: Timestamp,
    (service, window): (&ServiceName, u32),
    metric: &str,
    finding: Finding,
    text: &str,
) -> wire::Measurement {
    let finding = match finding {
        Finding::Passed => "passed",
        Finding::Failed => "failed",
        Finding::Unclear => "unclear",
        Finding::Error => "error",
    };
    wire::Measurement {
        at_ms: at.0,
        service: service.to_string(),
        window,
        metric: metric.into(),
        finding: finding.into(),
        text: text.into(),
    }
}

/// A measurement in one sentence.
pub(crate) fn measurement_sentence(found: &wire::Measurement) -> String {
    let wire::Measurement { service, metric, text, .. } = found;
    match found.finding.as_str() {
        "passed" => format!("{metric} of {service} is {text}: a success"),
        "failed" => format!("{metric} of {service} is {text}: a failure"),
        "unclear" => format!("{metric} of {service} is {text}, which tells nothing"),
        _ => format!("{metric} of {service} could not be measured: {text}"),
    }
}

/// A metric with both estimates, as in `p99 31ms, baseline 20ms (accepted: 20% more)`.
fn metric_sentence(metric: &wire::MetricEvidence) -> String {
    let is_share = [ERROR_RATE, CLIENT_ERRORS].contains(&metric.metric.as_str());
    let show = |value: u64| if is_share { percent(value) } else { latency(value) };
    let side = |it: &wire::Estimate| {
        format!("{} ({} to {}, {} requests)", show(it.value), show(it.low), show(it.high), it.samples)
    };
    let (canary, baseline) = (side(&metric.canary), side(&metric.baseline));
    format!("{} {canary}, baseline {baseline}, {} accepted", metric.metric, metric.worse_by)
}

const ERROR_RATE: &str = "error rate";
const CLIENT_ERRORS: &str = "client errors";

pub(super) fn metric_text(metric: MetricKind) -> String {
    match metric {
        MetricKind::ErrorRate => ERROR_RATE.into(),
        MetricKind::ClientErrors => CLIENT_ERRORS.into(),
        MetricKind::Latency { quantile } => format!("p{}", f64::from(quantile) / 10_000.0),
    }
}

fn margin_text(metric: MetricKind, margin: Margin) -> String {
    match (metric, margin) {
        (_, Margin::Relative(by)) => format!("{} more", percent(by)),
        (MetricKind::ErrorRate | MetricKind::ClientErrors, Margin::Absolute(by)) => {
            format!("{} percentage points more", percent(by).trim_end_matches('%'))
        }
        (MetricKind::Latency { .. }, Margin::Absolute(by)) => format!("{} more", latency(by)),
    }
}

/// Millionths as a percentage, to three digits.
fn percent(millionths: u64) -> String {
    // Far below 2^52, where a float is exact.
    let value = millionths as f64 / 10_000.0;
    let digits = if value >= 10.0 { 1 } else { 2 };
    let text = format!("{value:.digits$}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}%")
}

/// Microseconds as people say them.
fn latency(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros}µs"),
        1_000..10_000 => format!("{:.1}ms", micros as f64 / 1_000.0),
        10_000..1_000_000 => format!("{}ms", micros / 1_000),
        _ => format!("{:.1}s", micros as f64 / 1_000_000.0),
    }
}

const fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "fail",
        Verdict::Inconclusive => "inconclusive",
    }
}

/// What was found at a gate of an environment.
pub(super) fn gate(verdict: &GateVerdict) -> wire::Gate {
    let GateVerdict { gate, is_open, detail, until } = verdict;
    let gate = match gate {
        GateKind::From => "from",
        GateKind::Soak => "soak",
        GateKind::Approval => "approval",
        GateKind::Window => "window",
        GateKind::Freeze => "freeze",
    };
    wire::Gate {
        gate: gate.into(),
        is_open: *is_open,
        detail: detail.clone(),
        until_ms: until.map(|at| at.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_one_sentence() {
        let estimate = |value| rollout::Estimate { samples: 2000, value, low: value / 2, high: value + 1500 };
        let evidence = [
            Evidence {
                metric: MetricKind::ErrorRate,
                worse_by: Margin::Absolute(10_000),
                verdict: Verdict::Fail,
                baseline: estimate(1_000),
                canary: estimate(52_000),
            },
            Evidence {
                metric: MetricKind::Latency { quantile: 990_000 },
                worse_by: Margin::Relative(200_000),
                verdict: Verdict::Pass,
                baseline: estimate(20_000),
                canary: estimate(900),
            },
        ];
        let web = ServiceName::new("web").unwrap();
        let found = analysis(Timestamp(7), &web, 0, Verdict::Fail, &evidence, 0);
        assert_eq!(
            sentence(&found),
            "the new web is worse than its baseline: error rate 5.2% (2.6% to 5.35%, 2000 requests), \
             baseline 0.1% (0.05% to 0.25%, 2000 requests), 1 percentage points more accepted"
        );
        let measured = analysis(Timestamp(7), &web, 0, Verdict::Fail, &evidence[1..], 30);
        assert_eq!(sentence(&measured), "the analysis of the new web failed");
        assert_eq!(
            metric_sentence(&found.metrics[1]),
            "p99 900µs (450µs to 2.4ms, 2000 requests), baseline 20ms (10ms to 21ms, 2000 requests), \
             20% more accepted"
        );
    }
}
