//! The control socket: a thread for each connection, and one that tells who became idle.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use kiln_model::route::{Listener, Sampling};
use kiln_model::{InstanceId, RolloutId};
use rustix::net::sockopt;

use crate::backend::lock;
use crate::edge::{Edge, Outcome};
use crate::frame;
use crate::limits::{CONTROL_CONNECTIONS_MAX, CONTROL_WRITE_MAX, FRAME_FDS_MAX};
use crate::samples::WindowKey;
use crate::wire::{self, Answer, AnswerFrame, AnyFrame, Request, RequestFrame, VERSION};

/// How often idleness is looked at without having been told: only a safeguard.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What one connection may wait for at once; a rollout waits for the instances that it retires.
const AWAITED_MAX: usize = 16_384;

/// The server of the control socket.
pub(crate) struct Control {
    edge: Arc<Edge>,
    connections: AtomicUsize,
    /// By connection, so that what it waits for goes with it.
    awaited: Mutex<BTreeMap<u64, Awaited>>,
}

struct Awaited {
    stream: Arc<Stream>,
    instances: Vec<InstanceId>,
}

/// A connection that answers and pushes share.
struct Stream {
    socket: UnixStream,
    writing: Mutex<()>,
}

impl Stream {
    fn send(&self, id: u64, body: Answer, fds: &[OwnedFd]) -> io::Result<()> {
        let payload = serde_json::to_vec(&AnswerFrame { v: VERSION, id, body })?;
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let _writing = lock(&self.writing);
        frame::write(&self.socket, &payload, &fds).inspect_err(|_| {
            // Half a frame may be out: nothing sensible can follow it. The reader notices.
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
        })
    }
}

impl Control {
    pub(crate) fn new(edge: Arc<Edge>) -> Arc<Self> {
        Arc::new(Self { edge, connections: AtomicUsize::new(0), awaited: Mutex::default() })
    }

    /// Accepts connections for as long as the process lives.
    pub(crate) fn accept(self: &Arc<Self>, listener: &UnixListener) {
        for number in 1_u64.. {
            let Ok((socket, _)) = listener.accept() else {
                // Out of descriptors: requests may free some.
                thread::sleep(LOOK_EVERY);
                continue;
            };
            if self.connections.fetch_add(1, Ordering::SeqCst) >= CONTROL_CONNECTIONS_MAX {
                self.connections.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let control = Arc::clone(self);
            let started = thread::Builder::new().name("control".to_owned()).spawn(move || {
                // Its end is the peer's affair.
                let _ = control.converse(number, socket);
                lock(&control.awaited).remove(&number);
                control.connections.fetch_sub(1, Ordering::SeqCst);
            });
            if started.is_err() {
                self.connections.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    fn converse(&self, number: u64, socket: UnixStream) -> io::Result<()> {
        // The socket's mode says the same; this holds if somebody changes that.
        let own = rustix::process::geteuid();
        let peer = sockopt::socket_peercred(&socket)?.uid;
        if !peer.is_root() && peer != own {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        socket.set_write_timeout(Some(CONTROL_WRITE_MAX))?;
        let stream = Arc::new(Stream { socket, writing: Mutex::new(()) });
        while let Some((payload, fds)) = frame::read(&stream.socket)? {
            let frame = match serde_json::from_slice::<RequestFrame>(&payload) {
                Ok(frame) if frame.v == VERSION => frame,
                _ => {
                    let AnyFrame { id } = serde_json::from_slice(&payload)?;
                    stream.send(id, Answer::Unsupported { version: VERSION }, &[])?;
                    continue;
                }
            };
            let (answer, fds) = match frame.body {
                Request::AwaitIdle { instance } => (self.await_idle(number, &stream, &instance), vec![]),
                Request::Listeners { from } => self.listeners(from),
                other => (self.answer(other, fds), vec![]),
            };
            stream.send(frame.id, answer, &fds)?;
            self.edge.shared.registry.bell.ring();
        }
        Ok(())
    }

    fn answer(&self, request: Request, fds: Vec<OwnedFd>) -> Answer {
        let edge = &self.edge;
        match request {
            Request::AddListener { listener } => {
                let Ok([socket]) = <[OwnedFd; 1]>::try_from(fds) else {
                    return failed("a listener comes with one file descriptor");
                };
                let added = wire::listener(&listener)
                    .map_err(|error| error.to_string())
                    .and_then(|key: Listener| edge.add_listener(key, socket));
                added.map_or_else(failed, |()| Answer::Done)
            }
            Request::RemoveListener { listener } => match wire::listener(&listener) {
                Ok(key) => edge.remove_listener(key).map_or_else(failed, |()| Answer::Done),
                Err(error) => failed(error),
            },
            Request::Publish { table } => match table.into_model().map(|table| edge.publish(table)) {
                Ok(Ok(Outcome::Acknowledged(fence))) => Answer::Acknowledged { fence: fence.into() },
                Ok(Ok(Outcome::Refused(highest))) => Answer::Refused { highest: highest.into() },
                Ok(Err(error)) => failed(error),
                Err(error) => failed(error),
            },
            Request::Stats => Answer::Stats { stats: edge.shared.ledger.snapshot().into() },
            Request::Samples { stack, env, service, rollout, window } => {
                let (env, service) = match wire::sampled(stack, env, service) {
                    Ok(named) => named,
                    Err(error) => return failed(error),
                };
                let sampling = Sampling { rollout: RolloutId(rollout), window };
                let key = WindowKey { env: &env, service: &service, sampling };
                let samples = edge.shared.samples.as_ref().and_then(|samples| samples.read(key));
                Answer::Samples { samples: samples.map(Into::into) }
            }
            Request::Table => {
                let (table, notes) = edge.table();
                Answer::Table { table, notes }
            }
            Request::PutAnchor { anchor } => edge.put_anchor(anchor).map_or_else(failed, |()| Answer::Done),
            Request::Anchor => Answer::Anchor { anchor: edge.anchor() },
            Request::Listeners { .. } | Request::AwaitIdle { .. } => {
                failed("answered where file descriptors and pushes are at hand")
            }
        }
    }

    fn listeners(&self, from: usize) -> (Answer, Vec<OwnedFd>) {
        match self.edge.listeners(from, FRAME_FDS_MAX) {
            Ok((page, more)) => {
                let (keys, fds): (Vec<_>, Vec<_>) = page.into_iter().unzip();
                let listeners = keys.iter().map(Listener::to_string).collect();
                (Answer::Listeners { listeners, more }, fds)
            }
            Err(error) => (failed(error), vec![]),
        }
    }

    fn await_idle(&self, number: u64, stream: &Arc<Stream>, instance: &str) -> Answer {
        let instance = match wire::instance(instance) {
            Ok(instance) => instance,
            Err(error) => return failed(error),
        };
        let mut awaited = lock(&self.awaited);
        let entry = awaited
            .entry(number)
            .or_insert_with(|| Awaited { stream: Arc::clone(stream), instances: Vec::new() });
        if entry.instances.len() >= AWAITED_MAX {
            return failed(format!("at most {AWAITED_MAX} instances can be awaited at once"));
        }
        if !entry.instances.contains(&instance) {
            entry.instances.push(instance);
        }
        Answer::Done
    }

    /// Pushes `Idle` as instances become so, for as long as the process lives.
    pub(crate) fn announce(&self) {
        loop {
            self.edge.shared.registry.bell.wait(LOOK_EVERY);
            for (stream, instance) in self.take_idle() {
                // To a peer that is gone; its next life asks again.
                let _ = stream.send(0, Answer::Idle { instance: instance.to_string() }, &[]);
            }
        }
    }

    fn take_idle(&self) -> Vec<(Arc<Stream>, InstanceId)> {
        let mut idle = Vec::new();
        for Awaited { stream, instances } in lock(&self.awaited).values_mut() {
            instances.retain(|instance| {
                let is_idle = self.edge.is_idle(*instance);
                if is_idle {
                    idle.push((Arc::clone(stream), *instance));
                }
                !is_idle
            });
        }
        idle
    }
}

fn failed(reason: impl ToString) -> Answer {
    Answer::Failed { reason: reason.to_string() }
}
