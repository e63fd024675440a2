//! What a row of answers means: a state machine without clock or I/O.

use std::time::{Duration, Instant};

use kiln_model::instance::HealthCheck;

/// The first probes come this often: a quick starter must not wait for a slow rhythm.
const STARTUP_DELAY_MIN: Duration = Duration::from_millis(20);
/// A slow starter is not asked more often than this.
const STARTUP_DELAY_MAX: Duration = Duration::from_millis(250);

/// Judges the answers of one instance.
#[derive(Debug)]
pub(crate) struct Judge {
    interval: Duration,
    healthy_after: u32,
    unhealthy_after: u32,
    startup_until: Instant,
    delay: Duration,
    successes: u32,
    failures: u32,
    healthy: Option<bool>,
}

impl Judge {
    /// Begins with an instance that was started at `started`.
    pub(crate) fn new(check: &HealthCheck, started: Instant) -> Self {
        Self {
            // Without a pause a probe would be a load test.
            interval: check.interval.as_duration().max(STARTUP_DELAY_MIN),
            healthy_after: check.healthy_after.max(1),
            unhealthy_after: check.unhealthy_after.max(1),
            startup_until: started + check.startup.as_duration(),
            delay: STARTUP_DELAY_MIN,
            successes: 0,
            failures: 0,
            healthy: None,
        }
    }

    /// Takes an answer. Returns a new verdict, if this changes it, and when to ask next.
    pub(crate) fn take(&mut self, success: bool, now: Instant) -> (Option<bool>, Duration) {
        let is_starting = self.healthy.is_none() && now < self.startup_until;
        if success {
            self.successes = self.successes.saturating_add(1);
            self.failures = 0;
        } else {
            self.successes = 0;
            // Until it has started up, that it does not answer means nothing.
            self.failures = if is_starting { 0 } else { self.failures.saturating_add(1) };
        }
        let verdict = if self.successes >= self.healthy_after {
            Some(true)
        } else if self.failures >= self.unhealthy_after {
            Some(false)
        } else {
            None
        };
        let turned = verdict.filter(|verdict| self.healthy != Some(*verdict));
        self.healthy = turned.or(self.healthy);
        if is_starting && self.healthy.is_none() {
            let delay = self.delay.min(self.interval);
            self.delay = (self.delay * 5 / 4).min(STARTUP_DELAY_MAX);
            return (turned, delay);
        }
        (turned, self.interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_model::Millis;
    use kiln_model::instance::Probe;

    fn judge(started: Instant) -> Judge {
        let check = HealthCheck {
            probe: Probe::Tcp { port: 1 },
            interval: Millis(1000),
            timeout: Millis(100),
            startup: Millis(5000),
            healthy_after: 2,
            unhealthy_after: 3,
            closed_ports: [].into(),
        };
        Judge::new(&check, started)
    }

    #[test]
    fn failures_do_not_count_until_the_startup_has_passed_and_probes_come_often() {
        let started = Instant::now();
        let mut judge = judge(started);
        let (_, first) = judge.take(false, started);
        assert_eq!(first, STARTUP_DELAY_MIN);
        for _ in 0..50 {
            assert_eq!(judge.take(false, started).0, None);
        }
        assert_eq!(judge.take(false, started).1, STARTUP_DELAY_MAX);
        let late = started + Duration::from_secs(6);
        assert_eq!(judge.take(false, late), (None, Duration::from_secs(1)));
        assert_eq!(judge.take(false, late).0, None);
        assert_eq!(judge.take(false, late).0, Some(false));
    }

    #[test]
    fn a_verdict_takes_a_row_and_is_told_once() {
        let now = Instant::now();
        let mut judge = judge(now);
        assert_eq!(judge.take(true, now).0, None);
        assert_eq!(judge.take(true, now), (Some(true), Duration::from_secs(1)));
        assert_eq!(judge.take(true, now).0, None);
        assert_eq!(judge.take(false, now).0, None);
        assert_eq!(judge.take(false, now).0, None);
        assert_eq!(judge.take(true, now).0, None);
        for expected in [None, None, Some(false), None] {
            assert_eq!(judge.take(false, now).0, expected);
        }
        assert_eq!(judge.take(true, now).0, None);
        assert_eq!(judge.take(true, now).0, Some(true));
    }
}
