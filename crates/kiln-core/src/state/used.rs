//! Every instance id that was ever given out.

use kiln_model::InstanceId;

use super::shared_map::SharedMap;

/// Every instance id that the log ever named, so that none is used twice: the host keeps tombstones under them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UsedIds {
    ids: SharedMap<InstanceId, ()>,
}

impl UsedIds {
    /// Whether `id` was ever given out.
    pub(crate) fn contains(&self, id: InstanceId) -> bool {
        self.ids.contains_key(&id)
    }

    /// Remembers `id`; false if it was known.
    pub(crate) fn insert(&mut self, id: InstanceId) -> bool {
        self.ids.insert(id, ()).is_none()
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = InstanceId> + '_ {
        self.ids.keys().copied()
    }
}

impl FromIterator<InstanceId> for UsedIds {
    fn from_iter<I: IntoIterator<Item = InstanceId>>(ids: I) -> Self {
        let mut sorted: Vec<InstanceId> = ids.into_iter().collect();
        // In order they fill their chunks, and each is put beside the last one.
        sorted.sort_unstable();
        Self { ids: sorted.into_iter().map(|id| (id, ())).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_accepted_once() {
        let mut used = UsedIds::default();
        for seed in 0..5000u64 {
            assert!(used.insert(InstanceId::from_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))));
        }
        assert!(!used.insert(InstanceId::from_seed(17u64.wrapping_mul(0x9e37_79b9_7f4a_7c15))));
    }
}
