//! One thread with a runtime of its own: it accepts, serves its connections from end to end, and watches their deadlines.
//!
//! A request stays on the core that accepted its connection, with pools of backend connections that no other core uses:
//! nothing is woken, locked or moved across cores on its way.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Instant, SystemTime};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kiln_model::route::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::access_log::Line;
use crate::backend::lock;
use crate::exchange;
use crate::guard::Guard;
use crate::limits::{
    ACCEPT_PAUSE, CONNECTION_BUFFER_BYTES_MAX, HANDOVER_SLACK, LISTENER_CONNECTIONS_MAX, LOG_BATCH_BYTES,
    SWEEP_EVERY,
};
use crate::link::Link;
use crate::shared::{Shared, Stop};
use crate::synthesis::Synthesis;

/// What a worker is told.
pub(crate) enum Job {
    Listen(Arc<Gate>, std::net::TcpListener),
    /// Lets go of a listener's socket; what came with it is dropped when that has been done.
    Unlisten(Listener, Released),
    Serve(std::net::TcpStream, Entered),
    /// Makes requests itself, for as long as the table wants it.
    Synthesise(Arc<Synthesis>),
    /// The stop has gone on by a step.
    Stop,
}

/// Held by each worker until it has let go of a socket: when all are dropped, nobody accepts from it any more.
pub(crate) type Released = std::sync::mpsc::Sender<std::convert::Infallible>;

/// A listener with its limit on connections.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) listener: Listener,
    room: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new(listener: Listener) -> Arc<Self> {
        Arc::new(Self { listener, room: Arc::new(Semaphore::new(LISTENER_CONNECTIONS_MAX)) })
    }

    /// A place, if there is one at once.
    #[cfg(test)]
    pub(crate) fn room(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).try_acquire_owned().ok()
    }
}

/// An accepted connection's place: it counts until this is dropped.
#[derive(Debug)]
pub(crate) struct Entered {
    pub(crate) peer: SocketAddr,
    pub(crate) listener: Listener,
    seats: Arc<[Seat]>,
    seat: usize,
    _room: OwnedSemaphorePermit,
}

impl Entered {
    pub(crate) fn new(
        peer: SocketAddr,
        gate: &Gate,
        seats: Arc<[Seat]>,
        seat: usize,
        room: OwnedSemaphorePermit,
    ) -> Self {
        seats[seat].connections.fetch_add(1, Ordering::Relaxed);
        Self { peer, listener: gate.listener, seats, seat, _room: room }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.seats[self.seat].connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a worker is seen by the others.
#[derive(Debug)]
pub(crate) struct Seat {
    connections: AtomicUsize,
    inbox: UnboundedSender<Job>,
}

impl Seat {
    pub(crate) fn tell(&self, job: Job) {
        // A worker that is gone has nothing left to be told.
        let _ = self.inbox.send(job);
    }
}

/// Makes as many seats as there are workers, and what each worker reads.
pub(crate) fn seats(workers: usize) -> (Arc<[Seat]>, Vec<UnboundedReceiver<Job>>) {
    let (seats, inboxes): (Vec<_>, Vec<_>) = (0..workers)
        .map(|_| {
            let (inbox, jobs) = unbounded_channel();
            (Seat { connections: AtomicUsize::new(0), inbox }, jobs)
        })
        .unzip();
    (seats.into(), inboxes)
}

/// One thread of the edge.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    seats: Arc<[Seat]>,
    epoch: Instant,
    now_ms: AtomicU64,
    links: Mutex<Vec<Weak<Link>>>,
    lines: Mutex<Vec<u8>>,
}

impl Worker {
    pub(crate) fn new(index: usize, shared: Arc<Shared>, seats: Arc<[Seat]>) -> Arc<Self> {
        Arc::new(Self {
            index,
            shared,
            seats,
            epoch: Instant::now(),
            now_ms: AtomicU64::new(0),
            links: Mutex::default(),
            lines: Mutex::default(),
        })
    }

    /// The time as of the last sweep: deadlines need no better, and reading it costs nothing.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    /// Sets the clock that deadlines are measured by.
    pub(crate) fn set_now_ms(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    pub(crate) fn log(&self, line: &Line<'_>) {
        let mut lines = lock(&self.lines);
        line.write(&mut lines, SystemTime::now());
        if lines.len() >= LOG_BATCH_BYTES {
            self.shared.log.send(lines.clone());
            lines.clear();
        }
    }

    fn flush_log(&self) {
        let mut lines = lock(&self.lines);
        if !lines.is_empty() {
            // A copy as long as the text: the buffer keeps its room, and an idle edge sends nothing.
            self.shared.log.send(lines.clone());
            lines.clear();
        }
    }

    /// Runs until the edge has stopped and this worker's connections are closed, or may not be waited for any longer.
    pub(crate) fn run(self: &Arc<Self>, jobs: UnboundedReceiver<Job>) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.work(jobs));
        drop(runtime);
        self.flush_log();
        Ok(())
    }

    async fn work(self: &Arc<Self>, mut jobs: UnboundedReceiver<Job>) {
        let mut listening: HashMap<Listener, JoinHandle<()>> = HashMap::new();
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let job = tokio::select! {
                job = jobs.recv() => job,
                _ = sweep.tick() => {
                    self.sweep();
                    if self.is_done() {
                        return;
                    }
                    continue;
                }
            };
            match job {
                Some(Job::Listen(gate, listener)) => {
                    if let Ok(listener) = TcpListener::from_std(listener) {
                        let key = gate.listener;
                        let task = tokio::spawn(Arc::clone(self).accept(listener, gate));
                        if let Some(before) = listening.insert(key, task) {
                            before.abort();
                        }
                    }
                }
                Some(Job::Unlisten(listener, released)) => {
                    if let Some(task) = listening.remove(&listener) {
                        task.abort();
                        // Its end, whichever, closes this worker's descriptor of the socket.
                        let _ = task.await;
                    }
                    drop(released);
                }
                Some(Job::Serve(stream, entered)) => {
                    if let Ok(stream) = TcpStream::from_std(stream) {
                        tokio::spawn(Arc::clone(self).serve(stream, entered));
                    }
                }
                Some(Job::Synthesise(synthesis)) => {
                    tokio::spawn(synthesis.run(Arc::clone(self)));
                }
                Some(Job::Stop) => {
                    listening.drain().for_each(|(_, task)| task.abort());
                    self.each_link(&Link::wake);
                }
                None => return,
            }
        }
    }

    fn is_done(&self) -> bool {
        match self.shared.stop() {
            Stop::No | Stop::Announced => false,
            Stop::Closing => self.seats[self.index].connections.load(Ordering::Relaxed) == 0,
            Stop::Now => true,
        }
    }

    fn sweep(&self) {
        let now = Instant::now();
        let now_ms = now.saturating_duration_since(self.epoch).as_millis() as u64;
        self.set_now_ms(now_ms);
        self.each_link(&|link| link.sweep(now_ms));
        self.shared.registry.sweep(self.index, now);
        self.flush_log();
    }

    fn each_link(&self, act: &dyn Fn(&Link)) {
        lock(&self.links).retain(|link| match link.upgrade() {
            Some(link) => {
                act(&link);
                true
            }
            None => false,
        });
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, gate: Arc<Gate>) {
        loop {
            let Ok(room) = Arc::clone(&gate.room).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, peer)) => self.place(stream, peer, &gate, room),
                Err(error) if is_of_one_connection(&error) => {}
                // Out of descriptors or memory: those who wait in the backlog are served when some are free.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    /// Serves a connection here, or on a worker that has clearly less to do.
    fn place(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, gate: &Gate, room: OwnedSemaphorePermit) {
        let load = |seat: usize| self.seats[seat].connections.load(Ordering::Relaxed);
        let least = (0..self.seats.len()).min_by_key(|seat| load(*seat)).unwrap_or(self.index);
        let seat = if load(self.index) > load(least) + HANDOVER_SLACK { least } else { self.index };
        let entered = Entered::new(peer, gate, Arc::clone(&self.seats), seat, room);
        if seat == self.index {
            tokio::spawn(Arc::clone(self).serve(stream, entered));
        } else if let Ok(stream) = stream.into_std() {
            self.seats[seat].tell(Job::Serve(stream, entered));
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, entered: Entered) {
        // Without it an answer's last piece waits for an acknowledgement. Fails only if the client is gone already.
        let _ = stream.set_nodelay(true);
        let link = Link::new(Arc::clone(&self), entered);
        lock(&self.links).push(Arc::downgrade(&link));
        let guard = TokioIo::new(Guard::new(stream, Arc::clone(&link)));
        let service = {
            let link = Arc::clone(&link);
            service_fn(move |request| exchange::answer(Arc::clone(&link), request))
        };
        let connection = http1::Builder::new()
            .max_buf_size(CONNECTION_BUFFER_BYTES_MAX)
            .serve_connection(guard, service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let mut closing = false;
        // An error is a client that went away; its requests have noted that themselves.
        let _ = std::future::poll_fn(|cx| {
            link.driven_by(cx.waker());
            if !closing && self.shared.stop() >= Stop::Closing {
                closing = true;
                connection.as_mut().graceful_shutdown();
            }
            connection.as_mut().poll(cx)
        })
        .await;
        link.closed();
    }
}

/// Whether a failed accept says nothing about the next one (`accept(2)`).
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
