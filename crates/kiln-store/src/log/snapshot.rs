//! Snapshots: what the log up to a position folds to. A convenience: each can be made again from the log.
//!
//! ```text
//! STATE/log/snapshots/POSITION    one line of JSON: format, position, hash of the log there, sha256 of the rest; the rest
//! ```
//!
//! They are files beside the database, not rows in it, so that writing a large one holds up no append.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_model::{Digest, Position};
use serde::{Deserialize, Serialize};

use super::{EventLog, Head, row};
use crate::error::PutError;
use crate::shelf::{replace_file, sha256, sweep};
use crate::wire::{Text, to_json};

/// The one before the last is kept too, for when the last one turns out to be damaged.
const SNAPSHOTS_KEPT: usize = 2;

/// A state of 10,000 services with ten revisions each takes a few dozen MiB; more than this was not written by Kiln.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

/// Where a log's snapshots are kept. Cheap to clone, and may be used from another thread than the log.
#[derive(Debug, Clone)]
pub struct LogSnapshots {
    folder: Arc<Path>,
}

/// A snapshot that is whole and belongs to the log that it was read with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSnapshot {
    /// The position up to which the log was folded.
    pub position: Position,
    /// What it folded to, as it was saved.
    pub bytes: Vec<u8>,
}

/// A snapshot that is there and can't be used: the log is folded without it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot {} is passed over: {reason}", .path.display())]
pub struct PassedOver {
    /// Its file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// Names the format within the bytes.
#[derive(Serialize, Deserialize)]
enum Format {
    #[serde(rename = "kiln.log-snapshot/1")]
    V1,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: Format,
    position: u64,
    log_hash: Text<Digest>,
    sha256: Text<Digest>,
}

impl LogSnapshots {
    pub(super) fn new(log: &Path) -> Self {
        Self { folder: log.join("snapshots").into() }
    }

    /// Saves what the log up to `head` folds to, so that a start need not fold all of it. Older ones are dropped, and so are
    /// later ones: a log that is at `head` did not make them.
    ///
    /// # Errors
    /// See [`PutError`]; failing is harmless.
    pub fn save(&self, head: Head, bytes: &[u8]) -> Result<(), PutError> {
        let tmp = self.folder.join("tmp");
        fs::create_dir_all(&tmp).map_err(PutError::at(&tmp))?;
        sweep(&tmp).map_err(PutError::at(&tmp))?;
        replace_file(&self.path_of(head.position), &tmp, &file_bytes(head, bytes))?;
        let (foreign, own): (Vec<_>, Vec<_>) =
            self.positions().into_iter().partition(|position| *position > head.position);
        for position in foreign.into_iter().chain(own.into_iter().skip(SNAPSHOTS_KEPT)) {
            let path = self.path_of(position);
            fs::remove_file(&path).map_err(PutError::at(&path))?;
        }
        Ok(())
    }

    /// The positions of what is there, the latest first.
    fn positions(&self) -> Vec<Position> {
        // Unreadable is as good as absent: the log is folded from its first entry.
        let files = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let number = |file: fs::DirEntry| file.file_name().to_str()?.parse().ok().map(Position);
        let mut positions: Vec<Position> = files.filter_map(number).collect();
        positions.sort_unstable_by(|a, b| b.cmp(a));
        positions
    }

    fn path_of(&self, position: Position) -> PathBuf {
        // As wide as the largest number, so that a listing is in order.
        self.folder.join(format!("{:020}", position.0))
    }

    fn read(&self, position: Position) -> Result<(Head, Vec<u8>), String> {
        let path = self.path_of(position);
        let failed = |error: io::Error| format!("it can't be read: {error}");
        let size = fs::metadata(&path).map_err(failed)?.len();
        if size > SNAPSHOT_BYTES_MAX {
            return Err(format!("it has {size} bytes, more than a snapshot may have"));
        }
        let mut bytes = fs::read(&path).map_err(failed)?;
        let line = bytes.iter().position(|byte| *byte == b'\n').ok_or("it has no header")?;
        let header: Header = serde_json::from_slice(&bytes[..line])
            .map_err(|error| format!("its header is not one of this version: {error}"))?;
        bytes.drain(..=line);
        let Header { format: Format::V1, position: of, log_hash, sha256: expected } = header;
        if Position(of) != position || sha256(&bytes) != expected.0 {
            return Err("its bytes are not those that were saved".into());
        }
        Ok((Head { position, hash: log_hash.0 }, bytes))
    }
}

/// Snapshots.
impl EventLog {
    /// Returns where snapshots of this log are kept.
    pub fn snapshots(&self) -> LogSnapshots {
        LogSnapshots::new(&self.folder)
    }

    /// Reads the snapshots, the latest first, until the caller is content with one. What is damaged, or was made of another
    /// log than this one, says so.
    pub fn saved(&self) -> impl Iterator<Item = Result<LogSnapshot, PassedOver>> + use<'_> {
        let snapshots = self.snapshots();
        let positions = snapshots.positions();
        positions.into_iter().map(move |position| {
            let passed_over = |reason| PassedOver { path: snapshots.path_of(position), reason };
            let (head, bytes) = snapshots.read(position).map_err(passed_over)?;
            match row::hash_at(&self.database, position.0) {
                Ok(Some(hash)) if hash == head.hash => Ok(LogSnapshot { position, bytes }),
                Ok(_) => Err(passed_over(format!("the log has another entry at {position}, or none"))),
                Err(error) => Err(passed_over(error.to_string())),
            }
        })
    }
}

fn file_bytes(head: Head, bytes: &[u8]) -> Vec<u8> {
    let header = Header {
        format: Format::V1,
        position: head.position.0,
        log_hash: Text(head.hash),
        sha256: Text(sha256(bytes)),
    };
    [to_json(&header), b"\n".to_vec(), bytes.to_vec()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_what_it_always_was() {
        let head = Head { position: Position(7), hash: Digest::new([0x11; 32]) };
        let expected = concat!(
            r#"{"format":"kiln.log-snapshot/1","position":7,"#,
            r#""log_hash":"sha256:1111111111111111111111111111111111111111111111111111111111111111","#,
            r#""sha256":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#,
            "\n",
        );
        assert_eq!(String::from_utf8(file_bytes(head, b"")).unwrap(), expected);
    }
}
