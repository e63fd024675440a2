//! Calling off what runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Calls off a lock or a bake from another thread; a clone is the same switch.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Calls it off: what runs ends soon with `Cancelled`, and leaves nothing half-visible.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Tells whether it was called off.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
