//! One request in the ledger, in its backend's count and in the access log, from its head to the last written byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use hyper::header::HeaderValue;
use hyper::{Method, StatusCode, Uri};

use crate::access_log::Line;
use crate::ledger::{Counter, SlotRef};
use crate::link::Link;
use crate::shared::Stop;
use crate::table::Choice;
use crate::worker::Worker;

/// What a client asked for, for the access log.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) host: Option<HeaderValue>,
}

/// Ends its request when it is dropped: without another word, because the client went away.
#[derive(Debug)]
pub(crate) struct Ticket {
    worker: Arc<Worker>,
    peer: SocketAddr,
    asked: Asked,
    started: Instant,
    place: Option<Choice>,
    slot: SlotRef,
    attempts: u32,
    outcome: Option<Counter>,
    status: StatusCode,
    bytes: u64,
    error: Option<&'static str>,
}

impl Ticket {
    /// Begins a request for which no backend is chosen.
    pub(crate) fn begin(link: &Link, asked: Asked, slot: SlotRef, now: Instant) -> Self {
        let worker = Arc::clone(&link.worker);
        worker.shared.ledger.count(slot, Counter::Begun);
        Self {
            worker,
            peer: link.peer(),
            asked,
            started: now,
            place: None,
            slot,
            attempts: 0,
            outcome: None,
            // nginx's number for a client that closed the connection first.
            status: StatusCode::from_u16(499).expect("499 is a valid status"),
            bytes: 0,
            error: None,
        }
    }

    /// Begins a request that goes to a backend, which has been entered.
    pub(crate) fn begin_at(link: &Link, asked: Asked, choice: Choice, now: Instant) -> Self {
        let mut ticket = Self::begin(link, asked, choice.slot, now);
        ticket.place = Some(choice);
        ticket.attempts = 1;
        ticket
    }

    /// Tries the request again at a backend, which has been entered.
    pub(crate) fn go_on_at(&mut self, choice: Choice) {
        let ledger = &self.worker.shared.ledger;
        ledger.count(self.slot, Counter::Retried);
        if choice.slot != self.slot {
            ledger.count(choice.slot, Counter::Begun);
            ledger.count(self.slot, Counter::Moved);
            ledger.count(self.slot, Counter::Ended);
            self.slot = choice.slot;
        }
        if let Some(left) = self.place.replace(choice) {
            left.backend.leave();
        }
        self.attempts += 1;
    }

    /// Where it is now.
    pub(crate) fn place(&self) -> Option<&Choice> {
        self.place.as_ref()
    }

    /// A backend's answer has begun.
    pub(crate) fn answering(&mut self, status: StatusCode) {
        self.status = status;
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// The backend's answer is complete.
    pub(crate) fn answered(&mut self) {
        self.outcome = Some(Counter::Answered);
    }

    /// The backend broke its answer off.
    pub(crate) fn cut(&mut self) {
        self.outcome = Some(Counter::Cut);
        self.error = Some("cut");
    }

    /// The edge answers by itself: because of the client, or in place of a backend, whose answer is lost.
    pub(crate) fn made(&mut self, status: StatusCode, error: &'static str, is_lost: bool) {
        self.status = status;
        self.error = Some(error);
        self.outcome = Some(if is_lost { Counter::Made } else { Counter::Declined });
    }

    /// The client left before the answer was written.
    pub(crate) fn client_left(&mut self) {
        self.outcome = None;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let shared = &self.worker.shared;
        let outcome = self.outcome.unwrap_or_else(|| {
            // At the end of an edge's life its tasks are dropped, and their requests with them.
            if shared.stop() == Stop::Now { Counter::Cut } else { Counter::Gone }
        });
        shared.ledger.count(self.slot, outcome);
        shared.ledger.count(self.slot, Counter::Ended);
        if let Some(place) = &self.place {
            place.backend.leave();
        }
        let line = Line {
            client: self.peer,
            method: &self.asked.method,
            host: self.asked.host.as_ref().map(HeaderValue::as_bytes),
            path: self.asked.uri.path_and_query().map_or("", |path| path.as_str()),
            status: self.status.as_u16(),
            bytes: self.bytes,
            duration: self.started.elapsed(),
            place: self.place.as_ref(),
            attempts: self.attempts,
            error: self.error.or((outcome == Counter::Gone).then_some("client-left")),
        };
        self.worker.log(&line);
    }
}
