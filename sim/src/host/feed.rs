//! The transitions that one life of the simulated host has told.

use std::collections::VecDeque;

use kiln_model::InstanceId;
use kiln_provider::{Cursor, Transition, Watched};

use crate::rng::Rng;

/// A reader that is this far behind is told to ask for the list, as by the real host. So few that it is met in a test.
pub const KEPT: usize = 256;

/// The transitions since the host's process began.
#[derive(Debug)]
pub(super) struct Feed {
    life: u64,
    /// The number of the newest.
    last: u64,
    kept: VecDeque<(InstanceId, Transition)>,
}

impl Feed {
    /// A new life, with nothing told. Its number is never 0, which is before all.
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self { life: rng.bits() >> 11 | 1, last: 0, kept: VecDeque::new() }
    }

    pub(super) fn tell(&mut self, id: InstanceId, transition: Transition) {
        self.last += 1;
        self.kept.push_back((id, transition));
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
    }

    /// The place after everything so far.
    pub(super) const fn cursor(&self) -> Cursor {
        Cursor { life: self.life, seq: self.last }
    }

    /// What comes after a place, if there is anything.
    pub(super) fn after(&self, cursor: Cursor) -> Option<Watched> {
        let oldest = self.last - self.kept.len() as u64;
        if cursor.life != self.life || cursor.seq < oldest || cursor.seq > self.last {
            return Some(Watched::Relist { cursor: self.cursor() });
        }
        let (id, transition) = self.kept.get((cursor.seq - oldest) as usize)?;
        let cursor = Cursor { life: self.life, seq: cursor.seq + 1 };
        Some(Watched::Transition { cursor, id: *id, transition: transition.clone() })
    }
}
