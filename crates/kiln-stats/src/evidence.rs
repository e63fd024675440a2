//! What an analysis answers.

/// What is said of a canary, or of one of its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is worse than the margin allows no more often than by the chance asked for.
    Pass,
    /// It is worse than the margin allows.
    Fail,
    /// Too little was seen to say.
    Inconclusive,
}

impl Verdict {
    /// Returns what several metrics say together: FAIL if any fails, PASS if all pass.
    #[must_use]
    pub fn of_all(verdicts: impl IntoIterator<Item = Self>) -> Self {
        let mut verdicts = verdicts.into_iter().peekable();
        // Of no metric at all nothing was seen.
        let mut together = if verdicts.peek().is_some() { Self::Pass } else { Self::Inconclusive };
        for verdict in verdicts {
            match verdict {
                Self::Fail => return Self::Fail,
                Self::Inconclusive => together = Self::Inconclusive,
                Self::Pass => {}
            }
        }
        together
    }
}

/// The claim that a number is the evidence for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The canary is worse than the margin allows: enough of it fails the canary.
    Worse,
    /// The canary is not worse than the margin allows: enough of it passes the canary.
    Fine,
}

/// The chances of error that are accepted, each however often and whenever one looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Risk {
    /// The greatest chance that a canary within its margin is ever failed.
    pub false_fail: f64,
    /// The greatest chance that a canary beyond its margin is ever passed.
    pub false_pass: f64,
}

impl Default for Risk {
    /// One in twenty of each.
    fn default() -> Self {
        Self { false_fail: 0.05, false_pass: 0.05 }
    }
}

impl Risk {
    /// Whether both are chances: above zero and below one.
    #[must_use]
    pub fn is_usable(self) -> bool {
        let chance = |value: f64| value > 0.0 && value < 1.0;
        chance(self.false_fail) && chance(self.false_pass)
    }

    /// Returns the risk of each of several metrics that share this one, by weights of which unusable ones count as nothing.
    ///
    /// The chance of a false fail is split, since one metric is enough to fail a canary. That of a false pass is not: a bad canary
    /// passes only if the very metric passes that is bad.
    #[must_use]
    pub fn shared(self, weights: &[f64]) -> Vec<Self> {
        let usable = |weight: f64| if weight.is_finite() && weight > 0.0 { weight } else { 0.0 };
        let greatest = weights.iter().copied().map(usable).fold(0.0, f64::max);
        // Scaled first, so that no sum overflows; all of them unusable are all equal.
        let scaled = |weight: f64| if greatest > 0.0 { usable(weight) / greatest } else { 1.0 };
        let total: f64 = weights.iter().map(|&weight| scaled(weight)).sum();
        let share = |&weight: &f64| Self { false_fail: self.false_fail * scaled(weight) / total, ..self };
        weights.iter().map(share).collect()
    }

    pub(crate) fn of(self, claim: Claim) -> f64 {
        match claim {
            Claim::Worse => self.false_fail,
            Claim::Fine => self.false_pass,
        }
    }

    /// Returns the logarithm of the evidence at which `claim` holds, by Ville's inequality: of 1 / chance.
    pub(crate) fn ln_needed(self, claim: Claim) -> f64 {
        -self.of(claim).ln()
    }

    /// Returns what two logarithms of evidence come to.
    pub(crate) fn verdict(self, ln_worse: f64, ln_fine: f64) -> Verdict {
        self.verdict_by(|claim| {
            self.ln_needed(claim)
                <= match claim {
                    Claim::Worse => ln_worse,
                    Claim::Fine => ln_fine,
                }
        })
    }

    /// Returns what claims for which there is enough evidence come to.
    pub(crate) fn verdict_by(self, reached: impl Fn(Claim) -> bool) -> Verdict {
        if reached(Claim::Worse) {
            Verdict::Fail
        } else if reached(Claim::Fine) {
            Verdict::Pass
        } else {
            Verdict::Inconclusive
        }
    }
}

/// A value and the bounds that hold for the true one at all times together; none where nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Estimate {
    /// What was seen.
    pub value: Option<f64>,
    /// The true value is not below this.
    pub low: Option<f64>,
    /// The true value is not above this.
    pub high: Option<f64>,
}

/// Why a verdict on one metric is what it is: plain numbers, to be kept and shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence {
    /// What the numbers come to.
    pub verdict: Verdict,
    /// How much was seen of the baseline: requests, or exposure.
    pub baseline_size: f64,
    /// How much was seen of the canary.
    pub canary_size: f64,
    /// The baseline's rate, latency or count.
    pub baseline: Estimate,
    /// The canary's.
    pub canary: Estimate,
    /// By how much the canary is worse, in the margin's unit. A canary fails when `low` exceeds the margin and passes when `high`
    /// is below it: the same tests, solved for the margin.
    pub effect: Estimate,
    /// The margin asked for.
    pub margin: f64,
    /// Natural logarithm of the evidence that the canary is worse than the margin allows; zero and less are none.
    pub ln_worse: f64,
    /// The value of `ln_worse` that fails the canary.
    pub ln_worse_needed: f64,
    /// Natural logarithm of the evidence that the canary is within the margin.
    pub ln_fine: f64,
    /// The value of `ln_fine` that passes the canary.
    pub ln_fine_needed: f64,
    /// About how many times as much as was seen until now must be seen in all for a decision, if things stay as they were: 1 when there is
    /// one. None: the present numbers lie so near the margin, or are so few, that no end can be told.
    pub times_needed: Option<f64>,
}

/// Where a test that has not decided yet is going, if things stay as they were.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outlook {
    /// About how many times as much as was seen until now must be seen in all: 1 when there is a decision.
    pub times: f64,
    /// The decision.
    pub verdict: Verdict,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_metric_fails_a_canary_and_only_all_pass_it() {
        use Verdict::{Fail, Inconclusive, Pass};
        assert_eq!(Verdict::of_all([Pass, Inconclusive, Fail]), Fail);
        assert_eq!(Verdict::of_all([Pass, Inconclusive, Pass]), Inconclusive);
        assert_eq!(Verdict::of_all([Pass, Pass]), Pass);
        assert_eq!(Verdict::of_all([]), Inconclusive);
    }

    #[test]
    fn metrics_share_the_chance_of_a_false_fail_by_weight_and_each_keeps_that_of_a_false_pass() {
        let risks = Risk { false_fail: 0.08, false_pass: 0.1 }.shared(&[2.0, 1.0, 1.0]);
        assert!(
            risks.iter().zip([0.04, 0.02, 0.02]).all(|(risk, share)| (risk.false_fail - share).abs() < 1e-12)
        );
        assert!(risks.iter().all(|risk| risk.false_pass == 0.1));
        let equal = Risk::default().shared(&[0.0, f64::NAN]);
        assert!(equal.iter().all(|risk| (risk.false_fail - 0.025).abs() < 1e-12));
        let huge = Risk::default().shared(&[f64::MAX, f64::MAX]);
        assert!(huge.iter().all(|risk| (risk.false_fail - 0.025).abs() < 1e-12));
    }

    #[test]
    fn a_metric_without_weight_can_not_fail_a_canary() {
        let risk = Risk::default().shared(&[1.0, 0.0])[1];
        assert_eq!(risk.verdict(1e9, 0.0), Verdict::Inconclusive);
    }
}
