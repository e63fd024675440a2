//! Small files that are either old or new, also after a power failure.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Replaces a file's content; it is durable on return.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(content)?;
    file.sync_data()?;
    fs::rename(&fresh, path)?;
    sync_parent(path)
}

/// Replaces a file's content at once, but leaves it to the kernel when it reaches the disk: for what a power failure makes
/// worthless anyway, because it describes processes.
pub(crate) fn replace_unsynced(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, content)?;
    fs::rename(&fresh, path)
}

/// Adds a line to a file, all of it or nothing; it is durable on return.
pub(crate) fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let before = file.metadata()?.len();
    if let Err(error) = file.write_all(line.as_bytes()).and_then(|()| file.sync_data()) {
        // A disk that is full takes half a line, which would swallow the next one.
        let _ = file.set_len(before);
        return Err(error);
    }
    if before == 0 { sync_parent(path) } else { Ok(()) }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

    use super::*;

    #[test]
    fn a_full_disk_takes_no_half_of_a_line() {
        let folder = tempfile::tempdir().unwrap();
        mount("kiln-test", folder.path(), "tmpfs", MountFlags::empty(), c"size=4096").unwrap();
        let path = folder.path().join("lines");
        let before = "x".repeat(4089) + "\n";
        let appended = append(&path, &before).and_then(|()| append(&path, "another line\n"));
        let left = fs::read_to_string(&path);
        unmount(folder.path(), UnmountFlags::DETACH).unwrap();
        assert_eq!(appended.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(left.unwrap(), before);
    }
}
