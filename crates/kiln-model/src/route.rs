//! The traffic side: what the edge serves.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use crate::ask::Method;
use crate::id::{EnvKey, Fence, InstanceId, RevisionNumber, RolloutId};
use crate::name::{PortName, RouteName, ServiceName};
use crate::service::PortRef;
use crate::units::{Millis, Weight};

/// A declared way in from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its name.
    pub name: RouteName,
    /// Where the edge listens.
    pub listen: SocketAddr,
    /// The host that it answers for, lower-case, without a port; none means any.
    pub host: Option<String>,
    /// The path prefix that it answers for; `/` means any. Matches whole segments.
    pub path: String,
    /// Where requests go.
    pub to: PortRef,
}

/// Where the edge accepts connections. The host owns the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Listener {
    /// An address of the machine, such as `0.0.0.0:8080`.
    Public(SocketAddr),
    /// Port 80 of an environment's own address on the instances' bridge, for `SERVICE.STACK.kiln`.
    ///
    /// The number is the environment's index: unique among the environments of one Kiln, given at its creation.
    Internal(u8),
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public(address) => write!(f, "{address}"),
            Self::Internal(index) => write!(f, "internal-{index}"),
        }
    }
}

impl FromStr for Listener {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fail = || format!("`{text}` is not a listener");
        match text.strip_prefix("internal-") {
            Some(index) => index.parse().map(Self::Internal).map_err(|_| fail()),
            None => text.parse().map(Self::Public).map_err(|_| fail()),
        }
    }
}

/// All that the edge serves, swapped as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteTable {
    /// The table's version: an edge that has seen a higher one refuses this one.
    pub fence: Fence,
    /// What is served where.
    pub rules: Vec<Rule>,
    /// The backends by pool.
    pub pools: BTreeMap<PoolKey, Arc<Pool>>,
}

/// One line of the table. The longest path among the rules of a listener that match the host wins; a rule with a host
/// beats one without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Where it holds.
    pub listener: Listener,
    /// The host, lower-case, without a port; none means any.
    pub host: Option<String>,
    /// The path prefix; matches whole segments.
    pub path: String,
    /// Where requests go.
    pub pool: PoolKey,
}

/// A set of backends that share requests: one port of one service in one environment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey {
    /// The environment.
    pub env: EnvKey,
    /// The service.
    pub service: ServiceName,
    /// The port number.
    pub port: u16,
}

impl fmt::Display for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.env, self.service, self.port)
    }
}

/// The backends of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pool {
    /// An empty pool is answered with 503.
    pub backends: Vec<Backend>,
    /// Where the edge counts what becomes of each request; none means that it does not.
    pub sampling: Option<Sampling>,
    /// What stands for a user, who then stays with one group; none means that each request is drawn for itself.
    pub sticky: Option<Sticky>,
    /// Requests that go to a group whatever the weights are. The first one that matches holds.
    pub aim: Vec<Aim>,
    /// Copies of safe requests for the canary, whose answers nobody gets.
    pub mirror: Option<Mirror>,
    /// Requests that the edge makes itself, so that an analysis has enough of them; none where none is waited for.
    pub synthetic: Option<Arc<Synthetic>>,
}

/// Requests that the edge makes itself, as many to the canary as to its baseline. They carry the header `kiln-synthetic: 1`,
/// and are counted in the window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synthetic {
    /// How: what is safe (RFC 9110 §9.2.1).
    pub method: Method,
    /// What is asked for, with its query.
    pub path: String,
    /// The value of the header `Host`.
    pub host: String,
    /// The port that is asked.
    pub port: PortName,
    /// How many requests each group has in a second: those of clients count, and what they lack is made.
    pub rate: u32,
    /// How many each group is sent at most, in one window.
    pub count: u32,
}

/// Sends copies of requests to the canary, also when its weight is zero: GET and HEAD requests without a body that the
/// stable group answers. They carry the header `kiln-mirror: 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mirror {
    /// How many of those that could be copied are.
    pub share: Weight,
}

/// What stands for a user of a pool.
///
/// Each user has a place that never changes, and the groups lie side by side: the canary at one end, the baseline at the
/// other, the stable group between them. When the canary's share grows, users only come to it; none goes back and forth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sticky {
    /// A cookie, which the edge sets where it is missing.
    Cookie {
        /// Its name.
        name: String,
        /// How long a browser is to keep it.
        max_age: Millis,
    },
    /// A header, such as an account's number. Requests without it are drawn.
    Header {
        /// Its name.
        name: String,
    },
    /// The address that the connection comes from. Behind another proxy that is the proxy's.
    Address,
}

/// Sends requests with a header to a group, also when its weight is zero: a canary is seen by testers first.
///
/// When the group has no backend, they are drawn as others are. No window counts them: they are no random sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aim {
    /// The header's name.
    pub header: String,
    /// What its value must be.
    pub value: HeaderMatch,
    /// Where the request goes.
    pub group: Group,
}

/// What the value of a header must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderMatch {
    /// Exactly this.
    Exact(String),
    /// Something that begins with this.
    Prefix(String),
    /// Anything.
    Present,
}

/// What a backend stands for in a canary rollout. Each (revision, group) of a pool gets its exact share of the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Group {
    /// What served before, and everything outside of canary rollouts.
    #[default]
    Stable,
    /// Fresh instances of the stable revision: what the canary is compared with.
    Baseline,
    /// Instances of the revision that is tried.
    Canary,
}

impl Group {
    /// All of them, in the order of their definition.
    pub const ALL: [Self; 3] = [Self::Stable, Self::Baseline, Self::Canary];

    /// Returns its name in messages and stored tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Baseline => "baseline",
            Self::Canary => "canary",
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|group| group.as_str() == text);
        found.ok_or_else(|| format!("`{text}` is not a group"))
    }
}

/// Names a span of time whose requests are counted together.
///
/// Counts only grow within a window. Whoever changes what is compared takes another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sampling {
    /// The rollout that wants to know.
    pub rollout: RolloutId,
    /// Which of the rollout's windows.
    pub window: u32,
}

/// One instance that requests may be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// The instance.
    pub instance: InstanceId,
    /// Its revision, for the ledger and the access log.
    pub revision: RevisionNumber,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share relative to the other backends of the pool.
    pub weight: Weight,
    /// What it stands for.
    pub group: Group,
}
