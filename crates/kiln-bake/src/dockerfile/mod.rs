//! Dockerfiles: what is written in one, and what is to be done for it. Nothing here does it.

mod flags;
#[cfg(test)]
mod fuzz;
mod healthcheck;
mod heredoc;
mod instruction;
mod lines;
mod mode;
mod mounts;
mod parse;
mod plan;
mod platform;
mod ports;
mod problem;
mod scope;
mod shell;
#[cfg(test)]
mod tests;
mod wildcard;
mod words;

pub(crate) use instruction::{Instruction, Word};
pub(crate) use plan::{Origin, Plan};
pub use problem::DockerfileProblem;
pub(crate) use problem::{Problem, Span};
pub(crate) use scope::{
    CopyTask, Mounted, Pins, RemoteCommit, RemoteFile, RemoteFiles, RunTask, SCRIPT, Scope, Task, TaskMount,
    TaskSecret, TaskSource, TaskSsh,
};

/// Reads an instruction that an image brings in its `ONBUILD`.
pub(crate) use parse::parse_trigger;
