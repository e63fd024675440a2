//! What the core wants done.

use std::sync::Arc;

use kiln_model::instance::InstanceSpec;
use kiln_model::route::{Listener, RouteTable};
use kiln_model::{EnvKey, Fence, InstanceId, Millis, ServiceName};

/// An effect to carry out. Derived from the state alone, so that it is issued again after a restart; idempotent by its
/// kind and subject, made harmless when late by its fence.
///
/// A fence is compared per subject (an instance, a listener, the table), because actions on different subjects overtake
/// each other; an action of an older *term* than the highest seen is refused whatever its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// The controller's term and the position of the intent.
    pub fence: Fence,
    /// What is to be done.
    pub kind: ActionKind,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionKind {
    /// Open a socket and hand it to the edge.
    OpenListener(Listener),
    /// Close a socket.
    CloseListener(Listener),
    /// Create an instance and start its command.
    CreateInstance {
        /// Its id, and the idempotency key.
        id: InstanceId,
        /// Where it belongs; a check's environment need not exist.
        env: EnvKey,
        /// The service, for people; a check's is `check`.
        service: ServiceName,
        /// The internal listener whose address the services' names resolve to.
        internal: Option<Listener>,
        /// What it sees.
        spec: Arc<InstanceSpec>,
    },
    /// Stop an instance and remove all that is left of it, its address included.
    DestroyInstance {
        /// Which.
        id: InstanceId,
        /// How long it has after its stop signal.
        grace: Millis,
    },
    /// Serve this table.
    PublishTable(Arc<RouteTable>),
    /// Tell when nothing is in flight to this instance, which the acknowledged table no longer names.
    AwaitIdle(InstanceId),
}
