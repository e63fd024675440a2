//! The study of `docs/statistics.md`: `cargo xtask study` runs it and writes its tables there.
//!
//! Simulated canaries with fixed seeds, each looked at after every request. `study CANARIES REQUESTS` makes it smaller.
#![allow(missing_docs, unreachable_pub, clippy::print_stdout)]
// The library is a function; this is a program around it.
#![allow(clippy::disallowed_methods)]

mod canary;
mod peers;
mod world;

use canary::{Outcome, World, simulate_many};
use world::Latency;

/// Of requests that take 20 ms in the middle and 64 ms at the p99.
const USUAL: Latency = Latency { median_us: 20_000.0, sigma: 0.5, slow: (0.0, 1.0) };

/// Name, world, whether it harms, and how many canaries for one of the whole study's ten thousand.
const WORLDS: [(&str, World, bool, u64); 9] = [
    ("0.1% errors, both", World::Errors { baseline: 0.001, canary: 0.001 }, false, 1),
    ("1% errors, both", World::Errors { baseline: 0.01, canary: 0.01 }, false, 1),
    (
        "0.1% and 0.3% errors: just within the margin",
        World::Errors { baseline: 0.001, canary: 0.003 },
        false,
        1,
    ),
    ("p99 equal", World::Slow { baseline: USUAL, canary: USUAL }, false, 1),
    ("p99 +20%: just within the margin", World::Slow { baseline: USUAL, canary: times(1.2) }, false, 5),
    ("0.1% to 1% errors", World::Errors { baseline: 0.001, canary: 0.01 }, true, 5),
    ("0.1% to 5% errors", World::Errors { baseline: 0.001, canary: 0.05 }, true, 5),
    ("p99 +50%, all requests slower", World::Slow { baseline: USUAL, canary: times(1.5) }, true, 5),
    (
        "p99 +50%, 3% of requests slower",
        World::Slow { baseline: USUAL, canary: Latency { slow: (0.03, 3.73), ..USUAL } },
        true,
        5,
    ),
];

const fn times(factor: f64) -> Latency {
    Latency { median_us: 20_000.0 * factor, ..USUAL }
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse::<u64>().expect("a number"));
    let canaries = arguments.next().unwrap_or(10_000);
    let requests = arguments.next().unwrap_or(20_000);
    let simulated: Vec<_> = WORLDS
        .iter()
        .map(|(name, world, harm, part)| (*name, *harm, simulate_many(*world, canaries / part, requests)))
        .collect();
    let head = "Kiln, after every request | one-look test, each minute | … with the margin | threshold, each minute |\n|---|--:|--:|--:|--:|";
    println!(
        "No harm: the share of canaries that were stopped, and its 95% interval (Clopper and Pearson).\n\n| | {head}"
    );
    for (name, _, outcomes) in simulated.iter().filter(|(_, harm, _)| !harm) {
        println!("| {name} | {} |", columns(outcomes).map(|times| alarms(&times)).join(" | "));
    }
    println!(
        "\nHarm: the share that was stopped; requests of both groups until then, median and p90.\n\n| | {head}"
    );
    for (name, _, outcomes) in simulated.iter().filter(|(_, harm, _)| *harm) {
        println!("| {name} | {} |", columns(outcomes).map(|times| caught(&times)).join(" | "));
    }
    println!(
        "\nPassed by Kiln: the share; requests of both groups until then, median and p90.\n\n| | canaries | passed |\n|---|--:|--:|"
    );
    for (name, _, outcomes) in &simulated {
        let passed: Vec<_> = outcomes.iter().map(|outcome| outcome.passed).collect();
        println!("| {name} | {} | {} |", outcomes.len(), caught(&passed));
    }
}

/// When each method stopped each canary.
fn columns(outcomes: &[Outcome]) -> [Vec<Option<u64>>; 4] {
    let column = |of: fn(&Outcome) -> Option<u64>| outcomes.iter().map(of).collect();
    [
        column(|outcome| outcome.failed),
        column(|outcome| outcome.peeked),
        // Mann and Whitney's test knows no margin of a quantile.
        if outcomes.iter().all(|outcome| outcome.has_margin_test) {
            column(|outcome| outcome.peeked_with_margin)
        } else {
            Vec::new()
        },
        column(|outcome| outcome.threshold),
    ]
}

fn alarms(times: &[Option<u64>]) -> String {
    if times.is_empty() {
        return "–".to_owned();
    }
    let hits = times.iter().flatten().count() as u64;
    let (low, high) = peers::clopper_pearson(hits, times.len() as u64);
    format!("{:.2}% ({:.2} to {:.2})", share(hits, times), low * 100.0, high * 100.0)
}

fn caught(times: &[Option<u64>]) -> String {
    if times.is_empty() {
        return "–".to_owned();
    }
    let mut hits: Vec<u64> = times.iter().copied().flatten().collect();
    hits.sort_unstable();
    // Of all canaries, not of those that were stopped.
    let after =
        |part: f64| hits.get((times.len() as f64 * part) as usize).map_or("never".to_owned(), u64::to_string);
    format!("{:.1}%: {}, {}", share(hits.len() as u64, times), after(0.5), after(0.9))
}

fn share(hits: u64, times: &[Option<u64>]) -> f64 {
    hits as f64 / times.len() as f64 * 100.0
}
