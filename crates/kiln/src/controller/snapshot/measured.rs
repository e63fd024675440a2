//! What was measured of metrics of outside.

use std::collections::BTreeMap;

use kiln_core::Tally;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TallyWire {
    passed: u32,
    failed: u32,
    unclear: u32,
    errors: u32,
    errors_in_row: u32,
    last: String,
}

pub(super) fn stored(tallies: &BTreeMap<String, Tally>) -> BTreeMap<String, TallyWire> {
    let wire = |Tally { passed, failed, unclear, errors, errors_in_row, last }: &Tally| TallyWire {
        passed: *passed,
        failed: *failed,
        unclear: *unclear,
        errors: *errors,
        errors_in_row: *errors_in_row,
        last: last.to_string(),
    };
    tallies.iter().map(|(name, tally)| (name.clone(), wire(tally))).collect()
}

pub(super) fn read(tallies: BTreeMap<String, TallyWire>) -> BTreeMap<String, Tally> {
    let model = |wire: TallyWire| Tally {
        passed: wire.passed,
        failed: wire.failed,
        unclear: wire.unclear,
        errors: wire.errors,
        errors_in_row: wire.errors_in_row,
        last: wire.last.as_str().into(),
    };
    tallies.into_iter().map(|(name, wire)| (name, model(wire))).collect()
}
