//! What a rollout costs while it runs: memory, and instances that work.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::event::{InstanceEvent, TrafficEvent};
use kiln_model::{ByteSize, EnvKey, Event, InstanceId, ServiceName};

use super::{Prediction, Risk};
use crate::serving::is_routed;
use crate::state::{Health, Instance, Phase, State};

/// Keeps count of what exists and what works.
pub(super) struct Toll {
    key: EnvKey,
    /// What exists, with the limit of its memory.
    there: BTreeMap<InstanceId, Option<u64>>,
    memory: Peak,
    unlimited: Peak,
    /// What worked at the start.
    working: BTreeMap<InstanceId, ServiceName>,
    risks: BTreeMap<ServiceName, Risk>,
}

/// A number, where it began and how high it came.
#[derive(Default)]
struct Peak {
    start: u64,
    now: u64,
    highest: u64,
}

impl Peak {
    fn add(&mut self, by: u64) {
        self.now = self.now.saturating_add(by);
        self.highest = self.highest.max(self.now);
    }

    fn begin(&mut self) {
        (self.start, self.highest) = (self.now, self.now);
    }

    const fn extra(&self) -> u64 {
        self.highest.saturating_sub(self.start)
    }
}

impl Toll {
    pub(super) fn new(state: &State, key: &EnvKey) -> Self {
        let mut toll = Self {
            key: key.clone(),
            there: BTreeMap::new(),
            memory: Peak::default(),
            unlimited: Peak::default(),
            working: BTreeMap::new(),
            risks: BTreeMap::new(),
        };
        state.instances().for_each(|instance| toll.arrive(instance));
        toll.memory.begin();
        toll.unlimited.begin();
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

    /// Takes an event into account that was applied.
    pub(super) fn note(&mut self, state: &State, event: &Event) {
        match event {
            Event::Instance(id, InstanceEvent::Requested { .. }) => {
                if let Some(instance) = state.instance(*id) {
                    self.arrive(instance);
                }
            }
            Event::Instance(id, InstanceEvent::Destroyed) => match self.there.remove(id) {
                Some(Some(bytes)) => self.memory.now = self.memory.now.saturating_sub(bytes),
                Some(None) => self.unlimited.now = self.unlimited.now.saturating_sub(1),
                None => {}
            },
            _ => {}
        }
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
        prediction.memory_extra = ByteSize(self.memory.extra());
        prediction.unlimited_extra = u32::try_from(self.unlimited.extra()).unwrap_or(u32::MAX);
        self.risks.retain(|_, risk| risk.replaced > 0);
        prediction.services = self.risks;
    }

    fn arrive(&mut self, instance: &Instance) {
        let memory = instance.spec.limits.memory.map(|limit| limit.0);
        self.there.insert(instance.id, memory);
        match memory {
            Some(bytes) => self.memory.add(bytes),
            None => self.unlimited.add(1),
        }
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
