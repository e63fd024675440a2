//! What the instances of an environment take while a rollout runs.

use kiln_model::ByteSize;
use kiln_model::forecast::Extra;

use super::Instance;

/// A number, where it began and how high it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Peak {
    /// Where it began.
    pub start: u64,
    /// What it is.
    pub now: u64,
    /// The highest that it was.
    pub highest: u64,
}

impl Peak {
    fn add(&mut self, by: u64) {
        self.now = self.now.saturating_add(by);
        self.highest = self.highest.max(self.now);
    }

    const fn take(&mut self, by: u64) {
        self.now = self.now.saturating_sub(by);
    }

    const fn begin(&mut self) {
        (self.start, self.highest) = (self.now, self.now);
    }

    const fn extra(&self) -> u64 {
        self.highest.saturating_sub(self.start)
    }
}

/// The memory of all instances that exist, by their limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// The sum of the limits, in bytes.
    pub memory: Peak,
    /// How many have none.
    pub unlimited: Peak,
}

impl Room {
    /// What these take; from here on it is counted.
    pub(crate) fn begin<'a>(instances: impl Iterator<Item = &'a Instance>) -> Self {
        let mut room = Self::default();
        instances.for_each(|instance| room.arrive(instance));
        room.memory.begin();
        room.unlimited.begin();
        room
    }

    /// Another one exists.
    pub(crate) fn arrive(&mut self, instance: &Instance) {
        match instance.spec.limits.memory {
            Some(limit) => self.memory.add(limit.0),
            None => self.unlimited.add(1),
        }
    }

    /// Nothing is left of one.
    pub(crate) fn leave(&mut self, instance: &Instance) {
        match instance.spec.limits.memory {
            Some(limit) => self.memory.take(limit.0),
            None => self.unlimited.take(1),
        }
    }

    /// What it came to.
    pub fn extra(&self) -> Extra {
        let unlimited = u32::try_from(self.unlimited.extra()).unwrap_or(u32::MAX);
        Extra { memory: ByteSize(self.memory.extra()), unlimited }
    }
}
