//! Who gets how much while the requests of a service are split between old and new instances.

use std::sync::Arc;

use kiln_model::rollout::{BASELINE_FIRST, Slots, Step};
use kiln_model::route::{Group, Synthetic};
use kiln_model::service::Strategy;
use kiln_model::{ServiceName, Weight};

use crate::serving::{Roles, Wants};
use crate::state::{Environment, Instance, ServiceState, Split, State, StepPhase};

/// The weight of one instance of each group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    stable: Weight,
    baseline: Weight,
    canary: Weight,
}

/// The weight of an instance that no request is drawn for.
const LEAST: Weight = match Weight::new(1) {
    Some(weight) => weight,
    None => Weight::ZERO,
};

/// Whether an instance gets copies of requests, or those that are aimed at it, and no others.
pub(crate) fn is_apart(env: &Environment, name: &ServiceName, group: Option<Group>) -> bool {
    let split = env.rollout.as_ref().and_then(|rollout| rollout.splits.get(name));
    group == Some(Group::Canary) && split.is_some_and(Split::is_apart)
}

/// The requests that the edge makes itself for a service: while its analysis is waited for, and nobody was asked to decide.
pub(crate) fn synthetic<'a>(env: &'a Environment, name: &ServiceName) -> Option<&'a Arc<Synthetic>> {
    let rollout = env.rollout.as_ref().filter(|rollout| !rollout.is_going_back() && !rollout.undecided)?;
    let split = rollout.splits.get(name)?;
    let is_waited_for = match (rollout.current_step(), rollout.step) {
        (Some(Step::Analyse { service, window, .. }), StepPhase::Started { .. }) => {
            service == name && *window == split.window
        }
        _ => false,
    };
    let runs = is_waited_for && rollout.paused.is_none() && rollout.halted.is_none();
    match &env.service(rollout.to, name).filter(|_| runs)?.strategy {
        Strategy::Canary(canary) => canary.analysis.as_ref()?.synthetic.as_ref(),
        _ => None,
    }
}

/// All of something, in the unit of shares.
const ALL: u64 = 1_000_000;

/// Returns what an instance of a slot stands for; none if nobody wants it there.
pub(crate) fn group(roles: &Roles<'_>, ordinal: u32, instance: &Instance) -> Option<Group> {
    if roles.duty.is_some_and(|duty| duty.fits(instance)) {
        return Some(if ordinal >= BASELINE_FIRST { Group::Baseline } else { Group::Stable });
    }
    roles.next.is_some_and(|next| next.fits(instance)).then_some(Group::Canary)
}

/// Who takes part in a split of the requests. Newcomers that the rollout waits for do not: they come in together when all of them
/// are healthy, so the requests are not dealt anew for each one.
pub(crate) struct Audition<'a> {
    /// The slots whose newcomers are waited for.
    awaited: Vec<&'a Slots>,
}

impl<'a> Audition<'a> {
    /// Asks about a service of an environment.
    pub(crate) fn of(
        state: &State,
        env: &'a Environment,
        wants: &Wants<'_>,
        name: &ServiceName,
        service: &ServiceState,
    ) -> Self {
        let rollout = env.rollout.as_ref().filter(|rollout| rollout.splits.contains_key(name));
        let awaited: &[Slots] = match rollout.and_then(|rollout| rollout.current_step()) {
            Some(Step::Create { slots } | Step::WaitHealthy { slots, .. }) => slots,
            _ => &[],
        };
        let awaited: Vec<&Slots> = awaited.iter().filter(|range| range.service == *name).collect();
        // They hold back only as long as somebody answers in their stead.
        let is_served = awaited.is_empty()
            || service.slots.iter().any(|(ordinal, slot)| {
                let duty = wants.roles(*ordinal, slot).duty.filter(|_| *ordinal < BASELINE_FIRST);
                let mut instances = slot.instances.iter().filter_map(|id| state.instance(*id));
                instances
                    .any(|it| it.is_routed() && it.is_routable() && duty.is_some_and(|duty| duty.fits(it)))
            });
        Self { awaited: if is_served { awaited } else { Vec::new() } }
    }

    /// Whether requests may be sent to an instance of a slot.
    pub(crate) fn admits(&self, ordinal: u32, instance: &Instance) -> bool {
        let is_awaited = || self.awaited.iter().any(|range| range.contains(ordinal));
        instance.is_routable() && (instance.is_routed() || !is_awaited())
    }
}

/// Returns the shares of a service's instances if its requests are split now.
///
/// They follow from how many of each can answer, so that the canary's share stays what was asked for whoever dies.
pub(crate) fn shares(
    state: &State,
    env: &Environment,
    (wants, audition): (&Wants<'_>, &Audition<'_>),
    name: &ServiceName,
    service: &ServiceState,
) -> Option<Shares> {
    let split = env.rollout.as_ref()?.splits.get(name)?;
    let mut counts = [0; 3];
    for (ordinal, slot) in service.slots.iter() {
        let roles = wants.roles(*ordinal, slot);
        let instances = slot.instances.iter().filter_map(|id| state.instance(*id));
        let live = instances.filter(|instance| audition.admits(*ordinal, instance));
        let mut found = [false; 3];
        for part in live.filter_map(|instance| group(&roles, *ordinal, instance)) {
            found[part as usize] = true;
        }
        for (count, found) in counts.iter_mut().zip(found) {
            *count += u64::from(found);
        }
    }
    let mut shares = of_counts(*split, counts);
    if split.is_apart() {
        // The least that is more than nothing: the table has them, without a weight, so that they go as all others do.
        shares.canary = LEAST;
    }
    Some(shares)
}

/// The baseline gets as much as the canary, but no more than the stable instances keep: they are who the service rests on.
fn of_counts(split: Split, [stable, baseline, canary]: [u64; 3]) -> Shares {
    let new = u64::from(split.weight.per_mille()) * (ALL / 1000);
    let beside = if baseline == 0 { 0 } else { new.min((ALL - new) / 2) };
    let shares = [(ALL - new - beside, stable), (beside, baseline), (new, canary)];
    let each = shares.map(|(share, count)| u64::checked_div(share, count).unwrap_or(0));
    let most = each.into_iter().max().unwrap_or(0).max(1);
    let [stable, baseline, canary] = each.map(|share| {
        // Relative to the greatest one, which keeps small shares as exact as a weight can be. Who is to have requests has some.
        let weight = (share * 1000 + most / 2) / most;
        let least = u64::from(share > 0);
        u16::try_from(weight.max(least)).ok().and_then(Weight::new).unwrap_or(Weight::FULL)
    });
    Shares { stable, baseline, canary }
}

impl Shares {
    /// The weight of an instance that stands for this.
    pub(crate) fn of(&self, group: Group) -> Weight {
        match group {
            Group::Stable => self.stable,
            Group::Baseline => self.baseline,
            Group::Canary => self.canary,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(weight: u16, counts: [u64; 3]) -> [f64; 3] {
        let split = Split { weight: Weight::new(weight).unwrap(), window: 0, mirror: None };
        let shares = of_counts(split, counts);
        let each = [shares.stable, shares.baseline, shares.canary].map(|w| f64::from(w.per_mille()));
        let totals = [0, 1, 2].map(|at| each[at] * counts[at] as f64);
        let sum: f64 = totals.iter().sum();
        totals.map(|total| total / sum)
    }

    #[test]
    fn the_canary_gets_what_was_asked_for_and_the_baseline_as_much() {
        for (weight, counts) in
            [(50, [6, 1, 1]), (10, [2, 1, 1]), (50, [100, 5, 5]), (250, [6, 2, 2]), (333, [3, 1, 1])]
        {
            let [_, baseline, canary] = share(weight, counts);
            let wanted = f64::from(weight) / 1000.0;
            assert!((canary / wanted - 1.0).abs() < 0.03, "{weight}: {canary}");
            assert!((baseline / canary - 1.0).abs() < 0.03, "{weight}: {baseline}");
        }
    }

    #[test]
    fn beyond_a_third_the_stable_instances_keep_as_much_as_the_baseline() {
        let [stable, baseline, canary] = share(500, [4, 2, 2]);
        assert!((canary - 0.5).abs() < 0.01 && (stable - baseline).abs() < 0.01, "{stable} {baseline}");
    }

    #[test]
    fn without_a_baseline_the_rest_is_the_stable_instances() {
        let [stable, baseline, canary] = share(50, [3, 0, 1]);
        assert!(baseline == 0.0 && (canary - 0.05).abs() < 0.002 && (stable - 0.95).abs() < 0.002);
    }

    #[test]
    fn who_is_alone_gets_everything() {
        assert_eq!(share(50, [1, 0, 0]), [1.0, 0.0, 0.0]);
        assert_eq!(share(50, [0, 0, 1]), [0.0, 0.0, 1.0]);
    }
}
