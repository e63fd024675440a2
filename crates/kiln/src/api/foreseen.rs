//! The shapes of a prediction.

use serde::{Deserialize, Serialize};

use super::sealed::Sealed;

/// Asks what moving an environment to this would come to. Nothing of it need be stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predict {
    /// What would run.
    pub sealed: Sealed,
}

/// What a rollout is expected to come to: the engine's own steps, in a simulated world.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Prediction {
    /// Why nothing is predicted, for people; then all else is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
    /// How long all of it takes, without the time that people take to approve.
    pub total_ms: u64,
    /// What will be done, in order.
    pub steps: Vec<PredictedStep>,
    /// Why it would go back, if it would.
    pub goes_back: Option<String>,
    /// How many approvals it waits for.
    pub approvals: u32,
    /// How much more memory instances may take at the peak than now, by their limits.
    pub memory_extra_bytes: u64,
    /// How many more instances without such a limit exist at the peak than now.
    pub unlimited_extra: u32,
    /// What is risked of each service of which an instance is replaced.
    pub services: Vec<ServiceRisk>,
    /// What it rests on.
    pub delays: Vec<AssumedDelay>,
}

/// What was predicted of a rollout when it began.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Predicted {
    /// Why nothing was predicted, for people; then all else is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
    /// How long all of it takes, without the time that people take to approve.
    pub total_ms: u64,
    /// How many approvals it waits for.
    pub approvals: u32,
    /// Why it would go back, if it would.
    pub goes_back: Option<String>,
    /// How much more memory instances take at the peak than at the start, by their limits.
    pub memory_extra_bytes: u64,
    /// How many more instances without such a limit exist at the peak than at the start.
    pub unlimited_extra: u32,
}

/// A step that is expected.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PredictedStep {
    /// What it does, for people.
    pub text: String,
    /// How long it takes; none if it is not reached.
    pub took_ms: Option<u64>,
}

/// What a rollout risks of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceRisk {
    /// The service.
    pub service: String,
    /// How many of the instances that work now are replaced or removed.
    pub replaced: u32,
    /// How many work now.
    pub before: u32,
    /// How many work at least, at any moment.
    pub fewest: u32,
}

/// A delay that a prediction rests on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AssumedDelay {
    /// The service.
    pub service: String,
    /// `healthy`, `drain`, `stop`, `run` or `analysis`.
    pub what: String,
    /// How long it takes; none for all the time that it has.
    pub ms: Option<u64>,
    /// By how many of the last rollouts' steps; 0 for a default.
    pub seen: u32,
}
