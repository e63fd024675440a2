//! What a rollout was expected to come to, and what of it can be compared afterwards.

use crate::units::{ByteSize, Millis};

/// What instances took at the peak beyond what they took at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extra {
    /// Their memory, by their limits.
    pub memory: ByteSize,
    /// How many more there were of those whose memory has no limit.
    pub unlimited: u32,
}

/// What was predicted of a rollout when it began.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forecast {
    /// How long all of it takes, without the time that people take to approve.
    pub total: Millis,
    /// How long each step takes, in their order; none if it is not reached.
    pub steps: Vec<Option<Millis>>,
    /// What its instances take at the peak.
    pub extra: Extra,
    /// How many approvals it waits for.
    pub approvals: u32,
    /// Why it would go back, for people, if it would.
    pub goes_back: Option<String>,
}
