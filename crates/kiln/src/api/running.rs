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
}

impl IfRunning {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
