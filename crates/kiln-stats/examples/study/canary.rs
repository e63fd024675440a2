//! One simulated canary at a time, looked at by every method on the same requests.

use kiln_model::latency::{BUCKETS, bucket};
use kiln_stats::{Claim, ErrorRate, Latencies, Margin, Quantile, Requests, Risk, Verdict};

use crate::peers;
use crate::world::{Latency, Random};

/// Others look once a minute, at ten requests a second to each group.
const REQUESTS_A_MINUTE: u64 = 1200;
/// How much worse the canary may be.
const MARGIN_OF_ERRORS: f64 = 0.002;
const MARGIN_OF_P99: f64 = 0.2;
/// Stretches without a failure are looked at together at the latest after as many requests.
const STRETCH_MAX: usize = 1000;

/// What differs between the groups, and what is asked.
#[derive(Clone, Copy)]
pub enum World {
    /// Error rates of baseline and canary; the margin is 0.2%.
    Errors { baseline: f64, canary: f64 },
    /// Latencies of baseline and canary; the margin of the p99 is 20%.
    Slow { baseline: Latency, canary: Latency },
}

/// When each method stopped the canary, in requests of both groups; none where it never did.
#[derive(Clone, Copy, Default)]
pub struct Outcome {
    /// Kiln's test, looked at after every request.
    pub failed: Option<u64>,
    pub passed: Option<u64>,
    /// A test for one look, each minute, for any difference at all.
    pub peeked: Option<u64>,
    /// The same, for a difference beyond the margin, where there is such a test.
    pub peeked_with_margin: Option<u64>,
    pub has_margin_test: bool,
    /// What was seen exceeds the margin, each minute.
    pub threshold: Option<u64>,
}

pub fn simulate(world: World, seed: u64, requests: u64) -> Outcome {
    let mut random = Random::new(seed);
    match world {
        World::Errors { baseline, canary } => errors(&mut random, (baseline, canary), requests),
        World::Slow { baseline, canary } => slow(&mut random, (baseline, canary), requests),
    }
}

fn first(at: &mut Option<u64>, happened: bool, now: u64) {
    if happened && at.is_none() {
        *at = Some(now);
    }
}

fn errors(random: &mut Random, (of_baseline, of_canary): (f64, f64), requests: u64) -> Outcome {
    let test = ErrorRate::new(Margin::Absolute(MARGIN_OF_ERRORS), 1.0);
    let mut outcome = Outcome { has_margin_test: true, ..Outcome::default() };
    let mut seen = [Requests::default(); 2];
    let mut stretch = Vec::with_capacity(STRETCH_MAX);
    let mut now = 0;
    while now < requests {
        // What follows without a failure, and then the request that ends it.
        stretch.clear();
        let mut failed = None;
        while failed.is_none() && stretch.len() < STRETCH_MAX && now + (stretch.len() as u64) < requests {
            let group = usize::from(random.chance(0.5));
            if random.chance([of_baseline, of_canary][group]) {
                failed = Some(group);
            } else {
                stretch.push(group);
            }
        }
        look_through(&test, &mut outcome, &mut seen, &stretch, now);
        now += stretch.len() as u64;
        if let Some(group) = failed {
            seen[group].total += 1;
            seen[group].failed += 1;
            now += 1;
            look(&test, &mut outcome, &seen, now);
        }
    }
    outcome
}

/// Looks after each request of a stretch without failures: at once where that tells the same.
///
/// A success of the canary never makes it look worse, and one of the baseline never better: so at no moment was the evidence greater than with all
/// of the one group's successes and none of the other's.
fn look_through(
    test: &ErrorRate,
    outcome: &mut Outcome,
    seen: &mut [Requests; 2],
    stretch: &[usize],
    now: u64,
) {
    let risk = Risk::default();
    let mut end = *seen;
    stretch.iter().for_each(|&group| end[group].total += 1);
    let worse = test.ln_e(Claim::Worse, end[0], seen[1]) >= -risk.false_fail.ln();
    let fine = test.ln_e(Claim::Fine, seen[0], end[1]) >= -risk.false_pass.ln();
    let minutes = now / REQUESTS_A_MINUTE != (now + stretch.len() as u64) / REQUESTS_A_MINUTE;
    let undecided = (worse && outcome.failed.is_none()) || (fine && outcome.passed.is_none());
    if undecided || minutes {
        for (index, &group) in stretch.iter().enumerate() {
            seen[group].total += 1;
            let now = now + index as u64 + 1;
            if undecided || now.is_multiple_of(REQUESTS_A_MINUTE) {
                look(test, outcome, seen, now);
            }
        }
    }
    *seen = end;
}

fn look(test: &ErrorRate, outcome: &mut Outcome, &[baseline, canary]: &[Requests; 2], now: u64) {
    let risk = Risk::default();
    // A pass would end the analysis; that it is gone on with can only add false fails.
    if outcome.failed.is_none() {
        first(&mut outcome.failed, test.ln_e(Claim::Worse, baseline, canary) >= -risk.false_fail.ln(), now);
    }
    if outcome.passed.is_none() {
        first(&mut outcome.passed, test.ln_e(Claim::Fine, baseline, canary) >= -risk.false_pass.ln(), now);
    }
    if now.is_multiple_of(REQUESTS_A_MINUTE) {
        let p = |margin| peers::two_proportions(baseline, canary, margin);
        first(&mut outcome.peeked, p(0.0) < risk.false_fail, now);
        first(&mut outcome.peeked_with_margin, p(MARGIN_OF_ERRORS) < risk.false_fail, now);
        let rate = |requests: Requests| requests.failed as f64 / requests.total as f64;
        first(&mut outcome.threshold, rate(canary) > rate(baseline) + MARGIN_OF_ERRORS, now);
    }
}

fn slow(random: &mut Random, (of_baseline, of_canary): (Latency, Latency), requests: u64) -> Outcome {
    let risk = Risk::default();
    let test = Quantile::new(0.99, Margin::Relative(MARGIN_OF_P99));
    let mut outcome = Outcome::default();
    let mut counts = [[0; BUCKETS]; 2];
    let mut seen = [Latencies::new(&counts[0]), Latencies::new(&counts[1])];
    for now in 1..=requests {
        let group = usize::from(random.chance(0.5));
        let us = [of_baseline, of_canary][group].draw(random);
        counts[group][bucket(us)] += 1;
        seen[group].add(us);
        if outcome.failed.is_none() {
            // What has passed is only looked at for a fail.
            let unheard_of = Risk { false_pass: 1e-300, ..risk };
            let risk = if outcome.passed.is_none() { risk } else { unheard_of };
            let verdict = test.verdict(&seen[0], &seen[1], risk);
            first(&mut outcome.failed, verdict == Verdict::Fail, now);
            first(&mut outcome.passed, verdict == Verdict::Pass, now);
        }
        if now.is_multiple_of(REQUESTS_A_MINUTE) {
            first(&mut outcome.peeked, peers::mann_whitney(&counts[0], &counts[1]) < risk.false_fail, now);
            let p99 = |counts| kiln_model::latency::lowest_us(peers::quantile(counts, 0.99)) as f64;
            first(&mut outcome.threshold, p99(&counts[1]) > p99(&counts[0]) * (1.0 + MARGIN_OF_P99), now);
        }
        if outcome.failed.is_some() && outcome.peeked.is_some() && outcome.threshold.is_some() {
            break;
        }
    }
    outcome
}

/// Simulates many canaries, on all processors.
pub fn simulate_many(world: World, canaries: u64, requests: u64) -> Vec<Outcome> {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|thread| {
                let mine = move |seed: &u64| seed % threads == thread;
                scope.spawn(move || {
                    (0..canaries).filter(mine).map(|seed| simulate(world, seed, requests)).collect::<Vec<_>>()
                })
            })
            .collect();
        parts.into_iter().flat_map(|part| part.join().expect("a simulation does not panic")).collect()
    })
}
