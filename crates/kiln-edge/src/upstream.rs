//! Connections to backends, and the proof that a request was not sent.
//!
//! A pooled connection may have been closed by the backend a moment ago. The edge finds out with a look into the socket
//! in the same breath as the first write of a request: what is found closed there has not carried a byte of it, so any
//! request, a POST too, is sent again elsewhere.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::HeaderMap;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::backend::Backend;
use crate::limits::{CONNECT_MAX, CONNECTION_BUFFER_BYTES_MAX, POOL_IDLE_MAX};
use crate::upload::RequestBody;

/// What went over a connection since the current request was handed to it.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Look before the next write.
    unverified: AtomicBool,
    wrote: AtomicBool,
    read: AtomicBool,
}

impl Traffic {
    fn restart(&self, unverified: bool) {
        self.unverified.store(unverified, Ordering::Relaxed);
        self.wrote.store(false, Ordering::Relaxed);
        self.read.store(false, Ordering::Relaxed);
    }

    /// Whether any byte of the request went out.
    pub(crate) fn wrote(&self) -> bool {
        self.wrote.load(Ordering::Relaxed)
    }

    /// Whether any byte of an answer came in.
    pub(crate) fn read(&self) -> bool {
        self.read.load(Ordering::Relaxed)
    }
}

/// What it would mean to send a request twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Nothing.
    Harmless,
    /// Nothing, but its body can't be kept if it grows large.
    Limited,
    /// It might be done twice.
    Harmful,
}

/// A connection that waits for its next request.
#[derive(Debug)]
pub(crate) struct Pooled {
    pub(crate) sender: SendRequest<RequestBody>,
    pub(crate) idle_since: Instant,
    /// Less than [`POOL_IDLE_MAX`] if the backend said that it closes sooner.
    pub(crate) idle_max: Duration,
    traffic: Arc<Traffic>,
}

/// A connection that carries a request.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) sender: SendRequest<RequestBody>,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) reused: bool,
    backend: Arc<Backend>,
    worker: usize,
    idle_max: Duration,
}

impl Lease {
    /// Takes a pooled connection that suits a request.
    pub(crate) fn reuse(backend: &Arc<Backend>, worker: usize, now: Instant, repeat: Repeat) -> Option<Self> {
        let taken = match repeat {
            Repeat::Harmless | Repeat::Limited => backend.take_idle(worker, now),
            Repeat::Harmful => backend.take_idle_unreplayable(worker, now),
        };
        let Pooled { sender, traffic, idle_max, .. } = taken?;
        // Looking costs a system call, which a request that may simply be repeated does without.
        traffic.restart(repeat != Repeat::Harmless);
        Some(Self { sender, traffic, reused: true, backend: Arc::clone(backend), worker, idle_max })
    }

    /// Opens a connection and lets the current runtime drive it.
    pub(crate) async fn connect(backend: &Arc<Backend>, worker: usize) -> io::Result<Self> {
        let token = backend.connection();
        let stream = open(backend.address).await?;
        let traffic = Arc::new(Traffic::default());
        let io = TokioIo::new(BackendIo { stream, traffic: Arc::clone(&traffic) });
        let mut builder = Builder::new();
        builder.max_buf_size(CONNECTION_BUFFER_BYTES_MAX);
        let (sender, connection) = builder.handshake(io).await.map_err(io::Error::other)?;
        tokio::spawn(async move {
            // Its error is also given to whoever waits for an answer.
            let _ = connection.with_upgrades().await;
            drop(token);
        });
        let backend = Arc::clone(backend);
        Ok(Self { sender, traffic, reused: false, backend, worker, idle_max: POOL_IDLE_MAX })
    }

    /// Notes that the connection turned out to be dead before anything was sent.
    pub(crate) fn was_stale(&self) {
        self.backend.closed_early();
    }

    /// Heeds what the backend says about its patience (`Keep-Alive: timeout=5`).
    pub(crate) fn heed(&mut self, headers: &HeaderMap) {
        let Some(value) = headers.get("keep-alive").and_then(|value| value.to_str().ok()) else { return };
        let timeout = value.split(',').find_map(|part| part.trim().strip_prefix("timeout="));
        if let Some(seconds) = timeout.and_then(|text| text.parse::<u32>().ok()) {
            // Half of it: the backend's clock started before ours.
            self.idle_max = POOL_IDLE_MAX.min(Duration::from_millis(u64::from(seconds) * 500));
        }
    }

    /// Gives the connection back for the next request.
    pub(crate) fn give_back(self, now: Instant) {
        if !self.sender.is_closed() {
            let Self { sender, traffic, idle_max, .. } = self;
            self.backend.put_idle(self.worker, Pooled { sender, idle_since: now, idle_max, traffic });
        }
    }
}

async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(CONNECT_MAX, TcpStream::connect(address)).await??;
    // A request's head and body may be two writes: neither must wait for the other's acknowledgement.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The socket under hyper's connection.
struct BackendIo {
    stream: TcpStream,
    traffic: Arc<Traffic>,
}

impl BackendIo {
    /// Refuses the first write of a request when the peer has closed, or has said something unasked, which before
    /// a request only means that it is about to close.
    fn verify(&self) -> io::Result<()> {
        if !self.traffic.unverified.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let mut byte = [0_u8; 1];
        match rustix::net::recv(&self.stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => {
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the pooled connection was closed"))
            }
        }
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.traffic.wrote.store(true, Ordering::Relaxed);
        }
        written
    }
}

impl AsyncRead for BackendIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() != before {
            self.traffic.read.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for BackendIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.verify()?;
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.verify()?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
