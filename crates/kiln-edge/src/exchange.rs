//! One request: read what it is, find its backend, send it, send it again where that is safe, pass the answer on.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use hyper::body::{Body, Incoming};
use hyper::client::conn::TrySendError;
use hyper::header::{HOST, HeaderMap, HeaderValue, SET_COOKIE, UPGRADE};
use hyper::http::request::Parts;
use hyper::http::uri;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use kiln_model::InstanceId;
use kiln_model::route::Group;

use crate::answer::{AnswerBody, Made, pass_on};
use crate::balancer::{Choice, Heed};
use crate::guard::REFUSED_METHOD;
use crate::head::Refusal;
use crate::headers::{
    Caller, KILN_MIRROR, X_FORWARDED_PROTO, expects_continue, forward_request, wanted_upgrade,
};
use crate::ledger::SlotRef;
use crate::limits::{ASIDE_MIN, CONNECT_ATTEMPTS_MAX, LINGER_MAX, REPLAY_BYTES_MAX, STALE_RETRIES_MAX};
use crate::link::{Link, Stage, Switch};
use crate::mirror::Mirror;
use crate::ticket::{Asked, Ticket};
use crate::tunnel;
use crate::upload::{Keep, RequestBody, Upload};
use crate::upstream::{Lease, Repeat};
use crate::wish::{Asker, Newcomer, Wish};

/// How long a backend is given to say `100 Continue` before it gets the body anyway (RFC 9110 §10.1.1: a client must not
/// wait without end, and many servers never say it).
const CONTINUE_MAX: Duration = Duration::from_secs(1);

/// Answers a request.
pub(crate) async fn answer(
    link: Arc<Link>,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Infallible> {
    let now = Instant::now();
    link.enter(Stage::Waiting);
    let (parts, incoming) = request.into_parts();
    let asked = Asked {
        method: parts.method.clone(),
        uri: parts.uri.clone(),
        host: parts.headers.get(HOST).cloned(),
    };
    let switches = parts.headers.contains_key(UPGRADE);
    let response = match Plan::read(&link, parts, incoming) {
        Ok(mut plan) => plan.carry_out(&link, asked, now).await,
        Err(made) => made.answer(&link, Ticket::begin(&link, asked, SlotRef::UNROUTED, now)),
    };
    if switches && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        link.decide_switch(Switch::Declined);
    }
    Ok(response)
}

/// What is to be sent, and how often that may be done.
struct Plan {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    host: Option<HeaderValue>,
    upload: Option<Arc<Upload>>,
    idempotent: bool,
    expects_continue: bool,
    switch: Option<OnUpgrade>,
    secure: bool,
    newcomer: Option<Newcomer>,
    mirror: Option<Arc<Mirror>>,
    tried: Vec<InstanceId>,
    /// How often every backend of the pool was tried.
    rounds: u32,
    connects_failed: u32,
    resent: u32,
}

/// What came of one attempt.
enum Sent {
    Answer(Response<Incoming>, Lease),
    /// Nothing was done, or doing it again does no harm.
    Again {
        /// The instance did not do what it should have: it was away, or read the request and closed.
        failed: bool,
    },
    Failed(Made),
}

impl Plan {
    fn read(link: &Link, mut parts: Parts, incoming: Incoming) -> Result<Self, Made> {
        if parts.method.as_str() == REFUSED_METHOD {
            return Err(Made::Refused(
                link.refusal().unwrap_or(Refusal::Malformed("this method is not for clients")),
            ));
        }
        if parts.method == Method::CONNECT {
            return Err(Made::Method);
        }
        let expects_continue = expects_continue(&parts.headers).map_err(|()| Made::Expectation)?;
        let (uri, host) = target(&parts)?;
        let protocol = wanted_upgrade(&parts.headers).filter(|_| parts.version == Version::HTTP_11);
        let switch = protocol.is_some().then(|| parts.extensions.remove::<OnUpgrade>()).flatten();
        let secure = parts.headers.get(X_FORWARDED_PROTO).is_some_and(is_https);
        let caller = Caller { address: &link.peer_text, trusted: link.is_internal(), host: host.as_ref() };
        forward_request(&mut parts.headers, &caller, protocol.as_ref().filter(|_| switch.is_some()));
        if let Some(host) = &host
            && parts.headers.get(HOST) != Some(host)
        {
            parts.headers.insert(HOST, host.clone());
        }
        let idempotent = is_idempotent(&parts.method);
        let keep = if idempotent { Keep::WhileSmall } else { Keep::UntilSent };
        let expects_continue = expects_continue && parts.version == Version::HTTP_11;
        let upload = (!incoming.is_end_stream()).then(|| Upload::new(incoming, keep, expects_continue));
        Ok(Self {
            method: parts.method,
            uri,
            headers: parts.headers,
            host,
            upload,
            idempotent,
            expects_continue,
            switch,
            secure,
            newcomer: None,
            mirror: None,
            tried: Vec::new(),
            rounds: 0,
            connects_failed: 0,
            resent: 0,
        })
    }

    async fn carry_out(&mut self, link: &Arc<Link>, asked: Asked, now: Instant) -> Response<AnswerBody> {
        let mut ticket = match self.place(link) {
            Ok(choice) => Ticket::begin_at(link, asked, choice, now),
            Err((made, slot)) => {
                let ticket = Ticket::begin(link, asked, slot, now);
                return self.give_up(link, ticket, made).await;
            }
        };
        let made = loop {
            match self.attempt(link, &ticket).await {
                Sent::Answer(answer, lease) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    match self.switch.take() {
                        Some(client) => return self.greet(tunnel::open(link, ticket, client, answer)),
                        None => {
                            drop(lease);
                            break Made::Garbled;
                        }
                    }
                }
                Sent::Answer(answer, lease) => {
                    self.copy(link, answer.status());
                    return self.greet(pass_on(Arc::clone(link), ticket, lease, answer));
                }
                Sent::Failed(made) => break made,
                Sent::Again { failed } => {
                    if failed {
                        ticket.attempt_failed();
                    }
                    match self.place(link) {
                        Ok(choice) => ticket.go_on_at(choice),
                        Err((made, _)) => break made,
                    }
                }
            }
        };
        self.give_up(link, ticket, made).await
    }

    /// Whether a copy goes to the canary, too: of what is safe (RFC 9110 §9.2.1) and whole as it is, and no copy itself.
    fn is_copied(&self, mirror: &Mirror, choice: &Choice) -> bool {
        choice.group == Group::Stable
            && matches!(self.method, Method::GET | Method::HEAD)
            && self.upload.is_none()
            && self.switch.is_none()
            && !self.headers.contains_key(KILN_MIRROR)
            && mirror.draws_this_one()
    }

    fn copy(&mut self, link: &Link, original: StatusCode) {
        if let Some(mirror) = self.mirror.take() {
            mirror.copy(&link.worker, original, || {
                let mut request = Request::new(RequestBody::Empty);
                *request.method_mut() = self.method.clone();
                *request.uri_mut() = self.uri.clone();
                *request.headers_mut() = self.headers.clone();
                request
            });
        }
    }

    /// Gives a newcomer the cookie to come back with.
    fn greet(&mut self, mut response: Response<AnswerBody>) -> Response<AnswerBody> {
        if let Some(newcomer) = self.newcomer.take() {
            response.headers_mut().append(SET_COOKIE, newcomer.cookie);
        }
        response
    }

    /// Answers in the backend's place. A small body is read first, so that the connection can be used again.
    async fn give_up(&self, link: &Link, ticket: Ticket, made: Made) -> Response<AnswerBody> {
        if let Some(upload) =
            self.upload.as_ref().filter(|upload| !self.expects_continue && !upload.has_failed())
        {
            let _ = tokio::time::timeout(LINGER_MAX, upload.discard(REPLAY_BYTES_MAX)).await;
        }
        made.answer(link, ticket)
    }

    /// Chooses a backend by the table of this moment, and counts the request there.
    fn place(&mut self, link: &Link) -> Result<Choice, (Made, SlotRef)> {
        let shared = &link.worker.shared;
        let host = self.host.as_ref().and_then(|host| host.to_str().ok());
        // `OPTIONS *` is about the server as a whole.
        let path = if self.uri.path() == "*" { "/" } else { self.uri.path() };
        loop {
            let table = shared.table.load();
            let balancer =
                table.find(&link.listener(), host, path).ok_or((Made::NoRoute, SlotRef::UNROUTED))?;
            let wish = match &balancer.wishes {
                Some(wishes) => {
                    let asker =
                        Asker { headers: &self.headers, address: link.peer().ip(), secure: self.secure };
                    wishes.of(&asker, &mut self.newcomer)
                }
                None => Wish::Any,
            };
            let heed = Heed { now: Instant::now(), tried: &self.tried };
            let Some(choice) = balancer.choose(heed, wish) else {
                let made = if self.tried.is_empty() { Made::NoBackend } else { Made::Unreachable };
                if self.tried.is_empty() || balancer.is_empty() {
                    return Err((made, balancer.slot));
                }
                // All were tried once: one more round, in which `connects_failed` is the bound.
                self.tried.clear();
                self.rounds += 1;
                continue;
            };
            // Refused when the table was swapped since it was loaded: the new one names only routed backends.
            if choice.backend.enter() {
                self.mirror =
                    balancer.mirror.as_ref().filter(|mirror| self.is_copied(mirror, &choice)).cloned();
                return Ok(choice);
            }
        }
    }

    async fn attempt(&mut self, link: &Arc<Link>, ticket: &Ticket) -> Sent {
        let Some(choice) = ticket.place() else { return Sent::Failed(Made::NoBackend) };
        let pooled = if self.resent == 0 {
            Lease::reuse(&choice.backend, link.worker.index, Instant::now(), self.repeat())
        } else {
            None
        };
        let lease = match pooled {
            Some(lease) => lease,
            None => match Lease::connect(&choice.backend, link.worker.index).await {
                Ok(lease) => {
                    choice.backend.connected();
                    lease
                }
                Err(_) => return self.connect_failed(choice).await,
            },
        };
        self.send(link, lease).await
    }

    async fn connect_failed(&mut self, choice: &Choice) -> Sent {
        choice.backend.connect_failed(Instant::now());
        self.connects_failed += 1;
        if self.connects_failed >= CONNECT_ATTEMPTS_MAX {
            return Sent::Failed(Made::Unreachable);
        }
        if self.rounds > 0 {
            // Tried before: it may be starting to listen right now.
            tokio::time::sleep(ASIDE_MIN * self.connects_failed).await;
        }
        self.tried.push(choice.backend.instance);
        Sent::Again { failed: true }
    }

    fn repeat(&self) -> Repeat {
        match &self.upload {
            _ if !self.idempotent => Repeat::Harmful,
            None => Repeat::Harmless,
            Some(upload) if upload.is_replayable() => Repeat::Limited,
            Some(_) => Repeat::Harmful,
        }
    }

    async fn send(&mut self, link: &Link, mut lease: Lease) -> Sent {
        let request = self.request(&lease);
        let sent = {
            let mut sending = pin!(lease.sender.try_send_request(request));
            std::future::poll_fn(|cx| match sending.as_mut().poll(cx) {
                Poll::Ready(result) => Poll::Ready(Some(result)),
                Poll::Pending if link.has_expired(Stage::Waiting) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            })
            .await
        };
        match sent {
            Some(Ok(answer)) => Sent::Answer(answer, lease),
            Some(Err(error)) => self.judge(link, &lease, error),
            None if self.upload.as_ref().is_some_and(|upload| upload.waits_for_client()) => {
                Sent::Failed(Made::Refused(Refusal::BodyTimeout))
            }
            None => Sent::Failed(Made::TimedOut),
        }
    }

    fn request(&self, lease: &Lease) -> Request<RequestBody> {
        let body = self.upload.as_ref().map_or(RequestBody::Empty, |upload| upload.attempt(&lease.traffic));
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        if let Some(upload) = self.upload.as_ref().filter(|_| self.expects_continue) {
            let opened_by_backend = Arc::clone(upload);
            hyper::ext::on_informational(&mut request, move |answer| {
                if answer.status() == StatusCode::CONTINUE {
                    opened_by_backend.open_gate();
                }
            });
            let opened_by_time = Arc::downgrade(upload);
            tokio::spawn(async move {
                tokio::time::sleep(CONTINUE_MAX).await;
                if let Some(upload) = opened_by_time.upgrade() {
                    upload.open_gate();
                }
            });
        }
        request
    }

    /// Decides whether a request that got no answer may be sent again.
    fn judge(&mut self, link: &Link, lease: &Lease, error: TrySendError<Request<RequestBody>>) -> Sent {
        if self.upload.as_ref().is_some_and(|upload| upload.has_failed()) {
            let broken = Refusal::Malformed("the request's body broke off");
            return Sent::Failed(Made::Refused(link.refusal().unwrap_or(broken)));
        }
        let body_is_whole = self.upload.as_ref().is_none_or(|upload| upload.is_replayable());
        let never_sent = error.message().is_some() || !lease.traffic.wrote();
        if lease.reused && !lease.traffic.read() {
            lease.was_stale();
        }
        let harmless = lease.reused && !lease.traffic.read() && self.idempotent;
        if body_is_whole && (never_sent || harmless) && self.resent < STALE_RETRIES_MAX {
            self.resent += 1;
            return Sent::Again { failed: !never_sent };
        }
        Sent::Failed(if error.error().is_parse() { Made::Garbled } else { Made::BrokenOff })
    }
}

/// The target to send, in origin form, and the host that it is for (RFC 9112 §3.2).
fn target(parts: &Parts) -> Result<(Uri, Option<HeaderValue>), Made> {
    let malformed = Made::Refused(Refusal::Malformed("the request target is not understood"));
    let host = parts.headers.get(HOST).cloned();
    let Some(authority) = parts.uri.authority() else {
        let asterisk = parts.uri.path() == "*" && parts.method == Method::OPTIONS;
        let sound = parts.uri.path().starts_with('/') || asterisk;
        return if sound { Ok((parts.uri.clone(), host)) } else { Err(malformed) };
    };
    if parts.uri.scheme() != Some(&uri::Scheme::HTTP) || authority.as_str().contains('@') {
        return Err(malformed);
    }
    // A target with a host outranks the Host header.
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| malformed)?;
    let mut origin = uri::Parts::default();
    origin.path_and_query =
        Some(parts.uri.path_and_query().cloned().unwrap_or(uri::PathAndQuery::from_static("/")));
    Ok((Uri::from_parts(origin).map_err(|_| malformed)?, Some(host)))
}

fn is_https(value: &HeaderValue) -> bool {
    value.as_bytes().eq_ignore_ascii_case(b"https")
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}
