//! What the simulated users deploy.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use kiln_model::ask::{Again, Ask, Method, Whom};
use kiln_model::instance::{HealthCheck, Probe, StopPolicy};
use kiln_model::interlude::Interludes;
use kiln_model::outside::{Comparison, Condition, Number, OutsideMetric};
use kiln_model::release::RevisionSpec;
use kiln_model::route::{Aim, Group, HeaderMatch, Mirror, Route, Sticky, Synthetic};
use kiln_model::service::{
    Analysis, Audience, Canary, Gate, Inconclusive, Margin, Metric, MetricKind, PortRef, RolloutBounds,
    Service, ServiceKind, Stage, Strategy, WaveSize, Waves,
};
use kiln_model::{
    Digest, EnvKey, EnvName, InstanceSpec, Millis, PortName, RouteName, ServiceName, StackName, Weight,
};

use crate::rng::Rng;

/// How the instances of one version behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// Comes to be healthy.
    Good,
    /// Runs and fails its probes.
    NeverHealthy,
    /// Says that it is healthy, and fails its requests.
    Lies,
    /// Ends soon after its start.
    Crashes,
    /// Can't be created.
    Refused,
    /// A job that ends with this code.
    Job(u8),
}

const NATURE: &str = "NATURE";

/// Reads how instances of a spec behave: it is written in their environment.
pub fn nature(spec: &InstanceSpec) -> Nature {
    match spec.env.get(NATURE).map(String::as_str) {
        Some("never-healthy") => Nature::NeverHealthy,
        Some("lies") => Nature::Lies,
        Some("crashes") => Nature::Crashes,
        Some("refused") => Nature::Refused,
        Some("job") => Nature::Job(0),
        Some("bad-job") => Nature::Job(3),
        _ => Nature::Good,
    }
}

/// Whether a spec is a job's.
pub fn is_job(spec: &InstanceSpec) -> bool {
    matches!(nature(spec), Nature::Job(_))
}

/// The names of the world: two environments of one stack, and another stack.
pub fn environments() -> Vec<EnvKey> {
    let key = |stack: &str, env: &str| EnvKey {
        stack: StackName::new(stack).expect("a valid name, written here"),
        env: EnvName::new(env).expect("a valid name, written here"),
    };
    vec![key("shop", "prod"), key("shop", "dev"), key("blog", "prod")]
}

/// Returns a service name.
pub fn service(name: &str) -> ServiceName {
    ServiceName::new(name).expect("a valid name, written here")
}

/// What one environment declares, changed step by step as its users would.
#[derive(Debug, Clone)]
pub struct Declared {
    services: BTreeMap<ServiceName, Desired>,
    port: u16,
    routed: bool,
    is_wide: bool,
}

#[derive(Debug, Clone)]
struct Desired {
    kind: ServiceKind,
    version: u64,
    nature: &'static str,
    replicas: u32,
    strategy: Strategy,
    bounds: RolloutBounds,
    interludes: Arc<Interludes>,
    probed: bool,
}

impl Declared {
    /// Returns a first declaration for the environment of this index; who is careful has a canary from the beginning, and in a wide
    /// world there is more to be declared.
    pub fn new(rng: &mut Rng, index: u16, careful: bool, is_wide: bool) -> Self {
        let mut services = BTreeMap::new();
        let mut web = Desired::random(rng, ServiceKind::Service, is_wide);
        if careful {
            web.strategy = Strategy::Canary(Arc::new(canary(rng, is_wide)));
        }
        services.insert(service("web"), web);
        if rng.chance(500) {
            services.insert(service("api"), Desired::random(rng, ServiceKind::Service, is_wide));
        }
        if rng.chance(400) {
            services.insert(service("mail"), Desired::random(rng, ServiceKind::Worker, is_wide));
        }
        if rng.chance(300) {
            services.insert(service("migrate"), Desired::random(rng, ServiceKind::Job, is_wide));
        }
        Self { services, port: 8000 + index * 10, routed: true, is_wide }
    }

    /// Changes something, often a version, sometimes to a bad one.
    pub fn change(&mut self, rng: &mut Rng, bad_per_mille: u64) {
        match rng.below(20) {
            0 => {
                let name = service(rng.word(&["api", "mail", "migrate"]));
                if self.services.remove(&name).is_none() {
                    let kind = match name.as_str() {
                        "mail" => ServiceKind::Worker,
                        "migrate" => ServiceKind::Job,
                        _ => ServiceKind::Service,
                    };
                    self.services.insert(name, Desired::random(rng, kind, self.is_wide));
                }
            }
            1 => self.port = if self.port.is_multiple_of(2) { self.port + 1 } else { self.port - 1 },
            2 => self.routed = !self.routed,
            _ => {
                let names: Vec<_> = self.services.keys().cloned().collect();
                for _ in 0..rng.between(1, 2) {
                    let name = rng.pick(&names);
                    if let Some(desired) = self.services.get_mut(name) {
                        desired.change(rng, bad_per_mille, self.is_wide);
                    }
                }
            }
        }
    }

    /// Declares another version of `web`.
    pub fn new_version(&mut self, rng: &mut Rng, bad_per_mille: u64) {
        if let Some(web) = self.services.get_mut(&service("web")) {
            web.new_version(rng, bad_per_mille);
        }
    }

    /// Returns what is sealed, with the digests of its release and its binding.
    pub fn seal(&self) -> (Digest, Digest, Arc<RevisionSpec>) {
        let services: BTreeMap<_, _> =
            self.services.iter().map(|(name, desired)| (name.clone(), desired.seal(name))).collect();
        let mut routes = BTreeMap::new();
        if self.routed {
            for (name, desired) in &self.services {
                if desired.kind == ServiceKind::Service {
                    let route = self.route(name);
                    routes.insert(route.name.clone(), route);
                }
            }
        }
        let spec = RevisionSpec { services, routes, ..RevisionSpec::default() };
        let text = format!("{spec:?}");
        (digest(&[b"release", text.as_bytes()]), digest(&[b"binding", text.as_bytes()]), Arc::new(spec))
    }

    fn route(&self, name: &ServiceName) -> Route {
        Route {
            name: RouteName::new(name.as_str()).expect("a service's name is a route's name here"),
            listen: SocketAddr::from(([0, 0, 0, 0], self.port)),
            host: None,
            path: if name.as_str() == "web" { "/".into() } else { format!("/{name}") },
            to: PortRef {
                service: name.clone(),
                port: PortName::new("http").expect("a valid name, written here"),
            },
        }
    }
}

impl Desired {
    fn random(rng: &mut Rng, kind: ServiceKind, is_wide: bool) -> Self {
        Self {
            kind,
            version: rng.below(1000),
            nature: if kind == ServiceKind::Job { "job" } else { "good" },
            replicas: if kind == ServiceKind::Job { 1 } else { rng.between(1, 4) as u32 },
            strategy: strategy(rng, kind, is_wide),
            bounds: bounds(rng, is_wide),
            interludes: Arc::new(interludes(rng, kind)),
            probed: kind == ServiceKind::Service || rng.chance(500),
        }
    }

    fn change(&mut self, rng: &mut Rng, bad_per_mille: u64, is_wide: bool) {
        match rng.below(8) {
            0 if self.kind != ServiceKind::Job => self.replicas = rng.between(0, 5) as u32,
            1 => self.strategy = strategy(rng, self.kind, is_wide),
            2 => self.bounds.warm_for = Millis::from_secs(rng.between(0, 90)),
            3 => self.interludes = Arc::new(interludes(rng, self.kind)),
            4 if is_wide && Rng::new(!rng.clone().bits()).chance(200) => self.bounds = bounds(rng, true),
            _ => self.new_version(rng, bad_per_mille),
        }
    }

    fn new_version(&mut self, rng: &mut Rng, bad_per_mille: u64) {
        self.version = rng.below(1000);
        let bad = rng.chance(bad_per_mille);
        self.nature = match (self.kind, bad) {
            (ServiceKind::Job, false) => "job",
            (ServiceKind::Job, true) => "bad-job",
            (_, false) => "good",
            (_, true) => rng.word(&["never-healthy", "lies", "crashes", "refused"]),
        };
    }

    fn seal(&self, name: &ServiceName) -> Service {
        let spec = InstanceSpec {
            env: BTreeMap::from([
                (NATURE.into(), self.nature.into()),
                ("VERSION".into(), self.version.to_string()),
            ]),
            ports: match self.kind {
                ServiceKind::Service => {
                    BTreeMap::from([(PortName::new("http").expect("a valid name, written here"), 8080)])
                }
                ServiceKind::Worker | ServiceKind::Job => BTreeMap::new(),
            },
            health: (self.probed && self.kind != ServiceKind::Job).then(health),
            stop: StopPolicy { signal: "SIGTERM".into(), grace: Millis::from_secs(3) },
            ..InstanceSpec::plain(
                digest(&[name.as_str().as_bytes(), &self.version.to_le_bytes()]),
                vec!["/app".into()],
            )
        };
        let spec_digest = digest(&[format!("{spec:?}").as_bytes()]);
        Service {
            name: name.clone(),
            kind: self.kind,
            spec: Arc::new(spec),
            spec_digest,
            replicas: self.replicas,
            strategy: self.strategy.clone(),
            after: BTreeSet::new(),
            bounds: self.bounds,
            interludes: self.interludes.clone(),
        }
    }
}

/// How long what may take, and what waits for somebody.
fn bounds(rng: &mut Rng, is_wide: bool) -> RolloutBounds {
    let bounds = RolloutBounds {
        progress_deadline: Millis::from_secs(rng.between(10, 60)),
        drain_deadline: Millis::from_secs(rng.between(1, 10)),
        warm_for: Millis::from_secs(rng.between(0, 90)),
        ..RolloutBounds::default()
    };
    let mut apart = Rng::new(!rng.clone().bits());
    let auto_revert = !apart.chance(150);
    if !is_wide {
        return RolloutBounds { auto_revert, ..bounds };
    }
    let auto_promote = !apart.chance(150);
    // So short that it can be kept: what can't be is refused before it comes here.
    let longest = bounds.progress_deadline.0 / 3;
    let healthy_for = if apart.chance(250) { Millis(apart.between(1, longest)) } else { Millis(0) };
    RolloutBounds { auto_revert, auto_promote, healthy_for, ..bounds }
}

/// Nothing, or something at some moments; the job may be there or not.
fn interludes(rng: &mut Rng, kind: ServiceKind) -> Interludes {
    let mut all = Interludes::default();
    if kind == ServiceKind::Job || rng.chance(600) {
        return all;
    }
    let Interludes { before, created, ready, moved, drained, retired } = &mut all;
    for list in [before, created, ready, moved, drained, retired] {
        let within = Millis::from_secs(rng.between(1, 40));
        match rng.below(8) {
            0 => list.push(Gate::Run { job: service("migrate"), within }),
            1 => list.push(Gate::Check { job: service("migrate"), within, again: again(rng) }),
            2 => list.push(Gate::Hold(within)),
            3 => list.push(Gate::Approve { by: approvers(rng), within }),
            _ => {}
        }
        // Apart, so that older seeds declare what they always did.
        let mut apart = Rng::new(!rng.clone().bits());
        if apart.chance(200) {
            list.push(Gate::Ask(Arc::new(ask(&mut apart, within))));
        }
    }
    let mut apart = Rng::new(!rng.clone().bits());
    if kind == ServiceKind::Service && apart.chance(250) {
        let share = Weight::new(apart.between(1, 1000) as u16).expect("at most a thousand");
        let span = apart.chance(500).then(|| Millis::from_secs(apart.between(1, 20)));
        let at = apart.between(0, all.ready.len() as u64) as usize;
        all.ready.insert(at, Gate::Mirror { share, span });
        if span.is_none() && apart.chance(300) {
            all.ready.push(Gate::Mirror { share: Weight::ZERO, span: None });
        }
    }
    all
}

/// Mostly several attempts: those of this world often fail.
fn again(rng: &Rng) -> Again {
    let mut apart = Rng::new(!rng.clone().bits());
    let attempts = apart.between(1, 5) as u32;
    Again { attempts, interval: Millis(apart.between(1, 10_000)) }
}

/// A question to somebody, or to the new instances, whether there are any or not.
fn ask(rng: &mut Rng, timeout: Millis) -> Ask {
    let port = PortName::new("http").expect("a valid name, written here");
    let whom = match rng.chance(500) {
        true => Whom::Url("http://ready.example/".into()),
        false => Whom::Instances { port, path: "/ready".into() },
    };
    let again = again(rng);
    Ask {
        service: service("web"),
        whom,
        method: Method::Get,
        status: None,
        contains: None,
        timeout,
        again,
        access: Default::default(),
    }
}

fn strategy(rng: &mut Rng, kind: ServiceKind, is_wide: bool) -> Strategy {
    match (kind, rng.below(6)) {
        (ServiceKind::Worker, 0 | 1) | (ServiceKind::Job, _) => Strategy::StopThenStart,
        (_, 0) => Strategy::BlueGreen,
        (ServiceKind::Service, 1 | 4 | 5) => Strategy::Canary(Arc::new(canary(rng, is_wide))),
        _ => {
            let max_unavailable = rng.below(3) as u32;
            let least_surge = u64::from(max_unavailable == 0);
            let max_surge = rng.between(least_surge, 3) as u32;
            // Apart, so that older seeds declare what they always did.
            let mut apart = Rng::new(!rng.clone().bits());
            let waves = apart.chance(400).then(|| Arc::new(waves(&mut apart)));
            Strategy::Rolling { max_surge, max_unavailable, waves }
        }
    }
}

/// One instance, then perhaps a share of them.
fn waves(rng: &mut Rng) -> Waves {
    let share = Weight::new(rng.between(100, 900) as u16).expect("below a thousand");
    let sizes = [WaveSize::Count(1), WaveSize::Share(share)];
    let count = rng.between(1, 2) as usize;
    Waves { sizes: sizes.into_iter().take(count).collect(), soak: Millis::from_secs(rng.between(1, 20)) }
}

/// One or two stages, with whatever may be waited for after each.
fn canary(rng: &mut Rng, is_wide: bool) -> Canary {
    let metric = Metric { kind: MetricKind::ErrorRate, worse_by: Margin::Absolute(20_000) };
    let inconclusive = match rng.below(3) {
        0 => Inconclusive::Stop,
        1 => Inconclusive::Continue,
        _ => Inconclusive::Ask,
    };
    let analysis = Analysis {
        metrics: vec![metric],
        outside: Vec::new(),
        alpha: 50_000,
        inconclusive,
        extensions: 0,
        synthetic: None,
        dry_run: rng.chance(100),
    };
    let analysis = Some(analysis).filter(|_| rng.chance(600));
    let weights = [rng.between(1, 300), rng.between(301, 999)];
    let stages = weights.into_iter().take(rng.between(1, 2) as usize).map(|weight| {
        let within = Millis::from_secs(rng.between(1, 40));
        let gate = match rng.below(7) {
            0 => None,
            1 | 2 => Some(Gate::Approve { by: approvers(rng), within }),
            3..6 if analysis.is_some() => Some(Gate::Analyse(within)),
            _ => Some(Gate::Hold(within)),
        };
        Stage {
            weight: Weight::new(weight as u16).expect("below a thousand"),
            gates: gate.into_iter().collect(),
        }
    });
    let mut stages: Vec<Stage> = stages.collect();
    // Apart, so that older seeds declare what they always did. It may be less than the shares take: what runs does not refuse it.
    let mut apart = Rng::new(!rng.clone().bits());
    let max_surge = apart.chance(300).then(|| apart.between(1, 3) as u32);
    let mut audience = Audience::default();
    if apart.chance(150) {
        let gates = vec![Gate::Hold(Millis::from_secs(apart.between(1, 20)))];
        stages.insert(0, Stage { weight: Weight::ZERO, gates });
        let aim = Aim {
            header: "X-Version".into(),
            value: HeaderMatch::Exact("next".into()),
            group: Group::Canary,
        };
        audience.aim.push(aim);
    }
    let mut analysis = analysis.clone();
    if let Some(analysis) = analysis.as_mut().filter(|_| apart.chance(300)) {
        analysis.extensions = apart.between(1, 2) as u32;
    }
    if let Some(analysis) = analysis.as_mut().filter(|_| apart.chance(300)) {
        let port = PortName::new("http").expect("it is a name");
        let (path, host) = ("/".to_owned(), "web".to_owned());
        let made = Synthetic { method: Method::Get, path, host, port, rate: 20, count: 1000 };
        analysis.synthetic = Some(Arc::new(made));
    }
    if !is_wide {
        return Canary { stages, analysis, audience, max_surge };
    }
    let analysis = analysis.map(|analysis| Analysis { outside: outside(&mut apart), ..analysis });
    let beside = audience_of(&mut apart);
    audience.aim.extend(beside.aim);
    let audience = Audience { aim: audience.aim, ..beside };
    Canary { stages, analysis, audience, max_surge }
}

/// Mostly nothing; else one or two metrics that others measure, with few or many mistakes that are accepted.
fn outside(rng: &mut Rng) -> Vec<OutsideMetric> {
    let count = if rng.chance(400) { rng.between(1, 2) } else { 0 };
    let condition = |comparison, with| Some(Condition { comparison, with: Number(with) });
    let metric = |index| OutsideMetric {
        name: format!("outside-{index}"),
        prometheus: "http://prometheus.example:9090".into(),
        query: "rate(errors[1m])".into(),
        access: Default::default(),
        success: condition(Comparison::Less, 1.0).filter(|_| index == 0 || rng.chance(700)),
        failure: condition(Comparison::Greater, 2.0),
        interval: Millis(rng.between(200, 6_000)),
        count: rng.between(1, 5) as u32,
        failure_limit: rng.below(2) as u32,
        inconclusive_limit: rng.below(3) as u32,
        error_limit: rng.below(3) as u32,
        dry_run: rng.chance(150),
    };
    (0..count).map(metric).collect()
}

/// Who stays with a version, and who is sent to one: the core hands it on to the edge, for as long as the requests are split.
fn audience_of(rng: &mut Rng) -> Audience {
    let sticky = match rng.below(8) {
        0 => Some(Sticky::Cookie { name: "version".into(), max_age: Millis::from_secs(3600) }),
        1 => Some(Sticky::Header { name: "account".into() }),
        2 => Some(Sticky::Address),
        _ => None,
    };
    let testers = |group| Aim { header: "tester".into(), value: HeaderMatch::Exact("yes".into()), group };
    let aim = if rng.chance(300) { vec![testers(Group::Canary)] } else { Vec::new() };
    let share = Weight::new(rng.between(1, 1000) as u16).expect("at most a thousand");
    Audience { sticky, aim, mirror: rng.chance(200).then_some(Mirror { share }) }
}

/// Anybody, one or another of the users, or somebody who is never there.
fn approvers(rng: &mut Rng) -> Vec<String> {
    let all: [&[&str]; 5] = [&[], &["ada"], &["bob"], &["ada", "bob"], &["zoe"]];
    rng.pick(&all).iter().map(|name| (*name).to_owned()).collect()
}

/// A spec whose instances behave in one way, named as in their environment, and that nobody declares.
pub fn example(nature: &'static str) -> InstanceSpec {
    let mut rng = Rng::new(0);
    let desired = Desired { nature, ..Desired::random(&mut rng, ServiceKind::Service, false) };
    InstanceSpec::clone(&desired.seal(&service("example")).spec)
}

/// How the instances of this world are probed.
pub fn health() -> HealthCheck {
    HealthCheck {
        probe: Probe::Http { port: 8080, path: "/healthz".into(), status: None },
        interval: Millis(1_000),
        timeout: Millis(1_000),
        startup: Millis::from_secs(10),
        healthy_after: 1,
        unhealthy_after: 3,
        closed_ports: BTreeSet::new(),
    }
}

/// Tells different content apart. Nothing hostile lives here, so FNV-1a spread over 32 bytes is enough.
pub fn digest(parts: &[&[u8]]) -> Digest {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in parts.iter().copied().flatten() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let mut spread = Rng::new(hash);
    let mut bytes = [0; 32];
    for chunk in bytes.chunks_exact_mut(8) {
        chunk.copy_from_slice(&spread.bits().to_le_bytes());
    }
    Digest::new(bytes)
}
