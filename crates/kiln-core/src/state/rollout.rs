//! The move of an environment.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_model::event::Purpose;
use kiln_model::forecast::Extra;
use kiln_model::rollout::{Cause, Outcome, Step};
use kiln_model::{Actor, Position, RevisionNumber, RolloutId, ServiceName, Timestamp, Weight};

use super::{Room, Tries};
use crate::outside::Tally;

/// A rollout that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// Its id.
    pub id: RolloutId,
    /// When it started.
    pub started_at: Timestamp,
    /// Who asked for it.
    pub actor: Actor,
    /// The revision that served before.
    pub from: Option<RevisionNumber>,
    /// The revision to reach; none takes everything down.
    pub to: Option<RevisionNumber>,
    /// Why.
    pub cause: Cause,
    /// Forward or back.
    pub direction: Direction,
    /// What is to be done on the way that it goes now.
    pub steps: Arc<[Step]>,
    /// The first step that is not complete.
    pub next: u32,
    /// Whether that step began.
    pub step: StepPhase,
    /// When the last step ended or began: bounds the wait for the next one to begin.
    pub moved_at: Timestamp,
    /// The last table that the current step caused.
    pub table: Position,
    /// How many of the target's instances ended in it.
    pub exits: u32,
    /// What was last wrong with one of them.
    pub last_exit: Option<Arc<str>>,
    /// Why an instance of the target can't be created, or a job failed: there is no sense in waiting.
    pub hopeless: Option<Arc<str>>,
    /// Who wants no further step to begin, if somebody does.
    pub paused: Option<Pause>,
    /// That it failed and waits for somebody to decide, if it does.
    pub halted: Option<Halt>,
    /// The services whose requests are split between old and new instances.
    pub splits: BTreeMap<ServiceName, Split>,
    /// What was measured of metrics of outside since the requests of a service were last split.
    pub measured: BTreeMap<ServiceName, BTreeMap<String, Tally>>,
    /// Whether somebody let the current step be complete.
    pub promoted: bool,
    /// Whether the analysis that is the current step was inconclusive, and an approval is waited for.
    pub undecided: bool,
    /// How often that analysis took its time again.
    pub extended: u32,
    /// What became of the attempts of the current step.
    pub tries: Tries,
    /// What the environment's instances take; none of a rollout that a Kiln began that did not count it.
    pub room: Option<Room>,
}

/// A pause: no further step begins, and no wait for one is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Who wants it.
    pub by: Actor,
    /// The moment from which on time does not count; later than it was asked for if the clock jumped since.
    pub since: Timestamp,
}

/// A stop after a failure: no further step begins, and somebody decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halt {
    /// Why, for people.
    pub reason: Arc<str>,
    /// When it goes back all the same.
    pub until: Timestamp,
}

/// How the requests of a service are split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// The share of the new instances together.
    pub weight: Weight,
    /// Which split of the service it is in its rollout.
    pub window: u32,
    /// The share of the safe requests that is copied to the new instances while their weight is zero; none in a canary, whose
    /// strategy says what is copied.
    pub mirror: Option<Weight>,
}

impl Split {
    /// Whether the new instances get copies alone.
    pub fn is_mirror(&self) -> bool {
        self.mirror.is_some()
    }

    /// Whether the new instances get none of the requests that are drawn, but copies or what is aimed at them.
    pub fn is_apart(&self) -> bool {
        self.weight == Weight::ZERO
    }
}

/// Which way a rollout goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Direction {
    /// To its target.
    Forward,
    /// Back to where it came from.
    Back {
        /// Why.
        reason: Arc<str>,
    },
}

/// Whether a step began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepPhase {
    /// Not yet.
    Waiting,
    /// It began.
    Started {
        /// When the wait for it is over.
        deadline: Option<Timestamp>,
    },
}

/// A rollout that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedRollout {
    /// Its id.
    pub id: RolloutId,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Who asked for it.
    pub actor: Actor,
    /// The revision that served before.
    pub from: Option<RevisionNumber>,
    /// The revision that was to be reached.
    pub to: Option<RevisionNumber>,
    /// Why.
    pub cause: Cause,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, for people; empty if all went well.
    pub reason: Arc<str>,
    /// What the environment's instances took at the peak; none where it was not counted.
    pub extra: Option<Extra>,
}

impl Rollout {
    /// Returns the revision that it moves to now: where it came from if it goes back.
    pub fn target(&self) -> Option<RevisionNumber> {
        match self.direction {
            Direction::Forward => self.to,
            Direction::Back { .. } => self.from,
        }
    }

    /// Whether it goes back.
    pub fn is_going_back(&self) -> bool {
        matches!(self.direction, Direction::Back { .. })
    }

    /// Returns the step that is to be done next, or is being done.
    pub fn current_step(&self) -> Option<&Step> {
        self.steps.get(usize::try_from(self.next).ok()?)
    }

    /// Whether its step waits for something that somebody may decide instead.
    pub fn is_promotable(&self) -> bool {
        matches!(
            self.current_step(),
            Some(Step::Hold { .. } | Step::Analyse { .. } | Step::Approve { .. } | Step::Soak { .. })
        )
    }

    /// Whether the instances of a slot may not fail now: they soak.
    pub(crate) fn soaks(&self, service: &ServiceName, ordinal: u32) -> bool {
        match self.current_step() {
            Some(Step::Soak { slots, .. }) if self.step != StepPhase::Waiting => {
                slots.iter().any(|range| range.service == *service && range.contains(ordinal))
            }
            _ => false,
        }
    }

    /// Whether step `index` began or is complete.
    pub fn has_begun(&self, index: u32) -> bool {
        index < self.next || (index == self.next && self.step != StepPhase::Waiting)
    }

    /// Whether an instance with this purpose belongs to the revision that it moves to.
    pub(crate) fn is_for_target(&self, purpose: &Purpose) -> bool {
        matches!(purpose, Purpose::Slot { revision, .. } if Some(*revision) == self.target())
    }
}
