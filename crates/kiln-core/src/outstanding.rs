//! What is still to be done: derived from the state alone, so that nothing that was decided is forgotten.

use std::sync::Arc;

use kiln_model::event::Purpose;
use kiln_model::rollout::Step;
use kiln_model::{Fence, Millis, Position, ServiceName};

use crate::action::{Action, ActionKind};
use crate::state::{Environment, Instance, ListenerPhase, Phase, State, StepPhase};
use crate::table::route_table;

/// Returns every action that is still to be done, each with the current term and the position of its intent.
///
/// Issuing one again is harmless. After a restart all of them are issued, under the new term.
pub fn outstanding(state: &State) -> Vec<Action> {
    let mut actions = Vec::new();
    open_listeners(state, &mut actions);
    for id in state.pending.keys() {
        if let Some(instance) = state.instances.get(id) {
            actions.extend(of_instance(state, instance));
        }
    }
    for (id, since) in &state.disowned {
        // It is nobody's: there is nothing to drain and nobody to wait for.
        let kind = ActionKind::DestroyInstance { id: *id, grace: Millis(0) };
        actions.push(action(state, *since, kind));
    }
    for env in state.environments() {
        await_drain_step(state, env, &mut actions);
    }
    if !state.is_acknowledged(state.table.version) {
        let kind = ActionKind::PublishTable(Arc::new(route_table(state)));
        actions.push(action(state, state.table.version, kind));
    }
    close_listeners(state, &mut actions);
    actions
}

fn action(state: &State, intent: Position, kind: ActionKind) -> Action {
    Action { fence: Fence { term: state.term, position: intent }, kind }
}

fn open_listeners(state: &State, actions: &mut Vec<Action>) {
    for (listener, found) in &state.listeners {
        let is_open = match &found.phase {
            ListenerPhase::Requested => false,
            ListenerPhase::Open { term } => *term == state.term,
            ListenerPhase::Failed { .. } | ListenerPhase::Releasing => continue,
        };
        if !is_open {
            actions.push(action(state, found.since, ActionKind::OpenListener(*listener)));
        }
    }
}

fn close_listeners(state: &State, actions: &mut Vec<Action>) {
    for (listener, found) in &state.listeners {
        if found.phase == ListenerPhase::Releasing && state.is_acknowledged(found.since) {
            actions.push(action(state, found.since, ActionKind::CloseListener(*listener)));
        }
    }
}

fn of_instance(state: &State, instance: &Instance) -> Option<Action> {
    match &instance.phase {
        Phase::Requested => Some(create(state, instance)),
        Phase::Draining { .. } => {
            let asked = instance.unrouted?;
            Some(action(state, asked, ActionKind::AwaitIdle(instance.id)))
        }
        Phase::Destroying { grace, since, .. } => {
            let kind = ActionKind::DestroyInstance { id: instance.id, grace: *grace };
            Some(action(state, *since, kind))
        }
        Phase::Running | Phase::Warm { .. } | Phase::Ended { .. } | Phase::Retiring { .. } => None,
    }
}

fn create(state: &State, instance: &Instance) -> Action {
    let service = match &instance.purpose {
        Purpose::Slot { slot, .. } => slot.service.clone(),
        Purpose::Check(_) => ServiceName::new("check").expect("a fixed name that follows the rule"),
    };
    let kind = ActionKind::CreateInstance {
        id: instance.id,
        env: instance.env.clone(),
        service,
        internal: state.environment(&instance.env).and_then(Environment::internal_listener),
        spec: instance.spec.clone(),
    };
    action(state, instance.requested, kind)
}

/// A rollout may wait for the requests in flight to instances that are to stay warm.
fn await_drain_step(state: &State, env: &Environment, actions: &mut Vec<Action>) {
    let Some(rollout) = env.rollout.as_ref().filter(|rollout| rollout.step != StepPhase::Waiting) else {
        return;
    };
    let Some(Step::Drain { slots, .. }) = rollout.current_step() else { return };
    for range in slots {
        let Some(service) = env.services.get(&range.service) else { continue };
        for (_, slot) in service.slots.iter().filter(|(ordinal, _)| range.contains(**ordinal)) {
            for instance in slot.instances.iter().filter_map(|id| state.instance(*id)) {
                if instance.phase != Phase::Running || instance.is_routed() {
                    continue;
                }
                if let Some(asked) = instance.unrouted.filter(|version| state.is_acknowledged(*version)) {
                    actions.push(action(state, asked, ActionKind::AwaitIdle(instance.id)));
                }
            }
        }
    }
}
