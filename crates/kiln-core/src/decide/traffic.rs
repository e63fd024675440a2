//! Who gets the requests: healthy instances on duty, and the last one of a service rather than none.

use kiln_model::event::TrafficEvent;
use kiln_model::service::{Service, Strategy};
use kiln_model::{Event, InstanceId, ServiceName, Weight};

use super::work::{Deed, View};
use crate::serving::{Roles, is_routed, roles};
use crate::state::{Instance, Phase, ServiceState};

/// Takes out what must not be routed and brings in what should be, in one table.
pub(super) fn balance(view: View<'_>) -> Vec<Deed> {
    let mut weights = Vec::new();
    for (name, service) in &view.env.services {
        balance_service(view, name, service, &mut weights);
    }
    if weights.is_empty() {
        return Vec::new();
    }
    vec![Deed::Log(Event::Traffic(TrafficEvent::Shifted { weights }))]
}

fn balance_service(
    view: View<'_>,
    name: &ServiceName,
    service: &ServiceState,
    weights: &mut Vec<(InstanceId, Weight)>,
) {
    let (mut healthy, mut weak) = (0, Vec::new());
    for (ordinal, slot) in service.slots.iter() {
        let roles = roles(view.env, name, *ordinal, slot);
        let instances: Vec<&Instance> =
            slot.instances.iter().filter_map(|id| view.state.instance(*id)).collect();
        let has_successor =
            instances.iter().any(|other| other.is_routable() && roles.share_of(other) > Weight::ZERO);
        for instance in instances {
            let planned = if instance.is_routable() {
                routable(view, name, instance, &roles, has_successor)
            } else if instance.is_routed() && matches!(instance.phase, Phase::Running) {
                weak.push(instance);
                continue;
            } else {
                Weight::ZERO
            };
            healthy += u32::from(planned > Weight::ZERO);
            if planned != instance.weight {
                weights.push((instance.id, planned));
            }
        }
    }
    // An unhealthy instance may answer some requests; no instance answers none. So the last one stays until another is
    // healthy, unless it must be gone before its successor may start.
    for instance in weak {
        let is_exclusive = service_of(view, name, instance)
            .is_some_and(|service| service.strategy == Strategy::StopThenStart);
        if healthy > 0 || is_exclusive {
            weights.push((instance.id, Weight::ZERO));
        }
    }
}

/// The weight of an instance that may be routed.
fn routable(
    view: View<'_>,
    name: &ServiceName,
    instance: &Instance,
    roles: &Roles<'_>,
    has_successor: bool,
) -> Weight {
    let share = roles.share_of(instance);
    if share > Weight::ZERO {
        let takes_traffic = service_of(view, name, instance).is_some_and(is_routed);
        return if takes_traffic { share } else { Weight::ZERO };
    }
    // Nobody's any more, as after a way back that failed: it serves until the one that should is there.
    let may_stay = roles.duty.is_some() && !has_successor;
    if may_stay { instance.weight } else { Weight::ZERO }
}

fn service_of<'a>(view: View<'a>, name: &ServiceName, instance: &Instance) -> Option<&'a Service> {
    view.env.service(instance.revision(), name)
}
