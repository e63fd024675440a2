//! How long releases served in an environment, and who approved which.

use kiln_model::{Actor, Digest, Millis, Timestamp};

/// How long a release served, since it last came or failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The release.
    pub release: Digest,
    /// Since when it serves without a failure; none if it does not serve any more.
    pub since: Option<Timestamp>,
    /// How long it had when another one took its place.
    pub stretch: Millis,
}

impl Served {
    /// How long it has served without a failure at a moment, or had when it went.
    pub fn stretch_at(&self, now: Timestamp) -> Millis {
        self.since.map_or(self.stretch, |since| now.since(since))
    }
}

/// Somebody lets a release into an environment, as far as it depends on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// The release.
    pub release: Digest,
    /// Who.
    pub by: Actor,
    /// When it is over.
    pub until: Timestamp,
}
