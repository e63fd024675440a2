//! What a rollout asks others over HTTP: whom, and from when on.

use std::net::SocketAddr;
use std::sync::Arc;

use kiln_model::ask::{Ask, Whom};
use kiln_model::rollout::Step;
use kiln_model::{EnvKey, PortName, RolloutId, Timestamp};

use crate::serving::want;
use crate::state::{Environment, Rollout, State, StepPhase};

/// One attempt that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The environment.
    pub env: EnvKey,
    /// Its rollout.
    pub rollout: RolloutId,
    /// The step's index, on the way there or on the way back.
    pub index: u32,
    /// What is asked.
    pub ask: Arc<Ask>,
    /// How many attempts failed before: an answer to an earlier one counts for nothing.
    pub known: u32,
    /// From when on it is asked.
    pub due: Timestamp,
    /// Which instances are asked, by their place; none if the question says whom itself, or if none is healthy.
    pub instances: Vec<(String, SocketAddr)>,
}

/// Returns what the rollout of an environment asks now; none if it waits for no answer.
///
/// Follows from the state alone: whoever takes over from a controller that was killed asks again.
pub fn question(state: &State, env: &Environment) -> Option<Question> {
    let rollout = env.rollout.as_ref()?;
    let ask = asked(rollout)?;
    let is_held = rollout.paused.is_some() || rollout.halted.is_some();
    if is_held || rollout.tries.passed || rollout.tries.failed >= ask.again.attempts {
        return None;
    }
    Some(Question {
        env: env.key.clone(),
        rollout: rollout.id,
        index: rollout.next,
        ask: ask.clone(),
        known: rollout.tries.failed,
        due: rollout.tries.due,
        instances: match &ask.whom {
            Whom::Url(_) => Vec::new(),
            Whom::Instances { port, .. } => new_instances(state, env, rollout, ask, port),
        },
    })
}

/// The question that a rollout waits for now.
pub(crate) fn asked(rollout: &Rollout) -> Option<&Arc<Ask>> {
    match (rollout.current_step(), rollout.step) {
        (Some(Step::Ask(ask)), StepPhase::Started { .. }) => Some(ask),
        _ => None,
    }
}

/// The healthy instances of what the rollout moves to.
fn new_instances(
    state: &State,
    env: &Environment,
    rollout: &Rollout,
    ask: &Ask,
    port: &PortName,
) -> Vec<(String, SocketAddr)> {
    let slots = env.services.get(&ask.service).into_iter().flat_map(|service| service.slots.iter());
    let mut found = Vec::new();
    for (ordinal, slot) in slots {
        let Some(target) = want(env, rollout.target(), &ask.service, *ordinal) else { continue };
        let instances = slot.instances.iter().filter_map(|id| state.instance(*id));
        let new = instances.filter(|instance| target.fits(instance) && instance.is_routable());
        found.extend(new.filter_map(|instance| {
            let address = SocketAddr::new(instance.address?, *instance.spec.ports.get(port)?);
            Some((format!("{}/{ordinal}", ask.service), address))
        }));
    }
    found
}
