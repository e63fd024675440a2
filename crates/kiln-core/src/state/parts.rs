//! A state taken apart, so that the shell can store it: what is looked up by something else is left out and made again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kiln_model::digest::Digest;
use kiln_model::route::Listener;
use kiln_model::{CheckId, EnvKey, InstanceId, Position, StackName, Term, Timestamp};

use super::shared_map::SharedMap;
use super::{Approval, Check, Environment, Instance, ListenerState, State, TableState, UsedIds, Verdict};

/// All that a [`State`] says, each thing once.
///
/// A field that is added to the state is added here, or is made from what is here: the tests of the core put states
/// together again in the middle of every history and go on with them.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// The term of the controller that appends.
    pub term: Term,
    /// The position of the last entry.
    pub position: Position,
    /// The time of the last entry.
    pub now: Timestamp,
    /// Where each stack comes from.
    pub origins: BTreeMap<StackName, Arc<str>>,
    /// The environments.
    pub environments: Vec<Arc<Environment>>,
    /// The instances that are not destroyed yet.
    pub instances: Vec<Arc<Instance>>,
    /// What is to be destroyed though the log does not know it, with the position of the intent.
    pub disowned: BTreeMap<InstanceId, Position>,
    /// Every id that was ever given out, in any order.
    pub used: Vec<InstanceId>,
    /// The checks that run.
    pub checks: Vec<Arc<Check>>,
    /// The last answer about each image and test.
    pub verdicts: Vec<((Digest, String), Verdict)>,
    /// The sockets.
    pub listeners: BTreeMap<Listener, ListenerState>,
    /// How far the edge has followed.
    pub table: TableState,
    /// Who approved which release, by environment.
    pub approvals: BTreeMap<EnvKey, Vec<Approval>>,
}

/// Parts of which no state can be made: they are not what [`State::to_parts`] gave out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartsError {
    /// Two things have one name.
    #[error("{0} is there twice")]
    Twice(String),
    /// A thing that is referred to is missing.
    #[error("{whose} refers to {what}, which is not there")]
    Missing {
        /// Who refers to it.
        whose: String,
        /// What is missing.
        what: String,
    },
}

impl State {
    /// Takes the state apart. Cheap: environments and instances are shared.
    pub fn to_parts(&self) -> Parts {
        Parts {
            term: self.term,
            position: self.position,
            now: self.now,
            origins: self.origins.clone(),
            environments: self.environments.values().cloned().collect(),
            instances: self.instances.values().cloned().collect(),
            disowned: self.disowned.clone(),
            used: self.used.iter().collect(),
            checks: self.checks.values().cloned().collect(),
            verdicts: self.verdicts.iter().map(|(key, verdict)| (key.clone(), verdict.clone())).collect(),
            listeners: self.listeners.clone(),
            table: self.table,
            approvals: self.approvals.clone(),
        }
    }

    /// Puts a state together: the one that was taken apart.
    ///
    /// # Errors
    /// See [`PartsError`]. That the parts hold together does not show that a log folds to them: who keeps them must know
    /// where they came from.
    pub fn from_parts(parts: Parts) -> Result<Self, PartsError> {
        let used: UsedIds = parts.used.into_iter().collect();
        let mut state = Self {
            term: parts.term,
            position: parts.position,
            now: parts.now,
            origins: parts.origins,
            disowned: parts.disowned,
            listeners: parts.listeners,
            table: parts.table,
            approvals: parts.approvals,
            used,
            ..Self::default()
        };
        for instance in parts.instances {
            state.put_instance(instance)?;
        }
        for env in parts.environments {
            state.check_environment(&env)?;
            let key: EnvKey = env.key.clone();
            if state.environments.insert(key.clone(), env).is_some() {
                return Err(PartsError::Twice(key.to_string()));
            }
        }
        for check in parts.checks {
            let id: CheckId = check.id;
            if state.checks.insert(id, check).is_some() {
                return Err(PartsError::Twice(id.to_string()));
            }
        }
        for (key, verdict) in parts.verdicts {
            state.verdicts.insert(key, verdict);
        }
        Ok(state)
    }

    fn put_instance(&mut self, instance: Arc<Instance>) -> Result<(), PartsError> {
        let id = instance.id;
        if !self.used.contains(id) {
            return Err(PartsError::Missing { whose: "an instance".into(), what: format!("the id {id}") });
        }
        if instance.phase.is_pending() {
            self.pending.insert(id, ());
        }
        if instance.phase.awaits_edge() {
            self.leaving.insert(id, ());
        }
        if let Some(moment) = instance.timer() {
            self.timers.insert((moment, id), ());
        }
        match self.instances.insert(id, instance) {
            None => Ok(()),
            Some(_) => Err(PartsError::Twice(id.to_string())),
        }
    }

    /// What the rules take for granted about an environment.
    fn check_environment(&self, env: &Environment) -> Result<(), PartsError> {
        let missing = |what: String| PartsError::Missing { whose: env.key.to_string(), what };
        let rollout = env.rollout.as_ref();
        let queued = env.queued.as_ref().map(|queued| queued.to);
        let (from, to) = (rollout.and_then(|it| it.from), rollout.and_then(|it| it.to));
        let numbers = [env.current, env.routes, from, to, queued];
        if let Some(number) = numbers.into_iter().flatten().find(|it| !env.revisions.contains_key(it)) {
            return Err(missing(format!("revision {number}")));
        }
        let slots = env.services.values().flat_map(|service| service.slots.values());
        let mut seen = BTreeSet::new();
        for id in slots.flat_map(|slot| slot.instances.iter()) {
            if !self.instances.contains_key(id) {
                return Err(missing(format!("instance {id}")));
            }
            if !seen.insert(*id) {
                return Err(PartsError::Twice(id.to_string()));
            }
        }
        Ok(())
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for SharedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Parts {
        Parts { used: (1..5).map(InstanceId::from_seed).collect(), ..Parts::default() }
    }

    #[test]
    fn ids_that_were_given_out_are_known_whatever_their_order() {
        let state = State::from_parts(parts()).unwrap();
        let mut turned = parts();
        turned.used.reverse();
        assert_eq!(State::from_parts(turned).unwrap(), state);
        assert_eq!(state.to_parts().used.len(), 4);
        let other = Parts { used: (2..6).map(InstanceId::from_seed).collect(), ..Parts::default() };
        assert_ne!(State::from_parts(other).unwrap(), state);
    }
}
