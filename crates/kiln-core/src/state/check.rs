//! Checks on images.

use std::sync::Arc;

use kiln_model::digest::Digest;
use kiln_model::{CheckId, EnvKey, InstanceId, InstanceSpec, Timestamp};

/// A check that is not over, or whose instance still exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its id.
    pub id: CheckId,
    /// The environment on whose behalf; it need not exist.
    pub env: EnvKey,
    /// The image's manifest.
    pub image: Digest,
    /// The test's name.
    pub test: String,
    /// What the instance sees.
    pub spec: Arc<InstanceSpec>,
    /// The digest of `spec`.
    pub spec_digest: Digest,
    /// When the wait is over.
    pub deadline: Timestamp,
    /// Its instance, once requested.
    pub instance: Option<InstanceId>,
    /// Whether the answer is known.
    pub answered: bool,
}

/// The recorded answer of a check about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The check.
    pub check: CheckId,
    /// The digest of what was asked: of what its instance saw, or of an inspection.
    pub spec_digest: Digest,
    /// Why it failed; none if it passed.
    pub failure: Option<Arc<str>>,
    /// When it was answered.
    pub at: Timestamp,
}

impl Verdict {
    /// Whether it passed.
    pub const fn is_passed(&self) -> bool {
        self.failure.is_none()
    }
}
