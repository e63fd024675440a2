//! Asks what rollouts wait for over HTTP, when it is due. What is to be asked follows from the state: a controller that takes over
//! asks again what it finds no answer to.

mod answer;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kiln_core::{Observation, Question, State, question};
use kiln_model::EnvKey;

use super::outward::{authorization, version_of};
use crate::controller::Handle;

/// How often it is looked whether something is due: an attempt may begin this much late, where intervals are of seconds.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Questions under way at once, one for each rollout that asks. One that hangs holds a thread until its timeout.
const ASKED_MAX: usize = 32;

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    env: EnvKey,
    rollout: u64,
    index: u32,
    known: u32,
}

/// How long after the timeout of an attempt it is begun anew where it is still the one that is waited for: its answer could not be
/// recorded, as on a full disk, or it could not begin.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// When each attempt begins, and begins anew.
#[derive(Debug, Default)]
struct Turns(BTreeMap<Key, Instant>);

impl Turns {
    /// Forgets all but these.
    fn retain(&mut self, questions: &[(Key, Question)]) {
        self.0.retain(|key, _| questions.iter().any(|(other, _)| other == key));
    }

    /// Whether an attempt is to begin that is due after `wait`, and then takes `timeout` at the most.
    fn take(&mut self, key: Key, wait: Duration, timeout: Duration, now: Instant) -> bool {
        let due = self.0.entry(key).or_insert(now + wait);
        let is_due = *due <= now;
        if is_due {
            *due = now + timeout + AGAIN_AFTER;
        }
        is_due
    }
}

/// Starts the thread; it ends with the process.
pub(super) fn start(handle: Handle, folder: PathBuf) -> io::Result<()> {
    let asking = Asking { handle, folder, turns: Turns::default(), asked: Arc::new(AtomicUsize::new(0)) };
    thread::Builder::new().name("asking".into()).spawn(move || asking.run()).map(drop)
}

struct Asking {
    handle: Handle,
    /// The state folder, where the secrets are.
    folder: PathBuf,
    turns: Turns,
    asked: Arc<AtomicUsize>,
}

impl Asking {
    fn run(mut self) {
        loop {
            self.look();
            thread::sleep(LOOK_EVERY);
        }
    }

    fn look(&mut self) {
        let state = self.handle.state();
        let questions = questions(&state);
        self.turns.retain(&questions);
        let now = Instant::now();
        for (key, question) in questions {
            // The state's time is that of its last entry, which made the question due then or later.
            let wait = question.due.since(state.now()).as_duration();
            let timeout = question.ask.timeout.as_duration();
            let has_room = self.asked.load(Ordering::Acquire) < ASKED_MAX;
            if has_room && self.turns.take(key, wait, timeout, now) {
                let target = state.environment(&question.env).and_then(|env| env.rollout.as_ref()?.target());
                let version = version_of(&state, &question.env, target, &question.ask.access);
                self.ask(question, version);
            }
        }
    }

    /// Asks on a thread of its own: one that hangs holds up no other. `version` is that of the secret that the question goes with.
    fn ask(&self, question: Question, version: Option<String>) {
        let Self { handle, folder, asked, .. } = self;
        asked.fetch_add(1, Ordering::AcqRel);
        let (handle, folder, counted) = (handle.clone(), folder.clone(), asked.clone());
        let thread = thread::Builder::new().name("ask".into()).spawn(move || {
            let (ask, stack) = (&question.ask, &question.env.stack);
            let authorization = authorization(&folder, stack, &ask.access, version.as_deref());
            let answer = authorization.and_then(|it| answer::to(ask, &question.instances, it.as_deref()));
            counted.fetch_sub(1, Ordering::AcqRel);
            let Question { env, rollout, index, known, .. } = question;
            // A controller that has ended is followed by one that asks again.
            let _ = handle.observe(Observation::Asked { env, rollout, index, known, answer });
        });
        if thread.is_err() {
            asked.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// All that is asked now.
fn questions(state: &State) -> Vec<(Key, Question)> {
    let found = state.environments().filter_map(|env| question(state, env));
    let keyed = found.map(|question| {
        let Question { env, rollout, index, known, .. } = &question;
        (Key { env: env.clone(), rollout: rollout.0, index: *index, known: *known }, question)
    });
    keyed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_begins_once_it_is_due_and_anew_where_its_answer_is_not_recorded() {
        let (mut turns, begin) = (Turns::default(), Instant::now());
        let env = EnvKey { stack: "shop".parse().unwrap(), env: "prod".parse().unwrap() };
        let key = |known| Key { env: env.clone(), rollout: 7, index: 3, known };
        let (wait, timeout) = (Duration::from_secs(2), Duration::from_secs(10));
        let mut begins =
            |known, after| turns.take(key(known), wait, timeout, begin + Duration::from_secs(after));
        assert_eq!([0, 1, 2, 3, 16].map(|after| begins(0, after)), [false, false, true, false, false]);
        assert!(begins(0, 17), "it is still the one that is waited for");
        assert_eq!([20, 21, 22].map(|after| begins(1, after)), [false, false, true], "the next one");
        turns.retain(&[]);
        assert!(turns.0.is_empty());
    }
}
