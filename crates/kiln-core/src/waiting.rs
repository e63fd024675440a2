//! Why something is not as it should be yet, for people.

use std::sync::Arc;

use kiln_model::rollout::Step;
use kiln_model::route::Listener;
use kiln_model::{Actor, EnvKey, InstanceId, Position, RevisionNumber, RolloutId, ServiceName, Timestamp};

use crate::state::{ListenerPhase, Phase, State, StepPhase, Tries};

/// Something that an environment waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// Somebody paused the rollout: it waits to be resumed.
    Resume {
        /// Who.
        by: Actor,
        /// Since when.
        since: Timestamp,
    },
    /// A rollout failed and stopped: it waits for somebody to try again, to let it go back, or to bring another release.
    Decision {
        /// Why it failed.
        reason: Arc<str>,
        /// When it goes back all the same.
        until: Timestamp,
    },
    /// A rollout waits for its step.
    Step {
        /// Its index.
        index: u32,
        /// What it asks for.
        step: Step,
        /// When the wait is over; none if the step did not begin, or the rollout is paused.
        deadline: Option<Timestamp>,
        /// What became of its attempts.
        tries: Tries,
    },
    /// A rollout is queued behind the one that runs.
    Turn {
        /// Its target.
        revision: RevisionNumber,
        /// Who asked for it.
        by: Actor,
        /// The one that runs.
        behind: RolloutId,
    },
    /// The edge has not acknowledged the table.
    Acknowledgement {
        /// The version that it is to serve.
        version: Position,
        /// The one that it serves.
        acknowledged: Position,
    },
    /// A socket is not open.
    Socket {
        /// Which.
        listener: Listener,
        /// Why it can't be opened; none while it is tried.
        reason: Option<Arc<str>>,
    },
    /// A slot rests after failures in a row.
    Rest {
        /// The service.
        service: ServiceName,
        /// The place.
        ordinal: u32,
        /// How many failures.
        failures: u32,
        /// When the next instance is created.
        until: Timestamp,
    },
    /// The provider has not started an instance.
    Start {
        /// Which.
        id: InstanceId,
    },
    /// Requests are in flight to an instance that goes.
    Drain {
        /// Which.
        id: InstanceId,
        /// When they are cut.
        deadline: Timestamp,
    },
    /// The provider has not destroyed an instance.
    Destroy {
        /// Which.
        id: InstanceId,
    },
}

/// Returns what an environment waits for at `now`, the most telling first; empty if it is at rest or does not exist.
pub fn waiting(state: &State, env: &EnvKey, now: Timestamp) -> Vec<Wait> {
    let Some(env) = state.environment(env) else { return Vec::new() };
    let mut found = Vec::new();
    if let Some(rollout) = &env.rollout
        && let Some(step) = rollout.current_step()
    {
        if let Some(pause) = &rollout.paused {
            found.push(Wait::Resume { by: pause.by.clone(), since: pause.since });
        }
        if let Some(halt) = &rollout.halted {
            found.push(Wait::Decision { reason: halt.reason.clone(), until: halt.until });
        }
        let deadline = match rollout.step {
            // It does not come nearer while the rollout is paused, and not once it stopped.
            StepPhase::Started { deadline } => {
                deadline.filter(|_| rollout.paused.is_none() && rollout.halted.is_none())
            }
            StepPhase::Waiting => None,
        };
        let tries = rollout.tries.clone();
        found.push(Wait::Step { index: rollout.next, step: step.clone(), deadline, tries });
    }
    if let (Some(rollout), Some(queued)) = (&env.rollout, &env.queued) {
        found.push(Wait::Turn { revision: queued.to, by: queued.by.clone(), behind: rollout.id });
    }
    for listener in env.needed_listeners() {
        match state.listeners.get(&listener).map(|found| &found.phase) {
            Some(ListenerPhase::Open { .. }) => {}
            Some(ListenerPhase::Failed { reason, .. }) => {
                found.push(Wait::Socket { listener, reason: Some(reason.clone()) });
            }
            Some(ListenerPhase::Requested | ListenerPhase::Releasing) | None => {
                found.push(Wait::Socket { listener, reason: None });
            }
        }
    }
    let table = state.table();
    if !state.is_acknowledged(table.version) {
        found.push(Wait::Acknowledgement { version: table.version, acknowledged: table.acknowledged });
    }
    for (service, state) in &env.services {
        for (ordinal, slot) in state.slots.iter() {
            if let Some(rest) = slot.backoff.filter(|rest| rest.not_before > now) {
                let (failures, until) = (rest.failures, rest.not_before);
                found.push(Wait::Rest { service: service.clone(), ordinal: *ordinal, failures, until });
            }
        }
    }
    for instance in state.instances_of(env) {
        let id = instance.id;
        match instance.phase {
            Phase::Requested => found.push(Wait::Start { id }),
            Phase::Draining { deadline, .. } => found.push(Wait::Drain { id, deadline }),
            Phase::Destroying { .. } => found.push(Wait::Destroy { id }),
            Phase::Running | Phase::Warm { .. } | Phase::Ended { .. } | Phase::Retiring { .. } => {}
        }
    }
    found
}
