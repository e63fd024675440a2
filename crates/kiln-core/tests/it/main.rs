//! The core against a small world that answers its actions.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod histories;
mod notation;
mod scenarios;
mod shapes;
mod world;
