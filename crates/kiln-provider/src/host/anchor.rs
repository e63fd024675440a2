//! What the host keeps for the controller: where the log stood. Whoever cuts or rewrites the log has to find this, too.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::PoisonError;
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_model::{Digest, Position, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Host, durable};
use crate::port::ProviderError;

/// The version of the file.
const VERSION: u32 = 1;

/// Where the log stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// The position of its last entry.
    pub position: Position,
    /// The hash of its chain up to there.
    pub hash: Digest,
    /// When the host was told.
    pub at: Timestamp,
}

/// The file of an anchor is there and can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the host's anchor can't be read: {0}")]
pub struct UnreadableAnchor(String);

#[derive(Debug, Serialize, Deserialize)]
struct AnchorFile {
    v: u32,
    position: u64,
    hash: String,
    at_ms: u64,
}

/// Reads the anchor that was stored last from the host's folder, whether or not the host runs.
///
/// # Errors
/// There is one, and it can't be read.
pub fn stored_anchor(state_dir: &Path) -> Result<Option<Anchor>, UnreadableAnchor> {
    match fs::read(state_dir.join("host/anchor.json")) {
        Ok(bytes) => parse(&bytes).map(Some).map_err(UnreadableAnchor),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(UnreadableAnchor(error.to_string())),
    }
}

fn parse(bytes: &[u8]) -> Result<Anchor, String> {
    let file: AnchorFile = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if file.v != VERSION {
        return Err(format!("it has version {}, this Kiln knows {VERSION}", file.v));
    }
    let hash = file.hash.parse().map_err(|error: kiln_model::ParseDigestError| error.to_string())?;
    Ok(Anchor { position: Position(file.position), hash, at: Timestamp(file.at_ms) })
}

fn bytes(anchor: &Anchor) -> Vec<u8> {
    let file = AnchorFile {
        v: VERSION,
        position: anchor.position.0,
        hash: anchor.hash.to_string(),
        at_ms: anchor.at.0,
    };
    serde_json::to_vec(&file).expect("a struct of numbers and text is JSON")
}

impl Host {
    /// Stores where the log stands; durable on return.
    ///
    /// # Errors
    /// `Failed`: the disk refuses.
    pub fn put_anchor(&self, position: Position, hash: Digest) -> Result<(), ProviderError> {
        // One at a time: two would share the file's temporary name.
        let _anchoring = self.anchoring.lock().unwrap_or_else(PoisonError::into_inner);
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX));
        let anchor = Anchor { position, hash, at };
        durable::replace(&self.folders.host.join("anchor.json"), &bytes(&anchor))
            .map_err(|error| ProviderError::Failed { reason: format!("cannot store the anchor: {error}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_what_it_always_was_and_a_damaged_one_is_told_of() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("host/anchor.json");
        assert_eq!(stored_anchor(state.path()), Ok(None));
        let anchor = Anchor { position: Position(7), hash: Digest::new([0x11; 32]), at: Timestamp(9) };
        let golden = format!(r#"{{"v":1,"position":7,"hash":"sha256:{}","at_ms":9}}"#, "11".repeat(32));
        assert_eq!(String::from_utf8(bytes(&anchor)).unwrap(), golden);
        fs::create_dir(state.path().join("host")).unwrap();
        fs::write(&path, &golden).unwrap();
        assert_eq!(stored_anchor(state.path()), Ok(Some(anchor)));
        for (from, to) in [("{", ""), (r#""v":1"#, r#""v":2"#), ("sha256", "md5")] {
            fs::write(&path, golden.replacen(from, to, 1)).unwrap();
            assert!(stored_anchor(state.path()).is_err(), "{to}");
        }
    }
}
