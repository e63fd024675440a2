//! The instances that this host has, and how far each one is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kiln_model::instance::ExitStatus;
use kiln_model::{InstanceId, Millis};

use super::network::subnet::Addresses;
use super::record::Record;
use crate::port::{InstanceStatus, Transition};

/// Everything that was accepted and is not gone.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) instances: BTreeMap<InstanceId, Instance>,
    pub(crate) addresses: Addresses,
}

/// One instance.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) record: Record,
    pub(crate) phase: Phase,
    /// The last verdict and what was seen.
    pub(crate) health: Option<(bool, String)>,
    pub(crate) leaving: Leaving,
    /// How often making it has failed.
    pub(crate) failures: u32,
}

/// How far an instance has come. It only goes forward, but for `Starting` back to `Queued` when the machine could not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Accepted.
    Queued,
    /// A worker makes it.
    Starting,
    /// Its program runs.
    Running,
    /// Its program ended.
    Ended(ExitStatus),
    /// It can't be.
    Refused(String),
}

/// How far an instance is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// It stays.
    No,
    /// It is to go, and has this long after its stop signal.
    Asked(Millis),
    /// A worker removes it.
    Removing,
}

impl Instance {
    pub(crate) const fn new(record: Record, phase: Phase) -> Self {
        Self { record, phase, health: None, leaving: Leaving::No, failures: 0 }
    }

    pub(crate) fn address(&self) -> IpAddr {
        self.record.address.into()
    }

    /// Returns what a list says about it.
    pub(crate) fn status(&self) -> InstanceStatus {
        let (exited, refused) = match &self.phase {
            Phase::Ended(status) => (Some(*status), None),
            Phase::Refused(reason) => (None, Some(reason.clone())),
            Phase::Queued | Phase::Starting | Phase::Running => (None, None),
        };
        let was_started = matches!(self.phase, Phase::Running | Phase::Ended(_));
        InstanceStatus {
            id: self.record.id(),
            address: was_started.then(|| self.address()),
            healthy: self.health.as_ref().map(|(healthy, _)| *healthy),
            exited,
            refused,
        }
    }

    /// Returns what a watcher was told about it so far.
    pub(crate) fn history(&self) -> Vec<Transition> {
        let started = Transition::Started { address: self.address() };
        let health = self.health.clone().map(|(healthy, detail)| Transition::Health { healthy, detail });
        match &self.phase {
            Phase::Queued | Phase::Starting => Vec::new(),
            Phase::Running => [Some(started), health].into_iter().flatten().collect(),
            Phase::Ended(status) => vec![started, Transition::Exited { status: *status }],
            Phase::Refused(reason) => vec![Transition::Refused { reason: reason.clone() }],
        }
    }
}
