//! Who is sent what, one letter after the other: a receiver that is away holds up nobody but itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_core::Observation;
use kiln_model::{EnvKey, Millis, Timestamp};

use super::letter::Letter;
use super::post::Post;
use super::send::{NotTaken, Sender};
use crate::controller::{Ended, Handle};
use crate::runtime::paths::StateDir;

/// The pause after the first attempt that failed: a receiver that is started again is back within seconds.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause: whoever repairs a receiver does not wait for long until it is told of what it missed.
const PAUSE_MAX: Duration = Duration::from_secs(10 * 60);
/// After this nobody acts on a notice any more.
const GIVEN_UP_AFTER: Millis = Millis::from_secs(24 * 3600);
/// So many letters wait for one receiver: some hundred rollouts. What is more is given up at once.
const WAITING_MAX: usize = 1_000;
/// A request with TLS, and nothing that recurs.
const STACK_BYTES: usize = 1 << 20;

/// One receiver of one environment.
type Lane = (EnvKey, String);

/// What waits, by receiver. A receiver that is there has a thread.
#[derive(Clone)]
pub(super) struct Lanes {
    waiting: Arc<Mutex<BTreeMap<Lane, VecDeque<Letter>>>>,
    handle: Handle,
    post: Post,
    sender: Sender,
}

impl Lanes {
    /// Nothing waits yet.
    pub(super) fn new(handle: Handle, post: Post, state: &StateDir) -> Self {
        let sender = Sender::new(state.path().to_owned());
        Self { waiting: Arc::default(), handle, post, sender }
    }

    /// Sends a letter after those that its receiver is still to be sent.
    pub(super) fn add(&mut self, letter: Letter) {
        let lane = (letter.env.clone(), letter.webhook.clone());
        let mut waiting = self.lock();
        if let Some(queue) = waiting.get_mut(&lane) {
            if queue.len() < WAITING_MAX {
                queue.push_back(letter);
                return;
            }
            drop(waiting);
            // A controller that has ended is followed by one that finds the letter.
            let _ = self.give_up(&letter, format!("{WAITING_MAX} others wait to be sent"));
            return;
        }
        waiting.insert(lane.clone(), [letter].into());
        drop(waiting);
        let (lanes, of) = (self.clone(), lane.clone());
        let thread = thread::Builder::new().name("webhook".into()).stack_size(STACK_BYTES);
        if let Err(error) = thread.spawn(move || lanes.work_off(&of)) {
            tracing::warn!(%error, "what is to be told waits for the next controller");
            self.lock().remove(&lane);
        }
    }

    /// Sends what waits for one receiver, until nothing does.
    fn work_off(&self, lane: &Lane) {
        while let Some(letter) = self.first(lane) {
            if self.deliver(&letter).is_err() {
                // The next controller finds it.
                return;
            }
            if let Some(queue) = self.lock().get_mut(lane) {
                queue.pop_front();
            }
        }
    }

    /// The next letter of a lane; with the last one it is gone.
    fn first(&self, lane: &Lane) -> Option<Letter> {
        let mut waiting = self.lock();
        let first = waiting.get(lane).and_then(|queue| queue.front().cloned());
        if first.is_none() {
            waiting.remove(lane);
        }
        first
    }

    fn deliver(&self, letter: &Letter) -> Result<(), Ended> {
        let mut pause = PAUSE_FIRST;
        loop {
            let now = now();
            match self.sender.send(letter, now) {
                Ok(()) => break,
                Err(NotTaken { reason, is_final }) if is_final || now.since(letter.at) >= GIVEN_UP_AFTER => {
                    return self.give_up(letter, reason);
                }
                Err(NotTaken { reason, .. }) => {
                    tracing::warn!(webhook = letter.webhook, env = %letter.env, reason, "a notice was not taken");
                }
            }
            thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
        self.post.forget(letter);
        Ok(())
    }

    fn give_up(&self, letter: &Letter, reason: String) -> Result<(), Ended> {
        let Letter { env, rollout, webhook, occasion, .. } = letter.clone();
        self.handle.observe(Observation::NoticeGivenUp { env, rollout, webhook, occasion, reason })?;
        // It is told in the log before it is forgotten here.
        self.handle.settled()?;
        self.post.forget(letter);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Lane, VecDeque<Letter>>> {
        // Each change is one call on a whole queue, so a thread that panicked left nothing half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
