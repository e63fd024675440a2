//! The way back after a failure: traffic first, then instances.

use kiln_model::rollout::{Slots, Step};
use kiln_model::service::Strategy;
use kiln_model::{RevisionNumber, Weight};

use super::forward::{Between, stop_then_start};
use super::moves::moves;
use super::{drain, progress, runs};
use crate::state::{Environment, State};

/// Returns the steps that take an environment back to `from` while a rollout runs; none means that nothing served before.
///
/// Whatever of the old revision still lives gets the traffic back in the first step. What is missing is created again,
/// and takes over once it is healthy. Then the new instances go; none is kept warm.
pub(crate) fn expand_back(state: &State, env: &Environment, from: Option<RevisionNumber>) -> Vec<Step> {
    let (mut ready, mut first, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    let (mut old, mut exclusive) = (Vec::new(), Vec::new());
    for (name, moves) in moves(state, env, from) {
        let leaving = runs(&name, moves.leave.iter().copied());
        first.extend(leaving.clone());
        old.extend(runs(&name, moves.tidy.iter().copied()));
        old.extend(leaving);
        let service = env.service(from, &name).filter(|_| !moves.enter.is_empty());
        let Some(service) = service else { continue };
        if service.strategy == Strategy::StopThenStart {
            exclusive.extend(stop_then_start(
                service,
                moves.entering(&name),
                &moves.old(&name),
                Between::default(),
            ));
            continue;
        }
        let (lives, lacks): (Vec<_>, Vec<_>) = moves.enter.iter().partition(|slot| slot.is_ready);
        let lives = runs(&name, lives.iter().map(|slot| slot.ordinal));
        let lacks = runs(&name, lacks.iter().map(|slot| slot.ordinal));
        first.extend(lives.clone());
        old.extend(lives.clone());
        old.extend(lacks.clone());
        ready.extend(lives);
        missing.extend(lacks);
    }
    let mut steps = Vec::new();
    if !ready.is_empty() {
        // They exist: the step recalls those that were kept warm.
        steps.push(Step::Create { slots: ready });
    }
    let serve_routes = env.routes != from;
    if serve_routes || !first.is_empty() {
        steps.push(Step::Shift { slots: first, weight: Weight::FULL, serve_routes });
    }
    steps.extend(recreate(env, from, missing));
    steps.extend(exclusive);
    if !old.is_empty() {
        let within = drain(env, from, &old);
        steps.push(Step::Drain { slots: old.clone(), within });
        steps.push(Step::Retire { slots: old });
    }
    steps
}

fn recreate(env: &Environment, from: Option<RevisionNumber>, slots: Vec<Slots>) -> Vec<Step> {
    if slots.is_empty() {
        return Vec::new();
    }
    let within = progress(env, from, &slots);
    vec![
        Step::Create { slots: slots.clone() },
        Step::WaitHealthy { slots: slots.clone(), within },
        Step::Shift { slots, weight: Weight::FULL, serve_routes: false },
    ]
}
