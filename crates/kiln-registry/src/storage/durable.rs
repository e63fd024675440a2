//! Files and folders that are there after a power cut once they were said to be.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A file without its name yet; dropping it removes it.
#[derive(Debug)]
pub(super) struct Staged {
    path: PathBuf,
}

impl Staged {
    /// Writes all parts into a new file of `tmp` and makes them durable.
    pub(super) fn write(tmp: &Path, parts: &[&[u8]]) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let path = tmp.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let staged = Self { path };
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()?;
        Ok(staged)
    }

    /// Gives it its name, in place of what had it.
    pub(super) fn rename(mut self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        self.path.clear();
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // What can't be removed now goes when the folder is opened next.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes a folder below `root` and all above it, durably.
pub(super) fn make_folders(root: &Path, folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Ok(()) => sync_folder(parent_of(folder)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound && folder != root => {
            make_folders(root, parent_of(folder))?;
            match fs::create_dir(folder) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
                _ => sync_folder(parent_of(folder)),
            }
        }
        Err(error) => Err(error),
    }
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The folder of a path that has one: all of the storage's have.
pub(super) fn parent_of(path: &Path) -> &Path {
    path.parent().expect("every path of the storage is below its root")
}
