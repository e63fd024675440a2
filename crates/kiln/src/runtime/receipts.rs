//! Has the edge's counts written down when a rollout begins and when it ends: the difference is its receipt.
//!
//! Nothing is decided by them, so they are no action that the core asks for: what is missing follows from the state, as it
//! would for an action, and is looked for again by the next controller.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use kiln_core::{Observation, State};
use kiln_edge::ledger::{self, LedgerError, LedgerSnapshot};
use kiln_model::event::RolloutEvent;
use kiln_model::rollout::RequestCount;
use kiln_model::{EnvKey, Event, Position, RolloutId};
use kiln_store::EventLog;

use super::paths::StateDir;
use crate::controller::{Ended, Handle};

/// How long nothing may happen before the thread looks whether the controller is still there.
const BEAT: Duration = Duration::from_secs(1);
/// A pause after a look that found nothing new, so that a controller that has ended is not asked in a circle.
const REST: Duration = Duration::from_millis(50);

/// Starts the thread; it ends with the controller.
pub(super) fn start(handle: Handle, state: &StateDir) -> io::Result<()> {
    let keeper = Keeper {
        handle,
        ledger: state.path().join("edge/ledger"),
        state: state.clone(),
        seen: BTreeMap::new(),
    };
    thread::Builder::new().name("receipts".into()).spawn(move || keeper.run()).map(drop)
}

struct Keeper {
    handle: Handle,
    ledger: PathBuf,
    state: StateDir,
    seen: BTreeMap<EnvKey, Seen>,
}

/// The rollouts of an environment whose counts are written down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Seen {
    running: Option<RolloutId>,
    ended: Option<RolloutId>,
}

/// A count that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Due {
    env: EnvKey,
    rollout: RolloutId,
    is_end: bool,
}

impl Keeper {
    fn run(mut self) {
        let mut looked_at = Position(0);
        loop {
            let state = self.handle.wait_past(looked_at, BEAT);
            if state.position() == looked_at {
                thread::sleep(REST);
                continue;
            }
            if looked_at == Position(0) {
                self.seen = self.counted(&state);
            }
            looked_at = state.position();
            let due = due(&mut self.seen, &state);
            if !due.is_empty() && self.tell(due).is_err() {
                return;
            }
        }
    }

    /// All that is due at a moment is counted at once: the end of a rollout that was superseded is the start of the next.
    fn tell(&self, due: Vec<Due>) -> Result<(), Ended> {
        let ledger = match ledger::read(&self.ledger) {
            Ok(ledger) => Some(ledger),
            // No edge has run yet, so nothing was counted.
            Err(LedgerError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                Some(LedgerSnapshot::default())
            }
            Err(error) => {
                tracing::warn!(%error, "the edge's counts can't be read");
                None
            }
        };
        for Due { env, rollout, is_end } in due {
            let counts = ledger.as_ref().map(|ledger| counts(ledger, &env));
            self.handle.observe(Observation::RequestsCounted { env, rollout, is_end, counts })?;
        }
        Ok(())
    }

    /// What the controllers before this one have written down.
    fn counted(&self, state: &State) -> BTreeMap<EnvKey, Seen> {
        let Ok(log) = EventLog::open_read_only(self.state.path()) else { return BTreeMap::new() };
        let is_counted = |env: &EnvKey, rollout: RolloutId, end: bool| {
            let entries = log.read_rollouts(env, Position(rollout.0)).map_while(Result::ok);
            entries.into_iter().any(|entry| {
                matches!(entry.event, Event::Rollout(RolloutEvent::Counted { rollout: of, is_end, .. })
                    if of == rollout && is_end == end)
            })
        };
        let seen = |env: &kiln_core::state::Environment| {
            let running = env.rollout.as_ref().map(|rollout| rollout.id);
            let ended = env.last_rollout.as_ref().map(|rollout| rollout.id);
            let seen = Seen {
                running: running.filter(|id| is_counted(&env.key, *id, false)),
                ended: ended.filter(|id| is_counted(&env.key, *id, true)),
            };
            (env.key.clone(), seen)
        };
        state.environments().map(seen).collect()
    }
}

/// What is to be counted now, given what was counted before; taken as counted.
fn due(seen: &mut BTreeMap<EnvKey, Seen>, state: &State) -> Vec<Due> {
    let mut due = Vec::new();
    // An environment that was taken down is forgotten together with its last rollout.
    seen.retain(|env, seen| {
        let is_there = state.environment(env).is_some();
        if let (false, Some(rollout)) = (is_there, seen.running) {
            due.push(Due { env: env.clone(), rollout, is_end: true });
        }
        is_there
    });
    for env in state.environments() {
        let known = seen.entry(env.key.clone()).or_default();
        let now = Seen {
            running: env.rollout.as_ref().map(|rollout| rollout.id),
            ended: env.last_rollout.as_ref().map(|rollout| rollout.id),
        };
        let mut add = |rollout, is_end| due.push(Due { env: env.key.clone(), rollout, is_end });
        if let Some(ended) = now.ended.filter(|_| now.ended != known.ended) {
            add(ended, true);
        }
        if let Some(running) = now.running.filter(|_| now.running != known.running) {
            add(running, false);
        }
        *known = now;
    }
    due
}

fn counts(ledger: &LedgerSnapshot, env: &EnvKey) -> Vec<RequestCount> {
    let own = ledger.rows.iter().filter(|row| row.env == *env);
    let count = |row: &ledger::LedgerRow| RequestCount {
        service: row.service.clone(),
        revision: row.revision,
        answered: row.counts.answered,
        lost: row.counts.lost(),
        retried: row.counts.retried,
    };
    own.map(count).collect()
}

#[cfg(test)]
mod tests {
    use kiln_model::event::{ControlEvent, EnvironmentEvent};
    use kiln_model::rollout::{Cause, Outcome};
    use kiln_model::{Actor, Entry, EnvName, StackName, Term, Timestamp};

    use super::*;

    fn env() -> EnvKey {
        EnvKey { stack: StackName::new("shop").unwrap(), env: EnvName::new("dev").unwrap() }
    }

    /// Goes on with a log.
    fn then(state: &mut State, events: Vec<Event>) {
        for event in events {
            let entry = Entry {
                position: Position(state.position().0 + 1),
                at: Timestamp(1),
                term: Term(1),
                actor: Actor::Controller,
                env: Some(env()),
                event,
            };
            kiln_core::apply(state, &entry).unwrap();
        }
    }

    fn started() -> Event {
        let (from, to, cause) = (None, None, Cause::Down);
        Event::Rollout(RolloutEvent::Started { from, to, cause, steps: Vec::new() })
    }

    fn finished(outcome: Outcome) -> Event {
        Event::Rollout(RolloutEvent::Finished { outcome, reason: String::new() })
    }

    #[test]
    fn each_start_and_each_end_is_counted_once_also_where_the_environment_is_gone() {
        let (mut state, mut seen) = (State::new(), BTreeMap::new());
        let of = |rollout, is_end| Due { env: env(), rollout: RolloutId(rollout), is_end };
        let begin = Event::Control(ControlEvent::ControllerStarted { term: Term(1) });
        then(&mut state, vec![begin, Event::Environment(EnvironmentEvent::Created { index: 0 })]);
        assert_eq!(due(&mut seen, &state), []);
        then(&mut state, vec![started()]);
        assert_eq!(due(&mut seen, &state), [of(3, false)]);
        assert_eq!(due(&mut seen, &state), []);
        then(&mut state, vec![finished(Outcome::Superseded), started()]);
        assert_eq!(due(&mut seen, &state), [of(3, true), of(5, false)]);
        then(&mut state, vec![finished(Outcome::Completed), Event::Environment(EnvironmentEvent::Removed)]);
        assert_eq!(due(&mut seen, &state), [of(5, true)]);
        assert_eq!(due(&mut seen, &state), []);
    }
}
