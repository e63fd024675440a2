//! One step: decide, append, and only then publish, answer and act.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::sync::Arc;

use kiln_core::{ActionKind, Input, InputKind, Observation, Observed, Refusal, Reply, State, observe};
use kiln_model::route::Listener;
use kiln_model::{Actor, Fence, InstanceId, Millis, Position, Term, Timestamp};

use super::commit::{Batch, Committed, FoldError};
use super::ports::{AppendError, Effects, Log, Peer};

/// The first wait after a failed append: a full disk does not empty itself within less.
pub const RETRY_FIRST: Millis = Millis(100);
/// The longest wait after failed appends: whoever makes room on the disk sees Kiln go on at once.
pub const RETRY_MAX: Millis = Millis(5_000);
/// Observations that are kept while nothing can be appended: beyond it, a fresh list says the same in less space.
pub const HELD_MAX: usize = 4_096;

/// The controller as a synchronous machine over its ports: no thread, no clock, no waiting.
#[derive(Debug)]
pub struct Controller<L, E> {
    log: L,
    effects: E,
    committed: Committed,
    observed: Observed,
    /// This life's term, once its start is in the log; nothing is carried out before.
    term: Option<Term>,
    /// What was issued in this life, and under which fence.
    issued: BTreeMap<Subject, Fence>,
    /// Observations that no append has recorded yet; the first of a life is its start.
    held: VecDeque<Input>,
    /// Whether observations were dropped because too many were held.
    missed: bool,
    /// The log may hold something else than `committed` says.
    doubt: Option<Doubt>,
    retry: Option<Retry>,
    /// Why the last append failed; none once one has succeeded.
    trouble: Option<String>,
    wake_at: Option<Timestamp>,
}

/// A batch of which nobody knows whether it was written.
#[derive(Debug)]
struct Doubt {
    /// What it was decided on.
    inputs: Vec<Input>,
    /// The end of the log if it was not written; none if another writer has appended.
    unwritten_end: Option<Position>,
}

#[derive(Debug, Clone, Copy)]
struct Retry {
    at: Timestamp,
    wait: Millis,
}

/// The answer to a command.
pub type Answer = Result<Reply, CommandError>;

/// What came of a step.
#[derive(Debug)]
pub struct StepOutcome {
    /// The answers, one for each input in its order; none for what is not a command.
    pub replies: Vec<Option<Answer>>,
    /// When to step again at the latest, with a tick if there is nothing else.
    pub wake_at: Option<Timestamp>,
    /// Why the last append failed, until one succeeds; for the operator. What was committed before is still served.
    pub trouble: Option<String>,
    /// The log may hold more than the committed state says.
    pub in_doubt: bool,
    /// Another controller took over: this one must end.
    pub deposed: bool,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The core refused it; nothing changed.
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// It could not be recorded, or that is not known. Every command is safe to repeat.
    #[error("the command could not be recorded ({reason}); it is safe to repeat")]
    NotRecorded {
        /// What the log said.
        reason: String,
    },
    /// A bug in Kiln: it decided what can't be. Nothing changed.
    #[error("a bug in Kiln: {reason}")]
    Bug {
        /// What can't be.
        reason: String,
    },
    /// The controller ended, or did not answer in time.
    #[error("the controller did not answer; the command is safe to repeat")]
    NoAnswer,
}

impl CommandError {
    /// Whether repeating the command would end the same way.
    pub const fn is_permanent(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Bug { .. })
    }
}

impl<L: Log, E: Effects> Controller<L, E> {
    /// Folds the log. Nothing is appended or carried out before the first step.
    ///
    /// # Errors
    /// As [`Committed::load`].
    pub fn open(mut log: L, effects: E) -> Result<Self, FoldError> {
        let committed = Committed::load(&mut log)?;
        let start = Input {
            now: Timestamp(0),
            seed: 0,
            actor: Actor::Controller,
            kind: InputKind::Observation(Observation::ControllerStarted),
        };
        Ok(Self {
            log,
            effects,
            committed,
            observed: Observed::default(),
            term: None,
            issued: BTreeMap::new(),
            held: VecDeque::from([start]),
            missed: false,
            doubt: None,
            retry: None,
            trouble: None,
            wake_at: None,
        })
    }

    /// Returns the last committed state.
    pub fn state(&self) -> &Arc<State> {
        self.committed.state()
    }

    /// Returns this life's term, once its start is in the log.
    pub const fn term(&self) -> Option<Term> {
        self.term
    }

    /// The way to a peer is open again: what it was told before may be lost, so the next step tells it again.
    pub fn reconnected(&mut self, peer: Peer) {
        self.issued.retain(|subject, _| !subject.concerns(peer));
    }

    /// Decides all inputs, appends what they lead to in one transaction, and only then publishes, answers and acts.
    ///
    /// The first step of a life records that it began. A step without inputs does nothing: time comes with an input.
    pub fn step(&mut self, inputs: Vec<Input>) -> StepOutcome {
        let Some(first) = inputs.first() else { return self.outcome(Vec::new()) };
        let (now, seed) = (first.now, first.seed);
        if let Err(error) = self.settle_doubt() {
            let replies = self.fall_back(now, &inputs, &error);
            self.hold(inputs);
            return self.outcome(replies);
        }
        if self.is_deposed() {
            let replies = inputs.iter().map(|input| not_recorded(input, "another controller took over"));
            return self.outcome(replies.collect());
        }
        if self.waits_for_room(now, &inputs) {
            let replies = vec![None; inputs.len()];
            self.hold(inputs);
            return self.outcome(replies);
        }
        let held = self.take_held(now, seed);
        let mut batch = self.committed.batch();
        let mut wake_at = self.wake_at;
        for input in &held {
            // Nobody waits for the answer to an observation, and a bug that it uncovers must not stop the others.
            let _ = self.decide(&mut batch, input, &mut wake_at);
        }
        let replies = inputs.iter().map(|input| self.decide(&mut batch, input, &mut wake_at)).collect();
        match self.committed.append(&mut self.log, batch) {
            Ok(committed) => {
                self.advance(committed, wake_at);
                self.outcome(replies)
            }
            Err(error) => {
                let replies = self.fall_back(now, &inputs, &error);
                self.keep(&error, held.into_iter().chain(inputs).collect());
                self.outcome(replies)
            }
        }
    }

    fn decide(
        &mut self,
        batch: &mut Batch,
        input: &Input,
        wake_at: &mut Option<Timestamp>,
    ) -> Option<Answer> {
        observe(&mut self.observed, input);
        let answer = match batch.push(&self.observed, input) {
            Ok(decision) => {
                *wake_at = decision.wake_at;
                decision.reply.map_err(CommandError::Refused)
            }
            Err(error) => Err(CommandError::Bug { reason: error.to_string() }),
        };
        matches!(input.kind, InputKind::Command(_)).then_some(answer)
    }

    /// Takes what is durable as the state, and carries out what it asks for.
    fn advance(&mut self, committed: Committed, wake_at: Option<Timestamp>) {
        let began = committed.state().term() > self.committed.state().term();
        self.committed = committed;
        self.wake_at = wake_at;
        (self.retry, self.trouble) = (None, None);
        if self.term.is_none() && began {
            self.term = Some(self.committed.state().term());
        }
        if self.term.is_none() {
            return;
        }
        if std::mem::take(&mut self.missed) {
            self.effects.relist();
        }
        let due = self.committed.due();
        let subjects: BTreeMap<_, _> =
            due.iter().map(|action| (Subject::of(&action.kind), action.fence)).collect();
        for action in due {
            if self.issued.get(&Subject::of(&action.kind)) != Some(&action.fence) {
                self.effects.execute(action);
            }
        }
        self.issued = subjects;
    }

    /// Nothing was appended, or perhaps it was: says so, and waits a little.
    fn fall_back(&mut self, now: Timestamp, inputs: &[Input], error: &dyn Error) -> Vec<Option<Answer>> {
        let reason = chain(error);
        let replies = inputs.iter().map(|input| not_recorded(input, &reason)).collect();
        let wait = self.retry.map_or(RETRY_FIRST, |retry| Millis(retry.wait.0 * 2).min(RETRY_MAX));
        self.retry = Some(Retry { at: now.plus(wait), wait });
        self.trouble = Some(reason);
        replies
    }

    /// Keeps what was observed in a batch that failed.
    fn keep(&mut self, error: &AppendError, inputs: Vec<Input>) {
        let unwritten_end = match error {
            AppendError::Full(_) => return self.hold(inputs),
            AppendError::Unknown(_) => Some(self.committed.state().position()),
            AppendError::Conflict => None,
        };
        self.doubt = Some(Doubt { inputs, unwritten_end });
        // Readers should see what is really recorded as soon as it can be read; if it can't, the next step tries again.
        let _ = self.settle_doubt();
    }

    /// Reads the log again if it may hold something else than is known.
    fn settle_doubt(&mut self) -> Result<(), FoldError> {
        if self.doubt.is_none() {
            return Ok(());
        }
        self.log.reopen()?;
        self.committed = Committed::load(&mut self.log)?;
        let Some(doubt) = self.doubt.take() else { return Ok(()) };
        // What was written must not be observed a second time: a jump of the clock would extend every deadline twice. A
        // start may be: its term is simply skipped.
        let end = self.committed.state().position();
        let is_written = doubt.unwritten_end.is_some_and(|unwritten| end > unwritten);
        let again = doubt.inputs.into_iter().filter(|input| !is_written || is_start(input));
        // What was held meanwhile was seen later: a jump of the clock must stand before what was seen after it.
        let later = std::mem::take(&mut self.held);
        self.hold(again.collect());
        self.hold(later.into());
        Ok(())
    }

    /// Whether another controller has begun since this one did.
    fn is_deposed(&self) -> bool {
        self.term.is_some_and(|term| self.committed.state().term() != term)
    }

    /// Whether this step would only fail again; a command is worth another attempt at any time.
    fn waits_for_room(&self, now: Timestamp, inputs: &[Input]) -> bool {
        self.retry.is_some_and(|retry| now < retry.at)
            && !inputs.iter().any(|input| matches!(input.kind, InputKind::Command(_)))
    }

    fn hold(&mut self, inputs: Vec<Input>) {
        self.held.extend(inputs.into_iter().filter(|input| matches!(input.kind, InputKind::Observation(_))));
        if self.held.len() > HELD_MAX {
            self.missed = true;
            self.held.retain(|input| !is_repeatable(&input.kind));
        }
    }

    fn take_held(&mut self, now: Timestamp, seed: u64) -> Vec<Input> {
        let held = self.held.drain(..).enumerate();
        // Their seeds are spent in a batch that is gone; an odd multiplier keeps fresh ones apart.
        let fresh = |index: usize| seed ^ (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // They keep the time at which they were seen: a deadline that follows from what was seen before a jump of the clock is
        // extended by the jump, and must not be reckoned from the time after it as well. A start has no time before its step.
        let seen = |at: Timestamp| if at == Timestamp(0) { now } else { at };
        held.map(|(index, input)| Input { now: seen(input.now), seed: fresh(index), ..input }).collect()
    }

    fn outcome(&self, replies: Vec<Option<Answer>>) -> StepOutcome {
        let wake_at = self.retry.map_or(self.wake_at, |retry| Some(retry.at));
        let (trouble, in_doubt) = (self.trouble.clone(), self.doubt.is_some());
        StepOutcome { replies, wake_at, trouble, in_doubt, deposed: self.is_deposed() }
    }
}

/// What an action is about: with its fence, what tells an action that was issued from one that was not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Open(Listener),
    Close(Listener),
    Create(InstanceId),
    Destroy(InstanceId),
    Table,
    Idle(InstanceId),
}

impl Subject {
    const fn of(kind: &ActionKind) -> Self {
        match kind {
            ActionKind::OpenListener(listener) => Self::Open(*listener),
            ActionKind::CloseListener(listener) => Self::Close(*listener),
            ActionKind::CreateInstance { id, .. } => Self::Create(*id),
            ActionKind::DestroyInstance { id, .. } => Self::Destroy(*id),
            ActionKind::PublishTable(_) => Self::Table,
            ActionKind::AwaitIdle(id) => Self::Idle(*id),
        }
    }

    const fn concerns(&self, peer: Peer) -> bool {
        match self {
            // The host opens a socket and the edge has to have it: whichever comes back may lack it.
            Self::Open(_) | Self::Close(_) => true,
            Self::Create(_) | Self::Destroy(_) => matches!(peer, Peer::Host),
            Self::Table | Self::Idle(_) => matches!(peer, Peer::Edge),
        }
    }
}

/// Whether a fresh list, or the clock, says the same as this observation.
const fn is_repeatable(kind: &InputKind) -> bool {
    !matches!(
        kind,
        InputKind::Observation(
            Observation::ControllerStarted
                | Observation::ClockJumped { .. }
                | Observation::RequestsCounted { .. }
                | Observation::RolloutPredicted { .. }
                | Observation::NoticeGivenUp { .. }
        )
    )
}

fn is_start(input: &Input) -> bool {
    input.kind == InputKind::Observation(Observation::ControllerStarted)
}

fn not_recorded(input: &Input, reason: &str) -> Option<Answer> {
    let is_command = matches!(input.kind, InputKind::Command(_));
    is_command.then(|| Err(CommandError::NotRecorded { reason: reason.to_owned() }))
}

/// Joins an error and its causes into one line, outermost first.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
