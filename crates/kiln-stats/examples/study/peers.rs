//! What others do instead: tests for one look, looked at every minute, and thresholds.

use kiln_model::latency::BUCKETS;
use kiln_stats::Requests;

/// Half the chance that a standard normal number is at least `z` away from zero, to seven digits: Abramowitz and Stegun 26.2.17.
pub fn upper_tail(z: f64) -> f64 {
    if z < 0.0 {
        return 1.0 - upper_tail(-z);
    }
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let series = [1.330_274_429, -1.821_255_978, 1.781_477_937, -0.356_563_782, 0.319_381_530];
    let sum = series.iter().fold(0.0, |sum, factor| (sum + factor) * t);
    sum * (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// One-sided p-value of Mann and Whitney's test (normal approximation, ties corrected) that the canary's latencies tend to be longer.
pub fn mann_whitney(baseline: &[u64; BUCKETS], canary: &[u64; BUCKETS]) -> f64 {
    let (mut u, mut below, mut ties) = (0.0, 0.0, 0.0);
    let (mut n, mut m) = (0.0, 0.0);
    for (&b, &c) in baseline.iter().zip(canary) {
        let (b, c) = (b as f64, c as f64);
        u += c * (below + b / 2.0);
        below += b;
        let tied = b + c;
        ties += tied * tied * tied - tied;
        n += b;
        m += c;
    }
    let all = n + m;
    let variance = n * m / 12.0 * (all + 1.0 - ties / (all * (all - 1.0)));
    if variance > 0.0 { upper_tail((u - n * m / 2.0) / variance.sqrt()) } else { 1.0 }
}

/// One-sided p-value of the two-proportion z test that the canary's rate is above the baseline's by more than `margin`.
pub fn two_proportions(baseline: Requests, canary: Requests, margin: f64) -> f64 {
    let (n, m) = (baseline.total as f64, canary.total as f64);
    let (p, q) = (baseline.failed as f64 / n, canary.failed as f64 / m);
    let variance = p * (1.0 - p) / n + q * (1.0 - q) / m;
    if variance > 0.0 { upper_tail((q - p - margin) / variance.sqrt()) } else { 1.0 }
}

/// The bounds of Clopper and Pearson (1934) for a share, at 95%.
pub fn clopper_pearson(hits: u64, of: u64) -> (f64, f64) {
    let solve = |at_most: bool| {
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..60 {
            let p = f64::midpoint(low, high);
            // The chance of at most `hits` falls in p; that of at least `hits` rises.
            let below =
                if at_most { binomial_up_to(hits, of, p) } else { 1.0 - binomial_up_to(hits - 1, of, p) };
            if (below > 0.025) == at_most { low = p } else { high = p }
        }
        low
    };
    (if hits == 0 { 0.0 } else { solve(false) }, if hits == of { 1.0 } else { solve(true) })
}

/// The chance of at most `hits` hits among `of`.
fn binomial_up_to(hits: u64, of: u64, p: f64) -> f64 {
    if p <= 0.0 {
        return 1.0;
    }
    let mut ln_term = of as f64 * (-p).ln_1p();
    let mut sum = ln_term.exp();
    for k in 0..hits {
        ln_term += ((of - k) as f64 / (k + 1) as f64).ln() + (p / (1.0 - p)).ln();
        sum += ln_term.exp();
    }
    sum.min(1.0)
}

/// The bucket of a quantile, as a rule with a threshold reads it.
pub fn quantile(counts: &[u64; BUCKETS], share: f64) -> usize {
    let total: u64 = counts.iter().sum();
    let mut left = (total as f64 * share).ceil().max(1.0) as u64;
    counts
        .iter()
        .position(|&count| {
            left = left.saturating_sub(count);
            left == 0
        })
        .unwrap_or(BUCKETS - 1)
}
