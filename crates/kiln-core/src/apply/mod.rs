//! The fold: one entry of the log at a time.
//!
//! Every machine (instance, rollout, listener, check) is one `match` over what is legal; the last arm is an error. What is
//! checked here holds for every log whoever wrote it: no id is used twice, no instance is destroyed before the edge
//! acknowledged a table without it, nothing unhealthy gets traffic.

mod check;
mod clock;
mod environment;
mod instance;
mod queue;
mod rollout;
mod scale;
mod soak;
mod traffic;
mod tries;

use std::sync::Arc;

use kiln_model::event::ControlEvent;
use kiln_model::{Entry, EnvKey, Event, InstanceId, Position, Term};

use crate::state::{Environment, State};

/// An entry can't follow the ones before it. The state is unusable afterwards: fold the log again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Entries are missing or repeated.
    #[error("expected the entry {expected}, found {found}")]
    Gap {
        /// The position that follows.
        expected: Position,
        /// The entry's.
        found: Position,
    },
    /// Time never decreases along the log.
    #[error("the entry {position} is dated before the one that it follows")]
    TimeWentBack {
        /// The entry's position.
        position: Position,
    },
    /// Another controller wrote it.
    #[error("the entry {position} was written in term {found}, in the time of {expected}")]
    OtherTerm {
        /// The entry's position.
        position: Position,
        /// The term that is current.
        expected: Term,
        /// The entry's.
        found: Term,
    },
    /// It is about an environment and names none.
    #[error("the entry {position} names no environment")]
    NoEnvironment {
        /// The entry's position.
        position: Position,
    },
    /// The environment does not exist.
    #[error("environment {0} does not exist")]
    UnknownEnvironment(EnvKey),
    /// The instance does not exist.
    #[error("instance {0} does not exist")]
    UnknownInstance(InstanceId),
    /// The id was given out before.
    #[error("instance id {0} is used a second time")]
    IdReused(InstanceId),
    /// The event is not legal here.
    #[error("{subject}: {reason}")]
    Illegal {
        /// What it is about.
        subject: String,
        /// Why.
        reason: String,
    },
}

impl ApplyError {
    pub(crate) fn illegal(subject: impl ToString, reason: impl ToString) -> Self {
        Self::Illegal { subject: subject.to_string(), reason: reason.to_string() }
    }
}

/// Folds one entry into the state.
///
/// # Errors
/// The entry can't follow what is there. Nothing may be done with the state afterwards.
pub fn apply(state: &mut State, entry: &Entry) -> Result<(), ApplyError> {
    header(state, entry)?;
    match &entry.event {
        Event::Control(event) => control(state, event),
        Event::Environment(event) => environment::apply(state, entry, event),
        Event::Rollout(event) => rollout::apply(state, entry, event),
        Event::Instance(id, event) => instance::apply(state, entry, *id, event),
        Event::Traffic(event) => traffic::apply(state, entry, event),
        Event::Check(id, event) => check::apply(state, entry, *id, event),
    }?;
    state.position = entry.position;
    state.now = entry.at;
    Ok(())
}

fn header(state: &State, entry: &Entry) -> Result<(), ApplyError> {
    let expected = Position(state.position.0 + 1);
    if entry.position != expected {
        return Err(ApplyError::Gap { expected, found: entry.position });
    }
    if entry.at < state.now {
        return Err(ApplyError::TimeWentBack { position: entry.position });
    }
    let is_legal = match entry.event {
        Event::Control(ControlEvent::ControllerStarted { term }) => entry.term == term && term > state.term,
        _ => entry.term == state.term,
    };
    if is_legal {
        return Ok(());
    }
    Err(ApplyError::OtherTerm { position: entry.position, expected: state.term, found: entry.term })
}

fn control(state: &mut State, event: &ControlEvent) -> Result<(), ApplyError> {
    match event {
        ControlEvent::ControllerStarted { term } => state.term = *term,
        ControlEvent::ClockJumped { by } => clock::extend(state, *by),
        ControlEvent::StackBound { stack, origin } => {
            state.origins.insert(stack.clone(), origin.as_str().into());
        }
    }
    Ok(())
}

/// Returns the environment that an entry is about, for changing it.
fn environment_of<'a>(state: &'a mut State, entry: &Entry) -> Result<&'a mut Environment, ApplyError> {
    let key = key_of(entry)?;
    let env = state.environments.get_mut(key).ok_or_else(|| ApplyError::UnknownEnvironment(key.clone()))?;
    Ok(Arc::make_mut(env))
}

/// Returns the key of the environment that an entry is about.
fn key_of(entry: &Entry) -> Result<&EnvKey, ApplyError> {
    entry.env.as_ref().ok_or(ApplyError::NoEnvironment { position: entry.position })
}
