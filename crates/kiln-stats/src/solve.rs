//! Bounds and forecasts: where a test that moves one way changes its mind.

use crate::evidence::{Outlook, Verdict};

/// A bound to a millionth of the last step is more exact than anyone reads it.
const HALVINGS: usize = 20;
/// Beyond this many times what was seen, "about how much more" is a guess about another day's traffic.
const TIMES_MAX: f64 = 4096.0;

/// Returns the last `x` between `inside`, where `holds` is taken for true, and `outside` at which it holds.
pub(crate) fn last(inside: f64, outside: f64, holds: impl Fn(f64) -> bool) -> f64 {
    let (mut inside, mut outside) = (inside, outside);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(inside, outside);
        if holds(middle) {
            inside = middle;
        } else {
            outside = middle;
        }
    }
    // The end that is still allowed would claim more than was shown.
    outside
}

/// Returns where `refuted` begins to hold, looked for from `start` in steps that double and then between two of them; none if it holds
/// nowhere within `limits`.
///
/// `refuted` holds from some `x` on in the direction of `step`, or everywhere.
pub(crate) fn bound(start: f64, step: f64, limits: (f64, f64), refuted: impl Fn(f64) -> bool) -> Option<f64> {
    let beyond = refuted(start);
    // From what is refuted back, from what is not on.
    let (mut here, mut step) = (start, if beyond { -step } else { step });
    loop {
        let next = (here + step).clamp(limits.0, limits.1);
        if refuted(next) != beyond {
            let (allowed, refused) = if beyond { (next, here) } else { (here, next) };
            return Some(last(allowed, refused, |x| !refuted(x)));
        }
        if next == here {
            return beyond.then_some(here);
        }
        (here, step) = (next, step * 2.0);
    }
}

/// Returns where a verdict that follows from so many times the present counts is going; none where no end can be told.
pub(crate) fn outlook(verdict: impl Fn(f64) -> Verdict) -> Option<Outlook> {
    let times = times(|times| verdict(times) != Verdict::Inconclusive)?;
    Some(Outlook { times, verdict: verdict(times) })
}

/// Returns about how many times the present counts are needed until `decided`; one when it already is.
fn times(decided: impl Fn(f64) -> bool) -> Option<f64> {
    if decided(1.0) {
        return Some(1.0);
    }
    let mut times = 1.0;
    while times < TIMES_MAX {
        if decided(times * 2.0) {
            return Some(last(times, times * 2.0, |x| !decided(x)));
        }
        times *= 2.0;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_found_on_either_side_of_the_start() {
        for start in [-3.0, 0.0, 2.0, 4.9] {
            let high = bound(start, 0.01, (-10.0, 10.0), |x| x >= 2.5).unwrap();
            let low = bound(start, -0.01, (-10.0, 10.0), |x| x <= 1.5).unwrap();
            assert!((high - 2.5).abs() < 1e-5 && high >= 2.5, "{high}");
            assert!((low - 1.5).abs() < 1e-5 && low <= 1.5, "{low}");
        }
    }

    #[test]
    fn what_is_refuted_nowhere_has_no_bound_and_what_is_everywhere_ends_at_the_limit() {
        assert_eq!(bound(0.0, 0.1, (-1.0, 1.0), |_| false), None);
        assert_eq!(bound(0.0, 0.1, (-1.0, 1.0), |_| true), Some(-1.0));
    }

    #[test]
    fn a_forecast_ends_where_it_would_be_a_guess() {
        assert_eq!(times(|_| true), Some(1.0));
        assert_eq!(times(|_| false), None);
        assert!((times(|times| times >= 7.3).unwrap() - 7.3).abs() < 1e-5);
        assert_eq!(times(|times| times > TIMES_MAX), None);
    }
}
