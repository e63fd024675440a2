//! Where the rules look: at what was touched since the environment was last at rest.
//!
//! After every decision no rule has anything to add, and until the next one nothing changes but what that writes down itself,
//! what was observed, and time. So a rule need not look where none of these was. What is missed would stay as it is for ever:
//! whatever may matter to more than a few slots touches the whole service, and what may matter to more than that everything.
//! In debug builds each decision is followed by a look at everything, which must add nothing: see [`super::work`].

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::event::{EnvironmentEvent, InstanceEvent, Purpose, RolloutEvent, TrafficEvent};
use kiln_model::rollout::{Slots, Step};
use kiln_model::service::{Service, Strategy};
use kiln_model::{Event, InstanceId, ServiceName};

use crate::state::{Environment, State};

/// Slots of one service beyond which it is looked at as a whole: there is not much left to be spared.
const SLOTS_MAX: usize = 100;

/// What was touched of one environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Focus {
    pub(super) is_everything: bool,
    pub(super) services: BTreeMap<ServiceName, Reach>,
    /// The services of which only such was touched as their requests do not go by: instances that are to be created.
    calm: BTreeSet<ServiceName>,
    /// Whether the rollout moved, or learned something.
    pub(super) rollout: bool,
}

/// What was touched of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reach {
    /// Any of its slots.
    Whole,
    /// These slots.
    Slots(BTreeSet<u32>),
}

impl Focus {
    pub(super) fn everything() -> Self {
        Self { is_everything: true, ..Self::default() }
    }

    /// Whether something was touched by which the requests of a service go.
    pub(super) fn is_stirred(&self, service: &ServiceName) -> bool {
        !self.calm.contains(service)
    }

    pub(super) fn slot(&mut self, service: &ServiceName, ordinal: u32) {
        self.calm.remove(service);
        self.reach(service, ordinal);
    }

    /// Adds something that the requests of a service do not go by.
    fn calmly(&mut self, service: &ServiceName, add: impl FnOnce(&mut Self)) {
        let is_calm = !self.services.contains_key(service) || self.calm.contains(service);
        add(self);
        if is_calm && !self.is_everything {
            self.calm.insert(service.clone());
        }
    }

    fn reach(&mut self, service: &ServiceName, ordinal: u32) {
        if self.is_everything {
            return;
        }
        match self.services.get_mut(service) {
            None => drop(self.services.insert(service.clone(), Reach::Slots(BTreeSet::from([ordinal])))),
            Some(Reach::Whole) => {}
            Some(Reach::Slots(slots)) if slots.len() < SLOTS_MAX => drop(slots.insert(ordinal)),
            Some(reach) => *reach = Reach::Whole,
        }
    }

    fn service(&mut self, service: &ServiceName) {
        self.calm.remove(service);
        if !self.is_everything && self.services.get(service) != Some(&Reach::Whole) {
            self.services.insert(service.clone(), Reach::Whole);
        }
    }

    pub(super) fn instance(&mut self, state: &State, id: InstanceId) {
        match state.instance(id).map(|instance| instance.slot()) {
            Some(Some((service, ordinal))) => self.slot(service, ordinal),
            // A check's: it is in no slot.
            Some(None) => {}
            // It is gone, and with it what says where it was.
            None => *self = Self::everything(),
        }
    }

    /// Adds what an event touched that was just applied to its environment.
    pub(super) fn add(&mut self, state: &State, env: &Environment, event: &Event) {
        if self.is_everything {
            return;
        }
        match event {
            Event::Instance(_, InstanceEvent::Requested { purpose: Purpose::Slot { slot, .. }, .. }) => {
                // Thousands of these may follow each other.
                if self.services.get(&slot.service) != Some(&Reach::Whole) {
                    self.calmly(&slot.service, |focus| focus.reach(&slot.service, slot.ordinal));
                }
            }
            // In no slot.
            Event::Instance(_, InstanceEvent::Requested { .. }) => {}
            // Who writes it down says where it was.
            Event::Instance(_, InstanceEvent::Destroyed) => {}
            Event::Instance(id, _) => self.instance(state, *id),
            Event::Traffic(TrafficEvent::Shifted { weights }) => {
                weights.iter().for_each(|(id, _)| self.instance(state, *id));
                self.rollout = true;
            }
            Event::Traffic(_) => self.rollout = true,
            Event::Rollout(event) => self.add_rollout(env, event),
            // Nothing that is there is of it.
            Event::Environment(EnvironmentEvent::RevisionReleased { .. }) | Event::Check(..) => {}
            Event::Environment(_) | Event::Control(_) => *self = Self::everything(),
        }
    }

    fn add_rollout(&mut self, env: &Environment, event: &RolloutEvent) {
        self.rollout = true;
        match event {
            RolloutEvent::StepStarted { index, .. } => self.step(env, *index, true),
            // From here on the next one is the current one.
            RolloutEvent::StepCompleted { index } => {
                self.step(env, *index, false);
                self.step(env, index.saturating_add(1), false);
            }
            // Nothing but the rollout itself is judged by them.
            RolloutEvent::Analysed { .. }
            | RolloutEvent::Extended { .. }
            | RolloutEvent::Measured { .. }
            | RolloutEvent::Tried { .. }
            | RolloutEvent::Counted { .. }
            | RolloutEvent::Predicted { .. }
            | RolloutEvent::NotTold { .. } => {}
            // What each slot is to hold is another question from here on.
            RolloutEvent::Started { .. }
            | RolloutEvent::GoingBack { .. }
            | RolloutEvent::Finished { .. }
            | RolloutEvent::Halted { .. }
            | RolloutEvent::Paused
            | RolloutEvent::Resumed
            | RolloutEvent::Promoted { .. } => *self = Self::everything(),
        }
    }

    /// What a step that begins, comes to be the current one or ends means for slots.
    fn step(&mut self, env: &Environment, index: u32, begins: bool) {
        let Some(rollout) = &env.rollout else { return *self = Self::everything() };
        let step = usize::try_from(index).ok().and_then(|at| rollout.steps.get(at));
        match step {
            Some(Step::Create { slots } | Step::WaitHealthy { slots, .. } | Step::Shift { slots, .. }) => {
                for range in slots {
                    let splits = |service: &Service| {
                        matches!(service.strategy, Strategy::BlueGreen | Strategy::Canary(_))
                    };
                    let may_split = env.service(rollout.to, &range.service).is_none_or(splits);
                    let is_split = rollout.splits.contains_key(&range.service);
                    let is_shift = matches!(step, Some(Step::Shift { .. }));
                    let creates = matches!(step, Some(Step::Create { .. }));
                    if is_split || (may_split && begins && is_shift) {
                        // Who takes part is another question, or whether there is a split at all.
                        self.service(&range.service);
                    } else if begins && creates && !range.is_baseline() {
                        self.calmly(&range.service, |focus| focus.range(range));
                    } else if begins && (creates || is_shift) {
                        self.range(range);
                    }
                }
            }
            Some(Step::Retire { slots }) if begins => slots.iter().for_each(|range| self.range(range)),
            Some(Step::Split { service, .. } | Step::Mirror { service, .. }) => self.service(service),
            // A job's instance is wanted while its step runs, and no longer.
            Some(Step::Run { job, .. }) => self.service(job),
            Some(
                Step::OpenListeners
                | Step::Ask(_)
                | Step::Hold { .. }
                | Step::Soak { .. }
                | Step::Analyse { .. }
                | Step::Approve { .. }
                | Step::Drain { .. }
                | Step::KeepWarm { .. }
                | Step::Retire { .. },
            )
            | None => {}
        }
    }

    fn range(&mut self, range: &Slots) {
        let count = usize::try_from(range.count).unwrap_or(usize::MAX);
        if count > SLOTS_MAX {
            return self.service(&range.service);
        }
        (range.first..range.first.saturating_add(range.count)).for_each(|at| self.slot(&range.service, at));
    }

    /// Adds what another one has.
    pub(super) fn join(&mut self, other: &Self) {
        if self.is_everything || other.is_everything {
            *self = Self::everything();
            return;
        }
        self.rollout |= other.rollout;
        for (service, reach) in &other.services {
            let add = |focus: &mut Self| match reach {
                Reach::Whole => focus.service(service),
                Reach::Slots(slots) => slots.iter().for_each(|ordinal| focus.slot(service, *ordinal)),
            };
            if other.is_stirred(service) { add(self) } else { self.calmly(service, add) }
        }
    }
}
