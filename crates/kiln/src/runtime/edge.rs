//! `kiln edge`: the proxy in its own process.

use kiln_edge::EdgeConfig;

use super::paths::StateDir;
use super::process::{self, ProcessError};

/// Runs the edge until SIGTERM, then drains.
///
/// # Errors
/// See [`ProcessError`]; the supervisor starts it again.
pub fn run(state: &StateDir, holds_lock: bool) -> Result<(), ProcessError> {
    let _alive = process::begin("edge", state, holds_lock)?;
    let config = EdgeConfig { state_dir: state.path().to_owned() };
    kiln_edge::run(config).map_err(ProcessError::because("serve"))
}
