//! What another number of replicas means for a rollout that runs.

use std::sync::Arc;

use kiln_model::ServiceName;
use kiln_model::rollout::{BASELINE_FIRST, Slots, Step};
use kiln_model::service::Strategy;

use super::rollout::slot_mut;
use crate::serving::want;
use crate::state::{Environment, Rollout};

/// Lets the slots that a service got take part in the rollout that runs, if one does.
///
/// What serves fills them at once. A step that goes up to the last slot of the plan goes up to the last one that there is now,
/// so that all of them are switched together. Rolling services have no such step: theirs, and those of canaries with a bound, follow when
/// the rollout has ended, as after any other change.
pub(super) fn follow(env: &mut Environment, name: &ServiceName) {
    let Some(rollout) = env.rollout.clone() else { return };
    let replicas = env.replicas(env.current, name).max(env.replicas(rollout.target(), name));
    let planned = end_of_plan(&rollout, name).filter(|_| !is_batched(env, &rollout, name));
    let rollout = match planned {
        Some(end) if end < replicas => {
            let running = Arc::make_mut(env.rollout.as_mut().expect("it was just read"));
            running.steps = running.steps.iter().map(|step| widened(step, name, end, replicas)).collect();
            let rollout = running.clone();
            for ordinal in end..replicas {
                let create_step = creation_of(&rollout, name, ordinal);
                slot_mut(env, name, ordinal).create_step = create_step;
            }
            rollout
        }
        _ => Rollout::clone(&rollout),
    };
    for ordinal in 0..replicas {
        let has_duty = env.slot(name, ordinal).is_some_and(|slot| slot.duty.is_some());
        let has_moved = has_moved(&rollout, name, ordinal);
        if !has_duty && (has_moved || want(env, env.current, name, ordinal).is_some()) {
            let duty = if has_moved { rollout.target() } else { env.current };
            slot_mut(env, name, ordinal).duty = duty;
        }
    }
}

/// Whether a service moves a few slots at a time: a step for more of them would take out more than it may.
fn is_batched(env: &Environment, rollout: &Rollout, name: &ServiceName) -> bool {
    let target = env.service(rollout.target(), name);
    target.is_some_and(|service| match &service.strategy {
        Strategy::Rolling { .. } => true,
        Strategy::Canary(canary) => canary.max_surge.is_some(),
        Strategy::BlueGreen | Strategy::StopThenStart => false,
    })
}

/// The ordinal after the last one that the steps name.
fn end_of_plan(rollout: &Rollout, name: &ServiceName) -> Option<u32> {
    let all = rollout.steps.iter().flat_map(slots_of);
    all.filter(|range| range.service == *name && !range.is_baseline())
        .map(|range| range.first + range.count)
        .max()
}

fn slots_of(step: &Step) -> &[Slots] {
    match step {
        Step::Create { slots }
        | Step::WaitHealthy { slots, .. }
        | Step::Shift { slots, .. }
        | Step::Drain { slots, .. }
        | Step::KeepWarm { slots, .. }
        | Step::Retire { slots } => slots,
        Step::OpenListeners
        | Step::Run { .. }
        | Step::Ask(_)
        | Step::Split { .. }
        | Step::Mirror { .. }
        | Step::Hold { .. }
        | Step::Soak { .. }
        | Step::Analyse { .. }
        | Step::Approve { .. } => &[],
    }
}

/// The step with the ranges that ended at `end` going up to `replicas`.
fn widened(step: &Step, name: &ServiceName, end: u32, replicas: u32) -> Step {
    let mut step = step.clone();
    let (Step::Create { slots }
    | Step::WaitHealthy { slots, .. }
    | Step::Shift { slots, .. }
    | Step::Drain { slots, .. }
    | Step::KeepWarm { slots, .. }
    | Step::Retire { slots }) = &mut step
    else {
        return step;
    };
    let is_last = |range: &&mut Slots| range.service == *name && range.first + range.count == end;
    for range in slots.iter_mut().filter(is_last) {
        range.count = replicas.min(BASELINE_FIRST) - range.first;
    }
    step
}

/// The step that creates the target's instance in a slot.
fn creation_of(rollout: &Rollout, name: &ServiceName, ordinal: u32) -> Option<u32> {
    let creates = |step: &Step| matches!(step, Step::Create { slots } if holds(slots, name, ordinal));
    (0u32..).zip(rollout.steps.iter()).find(|(_, step)| creates(step)).map(|(index, _)| index)
}

/// Whether the step that gives a slot to the target has begun.
fn has_moved(rollout: &Rollout, name: &ServiceName, ordinal: u32) -> bool {
    let moves = |step: &Step| {
        matches!(step, Step::Shift { slots, weight, .. }
            if *weight == kiln_model::Weight::FULL && holds(slots, name, ordinal))
    };
    (0u32..).zip(rollout.steps.iter()).any(|(index, step)| rollout.has_begun(index) && moves(step))
}

fn holds(slots: &[Slots], name: &ServiceName, ordinal: u32) -> bool {
    slots.iter().any(|range| range.service == *name && range.contains(ordinal))
}
