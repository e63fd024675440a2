//! One of everything, for the golden tests and for tests of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kiln_model::access::Access;
use kiln_model::ask::{Again, Ask, Method, Whom};
use kiln_model::event::{
    CheckEvent, ControlEvent, EnvironmentEvent, InstanceEvent, Purpose, RolloutEvent, TrafficEvent,
};
use kiln_model::forecast::{Extra, Forecast};
use kiln_model::gates::{Freeze, GateKind, GateVerdict, Gates, Window};
use kiln_model::instance::{
    ExitStatus, ExpectedRun, HealthCheck, Limits, Probe, SecretRef, Security, StopPolicy, VolumeMount,
};
use kiln_model::interlude::Interludes;
use kiln_model::notify::{Occasion, Webhook};
use kiln_model::outside::Finding;
use kiln_model::release::{Composed, Revision, RevisionSpec};
use kiln_model::rollout::{Cause, Estimate, Evidence, Outcome, ReplicaOwner, Slots, Step, Verdict};
use kiln_model::route::{Listener, Route};
use kiln_model::service::{
    Analysis, Audience, Canary, Gate, Inconclusive, Margin, Metric, MetricKind, PortRef, RolloutBounds,
    Service, ServiceKind, Stage, Strategy, WaveSize, Waves,
};
use kiln_model::{
    Actor, ByteSize, CheckId, Digest, Entry, EnvKey, EnvName, Event, InstanceId, InstanceSpec, MilliCpu,
    Millis, PortName, Position, RevisionNumber, RouteName, SecretName, ServiceName, StackName, Term,
    Timestamp, VolumeName, Weight,
};

pub(crate) fn digest(byte: u8) -> Digest {
    Digest::new([byte; 32])
}

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

pub(crate) fn env() -> EnvKey {
    EnvKey { stack: StackName::new("shop").unwrap(), env: EnvName::new("prod").unwrap() }
}

pub(crate) fn spec() -> InstanceSpec {
    let secret = SecretRef { name: SecretName::new("db_password").unwrap(), version: "v7".into() };
    let volume = VolumeMount { volume: VolumeName::new("data").unwrap(), read_only: true };
    InstanceSpec {
        image: digest(1),
        argv: vec!["python3".into(), "/app/server.py".into()],
        env: BTreeMap::from([("GREETING".into(), "Hel\"lo\n".into()), ("A".into(), String::new())]),
        workdir: "/".into(),
        user: "www-data".into(),
        secrets: BTreeMap::from([("/run/secrets/db".into(), secret)]),
        volumes: BTreeMap::from([("/data".into(), volume)]),
        scratch: BTreeMap::from([("/var/cache".into(), ByteSize::from_mib(64))]),
        ports: BTreeMap::from([(PortName::new("http").unwrap(), 8080)]),
        health: Some(HealthCheck {
            probe: Probe::Http { port: 8080, path: "/healthz".into(), status: Some(200) },
            interval: Millis(1000),
            timeout: Millis(2000),
            startup: Millis(60_000),
            healthy_after: 1,
            unhealthy_after: 3,
            closed_ports: BTreeSet::new(),
        }),
        limits: Limits { memory: Some(ByteSize::from_mib(128)), cpu: Some(MilliCpu(500)), pids: 512 },
        security: Security {
            add_capabilities: BTreeSet::from(["NET_ADMIN".into()]),
            drop_capabilities: BTreeSet::from(["ALL".into()]),
        },
        stop: StopPolicy { signal: "SIGTERM".into(), grace: Millis(10_000) },
        uses: BTreeSet::from([service("orders")]),
    }
}

/// The smallest spec: every optional part is left out.
pub(crate) fn bare_spec() -> InstanceSpec {
    InstanceSpec {
        image: digest(2),
        argv: vec!["/bin/true".into()],
        env: BTreeMap::new(),
        workdir: "/".into(),
        user: String::new(),
        secrets: BTreeMap::new(),
        volumes: BTreeMap::new(),
        scratch: BTreeMap::new(),
        ports: BTreeMap::new(),
        health: None,
        limits: Limits { memory: None, cpu: None, pids: 512 },
        security: Security::default(),
        stop: StopPolicy { signal: "SIGTERM".into(), grace: Millis(10_000) },
        uses: BTreeSet::new(),
    }
}

fn service_of(name: &str, kind: ServiceKind, strategy: Strategy, probe: Option<Probe>) -> Service {
    let mut spec = bare_spec();
    if let Some(probe) = probe {
        spec.health = Some(HealthCheck { probe, ..self::spec().health.unwrap() });
    }
    Service {
        name: service(name),
        kind,
        spec: Arc::new(spec),
        spec_digest: digest(3),
        replicas: 2,
        strategy,
        after: BTreeSet::from([service("orders")]),
        bounds: RolloutBounds {
            progress_deadline: Millis(120_000),
            drain_deadline: Millis(30_000),
            warm_for: Millis(600_000),
            healthy_for: Millis(0),
            auto_promote: true,
            auto_revert: true,
        },
        interludes: Arc::default(),
    }
}

fn canary() -> Canary {
    let within = Millis(300_000);
    let stage = |per_mille, gates| Stage { weight: Weight::new(per_mille).unwrap(), gates };
    let metric = |kind, worse_by| Metric { kind, worse_by };
    Canary {
        stages: vec![
            stage(50, vec![Gate::Hold(Millis(60_000)), Gate::Analyse(within)]),
            stage(250, vec![Gate::Approve { by: vec!["olga".into()], within }]),
        ],
        analysis: Some(Analysis {
            metrics: vec![
                metric(MetricKind::ErrorRate, Margin::Absolute(10_000)),
                metric(MetricKind::Latency { quantile: 990_000 }, Margin::Relative(200_000)),
            ],
            alpha: 50_000,
            outside: Vec::new(),
            inconclusive: Inconclusive::Ask,
            extensions: 0,
            synthetic: None,
            dry_run: false,
        }),
        audience: Audience::default(),
        max_surge: None,
    }
}

fn evidence() -> Evidence {
    let estimate = |value| Estimate { samples: 1000, value, low: value / 2, high: value * 2 };
    Evidence {
        metric: MetricKind::ErrorRate,
        worse_by: Margin::Absolute(10_000),
        verdict: Verdict::Fail,
        baseline: estimate(1000),
        canary: estimate(50_000),
    }
}

fn waves() -> Waves {
    let share = WaveSize::Share(Weight::new(250).expect("below a thousand"));
    Waves { sizes: vec![WaveSize::Count(1), share], soak: Millis(600_000) }
}

pub(crate) fn revision() -> Revision {
    let probe = Probe::Command { argv: vec!["true".into()], expected: None };
    let mut web = service_of("web", ServiceKind::Service, Strategy::BlueGreen, Some(Probe::Tcp { port: 80 }));
    (web.bounds.healthy_for, web.bounds.auto_promote) = (Millis(5_000), false);
    let run = |job| Gate::Run { job: service(job), within: Millis(90_000) };
    web.interludes = Arc::new(Interludes {
        before: vec![run("migrate")],
        created: vec![run("fill")],
        ready: vec![
            Gate::Check { job: service("web-check-1"), within: Millis(30_000), again: Again::default() },
            Gate::Approve { by: Vec::new(), within: Millis(300_000) },
        ],
        moved: vec![Gate::Hold(Millis(60_000)), run("smoke")],
        drained: vec![run("count")],
        retired: vec![run("tidy")],
    });
    web.bounds.auto_revert = false;
    let services = [
        web,
        service_of("queue", ServiceKind::Worker, Strategy::StopThenStart, Some(probe)),
        service_of(
            "migrate",
            ServiceKind::Job,
            Strategy::Rolling { max_surge: 1, max_unavailable: 0, waves: None },
            None,
        ),
        service_of(
            "pages",
            ServiceKind::Service,
            Strategy::Rolling { max_surge: 1, max_unavailable: 0, waves: Some(Arc::new(waves())) },
            None,
        ),
        service_of("front", ServiceKind::Service, Strategy::Canary(Arc::new(canary())), None),
    ];
    let route = Route {
        name: RouteName::new("public").unwrap(),
        listen: "0.0.0.0:8080".parse().unwrap(),
        host: Some("shop.localhost".into()),
        path: "/".into(),
        to: PortRef { service: service("web"), port: PortName::new("http").unwrap() },
    };
    Revision {
        number: RevisionNumber(42),
        release: digest(4),
        binding: digest(5),
        spec: Arc::new(RevisionSpec {
            services: services.into_iter().map(|service| (service.name.clone(), service)).collect(),
            routes: BTreeMap::from([(route.name.clone(), route)]),
            webhooks: BTreeMap::new(),
            credentials: BTreeMap::new(),
        }),
        composed: Some(Composed { service: service("web"), from: RevisionNumber(40) }),
    }
}

/// One whose rollouts somebody is told of.
fn told_revision() -> Revision {
    let secret = SecretRef { name: SecretName::new("hook").unwrap(), version: "v2".into() };
    let events = Occasion::ALL.into();
    let webhook = Webhook { url: "https://chat.example/hook".into(), events, secret };
    let webhooks = BTreeMap::from([("chat".to_owned(), webhook)]);
    let spec = RevisionSpec { webhooks, ..RevisionSpec::default() };
    Revision { spec: Arc::new(spec), composed: None, ..revision() }
}

/// One whose rollouts ask somebody who wants to know by whom.
fn asking_revision() -> Revision {
    let credentials = [(SecretName::new("token").unwrap(), "v3".to_owned())].into();
    let spec = RevisionSpec { credentials, ..RevisionSpec::default() };
    Revision { spec: Arc::new(spec), composed: None, ..revision() }
}

fn steps() -> Vec<Step> {
    let slots = || vec![Slots { service: service("web"), first: 1, count: 2 }];
    vec![
        Step::OpenListeners,
        Step::Run { job: service("migrate"), within: None, again: Again::default() },
        Step::Run { job: service("smoke"), within: Some(Millis(90_000)), again: Again::default() },
        Step::Create { slots: slots() },
        Step::WaitHealthy { slots: slots(), within: Millis(120_000) },
        Step::Shift { slots: slots(), weight: Weight::FULL, serve_routes: true },
        Step::Split { service: service("web"), weight: Weight::new(50).unwrap(), window: 0 },
        Step::Hold { span: Millis(60_000) },
        Step::Analyse { service: service("web"), window: 0, within: Millis(300_000) },
        Step::Approve { by: vec!["olga".into()], within: Millis(300_000) },
        Step::Drain { slots: slots(), within: Millis(30_000) },
        Step::KeepWarm { slots: slots(), keep_for: Millis(600_000) },
        Step::Retire { slots: slots() },
    ]
}

fn control_events() -> Vec<Event> {
    [
        ControlEvent::ControllerStarted { term: Term(3) },
        ControlEvent::ClockJumped { by: Millis(5000) },
        ControlEvent::StackBound { stack: env().stack, origin: "/srv/shop".into() },
    ]
    .map(Event::Control)
    .into()
}

fn environment_events() -> Vec<Event> {
    let set = |owner| EnvironmentEvent::ReplicasSet { service: service("web"), replicas: 6, owner };
    [
        EnvironmentEvent::Created { index: 7 },
        EnvironmentEvent::RevisionSealed { revision: Arc::new(revision()) },
        EnvironmentEvent::RevisionSealed { revision: Arc::new(told_revision()) },
        EnvironmentEvent::RevisionSealed { revision: Arc::new(asking_revision()) },
        EnvironmentEvent::RevisionReleased { number: RevisionNumber(1) },
        set(ReplicaOwner::Declared),
        set(ReplicaOwner::Hand),
        set(ReplicaOwner::Autoscaler),
        EnvironmentEvent::Removed,
        EnvironmentEvent::GatesDeclared { gates: Arc::new(gates()) },
        EnvironmentEvent::ReleaseApproved { release: digest(7), until: Timestamp(1_700_000_000_000) },
        EnvironmentEvent::GatesPassed {
            release: digest(7),
            verdicts: vec![GateVerdict {
                gate: GateKind::Soak,
                is_open: false,
                detail: "it has served in staging for 5m of 1h".into(),
                until: Some(Timestamp(1_700_000_000_000)),
            }],
            broken: Some("the site is down".into()),
        },
        EnvironmentEvent::LifetimeSet {
            lifetime: Some((Millis::from_secs(8 * 3600), Timestamp(1_700_000_000_000))),
        },
        EnvironmentEvent::Expired,
        EnvironmentEvent::RolloutQueued { to: RevisionNumber(43), cause: Cause::Up },
        EnvironmentEvent::RolloutDequeued { reason: "it was withdrawn".into() },
    ]
    .map(Event::Environment)
    .into()
}

fn rollout_events() -> Vec<Event> {
    let started = |cause| RolloutEvent::Started {
        from: Some(RevisionNumber(41)),
        to: Some(RevisionNumber(42)),
        cause,
        steps: steps(),
    };
    let count = kiln_model::rollout::RequestCount {
        service: service("web"),
        revision: RevisionNumber(41),
        answered: 1000,
        lost: 2,
        retried: 3,
    };
    let finished = |outcome| RolloutEvent::Finished { outcome, reason: "because".into() };
    [
        started(Cause::Up),
        started(Cause::Rollback { to: RevisionNumber(40), service: Some(service("web")) }),
        RolloutEvent::Started { from: None, to: None, cause: Cause::Down, steps: Vec::new() },
        started(Cause::Promotion { from: EnvName::new("dev").unwrap() }),
        RolloutEvent::StepStarted { index: 3, deadline: Some(Timestamp(1_700_000_000_000)) },
        RolloutEvent::StepCompleted { index: 3 },
        RolloutEvent::Paused,
        RolloutEvent::Resumed,
        RolloutEvent::Promoted { index: 4 },
        RolloutEvent::GoingBack { reason: "not healthy".into(), steps: steps() },
        RolloutEvent::Halted { reason: "not healthy".into(), until: Timestamp(1_700_000_000_000) },
        RolloutEvent::Counted {
            rollout: kiln_model::RolloutId(17),
            is_end: false,
            counts: None,
            extra: None,
        },
        RolloutEvent::Counted {
            rollout: kiln_model::RolloutId(17),
            is_end: true,
            counts: Some(vec![count.clone()]),
            extra: None,
        },
        finished(Outcome::Completed),
        finished(Outcome::WentBack),
        finished(Outcome::Stuck),
        finished(Outcome::Superseded),
    ]
    .into_iter()
    .chain(canary_events())
    .chain(rollout_notes(count))
    .map(Event::Rollout)
    .collect()
}

/// What is known of a canary.
fn canary_events() -> Vec<RolloutEvent> {
    let measured = |finding| RolloutEvent::Measured {
        service: service("web"),
        window: 1,
        metric: "queue".into(),
        finding,
        text: "0.31".into(),
    };
    vec![
        RolloutEvent::Analysed {
            service: service("web"),
            window: 1,
            verdict: Verdict::Inconclusive,
            evidence: vec![evidence()],
            synthetic: 0,
        },
        RolloutEvent::Analysed {
            service: service("web"),
            window: 2,
            verdict: Verdict::Pass,
            evidence: Vec::new(),
            synthetic: 1200,
        },
        measured(Finding::Passed),
        measured(Finding::Failed),
        measured(Finding::Unclear),
        measured(Finding::Error),
        RolloutEvent::Extended {
            index: 5,
            service: service("web"),
            times: 2,
            until: Timestamp(1_700_000_000_000),
        },
    ]
}

/// What is noted of a rollout beside its course.
fn rollout_notes(count: kiln_model::rollout::RequestCount) -> Vec<RolloutEvent> {
    let rollout = kiln_model::RolloutId(17);
    let (counts, extra) = (Some(vec![count]), Some(forecast().extra));
    let not_told = |occasion| RolloutEvent::NotTold {
        rollout,
        webhook: "chat".into(),
        occasion,
        reason: "it answered 410".into(),
    };
    let tried = |passed| RolloutEvent::Tried { index: 3, passed, text: "web/0 answered 503: no".into() };
    let notes = [
        RolloutEvent::GoingBack { reason: "503".into(), steps: checks() },
        tried(true),
        tried(false),
        RolloutEvent::Counted { rollout, is_end: true, counts, extra },
        RolloutEvent::Predicted { rollout, forecast: Ok(forecast()) },
        RolloutEvent::Predicted { rollout, forecast: Err("too large".into()) },
    ];
    notes.into_iter().chain(Occasion::ALL.map(not_told)).collect()
}

/// Steps that ask, and that are tried more than once.
fn checks() -> Vec<Step> {
    let again = Again { attempts: 5, interval: Millis(2000) };
    let plain = Ask {
        service: service("web"),
        whom: Whom::Url("https://shop.example/ready".into()),
        method: Method::Get,
        status: None,
        contains: None,
        timeout: Millis(10_000),
        again: Again::default(),
        access: Access::default(),
    };
    let whom = Whom::Instances { port: PortName::new("http").unwrap(), path: "/ready".into() };
    let full = Ask {
        whom,
        method: Method::Post,
        status: Some(204),
        contains: Some("ok".into()),
        again,
        ..plain.clone()
    };
    vec![
        Step::Ask(Arc::new(plain)),
        Step::Ask(Arc::new(full)),
        Step::Run { job: service("web-check-1"), within: Some(Millis(30_000)), again },
        Step::Mirror { service: service("web"), share: Weight::new(100).unwrap(), window: 1 << 16 },
    ]
}

fn forecast() -> Forecast {
    Forecast {
        total: Millis(3705),
        steps: vec![Some(Millis(5)), None],
        extra: Extra { memory: ByteSize(1 << 20), unlimited: 2 },
        approvals: 1,
        goes_back: Some("too slow".into()),
    }
}

fn instance_events() -> Vec<Event> {
    let slot = kiln_model::SlotKey { env: env(), service: service("web"), ordinal: 1 };
    let exited = |status| InstanceEvent::Exited { status };
    let requested = |purpose| InstanceEvent::Requested { purpose, spec: digest(6) };
    [
        requested(Purpose::Slot { slot, revision: RevisionNumber(42) }),
        requested(Purpose::Check(CheckId(17))),
        InstanceEvent::Started { address: "10.88.0.5".parse().unwrap() },
        InstanceEvent::BecameHealthy,
        InstanceEvent::BecameUnhealthy { reason: "503".into() },
        InstanceEvent::Refused { reason: "no such command".into() },
        exited(ExitStatus::Code(1)),
        exited(ExitStatus::Signal(9)),
        exited(ExitStatus::OutOfMemory),
        exited(ExitStatus::Unknown),
        InstanceEvent::Warmed { until: Timestamp(9) },
        InstanceEvent::Recalled,
        InstanceEvent::Retiring { reason: "replaced".into(), drain_within: Millis(30_000) },
        InstanceEvent::Draining { deadline: Timestamp(10) },
        InstanceEvent::Destroying { grace: Millis(10_000), cut: true },
        InstanceEvent::Destroyed,
        InstanceEvent::Disowned,
    ]
    .map(|event| Event::Instance(InstanceId::from_seed(77), event))
    .into()
}

fn traffic_events() -> Vec<Event> {
    let public = Listener::Public("0.0.0.0:8080".parse().unwrap());
    let listener = Listener::Internal(7);
    [
        TrafficEvent::Shifted { weights: vec![(InstanceId::from_seed(77), Weight::ZERO)] },
        TrafficEvent::RoutesServed { revision: Some(RevisionNumber(42)) },
        TrafficEvent::Acknowledged { version: Position(99) },
        TrafficEvent::ListenerRequested { listener: public },
        TrafficEvent::ListenerOpened { listener },
        TrafficEvent::ListenerFailed { listener, reason: "in use".into() },
        TrafficEvent::ListenerReleased { listener },
        TrafficEvent::ListenerClosed { listener },
    ]
    .map(Event::Traffic)
    .into()
}

fn check_events() -> Vec<Event> {
    let expected = ExpectedRun {
        exit: 3,
        stdout: Some("2.1\n".into()),
        contains: vec!["ready".into()],
        matches: vec!["^2\\.".into()],
    };
    let probe = Probe::Command { argv: vec!["/app".into(), "--version".into()], expected: Some(expected) };
    let asks = HealthCheck { probe, closed_ports: BTreeSet::from([22]), ..spec().health.unwrap() };
    [
        CheckEvent::Requested {
            image: digest(1),
            test: "starts".into(),
            spec: Arc::new(spec()),
            spec_digest: digest(7),
            deadline: Timestamp(11),
        },
        CheckEvent::Passed,
        CheckEvent::Failed { reason: "it exited".into() },
        CheckEvent::Inspected {
            image: digest(1),
            test: "hardened".into(),
            question: digest(8),
            failure: None,
            basis: None,
        },
        CheckEvent::Inspected {
            image: digest(1),
            test: "hardened".into(),
            question: digest(8),
            failure: Some("its user is root".into()),
            basis: None,
        },
        CheckEvent::Requested {
            image: digest(1),
            test: "version".into(),
            spec: Arc::new(InstanceSpec { health: Some(asks), ..bare_spec() }),
            spec_digest: digest(7),
            deadline: Timestamp(11),
        },
        CheckEvent::Inspected {
            image: digest(1),
            test: ":scan".into(),
            question: digest(8),
            failure: None,
            basis: Some("a database of 2026-05-01T00:00:00Z".into()),
        },
    ]
    .map(|event| Event::Check(CheckId(17), event))
    .into()
}

/// Every kind of event, with every kind of part.
pub(crate) fn events() -> Vec<Event> {
    let mut events = control_events();
    events.extend(environment_events());
    events.extend(rollout_events());
    events.extend(instance_events());
    events.extend(traffic_events());
    events.extend(check_events());
    events
}

/// Entries for the positions after `after`, as many as asked for, through all kinds of events.
pub(crate) fn entries(after: u64, count: usize) -> Vec<Entry> {
    let events = events();
    let entry = |index: usize| {
        let position = after + 1 + index as u64;
        let event = events[position as usize % events.len()].clone();
        Entry {
            position: Position(position),
            at: Timestamp(1_700_000_000_000 + position),
            term: Term(3),
            actor: if position.is_multiple_of(2) { Actor::Controller } else { Actor::User("ada".into()) },
            env: (!matches!(event, Event::Control(_))).then(env),
            event,
        }
    };
    (0..count).map(entry).collect()
}

/// Everything that an environment may ask for.
fn gates() -> Gates {
    Gates {
        from: Some(EnvName::new("staging").unwrap()),
        soak: Millis::from_secs(3600),
        approve: Some(vec!["olga".into()]),
        windows: vec![Window {
            days: [true, true, true, true, false, false, false],
            from_minute: 540,
            to_minute: 960,
        }],
        freezes: vec![Freeze { from: Timestamp(1_000), to: Timestamp(2_000), reason: "holidays".into() }],
    }
}
