//! A request's body on its way to a backend: streamed, and kept for as long as it may have to be sent again.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::HeaderMap;
use hyper::body::Incoming;

use crate::backend::lock;
use crate::limits::REPLAY_BYTES_MAX;
use crate::upstream::Traffic;

/// How long what was sent of a body is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Until the first byte of the request went out: then it may have been acted on.
    UntilSent,
    /// Until it grows too large: doing it twice is as good as doing it once.
    WhileSmall,
}

/// The body as the client sends it.
#[derive(Debug)]
pub(crate) struct Upload {
    state: Mutex<State>,
    keep: Keep,
    /// What the client waits for before it sends the body, if it said so.
    gate: Option<Gate>,
}

#[derive(Debug)]
struct State {
    incoming: Incoming,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    trailers: Option<HeaderMap>,
    /// Whether `kept` is all that was taken so far.
    replayable: bool,
    failed: bool,
    /// Whether the client is the one who has to move.
    waiting: bool,
    /// The attempt that may take from it.
    turn: u32,
}

/// Opens when the backend says `100 Continue`, or takes too long to say anything.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    open: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Gate {
    fn open(&self) {
        self.open.store(true, Ordering::Release);
        if let Some(waker) = lock(&self.waker).take() {
            waker.wake();
        }
    }

    fn is_open(&self, cx: &Context<'_>) -> bool {
        if self.open.load(Ordering::Acquire) {
            return true;
        }
        *lock(&self.waker) = Some(cx.waker().clone());
        self.open.load(Ordering::Acquire)
    }
}

impl Upload {
    pub(crate) fn new(incoming: Incoming, keep: Keep, expects_continue: bool) -> Arc<Self> {
        let state = State {
            incoming,
            kept: Vec::new(),
            kept_bytes: 0,
            trailers: None,
            replayable: true,
            failed: false,
            waiting: false,
            turn: 0,
        };
        Arc::new(Self { state: Mutex::new(state), keep, gate: expects_continue.then(Gate::default) })
    }

    /// Lets the body flow to a backend that has the request's head.
    pub(crate) fn open_gate(&self) {
        if let Some(gate) = &self.gate {
            gate.open();
        }
    }

    /// Returns a body for the next attempt; earlier ones end with an error.
    pub(crate) fn attempt(self: &Arc<Self>, traffic: &Arc<Traffic>) -> RequestBody {
        let mut state = lock(&self.state);
        state.turn += 1;
        RequestBody::Upload(Attempt {
            upload: Arc::clone(self),
            traffic: Arc::clone(traffic),
            turn: state.turn,
            next: 0,
        })
    }

    /// Whether another attempt would send the same body.
    pub(crate) fn is_replayable(&self) -> bool {
        lock(&self.state).replayable
    }

    /// Whether the client broke off or broke the rules.
    pub(crate) fn has_failed(&self) -> bool {
        lock(&self.state).failed
    }

    /// Whether a backend takes the body faster than the client sends it.
    pub(crate) fn waits_for_client(&self) -> bool {
        lock(&self.state).waiting
    }

    /// Reads and throws away what is left, at most so many bytes: true if it came to the end.
    pub(crate) async fn discard(&self, bytes_max: usize) -> bool {
        lock(&self.state).turn += 1;
        let mut discarded = 0;
        std::future::poll_fn(|cx| {
            let mut state = lock(&self.state);
            loop {
                let frame = std::task::ready!(Pin::new(&mut state.incoming).poll_frame(cx));
                match frame {
                    Some(Ok(frame)) => discarded += frame.data_ref().map_or(0, Bytes::len),
                    Some(Err(_)) => return Poll::Ready(false),
                    None => return Poll::Ready(true),
                }
                if discarded > bytes_max {
                    return Poll::Ready(false);
                }
            }
        })
        .await
    }
}

/// A request's body for one attempt.
#[derive(Debug)]
pub(crate) enum RequestBody {
    Empty,
    Upload(Attempt),
}

#[derive(Debug)]
pub(crate) struct Attempt {
    upload: Arc<Upload>,
    traffic: Arc<Traffic>,
    turn: u32,
    /// The next kept piece.
    next: usize,
}

/// Why a body can't go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    #[error("the client's body ended early")]
    Client(#[source] hyper::Error),
    #[error("another attempt has taken over")]
    Superseded,
}

impl Attempt {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        if self.upload.gate.as_ref().is_some_and(|gate| !gate.is_open(cx)) {
            return Poll::Pending;
        }
        let mut state = lock(&self.upload.state);
        if state.turn != self.turn {
            return Poll::Ready(Some(Err(UploadError::Superseded)));
        }
        if let Some(piece) = state.kept.get(self.next).cloned() {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let polled = Pin::new(&mut state.incoming).poll_frame(cx);
        state.waiting = polled.is_pending();
        match std::task::ready!(polled) {
            // Trailers come last; only a further attempt asks again.
            None => Poll::Ready(state.trailers.clone().filter(|_| self.next != usize::MAX).map(|trailers| {
                self.next = usize::MAX;
                Ok(Frame::trailers(trailers))
            })),
            Some(Err(error)) => {
                state.failed = true;
                Poll::Ready(Some(Err(UploadError::Client(error))))
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(piece) => {
                    state.keep(&piece, self.upload.keep, &self.traffic);
                    self.next = state.kept.len();
                    Poll::Ready(Some(Ok(Frame::data(piece))))
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    state.trailers = Some(trailers.clone());
                    self.next = usize::MAX;
                    Poll::Ready(Some(Ok(Frame::trailers(trailers))))
                }
            },
        }
    }
}

impl State {
    fn keep(&mut self, piece: &Bytes, keep: Keep, traffic: &Traffic) {
        let too_late = keep == Keep::UntilSent && traffic.wrote();
        if too_late || self.kept_bytes + piece.len() > REPLAY_BYTES_MAX {
            self.replayable = false;
            self.kept = Vec::new();
        } else if self.replayable {
            self.kept_bytes += piece.len();
            self.kept.push(piece.clone());
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Upload(attempt) => attempt.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Upload(attempt) => {
                let state = lock(&attempt.upload.state);
                state.turn == attempt.turn
                    && attempt.next >= state.kept.len()
                    && state.trailers.is_none()
                    && state.incoming.is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Upload(attempt) => {
                let state = lock(&attempt.upload.state);
                let hint = state.incoming.size_hint();
                match hint.exact() {
                    // What the client still owes, and what is kept but was not yet passed on by this attempt.
                    Some(owed) => {
                        let kept: usize = state.kept.iter().skip(attempt.next).map(Bytes::len).sum();
                        SizeHint::with_exact(owed + kept as u64)
                    }
                    None => hint,
                }
            }
        }
    }
}
