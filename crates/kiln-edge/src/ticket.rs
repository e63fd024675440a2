//! One request in the ledger, in its backend's count and in the access log, from its head to the last written byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use hyper::header::HeaderValue;
use hyper::{Method, StatusCode, Uri};

use crate::access_log::Line;
use crate::balancer::Choice;
use crate::ledger::{Counter, SlotRef};
use crate::link::Link;
use crate::samples::{Counter as Sample, SampleRef};
use crate::shared::Stop;
use crate::worker::Worker;

/// What a client asked for, for the access log.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) host: Option<HeaderValue>,
}

/// What an analysis is to know of the attempt that is under way.
#[derive(Debug, Clone, Copy)]
enum Sampled {
    /// Nothing, or it knows.
    No,
    /// What comes of it.
    Pending { at: SampleRef, since: Instant },
    /// Whether its answer, which is counted as none of the instance's failures, comes to its end.
    Answered(SampleRef),
}

impl Sampled {
    fn from(choice: &Choice, since: Instant) -> Self {
        choice.sample.map_or(Self::No, |at| Self::Pending { at, since })
    }
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
    sampled: Sampled,
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
            sampled: Sampled::No,
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
        ticket.sampled = Sampled::from(&choice, now);
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
        // Without an outcome of the last attempt: the request never reached its instance.
        self.sampled = Sampled::from(&choice, Instant::now());
        if let Some(left) = self.place.replace(choice) {
            left.backend.leave();
        }
        self.attempts += 1;
    }

    /// The attempt under way came to nothing, and the instance answers for that.
    pub(crate) fn attempt_failed(&mut self) {
        self.sample(Sample::Lost);
    }

    fn sample(&mut self, outcome: Sample) {
        let sampled = std::mem::replace(&mut self.sampled, Sampled::No);
        if let (Sampled::Pending { at, .. }, Some(samples)) = (sampled, &self.worker.shared.samples) {
            samples.count(at, outcome);
        }
    }

    /// Where it is now.
    pub(crate) fn place(&self) -> Option<&Choice> {
        self.place.as_ref()
    }

    /// A backend's answer has begun.
    pub(crate) fn answering(&mut self, status: StatusCode) {
        self.status = status;
        if let (Sampled::Pending { at, since }, Some(samples)) = (self.sampled, &self.worker.shared.samples) {
            samples.answered(at, status.as_u16(), since.elapsed());
            self.sampled = if status.is_server_error() { Sampled::No } else { Sampled::Answered(at) };
        }
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
        if let (Sampled::Answered(at), Some(samples)) = (self.sampled, &self.worker.shared.samples) {
            samples.count(at, Sample::Broken);
            self.sampled = Sampled::No;
        }
    }

    /// The edge answers by itself: because of the client, or in place of a backend, whose answer is lost.
    pub(crate) fn made(&mut self, status: StatusCode, error: &'static str, is_lost: bool) {
        self.status = status;
        self.error = Some(error);
        self.outcome = Some(if is_lost { Counter::Made } else { Counter::Declined });
        self.sample(if is_lost { Sample::Lost } else { Sample::Left });
    }

    /// The client left before the answer was written.
    pub(crate) fn client_left(&mut self) {
        self.outcome = None;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // At the end of an edge's life its tasks are dropped, and their requests with them.
        let stopped = self.worker.shared.stop() == Stop::Now;
        let outcome = self.outcome.unwrap_or(if stopped { Counter::Cut } else { Counter::Gone });
        if outcome == Counter::Gone {
            self.sample(Sample::Left);
        }
        let shared = &self.worker.shared;
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
