//! `kiln host`: the root of the processes.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use kiln_model::route::Listener;
use kiln_provider::Provider;
use kiln_provider::host::{HostConfig, Listeners, Server, StoredImages, ZygoteProgram};
use kiln_store::{Sealed, Store};

use super::paths::StateDir;
use super::process::{self, ProcessError};
use super::sockets::Sockets;
use super::supervise::Supervised;

/// Runs the host until SIGTERM or SIGINT. Instances, edge and controller go on without it; the next host adopts them.
///
/// # Errors
/// See [`ProcessError`].
pub fn run(state: &StateDir, holds_lock: bool) -> Result<(), ProcessError> {
    let alive = process::begin("host", state, holds_lock)?;
    if alive.is_none() {
        // Started by another command: its terminal's hang-up is not ours. That fails only for a leader, who needs none.
        let _ = rustix::process::setsid();
    }
    let store = Store::open(state.path()).map_err(ProcessError::because("open the store"))?;
    let sealed = Sealed::open(state.path()).map_err(ProcessError::because("open the sealed store"))?;
    let sockets = Arc::new(Sockets::recover(state));
    let server = Server::start(HostConfig {
        state_dir: state.path().to_owned(),
        images: Box::new(StoredImages::new(store, sealed)),
        listeners: Box::new(Shared(sockets.clone())),
        zygote: ZygoteProgram::default(),
    })
    .map_err(ProcessError::because("start the host"))?;
    let host = server.host().clone();
    sockets.reopen(|index| host.internal_address(index).map(drop));
    let stop = Arc::new(AtomicBool::new(false));
    supervise("edge", state, &stop, move || sockets.hand_over())?;
    supervise("controller", state, &stop, || {})?;
    wait_for_signal().map_err(ProcessError::because("wait for signals"))?;
    stop.store(true, Ordering::Release);
    let empty = host.list().is_ok_and(|listing| listing.instances.is_empty());
    server.stop();
    if empty {
        // Nothing runs on the bridge. What is made again at the next start need not be left on the machine.
        host.remove_traces().map_err(ProcessError::because("remove the bridge"))?;
    }
    Ok(())
}

/// Keeps one process running, on a thread of its own; `running` is called whenever one runs that did not before.
fn supervise(
    name: &'static str,
    state: &StateDir,
    stop: &Arc<AtomicBool>,
    running: impl Fn() + Send + 'static,
) -> Result<(), ProcessError> {
    let kind = Supervised { name, state: state.clone(), stop: stop.clone() };
    let work = move || {
        let ended = catch_unwind(AssertUnwindSafe(|| kind.run(running)));
        let error = match ended {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            // Our own bug. A host that lives without this thread looks well, and its edge is never started again.
            Err(_) => "the thread that does it panicked".to_owned(),
        };
        // Not even a file can be opened or a process started: a new host may have more luck than this one.
        tracing::error!(process = name, %error, "cannot be kept running");
        std::process::exit(1);
    };
    thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map(drop)
        .map_err(ProcessError::because("start a thread"))
}

fn wait_for_signal() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        Ok(())
    })
}

/// The sockets as the host's port wants them: the supervisor of the edge has them, too.
struct Shared(Arc<Sockets>);

impl Listeners for Shared {
    fn open(&self, listener: Listener, address: std::net::SocketAddr) -> Result<(), String> {
        self.0.open(listener, address)
    }

    fn close(&self, listener: Listener) -> Result<(), String> {
        self.0.close(listener)
    }
}
