//! How the command line talks to the controller: HTTP/1.1 and JSON over a unix socket in the state folder.
//!
//! Who connects is known by the kernel's word (peer credentials), never by what a request says. What is deliberately
//! absent is any way to change something but by a command that the controller decides about.

pub mod canaries;
pub mod client;
pub mod foreseen;
pub mod gates;
pub(crate) mod hazards;
pub mod history;
pub mod narrate;
pub mod peer;
pub(crate) mod prediction;
pub mod refusal;
pub mod running;
pub mod sealed;
pub mod server;
pub(crate) mod verdicts;
pub mod view;
pub mod wire;

#[cfg(test)]
mod tests;
