//! What all workers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use arc_swap::ArcSwap;

use crate::access_log::LogSender;
use crate::backend::Registry;
use crate::ledger::Ledger;
use crate::samples::Samples;
use crate::table::Table;

/// How far the edge has come in stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Stop {
    No,
    /// Nothing is accepted; answers say `Connection: close`.
    Announced,
    /// Idle connections are closed, others after their answer.
    Closing,
    /// What is left is cut.
    Now,
}

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) table: ArcSwap<Table>,
    pub(crate) registry: Registry,
    pub(crate) ledger: Arc<Ledger>,
    /// None when they can't be kept, which is no reason not to serve.
    pub(crate) samples: Option<Samples>,
    pub(crate) log: LogSender,
    stop: AtomicU8,
}

impl Shared {
    pub(crate) fn new(
        registry: Registry,
        ledger: Arc<Ledger>,
        samples: Option<Samples>,
        log: LogSender,
    ) -> Self {
        let stop = AtomicU8::new(Stop::No as u8);
        Self { table: ArcSwap::default(), registry, ledger, samples, log, stop }
    }

    pub(crate) fn stop(&self) -> Stop {
        match self.stop.load(Ordering::Relaxed) {
            0 => Stop::No,
            1 => Stop::Announced,
            2 => Stop::Closing,
            _ => Stop::Now,
        }
    }

    pub(crate) fn advance_stop(&self, stop: Stop) {
        self.stop.fetch_max(stop as u8, Ordering::Relaxed);
    }
}
