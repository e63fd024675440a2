//! Has it written down what a rollout was expected to come to when it began: its receipt compares the two.
//!
//! It is computed beside the rollout, which waits for nothing: from the state that the command found, and from what had been
//! seen before. A controller that ends meanwhile leaves a rollout without a prediction, and its receipt says so.

use std::sync::Arc;
use std::thread;

use kiln_core::{Command, Observation, Reply, State};
use kiln_model::forecast::Forecast;
use kiln_model::{Actor, Entry, EnvKey, RolloutId};
use kiln_store::EventLog;

use super::paths::StateDir;
use crate::api::history::Seen;
use crate::api::prediction;
use crate::controller::{CommandError, Handle};

/// Asks the controller, and predicts the rollout that it began.
///
/// # Errors
/// See [`Handle::command`].
pub(super) fn with_prediction(
    handle: &Handle,
    state: &StateDir,
    command: Command,
    actor: Actor,
) -> Result<Reply, CommandError> {
    let env = match &command {
        Command::Up { env, .. } | Command::Rollback { env, .. } | Command::Down { env } => env.clone(),
        _ => return handle.command(command, actor),
    };
    let (before, asked) = (handle.state(), command.clone());
    let reply = handle.command(command, actor);
    if let Ok(Reply::RolloutStarted { rollout, .. }) = &reply {
        let case = Case { env, rollout: *rollout, before, command: asked, state: state.clone() };
        let handle = handle.clone();
        let told = thread::Builder::new().name("prediction".into()).spawn(move || case.tell(&handle));
        if let Err(error) = told {
            tracing::warn!(%error, "the rollout is not predicted");
        }
    }
    reply
}

struct Case {
    env: EnvKey,
    rollout: RolloutId,
    before: Arc<State>,
    command: Command,
    state: StateDir,
}

impl Case {
    fn tell(self, handle: &Handle) {
        let (forecast, env, rollout) = (self.forecast(), self.env, self.rollout);
        // A controller that has ended predicts nothing.
        let _ = handle.observe(Observation::RolloutPredicted { env, rollout, forecast });
    }

    fn forecast(&self) -> Result<Forecast, String> {
        let log = EventLog::open_read_only(self.state.path()).map_err(|error| error.to_string())?;
        let seen = seen_before(&log, &self.env, self.rollout.0)?;
        prediction::forecast(&self.before, &self.command, &seen)
    }
}

/// What was seen of an environment before a rollout began.
///
/// # Errors
/// Why the log can't be read, for people.
pub(super) fn seen_before(log: &EventLog, env: &EnvKey, rollout: u64) -> Result<Seen, String> {
    let is_later = |entry: &Result<Entry, _>| matches!(entry, Ok(entry) if entry.position.0 >= rollout);
    Seen::read(log.read_rollouts_back(env).skip_while(is_later)).map_err(|error| error.to_string())
}
