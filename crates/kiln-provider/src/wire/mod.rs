//! The format between the host and whoever asks it: one JSON document per line, over a unix socket.
//!
//! A connection begins with a line from each side that says which versions it speaks, and goes on in the highest that both do.
//! Unknown fields are ignored, so that a side which is one version older understands a newer one; golden tests show every change.

pub(crate) mod message;
mod spec;

pub(crate) use message::fence;
pub use message::{
    Accepted, Answer, CapabilitiesWire, CreateWire, ExecWire, Hello, InstanceWire, LogNextWire, PROTOCOL,
    PROTOCOL_OLDEST, Problem, Request, Told,
};
pub(crate) use spec::parse;
pub use spec::{DecodeError, ExitWire, SpecWire};
