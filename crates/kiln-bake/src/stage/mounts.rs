//! What a RUN sees beside its image: part of a tree, memory, and folders that stay between bakes.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_model::Digest;
use kiln_store::sealed::SecretValue;
use kiln_store::{Batch, Entry, Kind, Objects, Tree, TreePath};
use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen, open_tree,
};

use super::context::Context;
use super::seed;
use crate::cancel::Cancel;
use crate::copy::CopyError;
use crate::hashing::sha256;
use crate::secrets::SecretsError;

/// How soon a step that waits for a cache sees that it is free, or that it was called off.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// What the lock of a cache ends with. The file's content is the cache's name, its time that of the last use.
pub(super) const LOCK: &str = "lock";
/// As much of a name is noted: nobody tells longer ones apart.
pub(super) const ID_BYTES_MAX: usize = 4 << 10;

/// Why something can't be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// A cache can't be used.
    #[error("the cache `{id}` can't be used")]
    Cache {
        /// Its name.
        id: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The memory that a secret is in can't be written.
    #[error("the secret `{id}` can't be mounted")]
    Secret {
        /// Its id.
        id: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A command can't do without a secret whose source has none. Whoever knows where it stands tells it there.
    #[error("the secret `{id}` has no value")]
    NoSecret {
        /// Its id.
        id: String,
    },
    /// A command can't do without an SSH agent, and whoever bakes has none. Whoever knows where it stands tells it there.
    #[error("there is no SSH agent")]
    NoAgent,
    /// The SSH agent's door can't be opened.
    #[error("the SSH agent can't be mounted")]
    Agent(#[source] io::Error),
    /// It is to be in a variable, and is no text.
    #[error("the secret `{id}` can't be in a variable: it is no text")]
    SecretText {
        /// Its id.
        id: String,
    },
    /// It can't be read.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// The kernel refused.
    #[error("memory can't be mounted")]
    Tmpfs(#[source] io::Error),
    /// It was called off.
    #[error("called off")]
    Cancelled,
}

/// Where a part lies in its own tree: at its root the store adds mount points, which the part does not have.
const PART: &str = "part";

/// Part of a tree as a tree of its own.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) tree: Tree,
    /// Where it is in the whole.
    from: TreePath,
}

/// Takes a folder or a file out of a tree; none where nothing is there.
pub(crate) fn bind(whole: &Tree, source: &str) -> Option<Part> {
    let from = whole.resolve(&TreePath::parse(source).ok()?, true).ok()?;
    whole.get(&from)?;
    let mut tree = Tree::new();
    let skip = from.as_bytes().len();
    let mut first: BTreeMap<_, TreePath> = BTreeMap::new();
    for (path, entry) in whole.within(&from) {
        let below = TreePath::parse([PART.as_bytes(), b"/", &path.as_bytes()[skip..]].concat()).ok()?;
        let inode = whole.inode(path).filter(|_| whole.links(path) > 1);
        match inode.and_then(|inode| first.get(&inode)) {
            Some(first) => tree.link(&below, first).ok()?,
            None => tree.insert(&below, entry.clone()).ok()?,
        }
        if let Some(inode) = inode {
            first.entry(inode).or_insert(below);
        }
    }
    Some(Part { tree, from })
}

impl Part {
    /// Returns its name in its own tree.
    pub(crate) fn name(&self) -> &'static str {
        PART
    }

    /// Whether it is one file.
    pub(crate) fn is_file(&self) -> bool {
        let path = TreePath::parse(PART).expect("a constant path is valid");
        !self.tree.get(&path).is_some_and(Entry::is_dir)
    }

    /// Writes all that a command can see of it, for the step's key.
    pub(crate) fn describe(&self) -> Digest {
        let line = |(path, entry): (&TreePath, &Entry)| format!("{path} {entry:?}\n");
        let text: String = self.tree.iter().map(line).collect();
        sha256(text.as_bytes())
    }

    /// Returns where in the part something of its own tree is; none for what is around it.
    pub(super) fn below<'p>(&self, path: &'p TreePath) -> Option<&'p [u8]> {
        let rest = path.as_bytes().strip_prefix(PART.as_bytes())?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix(b"/") }
    }

    /// Stores the files of a build context that it holds.
    pub(crate) fn store(&self, context: &Context, objects: &Objects, batch: &Batch) -> Result<(), CopyError> {
        for (path, entry) in self.tree.iter() {
            if let Kind::File { digest, .. } = &entry.kind
                && !objects.contains(digest)
            {
                let below = &path.as_bytes()[PART.len()..];
                context.store(&TreePath::parse([self.from.as_bytes(), below].concat())?, digest, batch)?;
            }
        }
        Ok(())
    }
}

/// Returns memory that is attached nowhere.
pub(crate) fn tmpfs(size: u64) -> Result<OwnedFd, MountError> {
    let made = || {
        let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(fs.as_fd(), "mode", "1777")?;
        if size > 0 {
            fsconfig_set_string(fs.as_fd(), "size", size.to_string())?;
        }
        fsconfig_create(fs.as_fd())?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    made().map_err(|errno: rustix::io::Errno| MountError::Tmpfs(errno.into()))
}

/// Returns memory that holds one file with a value, and the name of the file.
pub(crate) fn secret_file(
    id: &str,
    value: &SecretValue,
    (mode, uid, gid): (u32, u32, u32),
) -> Result<(OwnedFd, &'static str), MountError> {
    let memory = tmpfs(0)?;
    let written = || {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mut file = File::from(openat(&memory, PART, flags, Mode::RUSR)?);
        file.write_all(value.expose())?;
        fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        file.set_permissions(fs::Permissions::from_mode(mode))
    };
    written().map_err(|source| MountError::Secret { id: id.to_owned(), source })?;
    Ok((memory, PART))
}

/// Folders that stay between bakes, by the digest of their names; nobody but root can look into them.
#[derive(Debug)]
pub(crate) struct CacheMounts {
    folder: PathBuf,
}

/// A cache that nobody else has.
#[derive(Debug)]
pub(crate) struct CacheMount {
    pub(crate) tree: OwnedFd,
    /// Held as long as the cache is used; none where the same step has it already.
    _lock: Option<File>,
}

impl CacheMounts {
    /// Opens the folder of all of them.
    pub(crate) fn open(folder: PathBuf) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Self { folder })
    }

    /// Waits until nobody else has a cache, and returns it. The first use of a name decides mode and owner.
    ///
    /// A step takes several in the order of their names, so that two steps never wait for each other; `is_held` tells that the
    /// same step has it already. With a seed it begins with what that holds, owner and mode included.
    pub(crate) fn take(
        &self,
        id: &str,
        owner: (u32, u32, u32),
        seed: Option<(&Part, &Objects)>,
        is_held: bool,
        cancel: &Cancel,
    ) -> Result<CacheMount, MountError> {
        let failed = |source| MountError::Cache { id: id.to_owned(), source };
        let name = sha256(id.as_bytes()).hex();
        let lock = if is_held { None } else { Some(self.lock(&name, cancel).map_err(failed)?) };
        match &lock {
            Some(None) => return Err(MountError::Cancelled),
            // On a full disk a cache may be collected too early, which costs time and is no reason to fail.
            Some(Some(file)) => drop(note_use(file, id)),
            None => {}
        }
        let path = self.folder.join(&name);
        if !path.is_dir() {
            self.make(&path, owner, seed).map_err(failed)?;
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(rustix::fs::CWD, &path, flags).map_err(|errno| failed(errno.into()))?;
        Ok(CacheMount { tree, _lock: lock.flatten() })
    }

    /// Makes a cache under another name first: one that is there is whole.
    fn make(
        &self,
        path: &Path,
        (mode, uid, gid): (u32, u32, u32),
        seed: Option<(&Part, &Objects)>,
    ) -> io::Result<()> {
        let partial = path.with_extension("new");
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir(&partial)?;
        if let Some((part, objects)) = seed {
            seed::write(part, objects, &partial)?;
        } else {
            std::os::unix::fs::chown(&partial, Some(uid), Some(gid))?;
            fs::set_permissions(&partial, fs::Permissions::from_mode(mode))?;
        }
        fs::rename(&partial, path)
    }

    /// Returns none if it was called off.
    fn lock(&self, name: &str, cancel: &Cancel) -> io::Result<Option<File>> {
        let path = self.folder.join(name).with_extension(LOCK);
        // Not emptied: somebody else may have the cache.
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::WouldBlock) if cancel.is_set() => return Ok(None),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_POLL),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}

/// Notes in the lock of a cache what it is called, and that it is used now.
fn note_use(mut lock: &File, id: &str) -> io::Result<()> {
    lock.set_modified(std::time::SystemTime::now())?;
    lock.set_len(0)?;
    lock.write_all(&id.as_bytes()[..id.floor_char_boundary(ID_BYTES_MAX)])
}
