//! Error rates and counts: two streams of events compared, with a margin.

use crate::evidence::{Claim, Estimate, Evidence, Outlook, Risk, Verdict};
use crate::margin::Margin;
use crate::mixture::{Group, Law, Mixture};
use crate::solve;

/// Requests of one group, and how many of them failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Requests {
    /// All that were answered or lost.
    pub total: u64,
    /// Those of them that count as failed.
    pub failed: u64,
}

/// Events of one group, and over how much they were counted.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Events {
    /// How many there were.
    pub count: u64,
    /// Instance-hours, or requests: whatever the rate is told per. The two groups' shall grow in step.
    pub exposure: f64,
}

/// Compares the error rates of two groups: is the canary's more than a margin above the baseline's?
///
/// Valid for Bernoulli trials in any order, at any number of looks. Where the rates of both groups move together, the verdict is
/// about their means, as long as the groups' shares of the traffic do not move.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorRate(Comparison);

impl ErrorRate {
    /// A comparison that is quickest where the canary gets `ratio` requests for each of the baseline's. It is valid at any other.
    #[must_use]
    pub fn new(margin: Margin, ratio: f64) -> Self {
        Self(Comparison::new(Law::Trials, margin, ratio))
    }

    /// Returns the verdict on what was counted until now.
    #[must_use]
    pub fn verdict(&self, baseline: Requests, canary: Requests, risk: Risk) -> Verdict {
        self.0.verdict(&baseline.seen(), &canary.seen(), risk)
    }

    /// Returns the natural logarithm of the evidence for `claim`: an e-process under every pair of rates that contradict it.
    #[must_use]
    pub fn ln_e(&self, claim: Claim, baseline: Requests, canary: Requests) -> f64 {
        self.0.ln_e(claim, self.0.margin, &baseline.seen(), &canary.seen())
    }

    /// Returns the verdict with all that it rests on.
    #[must_use]
    pub fn evidence(&self, baseline: Requests, canary: Requests, risk: Risk) -> Evidence {
        self.0.evidence(&baseline.seen(), &canary.seen(), risk)
    }

    /// Returns where this is going; none where no end can be told. Takes some ten times as long as a verdict.
    #[must_use]
    pub fn outlook(&self, baseline: Requests, canary: Requests, risk: Risk) -> Option<Outlook> {
        self.0.outlook(&baseline.seen(), &canary.seen(), risk)
    }
}

/// Compares how often something happens in two groups: restarts, lines of a log, a counter from outside.
///
/// The sequential test of Lindon and Malek (2022): given an event, only whose it was counts, so both groups' rates may move together as they
/// like while their exposures grow in step. Events come one at a time and independently of each other; requests that a user
/// repeats do not.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRate(Comparison);

impl EventRate {
    /// A comparison for groups whose exposures grow as `ratio` (canary's by baseline's). An absolute margin is in events per exposure.
    #[must_use]
    pub fn new(margin: Margin, ratio: f64) -> Self {
        Self(Comparison::new(Law::Counts, margin, ratio))
    }

    /// Returns the verdict on what was counted until now.
    #[must_use]
    pub fn verdict(&self, baseline: Events, canary: Events, risk: Risk) -> Verdict {
        self.0.verdict(&baseline.seen(), &canary.seen(), risk)
    }

    /// Returns the natural logarithm of the evidence for `claim`.
    #[must_use]
    pub fn ln_e(&self, claim: Claim, baseline: Events, canary: Events) -> f64 {
        self.0.ln_e(claim, self.0.margin, &baseline.seen(), &canary.seen())
    }

    /// Returns the verdict with all that it rests on.
    #[must_use]
    pub fn evidence(&self, baseline: Events, canary: Events, risk: Risk) -> Evidence {
        self.0.evidence(&baseline.seen(), &canary.seen(), risk)
    }

    /// Returns where this is going; none where no end can be told. Takes some ten times as long as a verdict.
    #[must_use]
    pub fn outlook(&self, baseline: Events, canary: Events, risk: Risk) -> Option<Outlook> {
        self.0.outlook(&baseline.seen(), &canary.seen(), risk)
    }
}

impl Requests {
    fn seen(self) -> Seen {
        Seen { events: self.failed.min(self.total) as f64, size: self.total as f64 }
    }
}

impl Events {
    fn seen(self) -> Seen {
        // Events without an exposure are of no rate.
        if (EXPOSURE_MIN..=EXPOSURE_MAX).contains(&self.exposure) {
            Seen { events: self.count as f64, size: self.exposure }
        } else {
            Seen { events: 0.0, size: 0.0 }
        }
    }
}

/// Exposures outside of these are taken for none: no unit of time or work makes one, and products of them would leave the numbers.
const EXPOSURE_MIN: f64 = 1e-9;
const EXPOSURE_MAX: f64 = 1e18;
/// More events per exposure than any count and exposure come to.
const EVENT_RATE_MAX: f64 = 1e30;

/// Counts as the tests take them; scaled ones stand for a future.
#[derive(Debug, Clone, Copy)]
struct Seen {
    events: f64,
    size: f64,
}

impl Seen {
    fn rate(&self) -> Option<f64> {
        (self.size > 0.0).then(|| self.events / self.size)
    }

    fn times(&self, times: f64) -> Self {
        Self { events: self.events * times, size: self.size * times }
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Comparison {
    law: Law,
    margin: Margin,
    worse: Mixture,
    fine: Mixture,
    single: Mixture,
}

/// Stakes on too few events, and how much is laid on each: most between a third and all, where the harm that is looked for lies; a little on
/// small ones, so that small harm is found in the long run.
const STAKES: [(f64, f64); 9] = [
    (0.03, 0.3),
    (0.08, 0.4),
    (0.17, 0.7),
    (0.3, 1.0),
    (0.43, 1.3),
    (0.57, 1.6),
    (0.7, 1.6),
    (0.82, 1.3),
    (0.92, 1.0),
];
/// The stakes on too few are these times what balances them against the stakes on too many: at exactly one, a canary that gets a
/// few requests more than planned would leave the evidence to the null with very high rates.
const SLACKS: [(f64, f64); 2] = [(1.06, 0.8), (1.5, 0.2)];
/// Stakes on many times more events than allowed, for a baseline with almost none.
const OUTBREAKS: [(f64, f64); 7] =
    [(1.5, 0.5), (2.5, 0.5), (4.0, 0.4), (8.0, 0.3), (20.0, 0.2), (80.0, 0.1), (400.0, 0.1)];

/// No plan gives the canary a smaller share than this; beyond, stakes are no longer numbers that matter.
const RATIO_MAX: f64 = 1e6;
/// Whatever is a billion times worse needs no bound.
const EFFECT_MAX: f64 = 1e9;

impl Comparison {
    fn new(law: Law, margin: Margin, ratio: f64) -> Self {
        let ratio = if ratio.is_finite() && ratio > 0.0 { ratio } else { 1.0 };
        let tilted = (margin.line().1 * ratio).clamp(1.0 / RATIO_MAX, RATIO_MAX);
        // The group that should have less gets `less_share` requests for each of the other's, as the null's line weighs them.
        let rows = |less_share: f64| {
            let balanced = STAKES.iter().flat_map(move |&(cut, weight)| {
                SLACKS.map(move |(slack, share)| (weight * share, cut, cut / (slack * less_share)))
            });
            balanced.chain(OUTBREAKS.map(|(lift, weight)| (weight, 0.85, lift / less_share)))
        };
        Self {
            law,
            margin,
            worse: Mixture::new(rows(tilted)),
            fine: Mixture::new(rows(1.0 / tilted)),
            single: Mixture::new(rows(1.0)),
        }
    }

    fn ln_e(&self, claim: Claim, margin: Margin, baseline: &Seen, canary: &Seen) -> f64 {
        let (mixture, more, less, range) = self.hypothesis(claim, margin, baseline, canary);
        mixture.ln_e(self.law, &more, &less, range)
    }

    /// Whether the evidence for `claim` is enough.
    fn reaches(&self, claim: Claim, margin: Margin, (baseline, canary): (&Seen, &Seen), risk: Risk) -> bool {
        let (mixture, more, less, range) = self.hypothesis(claim, margin, baseline, canary);
        mixture.reaches(self.law, &more, &less, range, risk.ln_needed(claim))
    }

    /// Returns who should have more and who less where `claim` is wrong, at the edge of that, and the baseline's rates for which there is one.
    fn hypothesis(
        &self,
        claim: Claim,
        margin: Margin,
        baseline: &Seen,
        canary: &Seen,
    ) -> (&Mixture, Group, Group, (f64, f64)) {
        let (offset, slope) = margin.line();
        let at_baseline = Group { events: baseline.events, size: baseline.size, at_zero: 0.0, slope: 1.0 };
        let at_canary = Group { events: canary.events, size: canary.size, at_zero: offset, slope };
        let from = (-offset).max(0.0);
        let to = match (self.law, claim) {
            (Law::Counts, _) => EVENT_RATE_MAX,
            (Law::Trials, Claim::Worse) => 1.0,
            // A canary can't fail more often than always.
            (Law::Trials, Claim::Fine) => ((1.0 - offset) / slope).min(1.0),
        };
        match claim {
            Claim::Worse => (&self.worse, at_baseline, at_canary, (from, to)),
            Claim::Fine => (&self.fine, at_canary, at_baseline, (from, to)),
        }
    }

    fn verdict(&self, baseline: &Seen, canary: &Seen, risk: Risk) -> Verdict {
        risk.verdict_by(|claim| self.reaches(claim, self.margin, (baseline, canary), risk))
    }

    fn evidence(&self, baseline: &Seen, canary: &Seen, risk: Risk) -> Evidence {
        let ln_e = |claim| self.ln_e(claim, self.margin, baseline, canary);
        let (ln_worse, ln_fine) = (ln_e(Claim::Worse), ln_e(Claim::Fine));
        Evidence {
            verdict: risk.verdict(ln_worse, ln_fine),
            baseline_size: baseline.size,
            canary_size: canary.size,
            baseline: self.rate(baseline, risk),
            canary: self.rate(canary, risk),
            effect: self.effect(baseline, canary, risk),
            margin: self.margin.value(),
            ln_worse,
            ln_worse_needed: risk.ln_needed(Claim::Worse),
            ln_fine,
            ln_fine_needed: risk.ln_needed(Claim::Fine),
            times_needed: self.outlook(baseline, canary, risk).map(|outlook| outlook.times),
        }
    }

    fn outlook(&self, baseline: &Seen, canary: &Seen, risk: Risk) -> Option<Outlook> {
        if baseline.size == 0.0 || canary.size == 0.0 {
            return None;
        }
        solve::outlook(|times| self.verdict(&baseline.times(times), &canary.times(times), risk))
    }

    /// Bounds one group's rate, at both ends together with the chance of a false fail.
    fn rate(&self, seen: &Seen, risk: Risk) -> Estimate {
        let Some(rate) = seen.rate() else { return Estimate::default() };
        let needed = risk.ln_needed(Claim::Worse) + 2f64.ln();
        let none = Group::at(0.0, 0.0, 0.0);
        let too_many = |at: f64| {
            self.single.ln_e(self.law, &none, &Group::at(seen.events, seen.size, at), (0.0, 0.0)) >= needed
        };
        let too_few = |at: f64| {
            self.single.ln_e(self.law, &Group::at(seen.events, seen.size, at), &none, (0.0, 0.0)) >= needed
        };
        let limits = (0.0, if self.law == Law::Trials { 1.0 } else { EVENT_RATE_MAX });
        let step = 1.0 / seen.size;
        Estimate {
            value: Some(rate),
            low: solve::bound(rate, -step, limits, too_many).or(Some(0.0)),
            high: solve::bound(rate, step, limits, too_few).or((self.law == Law::Trials).then_some(1.0)),
        }
    }

    /// Solves both tests for the margin.
    fn effect(&self, baseline: &Seen, canary: &Seen, risk: Risk) -> Estimate {
        let (Some(baseline_rate), Some(canary_rate)) = (baseline.rate(), canary.rate()) else {
            return Estimate::default();
        };
        let refutes = |claim: Claim, margin: f64| {
            self.reaches(claim, self.margin.with(margin), (baseline, canary), risk)
        };
        let value = self.margin.effect(baseline_rate, canary_rate);
        let start = value.unwrap_or(self.margin.value());
        let request = 1.0 / baseline.size.min(canary.size);
        let (limits, step) = match (self.margin, self.law) {
            (Margin::Relative(_), _) => ((-1.0, EFFECT_MAX), 0.1),
            (Margin::Absolute(_), Law::Trials) => ((-1.0, 1.0), request),
            (Margin::Absolute(_), Law::Counts) => ((-EFFECT_MAX, EFFECT_MAX), request),
        };
        Estimate {
            value,
            low: solve::bound(start, -step, limits, |margin| refutes(Claim::Worse, margin)),
            high: solve::bound(start, step, limits, |margin| refutes(Claim::Fine, margin)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    fn requests(total: u64, failed: u64) -> Requests {
        Requests { total, failed }
    }

    fn margins() -> [Margin; 4] {
        [Margin::Absolute(0.0), Margin::Absolute(0.05), Margin::Relative(0.0), Margin::Relative(0.2)]
    }

    /// The exact chance that evidence for `claim` ever reaches 1 / `risk` within `pairs` pairs of requests, by summing over all histories.
    fn ever_reached(test: &ErrorRate, claim: Claim, rates: (f64, f64), pairs: u64, risk: f64) -> f64 {
        let needed = -risk.ln();
        let mut going = vec![vec![0.0; pairs as usize + 1]; pairs as usize + 1];
        going[0][0] = 1.0;
        let mut reached = 0.0;
        for request in 0..2 * pairs {
            let to_canary = request % 2 == 1;
            let rate = if to_canary { rates.1 } else { rates.0 };
            let mut next = vec![vec![0.0; pairs as usize + 1]; pairs as usize + 1];
            for (b, row) in going.iter().enumerate() {
                for (c, chance) in row.iter().enumerate().filter(|(_, chance)| **chance > 0.0) {
                    let failed = if to_canary { (b, c + 1) } else { (b + 1, c) };
                    for ((b, c), chance) in [(failed, chance * rate), ((b, c), chance * (1.0 - rate))] {
                        if chance > 0.0 {
                            next[b][c] += chance;
                        }
                    }
                }
            }
            let (baseline, canary) = (request / 2 + 1, request.div_ceil(2));
            for (b, row) in next.iter_mut().enumerate() {
                for (c, chance) in row.iter_mut().enumerate().filter(|(_, chance)| **chance > 0.0) {
                    if test.ln_e(claim, requests(baseline, b as u64), requests(canary, c as u64)) >= needed {
                        reached += std::mem::take(chance);
                    }
                }
            }
            going = next;
        }
        reached
    }

    #[test]
    fn the_exact_chance_of_ever_being_wrong_stays_below_the_risk_at_every_look() {
        for (margin, rates) in [
            (Margin::Absolute(0.1), (0.1, 0.2)),
            (Margin::Absolute(0.1), (0.5, 0.6)),
            (Margin::Absolute(0.0), (0.02, 0.02)),
            (Margin::Relative(0.5), (0.2, 0.3)),
        ] {
            let test = ErrorRate::new(margin, 1.0);
            for claim in [Claim::Worse, Claim::Fine] {
                let reached = ever_reached(&test, claim, rates, 25, 0.2);
                assert!(reached <= 0.2, "{margin:?} {claim:?}: {reached}");
            }
        }
        // The sum can fail: beyond the margin the evidence is reached far more often.
        let harmed =
            ever_reached(&ErrorRate::new(Margin::Absolute(0.1), 1.0), Claim::Worse, (0.1, 0.7), 25, 0.2);
        assert!(harmed > 0.9, "{harmed}");
    }

    #[test]
    fn the_evidence_has_a_mean_of_at_most_one_wherever_it_should_be_none() {
        let choose =
            |n: u64, k: u64| (0..k).fold(1.0, |product, i| product * (n - i) as f64 / (i + 1) as f64);
        let chance =
            |n: u64, k: u64, p: f64| choose(n, k) * p.powi(k as i32) * (1.0 - p).powi((n - k) as i32);
        let (n0, n1) = (9, 14);
        for margin in margins() {
            let test = ErrorRate::new(margin, 1.0);
            let (offset, slope) = margin.line();
            for p0 in [0.0, 0.003, 0.1, 0.4, 0.7] {
                let edge = slope.mul_add(p0, offset);
                for (claim, p1) in [
                    (Claim::Worse, edge),
                    (Claim::Worse, edge / 2.0),
                    (Claim::Fine, edge),
                    (Claim::Fine, edge + 0.1),
                ] {
                    let outcomes = (0..=n0).flat_map(|b| (0..=n1).map(move |c| (b, c)));
                    let mean: f64 = outcomes
                        .map(|(b, c)| {
                            let e = test.ln_e(claim, requests(n0, b), requests(n1, c)).exp();
                            chance(n0, b, p0) * chance(n1, c, p1) * e
                        })
                        .sum();
                    assert!(mean <= 1.0 + 1e-9, "{margin:?} {claim:?} {p0} {p1}: {mean}");
                }
            }
        }
    }

    #[test]
    fn ten_times_the_errors_are_found_in_a_few_thousand_requests_and_equal_rates_pass() {
        let test = ErrorRate::new(Margin::Absolute(0.002), 1.0);
        let risk = Risk::default();
        assert_eq!(test.verdict(requests(1500, 1), requests(1500, 15), risk), Verdict::Fail);
        assert_eq!(test.verdict(requests(100, 0), requests(100, 1), risk), Verdict::Inconclusive);
        assert_eq!(test.verdict(requests(8000, 8), requests(8000, 8), risk), Verdict::Pass);
        assert_eq!(test.verdict(requests(0, 0), requests(0, 0), risk), Verdict::Inconclusive);
    }

    #[test]
    fn the_effects_bounds_say_the_same_as_the_verdict() {
        let risk = Risk::default();
        for margin in [Margin::Absolute(0.002), Margin::Relative(0.5)] {
            let test = ErrorRate::new(margin, 1.0);
            for (b, c) in [(1, 15), (8, 8), (20, 31), (0, 0), (15, 1), (0, 40)] {
                let evidence = test.evidence(requests(4000, b), requests(4000, c), risk);
                let fails = evidence.effect.low.is_some_and(|low| low >= margin.value());
                let passes = evidence.effect.high.is_some_and(|high| high <= margin.value());
                assert_eq!(fails, evidence.verdict == Verdict::Fail, "{evidence:?}");
                assert_eq!(passes, evidence.verdict == Verdict::Pass, "{evidence:?}");
                assert!(
                    evidence.baseline.low <= evidence.baseline.value
                        && evidence.canary.value <= evidence.canary.high
                );
            }
        }
    }

    #[test]
    fn a_forecast_is_about_where_the_verdict_falls() {
        let test = ErrorRate::new(Margin::Absolute(0.002), 1.0);
        let (baseline, canary) = (requests(400, 0), requests(400, 0));
        let times = test.evidence(baseline, canary, Risk::default()).times_needed.unwrap();
        assert!(times > 1.0);
        let at = |times: f64| requests((400.0 * times) as u64, 0);
        assert_eq!(test.verdict(at(times * 1.01), at(times * 1.01), Risk::default()), Verdict::Pass);
        assert_eq!(test.verdict(at(times * 0.95), at(times * 0.95), Risk::default()), Verdict::Inconclusive);
        // Exactly at the margin there is no end, and of nothing there is no forecast.
        let even = test.evidence(requests(10_000, 10), requests(10_000, 30), Risk::default());
        assert_eq!(even.times_needed, None);
        assert_eq!(test.evidence(requests(0, 0), requests(9, 0), Risk::default()).times_needed, None);
        let decided = test.evidence(requests(1500, 1), requests(1500, 15), Risk::default());
        assert_eq!(decided.times_needed, Some(1.0));
    }

    #[test]
    fn of_counts_only_whose_event_it_was_matters_not_how_long_it_took() {
        let test = EventRate::new(Margin::Relative(0.5), 1.0);
        let ln_e = |exposure: f64| {
            let events = |count| Events { count, exposure };
            test.ln_e(Claim::Worse, events(3), events(14))
        };
        assert!((ln_e(0.1) - ln_e(1e6)).abs() < 2e-3);
        let crash_loop = |count| Events { count, exposure: 0.2 };
        assert_eq!(test.verdict(crash_loop(0), crash_loop(12), Risk::default()), Verdict::Fail);
        assert_eq!(test.verdict(crash_loop(0), crash_loop(2), Risk::default()), Verdict::Inconclusive);
        let busy = |count| Events { count, exposure: 1.0 };
        assert_eq!(test.verdict(busy(900), busy(900), Risk::default()), Verdict::Pass);
    }

    #[test]
    fn equal_groups_are_rarely_told_apart_by_counts_though_they_are_looked_at_after_every_request() {
        let test = EventRate::new(Margin::Relative(0.0), 1.0);
        let risk = Risk { false_fail: 0.1, false_pass: 0.1 };
        // A generator of 64 bits (splitmix64): each request is drawn for a group, and one in twenty is an event.
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        };
        let mut stopped = 0;
        for _ in 0..400 {
            let mut groups = [Events::default(); 2];
            let failed = (0..2000).any(|_| {
                let (group, kind) = (&mut groups[(next() % 2) as usize], next() % 20);
                group.exposure += 1.0;
                group.count += u64::from(kind == 0);
                kind == 0 && test.verdict(groups[0], groups[1], risk) == Verdict::Fail
            });
            stopped += u32::from(failed);
        }
        // 40 are expected at the most; 60 are beyond three standard deviations of that.
        assert!(stopped < 60, "{stopped} of 400");
    }

    #[test]
    fn an_absolute_margin_of_counts_is_by_exposure() {
        let test = EventRate::new(Margin::Absolute(2.0), 1.0);
        let events = |count, exposure| Events { count, exposure };
        assert_eq!(test.verdict(events(1, 4.0), events(30, 4.0), Risk::default()), Verdict::Fail);
        assert_eq!(test.verdict(events(1, 40.0), events(30, 40.0), Risk::default()), Verdict::Pass);
        let evidence = test.evidence(events(1, 40.0), events(30, 40.0), Risk::default());
        assert!(evidence.effect.high.unwrap() <= 2.0 && evidence.canary.high.unwrap() < 1.6);
        assert_eq!(test.verdict(events(5, 0.0), events(5, f64::NAN), Risk::default()), Verdict::Inconclusive);
    }

    proptest! {
        // A fixed seed: a change is refused for what it did, not for what luck found.
        #![proptest_config(ProptestConfig { cases: 48, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn more_failures_of_the_canary_are_more_evidence_against_it_and_less_for_it(
            total in 1u64..100_000, b in 0u64..50, c in 0u64..50, which in 0usize..4,
        ) {
            let test = ErrorRate::new(margins()[which], 1.0);
            let ln_e = |claim, c| test.ln_e(claim, requests(total, b), requests(total, c));
            // As exact as a minimisation is.
            prop_assert!(ln_e(Claim::Worse, c) <= ln_e(Claim::Worse, c + 1) + 2e-3);
            prop_assert!(ln_e(Claim::Fine, c) >= ln_e(Claim::Fine, c + 1) - 2e-3);
        }

        #[test]
        fn a_wider_margin_is_harder_to_break_and_easier_to_keep(
            total in 1u64..100_000, b in 0u64..50, c in 0u64..50, margin in 0.0..0.5f64, more in 0.0..0.5f64,
        ) {
            for of in [Margin::Absolute, Margin::Relative] {
                // One mixture for both, as where the effect is solved for.
                let test = ErrorRate::new(of(margin), 1.0).0;
                let (baseline, canary) = (requests(total, b).seen(), requests(total, c).seen());
                let ln_e = |claim, margin| test.ln_e(claim, of(margin), &baseline, &canary);
                prop_assert!(ln_e(Claim::Worse, margin) >= ln_e(Claim::Worse, margin + more) - 2e-3);
                prop_assert!(ln_e(Claim::Fine, margin) <= ln_e(Claim::Fine, margin + more) + 2e-3);
            }
        }

        #[test]
        fn whatever_is_counted_comes_to_numbers(
            totals: (u64, u64), failed: (u64, u64), margin in 0.0..2.0f64, ratio: f64, exposure: (f64, f64),
        ) {
            for margin in [Margin::Absolute(margin), Margin::Relative(margin)] {
                let rates = ErrorRate::new(margin, ratio);
                let of_rates = rates.evidence(requests(totals.0, failed.0), requests(totals.1, failed.1), Risk::default());
                let events = EventRate::new(margin, ratio);
                let of_events = events.evidence(
                    Events { count: failed.0, exposure: exposure.0 },
                    Events { count: failed.1, exposure: exposure.1 },
                    Risk::default(),
                );
                for evidence in [of_rates, of_events] {
                    prop_assert!(evidence.ln_worse.is_finite() && evidence.ln_fine.is_finite(), "{evidence:?}");
                    for estimate in [evidence.baseline, evidence.canary, evidence.effect] {
                        for number in [estimate.value, estimate.low, estimate.high].into_iter().flatten() {
                            prop_assert!(!number.is_nan(), "{evidence:?}");
                        }
                    }
                }
            }
        }
    }
}
