//! What a rollout does between its moves.

use kiln_model::interlude::Interludes;
use kiln_model::service::Gate;
use serde::{Deserialize, Serialize};

use super::canary::GateWire;

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct InterludesWire {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    before: Vec<GateWire>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    created: Vec<GateWire>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ready: Vec<GateWire>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    moved: Vec<GateWire>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    drained: Vec<GateWire>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    retired: Vec<GateWire>,
}

impl InterludesWire {
    pub(super) fn is_empty(&self) -> bool {
        let Self { before, created, ready, moved, drained, retired } = self;
        [before, created, ready, moved, drained, retired].into_iter().all(Vec::is_empty)
    }
}

impl From<&Interludes> for InterludesWire {
    fn from(interludes: &Interludes) -> Self {
        let Interludes { before, created, ready, moved, drained, retired } = interludes;
        let wire = |gates: &[Gate]| gates.iter().map(GateWire::from).collect();
        Self {
            before: wire(before),
            created: wire(created),
            ready: wire(ready),
            moved: wire(moved),
            drained: wire(drained),
            retired: wire(retired),
        }
    }
}

impl From<InterludesWire> for Interludes {
    fn from(wire: InterludesWire) -> Self {
        let model = |gates: Vec<GateWire>| gates.into_iter().map(Gate::from).collect();
        Self {
            before: model(wire.before),
            created: model(wire.created),
            ready: model(wire.ready),
            moved: model(wire.moved),
            drained: model(wire.drained),
            retired: model(wire.retired),
        }
    }
}
