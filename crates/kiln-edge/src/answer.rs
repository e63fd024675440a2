//! What goes back to the client: a backend's answer as it streams, or one that the edge makes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode, Version};

use crate::head::Refusal;
use crate::headers::{X_KILN_ERROR, forward_answer};
use crate::link::{Link, Stage};
use crate::shared::Stop;
use crate::ticket::Ticket;
use crate::upstream::Lease;

/// Why the edge answers by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    Refused(Refusal),
    Method,
    Expectation,
    NoRoute,
    NoBackend,
    Unreachable,
    BrokenOff,
    Garbled,
    TimedOut,
}

impl Made {
    fn status(self) -> StatusCode {
        match self {
            Self::Refused(refusal) => refusal.status(),
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::NoBackend => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreachable | Self::BrokenOff | Self::Garbled => StatusCode::BAD_GATEWAY,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The value of `x-kiln-error`, stable for scripts.
    fn code(self) -> &'static str {
        match self {
            Self::Refused(Refusal::HeadTimeout) => "head-timeout",
            Self::Refused(Refusal::BodyTimeout) => "body-timeout",
            Self::Refused(Refusal::HeadTooLarge | Refusal::TargetTooLong) => "too-large",
            Self::Refused(_) => "bad-request",
            Self::Method => "method-not-allowed",
            Self::Expectation => "expectation-failed",
            Self::NoRoute => "no-route",
            Self::NoBackend => "no-backend",
            Self::Unreachable => "backend-unreachable",
            Self::BrokenOff => "backend-broke-off",
            Self::Garbled => "backend-garbled",
            Self::TimedOut => "backend-timeout",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.text(),
            Self::Method => "CONNECT is not served here",
            Self::Expectation => "the only expectation that can be met is 100-continue",
            Self::NoRoute => "no route for this host and path",
            Self::NoBackend => "the service has no instance that takes requests",
            Self::Unreachable => "no instance of the service accepts a connection",
            Self::BrokenOff => "the instance closed the connection before it answered",
            Self::Garbled => "the instance's answer is not one that HTTP/1.1 allows here",
            Self::TimedOut => "the instance did not answer in time",
        }
    }

    /// Answers, and ends the request.
    pub(crate) fn answer(self, link: &Link, mut ticket: Ticket) -> Response<AnswerBody> {
        let text = Bytes::from(format!("kiln edge: {}\n", self.text()));
        // 505 is the client's doing as much as any 4xx.
        let is_lost = self.status().is_server_error() && !matches!(self, Self::Refused(_));
        ticket.made(self.status(), self.code(), is_lost);
        ticket.sent(text.len());
        link.enter(Stage::Streaming);
        let mut response = Response::new(AnswerBody::Made(Some(text)));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(X_KILN_ERROR, HeaderValue::from_static(self.code()));
        if matches!(self, Self::Refused(_)) || link.worker.shared.stop() != Stop::No {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        link.settle_when_written(ticket);
        response
    }
}

/// Passes a backend's answer on.
pub(crate) fn pass_on(
    link: Arc<Link>,
    mut ticket: Ticket,
    mut lease: Lease,
    answer: Response<Incoming>,
) -> Response<AnswerBody> {
    let (mut parts, incoming) = answer.into_parts();
    lease.heed(&parts.headers);
    forward_answer(&mut parts.headers);
    // hyper speaks the client's version; a backend's is its own affair.
    parts.version = Version::HTTP_11;
    if link.worker.shared.stop() != Stop::No {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    ticket.answering(parts.status);
    link.enter(Stage::Streaming);
    let mut download = Download { incoming, end: Some((lease, ticket)), link };
    let body = if download.incoming.is_end_stream() {
        download.finish();
        AnswerBody::Made(None)
    } else {
        AnswerBody::Backend(Box::new(download))
    };
    Response::from_parts(parts, body)
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum AnswerBody {
    Made(Option<Bytes>),
    Backend(Box<Download>),
}

/// A backend's answer on its way. Dropped before its end, it means that the client has left.
#[derive(Debug)]
pub(crate) struct Download {
    incoming: Incoming,
    end: Option<(Lease, Ticket)>,
    link: Arc<Link>,
}

/// Why an answer ends early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownloadError {
    #[error("the backend broke its answer off")]
    Backend(#[source] hyper::Error),
    #[error("nothing moved for too long")]
    Stalled,
}

impl Download {
    fn finish(&mut self) {
        if let Some((lease, mut ticket)) = self.end.take() {
            lease.give_back(Instant::now());
            ticket.answered();
            self.link.settle_when_written(ticket);
        }
    }

    fn cut(&mut self) {
        if let Some((_, mut ticket)) = self.end.take() {
            ticket.cut();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if polled.is_pending() && self.link.has_expired(Stage::Streaming) {
            self.cut();
            return Poll::Ready(Some(Err(DownloadError::Stalled)));
        }
        match ready!(polled) {
            Some(Ok(frame)) => {
                if let (Some(piece), Some((_, ticket))) = (frame.data_ref(), &mut self.end) {
                    ticket.sent(piece.len());
                }
                // hyper asks a body that knows its end no more.
                if self.incoming.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.cut();
                Poll::Ready(Some(Err(DownloadError::Backend(error))))
            }
            None => {
                self.finish();
                Poll::Ready(None)
            }
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = DownloadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        match &mut *self {
            Self::Made(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Backend(download) => download.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Made(text) => text.is_none(),
            Self::Backend(download) => download.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Made(text) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            Self::Backend(download) => download.incoming.size_hint(),
        }
    }
}
