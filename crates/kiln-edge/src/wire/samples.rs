//! The counts for an analysis, as they are answered.

use std::collections::BTreeMap;

use kiln_model::route::Group;
use kiln_model::sample::{GroupSamples, MirrorSamples, WindowSamples};
use serde::{Deserialize, Serialize};

use super::{WireError, wrong};

/// The counts of a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SamplesWire {
    /// The layout of buckets, as only equal ones can be compared; 1 is that of [`kiln_model::latency`].
    layout: u32,
    groups: BTreeMap<String, GroupSamplesWire>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct GroupSamplesWire {
    ok: u64,
    client_error: u64,
    server_error: u64,
    lost: u64,
    broken: u64,
    left: u64,
    /// Bucket and count, without the empty ones.
    latency: Vec<(usize, u64)>,
    #[serde(default, skip_serializing_if = "is_none")]
    synthetic: u64,
    #[serde(default, skip_serializing_if = "MirrorSamplesWire::is_empty")]
    mirror: MirrorSamplesWire,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct MirrorSamplesWire {
    answered: u64,
    differed: u64,
    lost: u64,
    skipped: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

impl MirrorSamplesWire {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl From<MirrorSamples> for MirrorSamplesWire {
    fn from(MirrorSamples { answered, differed, lost, skipped }: MirrorSamples) -> Self {
        Self { answered, differed, lost, skipped }
    }
}

impl From<MirrorSamplesWire> for MirrorSamples {
    fn from(MirrorSamplesWire { answered, differed, lost, skipped }: MirrorSamplesWire) -> Self {
        Self { answered, differed, lost, skipped }
    }
}

/// The layout of [`kiln_model::latency`].
const LAYOUT: u32 = 1;

impl From<WindowSamples> for SamplesWire {
    fn from(samples: WindowSamples) -> Self {
        let group = |(group, samples): (Group, GroupSamples)| {
            let GroupSamples {
                ok,
                client_error,
                server_error,
                lost,
                broken,
                left,
                latency,
                synthetic,
                mirror,
            } = samples;
            let wire = GroupSamplesWire {
                ok,
                client_error,
                server_error,
                lost,
                broken,
                left,
                latency: latency.into_iter().collect(),
                synthetic,
                mirror: mirror.into(),
            };
            (group.to_string(), wire)
        };
        Self { layout: LAYOUT, groups: samples.into_iter().map(group).collect() }
    }
}

impl SamplesWire {
    pub(crate) fn into_model(self) -> Result<WindowSamples, WireError> {
        if self.layout != LAYOUT {
            return Err(WireError(format!("latencies in layout {} are not understood", self.layout)));
        }
        let group = |(group, wire): (String, GroupSamplesWire)| {
            let samples = GroupSamples {
                ok: wire.ok,
                client_error: wire.client_error,
                server_error: wire.server_error,
                lost: wire.lost,
                broken: wire.broken,
                left: wire.left,
                latency: wire.latency.into_iter().collect(),
                synthetic: wire.synthetic,
                mirror: wire.mirror.into(),
            };
            Ok((group.parse().map_err(wrong)?, samples))
        };
        self.groups.into_iter().map(group).collect()
    }
}
