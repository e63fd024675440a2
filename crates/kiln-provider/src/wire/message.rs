//! The lines that the two sides exchange.

use std::net::IpAddr;
use std::sync::Arc;

use kiln_model::{Fence, InstanceId, Millis, Position, Term, Timestamp};
use serde::{Deserialize, Serialize};

use super::spec::{DecodeError, ExitWire, SpecWire, parse};
use crate::port::{
    Capabilities, CreateRequest, Cursor, InstanceStatus, LogCursor, LogLine, LogNext, ProviderError, Stream,
    Transition, Watched,
};
use kiln_model::EnvKey;

/// The version that this code speaks.
pub const PROTOCOL: u32 = 1;
/// The oldest version that this code still understands: the one before, once there is one.
pub const PROTOCOL_OLDEST: u32 = 1;

/// The first line of each side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The highest version that the side speaks.
    pub kiln_host: u32,
    /// The lowest.
    pub oldest: u32,
}

impl Hello {
    /// Returns this code's first line.
    pub const fn ours() -> Self {
        Self { kiln_host: PROTOCOL, oldest: PROTOCOL_OLDEST }
    }

    /// Returns the highest version that both sides speak.
    pub fn agree(&self, other: &Self) -> Option<u32> {
        let version = self.kiln_host.min(other.kiln_host);
        (version >= self.oldest.max(other.oldest)).then_some(version)
    }
}

/// What is asked of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are those of the port's methods, which are documented there")]
pub enum Request {
    /// `Provider::capabilities`
    Capabilities,
    /// `Provider::prepare`
    Prepare { image: String },
    /// `Provider::create`
    Create(Box<CreateWire>),
    /// `Provider::destroy`
    Destroy { id: String, term: u64, position: u64, grace_ms: u64 },
    /// `Provider::list`
    List,
    /// `Provider::watch`; the connection carries nothing else from here on.
    Watch { life: u64, seq: u64 },
    /// `Provider::logs`; the connection carries nothing else from here on.
    Logs { id: String, cursor: u64, follow: bool },
    /// `Provider::exec`
    Exec { id: String, argv: Vec<String>, timeout_ms: u64 },
    /// Open a socket and hand it to the edge.
    OpenListener { listener: String, term: u64, position: u64 },
    /// Close a socket.
    CloseListener { listener: String, term: u64, position: u64 },
    /// Store where the log stands.
    PutAnchor { position: u64, hash: String },
}

/// What the host answers. Streams answer with one `Watched` or `Log` line after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are those of the port's types, which are documented there")]
pub enum Answer {
    /// It is done, or accepted.
    Ok(Accepted),
    /// It is not.
    Problem(Problem),
    /// To `Capabilities`.
    Capabilities(CapabilitiesWire),
    /// To `List`.
    Instances { life: u64, seq: u64, instances: Vec<InstanceWire> },
    /// To `Watch`.
    Watched { life: u64, seq: u64, told: Told },
    /// To `Logs`.
    Log(LogNextWire),
    /// To `Exec`.
    Exec(ExecWire),
}

/// What is said beside "ok".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Where a listener was bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<std::net::SocketAddr>,
}

/// The instance that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "see `CreateRequest`")]
pub struct CreateWire {
    pub id: String,
    pub term: u64,
    pub position: u64,
    pub stack: String,
    pub env: String,
    pub service: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal: Option<u8>,
    pub spec: SpecWire,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(missing_docs, reason = "see `ProviderError`")]
pub enum Problem {
    /// A later term has acted.
    Fenced { asked: u64, seen: u64 },
    /// The id is gone for ever.
    Tombstoned { id: String },
    /// There is no such instance.
    Unknown { id: String },
    /// Never.
    Refused { reason: String },
    /// Not now.
    Failed { reason: String },
    /// Not understood.
    Protocol { reason: String },
}

/// What a provider can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "see `Capabilities`")]
pub struct CapabilitiesWire {
    pub isolation: String,
    pub unenforced: Vec<String>,
    pub subnet: String,
    pub instances_max: u32,
}

/// One instance of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "see `InstanceStatus`")]
pub struct InstanceWire {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exited: Option<ExitWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// One thing that a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "see `Watched` and `Transition`")]
pub enum Told {
    /// Nothing happened; the connection is alive.
    Quiet,
    /// Something may have been missed.
    Relist,
    /// It runs.
    Started { id: String, address: IpAddr },
    /// Its probes turned.
    Health { id: String, healthy: bool, detail: String },
    /// It ended.
    Exited { id: String, status: ExitWire },
    /// It can't be.
    Refused { id: String, reason: String },
    /// It is gone.
    Destroyed { id: String },
}

/// One step of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "see `LogLine`")]
pub enum LogNextWire {
    /// A line.
    Line { cursor: u64, at_ms: u64, stderr: bool, text: String },
    /// Nothing new; the connection is alive.
    Quiet,
    /// There is no more.
    End,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "see `ExecOutcome`")]
pub struct ExecWire {
    pub status: ExitWire,
    pub output: String,
}

/// Returns the fence of two numbers of a request.
pub(crate) const fn fence(term: u64, position: u64) -> Fence {
    Fence { term: Term(term), position: Position(position) }
}

impl From<&CreateRequest> for CreateWire {
    fn from(request: &CreateRequest) -> Self {
        Self {
            id: request.id.to_string(),
            term: request.fence.term.0,
            position: request.fence.position.0,
            stack: request.env.stack.to_string(),
            env: request.env.env.to_string(),
            service: request.service.to_string(),
            internal: request.internal,
            spec: SpecWire::from(&*request.spec),
        }
    }
}

impl TryFrom<CreateWire> for CreateRequest {
    type Error = DecodeError;

    fn try_from(wire: CreateWire) -> Result<Self, DecodeError> {
        Ok(Self {
            id: parse("id", &wire.id)?,
            spec: Arc::new(wire.spec.try_into()?),
            fence: fence(wire.term, wire.position),
            env: EnvKey { stack: parse("stack", &wire.stack)?, env: parse("env", &wire.env)? },
            service: parse("service", &wire.service)?,
            internal: wire.internal,
        })
    }
}

impl From<ProviderError> for Problem {
    fn from(error: ProviderError) -> Self {
        match error {
            ProviderError::Fenced { asked, seen } => Self::Fenced { asked: asked.0, seen: seen.0 },
            ProviderError::Tombstoned(id) => Self::Tombstoned { id: id.to_string() },
            ProviderError::Unknown(id) => Self::Unknown { id: id.to_string() },
            ProviderError::Refused { reason } => Self::Refused { reason },
            ProviderError::Failed { reason } => Self::Failed { reason },
            ProviderError::Protocol { reason } => Self::Protocol { reason },
            ProviderError::Away(error) => Self::Failed { reason: error.to_string() },
        }
    }
}

impl From<Problem> for ProviderError {
    fn from(problem: Problem) -> Self {
        let id = |text: &str, wrap: fn(InstanceId) -> Self| match text.parse() {
            Ok(id) => wrap(id),
            Err(_) => Self::Protocol { reason: format!("`{text}` is not an instance") },
        };
        match problem {
            Problem::Fenced { asked, seen } => Self::Fenced { asked: Term(asked), seen: Term(seen) },
            Problem::Tombstoned { id: text } => id(&text, Self::Tombstoned),
            Problem::Unknown { id: text } => id(&text, Self::Unknown),
            Problem::Refused { reason } => Self::Refused { reason },
            Problem::Failed { reason } => Self::Failed { reason },
            Problem::Protocol { reason } => Self::Protocol { reason },
        }
    }
}

impl From<Capabilities> for CapabilitiesWire {
    fn from(c: Capabilities) -> Self {
        Self {
            isolation: c.isolation,
            unenforced: c.unenforced,
            subnet: c.subnet,
            instances_max: c.instances_max,
        }
    }
}

impl From<CapabilitiesWire> for Capabilities {
    fn from(c: CapabilitiesWire) -> Self {
        Self {
            isolation: c.isolation,
            unenforced: c.unenforced,
            subnet: c.subnet,
            instances_max: c.instances_max,
        }
    }
}

impl From<InstanceStatus> for InstanceWire {
    fn from(status: InstanceStatus) -> Self {
        Self {
            id: status.id.to_string(),
            address: status.address,
            healthy: status.healthy,
            exited: status.exited.map(ExitWire::from),
            refused: status.refused,
        }
    }
}

impl TryFrom<InstanceWire> for InstanceStatus {
    type Error = DecodeError;

    fn try_from(wire: InstanceWire) -> Result<Self, DecodeError> {
        Ok(Self {
            id: parse("id", &wire.id)?,
            address: wire.address,
            healthy: wire.healthy,
            exited: wire.exited.map(Into::into),
            refused: wire.refused,
        })
    }
}

impl From<Watched> for Answer {
    fn from(watched: Watched) -> Self {
        let (cursor, told) = match watched {
            Watched::Relist { cursor } => (cursor, Told::Relist),
            Watched::Transition { cursor, id, transition } => {
                let id = id.to_string();
                let told = match transition {
                    Transition::Started { address } => Told::Started { id, address },
                    Transition::Health { healthy, detail } => Told::Health { id, healthy, detail },
                    Transition::Exited { status } => Told::Exited { id, status: status.into() },
                    Transition::Refused { reason } => Told::Refused { id, reason },
                    Transition::Destroyed => Told::Destroyed { id },
                };
                (cursor, told)
            }
        };
        Self::Watched { life: cursor.life, seq: cursor.seq, told }
    }
}

impl Told {
    /// Returns what the port says for it; none for a sign of life.
    pub(crate) fn into_watched(self, life: u64, seq: u64) -> Result<Option<Watched>, DecodeError> {
        let cursor = Cursor { life, seq };
        let (id, transition) = match self {
            Self::Quiet => return Ok(None),
            Self::Relist => return Ok(Some(Watched::Relist { cursor })),
            Self::Started { id, address } => (id, Transition::Started { address }),
            Self::Health { id, healthy, detail } => (id, Transition::Health { healthy, detail }),
            Self::Exited { id, status } => (id, Transition::Exited { status: status.into() }),
            Self::Refused { id, reason } => (id, Transition::Refused { reason }),
            Self::Destroyed { id } => (id, Transition::Destroyed),
        };
        Ok(Some(Watched::Transition { cursor, id: parse("id", &id)?, transition }))
    }
}

impl From<LogNext> for LogNextWire {
    fn from(next: LogNext) -> Self {
        match next {
            LogNext::Line(line) => Self::Line {
                cursor: line.cursor.0,
                at_ms: line.at.0,
                stderr: line.stream == Stream::Err,
                text: line.text,
            },
            LogNext::Quiet => Self::Quiet,
            LogNext::End => Self::End,
        }
    }
}

impl From<LogNextWire> for LogNext {
    fn from(next: LogNextWire) -> Self {
        match next {
            LogNextWire::Line { cursor, at_ms, stderr, text } => Self::Line(LogLine {
                cursor: LogCursor(cursor),
                at: Timestamp(at_ms),
                stream: if stderr { Stream::Err } else { Stream::Out },
                text,
            }),
            LogNextWire::Quiet => Self::Quiet,
            LogNextWire::End => Self::End,
        }
    }
}

/// Returns the request that ends an instance.
pub(crate) fn destroy(id: InstanceId, fence: Fence, grace: Millis) -> Request {
    Request::Destroy { id: id.to_string(), term: fence.term.0, position: fence.position.0, grace_ms: grace.0 }
}
