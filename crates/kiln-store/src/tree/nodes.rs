//! The files of a tree by their numbers.

use std::sync::Arc;

use super::{Entry, Inode};

/// A file, whatever its names are.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) entry: Entry,
    /// How many names it has.
    pub(super) links: u32,
}

/// Nodes by inode. A number is given once, so one whose file is gone stays empty; a tree that is read from the store has none
/// of those.
///
/// Copies share their nodes until one is changed: a step of a bake copies the tree of the step before it, and changes little.
#[derive(Debug, Clone, Default)]
pub(super) struct Nodes(Vec<Option<Arc<Node>>>);

impl Nodes {
    /// Adds a file with one name.
    pub(super) fn add(&mut self, entry: Entry) -> Inode {
        let number = u32::try_from(self.0.len()).expect("a tree has fewer than four billion files");
        self.0.push(Some(Arc::new(Node { entry, links: 1 })));
        Inode(number)
    }

    pub(super) fn get(&self, inode: Inode) -> &Node {
        self.shared(inode)
    }

    /// Whether a file is the very same node as another tree's, and so the same without a look at it.
    pub(super) fn is_shared(&self, inode: Inode, other: &Self, others: Inode) -> bool {
        Arc::ptr_eq(self.shared(inode), other.shared(others))
    }

    pub(super) fn get_mut(&mut self, inode: Inode) -> &mut Node {
        let node = self.0[inode.0 as usize].as_mut();
        Arc::make_mut(node.expect("every path has a node"))
    }

    /// Takes one name from a file; without any it is gone.
    pub(super) fn unlink(&mut self, inode: Inode) {
        match self.get(inode).links {
            1 => self.0[inode.0 as usize] = None,
            _ => self.get_mut(inode).links -= 1,
        }
    }

    /// What all numbers are below.
    pub(super) fn end(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.0.iter().flatten().map(|node| &**node)
    }

    fn shared(&self, inode: Inode) -> &Arc<Node> {
        self.0[inode.0 as usize].as_ref().expect("every path has a node")
    }
}
