//! What every process of Kiln does first.

use std::error::Error;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::lock::{Lock, LockError};
use super::paths::StateDir;

/// Open files of a process of Kiln: a host has six for each of up to a thousand instances, an edge two for each connection.
/// systemd's hard limit; the soft one of a login shell is 1024, and a shell may have left less of either.
const DESCRIPTORS_WANTED: u64 = 524_288;

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
    raise_descriptor_limit();
    let left = leave_pid(&path);
    // A second subscriber in one process is a test's; the first one stays.
    let _ = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // It would complain of a line that can't be written on the same stream, by a macro that panics there: a full disk
        // would end the thread that has something to tell.
        .log_internal_errors(false)
        .try_init();
    if let Err(error) = left {
        // Only people and `kiln host stop` read it; a full disk must not keep an edge from serving.
        tracing::warn!(process = name, %error, "the pid can't be written");
    }
    Ok(alive)
}

fn raise_descriptor_limit() {
    let hard = getrlimit(Resource::Nofile).maximum;
    let wanted = hard.map(|hard| hard.max(DESCRIPTORS_WANTED));
    if setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum: wanted }).is_err() {
        // Root of a container may not raise the hard limit.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard });
    }
}

/// Writes the pid over the one before it: in place, which needs no room on a full disk.
fn leave_pid(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    // As wide as any pid, so that nothing of a longer one stays behind it.
    file.write_all_at(format!("{:<10}", std::process::id()).as_bytes(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_takes_the_place_of_a_longer_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.alive");
        leave_pid(&path).unwrap();
        std::fs::write(&path, "4194304   ").unwrap();
        leave_pid(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.trim().parse(), Ok(std::process::id()));
    }
}
