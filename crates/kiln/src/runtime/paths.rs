//! Where everything of one Kiln lies.

use std::io;
use std::path::{Path, PathBuf};

/// The one folder that holds all state of a Kiln.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// Where it is unless `--state` says otherwise.
    pub const DEFAULT: &str = "/var/lib/kiln";

    /// Names a folder; nothing is created.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the folder of sockets and lock files, private to root; made where it is missing.
    ///
    /// # Errors
    /// As `mkdir`.
    pub fn make_run(&self) -> io::Result<PathBuf> {
        use std::os::unix::fs::DirBuilderExt;
        let run = self.0.join("run");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&run)?;
        Ok(run)
    }

    /// Returns the controller's API socket.
    pub fn api_socket(&self) -> PathBuf {
        self.0.join("run/kiln.sock")
    }

    /// Returns the host's socket.
    pub fn host_socket(&self) -> PathBuf {
        self.0.join("run/host.sock")
    }

    /// Returns the edge's control socket.
    pub fn edge_socket(&self) -> PathBuf {
        self.0.join("run/edge.sock")
    }

    /// Returns the file that one process of this name locks for its whole life.
    pub fn lock_file(&self, process: &str) -> PathBuf {
        self.0.join(format!("run/{process}.alive"))
    }

    /// Returns where what a process prints is kept.
    pub fn process_log(&self, process: &str) -> PathBuf {
        self.0.join(format!("run/{process}.log"))
    }
}
