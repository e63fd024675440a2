//! A registry of the OCI distribution specification 1.1: what `kiln registry serve` runs.
//!
//! [`server`] speaks HTTP, [`storage`] keeps bytes; [`digest`], [`name`] and [`manifest`] are the grammar that both share.
//! Blobs pass through in pieces and are hashed on the way, so memory does not grow with them.
//!
//! **Architecture invariant:** what comes from outside becomes a path only as a [`name::RepositoryName`], a [`name::Tag`], a
//! [`digest::ContentDigest`] or an upload's id, none of which can hold `..`, an empty part or a slash that was not meant.

pub mod digest;
pub mod manifest;
pub mod name;
pub mod server;
pub mod storage;
