//! The wire structs of everything that is stored as JSON, and their explicit conversion from and to the model.
//!
//! A field is never renamed and never changes its meaning. A new one is left out of the bytes where it has its default, so
//! that what was stored before keeps its digest; anything else needs a new schema and an upcaster. Unknown fields are
//! refused: whoever wrote them relied on them.

mod access;
mod ask;
mod audience;
mod canary;
mod control;
mod encoded;
mod event;
mod forecast;
mod gates;
mod interlude;
mod notify;
mod outside;
mod record;
mod release;
mod rollout;
mod service;
mod skeleton;
mod snapshot;
mod spec;
mod text;
mod waves;

pub use encoded::Encoded;
pub(crate) use event::{DecodeError, ROLLOUT_KIND, decode_event, encode_event};
pub(crate) use record::ImageWire;
pub(crate) use release::{BindingWire, ReleaseWire};
pub(crate) use skeleton::SkeletonWire;
pub(crate) use snapshot::SnapshotWire;
pub(crate) use spec::SpecWire;
pub use text::Text;
pub(crate) use text::{Bytes, Hex};

/// JSON of ours can't fail to be written: its keys are text, and it holds no floats.
pub(crate) fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("wire structs have text keys and no custom failures")
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
