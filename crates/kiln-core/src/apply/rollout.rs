//! The life of a rollout, and what its steps mean for the slots.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use kiln_model::event::RolloutEvent;
use kiln_model::rollout::{Cause, Outcome, Slots, Step, Verdict};
use kiln_model::{Entry, Position, RevisionNumber, RolloutId, ServiceName, Timestamp, Weight};

use super::{ApplyError, environment_of, queue, soak, tries};
use crate::split;
use crate::state::{
    Direction, Environment, FinishedRollout, Halt, Pause, Rollout, Room, ServiceState, Share, Slot, Split,
    State, StepPhase, Tries,
};

pub(super) fn apply(state: &mut State, entry: &Entry, event: &RolloutEvent) -> Result<(), ApplyError> {
    let is_note = matches!(
        event,
        RolloutEvent::Counted { .. } | RolloutEvent::Predicted { .. } | RolloutEvent::NotTold { .. }
    );
    if is_note {
        // The environment may be gone with its last rollout. Nothing follows from these but what is told of it.
        return Ok(());
    }
    let room = room(state, entry, event);
    let env = environment_of(state, entry)?;
    let before = told_apart(env);
    advance(env, entry, event)?;
    if let (Some(room), Some(rollout)) = (room, &mut env.rollout) {
        Arc::make_mut(rollout).room = Some(room);
    }
    if before != told_apart(env) {
        // The table says what is counted apart: it is another one, even where no weight changes.
        if let Some(rollout) = &mut env.rollout {
            Arc::make_mut(rollout).table = entry.position;
        }
        state.table.version = entry.position;
    }
    Ok(())
}

/// What the instances of the environment take when its rollout starts; none for any other event.
fn room(state: &State, entry: &Entry, event: &RolloutEvent) -> Option<Room> {
    let env = entry.env.as_ref().filter(|_| matches!(event, RolloutEvent::Started { .. }))?;
    let key = &state.environment(env)?.key;
    // In the order of their ids, which is how they lie: looked up slot by slot, thousands take much longer.
    let own = state.instances().filter(|instance| instance.slot().is_some() && instance.env == *key);
    Some(Room::begin(own))
}

/// What the table says of the rollout beside weights: what is counted apart, and for whom the edge makes requests.
fn told_apart(env: &Environment) -> (BTreeMap<ServiceName, Split>, Option<ServiceName>) {
    let splits = env.rollout.as_ref().map(|rollout| rollout.splits.clone()).unwrap_or_default();
    let helped = splits.keys().find(|name| split::synthetic(env, name).is_some()).cloned();
    (splits, helped)
}

/// The machine of a rollout.
fn advance(env: &mut Environment, entry: &Entry, event: &RolloutEvent) -> Result<(), ApplyError> {
    match (env.rollout.clone(), event) {
        (None, RolloutEvent::Started { from, to, cause, steps }) => {
            start(env, entry, (*from, *to), cause, steps)
        }
        (Some(rollout), RolloutEvent::StepStarted { index, deadline })
            if *index == rollout.next
                && rollout.step == StepPhase::Waiting
                && rollout.paused.is_none()
                && rollout.halted.is_none()
                && rollout.current_step().is_some() =>
        {
            begin_step(env, entry, &rollout, *deadline);
            Ok(())
        }
        (Some(rollout), RolloutEvent::Promoted { index })
            if *index == rollout.next
                && rollout.step != StepPhase::Waiting
                && rollout.is_promotable()
                && rollout.halted.is_none() =>
        {
            running(env).promoted = true;
            Ok(())
        }
        (
            Some(rollout),
            RolloutEvent::Analysed { .. } | RolloutEvent::Measured { .. } | RolloutEvent::Extended { .. },
        ) if may_learn(&rollout, entry, event) => {
            learned(env, entry, event);
            Ok(())
        }
        (Some(rollout), RolloutEvent::Tried { index, passed, text })
            if *index == rollout.next && tries::may_end(&rollout) =>
        {
            tries::ended(running(env), entry.at, *passed, text);
            Ok(())
        }
        (Some(rollout), RolloutEvent::StepCompleted { index })
            if *index == rollout.next && rollout.step != StepPhase::Waiting && rollout.halted.is_none() =>
        {
            let rollout = running(env);
            rollout.next += 1;
            rollout.step = StepPhase::Waiting;
            rollout.moved_at = entry.at;
            Ok(())
        }
        (Some(rollout), RolloutEvent::Paused | RolloutEvent::Resumed | RolloutEvent::Halted { .. })
            if may_hold(&rollout, entry, event) =>
        {
            hold(running(env), entry, event);
            Ok(())
        }
        (Some(rollout), RolloutEvent::GoingBack { reason, steps }) if !rollout.is_going_back() => {
            go_back(env, entry, reason, steps);
            Ok(())
        }
        (Some(rollout), RolloutEvent::Finished { outcome, reason }) if may_finish(&rollout, outcome) => {
            finish(env, entry, &rollout, outcome, reason);
            Ok(())
        }
        (rollout, event) => {
            let at = match &rollout {
                Some(rollout) => format!("a rollout runs, at step {}", rollout.next),
                None => "no rollout runs".to_owned(),
            };
            Err(ApplyError::illegal(&env.key, format!("{at}: illegal event {event:?}")))
        }
    }
}

fn begin_step(env: &mut Environment, entry: &Entry, rollout: &Rollout, deadline: Option<Timestamp>) {
    let Some(step) = rollout.current_step() else { return };
    mean(env, rollout, step);
    let rollout = running(env);
    rollout.step = StepPhase::Started { deadline };
    rollout.moved_at = entry.at;
    (rollout.promoted, rollout.undecided, rollout.extended) = (false, false, 0);
    rollout.tries = Tries::default();
    rollout.table = Position(0);
}

/// What a step that begins means for the slots.
fn mean(env: &mut Environment, rollout: &Rollout, step: &Step) {
    match step {
        Step::Shift { slots, weight, .. } => {
            shift(env, slots, rollout.target(), *weight);
            running(env).splits.retain(|name, _| slots.iter().all(|range| range.service != *name));
            running(env).measured.retain(|name, _| slots.iter().all(|range| range.service != *name));
        }
        Step::Split { service, weight, window } => {
            let split = Split { weight: *weight, window: *window, mirror: None };
            running(env).splits.insert(service.clone(), split);
            // What is measured is about this share alone, as what is counted.
            running(env).measured.remove(service);
        }
        Step::Mirror { service, share: Weight::ZERO, .. } => {
            running(env).splits.remove(service);
        }
        Step::Mirror { service, share, window } => {
            let split = Split { weight: Weight::ZERO, window: *window, mirror: Some(*share) };
            running(env).splits.insert(service.clone(), split);
        }
        Step::Create { slots } => {
            // Nothing else says that a baseline is wanted.
            for range in slots.iter().filter(|range| range.is_baseline()) {
                each_slot_mut(env, &range.service, ordinals(range), |slot| slot.duty = rollout.from);
            }
        }
        Step::Run { job, within: Some(_), .. } => {
            // It runs in each rollout that comes to it.
            if let Some(service) = env.services.get_mut(job) {
                Arc::make_mut(service).job_done = None;
            }
        }
        Step::OpenListeners
        | Step::Ask(_)
        | Step::Run { within: None, .. }
        | Step::WaitHealthy { .. }
        | Step::Hold { .. }
        | Step::Soak { .. }
        | Step::Analyse { .. }
        | Step::Approve { .. }
        | Step::Drain { .. }
        | Step::KeepWarm { .. }
        | Step::Retire { .. } => {}
    }
}

/// Whether an event is about what the canary of a service is judged by now.
fn may_learn(rollout: &Rollout, entry: &Entry, event: &RolloutEvent) -> bool {
    match event {
        RolloutEvent::Analysed { service, window, .. } | RolloutEvent::Measured { service, window, .. } => {
            rollout.splits.get(service).is_some_and(|split| split.window == *window)
        }
        RolloutEvent::Extended { index, service, times, until } => {
            let runs =
                rollout.step != StepPhase::Waiting && rollout.paused.is_none() && rollout.halted.is_none();
            let is_waited_for = matches!(
                rollout.current_step(),
                Some(Step::Analyse { service: other, .. }) if other == service && *index == rollout.next
            );
            // Whoever was asked to decide has his own time.
            let is_next = !rollout.undecided && *times == rollout.extended + 1;
            runs && is_waited_for && is_next && *until > entry.at
        }
        _ => false,
    }
}

/// What is known of a canary: the end of its analysis, that it takes its time again, or one more measurement.
fn learned(env: &mut Environment, entry: &Entry, event: &RolloutEvent) {
    match event {
        RolloutEvent::Analysed { verdict, .. } => analysed(env, entry, *verdict),
        RolloutEvent::Extended { times, until, .. } => {
            let rollout = running(env);
            rollout.extended = *times;
            rollout.step = StepPhase::Started { deadline: Some(*until) };
        }
        RolloutEvent::Measured { service, metric, finding, text, .. } => {
            let of_service = running(env).measured.entry(service.clone()).or_default();
            of_service.entry(metric.clone()).or_default().add(*finding, text);
        }
        _ => {}
    }
}

/// An analysis that came to nothing waits as long again, for somebody to decide.
fn analysed(env: &mut Environment, entry: &Entry, verdict: Verdict) {
    let rollout = running(env);
    let waits = match rollout.current_step() {
        Some(Step::Analyse { within, .. }) => Some(*within),
        _ => None,
    };
    if let (Verdict::Inconclusive, Some(within)) = (verdict, waits) {
        rollout.undecided = true;
        rollout.step = StepPhase::Started { deadline: Some(entry.at.plus(within)) };
    }
}

fn running(env: &mut Environment) -> &mut Rollout {
    Arc::make_mut(env.rollout.as_mut().expect("the caller matched a running rollout"))
}

fn start(
    env: &mut Environment,
    entry: &Entry,
    (from, to): (Option<RevisionNumber>, Option<RevisionNumber>),
    cause: &Cause,
    steps: &[Step],
) -> Result<(), ApplyError> {
    let is_known = to.is_none_or(|number| env.revisions.contains_key(&number));
    if from != env.current || !is_known {
        return Err(ApplyError::illegal(
            &env.key,
            "a rollout goes from the current revision to a retained one",
        ));
    }
    queue::begin(env, to);
    put_on_duty(env);
    place_creations(env, steps);
    env.ending = false;
    env.rollout = Some(Arc::new(Rollout {
        id: RolloutId(entry.position.0),
        started_at: entry.at,
        actor: entry.actor.clone(),
        from,
        to,
        cause: cause.clone(),
        direction: Direction::Forward,
        steps: steps.into(),
        next: 0,
        step: StepPhase::Waiting,
        moved_at: entry.at,
        table: Position(0),
        exits: 0,
        last_exit: None,
        hopeless: None,
        paused: None,
        halted: None,
        splits: BTreeMap::new(),
        measured: BTreeMap::new(),
        promoted: false,
        undecided: false,
        extended: 0,
        tries: Tries::default(),
        room: None,
    }));
    Ok(())
}

/// Writes down which revision every slot of the current one works for, so that it can change slot by slot. What a
/// rollout that was superseded left in place stays as it is.
fn put_on_duty(env: &mut Environment) {
    let Some(spec) = env.spec(env.current) else { return };
    let services: Vec<(ServiceName, u32)> =
        spec.services.keys().map(|name| (name.clone(), env.replicas(env.current, name))).collect();
    let current = env.current;
    for (name, replicas) in services {
        each_slot_mut(env, &name, 0..replicas, |slot| slot.duty = slot.duty.or(current));
    }
}

/// Writes down from which step on each slot's new instance is to exist. Back-offs end: somebody asked for another try.
fn place_creations(env: &mut Environment, steps: &[Step]) {
    for service in env.services.values_mut() {
        let service = Arc::make_mut(service);
        service.resting.clear();
        for slot in service.slots.values_mut() {
            let is_clear =
                slot.create_step.is_none() && slot.backoff.is_none() && slot.share == Share::default();
            if !is_clear {
                let slot = Arc::make_mut(slot);
                (slot.create_step, slot.backoff, slot.share) = (None, None, Share::default());
            }
        }
    }
    for (index, step) in (0u32..).zip(steps) {
        let Step::Create { slots } = step else { continue };
        for range in slots {
            each_slot_mut(env, &range.service, ordinals(range), |slot| {
                slot.create_step.get_or_insert(index);
            });
        }
    }
}

fn shift(env: &mut Environment, slots: &[Slots], target: Option<RevisionNumber>, weight: Weight) {
    for range in slots {
        each_slot_mut(env, &range.service, ordinals(range), |slot| {
            if weight == Weight::FULL {
                (slot.duty, slot.share) = (target, Share::default());
            } else {
                slot.share = Share(weight);
            }
        });
    }
}

fn go_back(env: &mut Environment, entry: &Entry, reason: &str, steps: &[Step]) {
    place_creations(env, steps);
    let rollout = running(env);
    rollout.direction = Direction::Back { reason: reason.into() };
    rollout.steps = steps.into();
    rollout.next = 0;
    rollout.step = StepPhase::Waiting;
    rollout.moved_at = entry.at;
    rollout.table = Position(0);
    rollout.exits = 0;
    rollout.last_exit = None;
    rollout.hopeless = None;
    // Whoever paused it did not want it to go on; now it does not, and what failed must not stay half-way.
    (rollout.paused, rollout.halted) = (None, None);
    (rollout.splits, rollout.measured) = (BTreeMap::new(), BTreeMap::new());
    (rollout.promoted, rollout.undecided, rollout.extended) = (false, false, 0);
    rollout.tries = Tries::default();
}

/// Whether a rollout that goes forward may be held up by this, or let go on.
fn may_hold(rollout: &Rollout, entry: &Entry, event: &RolloutEvent) -> bool {
    let is_held = rollout.paused.is_some() || rollout.halted.is_some();
    match event {
        RolloutEvent::Paused => !is_held && !rollout.is_going_back(),
        RolloutEvent::Resumed => rollout.paused.is_some(),
        RolloutEvent::Halted { until, .. } => {
            rollout.halted.is_none() && !rollout.is_going_back() && *until > entry.at
        }
        _ => false,
    }
}

fn hold(rollout: &mut Rollout, entry: &Entry, event: &RolloutEvent) {
    match event {
        RolloutEvent::Paused => {
            rollout.paused = Some(Pause { by: entry.actor.clone(), since: entry.at });
        }
        RolloutEvent::Resumed => resume(rollout, entry.at),
        RolloutEvent::Halted { reason, until } => halt(rollout, reason, *until),
        _ => {}
    }
}

/// What is tried out gets no request any more, and nothing else changes. It waits for somebody: nobody need resume it first.
fn halt(rollout: &mut Rollout, reason: &str, until: Timestamp) {
    rollout.halted = Some(Halt { reason: reason.into(), until });
    rollout.paused = None;
    (rollout.splits, rollout.measured) = (BTreeMap::new(), BTreeMap::new());
}

/// The time of the pause is no time that passed.
fn resume(rollout: &mut Rollout, now: Timestamp) {
    let Some(pause) = rollout.paused.take() else { return };
    let paused_for = now.since(pause.since);
    rollout.moved_at = rollout.moved_at.plus(paused_for);
    rollout.tries.due = rollout.tries.due.plus(paused_for);
    if let StepPhase::Started { deadline: Some(deadline) } = &mut rollout.step {
        // A step that began during the pause does not exist: what runs has run since before it.
        *deadline = deadline.plus(paused_for);
    }
}

fn may_finish(rollout: &Rollout, outcome: &Outcome) -> bool {
    let is_through = rollout.current_step().is_none();
    match outcome {
        Outcome::Completed => is_through && !rollout.is_going_back() && rollout.halted.is_none(),
        Outcome::WentBack => is_through && rollout.is_going_back(),
        Outcome::Stuck => rollout.is_going_back(),
        Outcome::Superseded => true,
    }
}

fn finish(env: &mut Environment, entry: &Entry, rollout: &Rollout, outcome: &Outcome, reason: &str) {
    if *outcome == Outcome::Completed {
        env.current = rollout.to;
        env.ending = rollout.to.is_none();
        if let Some(number) = rollout.to {
            env.completed.retain(|other| *other != number);
            env.completed.push(number);
        }
        soak::reached(env, entry.at);
        end_overrides(env);
    }
    env.rollout = None;
    env.last_rollout = Some(Arc::new(FinishedRollout {
        id: rollout.id,
        started_at: rollout.started_at,
        finished_at: entry.at,
        actor: rollout.actor.clone(),
        from: rollout.from,
        to: rollout.to,
        cause: rollout.cause.clone(),
        outcome: outcome.clone(),
        reason: reason.into(),
        extra: rollout.room.map(|room| room.extra()),
    }));
    if *outcome != Outcome::Superseded {
        stand_down(env);
    }
}

/// A revision that declares another number than the one that was overruled takes the decision back.
fn end_overrides(env: &mut Environment) {
    let names: Vec<ServiceName> = env.services.keys().cloned().collect();
    for name in names {
        let declared = env.service(env.current, &name).map(|service| service.replicas);
        let state = env.services.get_mut(&name).expect("the name is one of its keys");
        if state.replicas.is_some_and(|other| Some(other.declared) != declared) {
            Arc::make_mut(state).replicas = None;
        }
    }
}

/// Outside a rollout every slot works for the current revision.
fn stand_down(env: &mut Environment) {
    let mut blank = Vec::new();
    for (name, service) in &mut env.services {
        let service = Arc::make_mut(service);
        for slot in service.slots.values_mut() {
            if slot.duty.is_some() || slot.create_step.is_some() || slot.share != Share::default() {
                let slot = Arc::make_mut(slot);
                (slot.duty, slot.create_step, slot.share) = (None, None, Share::default());
            }
        }
        let idle = service.slots.iter().filter(|(_, slot)| ***slot == Slot::default());
        blank.extend(idle.map(|(ordinal, _)| (name.clone(), *ordinal)));
    }
    for (name, ordinal) in blank {
        super::environment::prune(env, &name, ordinal);
    }
}

fn ordinals(range: &Slots) -> Range<u32> {
    range.first..range.first.saturating_add(range.count)
}

/// Changes these slots of a service; those that are not there are made.
fn each_slot_mut(
    env: &mut Environment,
    service: &ServiceName,
    ordinals: Range<u32>,
    mut change: impl FnMut(&mut Slot),
) {
    if ordinals.is_empty() {
        return;
    }
    let state = service_mut(env, service);
    let (mut next, mut missing) = (ordinals.start, Vec::new());
    for (ordinal, slot) in state.slots.range_mut(&ordinals.start).take_while(|(at, _)| **at < ordinals.end) {
        missing.extend(next..*ordinal);
        next = *ordinal + 1;
        change(Arc::make_mut(slot));
    }
    for ordinal in missing.into_iter().chain(next..ordinals.end) {
        let mut slot = Slot::default();
        change(&mut slot);
        state.slots.insert(ordinal, Arc::new(slot));
    }
}

pub(super) fn slot_mut<'a>(env: &'a mut Environment, service: &ServiceName, ordinal: u32) -> &'a mut Slot {
    Arc::make_mut(service_mut(env, service).slots.get_or_insert_default(&ordinal))
}

fn service_mut<'a>(env: &'a mut Environment, service: &ServiceName) -> &'a mut ServiceState {
    Arc::make_mut(env.services.entry(service.clone()).or_default())
}
