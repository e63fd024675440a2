//! The bound of what RUN steps keep between bakes.

use kiln_bake::{CacheFolder, CacheFolders};

use super::{Collector, CollectorError, Round};
use crate::api::wire;

impl Collector {
    /// Whether caches are beyond their bound by what was stored since this was last asked. Only bakes make them grow, and measuring them
    /// reads every folder in them.
    pub(super) fn have_caches_grown(&mut self) -> Result<bool, CollectorError> {
        if !self.store.leases.holders().is_empty() {
            return Ok(false);
        }
        let changed = self.store.leases.changed().map_err(CollectorError::Caches)?;
        if self.idle_since == Some(changed) {
            return Ok(false);
        }
        let have_grown = !self.caches_beyond()?.is_empty();
        if !have_grown {
            self.idle_since = Some(changed);
        }
        Ok(have_grown)
    }

    /// The caches that are beyond the bound of one or of all, the longest unused first.
    pub(super) fn caches_beyond(&self) -> Result<Vec<CacheFolder>, CollectorError> {
        let folders = CacheFolders::of(&self.store);
        let found = folders.bounds().and_then(|bounds| Ok(bounds.beyond(&folders.list()?)));
        found.map_err(CollectorError::Caches)
    }

    /// Removes those, and what an earlier removal was killed at.
    pub(super) fn remove_caches(&self, round: &Round) -> Result<Vec<CacheFolder>, CollectorError> {
        let beyond = self.caches_beyond()?;
        CacheFolders::of(&self.store).remove(&round.begun, &beyond).map_err(CollectorError::Caches)
    }
}

/// More of a name is none that a person gave.
const ID_CHARS_MAX: usize = 200;

/// A cache in the words of the API. Its name is whatever a Dockerfile says, and is shown on terminals.
pub(super) fn told(cache: CacheFolder) -> wire::CollectedCache {
    let shown = |it: char| if it.is_control() { char::REPLACEMENT_CHARACTER } else { it };
    wire::CollectedCache {
        id: cache.id.chars().take(ID_CHARS_MAX).map(shown).collect(),
        size_bytes: cache.bytes,
    }
}
