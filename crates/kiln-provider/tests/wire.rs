//! The format between the host and its callers: a change of it is always seen, and one version back and forth is understood.
#![allow(clippy::unwrap_used, reason = "tests say by their panics what went wrong")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kiln_model::instance::{
    ExitStatus, ExpectedRun, HealthCheck, InstanceSpec, Limits, Probe, SecretRef, Security, StopPolicy,
    VolumeMount,
};
use kiln_model::{ByteSize, Digest, EnvKey, Fence, InstanceId, MilliCpu, Millis, Position, Term};
use kiln_provider::wire::{Accepted, Answer, CreateWire, Hello, InstanceWire, PROTOCOL, Problem, Request};
use kiln_provider::{
    CreateRequest, Cursor, InstanceStatus, LogCursor, LogLine, LogNext, ProviderError, Stream,
};
use kiln_provider::{Transition, Watched};

/// Every line, in the order of [`all`]. Changed by hand only, together with the version.
const GOLDEN: &str = include_str!("golden/host-v1.ndjson");

fn full_request() -> CreateRequest {
    let secret = SecretRef { name: "db".parse().unwrap(), version: "v7".into() };
    let spec = InstanceSpec {
        image: Digest::new([1; 32]),
        argv: vec!["/app".into(), "serve".into()],
        env: BTreeMap::from([("A".into(), "b".into())]),
        workdir: "/srv".into(),
        user: "web".into(),
        secrets: BTreeMap::from([("/run/secrets/db".into(), secret)]),
        volumes: BTreeMap::from([(
            "/data".into(),
            VolumeMount { volume: "data".parse().unwrap(), read_only: true },
        )]),
        scratch: BTreeMap::from([("/work".into(), ByteSize(1024))]),
        ports: BTreeMap::from([("http".parse().unwrap(), 8080)]),
        health: Some(HealthCheck {
            probe: Probe::Http { port: 8080, path: "/healthz".into(), status: Some(204) },
            interval: Millis(1000),
            timeout: Millis(500),
            startup: Millis(9000),
            healthy_after: 1,
            unhealthy_after: 3,
            closed_ports: BTreeSet::new(),
        }),
        limits: Limits { memory: Some(ByteSize(1 << 20)), cpu: Some(MilliCpu(500)), pids: 64 },
        security: Security {
            add_capabilities: BTreeSet::from(["NET_ADMIN".into()]),
            drop_capabilities: BTreeSet::from(["CHOWN".into()]),
        },
        stop: StopPolicy { signal: "SIGQUIT".into(), grace: Millis(3000) },
        uses: BTreeSet::from(["orders".parse().unwrap()]),
    };
    CreateRequest {
        id: InstanceId::from_seed(1),
        spec: Arc::new(spec),
        fence: Fence { term: Term(3), position: Position(77) },
        env: EnvKey { stack: "shop".parse().unwrap(), env: "prod".parse().unwrap() },
        service: "web".parse().unwrap(),
        internal: Some(2),
    }
}

fn plain_request() -> CreateRequest {
    let mut request = full_request();
    let spec = InstanceSpec {
        env: BTreeMap::new(),
        user: String::new(),
        secrets: BTreeMap::new(),
        volumes: BTreeMap::new(),
        scratch: BTreeMap::new(),
        ports: BTreeMap::new(),
        health: None,
        limits: Limits::default(),
        security: Security::default(),
        uses: BTreeSet::new(),
        ..(*request.spec).clone()
    };
    (request.spec, request.internal) = (Arc::new(spec), None);
    request
}

fn probed(probe: Probe) -> CreateRequest {
    let mut request = plain_request();
    let mut spec = (*request.spec).clone();
    spec.health = full_request().spec.health.clone().map(|check| HealthCheck { probe, ..check });
    request.spec = Arc::new(spec);
    request
}

fn expecting() -> CreateRequest {
    let expected = ExpectedRun {
        exit: 3,
        stdout: Some("2.1".into()),
        contains: vec!["ready".into()],
        matches: vec!["^2".into()],
    };
    let mut request = probed(Probe::Command { argv: vec!["/bin/true".into()], expected: Some(expected) });
    let mut spec = (*request.spec).clone();
    spec.health = spec.health.map(|check| HealthCheck { closed_ports: BTreeSet::from([22]), ..check });
    request.spec = Arc::new(spec);
    request
}

/// The id that stands in for all.
fn id() -> String {
    InstanceId::from_seed(1).to_string()
}

fn requests() -> Vec<Request> {
    let create = |request: &CreateRequest| Request::Create(Box::new(CreateWire::from(request)));
    vec![
        create(&full_request()),
        create(&plain_request()),
        create(&probed(Probe::Tcp { port: 5432 })),
        create(&probed(Probe::Command { argv: vec!["/bin/true".into()], expected: None })),
        create(&expecting()),
        Request::Capabilities,
        Request::Prepare { image: Digest::new([1; 32]).to_string() },
        Request::Destroy { id: id(), term: 3, position: 78, grace_ms: 10_000 },
        Request::List,
        Request::Watch { life: 5, seq: 6 },
        Request::Logs { id: id(), cursor: 7, follow: true },
        Request::Exec { id: id(), argv: vec!["/bin/true".into()], timeout_ms: 1000 },
        Request::OpenListener { listener: "0.0.0.0:8080".into(), term: 3, position: 79 },
        Request::CloseListener { listener: "internal-2".into(), term: 3, position: 80 },
        Request::PutAnchor { position: 81, hash: Digest::new([1; 32]).to_string() },
    ]
}

fn answers() -> Vec<Answer> {
    let seen = Watched::Relist { cursor: Cursor { life: 5, seq: 1 } };
    let told = |transition| {
        Answer::from(Watched::Transition {
            cursor: Cursor { life: 5, seq: 2 },
            id: InstanceId::from_seed(1),
            transition,
        })
    };
    let line = LogNext::Line(LogLine {
        cursor: LogCursor(9),
        at: kiln_model::Timestamp(10),
        stream: Stream::Err,
        text: "ü \"quoted\"".into(),
    });
    let status = InstanceStatus {
        id: InstanceId::from_seed(1),
        address: Some([10, 128, 2, 0].into()),
        healthy: Some(true),
        exited: Some(ExitStatus::Signal(9)),
        refused: Some("no".into()),
    };
    let bare = InstanceStatus { address: None, healthy: None, exited: None, refused: None, ..status.clone() };
    let problem = |error: ProviderError| Answer::Problem(Problem::from(error));
    vec![
        Answer::Ok(Accepted::default()),
        Answer::Ok(Accepted { address: Some("10.128.1.2:80".parse().unwrap()) }),
        Answer::Instances {
            life: 5,
            seq: 6,
            instances: vec![InstanceWire::from(status), InstanceWire::from(bare)],
        },
        Answer::from(seen),
        told(Transition::Started { address: [10, 128, 2, 0].into() }),
        told(Transition::Health { healthy: false, detail: "answers 503".into() }),
        told(Transition::Exited { status: ExitStatus::Code(1) }),
        told(Transition::Exited { status: ExitStatus::OutOfMemory }),
        told(Transition::Exited { status: ExitStatus::Unknown }),
        told(Transition::Refused { reason: "no".into() }),
        told(Transition::Destroyed),
        Answer::Log(line.into()),
        Answer::Log(LogNext::Quiet.into()),
        Answer::Log(LogNext::End.into()),
        problem(ProviderError::Fenced { asked: Term(1), seen: Term(2) }),
        problem(ProviderError::Tombstoned(InstanceId::from_seed(1))),
        problem(ProviderError::Unknown(InstanceId::from_seed(1))),
        problem(ProviderError::Refused { reason: "never".into() }),
        problem(ProviderError::Failed { reason: "not now".into() }),
        problem(ProviderError::Protocol { reason: "what?".into() }),
    ]
}

fn all() -> Vec<String> {
    let requests = requests().into_iter().map(|request| serde_json::to_string(&request).unwrap());
    let answers = answers().into_iter().map(|answer| serde_json::to_string(&answer).unwrap());
    [serde_json::to_string(&Hello::ours()).unwrap()].into_iter().chain(requests).chain(answers).collect()
}

#[test]
fn the_lines_are_the_golden_ones() {
    let lines = all();
    for (number, (line, golden)) in lines.iter().zip(GOLDEN.lines()).enumerate() {
        assert_eq!(line, golden, "line {}", number + 1);
    }
    assert_eq!(lines.len(), GOLDEN.lines().count(), "{}", lines.join("\n"));
}

#[test]
fn every_golden_line_reads_back_as_what_it_was() {
    let mut lines = GOLDEN.lines().skip(1);
    for request in requests() {
        assert_eq!(serde_json::from_str::<Request>(lines.next().unwrap()).unwrap(), request);
    }
    for answer in answers() {
        assert_eq!(serde_json::from_str::<Answer>(lines.next().unwrap()).unwrap(), answer);
    }
}

#[test]
fn a_request_arrives_as_it_was_meant() {
    for request in [full_request(), plain_request()] {
        let line = serde_json::to_string(&CreateWire::from(&request)).unwrap();
        let arrived: CreateWire = serde_json::from_str(&line).unwrap();
        assert_eq!(CreateRequest::try_from(arrived).unwrap(), request);
    }
}

#[test]
fn a_field_of_a_later_version_is_ignored() {
    let line = r#"{"op":"destroy","id":"baaaaaaaaa","term":1,"position":2,"grace_ms":3,"mood":"calm"}"#;
    assert!(matches!(serde_json::from_str(line), Ok(Request::Destroy { term: 1, .. })));
    let line = r#"{"kiln_host":2,"oldest":1,"colour":"red"}"#;
    assert!(serde_json::from_str::<Hello>(line).is_ok());
}

#[test]
fn the_highest_common_version_is_spoken_and_none_is_refused() {
    let ours = Hello::ours();
    let agree = |kiln_host, oldest| ours.agree(&Hello { kiln_host, oldest });
    assert_eq!(agree(PROTOCOL, PROTOCOL), Some(PROTOCOL));
    assert_eq!(agree(PROTOCOL + 1, PROTOCOL), Some(PROTOCOL), "the one after");
    assert_eq!(agree(PROTOCOL + 2, PROTOCOL + 1), None);
}

#[test]
fn what_is_not_an_id_or_a_name_is_refused_with_its_field() {
    let mut wire = CreateWire::from(&full_request());
    wire.id = "../../etc".into();
    assert!(CreateRequest::try_from(wire.clone()).unwrap_err().to_string().contains("`id`"));
    wire.id = id();
    wire.stack = "../x".into();
    assert!(CreateRequest::try_from(wire).unwrap_err().to_string().contains("`stack`"));
}
