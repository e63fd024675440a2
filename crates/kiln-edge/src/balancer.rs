//! The choice among the backends of a pool.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use kiln_model::route::{Pool, PoolKey};
use kiln_model::{InstanceId, RevisionNumber};

use crate::backend::Backend;
use crate::ledger::SlotRef;
use crate::samples::SampleRef;
use crate::table::{Ground, Taken};

/// A backend, and under which revision it serves.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub(crate) backend: Arc<Backend>,
    pub(crate) revision: RevisionNumber,
    pub(crate) slot: SlotRef,
    /// Where its outcome is counted for an analysis.
    pub(crate) sample: Option<SampleRef>,
}

/// Chooses among the backends of a pool.
///
/// The revision and its group are drawn first, by a low-discrepancy sequence (Weyl's, with the golden ratio): after any number of
/// requests each one's share is exact to about one request, whatever its speed, which is what a canary's analysis
/// needs. Then, within the revision, two draws of the same kind are compared and the one with fewer requests in flight
/// for its weight wins, so that a slow or stuck instance gets less without shifting the shares between revisions.
#[derive(Debug)]
pub(crate) struct Balancer {
    /// Counts requests for which there is no backend.
    pub(crate) slot: SlotRef,
    draws: AtomicU64,
    total: u64,
    groups: Vec<Share>,
}

/// The backends of one revision that stand for the same in a rollout.
#[derive(Debug)]
struct Share {
    revision: RevisionNumber,
    slot: SlotRef,
    sample: Option<SampleRef>,
    /// The sum of the weights up to and with this one.
    end: u64,
    draws: AtomicU64,
    total: u64,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    end: u64,
    weight: u64,
    backend: Arc<Backend>,
}

/// Draws that may hit what is tried or set aside before all members are looked at.
const DRAWS_MAX: usize = 6;

impl Balancer {
    pub(crate) fn new(key: &PoolKey, pool: &Pool, ground: &Ground<'_>, taken: &mut Taken) -> Self {
        let window = pool.sampling.and_then(|sampling| ground.window(key, sampling, taken));
        let mut live: Vec<_> = pool.backends.iter().filter(|b| b.weight.per_mille() > 0).collect();
        live.sort_by_key(|b| (b.revision, b.group, b.instance, b.address));
        let mut groups: Vec<Share> = Vec::new();
        let mut end = 0;
        for entries in live.chunk_by(|a, b| (a.revision, a.group) == (b.revision, b.group)) {
            let revision = entries[0].revision;
            let mut members = Vec::new();
            let mut total = 0;
            for entry in entries {
                let weight = u64::from(entry.weight.per_mille());
                total += weight;
                let backend = ground.registry.route(entry.instance, entry.address);
                members.push(Member { end: total, weight, backend });
            }
            end += total;
            let slot = ground.slot(key, revision, taken);
            let sample = window.map(|window| window.group(entries[0].group));
            groups.push(Share { revision, slot, sample, end, draws: AtomicU64::new(0), total, members });
        }
        let slot = ground.slot(key, RevisionNumber(0), taken);
        Self { slot, draws: AtomicU64::new(0), total: end, groups }
    }

    /// Returns whether there is any backend.
    pub(crate) fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Chooses a backend that is not in `tried`; one that is set aside only when there is no other.
    pub(crate) fn choose(&self, now: Instant, tried: &[InstanceId]) -> Option<Choice> {
        if self.is_empty() {
            return None;
        }
        for _ in 0..DRAWS_MAX {
            let point = draw(&self.draws, self.total);
            let group = &self.groups[self.groups.partition_point(|group| group.end <= point)];
            let member = group.choose();
            if !member.backend.is_aside(now) && !tried.contains(&member.backend.instance) {
                return Some(group.choice(member));
            }
        }
        let members = || self.groups.iter().flat_map(|group| group.members.iter().map(move |m| (group, m)));
        let untried = || members().filter(|(_, member)| !tried.contains(&member.backend.instance));
        let chosen = untried().find(|(_, member)| !member.backend.is_aside(now)).or_else(|| untried().next());
        chosen.map(|(group, member)| group.choice(member))
    }
}

impl Share {
    fn choice(&self, member: &Member) -> Choice {
        let Self { revision, slot, sample, .. } = *self;
        Choice { backend: Arc::clone(&member.backend), revision, slot, sample }
    }

    fn choose(&self) -> &Member {
        if self.members.len() == 1 {
            return &self.members[0];
        }
        let at = |point: u64| &self.members[self.members.partition_point(|member| member.end <= point)];
        let (first, second) = (at(draw(&self.draws, self.total)), at(draw(&self.draws, self.total)));
        let load = |member: &Member, other: &Member| u64::from(member.backend.in_flight()) * other.weight;
        if load(second, first) < load(first, second) { second } else { first }
    }
}

/// Returns the next point of the sequence in `0..total`: the fraction of n times the golden ratio.
fn draw(counter: &AtomicU64, total: u64) -> u64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let fraction = counter.fetch_add(GOLDEN, Ordering::Relaxed);
    ((u128::from(fraction) * u128::from(total)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use kiln_model::route::{Backend as Entry, Group};
    use kiln_model::{EnvKey, EnvName, ServiceName, StackName, Weight};

    use super::*;
    use crate::backend::Registry;
    use crate::ledger::Ledger;
    use crate::table::Table;

    struct World {
        registry: Registry,
        ledger: Ledger,
        _folder: tempfile::TempDir,
    }

    fn world() -> World {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, _) = Ledger::open(&folder.path().join("ledger")).unwrap();
        World { registry: Registry::new(1), ledger, _folder: folder }
    }

    impl World {
        fn balance(&self, pool: &Pool) -> Balancer {
            let (registry, ledger, served) = (&self.registry, &self.ledger, &Table::default());
            let ground = Ground { registry, ledger, samples: None, served };
            Balancer::new(&key(), pool, &ground, &mut Taken::default())
        }
    }

    fn key() -> PoolKey {
        let env = EnvKey { stack: StackName::new("shop").unwrap(), env: EnvName::new("dev").unwrap() };
        PoolKey { env, service: ServiceName::new("web").unwrap(), port: 80 }
    }

    fn pooled(backends: &[(u64, u64, u16)]) -> Pool {
        let entry = |(id, revision, weight): &(u64, u64, u16)| Entry {
            instance: InstanceId::from_seed(*id),
            revision: RevisionNumber(*revision),
            address: "127.0.0.1:1".parse().unwrap(),
            weight: Weight::new(*weight).unwrap(),
            group: Group::Stable,
        };
        Pool { backends: backends.iter().map(entry).collect(), ..Pool::default() }
    }

    fn chosen(balancer: &Balancer, requests: usize) -> HashMap<InstanceId, usize> {
        let mut counts = HashMap::new();
        for _ in 0..requests {
            let backend = balancer.choose(Instant::now(), &[]).unwrap().backend;
            *counts.entry(backend.instance).or_default() += 1;
        }
        counts
    }

    #[test]
    fn shares_between_revisions_are_exact_to_a_few_requests() {
        let world = world();
        let balancer = world.balance(&pooled(&[(1, 1, 475), (2, 1, 475), (3, 2, 50)]));
        let counts = chosen(&balancer, 2000);
        let canary = counts[&InstanceId::from_seed(3)];
        assert!((98..=102).contains(&canary), "{canary}");
        let first = counts[&InstanceId::from_seed(1)];
        assert!((940..=960).contains(&first), "{first}");
    }

    #[test]
    fn the_baseline_and_the_stable_group_of_one_revision_have_shares_of_their_own() {
        let world = world();
        let mut pool = pooled(&[(1, 1, 450), (2, 1, 450), (3, 1, 50), (4, 2, 50)]);
        (pool.backends[2].group, pool.backends[3].group) = (Group::Baseline, Group::Canary);
        let balancer = world.balance(&pool);
        // By load alone, what is busy would get less.
        let busy = world.registry.route(InstanceId::from_seed(3), "127.0.0.1:1".parse().unwrap());
        for _ in 0..50 {
            assert!(busy.enter());
        }
        let counts = chosen(&balancer, 2000);
        for id in [3, 4] {
            let share = counts[&InstanceId::from_seed(id)];
            assert!((98..=102).contains(&share), "{counts:?}");
        }
    }

    #[test]
    fn a_busy_backend_gets_less_but_its_revision_keeps_its_share() {
        let world = world();
        let balancer = world.balance(&pooled(&[(1, 1, 500), (2, 1, 500), (3, 2, 1000)]));
        let busy = balancer.groups[0].members.iter().find(|m| m.backend.instance == InstanceId::from_seed(1));
        for _ in 0..50 {
            assert!(busy.unwrap().backend.enter());
        }
        let counts = chosen(&balancer, 1000);
        let of = |id| counts.get(&InstanceId::from_seed(id)).copied().unwrap_or(0);
        assert!(of(1) < of(2) / 2, "{counts:?}");
        assert!((495..=505).contains(&of(3)), "{counts:?}");
    }

    #[test]
    fn what_is_set_aside_is_chosen_only_when_nothing_else_is_left() {
        let world = world();
        let balancer = world.balance(&pooled(&[(1, 1, 1000), (2, 1, 1000), (3, 1, 0)]));
        let now = Instant::now();
        let first = balancer.choose(now, &[]).unwrap().backend;
        first.connect_failed(now);
        let other = balancer.choose(now, &[]).unwrap().backend;
        assert_ne!(first.instance, other.instance);
        assert_eq!(balancer.choose(now, &[other.instance]).unwrap().backend.instance, first.instance);
        assert!(balancer.choose(now, &[first.instance, other.instance]).is_none());
    }

    #[test]
    fn a_pool_without_backends_or_with_weights_of_zero_is_empty() {
        let world = world();
        for pool in [pooled(&[]), pooled(&[(1, 1, 0)]), Pool::default()] {
            let balancer = world.balance(&pool);
            assert!(balancer.is_empty() && balancer.choose(Instant::now(), &[]).is_none());
        }
    }

    #[test]
    fn a_large_pool_spreads_evenly() {
        let backends: Vec<_> = (1..=10).map(|id| (id, 1, 1000)).collect();
        let counts = chosen(&world().balance(&pooled(&backends)), 1000);
        assert!(counts.values().all(|count| (85..=115).contains(count)), "{counts:?}");
    }
}
