//! Copies of safe requests, for a canary that nobody depends on yet: their answers are compared by status and dropped.
//!
//! A copy is sent when the original's answer has begun, in a task of its own, so no original waits for one.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use http_body::Body;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Request, Response, StatusCode};

use crate::backend::Backend;
use crate::balancer::{Heed, Share, draw};
use crate::headers::KILN_MIRROR;
use crate::limits::{MIRROR_BODY_BYTES_MAX, MIRROR_MAX, MIRRORS_MAX};
use crate::samples::{Counter, SampleRef};
use crate::upload::RequestBody;
use crate::upstream::{Lease, Repeat};
use crate::worker::Worker;

/// Where a pool's copies go.
#[derive(Debug)]
pub(crate) struct Mirror {
    /// In thousandths of the requests that may be copied.
    share: u64,
    draws: AtomicU64,
    targets: Vec<Share>,
    sample: Option<SampleRef>,
    under_way: AtomicUsize,
}

impl Mirror {
    pub(crate) fn new(share: u16, targets: Vec<Share>, sample: Option<SampleRef>) -> Arc<Self> {
        let (draws, under_way) = (AtomicU64::new(0), AtomicUsize::new(0));
        Arc::new(Self { share: u64::from(share), draws, targets, sample, under_way })
    }

    /// Whether the next request is to be copied.
    pub(crate) fn draws_this_one(&self) -> bool {
        draw(&self.draws, 1000) < self.share
    }

    /// Sends a copy, whose request `make` makes, unless too many are under way or nobody is there to take it.
    pub(crate) fn copy(
        self: &Arc<Self>,
        worker: &Arc<Worker>,
        original: StatusCode,
        make: impl FnOnce() -> Request<RequestBody>,
    ) {
        let Some(place) = self.place() else { return self.count(worker, Counter::MirrorSkipped) };
        let mut request = make();
        request.headers_mut().insert(KILN_MIRROR, HeaderValue::from_static("1"));
        let worker = Arc::clone(worker);
        tokio::spawn(async move {
            let mut answered = false;
            // Whatever comes of it, nobody waits.
            let _ = tokio::time::timeout(MIRROR_MAX, async {
                let Some((answer, lease)) = send(&place.backend, worker.index, request).await else { return };
                answered = true;
                place.mirror.count(&worker, Counter::Mirrored);
                if Counter::of_status(answer.status().as_u16()) != Counter::of_status(original.as_u16()) {
                    place.mirror.count(&worker, Counter::Differed);
                }
                if read_to_end(answer).await == End::Whole {
                    lease.give_back(Instant::now());
                }
            })
            .await;
            if !answered {
                place.mirror.count(&worker, Counter::MirrorLost);
            }
        });
    }

    /// Takes one of the places for copies, at a backend, which is entered.
    fn place(self: &Arc<Self>) -> Option<Place> {
        if self.under_way.fetch_add(1, Ordering::Relaxed) >= MIRRORS_MAX {
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let heed = Heed { now: Instant::now(), tried: &[] };
        let choice = self.targets.iter().find_map(|share| share.choose(heed));
        match choice.filter(|choice| choice.backend.enter()) {
            Some(choice) => Some(Place { mirror: Arc::clone(self), backend: choice.backend }),
            None => {
                self.under_way.fetch_sub(1, Ordering::Relaxed);
                None
            }
        }
    }

    fn count(&self, worker: &Worker, counter: Counter) {
        if let (Some(at), Some(samples)) = (self.sample, &worker.shared.samples) {
            samples.count(at, counter);
        }
    }
}

/// A copy that is under way, until it is dropped.
struct Place {
    mirror: Arc<Mirror>,
    backend: Arc<Backend>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.backend.leave();
        self.mirror.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sends over a pooled connection, and if that was closed, over a fresh one: what is copied may be done twice.
pub(crate) async fn send(
    backend: &Arc<Backend>,
    worker: usize,
    request: Request<RequestBody>,
) -> Option<(Response<Incoming>, Lease)> {
    if let Some(mut lease) = Lease::reuse(backend, worker, Instant::now(), Repeat::Harmless) {
        match lease.sender.try_send_request(again(&request)).await {
            Ok(answer) => return Some((answer, lease)),
            Err(_) if lease.traffic.read() => return None,
            Err(_) => {}
        }
    }
    let mut lease = Lease::connect(backend, worker).await.ok()?;
    let answer = lease.sender.try_send_request(request).await.ok()?;
    Some((answer, lease))
}

/// The same request; it has no body.
fn again(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::Empty);
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    copy
}

/// How far an answer was read that nobody gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// To its end.
    Whole,
    /// It is longer than is read.
    TooLong,
    /// It broke off.
    Broken,
}

/// Reads an answer to its end, unless that is far off.
pub(crate) async fn read_to_end(mut answer: Response<Incoming>) -> End {
    let mut left = MIRROR_BODY_BYTES_MAX;
    loop {
        let body = answer.body_mut();
        match std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            None => return End::Whole,
            Some(Err(_)) => return End::Broken,
            Some(Ok(frame)) => {
                let size = frame.data_ref().map_or(0, bytes::Bytes::len);
                let Some(rest) = left.checked_sub(size) else { return End::TooLong };
                left = rest;
            }
        }
    }
}
