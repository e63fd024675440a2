//! Revisions in one line of text: `web=v2*3+route:8080+uses:orders`.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use kiln_core::{Admission, Command};
use kiln_model::ask::{Again, Ask, Method, Whom};
use kiln_model::instance::{HealthCheck, InstanceSpec, Probe, VolumeMount};
use kiln_model::interlude::Interludes;
use kiln_model::outside::{Comparison, Condition, Number, OutsideMetric};
use kiln_model::release::RevisionSpec;
use kiln_model::route::{Aim, Group, HeaderMatch, Mirror, Route, Sticky, Synthetic};
use kiln_model::service::{
    Analysis, Audience, Canary, Gate, Inconclusive, Margin, Metric, MetricKind, PortRef, RolloutBounds,
    Service, ServiceKind, Stage, Strategy, WaveSize, Waves,
};
use kiln_model::{
    ByteSize, Digest, EnvKey, EnvName, Millis, PortName, RouteName, ServiceName, StackName, Weight,
};

pub(crate) fn env(name: &str) -> EnvKey {
    let (stack, env) = name.split_once('/').unwrap_or(("shop", name));
    EnvKey { stack: StackName::new(stack).unwrap(), env: EnvName::new(env).unwrap() }
}

pub(crate) fn service_name(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

pub(crate) fn digest_of(text: &str) -> Digest {
    Digest::new(std::array::from_fn(|at| {
        let mut hasher = DefaultHasher::new();
        (text, at / 8).hash(&mut hasher);
        hasher.finish().to_be_bytes()[at % 8]
    }))
}

pub(crate) fn up(key: &EnvKey, words: &[&str]) -> Command {
    let spec = Arc::new(revision(words));
    Command::Up {
        env: key.clone(),
        origin: "/src/shop".into(),
        adopt: false,
        base: None,
        release: digest_of(&words.join(" ")),
        binding: digest_of("binding"),
        spec,
        checks: Vec::new(),
        admission: Admission::default(),
    }
}

pub(crate) fn revision(words: &[&str]) -> RevisionSpec {
    let mut spec = RevisionSpec::default();
    for word in words {
        add(&mut spec, word);
    }
    spec
}

pub(crate) fn instance_spec(version: &str) -> InstanceSpec {
    InstanceSpec {
        ports: BTreeMap::from([(PortName::new("http").unwrap(), 8080)]),
        health: Some(HealthCheck {
            probe: Probe::Tcp { port: 8080 },
            interval: Millis(1000),
            timeout: Millis(1000),
            startup: Millis(60_000),
            healthy_after: 1,
            unhealthy_after: 3,
            closed_ports: BTreeSet::new(),
        }),
        ..InstanceSpec::plain(digest_of("image"), vec![version.to_owned()])
    }
}

fn add(revision: &mut RevisionSpec, word: &str) {
    let mut parts = word.split('+');
    let (name, rest) = parts.next().unwrap().split_once('=').unwrap_or_else(|| panic!("`{word}` has no `=`"));
    let (version, replicas) = rest.split_once('*').unwrap_or((rest, "1"));
    let mut spec = instance_spec(version);
    let mut service = Service {
        name: service_name(name),
        kind: ServiceKind::Service,
        spec: Arc::new(spec.clone()),
        spec_digest: digest_of(""),
        replicas: replicas.parse().unwrap(),
        strategy: Strategy::BlueGreen,
        after: BTreeSet::new(),
        bounds: RolloutBounds::default(),
        interludes: Arc::default(),
    };
    for option in parts {
        let (option, value) = option.split_once(':').unwrap_or((option, ""));
        match option {
            "worker" | "job" => {
                service.kind = if option == "job" { ServiceKind::Job } else { ServiceKind::Worker };
                service.strategy = Strategy::StopThenStart;
                spec.ports.clear();
                spec.health = None;
            }
            "proven" => service.bounds.healthy_for = Millis::from_secs(value.parse().unwrap()),
            "manual" => service.bounds.auto_promote = false,
            "stays" => service.bounds.auto_revert = false,
            "sts" => service.strategy = Strategy::StopThenStart,
            "bluegreen" => service.strategy = Strategy::BlueGreen,
            "rolling" => {
                let (surge, unavailable) = value.split_once('-').unwrap();
                let (max_surge, max_unavailable) = (surge.parse().unwrap(), unavailable.parse().unwrap());
                service.strategy = Strategy::Rolling { max_surge, max_unavailable, waves: None };
            }
            "waves" => {
                let Strategy::Rolling { waves, .. } = &mut service.strategy else { panic!("after rolling") };
                *waves = Some(Arc::new(waves_of(value)));
            }
            "at" => add_gate(Arc::make_mut(&mut service.interludes), value),
            "canary" => service.strategy = Strategy::Canary(Arc::new(canary(value))),
            "surge" => {
                let Strategy::Canary(canary) = &mut service.strategy else { panic!("after canary") };
                Arc::make_mut(canary).max_surge = Some(value.parse().unwrap());
            }
            "nohealth" => spec.health = None,
            "port" => {
                spec.ports.insert(PortName::new("http").unwrap(), value.parse().unwrap());
            }
            "warm" => service.bounds.warm_for = Millis::from_secs(value.parse().unwrap()),
            "drain" => service.bounds.drain_deadline = Millis::from_secs(value.parse().unwrap()),
            "memory" => spec.limits.memory = Some(ByteSize(value.parse().unwrap())),
            "writes" | "reads" => {
                let mount = VolumeMount { volume: value.parse().unwrap(), read_only: option == "reads" };
                spec.volumes.insert(format!("/{value}"), mount);
            }
            "after" => drop(service.after.insert(service_name(value))),
            "uses" => {
                spec.uses.insert(service_name(value));
                service.after.insert(service_name(value));
            }
            "route" => {
                let route = route_of(&service.name, value);
                revision.routes.insert(route.name.clone(), route);
            }
            other => panic!("unknown option `{other}`"),
        }
    }
    service.spec_digest = digest_of(&format!("{spec:?}"));
    service.spec = Arc::new(spec);
    revision.services.insert(service.name.clone(), service);
}

fn route_of(service: &ServiceName, port: &str) -> Route {
    Route {
        name: RouteName::new(format!("{service}{port}")).unwrap(),
        listen: format!("127.0.0.1:{port}").parse().unwrap(),
        host: None,
        path: "/".into(),
        to: PortRef { service: service.clone(), port: PortName::new("http").unwrap() },
    }
}

/// `50h60-250p30-b`: 5% and a hold of a minute, 25% and half a minute for an approval; `b` compares with a baseline, `s`
/// sorts the requests in every way that there is, `m` and `c` have others measure it and stop or go on where that tells nothing.
fn canary(text: &str) -> Canary {
    let mut canary =
        Canary { stages: Vec::new(), analysis: None, audience: Audience::default(), max_surge: None };
    for word in text.split('-') {
        if word == "s" {
            canary.audience = audience();
            continue;
        }
        if word == "m" || word == "c" {
            let inconclusive = if word == "m" { Inconclusive::Stop } else { Inconclusive::Continue };
            let (metrics, outside) = (Vec::new(), vec![queue()]);
            canary.analysis = Some(Analysis {
                metrics,
                outside,
                alpha: 50_000,
                inconclusive,
                extensions: 0,
                synthetic: None,
                dry_run: false,
            });
            continue;
        }
        if let Some(times) = word.strip_prefix('e') {
            let analysis = canary.analysis.as_mut().expect("after what is compared");
            analysis.extensions = times.parse().unwrap();
            continue;
        }
        if word == "y" {
            let analysis = canary.analysis.as_mut().expect("after what is compared");
            analysis.synthetic = Some(Arc::new(Synthetic {
                method: Method::Get,
                path: "/".into(),
                host: "web".into(),
                port: PortName::new("http").unwrap(),
                rate: 20,
                count: 10_000,
            }));
            continue;
        }
        if word == "b" {
            let metric = Metric { kind: MetricKind::ErrorRate, worse_by: Margin::Absolute(10_000) };
            let (alpha, inconclusive) = (50_000, Inconclusive::Stop);
            canary.analysis = Some(Analysis {
                metrics: vec![metric],
                outside: Vec::new(),
                alpha,
                inconclusive,
                extensions: 0,
                synthetic: None,
                dry_run: false,
            });
            continue;
        }
        let at = word.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(word.len());
        let (weight, gate) = word.split_at(at);
        let gate = (!gate.is_empty()).then(|| gate_of(gate));
        let weight = Weight::new(weight.parse().unwrap()).unwrap();
        canary.stages.push(Stage { weight, gates: gate.into_iter().collect() });
    }
    canary
}

/// `ready:run~smoke~60` or `moved:h10`: what is done at a moment, several with several words.
fn add_gate(all: &mut Interludes, text: &str) {
    let (moment, gate) = text.split_once(':').unwrap();
    let list = match moment {
        "before" => &mut all.before,
        "created" => &mut all.created,
        "ready" => &mut all.ready,
        "moved" => &mut all.moved,
        "drained" => &mut all.drained,
        "retired" => &mut all.retired,
        other => panic!("unknown moment `{other}`"),
    };
    list.push(gate_of(gate));
}

/// `h10`, `p30`, `o30`, `a60`, `run~migrate~60`, `check~smoke~60x3~5`, `ask~url~10` or `ask~ready~10x3~5`, `mirror~100~60` or `mirror~100~`: what is waited for, and
/// for how many seconds.
fn gate_of(text: &str) -> Gate {
    if let Some((job, seconds)) = text.strip_prefix("run~").and_then(|rest| rest.split_once('~')) {
        return Gate::Run { job: service_name(job), within: Millis::from_secs(seconds.parse().unwrap()) };
    }
    if let Some((job, seconds)) = text.strip_prefix("check~").and_then(|rest| rest.split_once('~')) {
        let (seconds, again) = again_of(seconds);
        return Gate::Check { job: service_name(job), within: seconds, again };
    }
    if let Some((whom, seconds)) = text.strip_prefix("ask~").and_then(|rest| rest.split_once('~')) {
        let (timeout, again) = again_of(seconds);
        let port = PortName::new("http").unwrap();
        let whom = match whom {
            "url" => Whom::Url("http://127.0.0.1:9000/ready".into()),
            service => Whom::Instances { port, path: format!("/{service}") },
        };
        let (method, service) = (Method::Get, service_name("web"));
        return Gate::Ask(Arc::new(Ask {
            service,
            whom,
            method,
            status: None,
            contains: None,
            timeout,
            again,
            access: Default::default(),
        }));
    }
    if let Some((share, seconds)) = text.strip_prefix("mirror~").and_then(|rest| rest.split_once('~')) {
        let share = Weight::new(share.parse().unwrap()).unwrap();
        let span = seconds.parse().ok().map(Millis::from_secs);
        return Gate::Mirror { share, span };
    }
    let (kind, seconds) = text.split_at(1);
    let span = Millis::from_secs(seconds.parse().unwrap());
    match kind {
        "h" => Gate::Hold(span),
        "p" => Gate::Approve { by: Vec::new(), within: span },
        "o" => Gate::Approve { by: vec!["olga".into()], within: span },
        "a" => Gate::Analyse(span),
        other => panic!("unknown gate `{other}`"),
    }
}

/// `60`, or `60x3~5`: so many seconds for each of three attempts, five seconds apart.
fn again_of(text: &str) -> (Millis, Again) {
    let seconds = |text: &str| Millis::from_secs(text.parse().unwrap());
    match text.split_once('x') {
        None => (seconds(text), Again::default()),
        Some((within, rest)) => {
            let (attempts, interval) = rest.split_once('~').unwrap();
            let again = Again { attempts: attempts.parse().unwrap(), interval: seconds(interval) };
            (seconds(within), again)
        }
    }
}

/// Passes after two values below 1, fails with two that are not; one error is accepted.
fn queue() -> OutsideMetric {
    OutsideMetric {
        name: "queue".into(),
        prometheus: "http://127.0.0.1:9090".into(),
        access: Default::default(),
        query: "queue".into(),
        success: Some(Condition { comparison: Comparison::Less, with: Number(1.0) }),
        failure: None,
        interval: Millis(1000),
        count: 2,
        failure_limit: 1,
        inconclusive_limit: 0,
        error_limit: 1,
        dry_run: false,
    }
}

fn audience() -> Audience {
    let tester = Aim { header: "x-tester".into(), value: HeaderMatch::Present, group: Group::Canary };
    let mirror = Mirror { share: Weight::new(100).unwrap() };
    Audience { sticky: Some(Sticky::Address), aim: vec![tester], mirror: Some(mirror) }
}

/// `1-25%-s60`: one, a quarter, all, with a soak of a minute between.
fn waves_of(text: &str) -> Waves {
    let mut waves = Waves { sizes: Vec::new(), soak: Millis(0) };
    for word in text.split('-') {
        if let Some(seconds) = word.strip_prefix('s') {
            waves.soak = Millis::from_secs(seconds.parse().unwrap());
        } else if let Some(percent) = word.strip_suffix('%') {
            let share = Weight::new(percent.parse::<u16>().unwrap() * 10).unwrap();
            waves.sizes.push(WaveSize::Share(share));
        } else {
            waves.sizes.push(WaveSize::Count(word.parse().unwrap()));
        }
    }
    waves
}
