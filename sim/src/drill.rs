//! A rollback tried on a copy of the state: the core alone in a kind world, in which whatever is asked for comes true.
//!
//! The history goes on untouched. So it may be tried at any moment: in the middle of a rollout, while one is paused or
//! goes back, beside instances that are dying.

use std::collections::BTreeSet;

use kiln_core::{
    ActionKind, Command, Input, InputKind, Observation, Observed, Refusal, Reply, State, apply, decide,
    next_deadline, number, observe, outstanding,
};
use kiln_model::instance::ExitStatus;
use kiln_model::{Actor, Digest, EnvKey, Fence, InstanceId, InstanceSpec, RevisionNumber, Timestamp};

use crate::stacks::{self, Nature};

/// Rounds of asking and answering. A rolling update of every service, one slot after the other, takes a few hundred.
const ROUNDS_MAX: u32 = 5_000;

/// The core and a copy of its state.
#[derive(Debug)]
pub struct Drill {
    state: State,
    observed: Observed,
    now: Timestamp,
    seed: u64,
    /// The questions that were answered: what is asked once need not be answered twice.
    answered: BTreeSet<(Fence, Option<InstanceId>)>,
    /// The images that can't be found any more.
    missing: BTreeSet<Digest>,
}

impl Drill {
    /// Begins from a copy of a state. Instances whose image is among the `missing` can't be created.
    pub fn new(state: &State, missing: BTreeSet<Digest>) -> Self {
        let (state, now) = (state.clone(), state.now());
        Self { state, observed: Observed::default(), now, seed: 0, answered: BTreeSet::new(), missing }
    }

    /// Goes back to a revision, all the way.
    ///
    /// # Errors
    /// It is refused, or it does not arrive; with what is the case instead.
    pub fn roll_back(&mut self, env: &EnvKey, to: RevisionNumber) -> Result<(), String> {
        let found = self.state.environment(env).ok_or("there is no such environment")?;
        if found.rollout.is_some() && found.target() == Some(to) {
            // It is on its way there, and goes on as it was asked to: that may mean waiting for somebody.
            return Ok(());
        }
        let wanted = found.spec(Some(to)).cloned();
        let command = Command::Rollback { env: env.clone(), to: Some(to), service: None, careful: false };
        match self.tell(InputKind::Command(command))? {
            Ok(_) => {}
            // Another environment may have taken its route since; that is no question of retention.
            Err(Refusal::RouteTaken { .. }) => return Ok(()),
            Err(refusal) => return Err(format!("it is refused: {refusal:?}")),
        }
        self.see_health()?;
        for _ in 0..ROUNDS_MAX {
            let found = self.state.environment(env).ok_or("the environment is gone")?;
            if found.rollout.is_none() {
                let arrived = wanted.is_some() && found.spec(found.current).cloned() == wanted;
                return if arrived { Ok(()) } else { Err(format!("it ends so: {:?}", found.last_rollout)) };
            }
            if !self.answer()? {
                let next = next_deadline(&self.state, self.now);
                self.now = next.ok_or_else(|| format!("nothing is waited for: {}", self.rollout(env)))?;
                self.tell(InputKind::Tick)?.map_err(|refusal| format!("{refusal:?}"))?;
            }
        }
        Err(format!("it does not end: {}", self.rollout(env)))
    }

    fn rollout(&self, env: &EnvKey) -> String {
        format!("{:?}", self.state.environment(env).map(|found| &found.rollout))
    }

    /// Does all that is outstanding and was not done; false if there is nothing.
    fn answer(&mut self) -> Result<bool, String> {
        let mut is_news = false;
        for action in outstanding(&self.state) {
            let subject = match &action.kind {
                ActionKind::CreateInstance { id, .. }
                | ActionKind::DestroyInstance { id, .. }
                | ActionKind::AwaitIdle(id) => Some(*id),
                _ => None,
            };
            if self.answered.insert((action.fence, subject)) {
                is_news = true;
                for observation in self.outcome(&action.kind, action.fence) {
                    self.see(observation)?;
                }
            }
        }
        Ok(is_news)
    }

    fn outcome(&self, kind: &ActionKind, fence: Fence) -> Vec<Observation> {
        match kind {
            ActionKind::CreateInstance { id, spec, .. } if self.missing.contains(&spec.image) => {
                let reason = "its image is gone".to_owned();
                vec![Observation::InstanceRefused { id: *id, reason }]
            }
            ActionKind::CreateInstance { id, spec, .. } => born(*id, spec),
            ActionKind::DestroyInstance { id, .. } => vec![Observation::InstanceDestroyed { id: *id }],
            ActionKind::AwaitIdle(id) => vec![Observation::BackendIdle { id: *id, fence }],
            ActionKind::PublishTable(table) => vec![Observation::TableAcknowledged { fence: table.fence }],
            ActionKind::OpenListener(listener) => {
                vec![Observation::ListenerOpened { listener: *listener, fence }]
            }
            ActionKind::CloseListener(listener) => {
                vec![Observation::ListenerClosed { listener: *listener, fence }]
            }
        }
    }

    /// The probes of what runs say that it is well, unless they said that it is not.
    fn see_health(&mut self) -> Result<(), String> {
        let silent: Vec<InstanceId> = self
            .state
            .instances()
            .filter(|instance| instance.address.is_some() && !instance.is_unhealthy())
            .map(|instance| instance.id)
            .collect();
        silent.into_iter().try_for_each(|id| self.see(healthy(id)))
    }

    fn see(&mut self, observation: Observation) -> Result<(), String> {
        self.tell(InputKind::Observation(observation))?.map(drop).map_err(|refusal| format!("{refusal:?}"))
    }

    fn tell(&mut self, kind: InputKind) -> Result<Result<Reply, Refusal>, String> {
        self.seed += 1;
        let input = Input { now: self.now, seed: self.seed, actor: Actor::Controller, kind };
        observe(&mut self.observed, &input);
        let decision = decide(&self.state, &self.observed, &input);
        for entry in number(&self.state, &decision.events, &input) {
            apply(&mut self.state, &entry)
                .map_err(|error| format!("what is decided does not apply: {error}"))?;
        }
        Ok(decision.reply)
    }
}

fn healthy(id: InstanceId) -> Observation {
    Observation::InstanceHealth { id, healthy: true, detail: "probe".into() }
}

/// An instance starts, and is as good as can be; a job ends well. Addresses need not differ: nothing is sent to them.
fn born(id: InstanceId, spec: &InstanceSpec) -> Vec<Observation> {
    let started = Observation::InstanceStarted { id, address: [10, 0, 0, 1].into() };
    let next = match stacks::nature(spec) {
        Nature::Job(_) => Observation::InstanceExited { id, status: ExitStatus::Code(0) },
        _ => healthy(id),
    };
    vec![started, next]
}
