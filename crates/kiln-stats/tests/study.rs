//! The study of `docs/statistics.md`, smaller: the same simulated canaries, by fixed seeds.
#![allow(missing_docs, unreachable_pub, dead_code)]

#[path = "../examples/study/canary.rs"]
mod canary;
#[path = "../examples/study/peers.rs"]
mod peers;
#[path = "../examples/study/world.rs"]
mod world;

use canary::{Outcome, World, simulate_many};
use world::Latency;

const CANARIES: u64 = 200;
const USUAL: Latency = Latency { median_us: 20_000.0, sigma: 0.5, slow: (0.0, 1.0) };
const SLOWER: Latency = Latency { median_us: 30_000.0, ..USUAL };

fn count(outcomes: &[Outcome], of: fn(&Outcome) -> bool) -> usize {
    outcomes.iter().filter(|outcome| of(outcome)).count()
}

#[test]
fn canaries_without_harm_are_hardly_ever_failed_though_looked_at_after_every_request() {
    for (world, requests) in [
        (World::Errors { baseline: 0.001, canary: 0.001 }, 6000),
        (World::Errors { baseline: 0.01, canary: 0.01 }, 6000),
        // The hardest case: exactly as bad as the margin allows.
        (World::Errors { baseline: 0.001, canary: 0.003 }, 6000),
        (World::Slow { baseline: USUAL, canary: USUAL }, 2000),
    ] {
        let outcomes = simulate_many(world, CANARIES, requests);
        let failed = count(&outcomes, |outcome| outcome.failed.is_some());
        // One in twenty is allowed.
        assert!(failed * 20 <= outcomes.len(), "{failed}");
    }
}

#[test]
fn canaries_that_harm_are_failed_and_none_is_passed_before() {
    for (world, requests) in [
        (World::Errors { baseline: 0.001, canary: 0.01 }, 20_000),
        (World::Slow { baseline: USUAL, canary: SLOWER }, 20_000),
    ] {
        let outcomes = simulate_many(world, CANARIES / 3, requests);
        assert_eq!(count(&outcomes, |outcome| outcome.failed.is_some()), outcomes.len());
        assert_eq!(count(&outcomes, |outcome| outcome.passed.is_some_and(|at| Some(at) < outcome.failed)), 0);
    }
}

#[test]
fn a_test_for_one_look_that_is_looked_at_every_minute_alarms_more_often_than_it_promises() {
    let outcomes = simulate_many(World::Errors { baseline: 0.01, canary: 0.01 }, CANARIES, 12_000);
    assert!(count(&outcomes, |outcome| outcome.peeked.is_some()) * 20 > 2 * outcomes.len());
}

#[test]
fn the_peers_p_values_and_intervals_are_those_of_the_books() {
    let near = |value: f64, known: f64| assert!((value - known).abs() < 1e-4, "{value}, {known}");
    near(peers::upper_tail(1.959_964), 0.025);
    near(peers::upper_tail(-1.0), 0.841_345);
    // 0 of 20 and 4 of 20.
    near(peers::clopper_pearson(0, 20).1, 0.168_433);
    near(peers::clopper_pearson(4, 20).0, 0.057_334);
    near(peers::clopper_pearson(4, 20).1, 0.436_614);
    // Two samples of four, wholly apart: U = 16, z = 8 / sqrt(12).
    let counts = |from: usize| {
        let mut counts = [0; kiln_model::latency::BUCKETS];
        counts[from..from + 4].fill(1);
        counts
    };
    near(peers::mann_whitney(&counts(0), &counts(10)), 0.010_461);
    let requests = |failed| kiln_stats::Requests { total: 1000, failed };
    near(peers::two_proportions(requests(10), requests(25), 0.0), 0.005_202);
}
