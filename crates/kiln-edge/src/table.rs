//! The route table in the form that requests are matched against, and the choice among backends.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use kiln_model::route::{Listener, Pool, PoolKey, RouteTable, Sampling};
use kiln_model::{InstanceId, RevisionNumber};

use crate::backend::{Backend, Registry};
use crate::ledger::{Ledger, SlotRef};
use crate::samples::{SampleRef, Samples, WindowKey, WindowRef};

/// A compiled table. Never changes; replaced as a whole.
#[derive(Debug, Default)]
pub(crate) struct Table {
    listeners: HashMap<Listener, Hosts>,
    /// The ledger slots that it counts in.
    slots: HashSet<SlotRef>,
    /// The windows that it counts in.
    windows: HashSet<WindowRef>,
    backends: HashSet<(InstanceId, SocketAddr)>,
}

#[derive(Debug, Default)]
struct Hosts {
    named: HashMap<String, Vec<PathRule>>,
    any: Vec<PathRule>,
}

#[derive(Debug)]
struct PathRule {
    /// Without a slash at its end, so that the root is empty.
    prefix: String,
    balancer: Arc<Balancer>,
}

/// Where a table's parts live outside of it.
pub(crate) struct Ground<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) ledger: &'a Ledger,
    pub(crate) samples: Option<&'a Samples>,
    /// The table that is served now, and still counts.
    pub(crate) served: &'a Table,
}

impl Ground<'_> {
    fn slot(&self, key: &PoolKey, revision: RevisionNumber, taken: &mut Taken) -> SlotRef {
        let needed = |slot: SlotRef| taken.slots.contains(&slot) || self.served.slots.contains(&slot);
        let slot = self.ledger.slot(&key.env, &key.service, revision, &needed);
        taken.slots.insert(slot);
        slot
    }

    fn window(&self, key: &PoolKey, sampling: Sampling, taken: &mut Taken) -> Option<WindowRef> {
        let needed =
            |window: WindowRef| taken.windows.contains(&window) || self.served.windows.contains(&window);
        let key = WindowKey { env: &key.env, service: &key.service, sampling };
        let window = self.samples?.window(key, &needed)?;
        taken.windows.insert(window);
        Some(window)
    }
}

/// What the table that is being compiled has taken so far.
#[derive(Debug, Default)]
struct Taken {
    slots: HashSet<SlotRef>,
    windows: HashSet<WindowRef>,
}

/// A backend, and under which revision it serves.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub(crate) backend: Arc<Backend>,
    pub(crate) revision: RevisionNumber,
    pub(crate) slot: SlotRef,
    /// Where its outcome is counted for an analysis.
    pub(crate) sample: Option<SampleRef>,
}

impl Table {
    /// Compiles a table. All its backends are routed from now on; the others are for the caller to retire once this one
    /// is served.
    pub(crate) fn compile(model: &RouteTable, ground: &Ground<'_>) -> Self {
        let mut taken = Taken::default();
        let mut balancers: BTreeMap<&PoolKey, Arc<Balancer>> = BTreeMap::new();
        for (key, pool) in &model.pools {
            balancers.insert(key, Arc::new(Balancer::new(key, pool, ground, &mut taken)));
        }
        let live = model.pools.values().flat_map(|pool| &pool.backends).filter(|b| b.weight.per_mille() > 0);
        let backends = live.map(|backend| (backend.instance, backend.address)).collect();
        let mut listeners: HashMap<Listener, Hosts> = HashMap::new();
        for rule in &model.rules {
            let hosts = listeners.entry(rule.listener).or_default();
            let rules = match &rule.host {
                Some(host) => hosts.named.entry(host.to_ascii_lowercase()).or_default(),
                None => &mut hosts.any,
            };
            let balancer = balancers
                .entry(&rule.pool)
                .or_insert_with(|| Arc::new(Balancer::new(&rule.pool, &Pool::default(), ground, &mut taken)));
            let prefix = rule.path.trim_end_matches('/').to_owned();
            rules.push(PathRule { prefix, balancer: Arc::clone(balancer) });
        }
        for hosts in listeners.values_mut() {
            // Stable: of two equal rules the first holds.
            let longest_first = |rules: &mut Vec<PathRule>| {
                rules.sort_by_key(|rule| std::cmp::Reverse(rule.prefix.len()));
            };
            hosts.named.values_mut().for_each(longest_first);
            longest_first(&mut hosts.any);
        }
        let Taken { slots, windows } = taken;
        Self { listeners, slots, windows, backends }
    }

    /// Whether it sends requests there.
    pub(crate) fn names(&self, backend: &Backend) -> bool {
        self.backends.contains(&(backend.instance, backend.address))
    }

    /// Finds the pool for a request: a rule for the host before one for any, then the longest path.
    pub(crate) fn find(&self, listener: &Listener, host: Option<&str>, path: &str) -> Option<&Arc<Balancer>> {
        let hosts = self.listeners.get(listener)?;
        let named = host.filter(|_| !hosts.named.is_empty()).and_then(|host| hosts.named.get(&*bare(host)));
        let of = |rules: &'_ [PathRule]| rules.iter().position(|rule| is_below(path, &rule.prefix));
        let rule = match named.and_then(|rules| of(rules).map(|at| &rules[at])) {
            Some(rule) => rule,
            None => &hosts.any[of(&hosts.any)?],
        };
        Some(&rule.balancer)
    }
}

/// A host without its port, its last dot and its capitals.
fn bare(host: &str) -> Cow<'_, str> {
    let name = match host.rfind(':') {
        // Inside brackets the colon is part of an IPv6 address.
        Some(at) if !host[at..].contains(']') => &host[..at],
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|b| b.is_ascii_uppercase()) { name.to_ascii_lowercase().into() } else { name.into() }
}

/// Whether `path` is `prefix` or lies below it, by whole segments.
fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
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
    fn new(key: &PoolKey, pool: &Pool, ground: &Ground<'_>, taken: &mut Taken) -> Self {
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
    use kiln_model::route::{Backend as Entry, Group, Rule};
    use kiln_model::{EnvKey, EnvName, ServiceName, StackName, Weight};

    use super::*;

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
        fn compile(&self, model: &RouteTable) -> Table {
            let (registry, ledger, served) = (&self.registry, &self.ledger, &Table::default());
            Table::compile(model, &Ground { registry, ledger, samples: None, served })
        }
    }

    fn key(service: &str) -> PoolKey {
        let env = EnvKey { stack: StackName::new("shop").unwrap(), env: EnvName::new("dev").unwrap() };
        PoolKey { env, service: ServiceName::new(service).unwrap(), port: 80 }
    }

    fn listener() -> Listener {
        Listener::Internal(0)
    }

    fn routed(rules: &[(Option<&str>, &str, &str)]) -> RouteTable {
        let rule = |(host, path, service): &(Option<&str>, &str, &str)| Rule {
            listener: listener(),
            host: host.map(str::to_owned),
            path: (*path).to_owned(),
            pool: key(service),
        };
        RouteTable { rules: rules.iter().map(rule).collect(), ..RouteTable::default() }
    }

    fn pooled(backends: &[(u64, u64, u16)]) -> RouteTable {
        let mut model = routed(&[(None, "/", "web")]);
        let entry = |(id, revision, weight): &(u64, u64, u16)| Entry {
            instance: InstanceId::from_seed(*id),
            revision: RevisionNumber(*revision),
            address: "127.0.0.1:1".parse().unwrap(),
            weight: Weight::new(*weight).unwrap(),
            group: Group::Stable,
        };
        let pool = Pool { backends: backends.iter().map(entry).collect(), ..Pool::default() };
        model.pools.insert(key("web"), Arc::new(pool));
        model
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
    fn the_host_decides_before_the_path_and_the_longest_path_wins() {
        let world = world();
        let table = world.compile(&routed(&[
            (None, "/", "any"),
            (None, "/api/v2", "any-v2"),
            (Some("Shop.localhost"), "/", "shop"),
            (Some("shop.localhost"), "/api", "shop-api"),
            (Some("only.localhost"), "/sub/", "only"),
        ]));
        let found = |host, path| table.find(&listener(), host, path).unwrap().slot;
        let slot_of = |service| {
            let PoolKey { env, service, .. } = key(service);
            world.ledger.slot(&env, &service, RevisionNumber(0), &|_| true)
        };
        let names = ["any", "any-v2", "shop", "shop-api", "only"];
        let find = |host, path| *names.iter().find(|name| slot_of(name) == found(host, path)).unwrap();
        assert_eq!(find(Some("SHOP.localhost:8080"), "/"), "shop");
        assert_eq!(find(Some("shop.localhost."), "/api"), "shop-api");
        assert_eq!(find(Some("shop.localhost"), "/api/v2"), "shop-api");
        assert_eq!(find(Some("shop.localhost"), "/apixyz"), "shop");
        assert_eq!(find(Some("[::1]:80"), "/api/v2/x"), "any-v2");
        assert_eq!(find(None, "/api"), "any");
        assert_eq!(find(Some("only.localhost"), "/sub"), "only");
        assert_eq!(find(Some("only.localhost"), "/subway"), "any");
        assert_eq!(bare("[::1]"), "[::1]");
        assert_eq!(bare("[::1]:80"), "[::1]");
    }

    #[test]
    fn another_listener_and_an_unknown_host_match_nothing() {
        let table = world().compile(&routed(&[(Some("a"), "/x", "web")]));
        assert!(table.find(&Listener::Internal(1), Some("a"), "/x").is_none());
        assert!(table.find(&listener(), Some("b"), "/x").is_none());
        assert!(table.find(&listener(), Some("a"), "/").is_none());
        assert!(table.find(&listener(), None, "/x").is_none());
    }

    #[test]
    fn shares_between_revisions_are_exact_to_a_few_requests() {
        let world = world();
        let table = world.compile(&pooled(&[(1, 1, 475), (2, 1, 475), (3, 2, 50)]));
        let balancer = table.find(&listener(), None, "/").unwrap();
        let counts = chosen(balancer, 2000);
        let canary = counts[&InstanceId::from_seed(3)];
        assert!((98..=102).contains(&canary), "{canary}");
        let first = counts[&InstanceId::from_seed(1)];
        assert!((940..=960).contains(&first), "{first}");
    }

    #[test]
    fn the_baseline_and_the_stable_group_of_one_revision_have_shares_of_their_own() {
        let world = world();
        let mut model = pooled(&[(1, 1, 450), (2, 1, 450), (3, 1, 50), (4, 2, 50)]);
        let pool = Arc::make_mut(model.pools.get_mut(&key("web")).unwrap());
        (pool.backends[2].group, pool.backends[3].group) = (Group::Baseline, Group::Canary);
        let table = world.compile(&model);
        let balancer = table.find(&listener(), None, "/").unwrap();
        // By load alone, what is busy would get less.
        let busy = world.registry.route(InstanceId::from_seed(3), "127.0.0.1:1".parse().unwrap());
        for _ in 0..50 {
            assert!(busy.enter());
        }
        let counts = chosen(balancer, 2000);
        for id in [3, 4] {
            let share = counts[&InstanceId::from_seed(id)];
            assert!((98..=102).contains(&share), "{counts:?}");
        }
    }

    #[test]
    fn a_busy_backend_gets_less_but_its_revision_keeps_its_share() {
        let world = world();
        let table = world.compile(&pooled(&[(1, 1, 500), (2, 1, 500), (3, 2, 1000)]));
        let balancer = table.find(&listener(), None, "/").unwrap();
        let busy = balancer.groups[0].members.iter().find(|m| m.backend.instance == InstanceId::from_seed(1));
        for _ in 0..50 {
            assert!(busy.unwrap().backend.enter());
        }
        let counts = chosen(balancer, 1000);
        let of = |id| counts.get(&InstanceId::from_seed(id)).copied().unwrap_or(0);
        assert!(of(1) < of(2) / 2, "{counts:?}");
        assert!((495..=505).contains(&of(3)), "{counts:?}");
    }

    #[test]
    fn what_is_set_aside_is_chosen_only_when_nothing_else_is_left() {
        let world = world();
        let table = world.compile(&pooled(&[(1, 1, 1000), (2, 1, 1000), (3, 1, 0)]));
        let balancer = table.find(&listener(), None, "/").unwrap();
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
        for model in [pooled(&[]), pooled(&[(1, 1, 0)]), routed(&[(None, "/", "web")])] {
            let table = world.compile(&model);
            let balancer = table.find(&listener(), None, "/").unwrap();
            assert!(balancer.is_empty() && balancer.choose(Instant::now(), &[]).is_none());
        }
    }

    #[test]
    fn a_large_pool_spreads_evenly() {
        let backends: Vec<_> = (1..=10).map(|id| (id, 1, 1000)).collect();
        let table = world().compile(&pooled(&backends));
        let counts = chosen(table.find(&listener(), None, "/").unwrap(), 1000);
        assert!(counts.values().all(|count| (85..=115).contains(count)), "{counts:?}");
    }
}
