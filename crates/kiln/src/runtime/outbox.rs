//! Actions on their way to another process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use kiln_core::Action;

/// Actions that wait for one worker. What does not fit is not lost: it is still outstanding, and issued again once the
/// queue is empty.
const QUEUE_MAX: usize = 1024;
/// How often an idle worker looks whether something was dropped.
const POLL: Duration = Duration::from_millis(100);

/// The longest pause before what did not get through is asked for again. A peer that comes back asks by itself, so this is
/// only for one that is there and can't: a device that is busy, a disk that is full.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The sending end: never blocks the controller.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: SyncSender<Action>,
    dropped: Arc<AtomicBool>,
}

/// The worker's end.
#[derive(Debug)]
pub(super) struct Deliveries {
    queue: Receiver<Action>,
    dropped: Arc<AtomicBool>,
    pause: Pause,
}

/// How long to leave a peer alone that did not take what it was asked.
#[derive(Debug)]
struct Pause {
    next: Duration,
    until: Option<Instant>,
}

/// What a worker does next.
#[derive(Debug)]
pub(super) enum Next {
    /// Carry this out.
    Deliver(Action),
    /// Something did not get through and nothing waits any more: ask the controller to issue again what is outstanding.
    AskAgain,
    /// The controller is gone.
    End,
}

/// Makes both ends.
pub(super) fn outbox() -> (Outbox, Deliveries) {
    let (sender, receiver) = sync_channel(QUEUE_MAX);
    let dropped = Arc::new(AtomicBool::new(false));
    (
        Outbox { queue: sender, dropped: dropped.clone() },
        Deliveries { queue: receiver, dropped, pause: Pause::new() },
    )
}

impl Outbox {
    /// Queues an action, or remembers that one was dropped.
    pub(super) fn send(&self, action: Action) {
        if self.queue.try_send(action).is_err() {
            self.dropped.store(true, Ordering::Release);
        }
    }
}

impl Deliveries {
    /// Waits for what is to be done next.
    pub(super) fn next(&mut self) -> Next {
        loop {
            if let Some(next) = self.next_within(POLL) {
                return next;
            }
        }
    }

    /// Waits for what is to be done next, but not for ever.
    pub(super) fn next_within(&mut self, wait: Duration) -> Option<Next> {
        match self.queue.recv_timeout(wait) {
            Ok(action) => Some(Next::Deliver(action)),
            Err(RecvTimeoutError::Disconnected) => Some(Next::End),
            Err(RecvTimeoutError::Timeout) => {
                if !self.pause.is_over(Instant::now()) {
                    return None;
                }
                if !self.dropped.swap(false, Ordering::AcqRel) {
                    // A whole pause in which nothing failed: the trouble is over.
                    self.pause = Pause::new();
                    return None;
                }
                self.pause.begin(Instant::now());
                Some(Next::AskAgain)
            }
        }
    }

    /// Returns what else waits, without waiting for it.
    pub(super) fn pending(&self) -> Option<Action> {
        self.queue.try_recv().ok()
    }

    /// Remembers that an action did not get through.
    pub(super) fn failed(&self) {
        self.dropped.store(true, Ordering::Release);
    }
}

impl Pause {
    fn new() -> Self {
        Self { next: POLL, until: None }
    }

    /// Begins a pause, twice as long as the one before it.
    fn begin(&mut self, now: Instant) {
        self.until = Some(now + self.next);
        self.next = (self.next * 2).min(PAUSE_MAX);
    }

    fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_core::ActionKind;
    use kiln_model::{Fence, InstanceId};

    fn action() -> Action {
        Action { fence: Fence::default(), kind: ActionKind::AwaitIdle(InstanceId::from_seed(1)) }
    }

    #[test]
    fn what_does_not_fit_is_asked_for_again_once_the_queue_is_empty() {
        let (outbox, mut deliveries) = outbox();
        for _ in 0..=QUEUE_MAX {
            outbox.send(action());
        }
        for _ in 0..QUEUE_MAX {
            assert!(matches!(deliveries.next(), Next::Deliver(_)));
        }
        assert!(matches!(deliveries.next(), Next::AskAgain));
        drop(outbox);
        assert!(matches!(deliveries.next(), Next::End));
    }

    #[test]
    fn a_peer_that_takes_nothing_is_left_alone_for_longer_each_time() {
        let (mut pause, mut now) = (Pause::new(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert!(pause.is_over(now));
            pause.begin(now);
            let length = pause.until.unwrap() - now;
            assert!(!pause.is_over(now + length / 2));
            pauses.push(length.as_millis());
            now += length;
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }
}
