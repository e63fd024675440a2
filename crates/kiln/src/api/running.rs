//! What a request does about a rollout that is running.

use serde::{Deserialize, Serialize};

/// What becomes of a rollout that is running when another one is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IfRunning {
    /// It ends, and the new one goes on from whatever exists.
    #[default]
    Supersede,
    /// It goes on, and the new one is refused.
    Refuse,
    /// It goes on, and the new one begins when it has ended.
    Queue,
}

/// A rollout that failed, and stopped for somebody to decide.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Halted {
    /// Why.
    pub reason: String,
    /// When it goes back all the same, in milliseconds since 1970.
    pub until_ms: u64,
}

/// A rollout that begins once the one that runs has ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Queued {
    /// Its target.
    pub revision: u64,
    /// Who asked for it.
    pub by: String,
    /// When, in milliseconds since 1970.
    pub since_ms: u64,
}

impl IfRunning {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
