//! The instances of one slot.

use std::fmt;
use std::ops::Deref;

use kiln_model::InstanceId;

/// As many as a slot has in all but the oddest moments: what serves, what takes over, and what is kept warm or goes.
const FEW: usize = 3;

/// The instances of one slot, the oldest first. A few lie in the slot itself: it is copied whenever one comes or goes, for each
/// of the thousands that a rollout may create at once.
#[derive(Clone)]
pub struct Occupants(Place);

#[derive(Clone)]
enum Place {
    /// The first so many; what is behind them means nothing.
    Few([InstanceId; FEW], u8),
    Many(Vec<InstanceId>),
}

impl Default for Occupants {
    fn default() -> Self {
        Self(Place::Few([InstanceId::from_seed(0); FEW], 0))
    }
}

impl Occupants {
    /// Adds the youngest.
    pub(crate) fn push(&mut self, id: InstanceId) {
        match &mut self.0 {
            Place::Few(ids, count) if usize::from(*count) < FEW => {
                ids[usize::from(*count)] = id;
                *count += 1;
            }
            Place::Few(ids, _) => {
                let mut many = ids.to_vec();
                many.push(id);
                self.0 = Place::Many(many);
            }
            Place::Many(ids) => ids.push(id),
        }
    }

    /// Removes one of them.
    pub(crate) fn remove(&mut self, id: InstanceId) {
        *self = self.iter().copied().filter(|other| *other != id).collect();
    }
}

impl Deref for Occupants {
    type Target = [InstanceId];

    fn deref(&self) -> &[InstanceId] {
        match &self.0 {
            Place::Few(ids, count) => &ids[..usize::from(*count)],
            Place::Many(ids) => ids,
        }
    }
}

impl FromIterator<InstanceId> for Occupants {
    fn from_iter<I: IntoIterator<Item = InstanceId>>(ids: I) -> Self {
        let mut all = Self::default();
        ids.into_iter().for_each(|id| all.push(id));
        all
    }
}

impl<'a> IntoIterator for &'a Occupants {
    type Item = &'a InstanceId;
    type IntoIter = std::slice::Iter<'a, InstanceId>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for Occupants {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Occupants {}

impl fmt::Debug for Occupants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_a_list_however_many_there_are() {
        let ids: Vec<InstanceId> = (1..8).map(InstanceId::from_seed).collect();
        for count in 0..ids.len() {
            let mut all: Occupants = ids[..count].iter().copied().collect();
            assert_eq!(*all, ids[..count]);
            all.remove(ids[1]);
            let left: Vec<InstanceId> = ids[..count].iter().copied().filter(|id| *id != ids[1]).collect();
            assert_eq!(*all, left[..]);
            all.push(ids[1]);
            assert_eq!(all.last(), Some(&ids[1]));
        }
    }
}
