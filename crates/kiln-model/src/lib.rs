//! The nouns of Kiln as plain immutable data.
//!
//! Every crate speaks in these types. They own no format (no serde), no hashing and no I/O: `kiln-store` owns the bytes,
//! `kiln-core` owns the decisions. What is deliberately absent is an update: nothing here changes once it is built.

pub mod access;
pub mod ask;
pub mod calendar;
pub mod digest;
pub mod event;
pub mod forecast;
pub mod gates;
pub mod id;
pub mod image;
pub mod instance;
pub mod interlude;
pub mod latency;
pub mod name;
pub mod notify;
pub mod outside;
pub mod recipe;
pub mod release;
pub mod rollout;
pub mod route;
pub mod sample;
pub mod service;
pub mod stack;
pub mod units;

pub use digest::{Digest, ParseDigestError};
pub use event::{Entry, Event};
pub use id::{Actor, CheckId, EnvKey, Fence, InstanceId, Position, RevisionNumber, RolloutId, SlotKey, Term};
pub use instance::InstanceSpec;
pub use name::{
    BaseName, ConfigName, EnvName, ImageName, NameError, PortName, RouteName, SecretName, ServiceName,
    StackName, VariableName, VolumeName,
};
pub use units::{ByteSize, MilliCpu, Millis, Timestamp, Weight};
