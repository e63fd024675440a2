//! The steady state, and what must hold during a rollout as well: every slot is filled, by another instance after a
//! failure, and what nobody wants goes.

use std::sync::Arc;

use kiln_model::event::InstanceEvent;
use kiln_model::rollout::{BASELINE_FIRST, Step};
use kiln_model::service::{ServiceKind, Strategy};
use kiln_model::{Millis, ServiceName};

use super::focus::Reach;
use super::work::{Deed, View, brief};
use crate::bounds::WARM_PER_SLOT_MAX;
use crate::serving::{Roles, Want, Wants, is_routed};
use crate::state::{Health, Instance, Phase, Slot, StepPhase};

/// An instance without a health check counts as healthy once it has run for a moment.
pub(super) fn settle(view: View<'_>) -> Vec<Deed> {
    let is_due = view.state.timers.keys().next().is_some_and(|(moment, _)| *moment <= view.now);
    let instances = view.instances().take_while(|_| is_due).filter(|instance| has_settled(view, instance));
    instances.map(|instance| Deed::instance(instance.id, InstanceEvent::BecameHealthy)).collect()
}

fn has_settled(view: View<'_>, instance: &Instance) -> bool {
    instance.phase == Phase::Running && instance.settles_at().is_some_and(|moment| moment <= view.now)
}

/// Fills what is empty and sends away what is not wanted.
pub(super) fn fill(view: View<'_>) -> Vec<Deed> {
    let (mut deeds, mut there, mut present) = (Vec::new(), Vec::new(), Vec::new());
    for (name, service) in view.services() {
        let wants = Wants::new(view.env, name);
        for (ordinal, slot) in view.slots_of(name, service) {
            let roles = wants.roles(ordinal, slot);
            there.clear();
            there.extend(slot.instances.iter().filter_map(|id| view.state.instance(*id)));
            if !is_well(view, slot, &there, &roles) {
                fill_slot(view, &wants, (ordinal, slot), (&there, &mut present), &mut deeds);
            }
        }
    }
    let blank = Slot::default();
    for (name, ordinal) in missing(view) {
        let wants = Wants::new(view.env, name);
        fill_slot(view, &wants, (ordinal, &blank), (&[], &mut present), &mut deeds);
    }
    deeds
}

/// The slots that the current revision says there are and that hold nothing. A rollout writes down every slot that it
/// knows.
fn missing(view: View<'_>) -> Vec<(&ServiceName, u32)> {
    if view.env.rollout.is_some() {
        return Vec::new();
    }
    let mut missing = Vec::new();
    for name in view.env.spec(view.env.current).into_iter().flat_map(|spec| spec.services.keys()) {
        let replicas = view.env.replicas(view.env.current, name);
        let slots = view.env.services.get(name).map(|service| &service.slots);
        let is_missing = |ordinal: &u32| slots.is_none_or(|slots| !slots.contains_key(ordinal));
        match view.reach(name) {
            Some(Reach::Whole) => missing.extend((0..replicas).filter(is_missing).map(|at| (name, at))),
            Some(Reach::Slots(touched)) => {
                let touched = touched.iter().copied().filter(|ordinal| *ordinal < replicas);
                missing.extend(touched.filter(is_missing).map(|at| (name, at)));
            }
            None => {}
        }
    }
    missing
}

/// Whether a slot holds one of each that it is to hold, in good health, and nothing else: most do, and there is nothing to do.
fn is_well(view: View<'_>, slot: &Slot, there: &[&Instance], roles: &Roles<'_>) -> bool {
    let holds = |instance: &Instance, want: Want<'_>| {
        let is_it = want.fits(instance) && instance.revision() == Some(want.revision);
        is_it && instance.is_hopeful() && want.service.kind != ServiceKind::Job
    };
    match (there, roles.duty, roles.next) {
        ([one], Some(duty), None) => holds(one, duty),
        ([one], Some(duty), Some(_)) => {
            let has_begun = |step| view.env.rollout.as_ref().is_none_or(|rollout| rollout.has_begun(step));
            !slot.create_step.is_some_and(has_begun) && holds(one, duty)
        }
        ([old, new], Some(duty), Some(next)) => holds(old, duty) && holds(new, next),
        _ => false,
    }
}

fn fill_slot<'a>(
    view: View<'_>,
    wants: &Wants<'_>,
    (ordinal, slot): (u32, &Slot),
    (all, present): (&[&'a Instance], &mut Vec<&'a Instance>),
    deeds: &mut Vec<Deed>,
) {
    let (name, roles) = (wants.name(), &wants.roles(ordinal, slot));
    present.clear();
    for instance in all.iter().copied().filter(|instance| !instance.phase.is_leaving()) {
        match reason_to_go(view, wants, roles, instance) {
            // What is routed is unrouted first; that is the traffic's rule.
            Some(reason) if !instance.is_routed() => deeds.push(retiring(view, name, instance, reason)),
            Some(_) => {}
            None => present.push(instance),
        }
    }
    let before = deeds.len();
    for want in wanted(view, slot, roles) {
        let is_filled = present.iter().any(|instance| want.fits(instance) && instance.is_hopeful());
        if is_filled {
            continue;
        }
        if let Some(warm) = recallable(present, want) {
            deeds.push(Deed::instance(warm.id, InstanceEvent::Recalled));
        } else if may_create(view, slot, all, want) {
            let (revision, spec) = (want.revision, want.digest());
            // Of one that is there beside it nothing can be too much.
            let is_all = present.len() <= 1;
            deeds.push(Deed::Create { service: name.clone(), ordinal, revision, spec, is_all });
        }
    }
    if deeds.len() == before {
        // Only once the slot has what it wants is the rest too much.
        surplus(view, name, roles, present, deeds);
    }
}

/// What the slot must hold now.
fn wanted<'a>(view: View<'a>, slot: &Slot, roles: &Roles<'a>) -> impl Iterator<Item = Want<'a>> {
    let rollout = view.env.rollout.as_ref();
    let may_create = |step: u32| rollout.is_none_or(|rollout| rollout.has_begun(step));
    // A slot that moves before its new instance is created waits for the step that creates it.
    let target = view.env.target();
    let duty = roles.duty.filter(|duty| {
        // What failed is not tried again on the way back; the slot gets what was there before.
        let is_given_up = rollout.is_some_and(|rollout| {
            rollout.is_going_back() && rollout.to == Some(duty.revision) && rollout.from != rollout.to
        });
        if is_given_up {
            return false;
        }
        let is_moved = rollout.is_some() && Some(duty.revision) == target;
        !is_moved || slot.create_step.is_none_or(may_create)
    });
    let next = roles.next.filter(|_| slot.create_step.is_some_and(may_create));
    duty.into_iter().chain(next)
}

/// The instance that was kept warm and is what the slot wants again.
fn recallable<'a>(present: &[&'a Instance], want: Want<'_>) -> Option<&'a Instance> {
    let is_warm = |instance: &&&Instance| {
        let lives = matches!(instance.phase, Phase::Warm { .. }) && instance.health == Health::Healthy;
        lives && want.fits(instance)
    };
    present.iter().rev().find(is_warm).copied()
}

/// Whether a new instance may be created in the slot now.
fn may_create(view: View<'_>, slot: &Slot, all: &[&Instance], want: Want<'_>) -> bool {
    // What must not run twice is created once the slot is empty, and not before.
    let is_exclusive = want.service.strategy == Strategy::StopThenStart;
    let rests = slot.backoff.is_some_and(|rest| rest.spec == want.digest() && rest.not_before > view.now);
    !rests && (!is_exclusive || all.is_empty())
}

/// Why an instance should not stay in its slot; none if it should.
fn reason_to_go(
    view: View<'_>,
    wants: &Wants<'_>,
    roles: &Roles<'_>,
    instance: &Instance,
) -> Option<Arc<str>> {
    let (name, service) = (wants.name(), wants.service(instance.revision()));
    if let Phase::Ended { refused } = &instance.phase {
        return Some(match (refused, instance.exit) {
            (Some(reason), _) => format!("it can't be created: {reason}").into(),
            (None, Some(status)) => format!("it {status}").into(),
            (None, None) => "it ended".into(),
        });
    }
    if service.is_some_and(|service| service.kind == ServiceKind::Job) {
        let is_running = is_running_job(view, name, instance);
        return (!is_running).then(|| "the job is not wanted any more".into());
    }
    let is_on_duty = roles.duty.is_some_and(|duty| duty.fits(instance));
    let is_next = roles.next.is_some_and(|next| next.fits(instance));
    if let Health::Unhealthy { reason } = &instance.health {
        let is_wanted = is_on_duty || is_next || matches!(instance.phase, Phase::Warm { .. });
        if is_wanted {
            return Some(format!("it is unhealthy: {reason}").into());
        }
    }
    if let Phase::Warm { until } = instance.phase {
        // There is no way back that it could serve.
        if view.env.target().is_none() {
            return Some("everything goes".into());
        }
        let is_over = until <= view.now;
        let is_exclusive = roles.duty.is_some_and(|duty| duty.service.strategy == Strategy::StopThenStart);
        return (is_over || is_exclusive).then(|| "it was kept warm long enough".into());
    }
    if is_on_duty || is_next {
        return None;
    }
    // During a rollout what was routed waits for the step that drains it; what never was has nothing to wait for, and what its
    // own revision has no place for any more is not the rollout's.
    let is_beyond =
        |ordinal| ordinal < BASELINE_FIRST && ordinal >= view.env.replicas(instance.revision(), name);
    let was_scaled_down = service.is_some() && instance.slot().is_some_and(|(_, ordinal)| is_beyond(ordinal));
    let may_go = view.env.rollout.is_none() || instance.was_never_routed() || was_scaled_down;
    may_go.then(|| "it is not wanted any more".into())
}

fn is_running_job(view: View<'_>, name: &ServiceName, instance: &Instance) -> bool {
    let Some(rollout) = &view.env.rollout else { return false };
    let is_current = matches!(rollout.current_step(), Some(Step::Run { job, .. }) if job == name)
        && rollout.step != StepPhase::Waiting;
    let target = view.env.service(rollout.target(), name);
    is_current && target.is_some_and(|service| service.spec_digest == instance.spec_digest)
}

/// One instance of a spec is enough for a slot: the one that serves, or the healthiest, or the oldest. One that is warm is
/// kept beside it, the newest.
fn surplus(
    view: View<'_>,
    name: &ServiceName,
    roles: &Roles<'_>,
    present: &[&Instance],
    deeds: &mut Vec<Deed>,
) {
    for want in roles.duty.iter().chain(&roles.next) {
        let mut copies: Vec<&Instance> =
            present.iter().copied().filter(|instance| want.fits(instance) && instance.is_hopeful()).collect();
        copies.sort_by_key(|instance| {
            let is_healthy = instance.health == Health::Healthy;
            (!instance.is_routed(), !is_healthy, instance.requested)
        });
        let extra = copies.into_iter().skip(1).filter(|instance| !instance.is_routed());
        deeds.extend(
            extra.map(|instance| retiring(view, name, instance, "another one fills its slot".into())),
        );
    }
    let mut warm: Vec<&Instance> =
        present.iter().copied().filter(|instance| matches!(instance.phase, Phase::Warm { .. })).collect();
    // Ids are random: what was routed last was taken out last.
    warm.sort_by_key(|instance| std::cmp::Reverse(instance.unrouted));
    let extra = warm.into_iter().skip(WARM_PER_SLOT_MAX);
    deeds.extend(extra.map(|instance| retiring(view, name, instance, "a newer one is kept warm".into())));
}

/// The intent that an instance goes. Whoever is dead, or never had a request, has nothing to drain.
pub(super) fn retiring(view: View<'_>, name: &ServiceName, instance: &Instance, reason: Arc<str>) -> Deed {
    let service = view.env.service(instance.revision(), name);
    let drains = instance.unrouted.is_some() && instance.exit.is_none();
    let drain_within = match service.filter(|service| drains && is_routed(service)) {
        Some(service) => service.bounds.drain_deadline,
        None => Millis(0),
    };
    let reason = brief(&reason);
    Deed::instance(instance.id, InstanceEvent::Retiring { reason, drain_within })
}
