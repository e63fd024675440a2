//! The transitions that were told lately, for whoever watches.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_model::InstanceId;

use crate::port::{Cursor, Transition, Watched};

/// A controller that is this far behind asks for the list instead, which is shorter than what it missed.
const KEPT: usize = 16_384;

/// The transitions since this host process began.
#[derive(Debug)]
pub(crate) struct Feed {
    life: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// The number of the newest.
    last: u64,
    kept: VecDeque<(InstanceId, Transition)>,
    closed: bool,
}

impl Feed {
    pub(crate) fn new() -> io::Result<Self> {
        let mut bytes = [0; 8];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        let state = State { last: 0, kept: VecDeque::new(), closed: false };
        // 53 bits, so that a reader in any language gets the number exactly; and never 0, which is before all.
        let life = u64::from_ne_bytes(bytes) >> 11 | 1;
        Ok(Self { life, state: Mutex::new(state), changed: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody.
    pub(crate) fn tell(&self, id: InstanceId, transition: Transition) {
        let mut state = self.state();
        state.last += 1;
        state.kept.push_back((id, transition));
        if state.kept.len() > KEPT {
            state.kept.pop_front();
        }
        self.changed.notify_all();
    }

    /// Returns the place after everything so far.
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor { life: self.life, seq: self.state().last }
    }

    /// Lets everybody who waits go.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    /// Waits for what comes after `cursor`. The error means that the feed is closed.
    pub(crate) fn next(&self, cursor: Cursor, timeout: Duration) -> io::Result<Option<Watched>> {
        let mut state = self.state();
        if cursor.life == self.life && cursor.seq == state.last && !state.closed {
            let waited =
                self.changed.wait_timeout_while(state, timeout, |s| s.last == cursor.seq && !s.closed);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.closed {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the host stops"));
        }
        let oldest = state.last - state.kept.len() as u64;
        let here = Cursor { life: self.life, seq: state.last };
        if cursor.life != self.life || cursor.seq < oldest || cursor.seq > state.last {
            return Ok(Some(Watched::Relist { cursor: here }));
        }
        let next = state.kept.get((cursor.seq - oldest) as usize);
        Ok(next.map(|(id, transition)| Watched::Transition {
            cursor: Cursor { life: self.life, seq: cursor.seq + 1 },
            id: *id,
            transition: transition.clone(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_misses_nothing_or_is_told_that_it_did() {
        let feed = Feed::new().unwrap();
        let wait = Duration::ZERO;
        let Some(Watched::Relist { cursor }) = feed.next(Cursor::default(), wait).unwrap() else { panic!() };
        assert_eq!(feed.next(cursor, wait).unwrap(), None);
        let id = InstanceId::from_seed(1);
        feed.tell(id, Transition::Destroyed);
        let Some(Watched::Transition { cursor: after, .. }) = feed.next(cursor, wait).unwrap() else {
            panic!()
        };
        assert_eq!(after.seq, cursor.seq + 1);
        for _ in 0..=KEPT {
            feed.tell(id, Transition::Destroyed);
        }
        assert!(matches!(feed.next(cursor, wait).unwrap(), Some(Watched::Relist { .. })));
        feed.close();
        assert!(feed.next(feed.cursor(), wait).is_err());
    }
}
