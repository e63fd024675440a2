//! Snapshots of stack folders.

use kiln_model::Digest;
use serde::{Deserialize, Serialize};

use super::{Bytes, Text};
use crate::snapshot::{Snapshot, SnapshotFile, SnapshotKind};
use crate::tree::TreePath;

/// Names the format within the bytes, so that a blob of another kind is never taken for it.
#[derive(Serialize, Deserialize)]
enum SnapshotFormat {
    #[serde(rename = "kiln.snapshot/1")]
    V1,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SnapshotWire {
    format: SnapshotFormat,
    files: Vec<FileWire>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileWire {
    path: Bytes,
    mode: u16,
    kind: KindWire,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum KindWire {
    File { digest: Text<Digest>, size: u64 },
    Symlink { target: Bytes },
    Dir,
}

impl From<&Snapshot> for SnapshotWire {
    fn from(snapshot: &Snapshot) -> Self {
        let file = |file: &SnapshotFile| FileWire {
            path: Bytes(file.path.as_bytes().to_vec()),
            mode: file.mode,
            kind: match &file.kind {
                SnapshotKind::File { digest, size } => KindWire::File { digest: Text(*digest), size: *size },
                SnapshotKind::Symlink { target } => KindWire::Symlink { target: Bytes(target.clone()) },
                SnapshotKind::Dir => KindWire::Dir,
            },
        };
        Self { format: SnapshotFormat::V1, files: snapshot.files.iter().map(file).collect() }
    }
}

impl TryFrom<SnapshotWire> for Snapshot {
    type Error = String;

    fn try_from(wire: SnapshotWire) -> Result<Self, String> {
        let SnapshotFormat::V1 = wire.format;
        let file = |file: FileWire| {
            Ok(SnapshotFile {
                path: TreePath::parse(&file.path.0).map_err(|error| error.to_string())?,
                mode: file.mode,
                kind: match file.kind {
                    KindWire::File { digest, size } => SnapshotKind::File { digest: digest.0, size },
                    KindWire::Symlink { target } => SnapshotKind::Symlink { target: target.0 },
                    KindWire::Dir => SnapshotKind::Dir,
                },
            })
        };
        Ok(Self { files: wire.files.into_iter().map(file).collect::<Result<_, String>>()? })
    }
}
