//! The bound of what RUN steps keep between bakes.

use kiln_bake::{CacheFolder, CacheFolders};

use super::{Collector, CollectorError};
use crate::api::wire;

impl Collector {
    /// The caches that are beyond the bound of one or of all, the longest unused first.
    pub(super) fn caches_beyond(&self) -> Result<Vec<CacheFolder>, CollectorError> {
        let folders = CacheFolders::of(&self.store);
        let found = folders.bounds().and_then(|bounds| Ok(bounds.beyond(&folders.list()?)));
        found.map_err(CollectorError::Caches)
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
