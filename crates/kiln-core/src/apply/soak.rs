//! How long releases serve: counted from the end of the rollout that brought one, anew after each failure.

use kiln_model::{Digest, Entry, Millis, RevisionNumber, Timestamp};

use super::ApplyError;
use super::key_of;
use crate::bounds::APPROVALS_MAX;
use crate::state::{Approval, Environment, Served, State};

/// A rollout reached its target.
pub(super) fn reached(env: &mut Environment, at: Timestamp) {
    let release = env.current.and_then(|number| whole_release(env, number));
    for served in env.served.iter_mut().filter(|served| Some(served.release) != release) {
        if let Some(since) = served.since.take() {
            served.stretch = at.since(since);
        }
    }
    let Some(release) = release else { return };
    match env.served.iter_mut().find(|served| served.release == release) {
        // It serves on: what changed is what the environment fills in.
        Some(Served { since: Some(_), .. }) => {}
        Some(served) => (served.since, served.stretch) = (Some(at), Millis(0)),
        None => env.served.push(Served { release, since: Some(at), stretch: Millis(0) }),
    }
}

/// The release that a revision is, unless it was composed: then it is none.
fn whole_release(env: &Environment, number: RevisionNumber) -> Option<Digest> {
    let revision = env.revisions.get(&number)?;
    revision.composed.is_none().then_some(revision.release)
}

/// An instance of this revision failed.
pub(super) fn failed(env: &mut Environment, revision: Option<RevisionNumber>, at: Timestamp) {
    let Some(release) = revision.filter(|_| revision == env.current).and_then(|it| whole_release(env, it))
    else {
        return;
    };
    for served in env.served.iter_mut().filter(|served| served.release == release && served.since.is_some()) {
        served.since = Some(at);
    }
}

/// Forgets releases of which no revision is kept.
pub(super) fn forget(env: &mut Environment) {
    let revisions = &env.revisions;
    env.served.retain(|served| revisions.values().any(|revision| revision.release == served.release));
}

/// Somebody approved a release; the environment need not exist yet.
pub(super) fn approved(
    state: &mut State,
    entry: &Entry,
    release: Digest,
    until: Timestamp,
) -> Result<(), ApplyError> {
    let approvals = state.approvals.entry(key_of(entry)?.clone()).or_default();
    approvals.retain(|it| it.until > entry.at && (it.release != release || it.by != entry.actor));
    approvals.push(Approval { release, by: entry.actor.clone(), until });
    let excess = approvals.len().saturating_sub(APPROVALS_MAX);
    approvals.drain(..excess);
    Ok(())
}
