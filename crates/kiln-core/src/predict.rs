//! What a rollout will come to: the same engine in a small world that answers every action after a given delay.
//!
//! The world has one environment, no clock and no chance: time is that of the next thing that happens. So a prediction is a
//! function of the state, the command and the delays, and what the engine would do is never written a second time.

mod toll;
mod verdict;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_model::forecast::{Extra, Forecast};
use kiln_model::release::RevisionSpec;
use kiln_model::rollout::Step;
use kiln_model::{Digest, EnvKey, Millis, ServiceName};

use crate::input::{Admission, Command, Refusal};
use crate::state::State;
use world::World;

/// How long the things take that a rollout waits for, of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    /// From the intent to create an instance until it is healthy, where the service has a health check.
    pub healthy: Millis,
    /// Until the requests in flight to an instance have ended.
    pub drain: Millis,
    /// From the intent to destroy an instance until nothing is left of it.
    pub stop: Millis,
    /// How long a job runs.
    pub run: Millis,
    /// Until an analysis comes to its verdict; none means that the requests decide, and where that can't be told either, all
    /// the time that it may take.
    pub analysis: Option<Millis>,
    /// How many requests come to the service in a minute, if that is known.
    pub per_minute: Option<u64>,
}

/// What is predicted of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prediction {
    /// What will be done, and how long each takes.
    pub steps: Vec<PredictedStep>,
    /// How long all of it takes. Approvals and outside answers take no time.
    pub total: Millis,
    /// Why it would go back, if it would.
    pub goes_back: Option<String>,
    /// How many approvals it waits for.
    pub approvals: u32,
    /// What instances take at the peak.
    pub extra: Extra,
    /// What is risked, for each service of which an instance is replaced.
    pub services: BTreeMap<ServiceName, Risk>,
}

impl Prediction {
    /// What of it is kept with the rollout.
    pub fn forecast(&self) -> Forecast {
        Forecast {
            total: self.total,
            steps: self.steps.iter().map(|step| step.took).collect(),
            extra: self.extra,
            approvals: self.approvals,
            goes_back: self.goes_back.clone(),
        }
    }
}

/// A step with the time that it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PredictedStep {
    /// The step.
    pub step: Step,
    /// How long it takes; none if it is not reached.
    pub took: Option<Millis>,
    /// How often it takes its time again, of an analysis.
    pub extended: u32,
}

/// What a rollout risks of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Risk {
    /// How many of the instances that work now are replaced or removed.
    pub replaced: u32,
    /// How many work now: are healthy, and sent requests to where the service is routed.
    pub before: u32,
    /// How many work at least, at any moment.
    pub fewest: u32,
}

/// Why nothing is predicted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PredictError {
    /// The command would be refused.
    #[error("it would be refused")]
    Refused(Refusal),
    /// It would take longer than anybody waits for a plan.
    #[error("{0} instances are more than are simulated")]
    TooLarge(usize),
    /// The rollout waits for something that does not happen in this world.
    #[error("it would wait for something that can't be foreseen")]
    NoEnd,
}

/// The old and new instances that are simulated at most: replaced one by one, which takes longest, twice as many take seconds.
const INSTANCES_MAX: usize = 500;

/// Predicts moving an environment, which need not exist, to a revision.
///
/// # Errors
/// See [`PredictError`].
pub fn predict_up(
    state: &State,
    key: &EnvKey,
    spec: &Arc<RevisionSpec>,
    delays: &dyn Fn(&ServiceName) -> Delays,
) -> Result<Prediction, PredictError> {
    let nothing = Digest::new([0; 32]);
    let up = Command::Up {
        env: key.clone(),
        origin: state.origin(&key.stack).unwrap_or_default().to_owned(),
        adopt: false,
        base: None,
        release: nothing,
        binding: nothing,
        spec: Arc::clone(spec),
        checks: Vec::new(),
        // What is asked is what happens once it is let in.
        admission: Admission { break_glass: Some(String::new()), ..Admission::default() },
    };
    let there = state.environment(key).map_or(0, |env| state.instances_of(env).count());
    let wanted: usize =
        spec.services.values().map(|service| usize::try_from(service.replicas).unwrap_or(usize::MAX)).sum();
    let size = there.saturating_add(wanted);
    if size > INSTANCES_MAX {
        return Err(PredictError::TooLarge(size));
    }
    run(state, key, up, delays)
}

/// Predicts what a command that begins a rollout of an environment will come to.
///
/// # Errors
/// See [`PredictError`].
pub fn predict(
    state: &State,
    command: &Command,
    delays: &dyn Fn(&ServiceName) -> Delays,
) -> Result<Prediction, PredictError> {
    let key = match command {
        // What it needs to be let in is no matter of how long it takes.
        Command::Up { env, spec, .. } => return predict_up(state, env, spec, delays),
        Command::Rollback { env, .. } | Command::Down { env } => env,
        _ => return Err(PredictError::NoEnd),
    };
    let env = state.environment(key);
    // Each instance that is there is replaced at most once.
    let size = env.map_or(0, |env| state.instances_of(env).count()).saturating_mul(2);
    if size > INSTANCES_MAX {
        return Err(PredictError::TooLarge(size));
    }
    run(state, key, command.clone(), delays)
}

fn run(
    state: &State,
    key: &EnvKey,
    command: Command,
    delays: &dyn Fn(&ServiceName) -> Delays,
) -> Result<Prediction, PredictError> {
    let mut world = World::new(state, key, delays).ok_or(PredictError::NoEnd)?;
    world.ask(command)?;
    world.run_to_the_end()
}
