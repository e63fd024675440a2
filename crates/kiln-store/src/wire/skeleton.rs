//! What was added to a tree so that it can be mounted over.

use serde::{Deserialize, Serialize};

use super::Bytes;
use crate::skeleton::{Change, Skeleton};
use crate::tree::{Entry, Kind, Meta, Mtime, TreePath};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SkeletonWire {
    format: SkeletonFormat,
    added: Vec<ChangeWire>,
}

/// Names the format within the bytes.
#[derive(Serialize, Deserialize)]
enum SkeletonFormat {
    #[serde(rename = "kiln.skeleton/1")]
    V1,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeWire {
    path: Bytes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replaced: Option<LinkWire>,
}

/// A symlink: nothing else is ever replaced.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkWire {
    target: Bytes,
    mode: u16,
    uid: u32,
    gid: u32,
    secs: i64,
    nanos: u32,
    xattrs: Vec<(Bytes, Bytes)>,
}

impl From<&Skeleton> for SkeletonWire {
    fn from(skeleton: &Skeleton) -> Self {
        let change = |change: &Change| ChangeWire {
            path: Bytes(change.path.as_bytes().to_vec()),
            replaced: change.replaced.as_ref().and_then(link_of),
        };
        Self { format: SkeletonFormat::V1, added: skeleton.changes.iter().map(change).collect() }
    }
}

fn link_of(entry: &Entry) -> Option<LinkWire> {
    let Kind::Symlink { target } = &entry.kind else { return None };
    let meta = &entry.meta;
    Some(LinkWire {
        target: Bytes(target.clone()),
        mode: meta.mode,
        uid: meta.uid,
        gid: meta.gid,
        secs: meta.mtime.secs,
        nanos: meta.mtime.nanos,
        xattrs: meta.xattrs.iter().map(|(name, value)| (Bytes(name.clone()), Bytes(value.clone()))).collect(),
    })
}

impl TryFrom<SkeletonWire> for Skeleton {
    type Error = String;

    fn try_from(wire: SkeletonWire) -> Result<Self, String> {
        let SkeletonFormat::V1 = wire.format;
        let link = |link: LinkWire| Entry {
            meta: Meta {
                mode: link.mode,
                uid: link.uid,
                gid: link.gid,
                mtime: Mtime { secs: link.secs, nanos: link.nanos },
                xattrs: link.xattrs.into_iter().map(|(name, value)| (name.0, value.0)).collect(),
            },
            kind: Kind::Symlink { target: link.target.0 },
        };
        let change = |wire: ChangeWire| {
            let path = TreePath::parse(&wire.path.0).map_err(|error| error.to_string())?;
            Ok(Change { path, replaced: wire.replaced.map(link) })
        };
        Ok(Self { changes: wire.added.into_iter().map(change).collect::<Result<_, String>>()? })
    }
}
