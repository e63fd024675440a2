//! What an environment asks for before it lets a release in.

use crate::name::EnvName;
use crate::units::{Millis, Timestamp};

/// What must hold before an environment lets a release in; nothing by default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gates {
    /// The environment that must have been moved to the release before.
    pub from: Option<EnvName>,
    /// How long it must have served there without a failure.
    pub soak: Millis,
    /// Who may approve it; nobody named means anybody, and none that nobody has to.
    pub approve: Option<Vec<String>>,
    /// When it may come; at any time if there are none.
    pub windows: Vec<Window>,
    /// When it may not.
    pub freezes: Vec<Freeze>,
}

/// Hours of some days of the week, in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The days, Monday first.
    pub days: [bool; 7],
    /// The first minute of the day.
    pub from_minute: u16,
    /// The minute of the day before which it ends; 1440 is midnight.
    pub to_minute: u16,
}

/// A span of time in which nothing new comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freeze {
    /// Its beginning.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
    /// Why, for people.
    pub reason: String,
}

/// What a gate is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GateKind {
    /// Another environment must have been moved to the release.
    From,
    /// It must have served there for a while.
    Soak,
    /// Somebody must have approved it.
    Approval,
    /// There are hours for it.
    Window,
    /// There is a time without changes.
    Freeze,
}

/// What was found at a gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateVerdict {
    /// What it is about.
    pub gate: GateKind,
    /// Whether the release may pass.
    pub is_open: bool,
    /// What was found, or what is missing, for people.
    pub detail: String,
    /// When time alone opens it; none if only somebody can, or if it is open.
    pub until: Option<Timestamp>,
}
