//! What became of the requests of a canary rollout, as exact counts: what an analysis reads.

use std::collections::BTreeMap;

use crate::route::Group;

/// The counts of one group in one window. They only grow, and a killed edge goes on with them.
///
/// Each attempt at answering a request is in exactly one of `ok`, `client_error`, `server_error`, `lost` and `left`: a
/// request that is sent again counts for the group that failed and for the one that answered. An attempt counts when its
/// answer begins, so an answer without an end, a stream or a WebSocket, counts at its head.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupSamples {
    /// Answered with a status below 400.
    pub ok: u64,
    /// Answered with a status from 400 to 499.
    pub client_error: u64,
    /// Answered by the instance with a status of 500 or more.
    pub server_error: u64,
    /// Not answered by the instance: it refused the connection, reset it, was silent for too long, or made no sense.
    pub lost: u64,
    /// Of `ok` and `client_error`: the instance broke the answer off after its head.
    pub broken: u64,
    /// The client left, or broke its own request off, before the answer began: nobody knows what it would have been.
    pub left: u64,
    /// How many answers began how late, by the buckets of [`latency`](crate::latency); without the empty ones, ascending.
    ///
    /// From the moment at which the request's head was read, or at which it was sent again to this group, until the head
    /// of the instance's answer was read. A client that is slow in sending a body is in it.
    pub latency: BTreeMap<usize, u64>,
    /// Of all of the above: requests that the edge made itself.
    pub synthetic: u64,
    /// Copies of requests that were sent to this group. They are in none of the other counts.
    pub mirror: MirrorSamples,
}

/// What became of the copies of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MirrorSamples {
    /// An answer began.
    pub answered: u64,
    /// Of `answered`: its status is of another class (below 400, 400 to 499, from 500 on) than the original's.
    pub differed: u64,
    /// No answer began in time.
    pub lost: u64,
    /// Not sent, because too many were under way or nobody could take it.
    pub skipped: u64,
}

impl GroupSamples {
    /// Returns how many attempts have an outcome that the instance answers for.
    pub fn requests(&self) -> u64 {
        self.ok + self.client_error + self.server_error + self.lost
    }

    /// Returns how many of [`requests`](Self::requests) the instance failed.
    pub fn failures(&self) -> u64 {
        self.server_error + self.lost + self.broken
    }
}

/// The counts of a window, by group. A group that is not there has none.
pub type WindowSamples = BTreeMap<Group, GroupSamples>;
