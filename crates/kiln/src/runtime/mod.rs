//! The processes of one machine: who starts whom, and what links them.
//!
//! `kiln host` is the root. It owns the listening sockets and the instances, and keeps `kiln edge` and
//! `kiln controller` running. Any of them may be killed at any instruction: a lock file that a process holds for its
//! whole life tells the others when it is gone, and a new one adopts what runs.

mod anchors;
mod asking;
mod collector;
pub mod controller;
mod counted;
pub mod edge;
mod edge_link;
mod ensure;
mod foretelling;
pub mod host;
mod host_link;
mod lock;
mod measuring;
mod notices;
mod outbox;
mod outward;
pub(crate) mod packs;
mod paths;
mod process;
mod prometheus;
mod receipts;
mod settings;
mod sockets;
mod supervise;
pub mod translation;

pub use anchors::Anchors;
pub use ensure::{EnsureError, ensure_running, is_root, keep_running};
pub use lock::{Lock, LockError};
pub use paths::StateDir;
pub use process::ProcessError;
pub use settings::Settings;
