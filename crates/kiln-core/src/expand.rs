//! From where an environment is and where it is to go, to a list of steps.
//!
//! One engine and one language: a first deploy, a changed revision, a rollback, a removal and the way back after a failure
//! differ only in the list. The list is made of what exists: a slot whose instance has the wanted spec is not in it.

mod back;
mod canary;
mod forward;
mod interludes;
mod moves;
mod rolling;

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::release::RevisionSpec;
use kiln_model::rollout::{Slots, Step};
use kiln_model::service::RolloutBounds;
use kiln_model::{Millis, RevisionNumber, ServiceName, Timestamp};

use crate::bounds::{ASKED_WITHIN, DESTROY_WITHIN, LISTENERS_WITHIN, SHIFT_WITHIN};
use crate::state::{Environment, Rollout, State};

pub(crate) use back::expand_back;
pub(crate) use forward::{Manners, expand_forward};

/// Joins ordinals to runs.
fn runs(service: &ServiceName, ordinals: impl IntoIterator<Item = u32>) -> Vec<Slots> {
    let mut found: Vec<Slots> = Vec::new();
    let sorted: BTreeSet<u32> = ordinals.into_iter().collect();
    for ordinal in sorted {
        match found.last_mut() {
            Some(last) if last.first + last.count == ordinal => last.count += 1,
            _ => found.push(Slots { service: service.clone(), first: ordinal, count: 1 }),
        }
    }
    found
}

/// Names in an order in which each comes after those that it needs; a circle is broken at the name that is met first.
fn in_dependency_order(spec: &RevisionSpec) -> Vec<&ServiceName> {
    fn visit<'a>(
        spec: &'a RevisionSpec,
        name: &'a ServiceName,
        seen: &mut BTreeSet<&'a ServiceName>,
        order: &mut Vec<&'a ServiceName>,
    ) {
        let Some(service) = spec.services.get(name) else { return };
        if !seen.insert(name) {
            return;
        }
        for needed in &service.after {
            visit(spec, needed, seen, order);
        }
        order.push(name);
    }
    let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
    for name in spec.services.keys() {
        visit(spec, name, &mut seen, &mut order);
    }
    order
}

/// Whether a service needs another one, itself or by what it needs.
fn needs(spec: &RevisionSpec, name: &ServiceName, other: &ServiceName) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![name]);
    while let Some(name) = open.pop() {
        for needed in spec.services.get(name).into_iter().flat_map(|service| &service.after) {
            if needed == other {
                return true;
            }
            if seen.insert(needed) {
                open.push(needed);
            }
        }
    }
    false
}

/// The bounds of a service: as the target says, or else as what is there says.
fn bounds(env: &Environment, to: Option<RevisionNumber>, name: &ServiceName) -> RolloutBounds {
    let target = env.service(to, name);
    target.or_else(|| env.service(env.current, name)).map(|service| service.bounds).unwrap_or_default()
}

fn longest(
    env: &Environment,
    to: Option<RevisionNumber>,
    slots: &[Slots],
    bound: impl Fn(&RolloutBounds) -> Millis,
) -> Millis {
    slots.iter().map(|range| bound(&bounds(env, to, &range.service))).max().unwrap_or_default()
}

fn progress(env: &Environment, to: Option<RevisionNumber>, slots: &[Slots]) -> Millis {
    longest(env, to, slots, |bounds| bounds.progress_deadline)
}

fn drain(env: &Environment, to: Option<RevisionNumber>, slots: &[Slots]) -> Millis {
    longest(env, to, slots, |bounds| bounds.drain_deadline)
}

/// Slots by how long their old instances are kept.
fn by_warmth(
    env: &Environment,
    to: Option<RevisionNumber>,
    slots: Vec<Slots>,
) -> BTreeMap<Millis, Vec<Slots>> {
    let mut found: BTreeMap<Millis, Vec<Slots>> = BTreeMap::new();
    for range in slots {
        found.entry(bounds(env, to, &range.service).warm_for).or_default().push(range);
    }
    found
}

/// How long a rollout waits for a step to begin: as long as the slowest of its services may take to make progress.
pub(crate) fn patience(env: &Environment, rollout: &Rollout) -> Millis {
    let spec = env.spec(rollout.target());
    let services = spec.into_iter().flat_map(|spec| spec.services.values());
    let longest = services.map(|service| service.bounds.progress_deadline).max();
    longest.unwrap_or(RolloutBounds::default().progress_deadline)
}

/// When the wait for a step that begins now is over.
pub(crate) fn deadline_of(
    state: &State,
    env: &Environment,
    rollout: &Rollout,
    step: &Step,
    now: Timestamp,
) -> Option<Timestamp> {
    let span = match step {
        Step::OpenListeners => LISTENERS_WITHIN,
        Step::Run { within: Some(within), .. } => *within,
        Step::Ask(ask) => Millis(ask.timeout.0.saturating_add(ASKED_WITHIN.0)),
        Step::Run { job, within: None, .. } => bounds(env, rollout.target(), job).progress_deadline,
        // Creating is only an intent, but where old and new must not meet it waits for the old to be gone.
        Step::Create { .. } => patience(env, rollout),
        Step::WaitHealthy { within, .. } | Step::Drain { within, .. } => *within,
        Step::Shift { .. } | Step::Split { .. } | Step::Mirror { .. } => SHIFT_WITHIN,
        Step::Hold { span } | Step::Soak { span, .. } => *span,
        Step::Analyse { within, .. } | Step::Approve { within, .. } => *within,
        Step::KeepWarm { .. } => return None,
        Step::Retire { slots } => {
            let grace = slots.iter().map(|range| longest_grace(state, env, range)).max();
            let drained = drain(env, rollout.target(), slots);
            Millis(grace.unwrap_or_default().0.saturating_add(drained.0).saturating_add(DESTROY_WITHIN.0))
        }
    };
    Some(now.plus(span))
}

fn longest_grace(state: &State, env: &Environment, range: &Slots) -> Millis {
    let slots = env.services.get(&range.service).into_iter().flat_map(|service| service.slots.iter());
    let within = slots.filter(|(ordinal, _)| range.contains(**ordinal));
    let instances = within.flat_map(|(_, slot)| &slot.instances).filter_map(|id| state.instance(*id));
    instances.map(|instance| instance.spec.stop.grace).max().unwrap_or_default()
}
