//! The route table in the form that requests are matched against.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use kiln_model::route::{Backend as Entry, Listener, Pool, PoolKey, RouteTable, Sampling};
use kiln_model::{InstanceId, RevisionNumber};

use crate::backend::{Backend, Registry};
use crate::balancer::Balancer;
use crate::ledger::{Ledger, SlotRef};
use crate::samples::{Samples, WindowKey, WindowRef};
use crate::synthesis::Synthesis;

/// A compiled table. Never changes; replaced as a whole.
#[derive(Debug, Default)]
pub(crate) struct Table {
    listeners: HashMap<Listener, Hosts>,
    /// The ledger slots that it counts in.
    slots: HashSet<SlotRef>,
    /// The windows that it counts in.
    windows: HashSet<WindowRef>,
    backends: HashSet<(InstanceId, SocketAddr)>,
    /// The requests that the edge makes itself.
    syntheses: Vec<Arc<Synthesis>>,
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

/// What the table that is being compiled has taken so far.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    slots: HashSet<SlotRef>,
    windows: HashSet<WindowRef>,
    backends: HashSet<(InstanceId, SocketAddr)>,
    syntheses: Vec<Arc<Synthesis>>,
}

impl Taken {
    /// Takes requests that the edge is to make itself.
    pub(crate) fn help(&mut self, synthesis: Option<Arc<Synthesis>>) {
        self.syntheses.extend(synthesis);
    }
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
    pub(crate) fn slot(&self, key: &PoolKey, revision: RevisionNumber, taken: &mut Taken) -> SlotRef {
        let needed = |slot: SlotRef| taken.slots.contains(&slot) || self.served.slots.contains(&slot);
        let slot = self.ledger.slot(&key.env, &key.service, revision, &needed);
        taken.slots.insert(slot);
        slot
    }

    /// Returns the backend of an entry, routed from now on.
    pub(crate) fn route(&self, entry: &Entry, taken: &mut Taken) -> Arc<Backend> {
        taken.backends.insert((entry.instance, entry.address));
        self.registry.route(entry.instance, entry.address)
    }

    pub(crate) fn window(&self, key: &PoolKey, sampling: Sampling, taken: &mut Taken) -> Option<WindowRef> {
        let needed =
            |window: WindowRef| taken.windows.contains(&window) || self.served.windows.contains(&window);
        let key = WindowKey { env: &key.env, service: &key.service, sampling };
        let window = self.samples?.window(key, &needed)?;
        taken.windows.insert(window);
        Some(window)
    }
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
        let Taken { slots, windows, backends, syntheses } = taken;
        Self { listeners, slots, windows, backends, syntheses }
    }

    /// The requests that the edge makes itself while this table is served.
    pub(crate) fn syntheses(&self) -> &[Arc<Synthesis>] {
        &self.syntheses
    }

    /// Whether these are among them.
    pub(crate) fn helps_with(&self, synthesis: &Arc<Synthesis>) -> bool {
        self.syntheses.iter().any(|other| Arc::ptr_eq(other, synthesis))
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

#[cfg(test)]
mod tests {
    use kiln_model::route::Rule;
    use kiln_model::{EnvKey, EnvName, RevisionNumber, ServiceName, StackName};

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
}
