//! What an environment asks for before it lets a release in, and whether it holds.
//!
//! The gates that are in force judge, and not those that the release brings along: a release that drops a gate has to pass
//! it first.

use std::sync::Arc;

use kiln_model::gates::{Freeze, GateKind, GateVerdict, Gates, Window};
use kiln_model::{Digest, EnvKey, EnvName, Millis, Timestamp};

use crate::input::Admission;
use crate::state::{Environment, State};

const MINUTE_MS: u64 = 60_000;
const DAY_MINUTES: u64 = 24 * 60;

/// Judges whether a release may come into an environment at a moment. One that the environment is at already needs no more than the time.
pub fn judge(
    state: &State,
    env: &EnvKey,
    release: Digest,
    admission: &Admission,
    now: Timestamp,
) -> Vec<GateVerdict> {
    let found = state.environment(env);
    // An environment that is new has nothing but what it is declared with.
    let gates: &Gates = found.map_or(&admission.gates, |found| &found.gates);
    let is_there = found.is_some_and(|found| is_at(found, release));
    let mut verdicts = Vec::new();
    if !is_there {
        verdicts.extend(gates.from.as_ref().map(|from| came_from(state, env, from, release)));
        let soak = gates.from.as_ref().filter(|_| gates.soak > Millis(0));
        verdicts.extend(soak.map(|from| soaked(state, &beside(env, from), release, gates.soak, now)));
        verdicts.extend(gates.approve.as_deref().map(|by| approved(state, env, release, by, now)));
    }
    if !gates.windows.is_empty() {
        verdicts.push(in_window(&gates.windows, now));
    }
    verdicts.extend(gates.freezes.iter().filter_map(|freeze| frozen(freeze, now)));
    verdicts
}

/// Whether an environment is at a release, or on its way there: then it was judged.
pub(crate) fn is_at(env: &Environment, release: Digest) -> bool {
    let revision = env.target().and_then(|number| env.revisions.get(&number));
    revision.is_some_and(|revision| revision.release == release && revision.composed.is_none())
}

fn beside(env: &EnvKey, other: &EnvName) -> EnvKey {
    EnvKey { stack: env.stack.clone(), env: other.clone() }
}

/// Whether an environment was moved to a release successfully. A revision that was composed runs something else than its release says.
pub(crate) fn has_reached(env: &Environment, release: Digest) -> bool {
    let mut reached = env.completed.iter().filter_map(|number| env.revisions.get(number));
    reached.any(|revision| revision.release == release && revision.composed.is_none())
}

fn came_from(state: &State, env: &EnvKey, from: &EnvName, release: Digest) -> GateVerdict {
    let is_open = state.environment(&beside(env, from)).is_some_and(|from| has_reached(from, release));
    let detail = match is_open {
        true => format!("{from} was moved to it"),
        false => format!("{from} must be moved to it first"),
    };
    GateVerdict { gate: GateKind::From, is_open, detail, until: None }
}

fn soaked(state: &State, from: &EnvKey, release: Digest, wanted: Millis, now: Timestamp) -> GateVerdict {
    let served = state.environment(from).and_then(|from| from.served.iter().find(|it| it.release == release));
    let stretch = served.map_or(Millis(0), |served| served.stretch_at(now));
    let is_open = stretch >= wanted;
    let serves = served.is_some_and(|served| served.since.is_some());
    let until = (serves && !is_open).then(|| now.plus(Millis(wanted.0 - stretch.0)));
    let detail = match (is_open, serves) {
        (true, _) => format!("it served in {} for {stretch} without a failure", from.env),
        (false, true) => format!("it has served in {} for {stretch} of {wanted} without a failure", from.env),
        (false, false) => format!("it does not serve in {}, where {wanted} are asked for", from.env),
    };
    GateVerdict { gate: GateKind::Soak, is_open, detail, until }
}

fn approved(state: &State, env: &EnvKey, release: Digest, by: &[String], now: Timestamp) -> GateVerdict {
    let found = state.approvals(env).find(|approval| {
        let may = by.is_empty() || by.contains(&approval.by.to_string());
        may && approval.release == release && approval.until > now
    });
    let detail = match found {
        Some(approval) => format!("{} approved it", approval.by),
        None => {
            let who = if by.is_empty() { "anybody".to_owned() } else { by.join(" or ") };
            format!("{who} must approve it: `kiln release approve {} --env {}`", release.short(), env.env)
        }
    };
    GateVerdict { gate: GateKind::Approval, is_open: found.is_some(), detail, until: None }
}

fn in_window(windows: &[Window], now: Timestamp) -> GateVerdict {
    let is_open = windows.iter().any(|window| is_within(window, now));
    let texts: Vec<String> = windows.iter().map(window_text).collect();
    let until = windows.iter().filter_map(|window| next_opening(window, now)).min().filter(|_| !is_open);
    let found = if is_open { "it is" } else { "it is not" };
    let detail = format!("{found} the time for it: {}", texts.join(", or "));
    GateVerdict { gate: GateKind::Window, is_open, detail, until }
}

/// None for a freeze that is over, or has not begun.
fn frozen(freeze: &Freeze, now: Timestamp) -> Option<GateVerdict> {
    let is_on = freeze.from <= now && now < freeze.to;
    let detail = format!("nothing new comes: {}", freeze.reason);
    is_on.then_some(GateVerdict { gate: GateKind::Freeze, is_open: false, detail, until: Some(freeze.to) })
}

/// The day of the week, Monday first. The epoch was a Thursday.
fn weekday(day: u64) -> usize {
    usize::try_from((day + 3) % 7).expect("less than seven")
}

fn is_within(window: &Window, at: Timestamp) -> bool {
    let minutes = at.0 / MINUTE_MS;
    let (day, minute) = (minutes / DAY_MINUTES, minutes % DAY_MINUTES);
    window.days[weekday(day)]
        && (u64::from(window.from_minute)..u64::from(window.to_minute)).contains(&minute)
}

/// The next moment at which a window opens.
fn next_opening(window: &Window, now: Timestamp) -> Option<Timestamp> {
    let today = now.0 / MINUTE_MS / DAY_MINUTES;
    // Today's may be over: then a week from now is the last that can be the next.
    let days = (today..=today + 7).filter(|day| window.days[weekday(*day)]);
    let openings = days.map(|day| (day * DAY_MINUTES + u64::from(window.from_minute)) * MINUTE_MS);
    openings.map(Timestamp).find(|opening| *opening > now)
}

fn window_text(window: &Window) -> String {
    const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let days: Vec<&str> =
        NAMES.into_iter().zip(window.days).filter_map(|(name, is_in)| is_in.then_some(name)).collect();
    let clock = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
    format!("{} {} to {} UTC", days.join(" "), clock(window.from_minute), clock(window.to_minute))
}

/// What an environment that declares nothing asks for: shared, since most do.
pub(crate) fn none() -> Arc<Gates> {
    Arc::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Wednesday: 2026-11-18, 00:00 UTC.
    const WEDNESDAY: u64 = 20_775 * DAY_MINUTES * MINUTE_MS;

    fn at(days: u64, hour: u64, minute: u64) -> Timestamp {
        Timestamp(WEDNESDAY + (days * DAY_MINUTES + hour * 60 + minute) * MINUTE_MS)
    }

    /// Monday, Wednesday and Thursday from 09:00 to 16:00.
    fn window() -> Window {
        let days = [true, false, true, true, false, false, false];
        Window { days, from_minute: 9 * 60, to_minute: 16 * 60 }
    }

    #[test]
    fn a_window_is_open_from_its_first_minute_until_before_its_last_on_its_days() {
        let open = |days, hour, minute| is_within(&window(), at(days, hour, minute));
        assert!(open(0, 9, 0) && open(0, 15, 59) && open(1, 12, 0) && open(5, 9, 0));
        assert!(!open(0, 8, 59) && !open(0, 16, 0), "other hours");
        assert!(!open(2, 12, 0) && !open(4, 12, 0) && !open(6, 12, 0), "Friday, Sunday, Tuesday");
    }

    #[test]
    fn the_next_opening_is_found_over_the_weekend_and_a_week_ahead() {
        let next = |days, hour| next_opening(&window(), at(days, hour, 0));
        assert_eq!(next(0, 8), Some(at(0, 9, 0)));
        assert_eq!(next(0, 16), Some(at(1, 9, 0)));
        assert_eq!(next(1, 16), Some(at(5, 9, 0)), "Monday follows Thursday");
        let only = Window { days: [false, false, true, false, false, false, false], ..window() };
        assert_eq!(next_opening(&only, at(0, 17, 0)), Some(at(7, 9, 0)));
    }

    #[test]
    fn a_freeze_says_when_it_ends_and_is_none_before_and_after() {
        let freeze = Freeze { from: at(0, 0, 0), to: at(2, 0, 0), reason: "end of the year".into() };
        let verdict = frozen(&freeze, at(1, 5, 0)).unwrap();
        assert_eq!((verdict.is_open, verdict.until), (false, Some(at(2, 0, 0))));
        assert!(verdict.detail.contains("end of the year"));
        assert_eq!(frozen(&freeze, at(2, 0, 0)), None);
        assert_eq!(frozen(&freeze, Timestamp(WEDNESDAY - 1)), None);
    }
}
