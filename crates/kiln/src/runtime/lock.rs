//! A lock that lives exactly as long as the process that holds it.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A living process has it.
    #[error("{path} is locked by another process")]
    Held {
        /// The lock file.
        path: PathBuf,
    },
    /// The file can't be opened or locked.
    #[error("cannot lock {path}")]
    File {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A held lock. The kernel frees it when the last process that inherited it is gone, however it ended.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Takes the lock or says who can't.
    ///
    /// # Errors
    /// `Held`: a living process has it. `File`: the file can't be opened.
    pub fn try_take(path: &Path) -> Result<Self, LockError> {
        Self::take(path, FlockOperation::NonBlockingLockExclusive)
    }

    /// Waits until no living process has the lock, then takes it. This is how the end of a process that is not a child
    /// is noticed.
    ///
    /// # Errors
    /// `File`: the file can't be opened.
    pub fn wait(path: &Path) -> Result<Self, LockError> {
        Self::take(path, FlockOperation::LockExclusive)
    }

    fn take(path: &Path, operation: FlockOperation) -> Result<Self, LockError> {
        let fail = |source: io::Error| LockError::File { path: path.to_owned(), source };
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(fail)?;
        loop {
            return match flock(&file, operation) {
                Ok(()) => Ok(Self(file)),
                Err(Errno::INTR) => continue,
                Err(Errno::WOULDBLOCK) => Err(LockError::Held { path: path.to_owned() }),
                Err(errno) => Err(fail(errno.into())),
            };
        }
    }

    /// Gives the lock to a child, as its standard input: it then holds it from its first instruction to its last, and no
    /// moment is left in which nobody does.
    pub fn into_stdin(self) -> std::process::Stdio {
        self.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_child_that_was_given_the_lock_holds_it_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.lock");
        let lock = Lock::try_take(&path).unwrap();
        let mut child = Command::new("sleep").arg("1000").stdin(lock.into_stdin()).spawn().unwrap();
        assert!(matches!(Lock::try_take(&path), Err(LockError::Held { .. })));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Lock::wait(&path).is_ok());
    }
}
