//! Who gets the requests: healthy instances on duty, and the last one of a service rather than none.

use kiln_model::event::TrafficEvent;
use kiln_model::rollout::BASELINE_FIRST;
use kiln_model::route::Group;
use kiln_model::service::{Service, Strategy};
use kiln_model::{Event, InstanceId, RevisionNumber, ServiceName, Weight};

use super::work::{Deed, View};
use crate::serving::{Roles, Wants, is_routed};
use crate::split::{self, Audition};
use crate::state::{Environment, Instance, Phase, ServiceState, Share, Slot, State};

/// Takes out what must not be routed and brings in what should be, in one table.
pub(super) fn balance(view: View<'_>) -> Vec<Deed> {
    let mut weights = Vec::new();
    for (name, service) in view.services() {
        if view.focus.is_stirred(name) && !is_as_before(view, name) {
            balance_service(view, name, service, &mut weights);
        }
    }
    if weights.is_empty() {
        return Vec::new();
    }
    vec![Deed::Log(Event::Traffic(TrafficEvent::Shifted { weights }))]
}

/// Serves the routes of the current revision again, after a way back that got stuck with those of another: once each of its
/// services has somebody who answers, so that nothing is lost by it.
pub(super) fn return_routes(view: View<'_>) -> Vec<Deed> {
    let env = view.env;
    if env.rollout.is_some() || env.ending || env.routes == env.current {
        return Vec::new();
    }
    let Some(spec) = env.spec(env.current) else { return Vec::new() };
    let serves = |instance: &Instance, service: &Service| {
        instance.is_routed() && instance.is_routable() && instance.spec_digest == service.spec_digest
    };
    let is_served = |(name, service): (&ServiceName, &Service)| {
        let own = |instance: &&Instance| instance.slot().is_some_and(|(other, _)| other == name);
        !is_routed(service)
            || view.state.instances_of(env).filter(own).any(|instance| serves(instance, service))
    };
    if !spec.services.iter().all(is_served) {
        return Vec::new();
    }
    vec![Deed::Log(Event::Traffic(TrafficEvent::RoutesServed { revision: env.current }))]
}

/// Whether all that the requests of a service go by is as it was when nothing was left to be done about them.
///
/// Where more than a few slots were touched nobody asks: there the answer would cost as much as a look at all.
fn is_as_before(view: View<'_>, name: &ServiceName) -> bool {
    let Some((slots, (before, env))) = view.touched(name).zip(view.before) else { return false };
    let (now, then) = (Rank::of(view.state, view.env, name), Rank::of(before, env, name));
    let (Some(now), Some(then)) = (now, then) else { return false };
    slots.iter().all(|ordinal| now.slot(*ordinal) == then.slot(*ordinal))
}

/// What counts of the slots of a service where requests are sent.
struct Rank<'a> {
    state: &'a State,
    service: &'a ServiceState,
    is_split: bool,
    wants: Wants<'a>,
    audition: Audition<'a>,
}

/// What counts of a slot: who does its work, its share, and of each instance that has requests or is to have some, whether it
/// can answer and whether it runs.
type Standing = (Option<RevisionNumber>, Share, Vec<(InstanceId, Weight, bool, bool)>);

impl<'a> Rank<'a> {
    fn of(state: &'a State, env: &'a Environment, name: &'a ServiceName) -> Option<Self> {
        let service = env.services.get(name)?;
        let wants = Wants::new(env, name);
        let audition = Audition::of(state, env, &wants, name, service);
        let is_split = env.rollout.as_ref().is_some_and(|rollout| rollout.splits.contains_key(name));
        Some(Self { state, service, is_split, wants, audition })
    }

    fn slot(&self, ordinal: u32) -> Option<Standing> {
        let slot = self.service.slots.get(&ordinal)?;
        let roles = self.wants.roles(ordinal, slot);
        let is_wanted = |instance: &Instance| match self.is_split {
            true => split::group(&roles, ordinal, instance).is_some(),
            false => roles.share_of(instance) > Weight::ZERO,
        };
        let counts = |instance: &&Instance| {
            instance.is_routed() || (self.audition.admits(ordinal, instance) && is_wanted(instance))
        };
        let instances = slot.instances.iter().filter_map(|id| self.state.instance(*id)).filter(counts);
        let standing = instances.map(|instance| {
            let is_running = instance.phase == Phase::Running;
            (instance.id, instance.weight, self.audition.admits(ordinal, instance), is_running)
        });
        Some((slot.duty, slot.share, standing.collect()))
    }
}

fn balance_service(
    view: View<'_>,
    name: &ServiceName,
    service: &ServiceState,
    weights: &mut Vec<(InstanceId, Weight)>,
) {
    let (mut healthy, mut weak, mut surplus) = (0, Vec::new(), Vec::new());
    let wants = Wants::new(view.env, name);
    let audition = Audition::of(view.state, view.env, &wants, name, service);
    let shares = split::shares(view.state, view.env, (&wants, &audition), name, service);
    let is_split_off = split::is_apart(view.env, name, Some(Group::Canary));
    let mut instances: Vec<&Instance> = Vec::new();
    for (ordinal, slot) in service.slots.iter() {
        let roles = wants.roles(*ordinal, slot);
        let share_of = |instance: &Instance| match &shares {
            Some(shares) => split::group(&roles, *ordinal, instance).map_or(Weight::ZERO, |it| shares.of(it)),
            // A baseline is for comparing: it takes part once the requests are split.
            None if *ordinal >= BASELINE_FIRST => Weight::ZERO,
            None => roles.share_of(instance),
        };
        let is_apart = |instance: &Instance| {
            is_split_off && split::group(&roles, *ordinal, instance) == Some(Group::Canary)
        };
        let can_serve = |instance: &Instance| audition.admits(*ordinal, instance);
        instances.clear();
        instances.extend(slot.instances.iter().filter_map(|id| view.state.instance(*id)));
        let has_successor = instances
            .iter()
            .any(|other| can_serve(other) && share_of(other) > Weight::ZERO && !is_apart(other));
        // Who must be gone before its successor may start is not kept until that is there.
        let may_stay = roles.duty.is_some_and(|duty| duty.service.strategy != Strategy::StopThenStart);
        for instance in instances.iter().copied() {
            let share = share_of(instance);
            let is_nobodys = share == Weight::ZERO;
            let may_stay =
                may_stay && !has_successor && !(is_nobodys && is_given_up(view, name, service, instance));
            let returns = is_returning(view, &roles, instance);
            let planned = if is_surplus(&roles, share, instance) && !returns {
                surplus.push((instance, replicas_beside(view, name, slot)));
                continue;
            } else if instances.iter().any(|other| stands_before(other, instance)) {
                Weight::ZERO
            } else if returns {
                instance.weight
            } else if can_serve(instance) {
                routable(&wants, instance, share, may_stay)
            } else if instance.is_routed() && matches!(instance.phase, Phase::Running) {
                let has_work = roles.duty.is_some() || share > Weight::ZERO;
                weak.push((instance, has_work || replicas_beside(view, name, slot) > 0));
                continue;
            } else {
                Weight::ZERO
            };
            healthy += u32::from(planned > Weight::ZERO && !is_apart(instance));
            if planned != instance.weight {
                weights.push((instance.id, planned));
            }
        }
    }
    // A service that was scaled down lets go of what is too much only as far as those that stay are healthy.
    for (instance, wanted) in surplus {
        if healthy < wanted {
            healthy += 1;
        } else {
            weights.push((instance.id, Weight::ZERO));
        }
    }
    // An unhealthy instance may answer some requests; no instance answers none. So the last one stays until another is
    // healthy, unless it must be gone before its successor may start, or none of its service is wanted.
    for (instance, is_needed) in weak {
        let is_exclusive = service_of(view, name, instance)
            .is_some_and(|service| service.strategy == Strategy::StopThenStart);
        if healthy > 0 || is_exclusive || !is_needed {
            weights.push((instance.id, Weight::ZERO));
        }
    }
}

/// Whether an instance is of the release that a rollout goes back from, while another of its service does its work: what was
/// found wanting does not go on beside that until its own slot is filled again. A baseline does that work too where it gets
/// requests already: it is of the release that the rollout goes back to, and stays until somebody on duty is there.
///
/// What an earlier rollout left, which is of another revision though it may be of the same spec, is not what this one found
/// wanting: it served before, and does so until its slot is filled.
fn is_given_up(view: View<'_>, name: &ServiceName, service: &ServiceState, instance: &Instance) -> bool {
    let Some(rollout) = view.env.rollout.as_ref().filter(|rollout| rollout.is_going_back()) else {
        return false;
    };
    let is_of = |other: &Instance, revision| {
        view.env.service(revision, name).is_some_and(|service| service.spec_digest == other.spec_digest)
    };
    if instance.revision() != rollout.to || !is_of(instance, rollout.to) {
        return false;
    }
    let wants = Wants::new(view.env, name);
    service.slots.iter().any(|(ordinal, slot)| {
        let duty = wants.roles(*ordinal, slot).duty;
        let is_baseline = *ordinal >= BASELINE_FIRST;
        let does_work = |other: &Instance| {
            duty.is_some_and(|duty| duty.fits(other))
                || (is_baseline && other.is_routed() && is_of(other, rollout.from))
        };
        let mut others = slot.instances.iter().filter_map(|id| view.state.instance(*id));
        others
            .any(|other| other.is_routable() && other.spec_digest != instance.spec_digest && does_work(other))
    })
}

/// Whether a rollout that goes back will give an instance the requests that it has already: what it tried out is what served
/// before, brought back to slots that another one had emptied.
fn is_returning(view: View<'_>, roles: &Roles<'_>, instance: &Instance) -> bool {
    let goes_back = view.env.rollout.as_ref().is_some_and(|rollout| rollout.is_going_back());
    let is_next = || roles.next.is_some_and(|next| next.fits(instance));
    goes_back && instance.is_routed() && instance.is_routable() && is_next()
}

/// Whether requests are sent to an instance of a slot that was wanted once.
fn is_surplus(roles: &Roles<'_>, share: Weight, instance: &Instance) -> bool {
    let has_work = roles.duty.is_some() || share > Weight::ZERO;
    !has_work && instance.is_routable() && instance.is_routed()
}

/// How many replicas the service of a slot is to have without it: while a rollout runs, as the revision says that the slot
/// works for, which may be that of a rollout which was superseded half way.
fn replicas_beside(view: View<'_>, name: &ServiceName, slot: &Slot) -> u32 {
    let on_duty = slot.duty.filter(|_| view.env.rollout.is_some());
    view.env.replicas(on_duty.or(view.env.current), name)
}

/// Whether another instance of a slot does the same work already: one that failed and its successor may both be healthy, and
/// a slot needs one.
fn stands_before(other: &Instance, instance: &Instance) -> bool {
    let same = other.id != instance.id && other.spec_digest == instance.spec_digest;
    let rank = |found: &Instance| (!found.is_routed(), found.requested);
    same && other.is_routable() && rank(other) < rank(instance)
}

/// The weight of an instance that may be routed.
fn routable(wants: &Wants<'_>, instance: &Instance, share: Weight, may_stay: bool) -> Weight {
    if share > Weight::ZERO {
        let takes_traffic = wants.service(instance.revision()).is_some_and(is_routed);
        return if takes_traffic { share } else { Weight::ZERO };
    }
    // Nobody's any more, as after a way back that failed: it serves until the one that should is there.
    if may_stay { instance.weight } else { Weight::ZERO }
}

fn service_of<'a>(view: View<'a>, name: &ServiceName, instance: &Instance) -> Option<&'a Service> {
    view.env.service(instance.revision(), name)
}
