//! The loop around the step: an inbox, a clock, and nothing that decides.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kiln_core::{Input, InputKind, Observation};
use kiln_model::{Actor, Millis, Timestamp};

use super::commit::FoldError;
use super::handle::{Inbox, Message};
use super::ports::{Effects, Log};
use super::step::{Answer, Controller, StepOutcome};

/// Inputs that share one append. A batch is as long as the append before it took; this bounds how much one failure undoes.
pub const BATCH_MAX: usize = 256;

/// A wall clock that is further ahead than this did not drift, it was set, or the machine slept. NTP slews at most 0.5 ms
/// per second, so nothing that is slewed comes near it between two inputs.
pub const JUMP_MIN: Millis = Millis(2_000);

/// A step at least this often, so that a jump of the clock is seen even when nothing else happens.
pub const IDLE_MAX: Duration = Duration::from_secs(60);

/// A deadline that has passed without being acted on must not become a busy loop.
pub const TICK_MIN: Duration = Duration::from_millis(1);

/// Time and chance, which the core is not allowed to find out by itself.
pub trait Clock {
    /// Returns the time of day.
    fn wall(&mut self) -> Timestamp;
    /// Returns the time since some fixed moment, undisturbed by whoever sets the clock.
    fn elapsed(&mut self) -> Duration;
    /// Returns fresh random bits.
    fn seed(&mut self) -> u64;
}

/// The machine's clock and its random numbers.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn wall(&mut self) -> Timestamp {
        // A clock before 1970 reads as 1970, which the last logged moment then outranks.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    fn elapsed(&mut self) -> Duration {
        self.start.elapsed()
    }

    fn seed(&mut self) -> u64 {
        let mut bytes = [0; 8];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .expect("the kernel's random numbers can't fail once the machine has booted");
        u64::from_ne_bytes(bytes)
    }
}

/// Kiln's time: the wall clock, but never backwards, and never standing still because the wall clock was set back.
#[derive(Debug)]
pub struct Time<C> {
    clock: C,
    now: Timestamp,
    elapsed: Duration,
}

impl<C: Clock> Time<C> {
    /// Starts at the wall clock, or at the last logged moment if that is later.
    pub fn new(mut clock: C, last_logged: Timestamp) -> Self {
        let now = clock.wall().max(last_logged);
        let elapsed = clock.elapsed();
        Self { clock, now, elapsed }
    }

    /// Moves on, and tells by how much the wall clock went ahead of the time that passed.
    pub fn advance(&mut self) -> Option<Millis> {
        let elapsed = self.clock.elapsed();
        let passed = u64::try_from((elapsed - self.elapsed).as_millis()).unwrap_or(u64::MAX);
        // Only whole milliseconds are taken, so that many short steps lose nothing.
        self.elapsed += Duration::from_millis(passed);
        let expected = self.now.plus(Millis(passed));
        let wall = self.clock.wall();
        self.now = wall.max(expected);
        Some(wall.since(expected)).filter(|by| *by >= JUMP_MIN)
    }

    /// Returns the moment of the last advance.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Makes an input of this moment.
    pub fn input(&mut self, actor: Actor, kind: InputKind) -> Input {
        Input { now: self.now, seed: self.clock.seed(), actor, kind }
    }
}

/// Why the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was asked to, or nobody holds a handle any more.
    Stopped,
    /// Another controller took over.
    Deposed,
}

/// Runs the controller on this thread until it is stopped or deposed.
///
/// # Errors
/// The log can't be folded; nothing was carried out.
pub fn run<L: Log, E: Effects, C: Clock>(
    inbox: Inbox,
    log: L,
    effects: E,
    clock: C,
) -> Result<End, FoldError> {
    let published = Arc::clone(&inbox.published);
    let end = Controller::open(log, effects).map(|controller| {
        let time = Time::new(clock, controller.state().now());
        Loop { inbox, controller, time, wake_at: None, settling: Vec::new() }.run()
    });
    published.end();
    end
}

#[derive(Debug)]
struct Loop<L, E, C> {
    inbox: Inbox,
    controller: Controller<L, E>,
    time: Time<C>,
    wake_at: Option<Timestamp>,
    /// Who waits for the end of the step.
    settling: Vec<SyncSender<()>>,
}

impl<L: Log, E: Effects, C: Clock> Loop<L, E, C> {
    fn run(mut self) -> End {
        // The first step records this life and issues what is outstanding, whatever comes in later.
        let mut messages = Vec::new();
        loop {
            if self.step(&mut messages) {
                return End::Deposed;
            }
            if !self.receive(&mut messages) {
                self.step(&mut messages);
                return End::Stopped;
            }
        }
    }

    /// Waits for messages or the next deadline; false at the end.
    fn receive(&mut self, messages: &mut Vec<Message>) -> bool {
        let wait = match self.wake_at {
            Some(at) => at.since(self.time.now).as_duration().clamp(TICK_MIN, IDLE_MAX),
            None => IDLE_MAX,
        };
        let mut next = self.inbox.messages.recv_timeout(wait);
        while messages.len() < BATCH_MAX {
            match next {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
                Ok(message) => messages.push(message),
                Err(RecvTimeoutError::Timeout) => break,
            }
            next = match self.inbox.messages.try_recv() {
                Ok(message) => Ok(message),
                Err(_) => break,
            };
        }
        true
    }

    /// Steps with all that came in; true if another controller took over.
    fn step(&mut self, messages: &mut Vec<Message>) -> bool {
        let (inputs, askers) = self.inputs(messages);
        let outcome = self.controller.step(inputs);
        self.wake_at = outcome.wake_at;
        // Before the answers: whoever was answered finds what was done in the state.
        self.inbox.published.show(self.controller.state(), outcome.trouble.clone(), outcome.in_doubt);
        for settled in self.settling.drain(..) {
            // Whoever gave up waiting does not want it any more.
            let _ = settled.try_send(());
        }
        let deposed = outcome.deposed;
        answer(outcome, askers);
        deposed
    }

    /// Makes inputs of messages; the askers of an answer stand in the same order.
    fn inputs(&mut self, messages: &mut Vec<Message>) -> (Vec<Input>, Vec<Option<SyncSender<Answer>>>) {
        let (mut inputs, mut askers) = (Vec::new(), Vec::new());
        if let Some(by) = self.time.advance() {
            let jump = InputKind::Observation(Observation::ClockJumped { by });
            inputs.push(self.time.input(Actor::Controller, jump));
            askers.push(None);
        }
        for message in messages.drain(..) {
            let (actor, kind, asker) = match message {
                Message::Command { command, actor, answer } => {
                    (actor, InputKind::Command(*command), Some(answer))
                }
                Message::Observation(observation) => {
                    (Actor::Controller, InputKind::Observation(observation), None)
                }
                Message::Reconnected(peer) => {
                    self.controller.reconnected(peer);
                    continue;
                }
                Message::Settle { answer } => {
                    self.settling.push(answer);
                    continue;
                }
                Message::Stop => continue,
            };
            inputs.push(self.time.input(actor, kind));
            askers.push(asker);
        }
        // A tick looks at everything, so it is taken only when a deadline has passed or nothing else brings the time.
        if inputs.is_empty() || self.wake_at.is_some_and(|at| at <= self.time.now()) {
            inputs.push(self.time.input(Actor::Controller, InputKind::Tick));
            askers.push(None);
        }
        (inputs, askers)
    }
}

fn answer(outcome: StepOutcome, askers: Vec<Option<SyncSender<Answer>>>) {
    for (reply, asker) in outcome.replies.into_iter().zip(askers) {
        if let (Some(reply), Some(asker)) = (reply, asker) {
            // Whoever gave up waiting does not want it any more; the channel holds one answer, so this can't block.
            let _ = asker.try_send(reply);
        }
    }
}
