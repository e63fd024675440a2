//! The core against a small world that answers its actions.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod commands;
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
mod while_another_runs;
mod world;
