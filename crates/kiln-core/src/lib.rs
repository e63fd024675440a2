//! The decisions: `decide`, `apply`, `outstanding`.
//!
//! [`State`] is a fold of the log alone; [`Observed`] is volatile and rebuilt. What is deliberately absent: a clock,
//! randomness, I/O and async. An input carries the time and a seed; the same log always folds to the same state.
//!
//! The caller's loop: [`observe`] the input, [`decide()`] on it, [`number`] the drafts, append the entries, and only when
//! they are durable [`apply()`] them to the state that acts and carry out what is [`outstanding()`].

pub mod action;
mod analysis;
mod apply;
mod asking;
mod bounds;
mod deadline;
mod decide;
mod expand;
mod gates;
mod hazard;
pub mod input;
mod observed;
mod outlook;
mod outside;
mod outstanding;
mod predict;
mod serving;
mod split;
pub mod state;
mod table;
mod waiting;

pub use action::{Action, ActionKind};
pub use apply::{ApplyError, apply};
pub use asking::{Question, question};
pub use bounds::{ABORTED, APPROVAL_MAX, ENVIRONMENTS_MAX, REPLICAS_MAX, RETAINED_MAX};
pub use deadline::next_deadline;
pub use decide::{Decision, Draft, Reply, decide, number};
pub use gates::judge;
pub use hazard::{Hazard, hazards, volume_hazards};
pub use input::{Admission, Command, IfRunning, Input, InputKind, Lasting, Observation, Refusal};
pub use observed::{Observed, observe};
pub use outlook::{Outlook, compared, outlook};
pub use outside::{Standing, Tally, measured, standing, told};
pub use outstanding::outstanding;
pub use predict::{Delays, PredictError, PredictedStep, Prediction, Risk, predict, predict_up};
pub use state::State;
pub use table::route_table;
pub use waiting::{Wait, waiting};
