//! What every process of Kiln does first.

use std::error::Error;
use std::fs;
use std::io::IsTerminal;

use super::lock::{Lock, LockError};
use super::paths::StateDir;

/// Why a process of Kiln can't go on.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Another one of its kind runs.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Something that it needs failed.
    #[error("cannot {what}")]
    Step {
        /// What it was about to do.
        what: &'static str,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl ProcessError {
    pub(super) fn because<E: Into<Box<dyn Error + Send + Sync>>>(
        what: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Step { what, source: source.into() }
    }
}

/// What a process holds as long as it lives. None where its parent gave it the lock as standard input.
pub(super) type Alive = Option<Lock>;

/// Takes the lock of this kind of process unless the parent gave it, leaves the pid in it, and starts the log.
pub(super) fn begin(name: &'static str, state: &StateDir, holds_lock: bool) -> Result<Alive, ProcessError> {
    state.make_run().map_err(ProcessError::because("make the state folder"))?;
    let path = state.lock_file(name);
    let alive = if holds_lock { None } else { Some(Lock::try_take(&path)?) };
    fs::write(&path, std::process::id().to_string()).map_err(ProcessError::because("write the pid"))?;
    // A second subscriber in one process is a test's; the first one stays.
    let _ = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
    Ok(alive)
}
