//! What a history came to, in numbers.

use std::collections::BTreeMap;

use super::Met;

/// What a history came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Steps of the controller.
    pub steps: u64,
    /// Entries in the log.
    pub entries: u64,
    /// Lives of the controller.
    pub lives: u64,
    /// How often one began from a snapshot and the rest of the log.
    pub restored: u64,
    /// Commands that were acknowledged.
    pub acknowledged: u64,
    /// Commands that were refused.
    pub refused: u64,
    /// Appends that failed.
    pub failed_appends: u64,
    /// Rollbacks that were tried on a copy.
    pub drills: u64,
    /// Measurements of outside that were written down.
    pub measured: u64,
    /// Switches that somebody let go on.
    pub let_on: u64,
    /// How often what met a rollout at the beginning of which kind of step.
    pub met: BTreeMap<(&'static str, Met), u64>,
}
