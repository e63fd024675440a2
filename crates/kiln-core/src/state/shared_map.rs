//! An ordered map whose clones share what they have in common.
//!
//! The controller decides against speculative clones of the state, one per batch and one per decision, so a clone must
//! cost next to nothing and a change must not copy what it does not touch. A sorted run of chunks behind `Arc`, in groups behind
//! `Arc`, gives both with a page of code; a persistent tree would give better bounds beyond millions of entries, which a Kiln
//! never has.

use std::fmt;
use std::sync::Arc;

/// Entries of a chunk: few, for whoever changes one of them counts each of the others once more.
const CHUNK_MAX: usize = 32;

/// Chunks of a group. With as many again of each, a change to one of 100,000 entries copies some 200 pointers.
const GROUP_MAX: usize = 64;

/// One sorted, non-empty run of entries.
type Chunk<K, V> = Arc<Vec<(K, V)>>;

/// Non-empty runs, each with a bound: no key of it is smaller, and all keys of the runs before it are.
type Runs<K, T> = Vec<(K, T)>;

/// Chunks side by side.
type Group<K, V> = Arc<Runs<K, Chunk<K, V>>>;

/// An ordered map in chunks.
#[derive(Clone)]
pub struct SharedMap<K, V> {
    groups: Arc<Runs<K, Group<K, V>>>,
    len: usize,
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self { groups: Arc::default(), len: 0 }
    }
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// Returns how many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        let (_, group) = self.groups.get(run_of(&self.groups, key))?;
        let (_, chunk) = &group[run_of(group, key)];
        chunk.binary_search_by(|(k, _)| k.cmp(key)).ok().map(|at| &chunk[at].1)
    }

    /// Whether `key` has a value.
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Returns the value of `key` for changing it; copies what leads to it if a clone shares that.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.find(key)?;
        Some(&mut self.chunk_mut(at.0, at.1)[at.2].1)
    }

    /// Returns the value of `key` for changing it, and makes it if there is none.
    pub(crate) fn get_or_insert_default(&mut self, key: &K) -> &mut V
    where
        V: Default,
    {
        let at = match self.find(key) {
            Some(at) => at,
            None => {
                self.insert(key.clone(), V::default());
                self.find(key).expect("inserted above")
            }
        };
        &mut self.chunk_mut(at.0, at.1)[at.2].1
    }

    /// Sets the value of `key` and returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let groups = Arc::make_mut(&mut self.groups);
        if groups.is_empty() {
            groups.push((key.clone(), Arc::new(vec![(key.clone(), Arc::new(vec![(key, value)]))])));
            self.len = 1;
            return None;
        }
        let group_at = run_of(groups, &key);
        let chunks = Arc::make_mut(lowered(&mut groups[group_at], &key));
        let chunk_at = run_of(chunks, &key);
        let chunk = unshared(lowered(&mut chunks[chunk_at], &key));
        let at = match chunk.binary_search_by(|(k, _)| k.cmp(&key)) {
            Ok(at) => return Some(std::mem::replace(&mut chunk[at].1, value)),
            Err(at) => at,
        };
        self.len += 1;
        chunk.insert(at, (key, value));
        if let Some(upper) = upper_part(chunk, at, CHUNK_MAX) {
            chunks.insert(chunk_at + 1, (upper[0].0.clone(), Arc::new(upper)));
            if let Some(upper) = upper_part(chunks, chunk_at + 1, GROUP_MAX) {
                groups.insert(group_at + 1, (upper[0].0.clone(), Arc::new(upper)));
            }
        }
        None
    }

    /// Removes `key` and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let (group_at, chunk_at, at) = self.find(key)?;
        let groups = Arc::make_mut(&mut self.groups);
        let chunks = Arc::make_mut(&mut groups[group_at].1);
        let chunk = Arc::make_mut(&mut chunks[chunk_at].1);
        let (_, value) = chunk.remove(at);
        if chunk.is_empty() {
            chunks.remove(chunk_at);
        }
        if chunks.is_empty() {
            groups.remove(group_at);
        }
        self.len -= 1;
        Some(value)
    }

    /// Returns the entries in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> + Clone {
        let chunks = self.groups.iter().flat_map(|(_, group)| group.iter());
        chunks.flat_map(|(_, chunk)| chunk.iter()).map(|(key, value)| (key, value))
    }

    /// Returns the keys in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    /// Returns the values in the order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }

    /// Returns the entries from `first` on for changing their values; copies what it comes to and a clone shares.
    pub(crate) fn range_mut(&mut self, first: &K) -> impl Iterator<Item = (&K, &mut V)> {
        let (group_at, chunk_at, at) = self.lower_bound(first);
        let groups = Arc::make_mut(&mut self.groups).iter_mut().enumerate().skip(group_at);
        let chunks = groups.flat_map(move |(index, (_, group))| {
            let skipped = if index == group_at { chunk_at } else { 0 };
            Arc::make_mut(group).iter_mut().skip(skipped)
        });
        let entries = chunks.enumerate().flat_map(move |(index, (_, chunk))| {
            let skipped = if index == 0 { at } else { 0 };
            Arc::make_mut(chunk).iter_mut().skip(skipped)
        });
        entries.map(|(key, value)| (&*key, value))
    }

    /// Where the first entry is whose key is not smaller: perhaps behind the last one of its chunk.
    fn lower_bound(&self, key: &K) -> (usize, usize, usize) {
        let group_at = run_of(&self.groups, key);
        let Some((_, group)) = self.groups.get(group_at) else { return (0, 0, 0) };
        let chunk_at = run_of(group, key);
        (group_at, chunk_at, group[chunk_at].1.partition_point(|(k, _)| k < key))
    }

    /// Returns the values for changing them; copies everything that a clone shares.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        let groups = Arc::make_mut(&mut self.groups).iter_mut();
        let chunks = groups.flat_map(|(_, group)| Arc::make_mut(group).iter_mut());
        chunks.flat_map(|(_, chunk)| Arc::make_mut(chunk).iter_mut()).map(|(_, value)| value)
    }

    /// Where `key` is.
    fn find(&self, key: &K) -> Option<(usize, usize, usize)> {
        let group_at = run_of(&self.groups, key);
        let (_, group) = self.groups.get(group_at)?;
        let chunk_at = run_of(group, key);
        let at = group[chunk_at].1.binary_search_by(|(k, _)| k.cmp(key)).ok()?;
        Some((group_at, chunk_at, at))
    }

    fn chunk_mut(&mut self, group_at: usize, chunk_at: usize) -> &mut Vec<(K, V)> {
        let group = Arc::make_mut(&mut Arc::make_mut(&mut self.groups)[group_at].1);
        Arc::make_mut(&mut group[chunk_at].1)
    }
}

/// The run that holds `key` if any does; the first one if it is smaller than all keys, and 0 if there is none.
fn run_of<K: Ord, T>(runs: &Runs<K, T>, key: &K) -> usize {
    runs.partition_point(|(bound, _)| bound <= key).saturating_sub(1)
}

/// A run that is to hold `key`: what is smaller than all there is lowers the bound of the first one.
fn lowered<'a, K: Ord + Clone, T>((bound, run): &'a mut (K, T), key: &K) -> &'a mut T {
    if key < bound {
        *bound = key.clone();
    }
    run
}

/// A chunk for adding an entry: with room for it and for as many as there may be, so that it is not moved at each of the next.
fn unshared<K: Clone, V: Clone>(chunk: &mut Chunk<K, V>) -> &mut Vec<(K, V)> {
    if Arc::get_mut(chunk).is_none() {
        let mut copy = Vec::with_capacity(CHUNK_MAX + 1);
        copy.extend_from_slice(chunk);
        *chunk = Arc::new(copy);
    }
    let chunk = Arc::make_mut(chunk);
    chunk.reserve_exact((CHUNK_MAX + 1).saturating_sub(chunk.len()));
    chunk
}

/// Splits what has become too long by an insertion: what grows at its end is left full, anything else in half.
fn upper_part<T>(run: &mut Vec<T>, inserted: usize, max: usize) -> Option<Vec<T>> {
    let is_last = inserted + 1 == run.len();
    (run.len() > max).then(|| run.split_off(if is_last { max } else { max / 2 }))
}

impl<K: Ord + Clone, V: Clone + PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        // Where the chunks break depends on history, which is no part of the value.
        self.len == other.len && (Arc::ptr_eq(&self.groups, &other.groups) || self.iter().eq(other.iter()))
    }
}

impl<K: Ord + Clone, V: Clone + Eq> Eq for SharedMap<K, V> {}

impl<K: Ord + Clone + fmt::Debug, V: Clone + fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_behaves_like_an_ordered_map(changes in prop::collection::vec((0u16..6000, prop::option::weighted(0.8, any::<u8>())), 0..6000)) {
            let (mut map, mut model) = (SharedMap::default(), BTreeMap::new());
            for (key, change) in changes {
                match change {
                    Some(value) => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    None => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                }
                prop_assert_eq!(map.get(&key), model.get(&key));
            }
            prop_assert_eq!(map.len(), model.len());
            prop_assert!(map.iter().eq(model.iter()));
            prop_assert!(map.iter().rev().eq(model.iter().rev()));
        }
    }

    proptest! {
        #[test]
        fn entries_from_a_key_on_are_changed_and_no_others(keys in prop::collection::vec(0u16..6000, 0..4000), first in 0u16..6100) {
            let mut map: SharedMap<u16, u8> = keys.iter().map(|key| (*key, 0)).collect();
            let before = map.clone();
            map.range_mut(&first).for_each(|(_, value)| *value = 1);
            prop_assert!(before.values().all(|value| *value == 0));
            let expected = before.keys().map(|key| (*key, u8::from(*key >= first)));
            prop_assert!(map.iter().map(|(key, value)| (*key, *value)).eq(expected));
        }
    }

    #[test]
    fn a_change_to_a_clone_is_not_seen_by_the_original() {
        let mut map = SharedMap::default();
        for key in 0..1000 {
            map.insert(key, 0);
        }
        let before = map.clone();
        *map.get_mut(&500).unwrap() = 7;
        map.remove(&3);
        assert_eq!((before.get(&500), before.get(&3)), (Some(&0), Some(&0)));
        assert_ne!(map, before);
    }
}
