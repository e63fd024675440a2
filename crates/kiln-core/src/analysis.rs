//! Whether a canary compares well with its baseline, from what the edge counted.

use std::sync::LazyLock;

use kiln_model::latency::BUCKETS;
use kiln_model::rollout::{Estimate, Evidence, Verdict};
use kiln_model::route::Group;
use kiln_model::sample::{GroupSamples, WindowSamples};
use kiln_model::service::{Analysis, Margin, Metric, MetricKind};
use kiln_stats::{ErrorRate, EventRate, Events, Latencies, Outlook, Quantile, Requests, Risk};

/// Says what the counts of one of `windows` windows come to. They share the chance of a false alarm, as the metrics do.
pub(crate) fn verdict(analysis: &Analysis, windows: usize, samples: &WindowSamples) -> Verdict {
    let verdicts =
        looks(analysis, windows, samples).map(|(look, baseline, canary)| look.verdict(baseline, canary));
    // One metric is enough to fail, and only all of them pass.
    verdicts.fold(Verdict::Pass, |together, verdict| match (together, verdict) {
        (Verdict::Fail, _) | (_, Verdict::Fail) => Verdict::Fail,
        (Verdict::Pass, Verdict::Pass) => Verdict::Pass,
        _ => Verdict::Inconclusive,
    })
}

/// Returns what a verdict rests on. Its intervals take a thousand times as long as the verdict.
pub(crate) fn evidence(analysis: &Analysis, windows: usize, samples: &WindowSamples) -> Vec<Evidence> {
    looks(analysis, windows, samples)
        .map(|(look, baseline, canary)| look.evidence(baseline, canary))
        .collect()
}

pub(crate) fn looks<'a>(
    analysis: &'a Analysis,
    windows: usize,
    samples: &'a WindowSamples,
) -> impl Iterator<Item = (Look<'a>, &'a GroupSamples, &'a GroupSamples)> {
    static BLANK: LazyLock<GroupSamples> = LazyLock::new(GroupSamples::default);
    let of = |group| samples.get(&group).unwrap_or(&BLANK);
    let (baseline, canary) = (of(Group::Baseline), of(Group::Canary));
    let chance = f64::from(analysis.alpha) / 1e6;
    let risk = Risk { false_fail: chance / windows.max(1) as f64, false_pass: chance };
    let risks = risk.shared(&vec![1.0; analysis.metrics.len()]);
    let looks = analysis.metrics.iter().zip(risks).map(|(metric, risk)| Look { metric, risk });
    looks.map(move |look| (look, baseline, canary))
}

/// A metric and the chances of error that it has.
pub(crate) struct Look<'a> {
    pub(crate) metric: &'a Metric,
    risk: Risk,
}

impl Look<'_> {
    fn verdict(&self, baseline: &GroupSamples, canary: &GroupSamples) -> Verdict {
        of_test(match self.metric.kind {
            MetricKind::ErrorRate => {
                self.error_rate().verdict(requests(baseline), requests(canary), self.risk)
            }
            MetricKind::ClientErrors => {
                self.event_rate().verdict(client_errors(baseline), client_errors(canary), self.risk)
            }
            MetricKind::Latency { quantile } => {
                self.quantile(quantile).verdict(&latencies(baseline), &latencies(canary), self.risk)
            }
        })
    }

    /// Where it is going, if things stay as they were.
    pub(crate) fn outlook(&self, baseline: &GroupSamples, canary: &GroupSamples) -> Option<Outlook> {
        match self.metric.kind {
            MetricKind::ErrorRate => {
                self.error_rate().outlook(requests(baseline), requests(canary), self.risk)
            }
            MetricKind::ClientErrors => {
                self.event_rate().outlook(client_errors(baseline), client_errors(canary), self.risk)
            }
            MetricKind::Latency { quantile } => {
                self.quantile(quantile).outlook(&latencies(baseline), &latencies(canary), self.risk)
            }
        }
    }

    fn evidence(&self, baseline: &GroupSamples, canary: &GroupSamples) -> Evidence {
        let (found, unit) = match self.metric.kind {
            MetricKind::ErrorRate => {
                (self.error_rate().evidence(requests(baseline), requests(canary), self.risk), 1e6)
            }
            MetricKind::ClientErrors => {
                let counts = (client_errors(baseline), client_errors(canary));
                (self.event_rate().evidence(counts.0, counts.1, self.risk), 1e6)
            }
            MetricKind::Latency { quantile } => {
                let test = self.quantile(quantile);
                (test.evidence(&latencies(baseline), &latencies(canary), self.risk), 1.0)
            }
        };
        let side = |found, size| {
            let estimate = estimate(found, size, unit);
            match self.metric.kind {
                // To the test of counts one request could be answered several times.
                MetricKind::ClientErrors => Estimate { high: estimate.high.min(1_000_000), ..estimate },
                MetricKind::ErrorRate | MetricKind::Latency { .. } => estimate,
            }
        };
        Evidence {
            metric: self.metric.kind,
            worse_by: self.metric.worse_by,
            verdict: of_test(found.verdict),
            baseline: side(found.baseline, found.baseline_size),
            canary: side(found.canary, found.canary_size),
        }
    }

    fn error_rate(&self) -> ErrorRate {
        ErrorRate::new(margin(self.metric.worse_by, 1e-6), 1.0)
    }

    fn event_rate(&self) -> EventRate {
        EventRate::new(margin(self.metric.worse_by, 1e-6), 1.0)
    }

    fn quantile(&self, millionths: u32) -> Quantile {
        Quantile::new(f64::from(millionths) / 1e6, margin(self.metric.worse_by, 1.0))
    }
}

fn of_test(verdict: kiln_stats::Verdict) -> Verdict {
    match verdict {
        kiln_stats::Verdict::Pass => Verdict::Pass,
        kiln_stats::Verdict::Fail => Verdict::Fail,
        kiln_stats::Verdict::Inconclusive => Verdict::Inconclusive,
    }
}

fn requests(samples: &GroupSamples) -> Requests {
    Requests { total: samples.requests(), failed: samples.failures().min(samples.requests()) }
}

/// Both groups' requests grow in step: each request is drawn for one of them.
fn client_errors(samples: &GroupSamples) -> Events {
    Events { count: samples.client_error, exposure: samples.requests() as f64 }
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
            outside: Vec::new(),
            alpha: 50_000,
            inconclusive: Inconclusive::Stop,
            extensions: 0,
            synthetic: None,
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

    fn judged(baseline: GroupSamples, canary: GroupSamples) -> (Verdict, Vec<Evidence>) {
        let samples = [(Group::Baseline, baseline), (Group::Canary, canary)].into();
        (verdict(&analysis(), 2, &samples), evidence(&analysis(), 2, &samples))
    }

    #[test]
    fn equal_groups_pass_once_there_is_enough_of_them() {
        let (few, _) = judged(group(20, 0, 5000), group(20, 0, 5000));
        assert_eq!(few, Verdict::Inconclusive);
        let (many, evidence) = judged(group(20_000, 20, 5000), group(20_000, 21, 5000));
        assert_eq!(many, Verdict::Pass, "{evidence:?}");
        assert!(evidence.iter().all(|found| found.verdict == Verdict::Pass));
    }

    #[test]
    fn errors_fail_a_canary_and_so_does_a_slow_tail() {
        let (errors, evidence) = judged(group(2000, 2, 5000), group(2000, 100, 5000));
        assert_eq!(errors, Verdict::Fail);
        let found = &evidence[0];
        assert_eq!((found.verdict, found.canary.value, found.canary.samples), (Verdict::Fail, 50_000, 2000));
        assert!(found.canary.low > found.baseline.value);
        let (slow, evidence) = judged(group(5000, 5, 5000), group(5000, 5, 9000));
        assert_eq!((slow, evidence[1].verdict), (Verdict::Fail, Verdict::Fail));
    }

    #[test]
    fn a_canary_that_refuses_more_requests_fails_by_their_count_alone() {
        let metric = Metric { kind: MetricKind::ClientErrors, worse_by: Margin::Relative(500_000) };
        let analysis = Analysis { metrics: vec![metric], ..analysis() };
        let group = |requests, refused| GroupSamples {
            ok: requests - refused,
            client_error: refused,
            ..GroupSamples::default()
        };
        let judged = |baseline, canary| {
            let samples = [(Group::Baseline, baseline), (Group::Canary, canary)].into();
            (verdict(&analysis, 1, &samples), evidence(&analysis, 1, &samples).remove(0))
        };
        assert_eq!(judged(group(300, 2), group(300, 4)).0, Verdict::Inconclusive);
        assert_eq!(judged(group(20_000, 1000), group(20_000, 1010)).0, Verdict::Pass);
        let (worse, found) = judged(group(2000, 20), group(2000, 120));
        assert_eq!((worse, found.canary.value, found.canary.samples), (Verdict::Fail, 60_000, 2000));
        assert_eq!(judged(group(2000, 0), group(2000, 0)).0, Verdict::Inconclusive, "nobody was refused");
        assert_eq!(judged(group(15, 0), group(15, 15)).1.canary.high, 1_000_000, "all of them, and no more");
    }

    #[test]
    fn a_group_that_was_never_asked_says_nothing() {
        let samples = [(Group::Canary, group(5000, 1, 5000))].into();
        assert_eq!(verdict(&analysis(), 1, &samples), Verdict::Inconclusive);
        assert_eq!(verdict(&analysis(), 1, &WindowSamples::new()), Verdict::Inconclusive);
    }
}
