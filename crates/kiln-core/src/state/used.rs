//! Every instance id that was ever given out.

use std::sync::Arc;

use kiln_model::InstanceId;

/// Every instance id that the log ever named, so that none is used twice: the host keeps tombstones under them.
///
/// Sorted runs, each at least twice as long as the next, merged as they grow: a clone copies a few pointers, an insertion
/// costs a constant on average, and an id takes its ten bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct UsedIds {
    runs: Vec<Arc<[InstanceId]>>,
}

impl UsedIds {
    /// Whether `id` was ever given out.
    pub(crate) fn contains(&self, id: InstanceId) -> bool {
        self.runs.iter().any(|run| run.binary_search(&id).is_ok())
    }

    /// Remembers `id`; false if it was known.
    pub(crate) fn insert(&mut self, id: InstanceId) -> bool {
        if self.contains(id) {
            return false;
        }
        let mut last = vec![id];
        while let Some(run) = self.runs.pop_if(|run| run.len() < 2 * last.len()) {
            last.extend_from_slice(&run);
        }
        last.sort_unstable();
        self.runs.push(last.into());
        true
    }

    /// All of them, in no order that means anything.
    pub(crate) fn iter(&self) -> impl Iterator<Item = InstanceId> + '_ {
        self.runs.iter().flat_map(|run| run.iter().copied())
    }

    fn len(&self) -> usize {
        self.runs.iter().map(|run| run.len()).sum()
    }
}

impl FromIterator<InstanceId> for UsedIds {
    fn from_iter<I: IntoIterator<Item = InstanceId>>(ids: I) -> Self {
        let mut run: Vec<InstanceId> = ids.into_iter().collect();
        run.sort_unstable();
        run.dedup();
        Self { runs: if run.is_empty() { Vec::new() } else { vec![run.into()] } }
    }
}

impl PartialEq for UsedIds {
    fn eq(&self, other: &Self) -> bool {
        // Where the runs break depends on history, which is no part of the value; equal histories break alike.
        self.runs == other.runs || (self.len() == other.len() && self.iter().all(|id| other.contains(id)))
    }
}

impl Eq for UsedIds {}

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
        assert!(used.runs.len() < 14, "{} runs", used.runs.len());
    }
}
