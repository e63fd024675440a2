//! What was seen and is not worth a line in the log: lost with the controller and seen again by the next one.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_model::route::Sampling;
use kiln_model::sample::WindowSamples;
use kiln_model::{EnvKey, InstanceId, Position, RolloutId, ServiceName};

use crate::bounds::{OBSERVED_MAX, SAMPLED_MAX};
use crate::input::{Input, InputKind, Observation};

/// What was seen and is not in the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// The highest question that the edge answered with "nothing is in flight", by instance.
    idle: BTreeMap<InstanceId, Position>,
    /// What the probes said last, by instance: a verdict may overtake the news of the start.
    health: BTreeMap<InstanceId, Seen>,
    /// What the edge counted last of the canaries, by service: only of the window that it counts now.
    samples: BTreeMap<(EnvKey, ServiceName), (Sampling, Arc<WindowSamples>)>,
}

/// What the probes of an instance said last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Whether it was healthy.
    pub(crate) healthy: bool,
    /// What the probe saw.
    pub(crate) detail: Arc<str>,
}

impl Observed {
    /// Whether the edge said that nothing was in flight to `id` since the table of version `since`.
    pub(crate) fn is_idle(&self, id: InstanceId, since: Position) -> bool {
        self.idle.get(&id).is_some_and(|asked| *asked >= since)
    }

    /// What the edge counted last in a window.
    pub(crate) fn samples(
        &self,
        env: &EnvKey,
        service: &ServiceName,
        rollout: RolloutId,
        window: u32,
    ) -> Option<&WindowSamples> {
        let (sampling, samples) = self.samples.get(&(env.clone(), service.clone()))?;
        (*sampling == Sampling { rollout, window }).then_some(&**samples)
    }

    /// What the probes of `id` said last.
    pub(crate) fn health(&self, id: InstanceId) -> Option<&Seen> {
        self.health.get(&id)
    }
}

/// Forgets something if too much is remembered: late news about what is destroyed already is never asked for.
fn bound<T>(seen: &mut BTreeMap<InstanceId, T>) {
    if seen.len() > OBSERVED_MAX {
        seen.pop_first();
    }
}

/// Takes an input into account. Called with every input before [`crate::decide()`] is.
pub fn observe(observed: &mut Observed, input: &Input) {
    let InputKind::Observation(observation) = &input.kind else { return };
    match observation {
        Observation::BackendIdle { id, fence } => {
            let asked = observed.idle.entry(*id).or_default();
            *asked = fence.position.max(*asked);
            bound(&mut observed.idle);
        }
        Observation::InstanceHealth { id, healthy, detail } => {
            let seen = Seen { healthy: *healthy, detail: detail.as_str().into() };
            observed.health.insert(*id, seen);
            bound(&mut observed.health);
        }
        Observation::InstanceDestroyed { id } => {
            observed.idle.remove(id);
            observed.health.remove(id);
        }
        Observation::Listed { instances, .. } => {
            for seen in instances {
                let Some(healthy) = seen.healthy else { continue };
                let known = observed.health.get(&seen.id).is_some_and(|known| known.healthy == healthy);
                if !known {
                    observed.health.insert(seen.id, Seen { healthy, detail: "".into() });
                }
            }
        }
        Observation::Sampled { env, service, sampling, samples } => {
            let counted = (*sampling, samples.clone());
            observed.samples.insert((env.clone(), service.clone()), counted);
            if observed.samples.len() > SAMPLED_MAX {
                observed.samples.pop_first();
            }
        }
        Observation::ControllerStarted
        | Observation::ClockJumped { .. }
        | Observation::InstanceStarted { .. }
        | Observation::InstanceExited { .. }
        | Observation::InstanceRefused { .. }
        | Observation::TableAcknowledged { .. }
        | Observation::RequestsCounted { .. }
        | Observation::RolloutPredicted { .. }
        | Observation::NoticeGivenUp { .. }
        | Observation::Measured { .. }
        | Observation::Asked { .. }
        | Observation::ListenerOpened { .. }
        | Observation::ListenerFailed { .. }
        | Observation::ListenerClosed { .. } => {}
    }
}
