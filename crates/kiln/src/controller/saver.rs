//! Saves snapshots on a thread of its own: encoding and writing a large state takes as long as many decisions.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use kiln_core::State;
use kiln_model::Position;
use kiln_store::log::{Head, LogSnapshots};

use super::snapshot;

/// Entries between two snapshots. A start folds at most about as many: a few dozen milliseconds.
const SNAPSHOT_EVERY: u64 = 1_000;

/// The saver rests this many times as long as a snapshot took, so that even a large state that changes all the time costs
/// a twentieth of one core.
const REST_FACTOR: u32 = 19;

/// No rest is longer: a disk that hung for once is no reason to save nothing for an hour.
const REST_MAX: Duration = Duration::from_secs(60);

/// The controller's end of the thread.
#[derive(Debug)]
pub(super) struct Saver {
    to_thread: Option<SyncSender<(Head, Arc<State>)>>,
    last: Position,
}

impl Saver {
    /// Starts the thread; it ends with this.
    pub(super) fn new(snapshots: LogSnapshots) -> Self {
        // No room to wait in: a state that waited would be an old one by the time it was saved.
        let (sender, receiver) = sync_channel(0);
        let started =
            thread::Builder::new().name("snapshots".into()).spawn(move || save_all(&receiver, &snapshots));
        if let Err(error) = &started {
            tracing::warn!(%error, "no snapshots are saved: starts become slow");
        }
        Self { to_thread: started.is_ok().then_some(sender), last: Position(0) }
    }

    /// Takes note of a snapshot that is there already.
    pub(super) fn is_saved(&mut self, position: Position) {
        self.last = position;
    }

    /// Has a state saved if the last snapshot is long ago and none is being saved; never waits.
    pub(super) fn offer(&mut self, head: Head, state: &Arc<State>) {
        if head.position.0 < self.last.0 + SNAPSHOT_EVERY {
            return;
        }
        let taken = self.to_thread.as_ref().map(|thread| thread.try_send((head, Arc::clone(state))));
        if let Some(Ok(())) = taken {
            self.last = head.position;
        }
    }
}

fn save_all(states: &Receiver<(Head, Arc<State>)>, snapshots: &LogSnapshots) {
    while let Ok((head, state)) = states.recv() {
        let begun = Instant::now();
        let bytes = snapshot::encode(&state);
        drop(state);
        let saved = snapshots.save(head, &bytes);
        let took = begun.elapsed();
        match saved {
            Ok(()) => {
                tracing::debug!(position = %head.position, bytes = bytes.len(), ?took, "saved a snapshot")
            }
            // The next one may find room; until then a start folds more.
            Err(error) => tracing::warn!(position = %head.position, %error, "no snapshot was saved"),
        }
        thread::sleep(took.saturating_mul(REST_FACTOR).min(REST_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_store::EventLog;

    #[test]
    fn a_state_is_saved_when_enough_has_happened_since_the_last_one() {
        let folder = tempfile::tempdir().unwrap();
        let log = EventLog::open(folder.path()).unwrap();
        let mut saver = Saver::new(log.snapshots());
        let offer = |saver: &mut Saver, position| {
            let head = Head { position: Position(position), ..Head::EMPTY };
            saver.offer(head, &Arc::new(State::new()));
            saver.last == Position(position)
        };
        assert!(!offer(&mut saver, SNAPSHOT_EVERY - 1));
        // The thread may not be waiting yet, and then the offer is passed over.
        while !offer(&mut saver, SNAPSHOT_EVERY) {
            thread::yield_now();
        }
        assert!(!offer(&mut saver, 2 * SNAPSHOT_EVERY - 1));
        saver.is_saved(Position(7));
        while !offer(&mut saver, SNAPSHOT_EVERY + 7) {
            thread::yield_now();
        }
        let path = folder.path().join("log/snapshots").join(format!("{:020}", SNAPSHOT_EVERY));
        assert!(path.exists(), "the second is taken once the first is saved");
    }
}
