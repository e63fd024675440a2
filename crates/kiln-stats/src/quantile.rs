//! Latency quantiles: two histograms compared, with a margin.

use kiln_model::latency::{BUCKETS, bucket, highest_us, lowest_us};

use crate::evidence::{Claim, Estimate, Evidence, Outlook, Risk, Verdict};
use crate::margin::Margin;
use crate::mixture::{Fixed, Known, Mixture};
use crate::solve;

/// Latencies of one group, ready for tests of any of their quantiles: for each bucket, how many lie in it or above.
#[derive(Debug, Clone, PartialEq)]
pub struct Latencies {
    above: Box<[f64; BUCKETS + 1]>,
}

impl Latencies {
    /// Takes the counts of each bucket of [`kiln_model::latency`].
    #[must_use]
    pub fn new(counts: &[u64; BUCKETS]) -> Self {
        let mut above = Box::new([0.0; BUCKETS + 1]);
        let mut sum = 0.0;
        for index in (0..BUCKETS).rev() {
            sum += counts[index] as f64;
            above[index] = sum;
        }
        Self { above }
    }

    /// Counts one more latency of `us` microseconds.
    pub fn add(&mut self, us: u64) {
        for above in &mut self.above[..=bucket(us)] {
            *above += 1.0;
        }
    }

    /// Returns how many there are.
    #[must_use]
    pub fn count(&self) -> f64 {
        self.above[0]
    }

    /// Returns the bucket that holds the quantile `share`; none of no latencies.
    fn quantile(&self, share: f64) -> Option<usize> {
        let beyond = (1.0 - share) * self.count();
        // The first bucket above which no more than the rest lie.
        let index = self.above[1..].partition_point(|&above| above > beyond);
        (self.count() > 0.0).then_some(index.min(BUCKETS - 1))
    }

    fn times(&self, times: f64) -> Self {
        Self { above: Box::new(self.above.map(|above| above * times)) }
    }
}

/// Compares one quantile of two groups' latencies: is the canary's more than a margin above the baseline's?
///
/// For one threshold the test asks whether too few of the baseline lie above it and too many of the canary above what the margin allows
/// for it; the evidence is that at the threshold where it is least, as in the test of Howard and Ramdas (2022, section 5). Edges of
/// buckets are rounded against each claim, so nothing is assumed of the latencies, not even that they are continuous.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantile {
    share: f64,
    margin: Margin,
    stakes: Known,
    lines: Lines,
}

/// Where the margin maps the buckets of the baseline.
#[derive(Debug, Clone, PartialEq)]
struct Lines {
    /// The first bucket whose latencies all exceed what the margin makes of anything in the baseline's bucket.
    worse: Box<[u16; BUCKETS]>,
    /// The first bucket that may hold a latency that is not below what the margin makes of something in it.
    fine: Box<[u16; BUCKETS]>,
}

impl Lines {
    fn new(margin: Margin) -> Self {
        let (offset, slope) = margin.line();
        let line = |us: u64| (us as f64).mul_add(slope, offset).max(0.0);
        // The conversions of floats saturate, and the last bucket takes all that is beyond.
        let mut lines = Self { worse: Box::new([BUCKETS as u16; BUCKETS]), fine: Box::new([0; BUCKETS]) };
        for index in 0..BUCKETS {
            if let Some(highest) = highest_us(index) {
                lines.worse[index] = (bucket(line(highest).floor() as u64) + 1) as u16;
            }
            lines.fine[index] = bucket(line(lowest_us(index)).ceil() as u64) as u16;
        }
        lines
    }
}

/// Stakes in the logarithm of odds, and how much is laid on each.
const STAKES: [(f64, f64); 8] =
    [(0.06, 0.3), (0.15, 0.7), (0.3, 1.2), (0.5, 1.5), (0.8, 1.5), (1.2, 1.0), (1.8, 0.5), (2.6, 0.3)];
/// What part of a stake is laid on too few in the one group and on too many in the other, and the weight of that.
///
/// The threshold with the least evidence lies high, where the one group has much too few and the other hardly too many: so most is laid
/// on the first. These weights were chosen by the expected evidence for log-normal latencies and for a slow tail.
const DIRECTIONS: [(f64, f64, f64); 4] = [(1.0, 0.2, 0.4), (1.0, 0.5, 0.3), (0.8, 1.0, 0.2), (0.0, 1.0, 0.1)];

fn stakes(mean: f64) -> Known {
    let rows = STAKES.iter().flat_map(|&(stake, weight)| {
        DIRECTIONS
            .map(|(few, many, share)| (weight * share, -(-stake * few).exp_m1(), (stake * many).exp_m1()))
    });
    Mixture::new(rows).known(mean)
}

impl Quantile {
    /// A comparison of the quantile `share`, as 0.99 for the p99, which lies strictly between 0 and 1; others are taken for the nearest
    /// that can be asked for. An absolute margin is in microseconds.
    #[must_use]
    pub fn new(share: f64, margin: Margin) -> Self {
        // Beyond a millionth no one has the traffic.
        let share = if share.is_finite() { share.clamp(1e-6, 1.0 - 1e-6) } else { 0.5 };
        Self { share, margin, stakes: stakes(1.0 - share), lines: Lines::new(margin) }
    }

    /// Returns the verdict on what was counted until now.
    #[must_use]
    pub fn verdict(&self, baseline: &Latencies, canary: &Latencies, risk: Risk) -> Verdict {
        risk.verdict_by(|claim| self.reaches(claim, &self.lines, (baseline, canary), risk))
    }

    fn reaches(
        &self,
        claim: Claim,
        lines: &Lines,
        (baseline, canary): (&Latencies, &Latencies),
        risk: Risk,
    ) -> bool {
        let scan = Scan::new(self, claim, baseline, canary);
        scan.is_some_and(|scan| scan.reaches(lines, risk.ln_needed(claim)))
    }

    /// Returns the natural logarithm of the evidence for `claim`.
    #[must_use]
    pub fn ln_e(&self, claim: Claim, baseline: &Latencies, canary: &Latencies) -> f64 {
        Scan::new(self, claim, baseline, canary).map_or(0.0, |scan| scan.least(&self.lines))
    }

    /// Returns the verdict with all that it rests on; latencies in microseconds.
    #[must_use]
    pub fn evidence(&self, baseline: &Latencies, canary: &Latencies, risk: Risk) -> Evidence {
        let (ln_worse, ln_fine) =
            (self.ln_e(Claim::Worse, baseline, canary), self.ln_e(Claim::Fine, baseline, canary));
        Evidence {
            verdict: risk.verdict(ln_worse, ln_fine),
            baseline_size: baseline.count(),
            canary_size: canary.count(),
            baseline: self.estimate(baseline, risk),
            canary: self.estimate(canary, risk),
            effect: self.effect(baseline, canary, risk),
            margin: self.margin.value(),
            ln_worse,
            ln_worse_needed: risk.ln_needed(Claim::Worse),
            ln_fine,
            ln_fine_needed: risk.ln_needed(Claim::Fine),
            times_needed: self.outlook(baseline, canary, risk).map(|outlook| outlook.times),
        }
    }

    /// Returns where this is going; none where no end can be told. Takes some ten times as long as a verdict.
    #[must_use]
    pub fn outlook(&self, baseline: &Latencies, canary: &Latencies, risk: Risk) -> Option<Outlook> {
        solve::outlook(|times| self.verdict(&baseline.times(times), &canary.times(times), risk))
    }

    /// The confidence sequence of Howard and Ramdas (2022, theorem 1) for one quantile, rounded outwards to the edges of buckets.
    fn estimate(&self, latencies: &Latencies, risk: Risk) -> Estimate {
        let Some(seen) = latencies.quantile(self.share) else { return Estimate::default() };
        let needed = risk.ln_needed(Claim::Worse) + 2f64.ln();
        let few = self.stakes.sized(latencies.count(), 0.0);
        let many = self.stakes.sized(0.0, latencies.count());
        // Too few at or above an edge: the quantile is below it. Too many above an edge: it is above it.
        let high = (seen + 1..BUCKETS).find(|&index| few.ln_e(latencies.above[index], 0.0).0 >= needed);
        let low = (0..seen).rev().find(|&index| many.ln_e(0.0, latencies.above[index + 1]).0 >= needed);
        Estimate {
            value: Some(middle_us(seen)),
            low: Some(low.map_or(0.0, |index| lowest_us(index + 1) as f64)),
            high: high.map(|index| lowest_us(index) as f64),
        }
    }

    /// Solves both tests for the margin.
    fn effect(&self, baseline: &Latencies, canary: &Latencies, risk: Risk) -> Estimate {
        let (Some(of_baseline), Some(of_canary)) =
            (baseline.quantile(self.share), canary.quantile(self.share))
        else {
            return Estimate::default();
        };
        let refutes = |claim: Claim, margin: f64| {
            let lines = Lines::new(self.margin.with(margin));
            self.reaches(claim, &lines, (baseline, canary), risk)
        };
        let value = self.margin.effect(middle_us(of_baseline), middle_us(of_canary));
        let start = value.unwrap_or(self.margin.value());
        let beyond = kiln_model::latency::BEYOND_US as f64;
        // A bucket's width is what can be told apart.
        let (lowest, step) = match self.margin {
            Margin::Relative(_) => (-1.0, 1.0 / 64.0),
            Margin::Absolute(_) => (-beyond, (middle_us(of_baseline) / 64.0).max(1.0)),
        };
        Estimate {
            value,
            low: solve::bound(start, -step, (lowest, beyond), |margin| refutes(Claim::Worse, margin)),
            high: solve::bound(start, step, (lowest, beyond), |margin| refutes(Claim::Fine, margin)),
        }
    }
}

fn middle_us(index: usize) -> f64 {
    let lowest = lowest_us(index);
    f64::midpoint(lowest as f64, highest_us(index).unwrap_or(lowest) as f64)
}

/// One claim's test over all thresholds.
struct Scan<'a> {
    claim: Claim,
    fixed: Fixed,
    baseline: &'a Latencies,
    canary: &'a Latencies,
    middle: usize,
}

impl<'a> Scan<'a> {
    fn new(test: &Quantile, claim: Claim, baseline: &'a Latencies, canary: &'a Latencies) -> Option<Self> {
        let middle = baseline.quantile(test.share)?;
        let (more, less) = match claim {
            Claim::Worse => (baseline, canary),
            Claim::Fine => (canary, baseline),
        };
        let fixed = test.stakes.sized(more.count(), less.count());
        Some(Self { claim, fixed, baseline, canary, middle })
    }

    /// Returns how many of the group that should have more, and of the one that should have less, lie above a threshold in the
    /// baseline's bucket `index`: the counts that speak least for the claim.
    fn events(&self, lines: &Lines, index: usize) -> (f64, f64) {
        match self.claim {
            Claim::Worse => (self.baseline.above[index], self.canary.above[usize::from(lines.worse[index])]),
            Claim::Fine => {
                (self.canary.above[usize::from(lines.fine[index])], self.baseline.above[index + 1])
            }
        }
    }

    /// Returns the least evidence over all thresholds.
    fn least(&self, lines: &Lines) -> f64 {
        self.search(lines, f64::NEG_INFINITY)
    }

    /// Whether the evidence is at least `needed` at every threshold.
    fn reaches(&self, lines: &Lines, needed: f64) -> bool {
        self.search(lines, needed) >= needed
    }

    /// Returns the least evidence over all thresholds, or the first that is below `enough`.
    ///
    /// From the middle upwards: there the least is usually met first.
    fn search(&self, lines: &Lines, enough: f64) -> f64 {
        let (more, less) = self.events(lines, self.middle);
        let (mut least, mut strategy) = self.fixed.ln_e(more, less);
        let mut last = (more, less);
        for index in (self.middle..BUCKETS).chain((0..self.middle).rev()) {
            if least < enough {
                break;
            }
            let (more, less) = self.events(lines, index);
            // Most buckets are empty.
            if std::mem::replace(&mut last, (more, less)) == (more, less) {
                continue;
            }
            // The strategy that held the most a bucket ago holds much here: mostly more than the least, and then the others don't matter.
            if self.fixed.ln_e_of(strategy, more, less) < least {
                let (ln_e, best) = self.fixed.ln_e(more, less);
                least = least.min(ln_e);
                strategy = best;
            }
        }
        least
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    fn latencies(us: &[u64]) -> Latencies {
        let mut counts = [0; BUCKETS];
        for &us in us {
            counts[bucket(us)] += 1;
        }
        Latencies::new(&counts)
    }

    /// Latencies spread evenly between two values.
    fn spread(count: u64, from: u64, to: u64) -> Latencies {
        latencies(&(0..count).map(|index| from + (to - from) * index / count).collect::<Vec<_>>())
    }

    #[test]
    fn latencies_can_be_counted_one_by_one() {
        let mut one_by_one = latencies(&[]);
        for us in [0, 5, 200, 200, 1 << 40] {
            one_by_one.add(us);
        }
        assert_eq!(one_by_one, latencies(&[0, 5, 200, 200, 1 << 40]));
        assert_eq!(one_by_one.count(), 5.0);
    }

    #[test]
    fn a_quantile_is_the_first_value_that_enough_do_not_exceed() {
        let ten = latencies(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(ten.quantile(0.5), Some(5));
        assert_eq!(ten.quantile(0.91), Some(10));
        assert_eq!(ten.quantile(0.01), Some(1));
        assert_eq!(latencies(&[]).quantile(0.5), None);
        assert_eq!(latencies(&[u64::MAX]).quantile(0.5), Some(BUCKETS - 1));
    }

    #[test]
    fn a_slower_p99_fails_and_an_equal_one_passes() {
        let test = Quantile::new(0.99, Margin::Relative(0.2));
        let risk = Risk::default();
        let baseline = spread(4000, 1000, 9000);
        assert_eq!(test.verdict(&baseline, &spread(4000, 1500, 13_500), risk), Verdict::Fail);
        assert_eq!(test.verdict(&baseline, &baseline, risk), Verdict::Pass);
        assert_eq!(
            test.verdict(&spread(100, 1000, 9000), &spread(100, 1500, 13_500), risk),
            Verdict::Inconclusive
        );
        assert_eq!(test.verdict(&latencies(&[]), &baseline, risk), Verdict::Inconclusive);
        assert_eq!(test.verdict(&baseline, &latencies(&[]), risk), Verdict::Inconclusive);
    }

    #[test]
    fn an_absolute_margin_is_in_microseconds() {
        let risk = Risk::default();
        let (baseline, canary) = (spread(3000, 1000, 2000), spread(3000, 1400, 2400));
        let verdict = |margin| Quantile::new(0.5, Margin::Absolute(margin)).verdict(&baseline, &canary, risk);
        assert_eq!(verdict(200.0), Verdict::Fail);
        assert_eq!(verdict(600.0), Verdict::Pass);
    }

    #[test]
    fn the_effects_bounds_say_the_same_as_the_verdict_and_hold_what_was_seen() {
        let baseline = spread(2500, 1000, 9000);
        for (margin, to) in [(0.2, 9000), (0.2, 13_500), (0.2, 10_800), (0.0, 7000)] {
            let test = Quantile::new(0.95, Margin::Relative(margin));
            let evidence = test.evidence(&baseline, &spread(2500, 1000, to), Risk::default());
            assert_eq!(
                evidence.effect.low.is_some_and(|low| low >= margin),
                evidence.verdict == Verdict::Fail
            );
            assert_eq!(
                evidence.effect.high.is_some_and(|high| high <= margin),
                evidence.verdict == Verdict::Pass
            );
            assert!(
                evidence.effect.low <= evidence.effect.value && evidence.effect.value <= evidence.effect.high
            );
            assert!(
                evidence.canary.low < evidence.canary.value && evidence.canary.value < evidence.canary.high
            );
        }
    }

    #[test]
    fn a_forecast_is_about_where_the_verdict_falls() {
        let test = Quantile::new(0.95, Margin::Relative(0.2));
        let times = test
            .evidence(&spread(200, 1000, 9000), &spread(200, 1000, 9000), Risk::default())
            .times_needed
            .unwrap();
        let at = |times: f64| spread((200.0 * times) as u64, 1000, 9000);
        assert!(times > 1.0);
        assert_eq!(test.verdict(&at(times * 1.1), &at(times * 1.1), Risk::default()), Verdict::Pass);
        assert_eq!(test.verdict(&at(times * 0.9), &at(times * 0.9), Risk::default()), Verdict::Inconclusive);
        assert_eq!(test.evidence(&at(0.0), &at(0.0), Risk::default()).times_needed, None);
    }

    proptest! {
        // A fixed seed: a change is refused for what it did, not for what luck found.
        #![proptest_config(ProptestConfig { cases: 48, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn short_latencies_give_the_least_evidence_over_every_threshold_exactly(
            baseline in prop::collection::vec(0u64..60, 0..60), canary in prop::collection::vec(0u64..90, 0..60),
            share in 0.05..0.95f64, margin in 0.0..0.5f64, absolute: bool,
        ) {
            let (offset, slope) = if absolute { (margin * 20.0, 1.0) } else { (0.0, 1.0 + margin) };
            let test = Quantile::new(share, if absolute { Margin::Absolute(offset) } else { Margin::Relative(margin) });
            let of = |us: &[u64], holds: &dyn Fn(f64) -> bool| us.iter().filter(|us| holds(**us as f64)).count() as f64;
            for claim in [Claim::Worse, Claim::Fine] {
                let (more, less) = if claim == Claim::Worse { (&baseline, &canary) } else { (&canary, &baseline) };
                let fixed = stakes(1.0 - share).sized(more.len() as f64, less.len() as f64);
                let least = (0..100u32)
                    .map(|x| {
                        let (x, y) = (f64::from(x), slope.mul_add(f64::from(x), offset));
                        match claim {
                            Claim::Worse => fixed.ln_e(of(&baseline, &|us| us >= x), of(&canary, &|us| us > y)).0,
                            Claim::Fine => fixed.ln_e(of(&canary, &|us| us >= y), of(&baseline, &|us| us > x)).0,
                        }
                    })
                    .fold(f64::INFINITY, f64::min);
                let ln_e = test.ln_e(claim, &latencies(&baseline), &latencies(&canary));
                let expected = if baseline.is_empty() { 0.0 } else { least };
                prop_assert!((ln_e - expected).abs() < 1e-9, "{claim:?}: {ln_e}, {expected}");
            }
        }

        #[test]
        fn edges_are_rounded_against_each_claim(
            baseline in prop::collection::vec(100u64..5_000_000, 1..80), canary in prop::collection::vec(100u64..5_000_000, 1..80),
            margin in 0.0..0.5f64,
        ) {
            let test = Quantile::new(0.8, Margin::Relative(margin));
            let fixed = stakes(1.0 - 0.8).sized(baseline.len() as f64, canary.len() as f64);
            let of = |us: &[u64], holds: &dyn Fn(f64) -> bool| us.iter().filter(|us| holds(**us as f64)).count() as f64;
            let ln_e = test.ln_e(Claim::Worse, &latencies(&baseline), &latencies(&canary));
            for &x in &baseline {
                let y = x as f64 * (1.0 + margin);
                let exact = fixed.ln_e(of(&baseline, &|us| us >= x as f64), of(&canary, &|us| us > y)).0;
                prop_assert!(ln_e <= exact + 1e-9);
            }
        }

        #[test]
        fn a_wider_margin_is_harder_to_break_and_easier_to_keep(
            baseline in prop::collection::vec(1u64..100_000, 1..80), canary in prop::collection::vec(1u64..100_000, 1..80),
            margin in 0.0..1.0f64, more in 0.0..1.0f64,
        ) {
            let ln_e = |claim, margin| {
                Quantile::new(0.9, Margin::Relative(margin)).ln_e(claim, &latencies(&baseline), &latencies(&canary))
            };
            prop_assert!(ln_e(Claim::Worse, margin) >= ln_e(Claim::Worse, margin + more) - 1e-9);
            prop_assert!(ln_e(Claim::Fine, margin) <= ln_e(Claim::Fine, margin + more) + 1e-9);
        }

        #[test]
        fn whatever_is_counted_comes_to_numbers(
            filled in prop::collection::vec((0usize..BUCKETS, any::<u64>(), any::<bool>()), 0..6), share: f64, margin in 0.0..1e12f64,
        ) {
            let (mut baseline, mut canary) = ([0; BUCKETS], [0; BUCKETS]);
            for (index, count, of_canary) in filled {
                if of_canary { canary[index] = count } else { baseline[index] = count }
            }
            for margin in [Margin::Relative(margin), Margin::Absolute(margin)] {
                let test = Quantile::new(share, margin);
                let evidence = test.evidence(&Latencies::new(&baseline), &Latencies::new(&canary), Risk::default());
                prop_assert!(evidence.ln_worse.is_finite() && evidence.ln_fine.is_finite());
                for estimate in [evidence.baseline, evidence.canary, evidence.effect] {
                    for number in [estimate.value, estimate.low, estimate.high].into_iter().flatten() {
                        prop_assert!(!number.is_nan(), "{evidence:?}");
                    }
                }
            }
        }
    }
}
