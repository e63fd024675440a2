//! What was predicted of a rollout.

use kiln_model::forecast::{Extra, Forecast};
use kiln_model::{ByteSize, Millis};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExtraWire {
    memory_bytes: u64,
    unlimited: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ForecastWire {
    Unknown(String),
    Known {
        total_ms: u64,
        steps_ms: Vec<Option<u64>>,
        extra: ExtraWire,
        approvals: u32,
        goes_back: Option<String>,
    },
}

impl From<Extra> for ExtraWire {
    fn from(Extra { memory, unlimited }: Extra) -> Self {
        Self { memory_bytes: memory.0, unlimited }
    }
}

impl ExtraWire {
    pub(crate) const fn into_model(self) -> Extra {
        Extra { memory: ByteSize(self.memory_bytes), unlimited: self.unlimited }
    }
}

impl From<&Result<Forecast, String>> for ForecastWire {
    fn from(forecast: &Result<Forecast, String>) -> Self {
        match forecast {
            Err(why) => Self::Unknown(why.clone()),
            Ok(Forecast { total, steps, extra, approvals, goes_back }) => Self::Known {
                total_ms: total.0,
                steps_ms: steps.iter().map(|took| took.map(|took| took.0)).collect(),
                extra: (*extra).into(),
                approvals: *approvals,
                goes_back: goes_back.clone(),
            },
        }
    }
}

impl ForecastWire {
    pub(crate) fn into_model(self) -> Result<Forecast, String> {
        match self {
            Self::Unknown(why) => Err(why),
            Self::Known { total_ms, steps_ms, extra, approvals, goes_back } => Ok(Forecast {
                total: Millis(total_ms),
                steps: steps_ms.into_iter().map(|took| took.map(Millis)).collect(),
                extra: extra.into_model(),
                approvals,
                goes_back,
            }),
        }
    }
}
