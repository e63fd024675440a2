//! The edge's counts of the canaries that run, for whoever looks: how much came, and how much comes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kiln_core::compared;
use kiln_model::route::Sampling;
use kiln_model::sample::WindowSamples;
use kiln_model::{EnvKey, ServiceName};

use crate::api::canaries::Traffic;

/// Over how long the rate of requests is told: long enough that it does not flicker, short enough that it is the present one.
const RATE_OVER: Duration = Duration::from_secs(10);

/// A rate over less is a guess.
const RATE_MIN: Duration = Duration::from_millis(900);

/// The last counts of each service whose requests are split. What is behind the lock is replaced as a whole.
#[derive(Debug, Default)]
pub(super) struct Counted(Mutex<BTreeMap<(EnvKey, ServiceName), Seen>>);

#[derive(Debug)]
struct Seen {
    sampling: Sampling,
    samples: Arc<WindowSamples>,
    /// How many requests had come when, the oldest first.
    marks: VecDeque<(Instant, u64)>,
}

impl Counted {
    /// Takes a new count.
    pub(super) fn note(
        &self,
        of: (EnvKey, ServiceName),
        sampling: Sampling,
        samples: &Arc<WindowSamples>,
        at: Instant,
    ) {
        let mut all = self.lock();
        let seen = all.entry(of).or_insert_with(|| Seen::new(sampling));
        if seen.sampling != sampling {
            *seen = Seen::new(sampling);
        }
        seen.samples = Arc::clone(samples);
        seen.marks.push_back((at, compared(samples)));
        // One that is older than asked for stays, so that the time between the ends is at least that.
        while seen.marks.get(1).is_some_and(|(then, _)| at.duration_since(*then) >= RATE_OVER) {
            seen.marks.pop_front();
        }
    }

    /// Forgets all but these.
    pub(super) fn keep(&self, wanted: impl Fn(&(EnvKey, ServiceName)) -> bool) {
        self.lock().retain(|of, _| wanted(of));
    }

    /// Returns the last count of a split.
    pub(super) fn of(&self, env: &EnvKey, service: &ServiceName, sampling: Sampling) -> Option<Traffic> {
        let all = self.lock();
        let seen = all.get(&(env.clone(), service.clone())).filter(|seen| seen.sampling == sampling)?;
        Some(Traffic { samples: Arc::clone(&seen.samples), per_minute: seen.per_minute() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(EnvKey, ServiceName), Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn new(sampling: Sampling) -> Self {
        Self { sampling, samples: Arc::default(), marks: VecDeque::new() }
    }

    fn per_minute(&self) -> Option<u64> {
        let ((begin, first), (end, last)) = (self.marks.front()?, self.marks.back()?);
        let span = end.duration_since(*begin);
        // Counts only grow.
        (span >= RATE_MIN).then(|| ((last - first) as f64 * 60.0 / span.as_secs_f64()).round() as u64)
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::route::Group;
    use kiln_model::sample::GroupSamples;
    use kiln_model::{EnvName, RolloutId, StackName};

    use super::*;

    fn of() -> (EnvKey, ServiceName) {
        let env = EnvKey { stack: StackName::new("shop").unwrap(), env: EnvName::new("prod").unwrap() };
        (env, ServiceName::new("web").unwrap())
    }

    fn samples(ok: u64) -> Arc<WindowSamples> {
        let group = GroupSamples { ok, ..GroupSamples::default() };
        Arc::new(
            [(Group::Canary, group.clone()), (Group::Baseline, group.clone()), (Group::Stable, group)].into(),
        )
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds_and_of_what_is_compared() {
        let (counted, begin) = (Counted::default(), Instant::now());
        let sampling = Sampling { rollout: RolloutId(5), window: 0 };
        let rate = |at: u64, ok: u64| {
            counted.note(of(), sampling, &samples(ok), begin + Duration::from_millis(at));
            counted.of(&of().0, &of().1, sampling).unwrap().per_minute
        };
        assert_eq!(rate(0, 0), None);
        assert_eq!(rate(500, 50), None, "half a second tells little");
        assert_eq!(rate(1000, 100), Some(12_000));
        for at in 2..=30 {
            rate(at * 1000, 100);
        }
        assert_eq!(rate(31_000, 100), Some(0), "what came before is over");
        assert_eq!(counted.lock().values().next().unwrap().marks.len(), 11, "no more is kept than is needed");
    }

    #[test]
    fn another_split_begins_anew_and_what_is_over_is_forgotten() {
        let (counted, now) = (Counted::default(), Instant::now());
        let window = |window| Sampling { rollout: RolloutId(5), window };
        counted.note(of(), window(0), &samples(9), now);
        counted.note(of(), window(1), &samples(1), now + Duration::from_secs(2));
        assert!(counted.of(&of().0, &of().1, window(0)).is_none());
        assert_eq!(counted.of(&of().0, &of().1, window(1)).unwrap().per_minute, None);
        counted.keep(|_| false);
        assert!(counted.of(&of().0, &of().1, window(1)).is_none());
    }
}
