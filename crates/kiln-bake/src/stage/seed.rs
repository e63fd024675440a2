//! What a cache begins with: part of a stage's or an image's files, written into its new folder.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};

use kiln_store::{Entry, Kind, Objects};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, lsetxattr, utimensat};

use super::mounts::Part;

/// Writes a part into an empty folder that nobody else has. Devices and the names of sockets are left out: they would be nobody's.
pub(super) fn write(part: &Part, objects: &Objects, to: &Path) -> io::Result<()> {
    let mut first: BTreeMap<_, PathBuf> = BTreeMap::new();
    let mut folders = Vec::new();
    // A folder comes before what is in it.
    for (path, entry) in part.tree.iter() {
        let Some(below) = part.below(path) else { continue };
        let place = if below.is_empty() { to.to_owned() } else { to.join(OsStr::from_bytes(below)) };
        let inode = part.tree.inode(path).filter(|_| part.tree.links(path) > 1);
        if let Some(there) = inode.and_then(|inode| first.get(&inode)) {
            fs::hard_link(there, &place)?;
            continue;
        }
        match &entry.kind {
            Kind::Dir => {
                if !below.is_empty() {
                    DirBuilder::new().mode(0o700).create(&place)?;
                }
                folders.push((place.clone(), entry));
            }
            Kind::File { digest, .. } => {
                let mut content = objects.open_file(digest).map_err(io::Error::other)?;
                io::copy(&mut content, &mut File::create_new(&place)?)?;
            }
            Kind::Symlink { target } => symlink(OsStr::from_bytes(target), &place)?,
            Kind::Fifo => {
                let mode = rustix::fs::Mode::RUSR;
                rustix::fs::mknodat(CWD, &place, rustix::fs::FileType::Fifo, mode, 0)?;
            }
            Kind::Char { .. } | Kind::Block { .. } | Kind::Socket => continue,
        }
        if !entry.is_dir() {
            dress(&place, entry)?;
        }
        first.extend(inode.map(|inode| (inode, place)));
    }
    // The time of a folder is that of the last change in it.
    folders.into_iter().rev().try_for_each(|(place, entry)| dress(&place, entry))
}

/// Gives a file its owner, its mode, its attributes and its time. What is no link by now was none before: nobody else writes here.
fn dress(place: &Path, Entry { meta, kind }: &Entry) -> io::Result<()> {
    lchown(place, Some(meta.uid), Some(meta.gid))?;
    if !matches!(kind, Kind::Symlink { .. }) {
        fs::set_permissions(place, fs::Permissions::from_mode(meta.mode.into()))?;
    }
    for (name, value) in &meta.xattrs {
        lsetxattr(place, OsStr::from_bytes(name), value, XattrFlags::empty())?;
    }
    let time = Timespec { tv_sec: meta.mtime.secs, tv_nsec: i64::from(meta.mtime.nanos) };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, place, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
