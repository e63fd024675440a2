//! The shell: the only place where effects meet decisions.
//!
//! `cli` talks to people, `api` to the command line, `controller` decides and acts in the right order, `runtime` keeps the
//! processes running and linked.

pub mod api;
pub mod cli;
pub mod controller;
pub mod runtime;
