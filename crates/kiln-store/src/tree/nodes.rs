//! The files of a tree by their numbers.

use std::sync::Arc;

use super::{Entry, Inode};

/// As many files are copied where one is changed: few enough to cost nothing, and a copy of ten thousand shares two hundred runs.
const RUN: usize = 64;

/// A file, whatever its names are.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) entry: Entry,
    /// How many names it has.
    pub(super) links: u32,
}

/// Nodes by inode, in runs of a fixed length. A number is given once, so one whose file is gone stays empty; a tree that is read
/// from the store has none of those.
///
/// Copies share their runs until one is changed: a step of a bake copies the tree of the step before it, and changes little.
#[derive(Debug, Clone, Default)]
pub(super) struct Nodes(Vec<Arc<Vec<Option<Node>>>>);

impl Nodes {
    /// Adds a file with one name.
    pub(super) fn add(&mut self, entry: Entry) -> Inode {
        let number = u32::try_from(self.end()).expect("a tree has fewer than four billion files");
        if self.0.last().is_none_or(|run| run.len() == RUN) {
            self.0.push(Arc::new(Vec::with_capacity(RUN)));
        }
        let run = self.0.last_mut().expect("there is one with room");
        Arc::make_mut(run).push(Some(Node { entry, links: 1 }));
        Inode(number)
    }

    pub(super) fn get(&self, inode: Inode) -> &Node {
        self.0[inode.index() / RUN][inode.index() % RUN].as_ref().expect("every path has a node")
    }

    /// Whether a file is as another tree has it, as far as that shows without a look at it.
    pub(super) fn is_shared(&self, inode: Inode, other: &Self, others: Inode) -> bool {
        let run = inode.index() / RUN;
        inode == others && other.0.get(run).is_some_and(|others| Arc::ptr_eq(&self.0[run], others))
    }

    pub(super) fn get_mut(&mut self, inode: Inode) -> &mut Node {
        self.slot(inode).as_mut().expect("every path has a node")
    }

    /// Takes one name from a file; without any it is gone.
    pub(super) fn unlink(&mut self, inode: Inode) {
        match self.get(inode).links {
            1 => *self.slot(inode) = None,
            _ => self.get_mut(inode).links -= 1,
        }
    }

    /// What all numbers are below.
    pub(super) fn end(&self) -> usize {
        self.0.last().map_or(0, |last| (self.0.len() - 1) * RUN + last.len())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.0.iter().flat_map(|run| run.iter().flatten())
    }

    fn slot(&mut self, inode: Inode) -> &mut Option<Node> {
        &mut Arc::make_mut(&mut self.0[inode.index() / RUN])[inode.index() % RUN]
    }
}
