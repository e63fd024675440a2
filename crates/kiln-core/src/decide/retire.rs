//! The way out: unroute, wait for the edge, drain, destroy.

use kiln_model::event::InstanceEvent;

use super::work::{Deed, View};
use crate::observed::Observed;
use crate::state::{Instance, Phase, State};
use kiln_model::Timestamp;

/// Moves every instance that is to go as far as it may.
pub(super) fn advance(view: View<'_>) -> Vec<Deed> {
    let is_any = !view.state.leaving.is_empty();
    let instances = view.instances().take_while(|_| is_any);
    instances.filter_map(|instance| advance_one(view.state, view.observed, view.now, instance)).collect()
}

/// Moves one instance that is to go as far as it may.
pub(super) fn advance_one(
    state: &State,
    observed: &Observed,
    now: Timestamp,
    instance: &Instance,
) -> Option<Deed> {
    let grace = instance.spec.stop.grace;
    let is_dead = instance.exit.is_some();
    let event = match &instance.phase {
        Phase::Retiring { drain_within, .. } if is_let_go(state, instance) => {
            if is_dead || instance.unrouted.is_none() {
                InstanceEvent::Destroying { grace, cut: false }
            } else {
                InstanceEvent::Draining { deadline: now.plus(*drain_within) }
            }
        }
        Phase::Draining { deadline, .. } => {
            let is_idle = is_dead || is_idle(observed, instance);
            if !is_idle && now < *deadline {
                return None;
            }
            InstanceEvent::Destroying { grace, cut: !is_idle }
        }
        Phase::Requested
        | Phase::Running
        | Phase::Warm { .. }
        | Phase::Ended { .. }
        | Phase::Retiring { .. }
        | Phase::Destroying { .. } => return None,
    };
    Some(Deed::instance(instance.id, event))
}

/// Whether no table that the edge may serve names the instance.
pub(super) fn is_let_go(state: &State, instance: &Instance) -> bool {
    !instance.is_routed() && instance.unrouted.is_none_or(|version| state.is_acknowledged(version))
}

/// Whether the edge said that nothing is in flight to an instance since it was taken out of the routes.
pub(super) fn is_idle(observed: &Observed, instance: &Instance) -> bool {
    instance.unrouted.is_none_or(|version| observed.is_idle(instance.id, version))
}
