//! Keeps one process of a kind running.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::lock::Lock;
use super::paths::StateDir;

/// A process that lives this long did start: the next failure begins counting anew.
const SETTLED: Duration = Duration::from_secs(5);
/// The first pause after a process that ended at once, doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// A process that can't start is tried again this often for ever: its fault may be a full disk that somebody frees.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A process log beyond this is begun anew at the next start.
const PROCESS_LOG_BYTES_MAX: u64 = 4 << 20;

/// One kind of process that is to run at all times.
pub(super) struct Supervised {
    /// Its name: the hidden subcommand, the lock and the log are called so.
    pub(super) name: &'static str,
    pub(super) state: StateDir,
    /// Set when nothing is to be started any more.
    pub(super) stop: Arc<AtomicBool>,
}

impl Supervised {
    /// Runs until told to stop. `running` is called for a process that an earlier host left running, and after each start.
    pub(super) fn run(&self, running: impl Fn()) -> io::Result<()> {
        let path = self.state.lock_file(self.name);
        let mut pause = PAUSE_MIN;
        if Lock::try_take(&path).is_err() {
            running();
        }
        while !self.stop.load(Ordering::Acquire) {
            let lock = Lock::wait(&path).map_err(io::Error::other)?;
            if self.stop.load(Ordering::Acquire) {
                break;
            }
            let begin = Instant::now();
            let mut child = spawn(self.name, &self.state, lock)?;
            running();
            let status = child.wait()?;
            tracing::warn!(process = self.name, %status, "ended; it is started again");
            pause = if begin.elapsed() > SETTLED { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
            if begin.elapsed() < SETTLED && !self.stop.load(Ordering::Acquire) {
                std::thread::sleep(pause);
            }
        }
        Ok(())
    }
}

/// Starts `kiln NAME` with the lock in its hand, what it prints in its log.
pub(super) fn spawn(name: &str, state: &StateDir, lock: Lock) -> io::Result<Child> {
    let path = state.process_log(name);
    let large = std::fs::metadata(&path).is_ok_and(|file| file.len() > PROCESS_LOG_BYTES_MAX);
    let mut options = OpenOptions::new();
    // Appending, so that two writers never overwrite each other's lines.
    options.create(true).append(true);
    let log = options.open(&path)?;
    if large {
        log.set_len(0)?;
    }
    Command::new("/proc/self/exe")
        .arg0("kiln")
        .args([name, "--holds-lock", "--state"])
        .arg(state.path())
        .stdin(lock.into_stdin())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A folder that is deleted or unmounted must not be held by a process that runs for months.
        .current_dir("/")
        .spawn()
}
