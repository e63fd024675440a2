//! What a step changed: the upper folder of its overlay, taken into the tree.
//!
//! Where the overlay lies over the tree's own layers, it does not copy what is only moved or only gets other attributes: it
//! refers to what lay below, which is looked up in the tree that the step was shown.
//!
//! Source: the kernel's `overlayfs.rst`, sections "whiteouts and opaque directories", "renaming directories" and "metadata
//! only copy up".

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_store::tree::{PathError, TreeError};
use kiln_store::{Batch, Entry, Inode, Kind, Meta, Mtime, PutError, Tree, TreePath};
use rustix::fs::FileType;

/// The overlay's own attributes; `y` on a folder hides what lay below.
const OVERLAY_PREFIX: &[u8] = b"trusted.overlay.";
const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// What a moved folder or file was below: a path from the root, or another name in the same folder.
const REDIRECT: &[u8] = b"trusted.overlay.redirect";

/// A file whose content is that of the one below.
const METACOPY: &[u8] = b"trusted.overlay.metacopy";

/// Linux holds no more of one file's attribute names.
const XATTR_LIST_BYTES_MAX: usize = 65_536;

/// Why what a step changed can't be taken.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// It can't be read.
    #[error("{} can't be read", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file can't be stored.
    #[error(transparent)]
    Put(#[from] PutError),
    /// It can't be in an image.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Its name can't be in an image.
    #[error(transparent)]
    Path(#[from] PathError),
    /// It refers to what the step was not shown.
    #[error("{path} refers to something that is not there")]
    Below {
        /// What.
        path: TreePath,
    },
}

/// What becomes of the times of what was changed, in seconds since the epoch.
///
/// A time of the step itself says when the bake ran. It is known by lying within the step, not by being late: on a machine
/// whose clock is behind, all that packages brought may be later than the step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// When the step began and ended, by the clock of this machine.
    ran: (u64, u64),
    /// What such times become, and the latest that any time may be.
    latest: u64,
}

impl Times {
    /// Runs a step, and notes when.
    pub(crate) fn of<T, E>(latest: u64, step: impl FnOnce() -> Result<T, E>) -> Result<(Self, T), E> {
        // A file system stamps with a clock that lags by a tick, which may be in the second before.
        let began = now().saturating_sub(1);
        let done = step()?;
        Ok((Self { ran: (began, now()), latest }, done))
    }

    fn settle(self, secs: i64) -> i64 {
        let (began, ended) = self.ran;
        let of_the_step = (began as i64..=ended as i64).contains(&secs);
        if of_the_step { self.latest as i64 } else { secs.min(self.latest as i64) }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Takes the changes of `upper` into `tree`. They may refer to `below`, which the step was shown.
pub(crate) fn capture(
    upper: &Path,
    below: Option<&Tree>,
    tree: &mut Tree,
    objects: &Batch,
    times: Times,
) -> Result<(), CaptureError> {
    // The upper folder itself was made by the bake, so only what is in it counts.
    let root = TreePath::root();
    Capturing { below, tree, objects, times, links: BTreeMap::new() }.folder(upper, &root, Some(&root))
}

struct Capturing<'a> {
    below: Option<&'a Tree>,
    tree: &'a mut Tree,
    objects: &'a Batch,
    times: Times,
    /// The first path of each file that has several, by device and inode.
    links: BTreeMap<(u64, u64), TreePath>,
}

impl Capturing<'_> {
    /// Takes what is in a folder. `lower` is where below lies what shows through it; none where nothing does.
    fn folder(&mut self, folder: &Path, at: &TreePath, lower: Option<&TreePath>) -> Result<(), CaptureError> {
        let failed = |source| CaptureError::Read { path: folder.into(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            names.push(entry.map_err(failed)?.file_name());
        }
        names.sort();
        for name in names {
            self.entry(&folder.join(&name), &at.join(name.as_bytes())?, lower)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        source: &Path,
        path: &TreePath,
        lower: Option<&TreePath>,
    ) -> Result<(), CaptureError> {
        let failed = |error| CaptureError::Read { path: source.into(), source: error };
        let stat = fs::symlink_metadata(source).map_err(failed)?;
        let (xattrs, marks) = xattrs(source).map_err(failed)?;
        let secs = self.times.settle(stat.mtime());
        // A fraction of a second is never the package's or the source's own: it says when a step ran.
        let mtime = Mtime { secs, nanos: 0 };
        let meta =
            Meta { mode: (stat.mode() & 0o7777) as u16, uid: stat.uid(), gid: stat.gid(), mtime, xattrs };
        let kind = match FileType::from_raw_mode(stat.mode()) {
            FileType::Directory => {
                let lower = marks.lower(path, lower)?;
                if marks.is_opaque || marks.redirect.is_some() {
                    self.tree.remove(path);
                }
                self.tree.insert(path, Entry { meta, kind: Kind::Dir })?;
                if marks.redirect.is_some() {
                    self.graft(path, lower.as_ref())?;
                }
                return self.folder(source, path, lower.as_ref());
            }
            FileType::RegularFile => {
                if stat.nlink() > 1 && self.linked(path, &stat)? {
                    return Ok(());
                }
                match marks.is_metacopy {
                    true => self.content(path, marks.lower(path, lower)?.as_ref())?,
                    false => {
                        let stored = self.objects.put_reader(File::open(source).map_err(failed)?)?;
                        Kind::File { digest: stored.digest, size: stored.size }
                    }
                }
            }
            FileType::Symlink => {
                Kind::Symlink { target: fs::read_link(source).map_err(failed)?.into_os_string().into_vec() }
            }
            FileType::CharacterDevice if stat.rdev() == 0 => {
                self.tree.remove(path);
                return Ok(());
            }
            FileType::Fifo => Kind::Fifo,
            // A socket without its program, or a device that no capability could have made: neither means anything later.
            _ => {
                self.tree.remove(path);
                return Ok(());
            }
        };
        Ok(self.tree.insert(path, Entry { meta, kind })?)
    }

    /// Puts what is in the folder `lower` into the folder at `path`, which it was moved to; hard links within it stay linked.
    fn graft(&mut self, path: &TreePath, lower: Option<&TreePath>) -> Result<(), CaptureError> {
        let missing = || CaptureError::Below { path: path.clone() };
        let (below, lower) = (self.below.ok_or_else(missing)?, lower.ok_or_else(missing)?);
        let mut placed: BTreeMap<Inode, TreePath> = BTreeMap::new();
        for (from, entry) in below.within(lower).filter(|(from, _)| *from != lower) {
            let inode = below.inode(from).ok_or_else(missing)?;
            let rest = &from.as_bytes()[lower.as_bytes().len()..];
            let to = TreePath::parse([path.as_bytes(), rest].concat())?;
            match placed.get(&inode) {
                Some(first) => self.tree.link(&to, first)?,
                None => {
                    self.tree.insert(&to, entry.clone())?;
                    placed.insert(inode, to);
                }
            }
        }
        Ok(())
    }

    /// The content of the file `lower`, which one at `path` has.
    fn content(&self, path: &TreePath, lower: Option<&TreePath>) -> Result<Kind, CaptureError> {
        match self.below.zip(lower).and_then(|(below, lower)| below.get(lower)) {
            Some(Entry { kind: kind @ Kind::File { .. }, .. }) => Ok(kind.clone()),
            _ => Err(CaptureError::Below { path: path.clone() }),
        }
    }

    /// Makes `path` another name of a file that was captured already.
    fn linked(&mut self, path: &TreePath, stat: &fs::Metadata) -> Result<bool, CaptureError> {
        let inode = (stat.dev(), stat.ino());
        if let Some(first) = self.links.get(&inode) {
            self.tree.link(path, first)?;
            return Ok(true);
        }
        self.links.insert(inode, path.clone());
        Ok(false)
    }
}

/// What the overlay notes of an entry.
#[derive(Debug, Default)]
struct Marks {
    is_opaque: bool,
    is_metacopy: bool,
    redirect: Option<Vec<u8>>,
}

impl Marks {
    /// Where below lies what an entry at `path` lies over, if that is known; `folder` is the same of its folder.
    fn lower(&self, path: &TreePath, folder: Option<&TreePath>) -> Result<Option<TreePath>, CaptureError> {
        Ok(match &self.redirect {
            _ if self.is_opaque => None,
            Some(moved) if moved.starts_with(b"/") => Some(TreePath::parse(moved)?),
            Some(name) => folder.map(|folder| folder.join(name)).transpose()?,
            None => folder.map(|folder| folder.join(path.name())).transpose()?,
        })
    }
}

/// A file's attributes by name.
type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Returns a file's own attributes, and what the overlay noted.
fn xattrs(path: &Path) -> io::Result<(Xattrs, Marks)> {
    let mut names = vec![0; XATTR_LIST_BYTES_MAX];
    let count = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(count) => count,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(errno.into()),
    };
    let mut found = BTreeMap::new();
    let mut marks = Marks::default();
    for name in names[..count].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        // What a security module of this host labelled belongs to this host.
        if name == b"security.selinux" || name == b"security.ima" || name == b"security.evm" {
            continue;
        }
        let mut value = vec![0; XATTR_LIST_BYTES_MAX];
        let size = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..])?;
        value.truncate(size);
        match name {
            OPAQUE => marks.is_opaque = value == b"y",
            REDIRECT => marks.redirect = Some(value),
            METACOPY => marks.is_metacopy = true,
            _ if name.starts_with(OVERLAY_PREFIX) => {}
            _ => drop(found.insert(name.to_vec(), value)),
        }
    }
    Ok((found, marks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_the_step_becomes_the_latest_whether_the_machines_clock_is_right_or_behind() {
        let packaged = 1_500_000_000;
        let latest = 1_600_000_000;
        for began in [1_700_000_000, 1_400_000_000] {
            let times = Times { ran: (began, began + 60), latest };
            assert_eq!(times.settle(began as i64 + 5), latest as i64);
            assert_eq!(times.settle(packaged), packaged, "what a package brought keeps its time");
            assert_eq!(times.settle(1_800_000_000), latest as i64, "nothing is later than the latest");
        }
    }
}
