//! Calling off what runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Calls off a lock or a bake from another thread; a clone is the same switch.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    own: Arc<AtomicBool>,
    outer: Option<Arc<Cancel>>,
}

impl Cancel {
    /// Calls it off: what runs ends soon with `Cancelled`, and leaves nothing half-visible.
    pub fn set(&self) {
        self.own.store(true, Ordering::Relaxed);
    }

    /// Tells whether it was called off.
    pub fn is_set(&self) -> bool {
        self.own.load(Ordering::Relaxed) || self.outer.as_ref().is_some_and(|outer| outer.is_set())
    }

    /// Returns a switch for a part: it is set with this one, and this one is not set with it.
    pub(crate) fn part(&self) -> Self {
        Self { own: Arc::default(), outer: Some(Arc::new(self.clone())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_called_off_with_the_whole_and_not_the_whole_with_a_part() {
        let whole = Cancel::default();
        let (one, other) = (whole.part(), whole.part());
        one.set();
        assert!(one.is_set() && !other.is_set() && !whole.is_set());
        whole.set();
        assert!(other.is_set());
    }
}
