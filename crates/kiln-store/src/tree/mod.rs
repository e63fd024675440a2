//! The files of an image as a value: what a bake builds and what [`crate::Trees`] stores.

mod differences;
mod entry;
mod nodes;
mod path;
mod paths;
mod resolve;

use std::collections::BTreeMap;

use kiln_model::Digest;

use nodes::{Node, Nodes};
use paths::{Named, Paths};

pub use differences::{Aspect, Changes, Difference};
pub use entry::{Entry, Kind, Meta, Mtime};
pub use path::{NAME_BYTES_MAX, PATH_BYTES_MAX, PathError, TreePath};
pub use resolve::ResolveError;

/// The names of extended attributes are at most this long in Linux.
const XATTR_NAME_BYTES_MAX: usize = 255;

/// The stored format has 16 bits for the size of a value; Linux would take one byte more.
const XATTR_VALUE_BYTES_MAX: usize = 65_535;

/// The stored format counts the attributes of one entry in 4-byte units with 16 bits.
const XATTR_BYTES_MAX: usize = 4 * 65_000;

/// Which file a path is a name of. Hard links are several paths with one inode; the numbers mean nothing beyond that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inode(u32);

impl Inode {
    /// A number below the tree's [`Tree::inodes_end`].
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A tree of files, in the order of their paths.
///
/// It always has a root folder, every entry's folder is in it, and no path runs through a symlink. Two trees are equal if
/// they have the same paths with the same entries and the same hard links.
///
/// A copy costs next to nothing: it shares all that neither of the two has changed since.
#[derive(Debug, Clone)]
pub struct Tree {
    paths: Paths,
    nodes: Nodes,
}

/// A change that would leave a tree that can't exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// Its folder is not in the tree.
    #[error("{path} has no folder")]
    NoFolder {
        /// What was to be put.
        path: TreePath,
    },
    /// What should be its folder is something else, perhaps a symlink, which is never followed.
    #[error("{path} can't be in {blocker}, which is not a folder")]
    NotAFolder {
        /// What was to be put.
        path: TreePath,
        /// What is there.
        blocker: TreePath,
    },
    /// There is nothing at the path.
    #[error("there is no {0}")]
    Missing(TreePath),
    /// A folder can't be linked, and the root can't be anything else.
    #[error("{0} is a folder, which can't be linked or be replaced as root")]
    Folder(TreePath),
    /// An attribute is out of its range.
    #[error("{path} can't be stored: {reason}")]
    Invalid {
        /// What was to be put.
        path: TreePath,
        /// What is wrong with it.
        reason: String,
    },
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// Returns a tree with nothing but its root: mode 0755, root's, from 1970.
    pub fn new() -> Self {
        let mut nodes = Nodes::default();
        let root = nodes.add(Entry::dir(0o755));
        Self { paths: Paths::of_sorted(vec![(TreePath::root(), root)]), nodes }
    }

    /// Puts an entry at a path. A folder over a folder keeps what is in it; anything else replaces all that is there.
    ///
    /// # Errors
    /// The path's folder is missing or not a folder, or an attribute is out of its range; the tree is as it was.
    pub fn insert(&mut self, path: &TreePath, entry: Entry) -> Result<(), TreeError> {
        check(path, &entry)?;
        self.check_folder(path)?;
        if path.is_root() && !entry.is_dir() {
            return Err(TreeError::Folder(path.clone()));
        }
        let place = match self.paths.find(path.as_bytes()) {
            Err(place) => place,
            Ok(place) => {
                let (_, inode) = self.paths.at(place);
                let node = self.nodes.get(*inode);
                if node.links == 1 && node.entry.is_dir() == entry.is_dir() {
                    // What is as it was stays shared with copies.
                    if node.entry != entry {
                        self.nodes.get_mut(*inode).entry = entry;
                    }
                    return Ok(());
                }
                self.remove(path);
                self.paths.find(path.as_bytes()).expect_err("it was removed just now")
            }
        };
        let inode = self.nodes.add(entry);
        self.paths.insert(place, (path.clone(), inode));
        Ok(())
    }

    /// Puts a folder like `missing` wherever one is missing on the way to `path`, `path` included.
    ///
    /// # Errors
    /// Something that is not a folder is on the way; the folders before it may have been added.
    pub fn make_dirs(&mut self, path: &TreePath, missing: &Meta) -> Result<(), TreeError> {
        let mut at = TreePath::root();
        for name in path.names() {
            at = at.join(name).expect("a part of a valid path is valid");
            match self.get(&at) {
                Some(entry) if entry.is_dir() => {}
                Some(_) => return Err(TreeError::NotAFolder { path: path.clone(), blocker: at }),
                None => self.insert(&at, Entry { meta: missing.clone(), kind: Kind::Dir })?,
            }
        }
        Ok(())
    }

    /// Makes `path` another name of what `target` is a name of, replacing what is there.
    ///
    /// # Errors
    /// There is no `target`, it is a folder, or the path's folder is missing or not a folder.
    pub fn link(&mut self, path: &TreePath, target: &TreePath) -> Result<(), TreeError> {
        let inode = self.inode(target).ok_or_else(|| TreeError::Missing(target.clone()))?;
        if self.nodes.get(inode).entry.is_dir() {
            return Err(TreeError::Folder(target.clone()));
        }
        self.check_folder(path)?;
        if self.inode(path) == Some(inode) {
            return Ok(());
        }
        if target.is_within(path) {
            // Replacing a folder with a link to something in it would remove the target first.
            return Err(TreeError::NotAFolder { path: target.clone(), blocker: path.clone() });
        }
        self.remove(path);
        self.nodes.get_mut(inode).links += 1;
        let place = self.paths.find(path.as_bytes()).expect_err("what was there is removed");
        self.paths.insert(place, (path.clone(), inode));
        Ok(())
    }

    /// Removes what is at a path with all below it, and returns how many names that were. The root itself stays.
    pub fn remove(&mut self, path: &TreePath) -> usize {
        let doomed: Vec<_> = self.within(path).map(|(path, _)| path.clone()).collect();
        let mut removed = 0;
        for path in doomed.into_iter().filter(|path| !path.is_root()) {
            let place = self.paths.find(path.as_bytes()).expect("it was listed just now");
            let (_, inode) = self.paths.remove(place);
            self.nodes.unlink(inode);
            removed += 1;
        }
        removed
    }

    /// Changes the attributes of what is at a path, under all of its names.
    ///
    /// # Errors
    /// There is nothing, or an attribute is out of its range; the tree is as it was.
    pub fn set_meta(&mut self, path: &TreePath, meta: Meta) -> Result<(), TreeError> {
        let inode = self.inode(path).ok_or_else(|| TreeError::Missing(path.clone()))?;
        let changed = Entry { meta, kind: self.nodes.get(inode).entry.kind.clone() };
        check(path, &changed)?;
        self.nodes.get_mut(inode).entry = changed;
        Ok(())
    }

    /// Lays another tree over this one at `at`, which must be a folder or be missing in one: a folder over a folder keeps
    /// what is in it and gets the other's attributes, anything else replaces what is there. Hard links stay linked.
    ///
    /// # Errors
    /// `at` has no folder, or a path would be too long; part of the other tree may have been laid.
    pub fn overlay(&mut self, at: &TreePath, other: &Self) -> Result<(), TreeError> {
        let mut placed: BTreeMap<Inode, TreePath> = BTreeMap::new();
        for (from, inode) in other.paths.iter() {
            let path = from.moved(&TreePath::root(), at).ok_or_else(|| TreeError::Invalid {
                path: from.clone(),
                reason: format!("below {at} its path is too long"),
            })?;
            match placed.get(inode) {
                Some(first) => self.link(&path, &first.clone())?,
                None => {
                    self.insert(&path, other.nodes.get(*inode).entry.clone())?;
                    placed.insert(*inode, path);
                }
            }
        }
        Ok(())
    }

    /// Returns what is at a path; no link is followed.
    pub fn get(&self, path: &TreePath) -> Option<&Entry> {
        self.inode(path).map(|inode| &self.nodes.get(inode).entry)
    }

    /// Returns which file a path is a name of.
    pub fn inode(&self, path: &TreePath) -> Option<Inode> {
        self.paths.get(path.as_bytes())
    }

    /// Returns how many names the file at a path has; 1 for a folder, 0 where there is nothing.
    pub fn links(&self, path: &TreePath) -> u32 {
        self.inode(path).map_or(0, |inode| self.nodes.get(inode).links)
    }

    /// Iterates over all entries in the order of the bytes of their paths, the root first: a folder comes before what is
    /// in it.
    pub fn iter(&self) -> impl Iterator<Item = (&TreePath, &Entry)> {
        self.paths.iter().map(|(path, inode)| (path, &self.nodes.get(*inode).entry))
    }

    /// As [`Tree::iter`], each with which file it is a name of and how many names that has.
    pub(crate) fn iter_linked(&self) -> impl Iterator<Item = (&TreePath, Inode, &Entry, u32)> {
        self.paths.iter().map(|(path, inode)| {
            let Node { entry, links } = self.nodes.get(*inode);
            (path, *inode, entry, *links)
        })
    }

    /// What all numbers of its inodes are below.
    pub(crate) fn inodes_end(&self) -> usize {
        self.nodes.end()
    }

    /// Iterates over what is at a path and all below it.
    pub fn within(&self, path: &TreePath) -> impl Iterator<Item = (&TreePath, &Entry)> {
        let first = self.paths.find(path.as_bytes()).ok().map(|place| self.paths.at(place));
        // `/` is followed by `0`: what is below `a` lies between `a/` and `a0`. Below the root lies what is not empty.
        let (low, high) = match path.is_root() {
            true => (vec![0], None),
            false => ([path.as_bytes(), b"/"].concat(), Some([path.as_bytes(), b"0"].concat())),
        };
        let below = self.paths.between(&low, high.as_deref());
        first.into_iter().chain(below).map(|(path, inode)| (path, &self.nodes.get(*inode).entry))
    }

    /// Iterates over what is directly in a folder.
    pub fn children(&self, folder: &TreePath) -> impl Iterator<Item = (&TreePath, &Entry)> {
        let depth = folder.names().count() + 1;
        self.within(folder).filter(move |(path, _)| path.names().count() == depth)
    }

    /// Returns how many paths it has, the root included.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether it has nothing but its root.
    pub fn is_empty(&self) -> bool {
        self.len() == 1
    }

    /// Returns the bytes of its regular files, each hard-linked file once.
    pub fn size_bytes(&self) -> u64 {
        let size = |node: &Node| match node.entry.kind {
            Kind::File { size, .. } => size,
            _ => 0,
        };
        self.nodes.iter().map(size).sum()
    }

    /// Iterates over the objects that it needs; one may come up more than once.
    pub fn objects(&self) -> impl Iterator<Item = Digest> {
        self.sized_objects().map(|(digest, _)| digest)
    }

    /// As [`Tree::objects`], each with its size.
    pub(crate) fn sized_objects(&self) -> impl Iterator<Item = (Digest, u64)> {
        self.nodes.iter().filter_map(|node| match node.entry.kind {
            Kind::File { digest, size } => Some((digest, size)),
            _ => None,
        })
    }

    fn check_folder(&self, path: &TreePath) -> Result<(), TreeError> {
        let Some(folder) = path.parent_bytes() else { return Ok(()) };
        match self.paths.get(folder).map(|inode| &self.nodes.get(inode).entry) {
            Some(entry) if entry.is_dir() => Ok(()),
            Some(_) => {
                Err(TreeError::NotAFolder { path: path.clone(), blocker: path.parent().unwrap_or_default() })
            }
            None => Err(TreeError::NoFolder { path: path.clone() }),
        }
    }
}

/// A tree that is read whole: its paths are put in order once, which costs nothing where they come in it.
#[derive(Debug, Default)]
pub(crate) struct TreeReading {
    paths: Vec<Named>,
    nodes: Nodes,
}

impl TreeReading {
    /// Adds a file. Whoever reads sees to it that its folder is added, too, and that it is one.
    pub(crate) fn add(&mut self, path: TreePath, entry: Entry) -> Result<Inode, TreeError> {
        check(&path, &entry)?;
        let inode = self.nodes.add(entry);
        self.paths.push((path, inode));
        Ok(inode)
    }

    /// Adds another name of a file that is no folder.
    pub(crate) fn link(&mut self, path: TreePath, inode: Inode) {
        self.nodes.get_mut(inode).links += 1;
        self.paths.push((path, inode));
    }

    /// Returns the tree, or a path that was added twice.
    pub(crate) fn finish(self) -> Result<Tree, TreePath> {
        let Self { mut paths, nodes } = self;
        if !paths.is_sorted_by(|(one, _), (other, _)| one < other) {
            paths.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            if let Some(pair) = paths.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                return Err(pair[0].0.clone());
            }
        }
        Ok(Tree { paths: Paths::of_sorted(paths), nodes })
    }
}

impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        // Inode numbers depend on the history; which paths share one must agree.
        self.paths.len() == other.paths.len() && self.changes(other).is_empty()
    }
}

impl Eq for Tree {}

fn check(path: &TreePath, entry: &Entry) -> Result<(), TreeError> {
    let fail = |reason: &str| Err(TreeError::Invalid { path: path.clone(), reason: reason.into() });
    let meta = &entry.meta;
    if meta.mode > 0o7777 {
        return fail("its mode has more than the 12 permission bits");
    }
    if meta.mtime.nanos >= 1_000_000_000 {
        return fail("its time of modification has more than a second of nanoseconds");
    }
    if meta.uid == u32::MAX || meta.gid == u32::MAX {
        return fail("its owner or group is 4294967295, which in Linux means nobody at all");
    }
    let mut xattr_bytes = 0;
    for (name, value) in &meta.xattrs {
        let namespaced = [b"user.".as_slice(), b"trusted.", b"security."]
            .iter()
            .any(|prefix| name.len() > prefix.len() && name.starts_with(prefix));
        let acl = name == b"system.posix_acl_access" || name == b"system.posix_acl_default";
        if !(namespaced || acl) || name.len() > XATTR_NAME_BYTES_MAX || name.contains(&0) {
            let shown = String::from_utf8_lossy(name);
            return fail(&format!("`{}` is not an extended attribute that Linux has", shown.escape_debug()));
        }
        xattr_bytes += name.len() + value.len() + 8;
        if value.len() > XATTR_VALUE_BYTES_MAX || xattr_bytes > XATTR_BYTES_MAX {
            return fail("its extended attributes are too large");
        }
    }
    match &entry.kind {
        Kind::Symlink { target } if target.is_empty() || target.len() > PATH_BYTES_MAX => {
            fail("a symlink's target has 1 to 4095 bytes")
        }
        Kind::Symlink { target } if target.contains(&0) => fail("a symlink's target has a NUL byte"),
        Kind::File { size, .. } if *size > i64::MAX as u64 => fail("its size is beyond what Linux has"),
        Kind::Char { major: 0, minor: 0 } => fail("the character device 0:0 stands for a deletion"),
        Kind::Char { major, minor } | Kind::Block { major, minor }
            if *major >= 1 << 12 || *minor >= 1 << 20 =>
        {
            fail("its device number is beyond what Linux has")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
