//! The reverse proxy that serves a RouteTable and outlives the controller.
//!
//! [`run`] is the whole process. The host gives it listening sockets and the controller route tables, through
//! [`client::EdgeClient`]; what became of every request is in the [`ledger`],
//! and what became of a canary's, for its analysis, is asked for with [`client::EdgeClient::samples`].
//!
//! Deliberately absent: the edge changes no weight and decides nothing about a rollout. It sets a backend aside only while
//! it can't connect to it, and it serves the table that it acknowledged last, whoever else is alive.

mod access_log;
pub mod anchor;
mod answer;
mod backend;
mod balancer;
mod chunk;
pub mod client;
mod control;
mod edge;
mod exchange;
mod frame;
#[cfg(test)]
mod fuzz;
mod guard;
mod head;
mod headers;
pub mod ledger;
mod limits;
mod link;
mod mirror;
mod persist;
mod process;
mod samples;
mod shared;
mod synthesis;
mod sys;
mod table;
mod ticket;
mod tunnel;
mod upload;
mod upstream;
mod wire;
mod wish;
mod worker;

pub use process::{EdgeConfig, RunError, run};
