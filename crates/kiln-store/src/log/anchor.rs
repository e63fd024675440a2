//! Anchors: what others remember of the log's head, kept in a file of its own, so that whoever cuts or rewrites the
//! database has to find it too.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use kiln_model::{Digest, Position};
use serde::{Deserialize, Serialize};

use super::{Head, OpenLogError};
use crate::error::PutError;
use crate::shelf::{replace_file, sweep};
use crate::wire::{Text, to_json};

/// What somebody else remembers of the log's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// Who: `host`, `edge`, a receipt.
    pub who: String,
    /// What.
    pub head: Head,
}

#[derive(Debug)]
pub(super) struct Anchors {
    folder: PathBuf,
    by_holder: BTreeMap<String, Head>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnchorWire {
    position: u64,
    hash: Text<Digest>,
}

impl Anchors {
    pub(super) fn open(folder: &Path) -> Result<Self, OpenLogError> {
        let failed = |source| OpenLogError::Io { folder: folder.into(), source };
        let bytes = match fs::read(folder.join("anchors.json")) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => b"{}".to_vec(),
            Err(error) => return Err(failed(error)),
        };
        let wire: BTreeMap<String, AnchorWire> = serde_json::from_slice(&bytes).map_err(|error| {
            failed(io::Error::new(ErrorKind::InvalidData, format!("anchors.json: {error}")))
        })?;
        let head = |wire: AnchorWire| Head { position: Position(wire.position), hash: wire.hash.0 };
        let by_holder = wire.into_iter().map(|(who, wire)| (who, head(wire))).collect();
        Ok(Self { folder: folder.into(), by_holder })
    }

    pub(super) fn record(&mut self, who: &str, head: Head) -> Result<(), PutError> {
        if self.by_holder.get(who) == Some(&head) {
            return Ok(());
        }
        let mut changed = self.by_holder.clone();
        changed.insert(who.into(), head);
        let wire = |head: &Head| AnchorWire { position: head.position.0, hash: Text(head.hash) };
        let file: BTreeMap<_, _> = changed.iter().map(|(who, head)| (who, wire(head))).collect();
        let tmp = self.folder.join("tmp");
        fs::create_dir_all(&tmp).map_err(PutError::at(&tmp))?;
        sweep(&tmp).map_err(PutError::at(&tmp))?;
        replace_file(&self.folder.join("anchors.json"), &tmp, &to_json(&file))?;
        self.by_holder = changed;
        Ok(())
    }

    pub(super) fn all(&self) -> Vec<Anchor> {
        self.by_holder.iter().map(|(who, head)| Anchor { who: who.clone(), head: *head }).collect()
    }
}
