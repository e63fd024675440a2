//! Debian: the archive's signed index, which packages a base needs, and what is in them.

pub(crate) mod archive;
pub(crate) mod control;
pub(crate) mod database;
pub(crate) mod deb;
#[cfg(test)]
mod fuzz;
pub(crate) mod index;
mod keyring;
pub(crate) mod mirror;
mod relation;
mod release;
pub(crate) mod resolve;
pub(crate) mod unpack;
pub(crate) mod version;

pub use archive::ArchiveError;
pub use database::DatabaseError;
pub use deb::DebError;
pub use keyring::{KEYRING_PATH, Keyring, KeyringError, SignatureProblem};
pub use mirror::{APT_PATH, NoMirror};
pub use resolve::{Conflict, ResolveError};
pub use unpack::UnpackError;

/// Debian's name for this machine's architecture: a base is made for the machine that bakes it.
pub const ARCH: &str = match std::env::consts::ARCH.as_bytes() {
    b"x86_64" => "amd64",
    b"aarch64" => "arm64",
    _ => std::env::consts::ARCH,
};
