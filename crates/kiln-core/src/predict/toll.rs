//! What a rollout costs while it runs: instances that work.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::event::{InstanceEvent, TrafficEvent};
use kiln_model::{EnvKey, Event, InstanceId, ServiceName};

use super::{Prediction, Risk};
use crate::serving::is_routed;
use crate::state::{Health, Instance, Phase, State};

/// Keeps count of what works; what exists is counted by the engine itself.
pub(super) struct Toll {
    key: EnvKey,
    /// What worked at the start.
    working: BTreeMap<InstanceId, ServiceName>,
    risks: BTreeMap<ServiceName, Risk>,
}

impl Toll {
    pub(super) fn new(state: &State, key: &EnvKey) -> Self {
        let mut toll = Self { key: key.clone(), working: BTreeMap::new(), risks: BTreeMap::new() };
        for instance in state.instances() {
            let Some((service, _)) = instance.slot().filter(|_| toll.works(state, instance)) else {
                continue;
            };
            let risk = toll.risks.entry(service.clone()).or_default();
            risk.before += 1;
            risk.fewest += 1;
            toll.working.insert(instance.id, service.clone());
        }
        toll
    }

    /// Whether an event may have changed how many work.
    pub(super) const fn matters(event: &Event) -> bool {
        matches!(
            event,
            Event::Traffic(TrafficEvent::Shifted { .. })
                | Event::Instance(
                    _,
                    InstanceEvent::BecameHealthy
                        | InstanceEvent::Warmed { .. }
                        | InstanceEvent::Retiring { .. }
                )
        )
    }

    /// Counts what works now. A decision changes everything at once, so it is counted once for each.
    pub(super) fn count(&mut self, state: &State) {
        let mut now: BTreeMap<&ServiceName, u32> = BTreeMap::new();
        for instance in state.instances().filter(|instance| self.works(state, instance)) {
            if let Some((service, _)) = instance.slot() {
                *now.entry(service).or_default() += 1;
            }
        }
        for (service, risk) in &mut self.risks {
            risk.fewest = risk.fewest.min(now.get(service).copied().unwrap_or(0));
        }
    }

    /// Writes down what it came to.
    pub(super) fn settle(mut self, state: &State, prediction: &mut Prediction) {
        let stays: BTreeSet<InstanceId> =
            state.instances().filter(|it| self.works(state, it)).map(|it| it.id).collect();
        for (_, service) in self.working.iter().filter(|(id, _)| !stays.contains(id)) {
            if let Some(risk) = self.risks.get_mut(service) {
                risk.replaced += 1;
            }
        }
        let last = state.environment(&self.key).and_then(|env| env.last_rollout.as_ref());
        prediction.extra = last.and_then(|last| last.extra).unwrap_or_default();
        self.risks.retain(|_, risk| risk.replaced > 0);
        prediction.services = self.risks;
    }

    fn works(&self, state: &State, instance: &Instance) -> bool {
        let is_well = instance.phase == Phase::Running && instance.health == Health::Healthy;
        let service = || {
            let env = state.environment(&self.key)?;
            env.service(instance.revision(), instance.slot()?.0)
        };
        is_well && (instance.is_routed() || !service().is_some_and(is_routed))
    }
}
