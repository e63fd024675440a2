//! Watches the log from outside: folds what is durable, and checks every entry as it comes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kiln_core::{Action, ActionKind, Command, State, apply, route_table};
use kiln_model::event::{ControlEvent, EnvironmentEvent, InstanceEvent, TrafficEvent};
use kiln_model::{Digest, Entry, EnvKey, Event, InstanceId, Position, ServiceName, Timestamp, Weight};

use crate::floor::Floor;
use crate::{Violation, honest, invariants};

/// A fold of its own over the durable log.
#[derive(Debug, Default)]
pub struct Witness {
    state: State,
    at: Timestamp,
    requested: BTreeSet<InstanceId>,
    sealed: BTreeSet<(EnvKey, Digest, Digest)>,
    scaled: BTreeSet<(EnvKey, ServiceName, u32)>,
    /// When each environment was scaled last.
    scaled_at: BTreeMap<EnvKey, Timestamp>,
}

impl Witness {
    /// The state that the durable log folds to.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Reads what was appended since the last call.
    ///
    /// # Errors
    /// The log breaks a rule.
    pub fn read(&mut self, durable: &[Entry], floor: &mut Floor) -> Result<(), Violation> {
        let known = self.state.position().0 as usize;
        let news = durable.get(known..).unwrap_or_default();
        for entry in news {
            self.check(entry)?;
            honest::check_approval(entry, &self.state)?;
            self.note(entry);
            // Who scales down in the middle of a rollout takes instances away by hand, not the rollout.
            let by_hand = |env: &EnvKey| self.scaled_at.get(env) == Some(&entry.at) && self.moves(env);
            let shifted = match (&entry.env, &entry.event) {
                (Some(env), Event::Traffic(TrafficEvent::Shifted { weights })) if !by_hand(env) => {
                    floor.before(&self.state, env, weights);
                    Some(env)
                }
                _ => None,
            };
            apply(&mut self.state, entry).map_err(|error| {
                Violation::new("the log folds", format!("{} at {}: {error}", entry.position, entry.at.0))
            })?;
            if let Some(env) = shifted {
                floor.after(&self.state, env)?;
            }
            // How few there may be is no matter of instances.
            if !matches!(entry.event, Event::Instance(..)) {
                floor.note(&self.state);
            }
        }
        // Who a slot works for is no matter of instances, either.
        if news.iter().any(|entry| !matches!(entry.event, Event::Instance(..))) {
            invariants::check_slots(&self.state)?;
        }
        if (durable.len() as u64) < self.state.position().0 {
            return Err(Violation::new("what is durable stays", "the log became shorter"));
        }
        Ok(())
    }

    /// Checks what must hold whenever a decision is complete.
    ///
    /// # Errors
    /// It does not.
    pub fn check_decided(&self) -> Result<(), Violation> {
        honest::check_traffic(&self.state)?;
        honest::check_waits(&self.state)
    }

    /// Checks that an acknowledged command is in the log, whatever became of it since.
    ///
    /// # Errors
    /// It is not.
    pub fn check_acknowledged(&self, command: &Command) -> Result<(), Violation> {
        let is_there = match command {
            Command::Up { env, release, binding, .. } => {
                self.sealed.contains(&(env.clone(), *release, *binding))
            }
            Command::Scale { env, service, replicas, .. } => {
                let found = self.state.environment(env);
                let is_so = found.is_some_and(|found| found.replicas(found.target(), service) == *replicas);
                is_so || self.scaled.contains(&(env.clone(), service.clone(), *replicas))
            }
            Command::Inspected { image, test, question, .. } => {
                self.state.verdict(*image, test).is_some_and(|verdict| verdict.spec_digest == *question)
            }
            Command::Rollback { .. }
            | Command::Abort { .. }
            | Command::Withdraw { .. }
            | Command::Pause { .. }
            | Command::Resume { .. }
            | Command::Promote { .. }
            | Command::Down { .. }
            | Command::Approve { .. }
            | Command::Check { .. } => true,
        };
        if is_there {
            return Ok(());
        }
        Err(Violation::new("what is acknowledged is never lost", format!("{command:?}")))
    }

    fn moves(&self, env: &EnvKey) -> bool {
        self.state.environment(env).is_some_and(|found| found.rollout.is_some())
    }

    fn note(&mut self, entry: &Entry) {
        let (Some(env), Event::Environment(event)) = (&entry.env, &entry.event) else { return };
        match event {
            EnvironmentEvent::RevisionSealed { revision } => {
                self.sealed.insert((env.clone(), revision.release, revision.binding));
            }
            EnvironmentEvent::ReplicasSet { service, replicas, .. } => {
                self.scaled.insert((env.clone(), service.clone(), *replicas));
                self.scaled_at.insert(env.clone(), entry.at);
            }
            _ => {}
        }
    }

    fn check(&mut self, entry: &Entry) -> Result<(), Violation> {
        if entry.position.0 != self.state.position().0 + 1 {
            return Err(Violation::new(
                "positions are gapless",
                format!("{} follows {}", entry.position, self.state.position()),
            ));
        }
        if entry.at < self.at {
            return Err(Violation::new("time in the log never decreases", format!("{}", entry.position)));
        }
        self.at = entry.at;
        let term = match entry.event {
            Event::Control(ControlEvent::ControllerStarted { term }) => {
                if term <= self.state.term() {
                    return Err(Violation::new("every start takes a higher term", format!("{term}")));
                }
                term
            }
            _ => self.state.term(),
        };
        if entry.term != term {
            return Err(Violation::new(
                "one writer",
                format!("{} of {} in {term}", entry.position, entry.term),
            ));
        }
        if let Event::Instance(id, InstanceEvent::Requested { .. }) = &entry.event
            && !self.requested.insert(*id)
        {
            return Err(Violation::new("an id is never used twice", id.to_string()));
        }
        Ok(())
    }
}

/// Checks that the intents of actions are in the log, and that each was when its action was sent.
///
/// # Errors
/// One is not.
pub fn check_intents(sent: &[(Action, Position)], durable: &[Entry]) -> Result<(), Violation> {
    // Many may wait for the requests that one entry took from them.
    let mut unrouted: Option<(Position, BTreeSet<InstanceId>)> = None;
    for (action, then) in sent {
        let at = action.fence.position;
        let of_entry = |id: &InstanceId| {
            if unrouted.as_ref().is_none_or(|(position, _)| *position != at) {
                unrouted = Some((at, unrouted_by(durable, at)));
            }
            unrouted.as_ref().is_some_and(|(_, ids)| ids.contains(id))
        };
        check_intent(action, durable, *then, of_entry)?;
    }
    Ok(())
}

/// The instances from which an entry took all requests.
fn unrouted_by(durable: &[Entry], at: Position) -> BTreeSet<InstanceId> {
    let entry = at.0.checked_sub(1).and_then(|index| durable.get(index as usize));
    let Some(Event::Traffic(TrafficEvent::Shifted { weights })) = entry.map(|entry| &entry.event) else {
        return BTreeSet::new();
    };
    weights.iter().filter(|(_, weight)| *weight == Weight::ZERO).map(|(id, _)| *id).collect()
}

/// The match on the kind is the proof by construction that there is no verb to change an instance: a new kind would not
/// compile here.
fn check_intent(
    action: &Action,
    durable: &[Entry],
    then: Position,
    is_unrouted: impl FnOnce(&InstanceId) -> bool,
) -> Result<(), Violation> {
    let at = action.fence.position;
    let broken = |what: &str| {
        Err(Violation::new("no effect before its record", format!("{what}: {:?} at {at}", action.kind)))
    };
    if at > then {
        return broken("sent before its intent was durable");
    }
    let Some(entry) = at.0.checked_sub(1).and_then(|index| durable.get(index as usize)) else {
        return broken("no such entry");
    };
    let matches = match (&action.kind, &entry.event) {
        (ActionKind::CreateInstance { id, .. }, Event::Instance(of, event)) => {
            id == of && matches!(event, InstanceEvent::Requested { .. })
        }
        (ActionKind::DestroyInstance { id, .. }, Event::Instance(of, event)) => {
            id == of && matches!(event, InstanceEvent::Destroying { .. } | InstanceEvent::Disowned)
        }
        (ActionKind::OpenListener(listener), Event::Traffic(event)) => {
            matches!(event, TrafficEvent::ListenerRequested { listener: of } if of == listener)
        }
        (ActionKind::CloseListener(listener), Event::Traffic(event)) => {
            matches!(event, TrafficEvent::ListenerReleased { listener: of } if of == listener)
        }
        (ActionKind::PublishTable(table), _) => table.fence == action.fence,
        (ActionKind::AwaitIdle(id), Event::Traffic(TrafficEvent::Shifted { .. })) => is_unrouted(id),
        _ => false,
    };
    if matches { Ok(()) } else { broken(&format!("its intent is {:?}", entry.event)) }
}

/// Folds the log from the beginning and compares.
///
/// # Errors
/// The same log folded to something else.
pub fn check_replay(durable: &[Entry], live: &State, what: &str) -> Result<(), Violation> {
    let mut state = State::default();
    for entry in durable {
        if entry.position > live.position() {
            break;
        }
        apply(&mut state, entry).map_err(|error| Violation::new("the log folds", error.to_string()))?;
    }
    if state == *live && route_table(&state) == route_table(live) {
        return Ok(());
    }
    Err(Violation::new("replay equals live", format!("{what} at {}", live.position())))
}

/// Whether the state is exactly a prefix of what is durable, by its length.
///
/// # Errors
/// It is ahead of the log.
pub fn check_published(live: &Arc<State>, durable: &[Entry]) -> Result<(), Violation> {
    if live.position().0 > durable.len() as u64 {
        return Err(Violation::new(
            "nothing is published before its record",
            format!("state at {} of {} durable entries", live.position(), durable.len()),
        ));
    }
    Ok(())
}
