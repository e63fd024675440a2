//! Looking for files before a command does.
//!
//! The first look at a file of a new overlay finds it in each of its layers: for a small file that takes longer than to read it, and
//! a command that goes through its files one by one waits for each. What the step before wrote is what a command is most likely to
//! go through, and a sandbox takes a while to be there.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_store::{Kind, Tree, TreePath};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, openat2, statat};

use crate::beside::{Beside, Rank};

/// More than this would take longer than most sandboxes need to be there.
const FILES_MAX: usize = 4096;

/// Files that are being looked for, until the value is dropped.
#[derive(Debug)]
pub(crate) struct Warming {
    ended: Arc<AtomicBool>,
    looking: Option<Beside<()>>,
}

impl Warming {
    /// Begins to look in `root`, where `shown` is mounted, for what is not as it was in `before`.
    pub(crate) fn begin(root: &OwnedFd, before: Tree, shown: Tree) -> io::Result<Self> {
        let root = root.try_clone()?;
        let ended = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&ended);
        let warm = move || {
            let new = before.changes(&shown).put;
            let files =
                new.iter().filter(|(_, entry)| matches!(entry.kind, Kind::File { size, .. } if size > 0));
            // The folder of one is mostly that of the next.
            let mut folder: Option<(TreePath, OwnedFd)> = None;
            for (path, _) in files.take(FILES_MAX).take_while(|_| !is_over.load(Ordering::Relaxed)) {
                let parent = path.parent().unwrap_or_default();
                if folder.as_ref().is_none_or(|(of, _)| *of != parent) {
                    let way = if parent.is_root() { b"." } else { parent.as_bytes() };
                    folder = enter(&root, way).map(|it| (parent, it));
                }
                // What can't be found is told to whoever needs it. To open it would take as long again, and spare the command less.
                if let Some((_, folder)) = &folder {
                    let _ = statat(folder, path.name(), AtFlags::SYMLINK_NOFOLLOW);
                }
            }
        };
        Ok(Self { ended, looking: Some(Beside::begin(Rank::Now, warm)) })
    }
}

/// Finds a folder, on whose way no link is followed.
fn enter(root: &OwnedFd, path: &[u8]) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let way = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(root, path, flags, Mode::empty(), way).ok()
}

impl Drop for Warming {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // It keeps the mount: it is called off, or its end is waited for.
        drop(self.looking.take());
    }
}

#[cfg(test)]
mod tests {
    use kiln_store::{Entry, Meta, Store};

    use super::*;
    use crate::workbench::mount_once;

    #[test]
    fn what_is_new_is_looked_for_and_whatever_else_is_there_does_no_harm() {
        let state = tempfile::tempdir_in("/var/tmp").unwrap();
        let store = Store::open(state.path()).unwrap();
        let path = |text: &str| TreePath::parse(text).unwrap();
        let stored =
            |bytes: &[u8]| Entry::file(0o644, store.objects.put_bytes(bytes).unwrap(), bytes.len() as u64);
        let mut before = Tree::new();
        before.insert(&path("old"), stored(b"old")).unwrap();
        let mut shown = before.clone();
        for number in 0..50 {
            shown.insert(&path(&format!("new-{number}")), stored(b"new")).unwrap();
        }
        let kind = Kind::Symlink { target: b"old".to_vec() };
        shown.insert(&path("link"), Entry { meta: Meta { mode: 0o777, ..Meta::default() }, kind }).unwrap();
        let pipe = Entry { meta: Meta { mode: 0o600, ..Meta::default() }, kind: Kind::Fifo };
        // Whoever would open one would wait for somebody to write.
        shown.insert(&path("pipe"), pipe).unwrap();
        // Its object is not there.
        shown.insert(&path("lost"), Entry::file(0o644, crate::hashing::sha256(b"lost"), 4)).unwrap();
        let root = mount_once(&store, &shown).unwrap();
        let mut warming = Warming::begin(&root, before, shown).unwrap();
        // It comes to its end by itself.
        warming.looking.take().unwrap().end().unwrap();
    }
}
