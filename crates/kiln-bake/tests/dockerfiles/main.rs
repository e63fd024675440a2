//! Dockerfiles, baked: what comes out is what BuildKit would make of them.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod agent;
mod archives;
mod buildah;
mod commands;
mod copying;
#[path = "../fixture/mod.rs"]
mod fixture;
mod git;
mod hostile;
mod kitchen;
mod language;
mod origin;
mod projects;
mod remote;
mod secrets;
