//! Mount points that every instance needs, added to a stored tree but not to the OCI image.
//!
//! An instance's root is read-only, so what is mounted over it needs a place that is there already. What was added, and what
//! was in its way, is written into the stored tree, so that reading it back gives the image's own tree.

use crate::tree::{Entry, Kind, Meta, Tree, TreeError, TreePath};
use crate::wire::{SkeletonWire, to_json};

/// Where the stored tree says what was added: an attribute of its root.
const RECORD: &[u8] = b"trusted.kiln.skeleton";

/// What every instance has mounted, folders first.
const DIRS: [&str; 9] = ["proc", "sys", "dev", "dev/pts", "dev/shm", "dev/mqueue", "tmp", "run", "run/kiln"];
const FILES: [&str; 3] = ["etc/hosts", "etc/hostname", "etc/resolv.conf"];

/// A place where something will be mounted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum MountPoint {
    /// A folder: for a file system, or for a volume that is one.
    Dir(TreePath),
    /// A file: for a bind mount of one, such as a secret.
    File(TreePath),
}

/// What was done to a tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Skeleton {
    /// In the order in which it was done.
    pub(crate) changes: Vec<Change>,
}

/// One thing that was added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) path: TreePath,
    /// The symlink that was there before.
    pub(crate) replaced: Option<Entry>,
}

/// Returns the tree with the mount points of every instance and with those of `more`.
pub(crate) fn furnish(tree: &Tree, more: &[MountPoint]) -> Result<Tree, TreeError> {
    let root = TreePath::root();
    let mut meta = tree.get(&root).expect("a tree has a root").meta.clone();
    if meta.xattrs.contains_key(RECORD) {
        let reason = "its attribute `trusted.kiln.skeleton` is Kiln's own".into();
        return Err(TreeError::Invalid { path: root, reason });
    }
    let mut builder = Builder { tree: tree.clone(), done: Skeleton::default() };
    let builtin = |path: &str| TreePath::parse(path).expect("the paths above are valid");
    for path in DIRS {
        builder.add(&builtin(path), true, false)?;
    }
    for path in FILES {
        builder.add(&builtin(path), false, false)?;
    }
    for point in more {
        match point {
            MountPoint::Dir(path) => builder.add(path, true, true)?,
            MountPoint::File(path) => builder.add(path, false, true)?,
        }
    }
    let Builder { mut tree, done } = builder;
    if !done.changes.is_empty() {
        meta.xattrs.insert(RECORD.into(), to_json(&SkeletonWire::from(&done)));
        tree.set_meta(&root, meta)?;
    }
    Ok(tree)
}

/// Returns the tree without what [`furnish`] added.
pub(crate) fn strip(mut tree: Tree) -> Result<Tree, String> {
    let root = TreePath::root();
    let mut meta = tree.get(&root).expect("a tree has a root").meta.clone();
    let Some(record) = meta.xattrs.remove(RECORD) else { return Ok(tree) };
    let wire: SkeletonWire =
        serde_json::from_slice(&record).map_err(|error| format!("its list of mount points: {error}"))?;
    for change in Skeleton::try_from(wire)?.changes.into_iter().rev() {
        tree.remove(&change.path);
        if let Some(entry) = change.replaced {
            tree.insert(&change.path, entry).map_err(|error| error.to_string())?;
        }
    }
    tree.set_meta(&root, meta).map_err(|error| error.to_string())?;
    Ok(tree)
}

struct Builder {
    tree: Tree,
    done: Skeleton,
}

impl Builder {
    /// Makes sure that there is something to mount on. A symlink on the way is followed within the tree; one at the very path
    /// is replaced, unless `follow` and it leads to what can be mounted on.
    fn add(&mut self, path: &TreePath, dir: bool, follow: bool) -> Result<(), TreeError> {
        let Some(parent) = path.parent() else { return Ok(()) };
        let parent = self.folder(&parent)?;
        let path = parent
            .join(path.name())
            .map_err(|error| TreeError::Invalid { path: path.clone(), reason: error.to_string() })?;
        match self.tree.get(&path).map(|entry| &entry.kind) {
            Some(Kind::Symlink { .. }) => {
                let target = self.tree.resolve(&path, true).ok().and_then(|target| self.tree.get(&target));
                if follow && target.is_some_and(|target| target.is_dir() == dir) {
                    return Ok(());
                }
            }
            Some(Kind::Dir) if dir => return Ok(()),
            Some(Kind::Dir) => return Err(TreeError::Folder(path)),
            Some(_) if dir => return Err(TreeError::NotAFolder { path: path.clone(), blocker: path }),
            Some(_) => return Ok(()),
            None => {}
        }
        self.put(path, dir)
    }

    /// Returns where a folder really is, making it and those before it where they are missing.
    fn folder(&mut self, path: &TreePath) -> Result<TreePath, TreeError> {
        let mut at = TreePath::root();
        for name in path.names() {
            let next = at.join(name).expect("a part of a valid path is valid");
            let real = self
                .tree
                .resolve(&next, true)
                .map_err(|error| TreeError::Invalid { path: path.clone(), reason: error.to_string() })?;
            match self.tree.get(&real) {
                Some(entry) if entry.is_dir() => {}
                Some(_) => return Err(TreeError::NotAFolder { path: path.clone(), blocker: real }),
                None => self.put(real.clone(), true)?,
            }
            at = real;
        }
        Ok(at)
    }

    fn put(&mut self, path: TreePath, dir: bool) -> Result<(), TreeError> {
        let replaced = self.tree.get(&path).cloned();
        // As old as the image: a mount point must not make two bakes differ, and takes the smallest inode so.
        let mtime = self.tree.get(&TreePath::root()).expect("a tree has a root").meta.mtime;
        let meta = Meta { mode: if dir { 0o755 } else { 0o644 }, mtime, ..Meta::default() };
        let empty = crate::canonical::digest_of(b"");
        let kind = if dir { Kind::Dir } else { Kind::File { digest: empty, size: 0 } };
        self.tree.insert(&path, Entry { meta, kind })?;
        self.done.changes.push(Change { path, replaced });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    #[test]
    fn every_instance_finds_its_mount_points_and_the_image_comes_back_without_them() {
        let mut tree = Tree::new();
        tree.insert(&path("etc"), Entry::dir(0o700)).unwrap();
        tree.insert(&path("etc/hosts"), Entry::file(0o600, crate::canonical::digest_of(b"x"), 1)).unwrap();
        tree.insert(&path("etc/resolv.conf"), Entry::symlink("../run/systemd/resolve/stub")).unwrap();
        tree.insert(&path("run"), Entry::symlink("/var/run")).unwrap();
        let furnished = furnish(&tree, &[]).unwrap();
        for dir in DIRS {
            assert!(furnished.get(&path(dir)).unwrap().is_dir(), "{dir}");
        }
        for file in FILES {
            assert!(matches!(furnished.get(&path(file)).unwrap().kind, Kind::File { .. }), "{file}");
        }
        assert_eq!(furnished.get(&path("etc/hosts")), tree.get(&path("etc/hosts")));
        assert_eq!(strip(furnished).unwrap(), tree);
    }

    #[test]
    fn a_mount_point_below_a_link_is_made_where_the_link_leads_within_the_tree() {
        let mut tree = Tree::new();
        tree.insert(&path("usr"), Entry::dir(0o755)).unwrap();
        tree.insert(&path("etc"), Entry::symlink("/../../usr/etc")).unwrap();
        let furnished = furnish(&tree, &[]).unwrap();
        assert!(furnished.get(&path("usr/etc/hosts")).is_some());
        assert_eq!(furnished.get(&path("etc")), tree.get(&path("etc")));
        assert_eq!(strip(furnished).unwrap(), tree);
    }

    #[test]
    fn a_volume_over_a_link_to_a_folder_goes_where_it_leads_and_over_a_dangling_one_replaces_it() {
        let mut tree = Tree::new();
        tree.insert(&path("srv"), Entry::dir(0o755)).unwrap();
        tree.insert(&path("data"), Entry::symlink("srv")).unwrap();
        tree.insert(&path("lost"), Entry::symlink("nowhere")).unwrap();
        let points =
            [MountPoint::Dir(path("data")), MountPoint::Dir(path("lost")), MountPoint::File(path("a/b/c"))];
        let furnished = furnish(&tree, &points).unwrap();
        assert_eq!(furnished.get(&path("data")), tree.get(&path("data")));
        assert!(furnished.get(&path("lost")).unwrap().is_dir());
        assert!(furnished.get(&path("a/b/c")).is_some());
        assert_eq!(strip(furnished).unwrap(), tree);
    }

    #[test]
    fn what_can_not_be_mounted_on_is_refused() {
        let mut tree = Tree::new();
        tree.insert(&path("proc"), Entry::file(0o644, crate::canonical::digest_of(b"x"), 1)).unwrap();
        assert!(matches!(furnish(&tree, &[]), Err(TreeError::NotAFolder { .. })));
        let mut tree = Tree::new();
        tree.insert(&path("loop"), Entry::symlink("loop")).unwrap();
        assert!(furnish(&tree, &[MountPoint::Dir(path("loop/x"))]).is_err());
        assert!(matches!(furnish(&tree, &[MountPoint::File(path("tmp"))]), Err(TreeError::Folder(_))));
    }

    #[test]
    fn a_link_with_all_its_attributes_comes_back() {
        let mut tree = Tree::new();
        let mut link = Entry::symlink(b"nowhere-\xff".to_vec());
        link.meta = Meta { uid: 7, gid: 8, mode: 0o777, ..Meta::default() };
        link.meta.mtime.nanos = 9;
        link.meta.xattrs.insert(b"security.x".to_vec(), vec![0xff, 0]);
        tree.insert(&path("tmp"), link).unwrap();
        assert_eq!(strip(furnish(&tree, &[]).unwrap()).unwrap(), tree);
    }
}
