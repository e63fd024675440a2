//! What environments ask for before they let a release in, and what was found.

use kiln_model::gates::{Freeze, GateKind, GateVerdict, Gates, Window};
use kiln_model::{EnvName, Millis, Timestamp};
use serde::{Deserialize, Serialize};

use super::Text;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GatesWire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<Text<EnvName>>,
    #[serde(default)]
    soak_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    approve: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    windows: Vec<WindowWire>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    freezes: Vec<FreezeWire>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowWire {
    /// Monday first.
    days: [bool; 7],
    from_minute: u16,
    to_minute: u16,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FreezeWire {
    from: u64,
    to: u64,
    reason: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum GateKindWire {
    From,
    Soak,
    Approval,
    Window,
    Freeze,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GateVerdictWire {
    gate: GateKindWire,
    is_open: bool,
    detail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
}

impl From<&Gates> for GatesWire {
    fn from(gates: &Gates) -> Self {
        let Gates { from, soak, approve, windows, freezes } = gates;
        let window =
            |it: &Window| WindowWire { days: it.days, from_minute: it.from_minute, to_minute: it.to_minute };
        let freeze = |it: &Freeze| FreezeWire { from: it.from.0, to: it.to.0, reason: it.reason.clone() };
        Self {
            from: from.clone().map(Text),
            soak_ms: soak.0,
            approve: approve.clone(),
            windows: windows.iter().map(window).collect(),
            freezes: freezes.iter().map(freeze).collect(),
        }
    }
}

impl From<GatesWire> for Gates {
    fn from(wire: GatesWire) -> Self {
        let window =
            |it: WindowWire| Window { days: it.days, from_minute: it.from_minute, to_minute: it.to_minute };
        let freeze =
            |it: FreezeWire| Freeze { from: Timestamp(it.from), to: Timestamp(it.to), reason: it.reason };
        Self {
            from: wire.from.map(|name| name.0),
            soak: Millis(wire.soak_ms),
            approve: wire.approve,
            windows: wire.windows.into_iter().map(window).collect(),
            freezes: wire.freezes.into_iter().map(freeze).collect(),
        }
    }
}

impl From<&GateVerdict> for GateVerdictWire {
    fn from(verdict: &GateVerdict) -> Self {
        let GateVerdict { gate, is_open, detail, until } = verdict;
        let gate = match gate {
            GateKind::From => GateKindWire::From,
            GateKind::Soak => GateKindWire::Soak,
            GateKind::Approval => GateKindWire::Approval,
            GateKind::Window => GateKindWire::Window,
            GateKind::Freeze => GateKindWire::Freeze,
        };
        Self { gate, is_open: *is_open, detail: detail.clone(), until: until.map(|at| at.0) }
    }
}

impl From<GateVerdictWire> for GateVerdict {
    fn from(wire: GateVerdictWire) -> Self {
        let gate = match wire.gate {
            GateKindWire::From => GateKind::From,
            GateKindWire::Soak => GateKind::Soak,
            GateKindWire::Approval => GateKind::Approval,
            GateKindWire::Window => GateKind::Window,
            GateKindWire::Freeze => GateKind::Freeze,
        };
        Self { gate, is_open: wire.is_open, detail: wire.detail, until: wire.until.map(Timestamp) }
    }
}
