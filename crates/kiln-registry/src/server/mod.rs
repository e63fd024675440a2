//! The registry over HTTP/1.1, with TLS or without.
//!
//! ```text
//! connection   who may, and which endpoint
//!  ├─ blobs ──── receive ── sessions ── storage
//!  ├─ manifests ─────────────────────── storage
//!  └─ lists ─────────────────────────── storage
//! ```
//!
//! Files are read and written on tokio's blocking threads in pieces of a fixed size, the next one while the one before it is on
//! its way; a thread never waits for a client. What is refused is a [`answer::Refusal`], made into the specification's JSON
//! in one place.

mod answer;
mod blobs;
mod body;
mod connection;
#[cfg(test)]
mod fuzz;
mod htpasswd;
mod limits;
mod lists;
mod manifests;
mod receive;
mod route;
mod sessions;
mod stalling;
mod tls;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::storage::{OpenStorageError, Storage};
use htpasswd::Htpasswd;
use limits::{
    ACCEPT_PAUSE, CONNECTIONS_MAX, FILE_THREADS_MAX, MANIFESTS_AT_ONCE, PASSWORDS_AT_ONCE, STOP_WITHIN,
    SWEEP_EVERY, UPLOAD_AGE_MAX,
};
use sessions::Sessions;

pub use htpasswd::HtpasswdError;
pub use tls::{TlsError, TlsFiles};

/// What a registry is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where it keeps its bytes.
    pub root: PathBuf,
    /// A file of those who may use it; without, everybody may.
    pub htpasswd: Option<PathBuf>,
    /// Certificate and key; without, it speaks plain HTTP.
    pub tls: Option<TlsFiles>,
}

/// A registry can't be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address can't be listened at.
    #[error("{address} can't be listened at")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The folder can't be used.
    #[error(transparent)]
    Storage(#[from] OpenStorageError),
    /// The file of users can't be used.
    #[error("the users in {} can't be used", path.display())]
    Htpasswd {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: HtpasswdError,
    },
    /// TLS can't be offered.
    #[error("TLS can't be offered")]
    Tls(#[from] TlsError),
    /// Threads or signals can't be had.
    #[error("the process can't serve")]
    Process(#[source] io::Error),
}

/// What all requests share.
struct Shared {
    storage: Arc<Storage>,
    sessions: Sessions,
    users: Option<Arc<Htpasswd>>,
    tls: Option<TlsAcceptor>,
    manifests: Semaphore,
    passwords: Arc<Semaphore>,
}

/// A registry that listens; it serves once it is run.
pub struct Server {
    runtime: Runtime,
    listener: tokio::net::TcpListener,
    address: SocketAddr,
    terminate: Signal,
    interrupt: Signal,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Reads the files, opens the folder and listens. From here on clients can connect; they are answered once it runs.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left open.
    pub fn start(settings: &Settings) -> Result<Self, StartError> {
        let tls = settings.tls.as_ref().map(tls::acceptor).transpose()?;
        let users = settings.htpasswd.as_ref().map(|path| {
            Htpasswd::read(path).map_err(|source| StartError::Htpasswd { path: path.clone(), source })
        });
        let users = users.transpose()?.map(Arc::new);
        let listen = |source| StartError::Listen { address: settings.listen, source };
        let listener = TcpListener::bind(settings.listen).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let storage = Arc::new(Storage::open(&settings.root)?);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name("registry")
            .max_blocking_threads(FILE_THREADS_MAX)
            .build()
            .map_err(StartError::Process)?;
        let entered = runtime.enter();
        // Before anything is served, so that no signal ends the process in the middle.
        let terminate = signal(SignalKind::terminate()).map_err(StartError::Process)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(StartError::Process)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(listen)?;
        drop(entered);
        let shared = Arc::new(Shared {
            sessions: Sessions::new(Arc::clone(&storage)),
            storage,
            users,
            tls,
            manifests: Semaphore::new(MANIFESTS_AT_ONCE),
            passwords: Arc::new(Semaphore::new(PASSWORDS_AT_ONCE)),
        });
        Ok(Self { runtime, listener, address, terminate, interrupt, shared })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until SIGTERM or SIGINT, and then lets requests end for a while.
    pub fn run(self) {
        let Self { runtime, listener, terminate, interrupt, shared, .. } = self;
        let (stopping, stop) = watch::channel(false);
        runtime.spawn(sweep(Arc::clone(&shared)));
        runtime.block_on(async {
            let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
            tokio::select! {
                () = accept(&shared, &listener, &places, &stop) => {}
                () = either(terminate, interrupt) => {}
            }
            drop(listener);
            tracing::info!("the registry ends");
            // Nobody listens where no connection is open.
            let _ = stopping.send(true);
            let all = u32::try_from(CONNECTIONS_MAX).expect("there are a few hundred places");
            // Every place that is free again is a connection that ended; those that are not are cut.
            let _ = tokio::time::timeout(STOP_WITHIN, places.acquire_many(all)).await;
        });
        // A piece that is being written is written; nothing waits for a client any more.
        runtime.shutdown_timeout(STOP_WITHIN);
    }
}

async fn either(mut terminate: Signal, mut interrupt: Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Accepts connections for ever, as many at once as there are places.
async fn accept(
    shared: &Arc<Shared>,
    listener: &tokio::net::TcpListener,
    places: &Arc<Semaphore>,
    stop: &watch::Receiver<bool>,
) {
    loop {
        let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let (shared, stop) = (Arc::clone(shared), stop.clone());
                tokio::spawn(async move {
                    connection::serve(shared, stream, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection can't be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Removes, now and then, what nobody goes on with.
async fn sweep(shared: Arc<Shared>) {
    let mut due = tokio::time::interval(SWEEP_EVERY);
    loop {
        due.tick().await;
        let shared = Arc::clone(&shared);
        let work = tokio::task::spawn_blocking(move || shared.sessions.sweep(UPLOAD_AGE_MAX));
        match work.await.map_err(io::Error::other).flatten() {
            Ok(swept) if swept == Default::default() => {}
            Ok(swept) => tracing::info!(uploads = swept.uploads, blobs = swept.blobs, "swept"),
            Err(error) => tracing::warn!(%error, "can't sweep; it is tried again"),
        }
    }
}
