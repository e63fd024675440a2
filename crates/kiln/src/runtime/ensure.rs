//! Starts `kiln host` where none runs.

use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use kiln_store::log::OpenLogError;

use super::anchors;
use super::lock::{Lock, LockError};
use super::paths::StateDir;
use super::supervise::spawn;

/// Host, edge and controller start in well under a second; a machine that is busy or folds a long log takes longer.
const START_WITHIN: Duration = Duration::from_secs(60);
/// A controller that does not answer for this long may be one that can't start: then the log is looked at.
const DIAGNOSE_AFTER: Duration = Duration::from_secs(2);
/// A host that ends at once must not be started in a busy loop.
const RESTART_AFTER: Duration = Duration::from_millis(200);
/// How much of a process's log is shown when it does not start.
const LOG_TAIL_BYTES: u64 = 2000;

/// Why Kiln's processes don't run.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    /// Instances need namespaces, mounts and cgroups.
    #[error("instances can only be run by root")]
    NotRoot,
    /// The state folder can't be used.
    #[error("cannot use the state folder {path}")]
    Folder {
        /// The folder.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The lock can't be taken for another reason than that a host runs.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The process can't be started.
    #[error("cannot start `kiln host`")]
    Spawn(#[source] io::Error),
    /// The log is not what was written, so no controller starts on it. Retrying changes nothing.
    #[error(transparent)]
    Log(OpenLogError),
    /// It was started but does not answer.
    #[error("`kiln host` was started but its controller does not answer; its log ends with:\n{tail}")]
    Silent {
        /// The end of the logs.
        tail: String,
    },
}

/// Whether this process may run instances.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns once the controller's socket accepts connections, having started `kiln host` if none runs.
///
/// # Errors
/// See [`EnsureError`]; retrying is safe.
pub fn ensure_running(state: &StateDir) -> Result<(), EnsureError> {
    if !is_root() {
        return Err(EnsureError::NotRoot);
    }
    state.make_run().map_err(|source| EnsureError::Folder { path: state.path().to_owned(), source })?;
    let mut host = start(state)?;
    let (deadline, mut diagnose_at) = (Instant::now() + START_WITHIN, Some(Instant::now() + DIAGNOSE_AFTER));
    // A socket file outlives its process, so only an accepted connection counts.
    while UnixStream::connect(state.api_socket()).is_err() {
        if diagnose_at.take_if(|at| Instant::now() > *at).is_some()
            && let Some(damage) = anchors::damage(state)
        {
            return Err(EnsureError::Log(damage));
        }
        if host.is_none() {
            // Whoever held the lock may have been a command that ended before it started anything, or a host that was killed.
            host = start(state)?;
        }
        let ended = host.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_some()));
        if ended || Instant::now() > deadline {
            return Err(EnsureError::Silent { tail: log_tail(state) });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Starts a host; none where somebody has its lock.
fn start(state: &StateDir) -> Result<Option<Child>, EnsureError> {
    match Lock::try_take(&state.lock_file("host")) {
        Ok(lock) => spawn("host", state, lock).map(Some).map_err(EnsureError::Spawn),
        Err(LockError::Held { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Starts another `kiln host` whenever there is none, for as long as this process lives: who waits for a rollout must not
/// wait for a host that was killed and that nothing else starts.
pub fn keep_running(state: &StateDir) {
    let state = state.clone();
    let watch = move || {
        while let Ok(gone) = Lock::wait(&state.lock_file("host")) {
            drop(gone);
            if ensure_running(&state).is_err() {
                return;
            }
            std::thread::sleep(RESTART_AFTER);
        }
    };
    // Without the thread the command still does its work; the next one starts the host.
    let _ = std::thread::Builder::new().name("keep-running".into()).spawn(watch);
}

fn log_tail(state: &StateDir) -> String {
    let logs = ["host", "controller", "edge"].map(|name| (name, tail(&state.process_log(name))));
    let shown = logs.iter().filter(|(_, text)| !text.is_empty());
    shown.flat_map(|(name, text)| text.lines().map(move |line| format!("  {name}: {line}\n"))).collect()
}

fn tail(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}
