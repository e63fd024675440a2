//! Where instances run: the provider port, and its implementation on this host.
//!
//! A provider creates, observes and destroys instances; nothing here changes one, and nothing here decides. [`port`] is the
//! contract. [`host::Host`] carries it out on this machine, in a process that must be root, [`host::Server`] opens its door,
//! and [`host::Client`] speaks to it over a unix socket in the format of [`wire`], so that killing the controller touches no
//! instance.

pub mod host;
pub mod port;
mod sys;
pub mod wire;

pub use port::{
    Capabilities, CreateRequest, Cursor, DestroyRequest, ExecOutcome, InstanceStatus, Listing, LogCursor,
    LogLine, LogNext, LogStream, Provider, ProviderError, Stream, Transition, Transitions, Watched,
};
