//! The stored form of what the log folds to, so that a start need not fold all of it.
//!
//! The wire structs stand here, and not in `kiln-store`, because only this crate knows both the core's state and the
//! store; the parts of the model that a state holds are written as the log writes them ([`Encoded`]). A snapshot can always
//! be made again from the log, so one of another version is not converted: it is passed over.

mod environment;
mod instance;
mod measured;
mod room;
mod service_table;
mod tries;

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_core::State;
use kiln_core::state::{Instance, ListenerPhase, ListenerState, Parts, PartsError, TableState};
use kiln_model::route::Listener;
use kiln_model::service::Service;
use kiln_model::{EnvKey, EnvName, InstanceId, Position, StackName, Term, Timestamp};
use kiln_store::{Encoded, Text};
use serde::{Deserialize, Serialize};

use environment::{ApprovalWire, EnvironmentWire};
use instance::{CheckWire, InstanceWire, Sources, VerdictWire};
use service_table::ServiceTable;

/// The digits of an id; they stand in one text without a mark between them.
const ID_CHARS: usize = kiln_model::id::INSTANCE_ID_BYTES;

/// Another version of Kiln may fold the same entries to something else, where a defect was mended: what it kept is passed
/// over, and its successor folds the log once.
const WRITER: &str = env!("CARGO_PKG_VERSION");

/// Names the format within the bytes.
#[derive(Serialize, Deserialize)]
enum StateFormat {
    #[serde(rename = "kiln.state/1")]
    V1,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateWire {
    format: StateFormat,
    /// The version of Kiln that folded it.
    writer: String,
    term: u64,
    position: u64,
    now: u64,
    origins: BTreeMap<Text<StackName>, String>,
    /// The services of all revisions, each once: revisions mostly differ in one of many.
    services: Vec<Encoded<Service>>,
    environments: Vec<EnvironmentWire>,
    instances: Vec<InstanceWire>,
    disowned: BTreeMap<Text<InstanceId>, u64>,
    /// Every id that was ever given out, one after the other.
    used: String,
    checks: Vec<CheckWire>,
    verdicts: Vec<VerdictWire>,
    listeners: Vec<ListenerWire>,
    table_version: u64,
    table_acknowledged: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    approvals: Vec<ApprovalsWire>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApprovalsWire {
    env: EnvWire,
    given: Vec<ApprovalWire>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenerWire {
    listener: Text<Listener>,
    since: u64,
    phase: ListenerPhaseWire,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum ListenerPhaseWire {
    Requested,
    Open { term: u64 },
    Failed { reason: String, retry_at: u64 },
    Releasing,
}

/// An environment's key.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvWire {
    stack: Text<StackName>,
    env: Text<EnvName>,
}

/// Bytes of which no state can be made. The log is folded from its first entry instead.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// They are of another version, or none of ours.
    #[error("it is not of this version: {0}")]
    Format(#[from] serde_json::Error),
    /// Another version of Kiln folded the log.
    #[error("Kiln {0} made it, and this is Kiln {WRITER}")]
    Writer(String),
    /// They contradict themselves.
    #[error("it does not hold together: {0}")]
    Parts(#[from] PartsError),
    /// A part of them can't be what it says to be.
    #[error("it does not hold together: {0}")]
    Impossible(String),
}

/// Encodes a state.
pub fn encode(state: &State) -> Vec<u8> {
    serde_json::to_vec(&StateWire::from(state.to_parts()))
        .expect("wire structs have text keys and no custom failures")
}

/// Decodes what [`encode`] wrote.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(bytes: &[u8]) -> Result<State, DecodeError> {
    let wire: StateWire = serde_json::from_slice(bytes)?;
    Ok(State::from_parts(wire.into_parts()?)?)
}

impl From<Parts> for StateWire {
    fn from(parts: Parts) -> Self {
        // Named one by one, so that a new field does not compile until it is stored.
        let Parts {
            term,
            position,
            now,
            origins,
            environments,
            instances,
            disowned,
            used,
            checks,
            verdicts,
            listeners,
            table: TableState { version, acknowledged },
            approvals,
        } = parts;
        let mut services = ServiceTable::default();
        let sources = Sources::new(&environments, &checks);
        let instance = |instance: &Arc<Instance>| InstanceWire::of(instance, &sources);
        let mut used: Vec<InstanceId> = used;
        used.sort_unstable();
        Self {
            format: StateFormat::V1,
            writer: WRITER.into(),
            term: term.0,
            position: position.0,
            now: now.0,
            origins: origins.into_iter().map(|(stack, origin)| (Text(stack), origin.to_string())).collect(),
            instances: instances.iter().map(instance).collect(),
            environments: environments.iter().map(|env| EnvironmentWire::of(env, &mut services)).collect(),
            services: services.into_services(),
            disowned: disowned.into_iter().map(|(id, position)| (Text(id), position.0)).collect(),
            used: used.iter().map(InstanceId::as_str).collect(),
            checks: checks.iter().map(|check| CheckWire::from(&**check)).collect(),
            verdicts: verdicts.iter().map(VerdictWire::from).collect(),
            listeners: listeners.iter().map(ListenerWire::from).collect(),
            table_version: version.0,
            table_acknowledged: acknowledged.0,
            approvals: approvals
                .iter()
                .map(|(env, given)| ApprovalsWire {
                    env: env.into(),
                    given: given.iter().map(ApprovalWire::from).collect(),
                })
                .collect(),
        }
    }
}

impl StateWire {
    fn into_parts(self) -> Result<Parts, DecodeError> {
        let StateFormat::V1 = self.format;
        if self.writer != WRITER {
            return Err(DecodeError::Writer(self.writer));
        }
        let services: Vec<Service> = self.services.into_iter().map(|service| service.0).collect();
        let environments: Vec<_> = self
            .environments
            .into_iter()
            .map(|env| env.into_model(&services).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let checks: Vec<_> = self.checks.into_iter().map(|check| Arc::new(check.into())).collect();
        let sources = Sources::new(&environments, &checks);
        let instances: Vec<_> = self
            .instances
            .into_iter()
            .map(|instance| instance.into_model(&sources).map(Arc::new))
            .collect::<Result<_, _>>()?;
        Ok(Parts {
            term: Term(self.term),
            position: Position(self.position),
            now: Timestamp(self.now),
            origins: self
                .origins
                .into_iter()
                .map(|(stack, origin)| (stack.0, origin.as_str().into()))
                .collect(),
            instances,
            disowned: self.disowned.into_iter().map(|(id, at)| (id.0, Position(at))).collect(),
            used: ids(&self.used)?,
            verdicts: self.verdicts.into_iter().map(VerdictWire::into_model).collect(),
            listeners: self.listeners.into_iter().map(ListenerWire::into_model).collect(),
            table: TableState {
                version: Position(self.table_version),
                acknowledged: Position(self.table_acknowledged),
            },
            approvals: self
                .approvals
                .into_iter()
                .map(|it| (it.env.into(), it.given.into_iter().map(Into::into).collect()))
                .collect(),
            environments,
            checks,
        })
    }
}

fn ids(text: &str) -> Result<Vec<InstanceId>, DecodeError> {
    let wrong = || DecodeError::Impossible("what should be ids is not".into());
    let id = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse().ok();
    text.as_bytes().chunks(ID_CHARS).map(|digits| id(digits).ok_or_else(wrong)).collect()
}

impl From<(&Listener, &ListenerState)> for ListenerWire {
    fn from((listener, ListenerState { since, phase }): (&Listener, &ListenerState)) -> Self {
        let phase = match phase {
            ListenerPhase::Requested => ListenerPhaseWire::Requested,
            ListenerPhase::Open { term } => ListenerPhaseWire::Open { term: term.0 },
            ListenerPhase::Failed { reason, retry_at } => {
                ListenerPhaseWire::Failed { reason: reason.to_string(), retry_at: retry_at.0 }
            }
            ListenerPhase::Releasing => ListenerPhaseWire::Releasing,
        };
        Self { listener: Text(*listener), since: since.0, phase }
    }
}

impl ListenerWire {
    fn into_model(self) -> (Listener, ListenerState) {
        let phase = match self.phase {
            ListenerPhaseWire::Requested => ListenerPhase::Requested,
            ListenerPhaseWire::Open { term } => ListenerPhase::Open { term: Term(term) },
            ListenerPhaseWire::Failed { reason, retry_at } => {
                ListenerPhase::Failed { reason: reason.as_str().into(), retry_at: Timestamp(retry_at) }
            }
            ListenerPhaseWire::Releasing => ListenerPhase::Releasing,
        };
        (self.listener.0, ListenerState { since: Position(self.since), phase })
    }
}

impl From<&EnvKey> for EnvWire {
    fn from(key: &EnvKey) -> Self {
        Self { stack: Text(key.stack.clone()), env: Text(key.env.clone()) }
    }
}

impl From<EnvWire> for EnvKey {
    fn from(wire: EnvWire) -> Self {
        Self { stack: wire.stack.0, env: wire.env.0 }
    }
}

#[cfg(test)]
mod tests;
