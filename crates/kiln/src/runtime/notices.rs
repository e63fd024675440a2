//! Tells others of rollouts: the log is followed, what is to be told becomes letters, and each is sent until it is taken.
//!
//! Nothing waits for it: a rollout goes on whether or not anybody answers. See `docs/decisions/0150`.

mod lanes;
mod letter;
mod post;
mod send;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use kiln_core::State;
use kiln_core::state::Environment;
use kiln_model::{EnvKey, Position};
use kiln_store::EventLog;

use self::lanes::Lanes;
use self::letter::Letter;
use self::post::{Cursor, Post};
use super::paths::StateDir;
use crate::controller::Handle;

/// How long nothing may happen before the thread looks whether the controller is still there.
const BEAT: Duration = Duration::from_secs(1);
/// A pause after each look: a rollout is some entries within milliseconds, and nobody minds to be told that much later.
const REST: Duration = Duration::from_millis(100);

/// Starts the thread; it ends with the process.
pub(super) fn start(handle: Handle, state: &StateDir) -> io::Result<()> {
    let post = Post::open(state.path())?;
    let lanes = Lanes::new(handle.clone(), post.clone(), state);
    let follower = Follower { handle, post, lanes, state: state.clone() };
    thread::Builder::new().name("notices".into()).spawn(move || follower.run()).map(drop)
}

/// Returns the versions of the secrets that what is still to be told is signed with: they are wanted also where their revision
/// is not.
///
/// # Errors
/// What is to be told can't be read.
pub(super) fn signing(state: &Path) -> io::Result<BTreeSet<String>> {
    Post::open(state)?.signing()
}

struct Follower {
    handle: Handle,
    post: Post,
    lanes: Lanes,
    state: StateDir,
}

/// Why something could not be followed; it is tried again.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error("the log can't be read: {0}")]
    Log(String),
    #[error("what is to be told can't be kept")]
    Post(#[source] io::Error),
}

impl Follower {
    fn run(mut self) {
        let mut cursor = self.begin();
        match self.post.letters() {
            Ok(letters) => letters.into_iter().for_each(|letter| self.lanes.add(letter)),
            Err(error) => tracing::error!(%error, "what was to be told can't be read"),
        }
        loop {
            let state = self.handle.wait_past(cursor.position, BEAT);
            if state.position() > cursor.position
                && let Err(error) = self.follow(&mut cursor, &state)
            {
                tracing::warn!(%error, "what happened is told later");
                thread::sleep(BEAT);
            }
            thread::sleep(REST);
        }
    }

    /// Where to go on. What was noted nowhere is told from now on, and not from the log's beginning.
    fn begin(&self) -> Cursor {
        match self.post.cursor() {
            Ok(Some(cursor)) => return cursor,
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, "how far the log was told is not known: it is told from now on")
            }
        }
        // Before anything was folded nobody can have asked to be told.
        let mut state = self.handle.wait_past(Position(0), BEAT);
        while state.position() == Position(0) {
            thread::sleep(REST);
            state = self.handle.wait_past(Position(0), BEAT);
        }
        let cursor = Cursor { position: state.position(), ..Cursor::default() };
        if let Err(error) = self.post.keep_cursor(&cursor) {
            tracing::warn!(%error, "how far the log was told can't be noted");
        }
        cursor
    }

    /// Reads the log as far as `state` was folded from it. On an error the cursor is where it was.
    fn follow(&mut self, cursor: &mut Cursor, state: &State) -> Result<(), FollowError> {
        let wanted = wanted(cursor, state);
        let mut next = Cursor { position: state.position(), followed: cursor.followed.clone() };
        let mut letters = Vec::new();
        if !wanted.is_empty() {
            let log = EventLog::open_read_only(self.state.path());
            let log = log.map_err(|error| FollowError::Log(error.to_string()))?;
            for key in wanted {
                letters.extend(read(&log, &key, cursor.position, state, &mut next)?);
            }
        }
        for letter in &letters {
            self.post.keep(letter).map_err(FollowError::Post)?;
        }
        // What tells nobody anything need not be noted: it is read again, to the same end.
        if !letters.is_empty() || next.followed != cursor.followed {
            self.post.keep_cursor(&next).map_err(FollowError::Post)?;
        }
        *cursor = next;
        letters.into_iter().for_each(|letter| self.lanes.add(letter));
        Ok(())
    }
}

/// The environments of which something may be to be told.
fn wanted(cursor: &Cursor, state: &State) -> BTreeSet<EnvKey> {
    let tells = |env: &&Environment| env.revisions.values().any(|it| !it.spec.webhooks.is_empty());
    let declared = state.environments().filter(tells).map(|env| env.key.clone());
    declared.chain(cursor.followed.keys().cloned()).collect()
}

/// Reads what the log says of an environment's rollouts after `position`.
fn read(
    log: &EventLog,
    key: &EnvKey,
    position: Position,
    state: &State,
    next: &mut Cursor,
) -> Result<Vec<Letter>, FollowError> {
    let env = state.environment(key);
    let mut followed = next.followed.remove(key).unwrap_or_default();
    let mut letters = Vec::new();
    for entry in log.read_rollouts(key, Position(position.0 + 1)) {
        let entry = entry.map_err(|error| FollowError::Log(error.to_string()))?;
        if entry.position > next.position {
            break;
        }
        letters.extend(followed.read(key, &entry, |number| env?.spec(Some(number))));
    }
    // An environment that is gone may come again, and says then who is told.
    if env.is_some() && !followed.is_idle() {
        next.followed.insert(key.clone(), followed);
    }
    Ok(letters)
}
