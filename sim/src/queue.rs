//! What is going to happen, in the order of virtual time.

use std::collections::BTreeMap;

/// Events by their time; those of one moment keep the order in which they were added.
#[derive(Debug)]
pub struct Queue<T> {
    events: BTreeMap<(u64, u64), T>,
    added: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { events: BTreeMap::new(), added: 0 }
    }
}

impl<T> Queue<T> {
    /// Adds an event at a moment in milliseconds.
    pub fn add(&mut self, at: u64, event: T) {
        self.added += 1;
        self.events.insert((at, self.added), event);
    }

    /// Takes the next event with its moment.
    pub fn take(&mut self) -> Option<(u64, T)> {
        self.events.pop_first().map(|((at, _), event)| (at, event))
    }

    /// Forgets the events for which `wanted` does not hold.
    pub fn retain(&mut self, wanted: impl Fn(&T) -> bool) {
        self.events.retain(|_, event| wanted(event));
    }
}
