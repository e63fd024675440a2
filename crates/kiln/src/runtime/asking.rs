//! Asks what rollouts wait for over HTTP, when it is due. What is to be asked follows from the state: a controller that takes over
//! asks again what it finds no answer to.

mod answer;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kiln_core::{Observation, Question, State, question};
use kiln_model::EnvKey;

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

/// Whether an attempt was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Due(Instant),
    Asked,
}

/// Starts the thread; it ends with the process.
pub(super) fn start(handle: Handle) -> io::Result<()> {
    let asking = Asking { handle, turns: BTreeMap::new(), asked: Arc::new(AtomicUsize::new(0)) };
    thread::Builder::new().name("asking".into()).spawn(move || asking.run()).map(drop)
}

struct Asking {
    handle: Handle,
    turns: BTreeMap<Key, Turn>,
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
        self.turns.retain(|key, _| questions.iter().any(|(other, _)| other == key));
        let now = Instant::now();
        for (key, question) in questions {
            // The state's time is that of its last entry, which made the question due then or later.
            let wait = question.due.since(state.now()).as_duration();
            let turn = self.turns.entry(key).or_insert(Turn::Due(now + wait));
            let is_due = matches!(turn, Turn::Due(due) if *due <= now);
            if is_due && self.asked.load(Ordering::Acquire) < ASKED_MAX {
                *turn = Turn::Asked;
                ask(&self.handle, &self.asked, question);
            }
        }
    }
}

/// Asks on a thread of its own: one that hangs holds up no other.
fn ask(handle: &Handle, asked: &Arc<AtomicUsize>, question: Question) {
    asked.fetch_add(1, Ordering::AcqRel);
    let (handle, counted) = (handle.clone(), asked.clone());
    let thread = thread::Builder::new().name("ask".into()).spawn(move || {
        let answer = answer::to(&question.ask, &question.instances);
        counted.fetch_sub(1, Ordering::AcqRel);
        let Question { env, rollout, index, known, .. } = question;
        // A controller that has ended is followed by one that asks again.
        let _ = handle.observe(Observation::Asked { env, rollout, index, known, answer });
    });
    if thread.is_err() {
        asked.fetch_sub(1, Ordering::AcqRel);
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
