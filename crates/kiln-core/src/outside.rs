//! What measurements of outside metrics come to.

use std::sync::Arc;

use kiln_model::ServiceName;
use kiln_model::outside::{Comparison, Condition, Finding, Number, OutsideMetric};
use kiln_model::service::{Analysis, Strategy};

use crate::state::{Environment, Rollout};

/// What was measured of a metric since the requests of its service were last split.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Successes.
    pub passed: u32,
    /// Failures.
    pub failed: u32,
    /// Values that tell nothing.
    pub unclear: u32,
    /// Attempts that came to no value.
    pub errors: u32,
    /// How many of them were the last ones, in a row.
    pub errors_in_row: u32,
    /// The last value, or why there was none, for people.
    pub last: Arc<str>,
}

impl Tally {
    /// How often it was asked.
    pub fn asked(&self) -> u32 {
        self.measured() + self.errors
    }

    /// How many values came.
    pub fn measured(&self) -> u32 {
        self.passed + self.failed + self.unclear
    }

    /// Takes one more measurement.
    pub(crate) fn add(&mut self, finding: Finding, text: &str) {
        match finding {
            Finding::Passed => self.passed += 1,
            Finding::Failed => self.failed += 1,
            Finding::Unclear => self.unclear += 1,
            Finding::Error => self.errors += 1,
        }
        self.errors_in_row = if finding == Finding::Error { self.errors_in_row + 1 } else { 0 };
        self.last = text.into();
    }
}

/// How a metric stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// More is measured.
    Measuring,
    /// Enough was measured, and it is fine.
    Passed,
    /// More failures than are accepted.
    Failed,
    /// More values that tell nothing than are accepted.
    Unclear,
    /// More errors in a row than are accepted.
    Away,
}

/// Says how a metric stands.
pub fn standing(metric: &OutsideMetric, tally: &Tally) -> Standing {
    if tally.failed > metric.failure_limit {
        Standing::Failed
    } else if tally.unclear > metric.inconclusive_limit {
        Standing::Unclear
    } else if tally.errors_in_row > metric.error_limit {
        Standing::Away
    } else if tally.measured() >= metric.count {
        Standing::Passed
    } else {
        Standing::Measuring
    }
}

/// What an analysis asks of others, and what was measured; empty if the target of the rollout declares none.
pub fn measured<'a>(
    env: &'a Environment,
    rollout: &'a Rollout,
    service: &ServiceName,
) -> impl Iterator<Item = (&'a OutsideMetric, &'a Tally)> {
    static NONE: std::sync::LazyLock<Tally> = std::sync::LazyLock::new(Tally::default);
    let tallies = rollout.measured.get(service);
    analysis(env, rollout, service)
        .into_iter()
        .flat_map(|analysis| &analysis.outside)
        .map(move |metric| (metric, tallies.and_then(|tallies| tallies.get(&metric.name)).unwrap_or(&NONE)))
}

fn analysis<'a>(env: &'a Environment, rollout: &Rollout, service: &ServiceName) -> Option<&'a Analysis> {
    match &env.service(rollout.to, service)?.strategy {
        Strategy::Canary(canary) => canary.analysis.as_ref(),
        _ => None,
    }
}

/// Says what a value is by a metric's conditions.
pub(crate) fn finding(metric: &OutsideMetric, value: Number) -> Finding {
    // As of a rate of nothing by nothing: it is no number, so no condition is about it.
    if value.0.is_nan() {
        return Finding::Unclear;
    }
    let is = |condition: &Option<Condition>| condition.map(|condition| holds(condition, value));
    match (is(&metric.failure), is(&metric.success)) {
        (Some(true), _) => Finding::Failed,
        (_, Some(true)) | (Some(false), None) => Finding::Passed,
        (None, Some(false)) => Finding::Failed,
        (Some(false), Some(false)) | (None, None) => Finding::Unclear,
    }
}

fn holds(condition: Condition, value: Number) -> bool {
    let (value, with) = (value.0, condition.with.0);
    match condition.comparison {
        Comparison::Less => value < with,
        Comparison::AtMost => value <= with,
        Comparison::Greater => value > with,
        Comparison::AtLeast => value >= with,
        // Exactly: whoever asks for equality counts things.
        Comparison::Equal => value.to_bits() == with.to_bits() || (value == 0.0 && with == 0.0),
        Comparison::Other => value.to_bits() != with.to_bits() && !(value == 0.0 && with == 0.0),
    }
}

/// How a metric stands and why, for people.
pub fn told(metric: &OutsideMetric, tally: &Tally) -> String {
    let OutsideMetric { name, failure_limit, inconclusive_limit, count, .. } = metric;
    let last = &tally.last;
    match standing(metric, tally) {
        Standing::Failed => {
            let failed = tally.failed;
            let asked = match (&metric.failure, &metric.success) {
                (Some(failure), _) => format!("`{failure}` is a failure"),
                (None, Some(success)) => format!("`{success}` is asked for"),
                (None, None) => "nothing is asked for".to_owned(),
            };
            format!("{name} is {last} where {asked}: {failed} failures, {failure_limit} accepted")
        }
        Standing::Unclear => {
            let unclear = tally.unclear;
            format!(
                "{name} is {last}, which tells nothing: {unclear} such values, {inconclusive_limit} accepted"
            )
        }
        Standing::Away => {
            format!("{name} could not be measured {} times in a row: {last}", tally.errors_in_row)
        }
        Standing::Measuring if tally.errors_in_row > 0 => {
            format!(
                "{name} was measured {} of {count} times, the last attempt failed: {last}",
                tally.measured()
            )
        }
        Standing::Measuring if tally.measured() > 0 => {
            format!("{name} was measured {} of {count} times, last {last}", tally.measured())
        }
        Standing::Measuring => format!("{name} was not measured yet, {count} times are needed"),
        Standing::Passed => format!("{name} passed, last {last}"),
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::Millis;

    use super::*;

    fn condition(comparison: Comparison, with: f64) -> Condition {
        Condition { comparison, with: Number(with) }
    }

    fn metric(success: Option<Condition>, failure: Option<Condition>) -> OutsideMetric {
        OutsideMetric {
            name: "queue".into(),
            prometheus: "http://127.0.0.1:9090".into(),
            access: Default::default(),
            query: "q".into(),
            success,
            failure,
            interval: Millis(1000),
            count: 3,
            failure_limit: 1,
            inconclusive_limit: 0,
            error_limit: 2,
            dry_run: false,
        }
    }

    #[test]
    fn a_value_is_judged_by_the_conditions_that_there_are() {
        let (low, high) = (condition(Comparison::Less, 0.05), condition(Comparison::Greater, 0.2));
        let of = |success, failure, value: f64| finding(&metric(success, failure), Number(value));
        assert_eq!(of(Some(low), Some(high), 0.01), Finding::Passed);
        assert_eq!(of(Some(low), Some(high), 0.1), Finding::Unclear);
        assert_eq!(of(Some(low), Some(high), 0.3), Finding::Failed);
        assert_eq!((of(Some(low), None, 0.1), of(Some(low), None, 0.01)), (Finding::Failed, Finding::Passed));
        assert_eq!(
            (of(None, Some(high), 0.1), of(None, Some(high), 0.3)),
            (Finding::Passed, Finding::Failed)
        );
        assert_eq!(of(None, Some(high), f64::INFINITY), Finding::Failed);
        for metric in [(Some(low), None), (None, Some(high)), (Some(low), Some(high))] {
            assert_eq!(of(metric.0, metric.1, f64::NAN), Finding::Unclear);
        }
    }

    #[test]
    fn every_comparison_is_what_it_says() {
        let holds = |comparison, value: f64| holds(condition(comparison, 2.0), Number(value));
        for (comparison, below, equal, above) in [
            (Comparison::Less, true, false, false),
            (Comparison::AtMost, true, true, false),
            (Comparison::Greater, false, false, true),
            (Comparison::AtLeast, false, true, true),
            (Comparison::Equal, false, true, false),
            (Comparison::Other, true, false, true),
        ] {
            assert_eq!(
                (holds(comparison, 1.0), holds(comparison, 2.0), holds(comparison, 3.0)),
                (below, equal, above)
            );
        }
        let zero = condition(Comparison::Equal, 0.0);
        assert!(super::holds(zero, Number(-0.0)), "both are nothing");
    }

    #[test]
    fn each_kind_of_trouble_counts_against_its_own_limit() {
        let metric = metric(Some(condition(Comparison::Less, 1.0)), None);
        let after = |findings: &[Finding]| {
            let mut tally = Tally::default();
            findings.iter().for_each(|finding| tally.add(*finding, "2"));
            standing(&metric, &tally)
        };
        use Finding::{Error, Failed, Passed, Unclear};
        assert_eq!(after(&[Passed, Passed]), Standing::Measuring);
        assert_eq!(after(&[Passed, Failed, Passed]), Standing::Passed, "one failure is accepted");
        assert_eq!(after(&[Failed, Failed]), Standing::Failed);
        assert_eq!(after(&[Passed, Unclear]), Standing::Unclear);
        assert_eq!(
            after(&[Error, Error, Passed, Error, Error, Passed, Passed]),
            Standing::Passed,
            "errors in a row"
        );
        assert_eq!(after(&[Passed, Error, Error, Error]), Standing::Away);
        assert_eq!(after(&[]), Standing::Measuring);
    }
}
