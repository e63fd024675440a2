//! The whole process: what it opens, in which order, and how it stops.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::access_log;
use crate::backend::Registry;
use crate::control::Control;
use crate::edge::Edge;
use crate::ledger::Ledger;
use crate::limits::{STOP_DRAIN_MAX, STOP_IDLE_GRACE};
use crate::persist::EdgeFolder;
use crate::samples::Samples;
use crate::shared::{Shared, Stop};
use crate::worker::{self, Worker};

/// What an edge needs to know.
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// The state folder: the edge keeps its files in `edge/` and its socket in `run/`.
    pub state_dir: PathBuf,
}

/// Why an edge can't run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another edge serves this state folder.
    #[error("another edge runs with the state folder {0}")]
    AlreadyRunning(PathBuf),
    /// Something that it needs can't be opened.
    #[error("cannot open {what}")]
    Open {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A thread can't be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// A thread ended before it was told to: a defect of the edge, which must not go on with half of its threads.
    #[error("a worker of the edge has died")]
    WorkerDied,
}

impl RunError {
    /// Whether starting it again in the same way would end in the same way.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Open { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Runs the edge until SIGTERM or SIGINT, then drains and returns.
///
/// It serves the table that was acknowledged last, on the listeners that it is given through `run/edge.sock`.
///
/// # Errors
/// `AlreadyRunning`: an edge has this state folder. `Open`: a file or the socket. `WorkerDied`: restart it.
pub fn run(config: EdgeConfig) -> Result<(), RunError> {
    let state = &config.state_dir;
    let run_dir = state.join("run");
    let open = |what: &Path| {
        let what = what.display().to_string();
        move |source| RunError::Open { what, source }
    };
    fs::create_dir_all(&run_dir).map_err(open(&run_dir))?;
    let folder = EdgeFolder::open(state).map_err(open(state))?;
    let _lock = take_lock(&run_dir, state)?;
    raise_descriptor_limit();

    let ledger_path = folder.file("ledger");
    let (ledger, cut) = Ledger::open(&ledger_path).map_err(open(&ledger_path))?;
    if cut > 0 {
        say(&format!("an earlier edge was killed with {cut} requests in flight: counted as cut"));
    }
    let ledger = Arc::new(ledger);
    let samples = Samples::open(&folder.file("samples"))
        .inspect_err(|error| {
            say(&format!("nothing is counted for analyses: cannot open their counts: {error}"))
        })
        .ok();
    let (log, log_writer) = access_log::channel(folder.file("access.log"), &ledger);
    let log_writer = spawn("log".to_owned(), move || log_writer.run())?;

    let workers = thread::available_parallelism().map_or(1, usize::from);
    let shared = Arc::new(Shared::new(Registry::new(workers), ledger, samples, log));
    let (seats, inboxes) = worker::seats(workers);
    let edge = Edge::start(Arc::clone(&shared), Arc::clone(&seats), folder).map_err(open(state))?;
    edge.table().1.iter().for_each(|note| say(note));
    let edge = Arc::new(edge);
    let mut threads = Vec::new();
    for (index, jobs) in inboxes.into_iter().enumerate() {
        let worker = Worker::new(index, Arc::clone(&shared), Arc::clone(&seats));
        threads.push(spawn(format!("worker-{index}"), move || worker.run(jobs))?);
    }
    open_control(&edge, &run_dir.join("edge.sock"))?;

    let outcome = wait_for_stop(&threads).and_then(|()| drain(&edge, threads));
    shared.log.close();
    let _ = log_writer.join();
    outcome
}

/// One line for whoever supervises the edge.
fn say(text: &str) {
    // A supervisor that is gone must not stop the edge.
    let _ = writeln!(io::stderr(), "kiln edge: {text}");
}

fn spawn<T: Send + 'static>(
    name: String,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, RunError> {
    thread::Builder::new().name(name).spawn(body).map_err(RunError::Thread)
}

fn take_lock(run_dir: &Path, state: &Path) -> Result<File, RunError> {
    let path = run_dir.join("edge.lock");
    let open = |source| RunError::Open { what: path.display().to_string(), source };
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(open)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(RunError::AlreadyRunning(state.to_owned())),
        Err(error) => Err(open(error.into())),
    }
}

/// Two descriptors for each request under way: the default of 1024 would be reached before anything else.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused: the edge goes on with what it has, and waits when they run out.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn open_control(edge: &Arc<Edge>, path: &Path) -> Result<(), RunError> {
    let open = |source| RunError::Open { what: path.display().to_string(), source };
    // The lock says that nobody answers on it any more.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(open(error)),
        _ => {}
    }
    // Bound under another name: at its own the socket appears with its mode.
    let new = path.with_extension("sock.new");
    let _ = fs::remove_file(&new);
    let listener = UnixListener::bind(&new).map_err(open)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).map_err(open)?;
    fs::rename(&new, path).map_err(open)?;
    let control = Control::new(Arc::clone(edge));
    let announcer = Arc::clone(&control);
    spawn("idle".to_owned(), move || announcer.announce())?;
    spawn("accept".to_owned(), move || control.accept(&listener))?;
    Ok(())
}

type WorkerThread = JoinHandle<io::Result<()>>;

fn wait_for_stop(workers: &[WorkerThread]) -> Result<(), RunError> {
    let open = |source| RunError::Open { what: "the signal handlers".to_owned(), source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(open)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(open)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(open)?;
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                () = tokio::time::sleep(Duration::from_secs(1)) => {
                    if workers.iter().any(JoinHandle::is_finished) {
                        return Err(RunError::WorkerDied);
                    }
                }
            }
        }
    })
}

/// Stops by steps: nothing new, a word to those who are there, then a deadline.
fn drain(edge: &Edge, workers: Vec<WorkerThread>) -> Result<(), RunError> {
    let begun = Instant::now();
    let finished = || workers.iter().all(JoinHandle::is_finished);
    edge.advance_stop(Stop::Announced);
    thread::sleep(STOP_IDLE_GRACE);
    edge.advance_stop(Stop::Closing);
    while !finished() && begun.elapsed() < STOP_DRAIN_MAX {
        thread::sleep(Duration::from_millis(20));
    }
    edge.advance_stop(Stop::Now);
    for worker in workers {
        worker.join().map_err(|_| RunError::WorkerDied)?.map_err(RunError::Thread)?;
    }
    Ok(())
}
