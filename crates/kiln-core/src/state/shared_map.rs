//! An ordered map whose clones share what they have in common.
//!
//! The controller decides against speculative clones of the state, one per batch and one per decision, so a clone must
//! cost next to nothing and a change must not copy what it does not touch. A sorted run of chunks behind `Arc` gives both
//! with a page of code; a persistent tree would give better bounds beyond a million entries, which a Kiln never has.

use std::fmt;
use std::sync::Arc;

/// Large enough that a map of 10,000 entries has a few hundred chunks, small enough that copying one takes under a
/// microsecond.
const CHUNK_MAX: usize = 64;

/// One sorted, non-empty run of entries.
type Chunk<K, V> = Arc<Vec<(K, V)>>;

/// An ordered map in chunks.
#[derive(Clone)]
pub struct SharedMap<K, V> {
    chunks: Arc<Vec<Chunk<K, V>>>,
    len: usize,
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self { chunks: Arc::default(), len: 0 }
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
        let chunk = self.chunks.get(self.chunk_of(key)?)?;
        chunk.binary_search_by(|(k, _)| k.cmp(key)).ok().map(|at| &chunk[at].1)
    }

    /// Whether `key` has a value.
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Returns the value of `key` for changing it; copies its chunk if a clone shares it.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let index = self.chunk_of(key)?;
        let at = self.chunks[index].binary_search_by(|(k, _)| k.cmp(key)).ok()?;
        let chunk = Arc::make_mut(&mut Arc::make_mut(&mut self.chunks)[index]);
        Some(&mut chunk[at].1)
    }

    /// Sets the value of `key` and returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let index = self.chunk_of(&key);
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(index) = index else {
            // Smaller than all there are, or the first of all.
            match chunks.first_mut() {
                Some(first) if first.len() < CHUNK_MAX => Arc::make_mut(first).insert(0, (key, value)),
                _ => chunks.insert(0, Arc::new(vec![(key, value)])),
            }
            self.len += 1;
            return None;
        };
        let chunk = Arc::make_mut(&mut chunks[index]);
        match chunk.binary_search_by(|(k, _)| k.cmp(&key)) {
            Ok(at) => return Some(std::mem::replace(&mut chunk[at].1, value)),
            Err(at) => chunk.insert(at, (key, value)),
        }
        if chunk.len() > CHUNK_MAX {
            let upper = chunk.split_off(CHUNK_MAX / 2);
            chunks.insert(index + 1, Arc::new(upper));
        }
        self.len += 1;
        None
    }

    /// Removes `key` and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let index = self.chunk_of(key)?;
        let at = self.chunks[index].binary_search_by(|(k, _)| k.cmp(key)).ok()?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(&mut chunks[index]);
        let (_, value) = chunk.remove(at);
        if chunk.is_empty() {
            chunks.remove(index);
        }
        self.len -= 1;
        Some(value)
    }

    /// Returns the entries in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> + Clone {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).map(|(key, value)| (key, value))
    }

    /// Returns the keys in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    /// Returns the values in the order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }

    /// Returns the values for changing them; copies every chunk that a clone shares.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        let chunks = Arc::make_mut(&mut self.chunks).iter_mut();
        chunks.flat_map(|chunk| Arc::make_mut(chunk).iter_mut()).map(|(_, value)| value)
    }

    /// The chunk that holds `key` if any does; none if it is smaller than all keys.
    fn chunk_of(&self, key: &K) -> Option<usize> {
        self.chunks.partition_point(|chunk| chunk[0].0 <= *key).checked_sub(1)
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        // Where the chunks break depends on history, which is no part of the value.
        self.len == other.len && (Arc::ptr_eq(&self.chunks, &other.chunks) || self.iter().eq(other.iter()))
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
        fn it_behaves_like_an_ordered_map(changes in prop::collection::vec((0u16..500, prop::option::of(any::<u8>())), 0..800)) {
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
