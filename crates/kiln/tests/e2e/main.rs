//! End to end: the real binary, real processes, a real kernel, real sockets. One test for each promise of the README.
//!
//! They need root. Every test has a Kiln of its own, and fails if anything of it is left behind.
// The harness is shared with the benches, which include its files.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout)]

mod access;
mod asking;
mod audience;
mod audit;
mod beside;
mod canary;
mod disk;
mod dockerfile;
mod edge_kills;
mod failures;
mod faults;
mod load;
mod machine;
mod mirroring;
mod misbehaviour;
mod mistakes;
mod notices;
mod operating;
mod outside;
mod processes;
mod promotion;
mod receipts;
mod record;
mod retention;
mod rollouts;
mod secrets;
mod start;
mod steps;
mod surge;
mod synthetic;
mod upload;
mod while_another_runs;
