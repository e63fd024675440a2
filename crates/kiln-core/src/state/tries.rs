//! The attempts of a step that is tried more than once.

use std::sync::Arc;

use kiln_model::ask::Again;
use kiln_model::{Millis, Timestamp};

/// The attempts of the step that runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tries {
    /// How many failed.
    pub failed: u32,
    /// Whether one passed.
    pub passed: bool,
    /// What the last one came to, for people; empty before the first one ended.
    pub last: Arc<str>,
    /// When the next one may begin.
    pub due: Timestamp,
}

impl Tries {
    /// Takes one that failed at `now`. Returns when the wait for the next one is over, of which each has `within`; none if it
    /// was the last.
    pub(crate) fn fail(
        &mut self,
        again: Again,
        within: Millis,
        now: Timestamp,
        text: &str,
    ) -> Option<Timestamp> {
        self.failed += 1;
        self.last = text.into();
        self.due = now.plus(again.interval);
        (self.failed < again.attempts).then(|| self.due.plus(within))
    }

    /// Why nothing more is tried, for people.
    pub(crate) fn told(&self) -> Arc<str> {
        match self.failed {
            0 | 1 => self.last.clone(),
            failed => format!("{} ({failed} of {failed} attempts failed)", self.last).into(),
        }
    }
}
