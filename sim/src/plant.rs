//! Faults planted on purpose: a simulation that can't find them would prove nothing.
//!
//! None of them needs a seam in the controller. Its order is made of types (see `kiln::controller::commit`) and can't be
//! rearranged from outside, so what would be a fault of its own is planted where the world can't tell the difference: in a log
//! that says "durable" too early, or although it failed, or that holds something else than what was appended.

/// A fault planted on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plant {
    /// Acts before the append: the log says that a batch is durable, and writes it only after the controller has acted.
    ActBeforeAppend,
    /// Drops what is outstanding at a restart: what a new controller issues for an intent that was in the log before it
    /// started goes nowhere, as if it only acted on its own decisions.
    DropOutstanding,
    /// Accepts an old fence: host and edge obey whoever speaks.
    AcceptOldFence,
    /// Retires before the acknowledgement: the edge acknowledges a table when it comes in and serves it later, which to
    /// the host is the same as a controller that does not wait.
    RetireBeforeAck,
    /// Reuses an address early: the host gives it to the next instance once the old process has ended, not once its
    /// instance is destroyed.
    ReuseAddressEarly,
    /// Publishes speculative state: when an append fails, the log says that it went well and keeps the batch in memory,
    /// so the controller goes on from a state that no record holds.
    PublishSpeculative,
    /// The snapshot forgets: it leaves out how far the edge has followed, as one does to which a field was not added.
    SnapshotForgets,
    /// Keeps the ill: what the log says of the routes leaves in whom a probe failed a moment ago.
    KeepUnhealthy,
    /// Serves what nobody sealed: the edge stores a table with another revision at a backend.
    MixUpRevisions,
    /// Forgets to look at the clock: the log has steps without a deadline.
    LoseDeadline,
    /// Lets anybody approve: the log has the approval of somebody who may not.
    ApproveForAnybody,
    /// Collects early: the images that only older revisions need are gone when one is gone back to.
    CollectEarly,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::ActBeforeAppend,
        Self::DropOutstanding,
        Self::AcceptOldFence,
        Self::RetireBeforeAck,
        Self::ReuseAddressEarly,
        Self::PublishSpeculative,
        Self::SnapshotForgets,
        Self::KeepUnhealthy,
        Self::MixUpRevisions,
        Self::LoseDeadline,
        Self::ApproveForAnybody,
        Self::CollectEarly,
    ];
}
