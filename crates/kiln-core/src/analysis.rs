//! Whether a canary compares well with its baseline, from what the edge counted.

use kiln_model::latency::BUCKETS;
use kiln_model::rollout::{Estimate, Evidence, Verdict};
use kiln_model::route::Group;
use kiln_model::sample::{GroupSamples, WindowSamples};
use kiln_model::service::{Analysis, Margin, Metric, MetricKind};
use kiln_stats::{ErrorRate, Latencies, Quantile, Requests, Risk};

/// What an analysis says at one look.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Judgement {
    /// What all metrics say together.
    pub(crate) verdict: Verdict,
    /// What that rests on, for each.
    pub(crate) evidence: Vec<Evidence>,
    /// About how many times as many requests as until now are needed in all; none if that can't be told.
    pub(crate) times_needed: Option<f64>,
}

/// Looks at what was counted in one of `windows` windows, which share the chance of a false alarm, as the metrics do.
pub(crate) fn judge(analysis: &Analysis, windows: usize, samples: &WindowSamples) -> Judgement {
    let blank = GroupSamples::default();
    let of = |group| samples.get(&group).unwrap_or(&blank);
    let (baseline, canary) = (of(Group::Baseline), of(Group::Canary));
    let chance = f64::from(analysis.alpha) / 1e6;
    let risk = Risk { false_fail: chance / windows.max(1) as f64, false_pass: chance };
    let risks = risk.shared(&vec![1.0; analysis.metrics.len()]);
    let found: Vec<(Evidence, Option<f64>)> = analysis
        .metrics
        .iter()
        .zip(risks)
        .map(|(metric, risk)| look(metric, baseline, canary, risk))
        .collect();
    let verdicts = found.iter().map(|(evidence, _)| evidence.verdict);
    let times_needed = found.iter().map(|(_, times)| *times).reduce(|one, other| Some(one?.max(other?)));
    Judgement {
        verdict: of_all(verdicts),
        times_needed: times_needed.flatten(),
        evidence: found.into_iter().map(|(evidence, _)| evidence).collect(),
    }
}

/// One metric is enough to fail, and only all of them pass.
fn of_all(verdicts: impl Iterator<Item = Verdict>) -> Verdict {
    verdicts.fold(Verdict::Pass, |together, verdict| match (together, verdict) {
        (Verdict::Fail, _) | (_, Verdict::Fail) => Verdict::Fail,
        (Verdict::Pass, Verdict::Pass) => Verdict::Pass,
        _ => Verdict::Inconclusive,
    })
}

fn look(
    metric: &Metric,
    baseline: &GroupSamples,
    canary: &GroupSamples,
    risk: Risk,
) -> (Evidence, Option<f64>) {
    let (found, unit) = match metric.kind {
        MetricKind::ErrorRate => {
            let requests = |it: &GroupSamples| Requests {
                total: it.requests(),
                failed: it.failures().min(it.requests()),
            };
            let test = ErrorRate::new(margin(metric.worse_by, 1e-6), 1.0);
            (test.evidence(requests(baseline), requests(canary), risk), 1e6)
        }
        MetricKind::Latency { quantile } => {
            let test = Quantile::new(f64::from(quantile) / 1e6, margin(metric.worse_by, 1.0));
            (test.evidence(&latencies(baseline), &latencies(canary), risk), 1.0)
        }
    };
    let evidence = Evidence {
        metric: metric.kind,
        worse_by: metric.worse_by,
        verdict: match found.verdict {
            kiln_stats::Verdict::Pass => Verdict::Pass,
            kiln_stats::Verdict::Fail => Verdict::Fail,
            kiln_stats::Verdict::Inconclusive => Verdict::Inconclusive,
        },
        baseline: estimate(found.baseline, found.baseline_size, unit),
        canary: estimate(found.canary, found.canary_size, unit),
    };
    (evidence, found.times_needed)
}

/// A margin in the unit of the tests: absolute ones are whole numbers of `unit`.
fn margin(margin: Margin, unit: f64) -> kiln_stats::Margin {
    // Both are far below 2^52, where a float is exact.
    match margin {
        Margin::Absolute(by) => kiln_stats::Margin::Absolute(by as f64 * unit),
        Margin::Relative(by) => kiln_stats::Margin::Relative(by as f64 * 1e-6),
    }
}

fn latencies(samples: &GroupSamples) -> Latencies {
    let mut counts = Box::new([0; BUCKETS]);
    for (bucket, count) in samples.latency.iter().filter(|(bucket, _)| **bucket < BUCKETS) {
        counts[*bucket] = *count;
    }
    Latencies::new(&counts)
}

/// Whole numbers for the log. What is not known yet is as wide as it can be.
fn estimate(found: kiln_stats::Estimate, size: f64, unit: f64) -> Estimate {
    // `as` ends at the range of the number, which is what is wanted.
    let whole = |value: f64| (value * unit).round() as u64;
    let low = found.low.map_or(0, whole);
    let value = found.value.map_or(low, whole);
    Estimate { samples: size as u64, value, low, high: found.high.map_or(u64::MAX, whole) }
}

#[cfg(test)]
mod tests {
    use kiln_model::latency::bucket;
    use kiln_model::service::Inconclusive;

    use super::*;

    fn analysis() -> Analysis {
        Analysis {
            metrics: vec![
                Metric { kind: MetricKind::ErrorRate, worse_by: Margin::Absolute(10_000) },
                Metric {
                    kind: MetricKind::Latency { quantile: 990_000 },
                    worse_by: Margin::Relative(200_000),
                },
            ],
            alpha: 50_000,
            inconclusive: Inconclusive::Stop,
            dry_run: false,
        }
    }

    fn group(requests: u64, failures: u64, latency_us: u64) -> GroupSamples {
        GroupSamples {
            ok: requests - failures,
            server_error: failures,
            latency: [(bucket(latency_us), requests)].into(),
            ..GroupSamples::default()
        }
    }

    fn judged(baseline: GroupSamples, canary: GroupSamples) -> Judgement {
        judge(&analysis(), 2, &[(Group::Baseline, baseline), (Group::Canary, canary)].into())
    }

    #[test]
    fn equal_groups_pass_once_there_is_enough_of_them() {
        let few = judged(group(20, 0, 5000), group(20, 0, 5000));
        assert_eq!(few.verdict, Verdict::Inconclusive);
        let many = judged(group(20_000, 20, 5000), group(20_000, 21, 5000));
        assert_eq!(many.verdict, Verdict::Pass, "{:?}", many.evidence);
    }

    #[test]
    fn errors_fail_a_canary_and_so_does_a_slow_tail() {
        let errors = judged(group(2000, 2, 5000), group(2000, 100, 5000));
        assert_eq!(errors.verdict, Verdict::Fail);
        let found = &errors.evidence[0];
        assert_eq!((found.verdict, found.canary.value, found.canary.samples), (Verdict::Fail, 50_000, 2000));
        assert!(found.canary.low > found.baseline.value);
        let slow = judged(group(5000, 5, 5000), group(5000, 5, 9000));
        assert_eq!((slow.verdict, slow.evidence[1].verdict), (Verdict::Fail, Verdict::Fail));
    }

    #[test]
    fn a_group_that_was_never_asked_says_nothing() {
        let samples = [(Group::Canary, group(5000, 1, 5000))].into();
        assert_eq!(judge(&analysis(), 1, &samples).verdict, Verdict::Inconclusive);
        assert_eq!(judge(&analysis(), 1, &WindowSamples::new()).verdict, Verdict::Inconclusive);
    }
}
