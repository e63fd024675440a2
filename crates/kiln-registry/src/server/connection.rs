//! One connection: handshake, requests, and who may make them.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, EXPECT};
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::answer::{Answer, Code, Refusal, With, json};
use super::htpasswd::basic;
use super::limits::{HANDSHAKE_WITHIN, HEAD_BYTES_MAX, HEAD_WITHIN, STALL_MAX};
use super::receive::drain;
use super::route::{Endpoint, Query};
use super::sessions::join;
use super::stalling::Stalling;
use super::{Shared, blobs, lists, manifests};

/// Serves a connection to its end, or until its request is done after `stop` became true.
pub(super) async fn serve(shared: Arc<Shared>, stream: TcpStream, stop: watch::Receiver<bool>) {
    // Small answers are whole: waiting for more to send with them only delays them.
    let _ = stream.set_nodelay(true);
    match &shared.tls {
        None => requests(shared, Stalling::new(stream, STALL_MAX), stop).await,
        Some(tls) => {
            // Whoever can't do the handshake is not told more than TLS tells.
            let stream = Stalling::new(stream, STALL_MAX);
            if let Ok(Ok(stream)) = timeout(HANDSHAKE_WITHIN, tls.accept(stream)).await {
                requests(shared, stream, stop).await;
            }
        }
    }
}

async fn requests<S>(shared: Arc<Shared>, stream: S, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let stopped = async {
        // A sender that is gone has stopped, too.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stopped => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // Clients leave as they like.
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection ended");
    }
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Answer {
    let (head, mut body) = request.into_parts();
    let outcome = match admit(shared, &head).await {
        Ok(()) => carry_out(shared, &head, &mut body).await,
        Err(refusal) => Err(refusal),
    };
    let answer = match outcome {
        Ok(answer) => answer,
        Err(refusal) => {
            // Who asks first sends nothing after a refusal.
            if !head.headers.contains_key(EXPECT) {
                drain(&mut body).await;
            }
            refusal.answer()
        }
    };
    answer.with("docker-distribution-api-version", "registry/2.0")
}

/// Refuses whoever is not a user, where there are users.
async fn admit(shared: &Shared, head: &hyper::http::request::Parts) -> Result<(), Refusal> {
    let Some(users) = &shared.users else { return Ok(()) };
    let refusal = || {
        Refusal::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, "a user and a password are needed")
            .header("www-authenticate", "Basic realm=\"kiln registry\", charset=\"UTF-8\"")
    };
    let header = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (user, password) = header.and_then(basic).ok_or_else(refusal)?;
    if users.remembers(&user, &password) {
        return Ok(());
    }
    let held = Arc::clone(&shared.passwords).acquire_owned().await.expect("the semaphore is never closed");
    let users = Arc::clone(users);
    let is_right = join(tokio::task::spawn_blocking(move || {
        let _held = held;
        users.check(&user, &password)
    }))
    .await?;
    if is_right { Ok(()) } else { Err(refusal()) }
}

async fn carry_out(
    shared: &Shared,
    head: &hyper::http::request::Parts,
    body: &mut Incoming,
) -> Result<Answer, Refusal> {
    let endpoint = Endpoint::find(head.uri.path())?;
    let query = Query::parse(head.uri.query());
    let methods = endpoint.methods();
    if !methods.split(", ").any(|method| method == head.method.as_str()) {
        let message = format!("{} is not for this endpoint", head.method);
        return Err(
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, message).header("allow", methods)
        );
    }
    match endpoint {
        Endpoint::Base => Ok(json(StatusCode::OK, &serde_json::json!({}))),
        Endpoint::Catalog => lists::repositories(shared, &query).await,
        Endpoint::Tags { name } => lists::tags(shared, name, &query).await,
        Endpoint::Referrers { name, digest } => lists::referrers(shared, name, digest, &query).await,
        Endpoint::Blob { name, digest } => match head.method {
            Method::DELETE => blobs::delete(shared, name, digest).await,
            _ => blobs::get(shared, name, digest, &head.headers).await,
        },
        Endpoint::Manifest { name, reference } => match head.method {
            Method::DELETE => manifests::delete(shared, name, reference).await,
            Method::PUT => manifests::put(shared, name, reference, &head.headers, body).await,
            _ => manifests::get(shared, name, reference).await,
        },
        Endpoint::Uploads { name } => blobs::begin(shared, name, &query, body).await,
        Endpoint::Upload { name, id } => {
            blobs::upload(shared, name, id, (&head.method, &head.headers, &query), body).await
        }
    }
}
