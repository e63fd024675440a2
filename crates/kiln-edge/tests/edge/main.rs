//! A real edge process, real sockets, backends that misbehave on purpose.

#![allow(clippy::unwrap_used)] // what the tests share counts as a test, too

mod control;
mod http;
mod mirror;
mod origin;
mod process;
mod retry;
mod routing;
mod samples;
mod smuggling;
mod sticky;
mod streaming;
mod swap;
mod synthetic;
mod world;
