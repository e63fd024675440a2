//! The way from a peer to the controller: late, and in an order of its own, but never lying about one instance.

use std::collections::BTreeMap;

use kiln_core::Observation;
use kiln_model::InstanceId;

/// One connection of one life of the controller.
///
/// News of different instances overtake each other; those of one instance keep their order, as a stream of transitions
/// with a cursor gives them, and a list stands where it was taken. Without that the last word about an instance's health
/// could be an old one, and no protocol of transitions would work.
#[derive(Debug, Default)]
pub struct Link {
    /// Whether the connection is made.
    pub up: bool,
    last: BTreeMap<Option<InstanceId>, u64>,
    barrier: u64,
}

impl Link {
    /// Returns when an observation arrives that leaves at `now` and would take `delay`.
    pub fn arrival(&mut self, now: u64, delay: u64, observation: &Observation) -> u64 {
        let wanted = (now + delay).max(self.barrier);
        if matches!(observation, Observation::Listed { .. }) {
            let last = self.last.values().copied().max().unwrap_or(0);
            self.last.clear();
            self.barrier = wanted.max(last);
            return self.barrier;
        }
        let last = self.last.entry(subject(observation)).or_default();
        *last = wanted.max(*last);
        *last
    }

    /// Whether an observation may come a second time, much later, with nothing after it to set it right.
    pub fn is_harmless_late(observation: &Observation) -> bool {
        match observation {
            Observation::InstanceStarted { .. }
            | Observation::InstanceExited { .. }
            | Observation::InstanceRefused { .. }
            | Observation::InstanceDestroyed { .. }
            | Observation::TableAcknowledged { .. }
            | Observation::RequestsCounted { .. }
            | Observation::RolloutPredicted { .. }
            | Observation::NoticeGivenUp { .. }
            | Observation::Sampled { .. }
            | Observation::Measured { .. }
            | Observation::Asked { .. }
            | Observation::BackendIdle { .. } => true,
            Observation::ControllerStarted
            | Observation::ClockJumped { .. }
            | Observation::InstanceHealth { .. }
            | Observation::Listed { .. }
            | Observation::ListenerOpened { .. }
            | Observation::ListenerFailed { .. }
            | Observation::ListenerClosed { .. } => false,
        }
    }
}

fn subject(observation: &Observation) -> Option<InstanceId> {
    match observation {
        Observation::InstanceStarted { id, .. }
        | Observation::InstanceHealth { id, .. }
        | Observation::InstanceExited { id, .. }
        | Observation::InstanceRefused { id, .. }
        | Observation::InstanceDestroyed { id }
        | Observation::BackendIdle { id, .. } => Some(*id),
        _ => None,
    }
}
