//! How fast canaries are judged, on one thread: what `cargo xtask bench analysis` prints. Lines of a name and a number.
#![allow(missing_docs, unreachable_pub, dead_code, clippy::print_stdout)]
// The library is a function; this is a program around it.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "study/world.rs"]
mod world;

use std::hint::black_box;
use std::time::Instant;

use kiln_model::latency::BUCKETS;
use kiln_stats::{ErrorRate, Latencies, Margin, Quantile, Requests, Risk, Verdict};
use world::{Latency, Random};

/// Samples drawn beforehand, so that only the judging is timed.
const SAMPLES: usize = 1_000_000;
/// A controller looks this often at most, in requests, where there are many.
const BETWEEN_LOOKS: usize = 100;
const LOOKS: u32 = 500;

struct Analysis {
    errors: ErrorRate,
    p99: Quantile,
    risks: Vec<Risk>,
    requests: [Requests; 2],
    latencies: [Latencies; 2],
}

impl Analysis {
    fn new() -> Self {
        let none = Latencies::new(&[0; BUCKETS]);
        Self {
            errors: ErrorRate::new(Margin::Absolute(0.002), 1.0),
            p99: Quantile::new(0.99, Margin::Relative(0.2)),
            risks: Risk::default().shared(&[1.0, 1.0]),
            requests: [Requests::default(); 2],
            latencies: [none.clone(), none],
        }
    }

    fn count(&mut self, (group, failed, us): (usize, bool, u64)) {
        self.requests[group].total += 1;
        self.requests[group].failed += u64::from(failed);
        self.latencies[group].add(us);
    }

    fn look_at_errors(&self) -> Verdict {
        self.errors.verdict(self.requests[0], self.requests[1], self.risks[0])
    }

    fn look_at_p99(&self) -> Verdict {
        self.p99.verdict(&self.latencies[0], &self.latencies[1], self.risks[1])
    }
}

fn main() {
    let mut random = Random::new(1);
    let latency = Latency { median_us: 20_000.0, sigma: 0.5, slow: (0.0, 1.0) };
    let samples: Vec<_> = (0..SAMPLES)
        .map(|_| (usize::from(random.chance(0.5)), random.chance(0.001), latency.draw(&mut random)))
        .collect();
    for (name, between) in [("samples_a_second_looked_at_each", 1), ("samples_a_second", BETWEEN_LOOKS)] {
        let mut analysis = Analysis::new();
        let begin = Instant::now();
        for (index, &sample) in samples.iter().enumerate() {
            analysis.count(sample);
            if index % between == 0 {
                // Where it is over, the next one begins.
                if Verdict::of_all([analysis.look_at_errors(), analysis.look_at_p99()])
                    != Verdict::Inconclusive
                {
                    analysis = Analysis::new();
                }
            }
        }
        println!("{name} {:.0}", SAMPLES as f64 / begin.elapsed().as_secs_f64());
    }
    // In the middle of an analysis, where looks are dearest: nothing is decided.
    let mut analysis = Analysis::new();
    samples[..4000].iter().for_each(|&sample| analysis.count(sample));
    let each = |name: &str, look: &dyn Fn()| {
        let begin = Instant::now();
        (0..LOOKS).for_each(|_| look());
        println!("{name} {:.3}", begin.elapsed().as_secs_f64() * 1e6 / f64::from(LOOKS));
    };
    each("look_at_errors_us", &|| {
        black_box(analysis.look_at_errors());
    });
    each("look_at_p99_us", &|| {
        black_box(analysis.look_at_p99());
    });
    let [of_errors, of_p99] = [analysis.risks[0], analysis.risks[1]];
    each("evidence_of_errors_us", &|| {
        black_box(analysis.errors.evidence(analysis.requests[0], analysis.requests[1], of_errors));
    });
    each("evidence_of_p99_us", &|| {
        black_box(analysis.p99.evidence(&analysis.latencies[0], &analysis.latencies[1], of_p99));
    });
    println!("bytes_of_two_groups {}", 2 * size_of::<[f64; BUCKETS + 1]>() + 2 * size_of::<Requests>());
}
