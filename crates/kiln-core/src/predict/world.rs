//! One environment in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use kiln_model::event::{Purpose, RolloutEvent};
use kiln_model::instance::ExitStatus;
use kiln_model::rollout::Step;
use kiln_model::route::Listener;
use kiln_model::service::{ServiceKind, Strategy};
use kiln_model::{Actor, Entry, EnvKey, Event, InstanceId, Millis, Position, ServiceName, Timestamp};

use super::toll::Toll;
use super::verdict;
use super::{Delays, PredictError, PredictedStep, Prediction};
use crate::action::{Action, ActionKind};
use crate::decide::{Reply, decide, number};
use crate::input::{Command, Input, InputKind, Observation, Refusal};
use crate::observed::{Observed, observe};
use crate::outstanding::outstanding;
use crate::state::{Health, Parts, Phase, State, StepPhase};

/// What the edge and the host take to answer about tables and sockets: milliseconds on every machine.
const ANSWER: Millis = Millis(5);

/// A rollout of the largest environment that is simulated takes some ten thousand.
const TURNS_MAX: usize = 200_000;

/// Everything outside the core, for one environment.
pub(super) struct World<'a> {
    state: State,
    observed: Observed,
    now: Timestamp,
    seed: u64,
    wake_at: Option<Timestamp>,
    /// What will happen, in order.
    later: BTreeMap<(Timestamp, u64), InputKind>,
    /// The actions that were carried out.
    issued: BTreeSet<Issued>,
    /// The step whose end somebody else decides is looked at once.
    decided: Option<u32>,
    key: EnvKey,
    delays: &'a dyn Fn(&ServiceName) -> Delays,
    toll: Toll,
    prediction: Prediction,
    began: Option<Timestamp>,
    steps_began: BTreeMap<u32, Timestamp>,
    /// Who decides next, where only some may.
    approver: Option<String>,
}

/// An action that was carried out: by its intent and its subject.
type Issued = (Position, u8, Option<InstanceId>, Option<Listener>);

impl<'a> World<'a> {
    /// None if the state is none that was ever whole.
    pub(super) fn new(
        state: &State,
        key: &EnvKey,
        delays: &'a dyn Fn(&ServiceName) -> Delays,
    ) -> Option<Self> {
        let state = State::from_parts(of_one(state, key)).ok()?;
        let mut world = Self {
            observed: Observed::default(),
            now: state.now(),
            seed: 0,
            wake_at: None,
            later: BTreeMap::new(),
            issued: BTreeSet::new(),
            decided: None,
            key: key.clone(),
            delays,
            toll: Toll::new(&state, key),
            prediction: Prediction::default(),
            began: None,
            steps_began: BTreeMap::new(),
            approver: None,
            state,
        };
        if world.state.term().0 == 0 {
            // Nothing ever ran here.
            world.feed(InputKind::Observation(Observation::ControllerStarted)).ok()?.ok()?;
        }
        world.expect_health();
        Some(world)
    }

    /// Asks for the rollout that is to be predicted.
    pub(super) fn ask(&mut self, command: Command) -> Result<(), PredictError> {
        self.feed(InputKind::Command(command))?.map(drop).map_err(PredictError::Refused)
    }

    /// Lets happen what follows, until the rollout is over.
    pub(super) fn run_to_the_end(mut self) -> Result<Prediction, PredictError> {
        for _ in 0..TURNS_MAX {
            // One that stopped waits for somebody, whom this world does not have.
            let rollout = self.state.environment(&self.key).and_then(|env| env.rollout.as_ref());
            let is_over = rollout.is_none_or(|rollout| rollout.halted.is_some());
            if is_over {
                self.toll.settle(&self.state, &mut self.prediction);
                self.prediction.total = self.now.since(self.began.unwrap_or(self.now));
                return Ok(self.prediction);
            }
            self.turn()?;
        }
        Err(PredictError::NoEnd)
    }

    /// Lets the next thing happen.
    fn turn(&mut self) -> Result<(), PredictError> {
        let is_due = |world: &Self| world.later.keys().next().is_some_and(|(due, _)| *due <= world.now);
        if !is_due(self) {
            // Only once all of a moment happened: what is outstanding is looked for in everything that exists.
            for action in outstanding(&self.state) {
                self.carry_out(action);
            }
            self.decide_gate();
        }
        let next = self.later.keys().next().map(|(due, _)| *due);
        let woken = self.wake_at.filter(|moment| next.is_none_or(|next| *moment < next));
        let input = match (woken, self.later.pop_first()) {
            (Some(moment), first) => {
                self.later.extend(first);
                self.now = self.now.max(moment);
                InputKind::Tick
            }
            (None, Some(((due, _), input))) => {
                self.now = self.now.max(due);
                input
            }
            (None, None) => return Err(PredictError::NoEnd),
        };
        // What was to be decided may be over already.
        self.feed(input).map(drop)
    }

    fn feed(&mut self, kind: InputKind) -> Result<Result<Reply, Refusal>, PredictError> {
        self.seed += 1;
        let approver = if matches!(kind, InputKind::Command(_)) { self.approver.take() } else { None };
        let actor = approver.map_or(Actor::Controller, Actor::User);
        let input = Input { now: self.now, seed: self.seed, actor, kind };
        observe(&mut self.observed, &input);
        let decision = decide(&self.state, &self.observed, &input);
        let mut matters = false;
        for entry in number(&self.state, &decision.events, &input) {
            // Every history says that a decision is legal; a plan is not the place to fail for it.
            crate::apply::apply(&mut self.state, &entry).map_err(|_| PredictError::NoEnd)?;
            matters |= Toll::matters(&entry.event);
            self.note(&entry);
        }
        if matters {
            self.toll.count(&self.state);
        }
        self.wake_at = decision.wake_at;
        Ok(decision.reply)
    }

    /// Notes what the log says of the rollout.
    fn note(&mut self, entry: &Entry) {
        let Event::Rollout(event) = &entry.event else { return };
        match event {
            RolloutEvent::Started { steps, .. } => {
                self.began = Some(entry.at);
                let step = |step: &Step| PredictedStep { step: step.clone(), took: None, extended: 0 };
                self.prediction.steps = steps.iter().map(step).collect();
            }
            RolloutEvent::StepStarted { index, .. } => drop(self.steps_began.insert(*index, entry.at)),
            RolloutEvent::StepCompleted { index } if self.prediction.goes_back.is_none() => {
                let began = self.steps_began.get(index).copied();
                let step = usize::try_from(*index).ok().and_then(|at| self.prediction.steps.get_mut(at));
                if let (Some(began), Some(step)) = (began, step) {
                    step.took = Some(entry.at.since(began));
                }
            }
            RolloutEvent::Extended { index, times, .. } => {
                let step = usize::try_from(*index).ok().and_then(|at| self.prediction.steps.get_mut(at));
                if let Some(step) = step.filter(|_| self.prediction.goes_back.is_none()) {
                    step.extended = *times;
                }
            }
            RolloutEvent::GoingBack { reason, .. } | RolloutEvent::Halted { reason, .. } => {
                self.prediction.goes_back = Some(reason.clone());
            }
            _ => {}
        }
    }

    /// Instances that start when the prediction begins come to be healthy as any other.
    fn expect_health(&mut self) {
        let starting = |instance: &&crate::state::Instance| {
            instance.phase == Phase::Running
                && instance.health == Health::Unknown
                && instance.spec.health.is_some()
        };
        let starting: Vec<InstanceId> =
            self.state.instances().filter(starting).map(|instance| instance.id).collect();
        for id in starting {
            let delay = self.delays_of(id).healthy;
            self.see_after(delay, healthy(id));
        }
    }

    fn carry_out(&mut self, action: Action) {
        let Action { fence, kind } = action;
        let key = match &kind {
            ActionKind::OpenListener(listener) => (fence.position, 0, None, Some(*listener)),
            ActionKind::CloseListener(listener) => (fence.position, 1, None, Some(*listener)),
            ActionKind::CreateInstance { id, .. } => (fence.position, 2, Some(*id), None),
            ActionKind::DestroyInstance { id, .. } => (fence.position, 3, Some(*id), None),
            ActionKind::PublishTable(_) => (fence.position, 4, None, None),
            ActionKind::AwaitIdle(id) => (fence.position, 5, Some(*id), None),
        };
        if !self.issued.insert(key) {
            return;
        }
        match kind {
            ActionKind::OpenListener(listener) => {
                self.see_after(ANSWER, Observation::ListenerOpened { listener, fence });
            }
            ActionKind::CloseListener(listener) => {
                self.see_after(ANSWER, Observation::ListenerClosed { listener, fence });
            }
            ActionKind::CreateInstance { id, service, spec, .. } => {
                self.create(id, &service, spec.health.is_some());
            }
            ActionKind::DestroyInstance { id, grace } => {
                // After its grace an instance is killed.
                let delay = self.delays_of(id).stop.0.min(grace.0.saturating_add(ANSWER.0));
                self.see_after(Millis(delay), Observation::InstanceDestroyed { id });
            }
            ActionKind::PublishTable(_) => self.see_after(ANSWER, Observation::TableAcknowledged { fence }),
            ActionKind::AwaitIdle(id) => {
                let delay = self.delays_of(id).drain;
                self.see_after(delay, Observation::BackendIdle { id, fence });
            }
        }
    }

    fn create(&mut self, id: InstanceId, service: &ServiceName, has_health: bool) {
        // Nobody connects: one address serves all.
        let address = IpAddr::from(Ipv4Addr::LOCALHOST);
        self.see_after(Millis(0), Observation::InstanceStarted { id, address });
        let delays = (self.delays)(service);
        let env = self.state.environment(&self.key);
        let found = env.and_then(|env| env.service(env.target(), service));
        if found.is_some_and(|found| found.kind == ServiceKind::Job) {
            let status = ExitStatus::Code(0);
            self.see_after(delays.run, Observation::InstanceExited { id, status });
        } else if has_health {
            self.see_after(delays.healthy, healthy(id));
        }
    }

    /// An approval is there at once, an analysis passes when such analyses do.
    fn decide_gate(&mut self) {
        let Some(rollout) = self.state.environment(&self.key).and_then(|env| env.rollout.as_ref()) else {
            return;
        };
        if rollout.step == StepPhase::Waiting || self.decided == Some(rollout.next) {
            return;
        }
        let (index, step) = (rollout.next, rollout.current_step().cloned());
        let delay = match step {
            Some(Step::Approve { by, .. }) => {
                self.prediction.approvals += 1;
                self.approver = by.into_iter().next();
                Millis(0)
            }
            Some(Step::Analyse { service, within, .. }) => {
                // At the last moment before it would count as undecided.
                let longest = self.waited_for(&service, within).0.saturating_sub(1);
                Millis(self.analysed_after(&service).map_or(longest, |it| it.0.min(longest)))
            }
            Some(Step::Ask(_)) => {
                self.decided = Some(index);
                return self.answer(index);
            }
            _ => return,
        };
        self.decided = Some(index);
        let promote = Command::Promote { env: self.key.clone(), step: Some(index) };
        self.after(delay, InputKind::Command(promote));
    }

    /// What is asked over HTTP is answered at once, as it should be.
    fn answer(&mut self, index: u32) {
        let Some(rollout) = self.state.environment(&self.key).and_then(|env| env.rollout.as_ref()) else {
            return;
        };
        let (env, rollout, known) = (self.key.clone(), rollout.id, rollout.tries.failed);
        let answer = Ok(String::new());
        self.see_after(Millis(0), Observation::Asked { env, rollout, index, known, answer });
    }

    /// How long an analysis may take, with all its extensions.
    fn waited_for(&self, service: &ServiceName, within: Millis) -> Millis {
        let env = self.state.environment(&self.key);
        let found = env.and_then(|env| env.service(env.target(), service));
        let extensions = found.map_or(0, |found| match &found.strategy {
            Strategy::Canary(canary) => canary.analysis.as_ref().map_or(0, |it| it.extensions),
            _ => 0,
        });
        Millis(within.0.saturating_mul(u64::from(extensions) + 1))
    }

    /// How long an analysis takes, if that can be told: as long as the last ones, or as its requests take to come.
    fn analysed_after(&self, service: &ServiceName) -> Option<Millis> {
        let delays = (self.delays)(service);
        let by_requests = || {
            let env = self.state.environment(&self.key)?;
            verdict::expected(env, env.rollout.as_ref()?, service, delays.per_minute)
        };
        delays.analysis.or_else(by_requests)
    }

    fn delays_of(&self, id: InstanceId) -> Delays {
        let service = self.state.instance(id).and_then(|instance| match &instance.purpose {
            Purpose::Slot { slot, .. } => Some(&slot.service),
            Purpose::Check(_) => None,
        });
        let none = Millis(0);
        let at_once =
            Delays { healthy: none, drain: none, stop: none, run: none, analysis: None, per_minute: None };
        service.map_or(at_once, |service| (self.delays)(service))
    }

    fn see_after(&mut self, delay: Millis, observation: Observation) {
        self.after(delay, InputKind::Observation(observation));
    }

    fn after(&mut self, delay: Millis, input: InputKind) {
        self.seed += 1;
        self.later.insert((self.now.plus(delay), self.seed), input);
    }
}

fn healthy(id: InstanceId) -> Observation {
    Observation::InstanceHealth { id, healthy: true, detail: String::new() }
}

/// What is to be known of a state to move one environment: the others neither help nor hinder.
fn of_one(state: &State, key: &EnvKey) -> Parts {
    let Parts { term, position, now, origins, mut environments, mut instances, listeners, table, .. } =
        state.to_parts();
    environments.retain(|env| env.key == *key);
    instances.retain(|instance| instance.env == *key && instance.slot().is_some());
    let used = instances.iter().map(|instance| instance.id).collect();
    Parts {
        term,
        position,
        now,
        origins,
        environments,
        instances,
        used,
        listeners,
        table,
        ..Parts::default()
    }
}
