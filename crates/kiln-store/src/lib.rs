//! Sole owner of stored bytes: blobs, image trees, the event log, the sealed store.
//!
//! Everything in `STATE/store` is addressed by the sha256 of its bytes, is written under a temporary name, made durable
//! and only then given its name; so what has a name is whole, and a crash leaves nothing but temporary files that the
//! next [`Store::open`] removes. What is kept for later may be packed, and reads all the same. The crate is synchronous:
//! a thread that it starts has ended when the call returns, but for that of a capture, which ends with its value.
//!
//! **Architecture invariant:** nothing outside this crate knows how any of it is encoded, and nothing here decides
//! anything: what is to be stored, collected or mounted is the caller's choice.

pub mod blob;
pub mod canonical;
pub mod collect;
pub mod damage;
mod erofs;
pub mod error;
pub mod image;
pub mod inventory;
pub mod keep;
pub mod lease;
pub mod log;
mod mount;
pub mod object;
mod packs;
mod process;
mod quick;
pub mod referrers;
pub mod release;
pub mod sealed;
mod shelf;
pub mod skeleton;
pub mod snapshot;
mod staging;
pub mod stamp;
mod store;
mod sys;
pub mod tree;
pub mod trees;
mod wire;

pub use blob::{BlobReader, BlobWriter, Blobs};
pub use collect::{CollectError, Collected, Needed};
pub use damage::{Damage, Glance, LookAhead, Verification};
pub use error::{PutError, ReadError};
pub use image::Images;
pub use inventory::Inventory;
pub use keep::{Cold, PackDamage, PackError, Shed, StartsHeld};
pub use lease::{Collection, Lease, Leases};
pub use log::EventLog;
pub use object::Objects;
pub use quick::quick_folder;
pub use referrers::Referrers;
pub use release::Releases;
pub use sealed::Sealed;
pub use shelf::{Batch, Stored};
pub use snapshot::Snapshots;
pub use stamp::{Stamp, Stamps};
pub use store::{OpenStoreError, Store};
pub use tree::{Entry, Inode, Kind, Meta, Mtime, Tree, TreePath};
pub use trees::{Mounted, Strategy, Trees, Writable};
pub use wire::{Encoded, Text};
