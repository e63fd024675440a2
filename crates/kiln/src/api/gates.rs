//! The shapes of what an environment asks of a release before it lets it in.

use serde::{Deserialize, Serialize};

/// Lets a release in, as far as it depends on who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approve {
    /// The digest of the release.
    pub release: String,
    /// For how long, in milliseconds.
    pub within_ms: u64,
}

/// What is found at the gates of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GatesFound {
    /// Each gate.
    pub gates: Vec<Gate>,
}

/// What is found at one gate.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Gate {
    /// `from`, `soak`, `approval`, `window` or `freeze`.
    pub gate: String,
    /// Whether the release may pass.
    pub is_open: bool,
    /// What was found, or what is missing, for people.
    pub detail: String,
    /// When time alone opens it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}
