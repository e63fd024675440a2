//! Where everything of one Kiln lies.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// What the kernel takes as the path of a socket (`unix(7)`), without the zero byte at its end.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// What lets others than its owner change a folder.
const WRITABLE_BY_OTHERS: u32 = 0o022;

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
    /// As `mkdir`; `InvalidInput` for a path that is too long for the sockets; `PermissionDenied` for a folder in which others
    /// could put what root then follows.
    pub fn make_run(&self) -> io::Result<PathBuf> {
        let longest = self.edge_socket().as_os_str().len().max(self.host_socket().as_os_str().len());
        if longest > SOCKET_PATH_BYTES_MAX {
            let most = SOCKET_PATH_BYTES_MAX - (longest - self.0.as_os_str().as_bytes().len());
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("its path is too long for the sockets in it: at most {most} bytes"),
            ));
        }
        let create = |path: &Path| std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        create(&self.0)?;
        let folder = std::fs::metadata(&self.0)?;
        let owner = rustix::process::geteuid().as_raw();
        if folder.uid() != owner || folder.mode() & WRITABLE_BY_OTHERS != 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "others than the user that runs Kiln can change what is in it",
            ));
        }
        let run = self.0.join("run");
        create(&run)?;
        Ok(run)
    }

    /// Returns the key with which this host signs what it bakes.
    pub fn builder_key(&self) -> PathBuf {
        self.0.join("builder.key")
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

    /// Returns where it is noted what the files of a stack folder hashed to.
    pub fn stamps_of(&self, folder: &Path) -> PathBuf {
        // Two ways of writing one path only cost time.
        let path = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let name = kiln_store::canonical::digest_of(path.as_os_str().as_bytes()).hex();
        self.0.join("store/cache/folders").join(name)
    }

    /// Returns where what a process prints is kept.
    pub fn process_log(&self, process: &str) -> PathBuf {
        self.0.join(format!("run/{process}.log"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_whose_path_leaves_no_room_for_the_sockets_is_refused_before_anything_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let most = SOCKET_PATH_BYTES_MAX - "/run/host.sock".len();
        let room = most - folder.path().as_os_str().len() - 1;
        let fits = StateDir::new(folder.path().join("d".repeat(room)));
        std::os::unix::net::UnixListener::bind(fits.make_run().unwrap().join("host.sock")).unwrap();
        let long = StateDir::new(folder.path().join("e".repeat(room + 1)));
        let error = long.make_run().unwrap_err();
        assert!(error.to_string().ends_with(&format!("at most {most} bytes")), "{error}");
        assert!(!long.path().exists());
    }

    #[test]
    fn a_folder_that_others_can_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (mode, sound) in [(0o700, true), (0o755, true), (0o775, false), (0o1777, false)] {
            std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(StateDir::new(folder.path()).make_run().is_ok(), sound, "{mode:o}");
        }
    }
}
