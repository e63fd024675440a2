//! The choice among the backends of a pool.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use kiln_model::route::{Backend as Entry, Group, Pool, PoolKey};
use kiln_model::{InstanceId, RevisionNumber};

use crate::backend::Backend;
use crate::ledger::SlotRef;
use crate::mirror::Mirror;
use crate::samples::SampleRef;
use crate::synthesis::Synthesis;
use crate::table::{Ground, Taken};
use crate::wish::{Place, Wish, Wishes};

/// A backend, and under which revision it serves.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub(crate) backend: Arc<Backend>,
    pub(crate) revision: RevisionNumber,
    pub(crate) slot: SlotRef,
    /// Where its outcome is counted for an analysis.
    pub(crate) sample: Option<SampleRef>,
    pub(crate) group: Group,
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
    /// How requests are sorted before any is drawn.
    pub(crate) wishes: Option<Wishes>,
    pub(crate) mirror: Option<Arc<Mirror>>,
    draws: AtomicU64,
    total: u64,
    /// Side by side: the canary at one end and the baseline at the other, so that a user whose place is fixed only ever moves
    /// to the canary while its share grows.
    shares: Vec<Share>,
    /// The groups that requests may be aimed at, with backends of no weight too.
    aimed: Vec<Share>,
}

/// The backends of one revision that stand for the same in a rollout.
#[derive(Debug)]
pub(crate) struct Share {
    revision: RevisionNumber,
    pub(crate) group: Group,
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

/// What a choice must heed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heed<'a> {
    pub(crate) now: Instant,
    pub(crate) tried: &'a [InstanceId],
}

impl Heed<'_> {
    fn is_untried(self, member: &Member) -> bool {
        !self.tried.contains(&member.backend.instance)
    }

    fn is_fit(self, member: &Member) -> bool {
        !member.backend.is_aside(self.now) && self.is_untried(member)
    }
}

impl Balancer {
    pub(crate) fn new(key: &PoolKey, pool: &Pool, ground: &Ground<'_>, taken: &mut Taken) -> Self {
        let window = pool.sampling.and_then(|sampling| ground.window(key, sampling, taken));
        let live = pool.backends.iter().filter(|entry| entry.weight.per_mille() > 0).collect();
        let mut drawn = shares(live, key, ground, taken);
        for share in &mut drawn {
            share.sample = window.map(|window| window.group(share.group));
        }
        let is_aimed = |entry: &&Entry| pool.aim.iter().any(|aim| aim.group == entry.group);
        let aimed = shares(pool.backends.iter().filter(is_aimed).collect(), key, ground, taken);
        let mirror = pool.mirror.map(|mirror| {
            let is_canary = |entry: &&Entry| entry.group == Group::Canary;
            let targets = shares(pool.backends.iter().filter(is_canary).collect(), key, ground, taken);
            let sample = window.map(|window| window.group(Group::Canary));
            Mirror::new(mirror.share.per_mille(), targets, sample)
        });
        if let Some((synthetic, window)) = pool.synthetic.as_ref().zip(window) {
            let is_compared = |entry: &&Entry| matches!(entry.group, Group::Canary | Group::Baseline);
            let sides = shares(pool.backends.iter().filter(is_compared).collect(), key, ground, taken);
            taken.help(Synthesis::new(synthetic, sides, window));
        }
        let slot = ground.slot(key, RevisionNumber(0), taken);
        let total = drawn.last().map_or(0, |share| share.end);
        let wishes = Wishes::new(key, pool);
        Self { slot, wishes, mirror, draws: AtomicU64::new(0), total, shares: drawn, aimed }
    }

    /// Returns whether there is any backend.
    pub(crate) fn is_empty(&self) -> bool {
        self.total == 0 && self.aimed.is_empty()
    }

    /// Chooses a backend that is not tried; one that is set aside only when there is no other. A wish that can't be met is
    /// none.
    pub(crate) fn choose(&self, heed: Heed<'_>, wish: Wish) -> Option<Choice> {
        match wish {
            Wish::Any => self.choose_any(heed),
            Wish::At(place) => self.share_at(place)?.choose(heed).or_else(|| self.choose_any(heed)),
            Wish::To(group) => {
                let aimed = self.aimed.iter().filter(|share| share.group == group);
                let choice = aimed.filter_map(|share| share.choose(heed)).next();
                let choice = choice.or_else(|| self.choose_any(heed))?;
                Some(Choice { sample: None, ..choice })
            }
        }
    }

    fn choose_any(&self, heed: Heed<'_>) -> Option<Choice> {
        if self.total == 0 {
            return None;
        }
        for _ in 0..DRAWS_MAX {
            let point = draw(&self.draws, self.total);
            let share = &self.shares[self.shares.partition_point(|share| share.end <= point)];
            let member = share.draw();
            if heed.is_fit(member) {
                return Some(share.choice(member));
            }
        }
        let members = || self.shares.iter().flat_map(|share| share.members.iter().map(move |m| (share, m)));
        let untried = || members().filter(|(_, member)| heed.is_untried(member));
        let chosen = untried().find(|(_, member)| heed.is_fit(member)).or_else(|| untried().next());
        chosen.map(|(share, member)| share.choice(member))
    }

    fn share_at(&self, place: Place) -> Option<&Share> {
        let point = scaled(place.0, self.total);
        self.shares.get(self.shares.partition_point(|share| share.end <= point))
    }
}

/// Sorts backends into the shares of a pool.
fn shares(mut entries: Vec<&Entry>, key: &PoolKey, ground: &Ground<'_>, taken: &mut Taken) -> Vec<Share> {
    let side = |group: Group| match group {
        Group::Canary => 0,
        Group::Stable => 1,
        Group::Baseline => 2,
    };
    // Of several stable revisions the newest is where a canary would be.
    entries.sort_by_key(|e| (side(e.group), Reverse(e.revision), e.instance, e.address));
    let mut shares: Vec<Share> = Vec::new();
    let mut end = 0;
    for entries in entries.chunk_by(|a, b| (a.revision, a.group) == (b.revision, b.group)) {
        let (revision, group) = (entries[0].revision, entries[0].group);
        let mut members = Vec::new();
        let mut total = 0;
        for entry in entries {
            // At least one, for those of no weight that are aimed at.
            let weight = u64::from(entry.weight.per_mille()).max(1);
            total += weight;
            members.push(Member { end: total, weight, backend: ground.route(entry, taken) });
        }
        end += total;
        let slot = ground.slot(key, revision, taken);
        let draws = AtomicU64::new(0);
        shares.push(Share { revision, group, slot, sample: None, end, draws, total, members });
    }
    shares
}

impl Share {
    fn choice(&self, member: &Member) -> Choice {
        let Self { revision, slot, sample, group, .. } = *self;
        Choice { backend: Arc::clone(&member.backend), revision, slot, sample, group }
    }

    /// A member that is fit, if there is one.
    pub(crate) fn choose(&self, heed: Heed<'_>) -> Option<Choice> {
        let drawn = (0..DRAWS_MAX).map(|_| self.draw()).find(|member| heed.is_fit(member));
        let member = drawn.or_else(|| self.members.iter().find(|member| heed.is_fit(member)))?;
        Some(self.choice(member))
    }

    /// A member, though none may be fit.
    pub(crate) fn anybody(&self, heed: Heed<'_>) -> Choice {
        self.choose(heed).unwrap_or_else(|| self.choice(self.draw()))
    }

    fn draw(&self) -> &Member {
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
pub(crate) fn draw(counter: &AtomicU64, total: u64) -> u64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    scaled(counter.fetch_add(GOLDEN, Ordering::Relaxed), total)
}

/// Maps `0..2^64` to `0..total`.
fn scaled(fraction: u64, total: u64) -> u64 {
    ((u128::from(fraction) * u128::from(total)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use kiln_model::route::HeaderMatch;
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

    fn any(balancer: &Balancer, now: Instant, tried: &[InstanceId]) -> Option<Choice> {
        balancer.choose(Heed { now, tried }, Wish::Any)
    }

    fn chosen(balancer: &Balancer, requests: usize) -> HashMap<InstanceId, usize> {
        let mut counts = HashMap::new();
        for _ in 0..requests {
            let backend = any(balancer, Instant::now(), &[]).unwrap().backend;
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
        let busy = balancer
            .shares
            .last()
            .unwrap()
            .members
            .iter()
            .find(|m| m.backend.instance == InstanceId::from_seed(1));
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
        let first = any(&balancer, now, &[]).unwrap().backend;
        first.connect_failed(now);
        let other = any(&balancer, now, &[]).unwrap().backend;
        assert_ne!(first.instance, other.instance);
        assert_eq!(any(&balancer, now, &[other.instance]).unwrap().backend.instance, first.instance);
        assert!(any(&balancer, now, &[first.instance, other.instance]).is_none());
    }

    #[test]
    fn a_pool_without_backends_or_with_weights_of_zero_is_empty() {
        let world = world();
        for pool in [pooled(&[]), pooled(&[(1, 1, 0)]), Pool::default()] {
            let balancer = world.balance(&pool);
            assert!(balancer.is_empty() && any(&balancer, Instant::now(), &[]).is_none());
        }
    }

    #[test]
    fn users_only_come_to_the_canary_while_its_share_grows() {
        let world = world();
        let group_of = |canary: u16, user: u64| {
            let mut pool = pooled(&[
                (1, 1, 1000 - 2 * canary.min(500)),
                (2, 1, canary.min(1000 - canary)),
                (3, 2, canary),
            ]);
            (pool.backends[1].group, pool.backends[2].group) = (Group::Baseline, Group::Canary);
            let balancer = world.balance(&pool);
            let place = Place(user.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let choice = balancer.choose(Heed { now: Instant::now(), tried: &[] }, Wish::At(place)).unwrap();
            choice.backend.instance == InstanceId::from_seed(3)
        };
        let users = 1..=500_u64;
        let mut before = vec![false; 500];
        for canary in [0, 10, 50, 250, 500, 750, 1000] {
            let now: Vec<bool> = users.clone().map(|user| group_of(canary, user)).collect();
            assert!(before.iter().zip(&now).all(|(before, now)| !before || *now), "at {canary}");
            let share = now.iter().filter(|is_canary| **is_canary).count();
            assert!(share.abs_diff(usize::from(canary) / 2) <= 2, "{share} of 500 at {canary}");
            before = now;
        }
    }

    #[test]
    fn a_wish_is_met_while_its_group_can_be_reached() {
        let world = world();
        let mut pool = pooled(&[(1, 1, 1000), (3, 2, 0)]);
        pool.backends[1].group = Group::Canary;
        let header = "x-tester".to_owned();
        pool.aim = vec![kiln_model::route::Aim { header, value: HeaderMatch::Present, group: Group::Canary }];
        let balancer = world.balance(&pool);
        let now = Instant::now();
        let instance = |wish, tried: &[u64]| {
            let tried: Vec<_> = tried.iter().map(|id| InstanceId::from_seed(*id)).collect();
            balancer.choose(Heed { now, tried: &tried }, wish).map(|choice| choice.backend.instance)
        };
        let [stable, canary] = [1, 3].map(InstanceId::from_seed);
        assert_eq!(instance(Wish::To(Group::Canary), &[]), Some(canary), "though its weight is zero");
        assert_eq!(instance(Wish::To(Group::Canary), &[3]), Some(stable));
        assert_eq!(instance(Wish::To(Group::Baseline), &[]), Some(stable));
        assert_eq!(instance(Wish::At(Place(0)), &[]), Some(stable));
        assert_eq!(instance(Wish::At(Place(0)), &[1]), None);
        world.registry.route(canary, "127.0.0.1:1".parse().unwrap()).connect_failed(now);
        assert_eq!(instance(Wish::To(Group::Canary), &[]), Some(stable));
    }

    #[test]
    fn a_large_pool_spreads_evenly() {
        let backends: Vec<_> = (1..=10).map(|id| (id, 1, 1000)).collect();
        let counts = chosen(&world().balance(&pooled(&backends)), 1000);
        assert!(counts.values().all(|count| (85..=115).contains(count)), "{counts:?}");
    }
}
