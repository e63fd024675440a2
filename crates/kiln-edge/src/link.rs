//! One client connection as the parts that serve it share it: its stage, its deadlines, and what is still to be settled.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use hyper::header::HeaderValue;
use kiln_model::route::Listener;

use crate::backend::lock;
use crate::head::Refusal;
use crate::limits::{
    CLIENT_IDLE_MAX, FIRST_BYTE_MAX, HEAD_READ_MAX, LINGER_MAX, STREAM_STALL_MAX, TUNNEL_IDLE_MAX,
};
use crate::ticket::Ticket;
use crate::worker::{Entered, Worker};

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// Between requests.
    Idle,
    /// Part of a head is here.
    Head,
    /// A request is on its way to a backend, or waits for the first byte of its answer.
    Waiting,
    /// An answer is on its way to the client.
    Streaming,
    Tunnel,
    /// The answer is written, and what the client still sends is thrown away.
    Linger,
}

impl Stage {
    const ALL: [Self; 6] =
        [Self::Idle, Self::Head, Self::Waiting, Self::Streaming, Self::Tunnel, Self::Linger];

    fn patience(self) -> Duration {
        match self {
            Self::Idle => CLIENT_IDLE_MAX,
            Self::Head => HEAD_READ_MAX,
            Self::Waiting => FIRST_BYTE_MAX,
            Self::Streaming => STREAM_STALL_MAX,
            Self::Tunnel => TUNNEL_IDLE_MAX,
            Self::Linger => LINGER_MAX,
        }
    }

    /// Whether each byte buys more time. A head and a farewell have a fixed span.
    fn is_extended_by_bytes(self) -> bool {
        !matches!(self, Self::Head | Self::Linger)
    }
}

/// What came of a request for another protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Switch {
    Undecided,
    Accepted,
    Declined,
}

/// One client connection.
#[derive(Debug)]
pub(crate) struct Link {
    entered: Entered,
    pub(crate) peer_text: HeaderValue,
    pub(crate) worker: Arc<Worker>,
    stage: AtomicU8,
    /// When the stage's time began to run, in the worker's milliseconds.
    since: AtomicU64,
    expired: AtomicBool,
    switch: AtomicU8,
    waker: Mutex<Option<Waker>>,
    refusal: Mutex<Option<Refusal>>,
    /// Answers that hyper has taken and not yet written out.
    unsettled: Mutex<Vec<Ticket>>,
    has_unsettled: AtomicBool,
}

impl Link {
    pub(crate) fn new(worker: Arc<Worker>, entered: Entered) -> Arc<Self> {
        let peer_text = HeaderValue::try_from(entered.peer.ip().to_canonical().to_string())
            .expect("an address is made of visible characters");
        let now = worker.now_ms();
        Arc::new(Self {
            entered,
            peer_text,
            worker,
            stage: AtomicU8::new(Stage::Idle as u8),
            since: AtomicU64::new(now),
            expired: AtomicBool::new(false),
            switch: AtomicU8::new(Switch::Undecided as u8),
            waker: Mutex::default(),
            refusal: Mutex::default(),
            unsettled: Mutex::default(),
            has_unsettled: AtomicBool::new(false),
        })
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.entered.peer
    }

    pub(crate) fn listener(&self) -> Listener {
        self.entered.listener
    }

    /// Whether the peer is an instance.
    pub(crate) fn is_internal(&self) -> bool {
        matches!(self.entered.listener, Listener::Internal(_))
    }

    pub(crate) fn stage(&self) -> Stage {
        Stage::ALL[usize::from(self.stage.load(Ordering::Relaxed))]
    }

    pub(crate) fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
        self.since.store(self.worker.now_ms(), Ordering::Relaxed);
        self.expired.store(false, Ordering::Relaxed);
    }

    /// Bytes moved.
    pub(crate) fn moved(&self) {
        if self.stage().is_extended_by_bytes() {
            self.since.store(self.worker.now_ms(), Ordering::Relaxed);
        }
    }

    /// Looks at the deadline; called by the worker's sweep.
    pub(crate) fn sweep(&self, now_ms: u64) {
        let since = self.since.load(Ordering::Relaxed);
        if now_ms.saturating_sub(since) > self.stage().patience().as_millis() as u64
            && !self.expired.swap(true, Ordering::Relaxed)
        {
            self.wake();
        }
    }

    /// Whether the time of the stage that it is in has run out.
    pub(crate) fn has_expired(&self, stage: Stage) -> bool {
        self.expired.load(Ordering::Relaxed) && self.stage() == stage
    }

    /// Remembers whom to wake: the task that drives the connection.
    pub(crate) fn driven_by(&self, waker: &Waker) {
        let mut current = lock(&self.waker);
        if !current.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *current = Some(waker.clone());
        }
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = &*lock(&self.waker) {
            waker.wake_by_ref();
        }
    }

    pub(crate) fn switch(&self) -> Switch {
        match self.switch.load(Ordering::Acquire) {
            0 => Switch::Undecided,
            1 => Switch::Accepted,
            _ => Switch::Declined,
        }
    }

    pub(crate) fn decide_switch(&self, switch: Switch) {
        self.switch.store(switch as u8, Ordering::Release);
        // The guard may hold bytes back until this is decided.
        self.wake();
    }

    /// The guard starts to read the next request.
    pub(crate) fn forget_switch(&self) {
        self.switch.store(Switch::Undecided as u8, Ordering::Release);
    }

    pub(crate) fn refuse(&self, refusal: Refusal) {
        *lock(&self.refusal) = Some(refusal);
    }

    pub(crate) fn refusal(&self) -> Option<Refusal> {
        *lock(&self.refusal)
    }

    /// Takes a request whose answer is complete but may not be written out yet.
    pub(crate) fn settle_when_written(&self, ticket: Ticket) {
        lock(&self.unsettled).push(ticket);
        self.has_unsettled.store(true, Ordering::Relaxed);
    }

    /// Everything that hyper had is written: the requests are over.
    pub(crate) fn written(&self) {
        if self.has_unsettled.load(Ordering::Relaxed) {
            self.has_unsettled.store(false, Ordering::Relaxed);
            let mut settled = std::mem::take(&mut *lock(&self.unsettled));
            for ticket in settled.drain(..) {
                drop(ticket);
            }
            // Its memory serves the next request.
            let mut unsettled = lock(&self.unsettled);
            if unsettled.is_empty() {
                *unsettled = settled;
            }
            drop(unsettled);
            if self.stage() == Stage::Streaming {
                self.enter(Stage::Idle);
            }
        }
    }

    /// The connection is gone, and with it what was not written.
    pub(crate) fn closed(&self) {
        for mut ticket in std::mem::take(&mut *lock(&self.unsettled)) {
            ticket.client_left();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_log;
    use crate::backend::Registry;
    use crate::ledger::Ledger;
    use crate::shared::Shared;
    use crate::worker::{Gate, seats};

    fn link() -> (Arc<Link>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(&folder.path().join("ledger")).unwrap();
        let ledger = Arc::new(ledger);
        let (log, _) = access_log::channel(folder.path().join("access.log"), &ledger);
        let (seats, _) = seats(1);
        let worker =
            Worker::new(0, Arc::new(Shared::new(Registry::new(1), ledger, None, log)), Arc::clone(&seats));
        let gate = Gate::new(Listener::Internal(0));
        let entered = Entered::new("127.0.0.1:9".parse().unwrap(), &gate, seats, 0, gate.room().unwrap());
        (Link::new(worker, entered), folder)
    }

    #[test]
    fn each_stage_has_its_patience_and_bytes_extend_only_some() {
        let (link, _folder) = link();
        for stage in Stage::ALL {
            let patience = stage.patience().as_millis() as u64;
            link.enter(stage);
            link.sweep(patience);
            assert!(!link.has_expired(stage), "{stage:?}");
            link.worker.set_now_ms(patience);
            link.moved();
            link.sweep(patience + 1);
            assert_eq!(link.has_expired(stage), !stage.is_extended_by_bytes(), "{stage:?}");
            link.worker.set_now_ms(0);
        }
    }

    #[test]
    fn a_new_stage_forgets_that_the_last_one_took_too_long() {
        let (link, _folder) = link();
        link.enter(Stage::Head);
        link.sweep(u64::MAX);
        assert!(link.has_expired(Stage::Head) && !link.has_expired(Stage::Idle));
        link.enter(Stage::Waiting);
        assert!(!link.has_expired(Stage::Waiting));
    }
}
