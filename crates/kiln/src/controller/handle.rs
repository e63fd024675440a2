//! What the rest of the process holds of the controller.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kiln_core::{Command, Observation, Reply, State};
use kiln_model::{Actor, Position};

use super::ports::Peer;
use super::step::{Answer, CommandError};

/// Inputs that wait for the controller. Beyond it, whoever brings more waits: a link that stops reading is better than a
/// controller that grows without end.
pub const INBOX_MAX: usize = 1_024;

/// How long a command waits for its answer. Deciding takes microseconds and an append milliseconds; a disk that hangs for
/// longer than this is worth an error that says so.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// One thing for the controller.
#[derive(Debug)]
pub(super) enum Message {
    /// Somebody asks, and waits for the answer.
    Command {
        /// What. A rare message, and much larger than the others.
        command: Box<Command>,
        /// Who.
        actor: Actor,
        /// Where the answer goes.
        answer: SyncSender<Answer>,
    },
    /// Something was seen.
    Observation(Observation),
    /// The way to a peer is open again.
    Reconnected(Peer),
    /// Somebody waits until all that was done before is shown.
    Settle {
        /// Where it is told.
        answer: SyncSender<()>,
    },
    /// The controller is to end.
    Stop,
}

/// The receiving end, which [`run`](super::run::run) takes.
#[derive(Debug)]
pub struct Inbox {
    pub(super) messages: Receiver<Message>,
    pub(super) published: Arc<Published>,
}

/// A way to the controller. Cheap to clone; every method may be called from any thread and may block.
#[derive(Debug, Clone)]
pub struct Handle {
    inbox: SyncSender<Message>,
    published: Arc<Published>,
}

/// The controller has ended; a new one takes over from the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the controller has ended")]
pub struct Ended;

/// Makes a handle and the inbox that belongs to it, so that links can be made before the controller runs.
pub fn channel() -> (Handle, Inbox) {
    let (sender, messages) = sync_channel(INBOX_MAX);
    let published = Arc::new(Published::default());
    (Handle { inbox: sender, published: Arc::clone(&published) }, Inbox { messages, published })
}

impl Handle {
    /// Asks for something and waits until it is recorded or refused.
    ///
    /// # Errors
    /// See [`CommandError`]: what is not permanent is safe to repeat.
    pub fn command(&self, command: Command, actor: Actor) -> Result<Reply, CommandError> {
        let (answer, answered) = sync_channel(1);
        self.send(Message::Command { command: Box::new(command), actor, answer })
            .map_err(|Ended| CommandError::NoAnswer)?;
        answered.recv_timeout(ANSWER_WITHIN).unwrap_or(Err(CommandError::NoAnswer))
    }

    /// Tells the controller what was seen.
    ///
    /// # Errors
    /// It has ended; the next one will ask for a list.
    pub fn observe(&self, observation: Observation) -> Result<(), Ended> {
        self.send(Message::Observation(observation))
    }

    /// Tells the controller that the way to a peer is open, again or for the first time: what is outstanding there is issued
    /// again. A link calls it before it passes on the list that it asked for.
    ///
    /// # Errors
    /// It has ended.
    pub fn reconnected(&self, peer: Peer) -> Result<(), Ended> {
        self.send(Message::Reconnected(peer))
    }

    /// Asks the controller to end after what it was told before. Nothing that runs notices.
    ///
    /// # Errors
    /// It has ended already.
    pub fn stop(&self) -> Result<(), Ended> {
        self.send(Message::Stop)
    }

    /// Returns a committed state that holds whatever was acted on before this call. [`Handle::state`] may lag behind it by the
    /// end of one step.
    ///
    /// # Errors
    /// It has ended, or does not answer.
    pub fn settled(&self) -> Result<Arc<State>, Ended> {
        let (answer, answered) = sync_channel(1);
        self.send(Message::Settle { answer })?;
        answered.recv_timeout(ANSWER_WITHIN).map_err(|_| Ended)?;
        Ok(self.state())
    }

    /// Returns the last committed state; before the log is folded, an empty one.
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.published.lock().state)
    }

    /// Returns the position of the last committed entry.
    pub fn head(&self) -> Position {
        self.published.lock().state.position()
    }

    /// Returns why the last append failed, until one succeeds.
    pub fn trouble(&self) -> Option<String> {
        self.published.lock().trouble.clone()
    }

    /// Whether the log may hold more than the committed state says. A full disk alone leaves no doubt.
    pub fn is_in_doubt(&self) -> bool {
        self.published.lock().in_doubt
    }

    /// Waits until something after `position` is committed, at most for `timeout`, and returns the last committed state.
    ///
    /// Returns at once when the controller has ended.
    pub fn wait_past(&self, position: Position, timeout: Duration) -> Arc<State> {
        let until = Instant::now() + timeout;
        let mut now = self.published.lock();
        while now.state.position() <= position && !now.ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.published.changed.wait_timeout(now, left);
            now = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Arc::clone(&now.state)
    }

    fn send(&self, message: Message) -> Result<(), Ended> {
        self.inbox.send(message).map_err(|_| Ended)
    }
}

/// What the controller lets everybody see.
#[derive(Debug, Default)]
pub(super) struct Published {
    now: Mutex<Now>,
    changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct Now {
    state: Arc<State>,
    trouble: Option<String>,
    in_doubt: bool,
    ended: bool,
}

impl Published {
    /// Shows a committed state.
    pub(super) fn show(&self, state: &Arc<State>, trouble: Option<String>, in_doubt: bool) {
        let mut now = self.lock();
        now.state = Arc::clone(state);
        (now.trouble, now.in_doubt) = (trouble, in_doubt);
        drop(now);
        self.changed.notify_all();
    }

    /// Lets nobody wait for a controller that has ended.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        // What is behind the lock is replaced as a whole, so a reader that panicked left nothing half done.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
