//! What the stages of Dockerfiles do with trees: files that are picked and laid, and mounts of commands.

mod archive;
mod caches;
mod context;
mod dockerignore;
#[cfg(test)]
pub(crate) mod fuzz;
mod lay;
mod mounts;
mod pick;
mod seed;

pub use archive::ArchiveError;
pub use caches::{CacheBounds, CacheFolder, CacheFolders};
pub(crate) use caches::{MOUNTS, room};
pub(crate) use context::{Context, find, inputs, places};
pub(crate) use lay::{Laying, describe, words_of};
pub use mounts::MountError;
pub(crate) use mounts::{CacheMount, CacheMounts, Part, bind, secret_file, tmpfs};
pub(crate) use pick::{Pick, PickError, Shelf};
