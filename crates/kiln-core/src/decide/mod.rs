//! From news to events.
//!
//! A decision first writes down what the input says, then lets every rule look at the result until none has anything to
//! add. The rules are pure functions from the state to deeds: what a rule needs to know it reads from the state, so it
//! does the same after a restart as without one.

mod admission;
mod check;
mod command;
mod compose;
mod focus;
mod gate;
mod halt;
mod lifetime;
mod listeners;
mod maintain;
mod observe;
mod queue;
mod retain;
mod retire;
mod rollout;
mod step;
mod traffic;
mod work;

use kiln_model::event::ControlEvent;
use kiln_model::{
    Actor, CheckId, Entry, EnvKey, Event, Position, RevisionNumber, RolloutId, ServiceName, Term, Timestamp,
};

use crate::deadline::next_deadline;
use crate::input::{Input, InputKind, Refusal};
use crate::observed::Observed;
use crate::state::State;
pub(crate) use compose::routes_are_free;
pub(crate) use step::proven_at;
use work::{Scope, Work};

/// What follows from an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What is to be appended, in order.
    pub events: Vec<Draft>,
    /// When a tick may change something; none if only news can.
    pub wake_at: Option<Timestamp>,
    /// The answer to a command; [`Reply::Noted`] for anything else.
    pub reply: Result<Reply, Refusal>,
}

/// An event before it has its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The environment that it is about.
    pub env: Option<EnvKey>,
    /// What happened.
    pub event: Event,
    /// Who is behind it, if it is not the input's actor.
    pub actor: Option<Actor>,
}

/// The answer to a command that was not refused. Ids are those that the events get if they are appended to the state that
/// the decision was made against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// An observation or a tick was taken into account.
    Noted,
    /// A rollout began.
    RolloutStarted {
        /// Its id.
        rollout: RolloutId,
        /// Its target; none takes everything down.
        revision: Option<RevisionNumber>,
    },
    /// A rollout to the same target is running already.
    AlreadyRunning {
        /// Its id.
        rollout: RolloutId,
        /// Its target.
        revision: Option<RevisionNumber>,
    },
    /// The environment is there already: nothing was sealed, and no rollout began.
    Unchanged {
        /// The revision that it is at.
        revision: RevisionNumber,
    },
    /// The rollout goes back, or did so already.
    GoingBack {
        /// Its id.
        rollout: RolloutId,
        /// Where to; none means that nothing served before.
        revision: Option<RevisionNumber>,
    },
    /// The rollout is paused, or was already.
    Paused {
        /// Its id.
        rollout: RolloutId,
        /// Its target.
        revision: Option<RevisionNumber>,
    },
    /// The rollout is not paused, or was not.
    Resumed {
        /// Its id.
        rollout: RolloutId,
        /// Its target.
        revision: Option<RevisionNumber>,
    },
    /// A step that waited for time, an analysis or an approval is complete.
    Promoted {
        /// The rollout.
        rollout: RolloutId,
        /// The step's index.
        step: u32,
    },
    /// The rollout begins when the one that runs has ended.
    Queued {
        /// The one that runs.
        behind: RolloutId,
        /// Its target.
        revision: RevisionNumber,
    },
    /// The rollout that was queued does not begin.
    Withdrawn {
        /// Its target.
        revision: RevisionNumber,
    },
    /// The number of replicas is this.
    Scaled {
        /// The service.
        service: ServiceName,
        /// The number.
        replicas: u32,
    },
    /// The check runs; its verdict will be in [`State::verdict`].
    CheckStarted {
        /// Its id.
        check: CheckId,
    },
    /// The check passed before, with the same spec.
    CheckPassed {
        /// Its id.
        check: CheckId,
    },
}

/// Decides what follows from an input. `observed` already took it into account: see [`crate::observe`].
///
/// A refused command changes nothing: the decision has no events.
pub fn decide(state: &State, observed: &Observed, input: &Input) -> Decision {
    let mut work = Work::new(state, observed, input);
    // News may overtake the tick: a deadline that passed since the last entry must not wait for the one after it.
    let is_overdue = next_deadline(state, state.now).is_some_and(|moment| moment <= work.now());
    let (scope, reply) = match &input.kind {
        InputKind::Command(command) => match command::run(&mut work, command) {
            Ok((env, reply)) => (env.map_or(Scope::Global, Scope::Environment), Ok(reply)),
            Err(refusal) => {
                let wake_at = next_deadline(state, work.now());
                return Decision { events: Vec::new(), wake_at, reply: Err(refusal) };
            }
        },
        InputKind::Observation(observation) => (observe::run(&mut work, observation), Ok(Reply::Noted)),
        InputKind::Tick => (Scope::All, Ok(Reply::Noted)),
    };
    lifetime::end(&mut work);
    work.settle(if is_overdue { &Scope::All } else { &scope });
    // What has just gone back to nothing may have outlived its time meanwhile.
    if lifetime::end(&mut work) {
        work.settle(&Scope::All);
    }
    work.check_rest();
    let wake_at = next_deadline(work.state(), work.now());
    Decision { events: work.into_drafts(), wake_at, reply }
}

/// Gives drafts their places in the log: position, time, term and actor.
pub fn number(state: &State, drafts: &[Draft], input: &Input) -> Vec<Entry> {
    let (mut term, mut position) = (state.term, state.position);
    let place = |draft: &Draft| {
        let entry = entry_of((state, term, position), draft.clone(), input);
        (term, position) = (entry.term, entry.position);
        entry
    };
    drafts.iter().map(place).collect()
}

/// The entry of a draft that follows what has this term and position.
fn entry_of((state, term, position): (&State, Term, Position), draft: Draft, input: &Input) -> Entry {
    let Draft { env, event, actor } = draft;
    let term = match event {
        Event::Control(ControlEvent::ControllerStarted { term }) => term,
        _ => term,
    };
    Entry {
        position: Position(position.0 + 1),
        at: state.now.max(input.now),
        term,
        actor: actor.unwrap_or_else(|| input.actor.clone()),
        env,
        event,
    }
}
