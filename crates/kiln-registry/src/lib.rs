//! The OCI distribution specification 1.1 from both sides.
//!
//! [`server`] is the registry that `kiln registry serve` runs, [`storage`] keeps its bytes. [`client`] speaks to any registry, and
//! [`image`] brings images from registries and folders into Kiln's store and back. [`digest`], [`name`] and [`manifest`] are
//! the grammar that all share. Blobs pass through in pieces and are hashed on the way, so memory does not grow with them.
//!
//! **Architecture invariant:** what comes from outside becomes a path only as a [`name::RepositoryName`], a [`name::Tag`], a
//! [`digest::ContentDigest`] or an upload's id, none of which can hold `..`, an empty part or a slash that was not meant.

mod base64;
pub mod client;
pub mod digest;
pub mod image;
pub mod manifest;
pub mod name;
mod query;
pub mod server;
pub mod storage;
