//! The client of the edge's control socket, for threads that may block: the host's and the controller's.

use std::collections::HashMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use kiln_model::route::{Listener, RouteTable, Sampling};
use kiln_model::sample::WindowSamples;
use kiln_model::{EnvKey, Fence, InstanceId, ServiceName};

use crate::anchor::Anchor;
use crate::backend::lock;
use crate::frame;
use crate::ledger::LedgerSnapshot;
use crate::limits::{CONTROL_ANSWER_MAX, CONTROL_WRITE_MAX};
use crate::wire::{
    self, AnchorWire, Answer, AnswerFrame, Request, RequestFrame, SamplesWire, TableWire, VERSION,
};

/// Why the edge did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The edge can't be reached or went away; what was asked may have been done. Connect again and ask again.
    #[error("the edge cannot be reached")]
    Connection(#[source] io::Error),
    /// The edge does not speak this version.
    #[error("the edge speaks version {0} of the control protocol, and this is version {VERSION}")]
    Version(u32),
    /// The edge says why it did not.
    #[error("the edge refused: {0}")]
    Refused(String),
    /// The edge said something that makes no sense here.
    #[error("the edge gave an answer that was not asked for")]
    Unexpected,
}

impl ClientError {
    /// Whether asking again over a new connection would end in the same way.
    pub fn is_permanent(&self) -> bool {
        !matches!(self, Self::Connection(_))
    }
}

/// What the edge says unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EdgeEvent {
    /// Nothing is in flight to the instance, no connection to it is open, and the table does not name it.
    Idle(InstanceId),
    /// The connection is gone; nothing more will come. What was awaited must be asked for again.
    Disconnected,
}

/// What came of publishing a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// It is stored and served; no request starts by an older one.
    Acknowledged(Fence),
    /// The edge has seen this higher fence.
    Refused {
        /// The highest fence.
        highest: Fence,
    },
}

/// The table that an edge serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedTable {
    /// The table.
    pub table: RouteTable,
    /// What is wrong with it, for people; empty when all is well.
    pub notes: Vec<String>,
}

type Reply = Result<(Answer, Vec<OwnedFd>), ClientError>;

#[derive(Debug, Default)]
struct Waiting {
    gone: bool,
    replies: HashMap<u64, SyncSender<Reply>>,
}

/// A connection to a running edge. May be shared by threads; each call waits for its own answer.
#[derive(Debug)]
pub struct EdgeClient {
    stream: Arc<UnixStream>,
    writing: Mutex<()>,
    waiting: Arc<Mutex<Waiting>>,
    next: AtomicU64,
}

impl EdgeClient {
    /// Connects to the socket (`STATE/run/edge.sock`). Events arrive at the receiver, the last one being `Disconnected`.
    ///
    /// # Errors
    /// `Connection`: nobody listens there.
    pub fn connect(socket: &Path) -> Result<(Self, Receiver<EdgeEvent>), ClientError> {
        let stream = Arc::new(UnixStream::connect(socket).map_err(ClientError::Connection)?);
        stream.set_write_timeout(Some(CONTROL_WRITE_MAX)).map_err(ClientError::Connection)?;
        let (sender, events) = channel();
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let (reader, replies) = (Arc::clone(&stream), Arc::clone(&waiting));
        thread::Builder::new()
            .name("edge-client".to_owned())
            .spawn(move || read_all(&reader, &replies, &sender))
            .map_err(ClientError::Connection)?;
        let client = Self { stream, writing: Mutex::new(()), waiting, next: AtomicU64::new(1) };
        Ok((client, events))
    }

    /// Hands over a listening TCP socket; the edge accepts from it beside whoever else holds it.
    ///
    /// # Errors
    /// `Refused`: it is not a listening socket, or there are too many.
    pub fn add_listener(&self, key: Listener, socket: BorrowedFd<'_>) -> Result<(), ClientError> {
        self.done(Request::AddListener { listener: key.to_string() }, &[socket])
    }

    /// Lets the edge stop accepting. Connections that it has go on.
    ///
    /// # Errors
    /// `Connection` only.
    pub fn remove_listener(&self, key: Listener) -> Result<(), ClientError> {
        self.done(Request::RemoveListener { listener: key.to_string() }, &[])
    }

    /// Returns the listeners that the edge has, with a duplicate of each socket.
    ///
    /// # Errors
    /// `Connection` mostly.
    pub fn listeners(&self) -> Result<Vec<(Listener, OwnedFd)>, ClientError> {
        let mut all = Vec::new();
        loop {
            let (answer, fds) = self.ask(Request::Listeners { from: all.len() }, &[])?;
            let Answer::Listeners { listeners, more } = answer else { return Err(ClientError::Unexpected) };
            if listeners.len() != fds.len() {
                return Err(ClientError::Unexpected);
            }
            for (key, fd) in listeners.iter().zip(fds) {
                all.push((wire::listener(key).map_err(|_| ClientError::Unexpected)?, fd));
            }
            if !more || listeners.is_empty() {
                return Ok(all);
            }
        }
    }

    /// Has a table stored and served.
    ///
    /// # Errors
    /// `Refused`: it could not be stored, and the older one is still served.
    pub fn publish(&self, table: &RouteTable) -> Result<Published, ClientError> {
        match self.ask(Request::Publish { table: TableWire::from(table) }, &[])?.0 {
            Answer::Acknowledged { fence } => Ok(Published::Acknowledged(fence.into())),
            Answer::Refused { highest } => Ok(Published::Refused { highest: highest.into() }),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Asks for [`EdgeEvent::Idle`] once nothing is in flight to an instance. Asking twice is harmless.
    ///
    /// # Errors
    /// `Connection` mostly.
    pub fn await_idle(&self, instance: InstanceId) -> Result<(), ClientError> {
        self.done(Request::AwaitIdle { instance: instance.to_string() }, &[])
    }

    /// Returns the ledger.
    ///
    /// # Errors
    /// `Connection` mostly.
    pub fn stats(&self) -> Result<LedgerSnapshot, ClientError> {
        match self.ask(Request::Stats, &[])?.0 {
            Answer::Stats { stats } => stats.into_model().map_err(|_| ClientError::Unexpected),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Returns what became of the requests of a window so far; none if the edge counts nothing under that name.
    ///
    /// The counts stay for a while after the last table that named the window: until 64 others were named.
    ///
    /// # Errors
    /// `Version`: the edge is too old to count. `Connection` mostly.
    pub fn samples(
        &self,
        env: &EnvKey,
        service: &ServiceName,
        sampling: Sampling,
    ) -> Result<Option<WindowSamples>, ClientError> {
        let (stack, env, service) = (env.stack.to_string(), env.env.to_string(), service.to_string());
        let (rollout, window) = (sampling.rollout.0, sampling.window);
        match self.ask(Request::Samples { stack, env, service, rollout, window }, &[])?.0 {
            Answer::Samples { samples } => {
                samples.map(SamplesWire::into_model).transpose().map_err(|_| ClientError::Unexpected)
            }
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Returns the table that is served.
    ///
    /// # Errors
    /// `Connection` mostly.
    pub fn table(&self) -> Result<ServedTable, ClientError> {
        match self.ask(Request::Table, &[])?.0 {
            Answer::Table { table, notes } => {
                let table = table.into_model().map_err(|_| ClientError::Unexpected)?;
                Ok(ServedTable { table, notes })
            }
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Stores where the log stands, durably.
    ///
    /// # Errors
    /// `Refused`: it is too long, or the disk refuses.
    pub fn put_anchor(&self, anchor: &Anchor) -> Result<(), ClientError> {
        let Anchor { position, hash, .. } = anchor.clone();
        self.done(Request::PutAnchor { anchor: AnchorWire { position, hash, at_ms: None } }, &[])
    }

    /// Returns the anchor that was stored last.
    ///
    /// # Errors
    /// `Connection` mostly.
    pub fn anchor(&self) -> Result<Option<Anchor>, ClientError> {
        match self.ask(Request::Anchor, &[])?.0 {
            Answer::Anchor { anchor } => Ok(anchor.map(Anchor::from)),
            _ => Err(ClientError::Unexpected),
        }
    }

    fn done(&self, request: Request, fds: &[BorrowedFd<'_>]) -> Result<(), ClientError> {
        match self.ask(request, fds)?.0 {
            Answer::Done => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }

    fn ask(&self, request: Request, fds: &[BorrowedFd<'_>]) -> Reply {
        let invalid = |error: serde_json::Error| ClientError::Connection(error.into());
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let frame = RequestFrame { v: VERSION, id, body: request };
        let payload = serde_json::to_vec(&frame).map_err(invalid)?;
        let (sender, reply) = sync_channel(1);
        {
            let mut waiting = lock(&self.waiting);
            if waiting.gone {
                return Err(gone());
            }
            waiting.replies.insert(id, sender);
        }
        let written = {
            let _writing = lock(&self.writing);
            frame::write(&self.stream, &payload, fds)
        };
        let reply = match written {
            Ok(()) => reply
                .recv_timeout(CONTROL_ANSWER_MAX)
                .unwrap_or_else(|_| Err(ClientError::Connection(io::ErrorKind::TimedOut.into()))),
            Err(error) => Err(ClientError::Connection(error)),
        };
        lock(&self.waiting).replies.remove(&id);
        match reply? {
            (Answer::Failed { reason }, _) => Err(ClientError::Refused(reason)),
            (Answer::Unsupported { version }, _) => Err(ClientError::Version(version)),
            other => Ok(other),
        }
    }
}

impl Drop for EdgeClient {
    fn drop(&mut self) {
        // Ends the reader's thread, too.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

fn gone() -> ClientError {
    ClientError::Connection(io::ErrorKind::ConnectionAborted.into())
}

fn read_all(stream: &UnixStream, waiting: &Mutex<Waiting>, events: &Sender<EdgeEvent>) {
    while let Ok(Some((payload, fds))) = frame::read(stream) {
        let Ok(AnswerFrame { id, body, .. }) = serde_json::from_slice(&payload) else { break };
        match body {
            Answer::Idle { instance } => {
                if let Ok(instance) = wire::instance(&instance) {
                    // Nobody may be interested any more.
                    let _ = events.send(EdgeEvent::Idle(instance));
                }
            }
            answer => {
                if let Some(reply) = lock(waiting).replies.remove(&id) {
                    // Its buffer has room for the one answer.
                    let _ = reply.send(Ok((answer, fds)));
                }
            }
        }
    }
    let mut waiting = lock(waiting);
    waiting.gone = true;
    for (_, reply) in waiting.replies.drain() {
        let _ = reply.send(Err(gone()));
    }
    let _ = events.send(EdgeEvent::Disconnected);
}
