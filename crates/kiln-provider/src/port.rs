//! The provider port: what every place that can run instances has to offer.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use kiln_model::instance::ExitStatus;
use kiln_model::{Digest, EnvKey, Fence, InstanceId, InstanceSpec, Millis, ServiceName, Term, Timestamp};

/// A place where instances run. There is deliberately no verb that changes one.
///
/// `create` and `destroy` are acknowledged once they are recorded; what comes of them is told by [`Provider::watch`]. Both may
/// be repeated: an instance's id is the idempotency key, and is never used again once it was destroyed.
pub trait Provider: Send + Sync {
    /// Returns what this provider can and can't do.
    fn capabilities(&self) -> Result<Capabilities, ProviderError>;

    /// Makes an image ready, so that a later `create` of it does not have to wait.
    fn prepare(&self, image: &Digest) -> Result<(), ProviderError>;

    /// Accepts an instance: it will be created and started, also across a restart of the provider.
    ///
    /// Repeated with the same id: the same answer, and the transitions so far are told again.
    ///
    /// # Errors
    /// `Fenced`: a later term has acted. `Tombstoned`: the id was destroyed. Both are permanent.
    fn create(&self, request: &CreateRequest) -> Result<(), ProviderError>;

    /// Accepts the end of an instance: stop signal, grace, kill, and removal of all that is left of it.
    ///
    /// An unknown id is remembered as destroyed, so that its `create` is refused when it comes late.
    fn destroy(&self, request: &DestroyRequest) -> Result<(), ProviderError>;

    /// Returns every instance there is, at a moment after all that was acknowledged before the call.
    fn list(&self) -> Result<Listing, ProviderError>;

    /// Opens the stream of transitions after `cursor`.
    fn watch(&self, cursor: Cursor) -> Result<Box<dyn Transitions>, ProviderError>;

    /// Opens an instance's log after `cursor`; with `follow` it goes on until the instance is destroyed.
    fn logs(
        &self,
        id: InstanceId,
        cursor: LogCursor,
        follow: bool,
    ) -> Result<Box<dyn LogStream>, ProviderError>;

    /// Runs a command inside an instance, as its user and under its restrictions, and waits for its end.
    fn exec(&self, id: InstanceId, argv: &[String], timeout: Duration) -> Result<ExecOutcome, ProviderError>;
}

/// The instance that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateRequest {
    /// Its id, and the idempotency key.
    pub id: InstanceId,
    /// What it sees.
    pub spec: Arc<InstanceSpec>,
    /// The term and position of the intent.
    pub fence: Fence,
    /// Where it belongs; volumes and names are resolved here.
    pub env: EnvKey,
    /// The service, for people and for the host name.
    pub service: ServiceName,
    /// The index of the environment's internal listener, which the names of `uses` resolve to.
    pub internal: Option<u8>,
}

/// The end that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DestroyRequest {
    /// Which.
    pub id: InstanceId,
    /// The term and position of the intent.
    pub fence: Fence,
    /// How long it has between its stop signal and SIGKILL.
    pub grace: Millis,
}

/// Everything that the provider has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Where [`Provider::watch`] goes on without a gap.
    pub cursor: Cursor,
    /// The instances, by id.
    pub instances: Vec<InstanceStatus>,
}

/// One instance, as far as the provider knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceStatus {
    /// Which.
    pub id: InstanceId,
    /// Its address, once started.
    pub address: Option<IpAddr>,
    /// What its probes say; none before the first verdict.
    pub healthy: Option<bool>,
    /// How it ended, if it did.
    pub exited: Option<ExitStatus>,
    /// Why it can't be created, if so.
    pub refused: Option<String>,
}

/// A place in the stream of transitions. It is worth nothing after a restart of the provider, which then says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cursor {
    /// A random number per life of the provider; 0 is before all.
    pub life: u64,
    /// The number of the last transition that was seen.
    pub seq: u64,
}

/// What the stream of transitions yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watched {
    /// Transitions may be missing before this point: call [`Provider::list`] and trust it.
    Relist {
        /// Where the stream goes on.
        cursor: Cursor,
    },
    /// One instance changed.
    Transition {
        /// The place after it.
        cursor: Cursor,
        /// The instance.
        id: InstanceId,
        /// What happened.
        transition: Transition,
    },
}

/// What can happen to an instance. Told at least once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// Its command runs.
    Started {
        /// Its address.
        address: IpAddr,
    },
    /// Its probes turned.
    Health {
        /// To what.
        healthy: bool,
        /// What the probe saw, for people.
        detail: String,
    },
    /// Its main process ended.
    Exited {
        /// How.
        status: ExitStatus,
    },
    /// It can't be created, and another attempt would end the same way.
    Refused {
        /// Why, for people.
        reason: String,
    },
    /// Nothing is left of it, or there never was anything.
    Destroyed,
}

/// A blocking stream of transitions.
pub trait Transitions: Send {
    /// Waits at most `timeout` for the next one; none means that nothing happened.
    ///
    /// # Errors
    /// `Away`: the provider is gone; open the stream again with the last cursor.
    fn next(&mut self, timeout: Duration) -> Result<Option<Watched>, ProviderError>;
}

/// A blocking stream of log lines.
pub trait LogStream: Send {
    /// Waits at most `timeout` for the next line.
    fn next(&mut self, timeout: Duration) -> Result<LogNext, ProviderError>;
}

/// What a log stream yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogNext {
    /// A line.
    Line(LogLine),
    /// Nothing new within the timeout.
    Quiet,
    /// There is nothing after this.
    End,
}

/// A place in an instance's log; the default is its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct LogCursor(pub u64);

/// Which of the two streams of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// One line of an instance's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The place after it.
    pub cursor: LogCursor,
    /// When it was read.
    pub at: Timestamp,
    /// Where it was written.
    pub stream: Stream,
    /// The text without its newline; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// How a command inside an instance ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutcome {
    /// How.
    pub status: ExitStatus,
    /// The beginning of what it wrote to both streams.
    pub output: String,
}

/// What a provider can and can't do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// How processes are grouped and limited, for people.
    pub isolation: String,
    /// The limits of a spec that can't be enforced here, such as `cpu`, each with the reason.
    pub unenforced: Vec<String>,
    /// The addresses that instances get, as a CIDR.
    pub subnet: String,
    /// How many instances there can be at once.
    pub instances_max: u32,
}

/// Why a provider did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// It can't be reached; whether it acted is unknown. Repeat: every verb is idempotent.
    #[error("the provider can't be reached")]
    Away(#[source] std::io::Error),
    /// A later controller has acted here.
    #[error("term {asked} is over: a controller of {seen} has acted")]
    Fenced {
        /// The term of the action.
        asked: Term,
        /// The highest term seen.
        seen: Term,
    },
    /// The id belongs to an instance that was destroyed.
    #[error("instance {0} was destroyed, and an id is never used again")]
    Tombstoned(InstanceId),
    /// There is no such instance.
    #[error("there is no instance {0}")]
    Unknown(InstanceId),
    /// It will not do this, however often it is asked.
    #[error("{reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// It could not do this now.
    #[error("{reason}")]
    Failed {
        /// Why.
        reason: String,
    },
    /// The other side speaks another version, or not this protocol.
    #[error("the host speaks another protocol: {reason}")]
    Protocol {
        /// What was seen.
        reason: String,
    },
}

impl ProviderError {
    /// Whether another attempt would end the same way.
    pub const fn is_permanent(&self) -> bool {
        match self {
            Self::Away(_) | Self::Failed { .. } => false,
            Self::Fenced { .. }
            | Self::Tombstoned(_)
            | Self::Unknown(_)
            | Self::Refused { .. }
            | Self::Protocol { .. } => true,
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Out => "stdout",
            Self::Err => "stderr",
        })
    }
}
