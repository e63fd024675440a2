//! What differs between two trees.

use std::collections::BTreeMap;

use super::{Entry, Inode, Tree, TreePath};

/// How a path of one tree is in another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference<'a> {
    /// Only the new tree has it.
    Added(&'a Entry),
    /// Only the old tree has it.
    Removed(&'a Entry),
    /// Both have it, not alike.
    Changed {
        /// As the old tree has it.
        old: &'a Entry,
        /// As the new tree has it.
        new: &'a Entry,
        /// In what they differ; never empty.
        aspects: Vec<Aspect>,
    },
}

/// In what two entries differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// What it is: a file became a folder.
    Kind,
    /// A file's bytes, a link's target, a device's numbers.
    Content,
    /// The permission bits.
    Mode,
    /// The owner or the group.
    Owner,
    /// The extended attributes.
    Attributes,
    /// Which other names the file has.
    Links,
    /// The time of modification.
    Time,
}

impl Aspect {
    /// Returns its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Content => "content",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Attributes => "attributes",
            Self::Links => "links",
            Self::Time => "time",
        }
    }
}

/// What makes a newer tree of an older one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes<'a> {
    /// What only the old tree has, in the order of paths, with all that lay below a folder that went.
    pub gone: Vec<&'a TreePath>,
    /// What the new tree has and the old one has not, or not like that, in the order of paths.
    pub put: Vec<(&'a TreePath, &'a Entry)>,
}

impl Changes<'_> {
    /// Whether the trees are equal.
    pub fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.put.is_empty()
    }
}

impl Tree {
    /// Returns what makes the `new` tree of this one. Both are walked once, side by side, and what they share is not compared.
    pub fn changes<'a>(&'a self, new: &'a Self) -> Changes<'a> {
        let (old_names, new_names) = (self.first_names(), new.first_names());
        let mut changes = Changes::default();
        let mut olds = self.paths.iter().peekable();
        for (path, inode) in new.paths.iter() {
            // Mostly it is the same path in the same memory, and then no byte of it is looked at.
            let mut old = olds.next_if(|(old, _)| old == path);
            while old.is_none()
                && let Some((gone, _)) = olds.next_if(|(old, _)| old < path)
            {
                changes.gone.push(gone);
                old = olds.next_if(|(old, _)| old == path);
            }
            let node = new.nodes.get(*inode);
            let is_same = old.is_some_and(|(_, old)| {
                let is_shared = self.nodes.is_shared(*old, &new.nodes, *inode);
                let old = self.nodes.get(*old);
                let is_single = old.links == 1 && node.links == 1;
                (is_shared || old.entry == node.entry)
                    && (is_single || old_names.get(path) == new_names.get(path))
            });
            if !is_same {
                changes.put.push((path, &node.entry));
            }
        }
        changes.gone.extend(olds.map(|(path, _)| path));
        changes
    }

    /// Returns what differs between this tree and a newer one, in the order of paths.
    pub fn differences<'a>(&'a self, new: &'a Self) -> Vec<(&'a TreePath, Difference<'a>)> {
        let (old_names, new_names) = (self.first_names(), new.first_names());
        let gone = self.iter().filter(|(path, _)| new.get(path).is_none());
        let mut found: Vec<_> = gone.map(|(path, entry)| (path, Difference::Removed(entry))).collect();
        for (path, entry) in new.iter() {
            let Some(old) = self.get(path) else {
                found.push((path, Difference::Added(entry)));
                continue;
            };
            let mut aspects = aspects(old, entry);
            if old_names.get(path) != new_names.get(path) {
                aspects.push(Aspect::Links);
                aspects.sort_unstable();
            }
            if !aspects.is_empty() {
                found.push((path, Difference::Changed { old, new: entry, aspects }));
            }
        }
        found.sort_by_key(|(path, _)| *path);
        found
    }

    /// Returns for each path of a file with several names the first of them: what tells two trees' hard links apart.
    pub fn first_names(&self) -> BTreeMap<&TreePath, &TreePath> {
        let mut first: BTreeMap<Inode, &TreePath> = BTreeMap::new();
        let linked = self.paths.iter().filter(|(_, inode)| self.nodes.get(*inode).links > 1);
        linked.map(|(path, inode)| (path, *first.entry(*inode).or_insert(path))).collect()
    }
}

fn aspects(old: &Entry, new: &Entry) -> Vec<Aspect> {
    let is_kind = std::mem::discriminant(&old.kind) != std::mem::discriminant(&new.kind);
    let differs = [
        (Aspect::Kind, is_kind),
        (Aspect::Content, !is_kind && old.kind != new.kind),
        (Aspect::Mode, old.meta.mode != new.meta.mode),
        (Aspect::Owner, (old.meta.uid, old.meta.gid) != (new.meta.uid, new.meta.gid)),
        (Aspect::Attributes, old.meta.xattrs != new.meta.xattrs),
        (Aspect::Time, old.meta.mtime != new.meta.mtime),
    ];
    differs.into_iter().filter_map(|(aspect, differs)| differs.then_some(aspect)).collect()
}

#[cfg(test)]
mod tests {
    use kiln_model::Digest;
    use proptest::prelude::*;

    use super::super::{Meta, Mtime};
    use super::*;
    use crate::erofs::tests::trees;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    fn file(byte: u8) -> Entry {
        Entry::file(0o644, Digest::new([byte; 32]), 1)
    }

    fn tree(entries: &[(&str, Entry)]) -> Tree {
        let mut tree = Tree::new();
        for (name, entry) in entries {
            tree.insert(&path(name), entry.clone()).unwrap();
        }
        tree
    }

    #[test]
    fn every_aspect_is_told_by_its_name_and_equal_trees_do_not_differ() {
        let meta = Meta { mode: 0o755, uid: 7, mtime: Mtime { secs: 1, nanos: 0 }, ..Meta::default() };
        let owned = Entry { meta, kind: file(1).kind };
        let old = tree(&[("a", file(1)), ("b", file(1)), ("c", file(1)), ("e", file(1))]);
        let new = tree(&[("a", file(2)), ("c", owned), ("d", file(1)), ("e", Entry::symlink("a"))]);
        let words: Vec<String> = old
            .differences(&new)
            .iter()
            .map(|(path, difference)| match difference {
                Difference::Added(_) => format!("+{path}"),
                Difference::Removed(_) => format!("-{path}"),
                Difference::Changed { aspects, .. } => {
                    let aspects: Vec<_> = aspects.iter().map(|aspect| aspect.as_str()).collect();
                    format!("~{path} {}", aspects.join(","))
                }
            })
            .collect();
        assert_eq!(words, ["~/a content", "-/b", "~/c mode,owner,time", "+/d", "~/e kind,mode"]);
        assert_eq!(old.differences(&old.clone()), []);
    }

    #[test]
    fn hard_links_differ_where_copies_took_their_place() {
        let mut linked = tree(&[("a", file(1))]);
        linked.link(&path("b"), &path("a")).unwrap();
        let copied = tree(&[("a", file(1)), ("b", file(1))]);
        let found = linked.differences(&copied);
        assert_eq!(found.len(), 2);
        for (_, difference) in found {
            assert!(matches!(difference, Difference::Changed { aspects, .. } if aspects == [Aspect::Links]));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn changes_are_all_that_differs_whether_or_not_trees_share_what_they_have(
            old in trees(),
            other in trees(),
            gone in any::<prop::sample::Index>(),
        ) {
            // One that shares most with the old one, as a step of a bake leaves it.
            let mut step = old.clone();
            let paths: Vec<_> = old.iter().map(|(path, _)| path.clone()).collect();
            step.remove(gone.get(&paths));
            let _ = step.overlay(&path("new"), &other);
            for new in [&old, &other, &step] {
                let changes = old.changes(new);
                let (mut removed, mut put) = (Vec::new(), Vec::new());
                for (path, difference) in old.differences(new) {
                    match difference {
                        Difference::Removed(_) => removed.push(path),
                        Difference::Added(entry) | Difference::Changed { new: entry, .. } => put.push((path, entry)),
                    }
                }
                prop_assert_eq!(&changes, &Changes { gone: removed, put });
                prop_assert_eq!(changes.is_empty(), old == *new);
            }
        }
    }
}
