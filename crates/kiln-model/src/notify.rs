//! Who is told of an environment's rollouts.

use std::collections::BTreeSet;

use crate::instance::SecretRef;
use crate::name::SecretName;

/// What somebody may be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Occasion {
    /// A rollout began.
    Started,
    /// It waits for somebody to decide.
    Waiting,
    /// An analysis came to a verdict.
    Analysed,
    /// It reached its target.
    Completed,
    /// A step failed: it goes back.
    GoingBack,
    /// Somebody aborted it: it goes back.
    Aborted,
    /// It is back where it came from.
    WentBack,
    /// Going back failed as well.
    Stuck,
    /// Another rollout took over.
    Superseded,
}

impl Occasion {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Started,
        Self::Waiting,
        Self::Analysed,
        Self::Completed,
        Self::GoingBack,
        Self::Aborted,
        Self::WentBack,
        Self::Stuck,
        Self::Superseded,
    ];

    /// Its word in a stack, in what is stored and in what is sent.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Waiting => "waiting",
            Self::Analysed => "analysed",
            Self::Completed => "completed",
            Self::GoingBack => "going_back",
            Self::Aborted => "aborted",
            Self::WentBack => "went_back",
            Self::Stuck => "stuck",
            Self::Superseded => "superseded",
        }
    }

    /// The one of a word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|occasion| occasion.word() == word)
    }
}

/// Somebody who is told by an HTTP request, before the secret of its signature is captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookDefinition {
    /// Where the requests go.
    pub url: String,
    /// Of what.
    pub events: BTreeSet<Occasion>,
    /// What signs them.
    pub secret: SecretName,
}

/// Somebody who is told by an HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where the requests go.
    pub url: String,
    /// Of what.
    pub events: BTreeSet<Occasion>,
    /// What signs them.
    pub secret: SecretRef,
}
