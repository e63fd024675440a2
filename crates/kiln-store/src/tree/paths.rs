//! The paths of a tree in their order.

use std::sync::Arc;

use super::{Inode, TreePath};

/// As many paths are copied where one is put or goes: few enough to cost nothing, and a tree of ten thousand files has but a
/// hundred runs.
const RUN_MAX: usize = 128;

/// Paths in the order of their bytes, each with what it is a name of, cut into runs of which none is empty.
///
/// Copies share their runs until one is changed: a step of a bake copies the tree of the step before it, and changes little.
#[derive(Debug, Clone, Default)]
pub(super) struct Paths {
    runs: Vec<Arc<Vec<Named>>>,
    length: usize,
}

pub(super) type Named = (TreePath, Inode);

/// Where a path is or would be: which run, and how many of it come before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    run: usize,
    at: usize,
}

impl Paths {
    /// Takes paths that are in their order.
    pub(super) fn of_sorted(sorted: Vec<Named>) -> Self {
        let (length, mut sorted) = (sorted.len(), sorted.into_iter());
        let run = |_| Arc::new(sorted.by_ref().take(RUN_MAX).collect());
        Self { runs: (0..length.div_ceil(RUN_MAX)).map(run).collect(), length }
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Returns where a path is, or else where it would be.
    pub(super) fn find(&self, path: &[u8]) -> Result<Place, Place> {
        let run = self.runs.partition_point(|run| run[0].0.as_bytes() <= path).saturating_sub(1);
        let Some(paths) = self.runs.get(run) else { return Err(Place { run, at: 0 }) };
        let found = paths.binary_search_by(|(other, _)| other.as_bytes().cmp(path));
        found.map(|at| Place { run, at }).map_err(|at| Place { run, at })
    }

    /// Returns the path that is at a place.
    pub(super) fn at(&self, place: Place) -> &Named {
        &self.runs[place.run][place.at]
    }

    pub(super) fn get(&self, path: &[u8]) -> Option<Inode> {
        self.find(path).ok().map(|place| self.at(place).1)
    }

    /// Puts a path that is not there yet where it would be.
    pub(super) fn insert(&mut self, place: Place, named: Named) {
        let Place { run, at } = place;
        self.length += 1;
        if self.runs.is_empty() {
            self.runs.push(Arc::default());
        }
        let paths = Arc::make_mut(&mut self.runs[run]);
        if paths.len() < RUN_MAX {
            paths.insert(at, named);
            return;
        }
        // Many that are put come one after the other: what is full is cut where the next one goes.
        let mut after = paths.split_off(at);
        match after.is_empty() {
            true => after.push(named),
            false => paths.push(named),
        }
        self.runs.insert(run + 1, Arc::new(after));
    }

    /// Takes a path away that is there.
    pub(super) fn remove(&mut self, place: Place) -> Named {
        self.length -= 1;
        let paths = Arc::make_mut(&mut self.runs[place.run]);
        let removed = paths.remove(place.at);
        if paths.is_empty() {
            self.runs.remove(place.run);
        }
        removed
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Named> {
        self.runs.iter().flat_map(|run| run.iter())
    }

    /// Iterates over what comes from `from` on and before `to`.
    pub(super) fn between(&self, from: &[u8], to: Option<&[u8]>) -> impl Iterator<Item = &Named> + use<'_> {
        let place = |path: &[u8]| self.find(path).unwrap_or_else(|place| place);
        let (from, to) = (place(from), to.map_or(Place { run: self.runs.len(), at: 0 }, place));
        let runs = self.runs.iter().enumerate().skip(from.run).take_while(move |(run, _)| *run <= to.run);
        runs.flat_map(move |(run, paths)| {
            let start = if run == from.run { from.at } else { 0 };
            let end = if run == to.run { to.at } else { paths.len() };
            &paths[start..end]
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::tree::Entry;
    use crate::tree::nodes::Nodes;

    fn inode() -> Inode {
        Nodes::default().add(Entry::dir(0o755))
    }

    fn check(paths: &Paths, expected: &BTreeMap<TreePath, Inode>) {
        assert!(paths.iter().map(|(path, _)| path).eq(expected.keys()));
        assert_eq!(paths.len(), expected.len());
        assert!(paths.runs.iter().all(|run| (1..=RUN_MAX).contains(&run.len())));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn paths_are_in_their_order_however_they_came_and_went_and_a_copy_stays_as_it_was(
            begin in 0u16..600,
            steps in proptest::collection::vec((0u16..700, 1u16..200, any::<bool>()), 1..12),
            ends in (0u16..700, 0u16..700),
        ) {
            let path = |number: u16| TreePath::parse(format!("{number:03}")).unwrap();
            let mut expected: BTreeMap<_, _> = (0..begin).map(|number| (path(number), inode())).collect();
            let mut paths = Paths::of_sorted(expected.clone().into_iter().collect());
            check(&paths, &expected);
            for (first, count, put) in steps {
                let (copy, before) = (paths.clone(), expected.clone());
                for path in (first..first + count).map(path) {
                    match paths.find(path.as_bytes()) {
                        Err(place) if put => {
                            paths.insert(place, (path.clone(), inode()));
                            expected.insert(path, inode());
                        }
                        Ok(place) if !put => {
                            prop_assert_eq!(&paths.remove(place).0, &path);
                            expected.remove(&path);
                        }
                        _ => {}
                    }
                }
                check(&paths, &expected);
                check(&copy, &before);
            }
            let (low, high) = (path(ends.0.min(ends.1)), path(ends.0.max(ends.1)));
            let found = paths.between(low.as_bytes(), Some(high.as_bytes())).map(|(path, _)| path);
            prop_assert!(found.eq(expected.range(low.clone()..high).map(|(path, _)| path)));
            let found = paths.between(low.as_bytes(), None).map(|(path, _)| path);
            prop_assert!(found.eq(expected.range(low..).map(|(path, _)| path)));
        }
    }
}
