//! What the instances of an environment take while a rollout runs.

use kiln_core::state::{Peak, Room};
use kiln_model::ByteSize;
use kiln_model::forecast::Extra;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoomWire {
    memory: PeakWire,
    unlimited: PeakWire,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeakWire {
    start: u64,
    now: u64,
    highest: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExtraWire {
    memory_bytes: u64,
    unlimited: u32,
}

impl From<Room> for RoomWire {
    fn from(Room { memory, unlimited }: Room) -> Self {
        Self { memory: memory.into(), unlimited: unlimited.into() }
    }
}

impl RoomWire {
    pub(super) const fn into_model(self) -> Room {
        Room { memory: self.memory.into_model(), unlimited: self.unlimited.into_model() }
    }
}

impl From<Peak> for PeakWire {
    fn from(Peak { start, now, highest }: Peak) -> Self {
        Self { start, now, highest }
    }
}

impl PeakWire {
    const fn into_model(self) -> Peak {
        Peak { start: self.start, now: self.now, highest: self.highest }
    }
}

impl From<Extra> for ExtraWire {
    fn from(Extra { memory, unlimited }: Extra) -> Self {
        Self { memory_bytes: memory.0, unlimited }
    }
}

impl ExtraWire {
    pub(super) const fn into_model(self) -> Extra {
        Extra { memory: ByteSize(self.memory_bytes), unlimited: self.unlimited }
    }
}
