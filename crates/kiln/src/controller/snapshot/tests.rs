//! That a random history's state reads back, and leads on as the one that was saved, is the simulation's to show.

use std::collections::BTreeMap;

use kiln_core::state::{
    Approval, Backoff, Check, Direction, Environment, FinishedRollout, Halt, Health, Lifetime, Pause, Phase,
    Queued, ReplicaOverride, Rollout, Served, ServiceState, Share, Slot, Split, StepPhase, Tries, Verdict,
};
use kiln_core::state::{Peak, Room};
use kiln_model::ask::Again;
use kiln_model::event::Purpose;
use kiln_model::gates::Gates;
use kiln_model::instance::{ExitStatus, InstanceSpec, SecretRef};
use kiln_model::notify::{Occasion, Webhook};
use kiln_model::release::{Composed, Revision, RevisionSpec};
use kiln_model::rollout::{Cause, Outcome, ReplicaOwner, Step};
use kiln_model::route::Route;
use kiln_model::service::{PortRef, RolloutBounds, ServiceKind, Strategy};
use kiln_model::{
    Actor, CheckId, Digest, Millis, PortName, RevisionNumber, RolloutId, RouteName, SecretName, ServiceName,
    SlotKey, Weight,
};

use super::*;

/// The bytes that are stored on users' disks, but for the version of Kiln, which stands there as `VERSION`.
const STORED: &str = include_str!("golden-v1.json");

fn golden() -> String {
    STORED.replacen("VERSION", WRITER, 1)
}

fn digest(byte: u8) -> Digest {
    Digest::new([byte; 32])
}

fn env() -> EnvKey {
    EnvKey { stack: StackName::new("shop").unwrap(), env: EnvName::new("prod").unwrap() }
}

fn web() -> ServiceName {
    ServiceName::new("web").unwrap()
}

fn spec(word: &str) -> Arc<InstanceSpec> {
    Arc::new(InstanceSpec {
        ports: BTreeMap::from([(PortName::new("http").unwrap(), 8080)]),
        ..InstanceSpec::plain(digest(1), vec![word.into()])
    })
}

fn service(word: &str) -> Service {
    Service {
        name: web(),
        kind: ServiceKind::Service,
        spec: spec(word),
        spec_digest: digest(2),
        replicas: 2,
        strategy: Strategy::BlueGreen,
        after: Default::default(),
        bounds: RolloutBounds::default(),
        interludes: Arc::default(),
    }
}

/// Three revisions, of which the first and the last have the same services.
fn revisions() -> BTreeMap<RevisionNumber, Arc<Revision>> {
    let route = Route {
        name: RouteName::new("public").unwrap(),
        listen: "0.0.0.0:80".parse().unwrap(),
        host: None,
        path: "/".into(),
        to: PortRef { service: web(), port: PortName::new("http").unwrap() },
    };
    let revision = |(number, word): (u64, &str)| {
        let revision = Revision {
            number: RevisionNumber(number),
            release: digest(3),
            binding: digest(4),
            spec: Arc::new(RevisionSpec {
                services: BTreeMap::from([(web(), service(word))]),
                routes: BTreeMap::from([(route.name.clone(), route.clone())]),
                webhooks: (number == 8).then(|| ("chat".to_owned(), webhook())).into_iter().collect(),
                credentials: (number == 8)
                    .then(|| (webhook().secret.name, "v3".to_owned()))
                    .into_iter()
                    .collect(),
            }),
            composed: (number == 9).then(|| Composed { service: web(), from: RevisionNumber(7) }),
        };
        (revision.number, Arc::new(revision))
    };
    [(7, "/old"), (8, "/new"), (9, "/old")].into_iter().map(revision).collect()
}

fn webhook() -> Webhook {
    let secret = SecretRef { name: SecretName::new("hook").unwrap(), version: "v2".into() };
    Webhook { url: "https://chat.example/hook".into(), events: [Occasion::Completed].into(), secret }
}

fn slots() -> ServiceState {
    let slot = |instances: &[u64], backoff| Slot {
        instances: instances.iter().map(|seed| InstanceId::from_seed(*seed)).collect(),
        duty: Some(RevisionNumber(7)),
        share: Share(Weight::new(250).unwrap()),
        create_step: Some(2),
        backoff,
    };
    let backoff = Backoff { spec: digest(2), failures: 3, not_before: Timestamp(5_000) };
    let slots = [(0, slot(&[1, 2, 3, 4], None)), (1, slot(&[5, 6, 7], Some(backoff)))];
    let replicas = ReplicaOverride { replicas: 2, owner: ReplicaOwner::Hand, declared: 3 };
    let slots = slots.into_iter().map(|(ordinal, slot)| (ordinal, Arc::new(slot))).collect();
    ServiceState::new(slots, Some(replicas), Some(digest(5)))
}

fn tally() -> kiln_core::Tally {
    let last = "0.31".into();
    kiln_core::Tally { passed: 1, failed: 2, unclear: 3, errors: 4, errors_in_row: 5, last }
}

fn room() -> Room {
    let peak = |start, now, highest| Peak { start, now, highest };
    Room { memory: peak(100, 200, 300), unlimited: peak(1, 2, 4) }
}

fn environment() -> Environment {
    let rollout = Rollout {
        id: RolloutId(30),
        started_at: Timestamp(3_000),
        actor: Actor::User("ada".into()),
        from: Some(RevisionNumber(7)),
        to: Some(RevisionNumber(8)),
        cause: Cause::Up,
        direction: Direction::Back { reason: "not healthy".into() },
        steps: [Step::OpenListeners, Step::Run { job: web(), within: None, again: Again::default() }].into(),
        next: 1,
        step: StepPhase::Started { deadline: Some(Timestamp(9_000)) },
        moved_at: Timestamp(3_500),
        table: Position(31),
        exits: 2,
        last_exit: Some("exit code 1".into()),
        hopeless: Some("no such command".into()),
        paused: Some(Pause { by: Actor::User("bob".into()), since: Timestamp(3_600) }),
        halted: Some(Halt { reason: "unhealthy".into(), until: Timestamp(90_000) }),
        splits: [(web(), Split { weight: Weight::new(50).unwrap(), window: 1, mirror: Weight::new(100) })]
            .into(),
        measured: [(web(), [("queue".to_owned(), tally())].into())].into(),
        promoted: true,
        undecided: true,
        extended: 2,
        tries: Tries { failed: 1, passed: true, last: "503".into(), due: Timestamp(5_000) },
        room: Some(room()),
    };
    let last = FinishedRollout {
        id: RolloutId(20),
        started_at: Timestamp(2_000),
        finished_at: Timestamp(2_500),
        actor: Actor::Controller,
        from: None,
        to: Some(RevisionNumber(7)),
        cause: Cause::Rollback { to: RevisionNumber(7), service: Some(web()) },
        outcome: Outcome::Completed,
        reason: "".into(),
        extra: Some(room().extra()),
    };
    Environment {
        key: env(),
        index: 4,
        created_at: Timestamp(1_000),
        revisions: revisions(),
        last_number: RevisionNumber(9),
        completed: vec![RevisionNumber(9), RevisionNumber(7)],
        current: Some(RevisionNumber(7)),
        routes: Some(RevisionNumber(7)),
        rollout: Some(Arc::new(rollout)),
        last_rollout: Some(Arc::new(last)),
        services: BTreeMap::from([(web(), Arc::new(slots()))]),
        ending: false,
        gates: Arc::new(Gates { approve: Some(vec!["olga".into()]), ..Gates::default() }),
        served: vec![Served { release: digest(3), since: Some(Timestamp(2_500)), stretch: Millis(0) }],
        lifetime: Some(Lifetime { ttl: Millis(8_000), until: Timestamp(12_000) }),
        queued: Some(Arc::new(Queued {
            to: RevisionNumber(9),
            cause: Cause::Up,
            by: Actor::User("bob".into()),
            since: Timestamp(3_000),
        })),
    }
}

fn phases() -> [Phase; 7] {
    [
        Phase::Requested,
        Phase::Running,
        Phase::Warm { until: Timestamp(8_000) },
        Phase::Ended { refused: Some("no such image".into()) },
        Phase::Retiring { reason: "replaced".into(), drain_within: Millis(30_000) },
        Phase::Draining { deadline: Timestamp(7_000), since: Position(40) },
        Phase::Destroying { grace: Millis(10_000), cut: true, since: Position(41) },
    ]
}

fn instances() -> Vec<Arc<Instance>> {
    let slot = |ordinal| Purpose::Slot {
        slot: SlotKey { env: env(), service: web(), ordinal },
        revision: RevisionNumber(7),
    };
    let instance = |seed: u64, phase: Phase, purpose: Purpose, spec| {
        let started = seed > 1;
        let instance = Instance {
            id: InstanceId::from_seed(seed),
            env: env(),
            purpose,
            spec,
            spec_digest: digest(2),
            requested: Position(seed),
            requested_at: Timestamp(seed),
            phase,
            address: started.then(|| "10.88.0.2".parse().unwrap()),
            started: started.then_some(Position(seed + 10)),
            started_at: started.then_some(Timestamp(seed + 10)),
            health: match seed {
                1 => Health::Unknown,
                4 => Health::Unhealthy { reason: "503".into() },
                _ => Health::Healthy,
            },
            healthy_since: started.then_some(Timestamp(seed + 20)),
            exit: (seed == 4).then_some(ExitStatus::Code(1)),
            weight: if seed == 2 { Weight::FULL } else { Weight::ZERO },
            unrouted: (seed > 4).then_some(Position(50)),
        };
        Arc::new(instance)
    };
    let ordinal = |seed: u64| u32::from(seed > 4);
    let of_slots = (1..).zip(phases()).map(|(seed, phase)| {
        // One that has another spec than its revision says: what is in the log is in the state.
        let spec = spec(if seed == 3 { "/other" } else { "/old" });
        instance(seed, phase, slot(ordinal(seed)), spec)
    });
    let of_check = instance(8, Phase::Running, Purpose::Check(CheckId(12)), spec("/check"));
    of_slots.chain([of_check]).collect()
}

/// A state with one of everything.
fn parts() -> Parts {
    let listener = |phase| ListenerState { since: Position(6), phase };
    let failed = ListenerPhase::Failed { reason: "in use".into(), retry_at: Timestamp(6_000) };
    let public = |port: u16| Listener::Public(([0, 0, 0, 0], port).into());
    let check = Check {
        id: CheckId(12),
        env: env(),
        image: digest(1),
        test: "starts".into(),
        spec: spec("/check"),
        spec_digest: digest(6),
        deadline: Timestamp(4_000),
        instance: Some(InstanceId::from_seed(8)),
        answered: false,
    };
    let verdict = |failure: Option<&str>| Verdict {
        check: CheckId(11),
        spec_digest: digest(6),
        failure: failure.map(Into::into),
        at: Timestamp(900),
    };
    Parts {
        term: Term(3),
        position: Position(60),
        now: Timestamp(4_000),
        origins: BTreeMap::from([(env().stack, "/src/shop".into())]),
        environments: vec![Arc::new(environment())],
        instances: instances(),
        disowned: BTreeMap::from([(InstanceId::from_seed(99), Position(55))]),
        used: (1..12).map(InstanceId::from_seed).collect(),
        checks: vec![Arc::new(check)],
        verdicts: vec![
            ((digest(1), "answers".into()), verdict(Some("it exited"))),
            ((digest(1), "starts".into()), verdict(None)),
        ],
        listeners: BTreeMap::from([
            (public(80), listener(ListenerPhase::Requested)),
            (public(81), listener(failed)),
            (public(82), listener(ListenerPhase::Releasing)),
            (Listener::Internal(4), listener(ListenerPhase::Open { term: Term(2) })),
        ]),
        approvals: BTreeMap::from([(
            env(),
            vec![Approval { release: digest(3), by: Actor::User("olga".into()), until: Timestamp(9_500) }],
        )]),
        table: TableState { version: Position(59), acknowledged: Position(58) },
    }
}

fn state() -> State {
    State::from_parts(parts()).unwrap()
}

#[test]
fn the_bytes_of_a_state_are_stable() {
    let bytes = String::from_utf8(encode(&state())).unwrap();
    if std::env::var_os("KILN_BLESS").is_some_and(|value| value == "write") {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/controller/snapshot/golden-v1.json");
        let writer = format!(r#""writer":"{WRITER}""#);
        std::fs::write(path, bytes.replacen(&writer, r#""writer":"VERSION""#, 1)).unwrap();
    }
    assert_eq!(bytes, golden());
}

#[test]
fn a_state_reads_back_with_what_it_shares() {
    let read = decode(golden().as_bytes()).unwrap();
    assert_eq!(read, state());
    let environment = read.environment(&env()).unwrap();
    let spec_of = |number| &environment.service(Some(RevisionNumber(number)), &web()).unwrap().spec;
    assert!(Arc::ptr_eq(spec_of(7), spec_of(9)), "what revisions have in common is stored once");
    let instance = read.instance(InstanceId::from_seed(1)).unwrap();
    assert!(Arc::ptr_eq(&instance.spec, spec_of(7)));
}

#[test]
fn what_is_not_whole_or_of_another_version_is_an_error() {
    let whole = golden();
    for (from, to) in [
        ("kiln.state/1", "kiln.state/2"),
        (WRITER, "0.0.0"),
        (r#""term":3"#, r#""term":3,"mood":1"#),
        (r#""weight":1000"#, r#""weight":1001"#),
        (r#""services":[0]"#, r#""services":[7]"#),
        (r#""current":7"#, r#""current":6"#),
        (r#""used":"b"#, r#""used":"B"#),
        (r#""used":"b"#, r#""used":""#),
        (r#""spec":null"#, r#""spec":3"#),
        (r#""index":4"#, r#""index":400"#),
    ] {
        assert!(whole.contains(from), "{from}");
        assert!(decode(whole.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
    }
    assert!(decode(&whole.as_bytes()[..whole.len() - 1]).is_err());
    assert!(matches!(decode(b""), Err(DecodeError::Format(_))));
}
