//! From a stack folder to a revision that an environment can be moved to.
//!
//! The order is the invariant: what a digest names is stored before the next thing refers to it. Files, then the snapshot,
//! images, secrets, release and binding; only then the controller is asked.

pub(crate) mod bakery;
pub(crate) mod captured;
pub(crate) mod checks;
pub(crate) mod dockerfiles;
pub(crate) mod folder;
pub(crate) mod inspections;
pub(crate) mod integrity;
pub(crate) mod load;
pub(crate) mod lockfile;
pub(crate) mod origin;
pub(crate) mod registries;
pub(crate) mod scans;
pub(crate) mod seal;
pub(crate) mod secrets;
pub(crate) mod snapshot;
