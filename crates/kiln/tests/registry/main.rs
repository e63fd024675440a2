//! The registry against its specification, as a real process: every endpoint and every refusal, hostile clients, kills, and
//! the clients that Debian has.

// A test that can't set its scene fails.
#![allow(clippy::unwrap_used)]
// Which client is not installed is told.
#![allow(clippy::print_stdout)]

mod bases;
mod blobs;
mod clients;
mod hostile;
mod http;
mod kills;
mod lists;
mod manifests;
mod server;
mod signed;
mod start;
mod transfer;
mod uploads;
