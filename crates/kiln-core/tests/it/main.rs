//! The core against a small world that answers its actions.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod commands;
mod halted;
mod hazards;
mod histories;
mod illegal;
mod lifetime;
mod machines;
mod notation;
mod predictions;
mod promotion;
mod scenarios;
mod shapes;
mod side_by_side;
mod waves;
mod while_another_runs;
mod world;
