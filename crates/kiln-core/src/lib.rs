//! The decisions: `decide`, `apply`, `outstanding`.
//!
//! [`State`] is a fold of the log alone; [`Observed`] is volatile and rebuilt. What is deliberately absent: a clock,
//! randomness, I/O and async. An input carries the time and a seed; the same log always folds to the same state.

pub mod action;
pub mod input;

pub use action::{Action, ActionKind};
pub use input::{Command, Input, InputKind, Observation, Refusal};
