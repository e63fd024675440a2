//! The waves of a rolling service.

use kiln_model::Millis;
use kiln_model::service::{WaveSize, Waves};
use serde::{Deserialize, Serialize};

use super::canary::PerMille;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WavesWire {
    sizes: Vec<WaveSizeWire>,
    soak_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum WaveSizeWire {
    Count(u32),
    Share(PerMille),
}

impl From<&Waves> for WavesWire {
    fn from(waves: &Waves) -> Self {
        let size = |size: &WaveSize| match size {
            WaveSize::Count(count) => WaveSizeWire::Count(*count),
            WaveSize::Share(share) => WaveSizeWire::Share(PerMille(*share)),
        };
        Self { sizes: waves.sizes.iter().map(size).collect(), soak_ms: waves.soak.0 }
    }
}

impl From<WavesWire> for Waves {
    fn from(wire: WavesWire) -> Self {
        let size = |size: WaveSizeWire| match size {
            WaveSizeWire::Count(count) => WaveSize::Count(count),
            WaveSizeWire::Share(share) => WaveSize::Share(share.0),
        };
        Self { sizes: wire.sizes.into_iter().map(size).collect(), soak: Millis(wire.soak_ms) }
    }
}
