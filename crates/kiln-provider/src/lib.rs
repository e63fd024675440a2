//! Where instances run: the provider port, and its implementation on this host.
//!
//! A provider creates, observes and destroys instances; nothing here changes one, and nothing here decides.

pub mod port;

pub use port::{
    Capabilities, CreateRequest, Cursor, DestroyRequest, ExecOutcome, InstanceStatus, Listing, LogCursor,
    LogLine, LogNext, LogStream, Provider, ProviderError, Stream, Transition, Transitions, Watched,
};
