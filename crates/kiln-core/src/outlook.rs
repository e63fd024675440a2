//! How much more must be seen of a canary until its analysis can tell, for people: nothing is decided by it.

use kiln_model::ServiceName;
use kiln_model::latency::bucket;
use kiln_model::route::Group;
use kiln_model::sample::{GroupSamples, WindowSamples};
use kiln_model::service::{Analysis, MetricKind, Strategy};
use kiln_stats::Verdict;

use crate::analysis::looks;
use crate::state::{Environment, Rollout};

/// Where an analysis is going, if things stay as they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// The metrics that can't tell yet.
    pub undecided: Vec<MetricKind>,
    /// About how many more requests to both groups together it takes; none where no end can be told.
    pub more: Option<u64>,
}

/// Returns where the analysis of a service is going; none if its requests are compared with nothing.
pub fn outlook(
    env: &Environment,
    rollout: &Rollout,
    service: &ServiceName,
    samples: &WindowSamples,
) -> Option<Outlook> {
    let Strategy::Canary(canary) = &env.service(rollout.to, service)?.strategy else { return None };
    let split = rollout.splits.get(service)?;
    let compared = canary.analysis.as_ref().filter(|_| canary.compares_at(split.weight))?;
    Some(of_counts(compared, canary.compared_shares(), samples))
}

/// How many requests an analysis compares: those of both its groups.
pub fn compared(samples: &WindowSamples) -> u64 {
    let of = |group| samples.get(&group).map_or(0, GroupSamples::requests);
    of(Group::Baseline) + of(Group::Canary)
}

/// How many of them the edge made itself.
pub(crate) fn made(samples: &WindowSamples) -> u64 {
    let of = |group| samples.get(&group).map_or(0, |samples| samples.synthetic);
    of(Group::Baseline) + of(Group::Canary)
}

/// So many requests of each group tell how many it takes: few enough that no analysis needs fewer.
const FEW: u64 = 100;
/// What they take, in microseconds. Any will do: what is compared is alike.
const TOOK: u64 = 5_000;

/// How many requests to both groups together it takes to find that a canary is no worse which has no more errors, and no
/// slower answers, than its baseline has; none where no end can be told.
pub(crate) fn needed(analysis: &Analysis, windows: usize) -> Option<u64> {
    let group = GroupSamples { ok: FEW, latency: [(bucket(TOOK), FEW)].into(), ..GroupSamples::default() };
    let samples = [(Group::Baseline, group.clone()), (Group::Canary, group)].into();
    Some(2 * FEW + of_counts(analysis, windows, &samples).more?)
}

fn of_counts(analysis: &Analysis, windows: usize, samples: &WindowSamples) -> Outlook {
    let seen = compared(samples);
    // Far below 2^52, where a float is exact.
    let more = |times: f64| ((times - 1.0) * seen as f64).ceil() as u64;
    let (mut undecided, mut until_fail, mut until_pass) = (Vec::new(), None::<u64>, Some(0));
    for (look, baseline, canary) in looks(analysis, windows, samples) {
        let outlook = look.outlook(baseline, canary);
        if outlook.is_none_or(|outlook| outlook.times > 1.0) {
            undecided.push(look.metric.kind);
        }
        match outlook.map(|outlook| (outlook.verdict, more(outlook.times))) {
            // One metric is enough to fail, and the first one that does ends it.
            Some((Verdict::Fail, more)) => {
                until_fail = Some(until_fail.map_or(more, |found| found.min(more)))
            }
            // Only all of them pass.
            Some((Verdict::Pass, more)) => until_pass = until_pass.map(|found| found.max(more)),
            Some((Verdict::Inconclusive, _)) | None => until_pass = None,
        }
    }
    Outlook { undecided, more: until_fail.or(until_pass) }
}

#[cfg(test)]
mod tests {
    use kiln_model::service::{Inconclusive, Margin, Metric};

    use super::*;
    use crate::analysis::verdict;

    fn analysis() -> Analysis {
        let metric = |kind, worse_by| Metric { kind, worse_by };
        Analysis {
            metrics: vec![
                metric(MetricKind::ErrorRate, Margin::Absolute(10_000)),
                metric(MetricKind::Latency { quantile: 990_000 }, Margin::Relative(200_000)),
            ],
            outside: Vec::new(),
            alpha: 50_000,
            inconclusive: Inconclusive::Stop,
            extensions: 0,
            synthetic: None,
            dry_run: false,
        }
    }

    /// Both groups with this many requests, of which the canary fails one in `fails`.
    fn samples(requests: u64, fails: u64) -> WindowSamples {
        let group = |failed| GroupSamples {
            ok: requests - failed,
            server_error: failed,
            latency: [(bucket(5000), requests)].into(),
            ..GroupSamples::default()
        };
        let canary = group(requests.checked_div(fails).unwrap_or(0));
        [(Group::Baseline, group(0)), (Group::Canary, canary)].into()
    }

    #[test]
    fn what_is_told_to_be_needed_is_about_what_a_pass_needs() {
        let found = of_counts(&analysis(), 2, &samples(200, 0));
        assert_eq!(found.undecided.len(), 2, "{found:?}");
        let each = 200 + found.more.unwrap() / 2;
        let at = |requests| verdict(&analysis(), 2, &samples(requests, 0));
        assert_eq!(at(each * 11 / 10), kiln_model::rollout::Verdict::Pass, "{each}");
        assert_eq!(at(each * 9 / 10), kiln_model::rollout::Verdict::Inconclusive, "{each}");
        let decided = of_counts(&analysis(), 2, &samples(20_000, 0));
        assert_eq!(decided, Outlook { undecided: Vec::new(), more: Some(0) });
    }

    #[test]
    fn what_is_needed_is_told_before_a_request_came() {
        let each = needed(&analysis(), 2).unwrap() / 2;
        let at = |requests| verdict(&analysis(), 2, &samples(requests, 0));
        assert_eq!(at(each * 11 / 10), kiln_model::rollout::Verdict::Pass, "{each}");
        assert_eq!(at(each * 9 / 10), kiln_model::rollout::Verdict::Inconclusive, "{each}");
    }

    #[test]
    fn one_metric_that_is_going_to_fail_says_when_it_is_over() {
        let found = of_counts(&analysis(), 2, &samples(60, 10));
        let each = 60 + found.more.unwrap() / 2;
        assert!(each > 60, "{found:?}");
        let at = |requests| verdict(&analysis(), 2, &samples(requests, 10));
        assert_eq!(at(each * 12 / 10), kiln_model::rollout::Verdict::Fail, "{each}");
        assert_eq!(at(each * 8 / 10), kiln_model::rollout::Verdict::Inconclusive, "{each}");
    }

    #[test]
    fn of_no_requests_no_end_can_be_told() {
        for none in [WindowSamples::new(), samples(0, 0)] {
            let found = of_counts(&analysis(), 1, &none);
            assert_eq!((found.undecided.len(), found.more), (2, None));
        }
    }
}
