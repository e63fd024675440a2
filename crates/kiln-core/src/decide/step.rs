//! What each step means: when it may begin, what it writes down, when it is complete, and what it says when it is not.

use std::collections::BTreeSet;
use std::sync::Arc;

use kiln_model::event::{InstanceEvent, RolloutEvent, TrafficEvent};
use kiln_model::rollout::{Slots, Step};
use kiln_model::route::Listener;
use kiln_model::service::{Service, Strategy};
use kiln_model::{Event, InstanceId, Millis, RevisionNumber, ServiceName, Timestamp, Weight};

use super::maintain::retiring;
use super::retire::{is_idle, is_let_go};
use super::work::{Deed, View};
use crate::serving::{Want, Wants, is_routed, required};
use crate::state::{Health, Instance, ListenerPhase, Phase, Rollout, ServiceState, Slot, StepPhase};

/// One slot of a step.
struct Place<'a> {
    name: &'a ServiceName,
    ordinal: u32,
    slot: &'a Slot,
    target: Option<Want<'a>>,
    /// What it is filled with: what the target wants, or a baseline.
    filler: Option<Want<'a>>,
}

impl<'a> Place<'a> {
    fn instances(&self, view: View<'a>) -> impl Iterator<Item = &'a Instance> + use<'a> {
        let ids = self.slot.instances.iter();
        ids.filter_map(move |id| view.state.instance(*id)).filter(|instance| !instance.phase.is_leaving())
    }

    fn fills(&self, instance: &Instance) -> bool {
        self.filler.is_some_and(|filler| filler.fits(instance))
    }

    fn is_new(&self, instance: &Instance) -> bool {
        self.target.is_some_and(|target| target.fits(instance))
    }
}

/// The slots of a range that the state knows.
struct Range<'a> {
    slots: &'a Slots,
    service: &'a ServiceState,
    wants: Wants<'a>,
    target: Option<RevisionNumber>,
    /// Of what a baseline in it is.
    from: Option<RevisionNumber>,
}

impl<'a> Range<'a> {
    fn of(view: View<'a>, rollout: &Rollout, slots: &'a Slots) -> Option<Self> {
        let service = view.env.services.get(&slots.service)?;
        let wants = Wants::beside(view.env, &slots.service, rollout.from);
        let from = rollout.from.filter(|_| slots.is_baseline());
        Some(Self { slots, service, wants, target: rollout.target(), from })
    }

    fn place(&self, ordinal: u32, slot: &'a Slot) -> Place<'a> {
        let target = self.wants.want(self.target, ordinal);
        let filler = target.or_else(|| self.wants.want(self.from, ordinal));
        Place { name: &self.slots.service, ordinal, slot, target, filler }
    }

    /// The place of an ordinal, if the range has it.
    fn at(&self, ordinal: u32) -> Option<Place<'a>> {
        let slot = self.service.slots.get(&ordinal).filter(|_| self.slots.contains(ordinal))?;
        Some(self.place(ordinal, slot))
    }

    fn all(self) -> impl Iterator<Item = Place<'a>> {
        let slots = self.slots;
        let known = self.service.slots.iter().filter(move |(ordinal, _)| slots.contains(**ordinal));
        known.map(move |(ordinal, slot)| self.place(*ordinal, slot))
    }
}

/// The slots of a step that the state knows.
fn places<'a>(view: View<'a>, rollout: &'a Rollout, slots: &'a [Slots]) -> impl Iterator<Item = Place<'a>> {
    slots.iter().filter_map(move |range| Range::of(view, rollout, range)).flat_map(Range::all)
}

/// The slots of a step in which something happened.
fn touched<'a>(view: View<'a>, rollout: &'a Rollout, slots: &'a [Slots]) -> impl Iterator<Item = Place<'a>> {
    let touched = slots.iter().filter(move |range| view.reach(&range.service).is_some());
    let ranges = touched.filter_map(move |range| Range::of(view, rollout, range));
    ranges.flat_map(move |range| match view.touched(&range.slots.service) {
        Some(ordinals) => ordinals.iter().filter_map(|ordinal| range.at(*ordinal)).collect::<Vec<_>>(),
        None => range.all().collect(),
    })
}

/// Whether something holds in all slots of a step.
///
/// Most of the time it does not: then it does not hold where something just happened, or soon will right beside it, for what
/// is done in order ends in order. So a step that waits for many slots does not look at all that are done each time.
fn holds_in_all(
    view: View<'_>,
    rollout: &Rollout,
    slots: &[Slots],
    holds: impl Fn(&Place<'_>) -> bool,
) -> bool {
    for range in slots {
        let few = view.touched(&range.service).filter(|ordinals| ordinals.len() == 1);
        let Some((ordinals, range)) = few.zip(Range::of(view, rollout, range)) else { continue };
        let around = ordinals.iter().flat_map(|at| [*at, at.saturating_add(1), at.saturating_sub(1)]);
        if around.filter_map(|ordinal| range.at(ordinal)).any(|place| !holds(&place)) {
            return false;
        }
    }
    places(view, rollout, slots).all(|place| holds(&place))
}

/// Whether a step may begin: a shift must leave as many healthy instances behind each route as the strategy allows, or as
/// many as there are.
pub(super) fn may_begin(view: View<'_>, rollout: &Rollout, step: &Step) -> bool {
    let Step::Shift { slots, .. } = step else { return true };
    let names: BTreeSet<&ServiceName> = slots.iter().map(|range| &range.service).collect();
    names.into_iter().all(|name| leaves_enough(view, rollout, slots, name))
}

fn of_service<'a>(slots: &'a [Slots], name: &ServiceName) -> Vec<&'a Slots> {
    slots.iter().filter(|range| range.service == *name).collect()
}

fn leaves_enough(view: View<'_>, rollout: &Rollout, slots: &[Slots], name: &ServiceName) -> bool {
    let target = view.env.service(rollout.target(), name);
    let Some(service) = target.filter(|service| is_routed(service)) else { return true };
    let Some(state) = view.env.services.get(name) else { return true };
    let (mut before, mut after) = (0, 0);
    let (wants, slots) = (Wants::new(view.env, name), of_service(slots, name));
    for (ordinal, slot) in state.slots.iter() {
        let target = wants.want(rollout.target(), *ordinal);
        let moves = slots.iter().any(|range| range.contains(*ordinal));
        let instances = || slot.instances.iter().filter_map(|id| view.state.instance(*id));
        let serves = instances().any(|instance| instance.is_routable() && instance.is_routed());
        let will = instances()
            .any(|instance| instance.is_routable() && target.is_some_and(|target| target.fits(instance)));
        before += u32::from(serves);
        after += u32::from(if moves { will } else { serves });
    }
    after >= before.min(required(service, view.env.replicas(rollout.target(), name)))
}

/// What a step writes down when it begins.
pub(super) fn enter(view: View<'_>, rollout: &Rollout, step: &Step) -> Vec<Deed> {
    match step {
        Step::OpenListeners => reopen_failed(view, rollout),
        Step::Shift { slots, weight, serve_routes } => shift(view, rollout, slots, *weight, *serve_routes),
        Step::KeepWarm { slots, keep_for } => keep_warm(view, rollout, slots, *keep_for),
        Step::Run { .. }
        | Step::Ask(_)
        | Step::Create { .. }
        | Step::WaitHealthy { .. }
        | Step::Split { .. }
        | Step::Mirror { .. }
        | Step::Hold { .. }
        | Step::Soak { .. }
        | Step::Analyse { .. }
        | Step::Approve { .. }
        | Step::Drain { .. }
        | Step::Retire { .. } => Vec::new(),
    }
}

/// What a step writes down for as long as it is not complete.
pub(super) fn insist(view: View<'_>, rollout: &Rollout, step: &Step) -> Vec<Deed> {
    match step {
        Step::Run { job, .. } => run(view, rollout, job),
        Step::Retire { slots } => retire(view, rollout, slots),
        // The other rules do what is left: they know from the state what a slot is to hold.
        Step::OpenListeners
        | Step::Ask(_)
        | Step::Create { .. }
        | Step::WaitHealthy { .. }
        | Step::Shift { .. }
        | Step::Split { .. }
        | Step::Mirror { .. }
        | Step::Hold { .. }
        | Step::Soak { .. }
        | Step::Analyse { .. }
        | Step::Approve { .. }
        | Step::Drain { .. }
        | Step::KeepWarm { .. } => Vec::new(),
    }
}

/// Whether what a step asks for is so.
pub(super) fn is_complete(view: View<'_>, rollout: &Rollout, step: &Step) -> bool {
    match step {
        Step::OpenListeners => needed(view, rollout).all(|listener| {
            let found = view.state.listeners.get(&listener).map(|found| &found.phase);
            matches!(found, Some(ListenerPhase::Open { .. }))
        }),
        Step::Run { job, .. } => {
            let target = view.env.service(rollout.target(), job).map(|service| service.spec_digest);
            let done = view.env.services.get(job).and_then(|service| service.job_done);
            target.is_none() || done == target
        }
        Step::Ask(_) => rollout.tries.passed,
        Step::Create { slots } => {
            let is_there = |place: &Place<'_>| {
                let mut there = place.instances(view).filter(|instance| place.fills(instance));
                place.filler.is_none() || there.any(|instance| instance.is_hopeful())
            };
            holds_in_all(view, rollout, slots, is_there)
        }
        Step::WaitHealthy { slots, .. } => are_well(view, rollout, slots),
        Step::Shift { .. } | Step::Split { .. } | Step::Mirror { .. } => {
            view.state.is_acknowledged(rollout.table)
        }
        Step::Hold { .. } | Step::Approve { .. } | Step::Analyse { .. } | Step::Soak { .. } => {
            rollout.promoted
        }
        Step::Drain { slots, .. } => holds_in_all(view, rollout, slots, |place| {
            let mut old = place.instances(view).filter(|instance| !place.is_new(instance));
            old.all(|instance| is_drained(view, instance))
        }),
        Step::KeepWarm { .. } => true,
        Step::Retire { slots } => holds_in_all(view, rollout, slots, |place| {
            let all = place.slot.instances.iter().filter_map(|id| view.state.instance(*id));
            let mut old = all.filter(|instance| !place.is_new(instance));
            old.all(|instance| is_kept(place, instance))
        }),
    }
}

/// Whether each of these slots has a new instance that proved to be healthy.
pub(super) fn are_well(view: View<'_>, rollout: &Rollout, slots: &[Slots]) -> bool {
    holds_in_all(view, rollout, slots, |place| is_healthy(view, rollout, place))
}

fn is_healthy(view: View<'_>, rollout: &Rollout, place: &Place<'_>) -> bool {
    let Some(filler) = place.filler else { return true };
    let mut there = place.instances(view).filter(|instance| place.fills(instance));
    there.any(|instance| {
        let proven_at = proven_at(rollout, filler.service, instance);
        instance.is_routable() && proven_at.is_none_or(|moment| moment <= view.now)
    })
}

/// When an instance has been healthy for as long as its service asks for; none if that is not asked for. On the way back whoever is
/// healthy will do.
pub(crate) fn proven_at(rollout: &Rollout, service: &Service, instance: &Instance) -> Option<Timestamp> {
    let span = service.bounds.healthy_for;
    let is_asked = span > Millis(0) && !rollout.is_going_back();
    instance.healthy_since.filter(|_| is_asked).map(|since| since.plus(span))
}

fn is_drained(view: View<'_>, instance: &Instance) -> bool {
    match instance.phase {
        Phase::Running => is_let_go(view.state, instance) && is_idle(view.observed, instance),
        // One that is warm was drained in the rollout that left it, and no controller of a later life asks again.
        _ => true,
    }
}

/// Whether an old instance stays when the others of its slot are retired: it is warm from an earlier rollout.
fn is_kept(place: &Place<'_>, instance: &Instance) -> bool {
    let is_exclusive = place.target.is_some_and(|target| target.service.strategy == Strategy::StopThenStart);
    matches!(instance.phase, Phase::Warm { .. }) && !is_exclusive
}

fn shift(
    view: View<'_>,
    rollout: &Rollout,
    slots: &[Slots],
    weight: Weight,
    serve_routes: bool,
) -> Vec<Deed> {
    let rest = Weight::new(1000 - weight.per_mille()).unwrap_or(Weight::ZERO);
    let mut weights: Vec<(InstanceId, Weight)> = Vec::new();
    for place in places(view, rollout, slots) {
        let routes_to = place.target.is_some_and(|target| is_routed(target.service));
        for instance in place.instances(view) {
            let planned = match place.is_new(instance) {
                true if routes_to && instance.is_routable() => weight,
                true => Weight::ZERO,
                false => rest.min(instance.weight),
            };
            if planned != instance.weight {
                weights.push((instance.id, planned));
            }
        }
    }
    let mut deeds = Vec::new();
    if serve_routes && view.env.routes != rollout.target() {
        let event = TrafficEvent::RoutesServed { revision: rollout.target() };
        deeds.push(Deed::Log(Event::Traffic(event)));
    }
    if !weights.is_empty() {
        deeds.push(Deed::Log(Event::Traffic(TrafficEvent::Shifted { weights })));
    }
    deeds
}

fn keep_warm(view: View<'_>, rollout: &Rollout, slots: &[Slots], keep_for: Millis) -> Vec<Deed> {
    let until = view.now.plus(keep_for);
    let mut deeds = Vec::new();
    for place in places(view, rollout, slots) {
        for instance in place.instances(view).filter(|instance| !place.is_new(instance)) {
            if instance.is_routed() || matches!(instance.phase, Phase::Warm { .. }) {
                continue;
            }
            deeds.push(match instance.phase {
                Phase::Running if instance.health == Health::Healthy => {
                    Deed::instance(instance.id, InstanceEvent::Warmed { until })
                }
                _ => retiring(view, place.name, instance, "it can't be kept warm".into()),
            });
        }
    }
    deeds
}

fn retire(view: View<'_>, rollout: &Rollout, slots: &[Slots]) -> Vec<Deed> {
    let mut deeds = Vec::new();
    for place in touched(view, rollout, slots) {
        let old = place.instances(view).filter(|instance| !place.is_new(instance));
        for instance in old.filter(|instance| !is_kept(&place, instance) && !instance.is_routed()) {
            let mut deed = retiring(view, place.name, instance, "another revision took over".into());
            if was_drained(rollout, &place) {
                // The step before this one waited for its requests, for as long as they were given.
                if let Deed::Log(Event::Instance(_, InstanceEvent::Retiring { drain_within, .. })) = &mut deed
                {
                    *drain_within = Millis(0);
                }
            }
            deeds.push(deed);
        }
    }
    deeds
}

fn was_drained(rollout: &Rollout, place: &Place<'_>) -> bool {
    let done = rollout.steps.iter().take(usize::try_from(rollout.next).unwrap_or(usize::MAX));
    let holds = |range: &Slots| range.service == *place.name && range.contains(place.ordinal);
    done.into_iter().any(|step| matches!(step, Step::Drain { slots, .. } if slots.iter().any(holds)))
}

fn run(view: View<'_>, rollout: &Rollout, job: &ServiceName) -> Vec<Deed> {
    let Some(revision) = rollout.target() else { return Vec::new() };
    let Some(service) = view.env.service(Some(revision), job) else { return Vec::new() };
    let slots = view.env.services.get(job).into_iter().flat_map(|service| service.slots.values());
    let mut instances = slots.flat_map(|slot| &slot.instances).filter_map(|id| view.state.instance(*id));
    // Two of one job never run side by side, and one that failed ended the rollout, or is tried again after a while.
    if instances.next().is_some() || rollout.tries.due > view.now {
        return Vec::new();
    }
    vec![Deed::Create {
        service: job.clone(),
        ordinal: 0,
        revision,
        spec: service.spec_digest,
        is_all: false,
    }]
}

/// What follows where a check took too long that is tried more than once; none for any other step.
pub(super) fn try_again(view: View<'_>, rollout: &Rollout, step: &Step) -> Option<Vec<Deed>> {
    let Step::Run { job, again, .. } = step else { return None };
    if again.attempts <= 1 {
        return None;
    }
    let text = too_late(view, rollout, step);
    let tried = RolloutEvent::Tried { index: rollout.next, passed: false, text: text.clone() };
    let slots = view.env.services.get(job).into_iter().flat_map(|service| service.slots.values());
    let instances = slots.flat_map(|slot| &slot.instances).filter_map(|id| view.state.instance(*id));
    let hanging = instances.filter(|instance| !instance.phase.is_leaving());
    let ends = hanging.map(|instance| retiring(view, job, instance, text.as_str().into()));
    Some([Deed::Log(Event::Rollout(tried))].into_iter().chain(ends).collect())
}

/// The sockets that the target's routes and names need.
fn needed<'a>(view: View<'a>, rollout: &Rollout) -> impl Iterator<Item = Listener> + use<'a> {
    let spec = view.env.spec(rollout.target());
    let calls = spec.is_some_and(|spec| spec.services.values().any(|service| !service.spec.uses.is_empty()));
    let public = spec.into_iter().flat_map(|spec| spec.routes.values());
    let internal = calls.then_some(Listener::Internal(view.env.index));
    public.map(|route| Listener::Public(route.listen)).chain(internal)
}

/// What could not be opened before is tried again, for somebody asks for it.
fn reopen_failed(view: View<'_>, rollout: &Rollout) -> Vec<Deed> {
    let is_failed = |listener: &Listener| {
        let found = view.state.listeners.get(listener);
        found.is_some_and(|found| matches!(found.phase, ListenerPhase::Failed { .. }))
    };
    let mut failed: Vec<Listener> = needed(view, rollout).filter(is_failed).collect();
    failed.sort_unstable();
    failed.dedup();
    let event = |listener| Deed::Log(Event::Traffic(TrafficEvent::ListenerRequested { listener }));
    failed.into_iter().map(event).collect()
}

/// Which socket can't be opened, while the rollout waits for it.
pub(super) fn failed_listener(view: View<'_>, rollout: &Rollout) -> Option<Arc<str>> {
    let waits =
        matches!(rollout.current_step(), Some(Step::OpenListeners)) && rollout.step != StepPhase::Waiting;
    if !waits {
        return None;
    }
    let reason = |listener: Listener| match &view.state.listeners.get(&listener)?.phase {
        ListenerPhase::Failed { reason, .. } => Some(format!("can't listen on {listener}: {reason}").into()),
        ListenerPhase::Requested | ListenerPhase::Open { .. } | ListenerPhase::Releasing => None,
    };
    needed(view, rollout).find_map(reason)
}

/// Why a step did not begin in time.
pub(super) fn too_few(view: View<'_>, rollout: &Rollout, step: &Step) -> String {
    let Step::Shift { slots, .. } = step else { return "the next step could not begin in time".to_owned() };
    let names = slots.iter().map(|range| &range.service);
    let short = names.into_iter().find(|name| !leaves_enough(view, rollout, slots, name));
    let short = short.map_or_else(|| "a service".to_owned(), ToString::to_string);
    format!("too few instances of {short} were healthy for too long to take another one out")
}

/// Why a step was not complete in time.
pub(super) fn too_late(view: View<'_>, rollout: &Rollout, step: &Step) -> String {
    match step {
        Step::OpenListeners => "the sockets were not open in time".to_owned(),
        Step::Run { job, within: None, .. } => format!("job {job} did not end in time"),
        Step::Run { job, within: Some(within), .. } => format!("job {job} did not end within {within}"),
        Step::Ask(ask) => format!("{ask} was not asked in time"),
        Step::Create { .. } => "the instances before were not gone in time".to_owned(),
        Step::WaitHealthy { slots, within } => {
            let late = places(view, rollout, slots).find(|place| !is_healthy(view, rollout, place));
            let Some(place) = late else { return "the instances were not healthy in time".to_owned() };
            let last = place.instances(view).filter(|instance| place.fills(instance)).last();
            // A probe that succeeds explains nothing.
            let last = last.filter(|instance| instance.health != Health::Healthy);
            let detail = last.and_then(|instance| detail(view, instance));
            let detail = detail.or_else(|| rollout.last_exit.as_ref().map(ToString::to_string));
            let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
            let ordinal = kiln_model::rollout::Place(place.ordinal);
            let span = place.filler.map(|filler| filler.service.bounds.healthy_for).unwrap_or_default();
            let span = if span == Millis(0) { String::new() } else { format!("for {span} ") };
            format!("{}/{ordinal} was not healthy {span}within {within}{detail}", place.name)
        }
        Step::Shift { .. } | Step::Split { .. } | Step::Mirror { .. } => {
            "the edge did not acknowledge the new table in time".to_owned()
        }
        Step::Hold { .. } => "it was held for too long".to_owned(),
        Step::Soak { slots, span } => {
            let ill = places(view, rollout, slots).find(|place| !is_healthy(view, rollout, place));
            let ill = ill.map(|place| format!("{}/{}", place.name, place.ordinal)).unwrap_or_default();
            format!("{ill} was not healthy at the end of its soak of {span}")
        }
        Step::Analyse { service, within, .. } => {
            format!("the analysis of {service} came to no verdict within {within}")
        }
        Step::Approve { within, .. } => format!("nobody approved within {within}"),
        Step::Drain { .. } | Step::KeepWarm { .. } | Step::Retire { .. } => {
            "the old instances were not gone in time".to_owned()
        }
    }
}

/// What is known about an instance that is not healthy.
fn detail(view: View<'_>, instance: &Instance) -> Option<String> {
    if instance.phase == Phase::Requested {
        return Some("it did not start".to_owned());
    }
    if let Health::Unhealthy { reason } = &instance.health {
        return Some(reason.to_string());
    }
    let seen = view.observed.health(instance.id)?;
    (!seen.detail.is_empty()).then(|| seen.detail.to_string())
}
