//! What the command line asks past the controller: logs, what this machine can't do, and what the edge has counted.

use std::sync::Arc;

use kiln_edge::ledger::{self, LedgerSnapshot};
use kiln_provider::port::Provider;

use crate::runtime::StateDir;

/// The host; nothing is connected before it is asked.
pub(crate) fn provider(state: &StateDir) -> Arc<dyn Provider> {
    Arc::new(kiln_provider::host::Client::new(state.host_socket()))
}

/// The limits that can't be enforced on this machine, each with the reason; none where the host does not answer.
pub(crate) fn unenforced(state: &StateDir) -> Vec<String> {
    let capabilities = provider(state).capabilities();
    capabilities.map(|capabilities| capabilities.unenforced).unwrap_or_default()
}

/// What the edge has counted so far; none before it ever ran. The counts outlive it, so a dead edge's are read as well.
pub(crate) fn ledger(state: &StateDir) -> Option<LedgerSnapshot> {
    ledger::read(&state.path().join("edge/ledger")).ok()
}
