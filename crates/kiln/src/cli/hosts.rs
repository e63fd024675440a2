//! What the command line asks the host itself: logs, and what this machine can't do.

use std::sync::Arc;

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
