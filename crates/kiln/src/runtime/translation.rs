//! What the controller says in the words of the provider port, and back. Without state, threads or a host, so that the
//! simulation runs the same code between its controller and its host.

use kiln_core::input::InstanceSeen;
use kiln_core::{Action, ActionKind, Observation};
use kiln_model::route::Listener;
use kiln_model::{InstanceId, Position};
use kiln_provider::{
    CreateRequest, DestroyRequest, InstanceStatus, Listing, Provider, ProviderError, Transition,
};

/// An action that a provider carries out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// An instance is asked for.
    Create(CreateRequest),
    /// An instance's end is asked for.
    Destroy(DestroyRequest),
}

impl Request {
    /// Returns what an action asks of a provider; none if it concerns somebody else.
    pub fn of(action: Action) -> Option<Self> {
        let fence = action.fence;
        match action.kind {
            ActionKind::CreateInstance { id, env, service, internal, spec } => {
                let internal = internal.and_then(|listener| match listener {
                    Listener::Internal(index) => Some(index),
                    Listener::Public(_) => None,
                });
                Some(Self::Create(CreateRequest { id, spec, fence, env, service, internal }))
            }
            ActionKind::DestroyInstance { id, grace } => {
                Some(Self::Destroy(DestroyRequest { id, fence, grace }))
            }
            ActionKind::OpenListener(_)
            | ActionKind::CloseListener(_)
            | ActionKind::PublishTable(_)
            | ActionKind::AwaitIdle(_) => None,
        }
    }

    /// Asks the provider, and says what its answer means to the controller.
    pub fn carry_out(&self, provider: &dyn Provider) -> Answer {
        match self {
            Self::Create(request) => Answer::of(provider.create(request), |reason| {
                Observation::InstanceRefused { id: request.id, reason }
            }),
            // A destroy has no refusal: what can't be destroyed now is destroyed later.
            Self::Destroy(request) => {
                provider.destroy(request).map_or_else(Answer::Later, |()| Answer::Accepted)
            }
        }
    }
}

/// What an answer of the provider means to the controller.
#[derive(Debug)]
pub enum Answer {
    /// It will be done.
    Accepted,
    /// It will never be done, and this is what the controller is told.
    Refused(Observation),
    /// A later controller acts there, or the instance is gone: this one learns of it from the log or the list.
    TooLate(ProviderError),
    /// It may be done later, and is to be asked for again.
    Later(ProviderError),
}

impl Answer {
    /// Tells what a result means; `refused` is what the controller is told of one that will stay refused.
    pub fn of(result: Result<(), ProviderError>, refused: impl FnOnce(String) -> Observation) -> Self {
        match result {
            Ok(()) => Self::Accepted,
            Err(ProviderError::Refused { reason }) => Self::Refused(refused(reason)),
            Err(error @ (ProviderError::Fenced { .. } | ProviderError::Tombstoned(_))) => {
                Self::TooLate(error)
            }
            Err(error) => Self::Later(error),
        }
    }
}

/// Returns what the controller is told of a transition.
pub fn seen(id: InstanceId, transition: Transition) -> Observation {
    match transition {
        Transition::Started { address } => Observation::InstanceStarted { id, address },
        Transition::Health { healthy, detail } => Observation::InstanceHealth { id, healthy, detail },
        Transition::Exited { status } => Observation::InstanceExited { id, status },
        Transition::Refused { reason } => Observation::InstanceRefused { id, reason },
        Transition::Destroyed => Observation::InstanceDestroyed { id },
    }
}

/// Returns what the controller is told of a complete list, in this order. `as_of` is the log's head before it was asked
/// for: what is recorded later may rightly be missing from it.
pub fn listed(as_of: Position, listing: &Listing) -> Vec<Observation> {
    let refused = |status: &InstanceStatus| {
        let reason = status.refused.clone()?;
        Some(Observation::InstanceRefused { id: status.id, reason })
    };
    let mut told: Vec<_> = listing.instances.iter().filter_map(refused).collect();
    let instances = listing.instances.iter().map(instance_seen).collect();
    told.push(Observation::Listed { as_of, instances });
    told
}

fn instance_seen(status: &InstanceStatus) -> InstanceSeen {
    InstanceSeen { id: status.id, address: status.address, healthy: status.healthy, exited: status.exited }
}

#[cfg(test)]
mod tests {
    use std::io;

    use kiln_model::{Fence, Term};

    use super::*;

    fn refused(reason: String) -> Observation {
        Observation::InstanceRefused { id: InstanceId::from_seed(1), reason }
    }

    #[test]
    fn only_what_stays_refused_is_told_and_only_what_may_succeed_is_asked_again() {
        let of = |error| Answer::of(Err(error), refused);
        let id = InstanceId::from_seed(1);
        assert!(matches!(Answer::of(Ok(()), refused), Answer::Accepted));
        let told = of(ProviderError::Refused { reason: "no".into() });
        assert!(
            matches!(told, Answer::Refused(Observation::InstanceRefused { reason, .. }) if reason == "no")
        );
        let fenced = ProviderError::Fenced { asked: Term(1), seen: Term(2) };
        for late in [fenced, ProviderError::Tombstoned(id)] {
            assert!(matches!(of(late), Answer::TooLate(_)));
        }
        let away = ProviderError::Away(io::Error::other("gone"));
        for again in [away, ProviderError::Failed { reason: "no room".into() }] {
            assert!(matches!(of(again), Answer::Later(_)));
        }
    }

    #[test]
    fn an_action_for_somebody_else_asks_nothing_of_a_provider() {
        let kind = ActionKind::AwaitIdle(InstanceId::from_seed(1));
        assert_eq!(Request::of(Action { fence: Fence::default(), kind }), None);
    }

    #[test]
    fn what_is_refused_is_told_before_the_list() {
        let id = InstanceId::from_seed(1);
        let reason = String::from("no such command");
        let status =
            InstanceStatus { id, address: None, healthy: None, exited: None, refused: Some(reason.clone()) };
        let listing = Listing { cursor: kiln_provider::Cursor::default(), instances: vec![status] };
        let told = listed(Position(3), &listing);
        let instances = vec![InstanceSeen { id, address: None, healthy: None, exited: None }];
        let expected = [
            Observation::InstanceRefused { id, reason },
            Observation::Listed { as_of: Position(3), instances },
        ];
        assert_eq!(told, expected);
    }
}
