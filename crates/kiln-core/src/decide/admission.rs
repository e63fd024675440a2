//! What must hold before a release comes into an environment.

use kiln_model::{Digest, EnvKey, EnvName};

use crate::input::Refusal;
use crate::state::State;

/// A promotion takes what another environment of the stack was moved to successfully, and nothing else. One that was composed
/// runs something else than its release says.
pub(super) fn require_reached(
    state: &State,
    env: &EnvKey,
    from: &EnvName,
    release: Digest,
) -> Result<(), Refusal> {
    let from = EnvKey { stack: env.stack.clone(), env: from.clone() };
    let found = state.environment(&from).ok_or_else(|| Refusal::UnknownEnvironment(from.clone()))?;
    let mut reached = found.completed.iter().filter_map(|number| found.revisions.get(number));
    if reached.any(|revision| revision.release == release && revision.composed.is_none()) {
        return Ok(());
    }
    Err(Refusal::NotReachedThere { from, release })
}
