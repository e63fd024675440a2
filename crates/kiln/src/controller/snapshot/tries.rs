//! The attempts of a step.

use kiln_core::state::Tries;
use kiln_model::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TriesWire {
    failed: u32,
    passed: bool,
    last: String,
    due: u64,
}

impl TriesWire {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl From<&Tries> for TriesWire {
    fn from(Tries { failed, passed, last, due }: &Tries) -> Self {
        Self { failed: *failed, passed: *passed, last: last.to_string(), due: due.0 }
    }
}

impl From<TriesWire> for Tries {
    fn from(TriesWire { failed, passed, last, due }: TriesWire) -> Self {
        Self { failed, passed, last: last.as_str().into(), due: Timestamp(due) }
    }
}
