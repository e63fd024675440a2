//! What the edge keeps for the controller: where the log stood. It is opaque to the edge, and outlives both.

use std::path::Path;

use kiln_model::Timestamp;

use crate::persist::read_anchor;
use crate::wire::AnchorWire;

/// Where the log stood, in the words of the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// The position.
    pub position: String,
    /// The hash.
    pub hash: String,
    /// When the edge stored it; none in what it is given.
    pub at: Option<Timestamp>,
}

/// The file of an anchor is there and can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the edge's anchor can't be read: {0}")]
pub struct UnreadableAnchor(String);

/// Reads the anchor that was stored last from the edge's folder, whether or not the edge runs.
///
/// # Errors
/// There is one, and it can't be read.
pub fn stored(state_dir: &Path) -> Result<Option<Anchor>, UnreadableAnchor> {
    let wire = read_anchor(&state_dir.join("edge")).map_err(UnreadableAnchor)?;
    Ok(wire.map(Anchor::from))
}

impl From<AnchorWire> for Anchor {
    fn from(wire: AnchorWire) -> Self {
        Self { position: wire.position, hash: wire.hash, at: wire.at_ms.map(Timestamp) }
    }
}
