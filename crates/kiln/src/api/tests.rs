//! Both ends of the socket against each other, and every shape that travels against its golden file.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kiln_core::{Command, Refusal, Reply, State};
use kiln_model::release::Release;
use kiln_model::route::Sampling;
use kiln_model::{
    Actor, Digest, Entry, EnvKey, EnvName, Event, Position, RolloutId, ServiceName, StackName, Term,
    Timestamp,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::canaries::Traffic;
use super::client::{Client, ConnectError, Next, RequestError};
use super::history::Seen;
use super::server::{Backend, serve};
use super::wire::{self, Sealed};
use crate::controller::CommandError;

/// Answers every command with a rollout, and remembers who asked for what.
#[derive(Default)]
struct Fake {
    asked: Mutex<Vec<(String, Actor)>>,
}

impl Backend for Fake {
    fn command(&self, command: Command, actor: Actor) -> Result<Reply, CommandError> {
        let (name, answer) = match &command {
            Command::Rollback { to, .. } => (
                format!("rollback {to:?}"),
                Ok(Reply::RolloutStarted { rollout: RolloutId(7), revision: *to }),
            ),
            Command::Down { env } => {
                ("down".into(), Err(CommandError::Refused(Refusal::UnknownEnvironment(env.clone()))))
            }
            Command::Up { checks, .. } => (format!("up with {} checks", checks.len()), Ok(Reply::Noted)),
            other => (format!("{other:?}"), Ok(Reply::Noted)),
        };
        self.asked.lock().unwrap().push((name, actor));
        answer
    }

    fn state(&self) -> Arc<State> {
        Arc::default()
    }

    fn trouble(&self) -> Option<String> {
        Some("the disk is full".into())
    }

    fn wait_past(&self, _: Position, timeout: Duration) -> Arc<State> {
        std::thread::sleep(timeout.min(Duration::from_millis(20)));
        Arc::default()
    }

    fn events(&self, after: Position, max: usize) -> Result<Vec<Entry>, String> {
        // Two pages and a bit: the server asks again where a page was full.
        Ok((after.0 + 1..=1100).take(max).map(entry).collect())
    }

    fn rollouts(&self, _: &EnvKey, max: usize) -> Result<Vec<wire::RolloutRecord>, String> {
        let record = |id| wire::RolloutRecord {
            rollout: wire::Rollout { id, ..wire::Rollout::default() },
            ..wire::RolloutRecord::default()
        };
        Ok((1..=2000).rev().take(max).map(record).collect())
    }

    fn traffic(&self, _: &EnvKey, _: &ServiceName, _: Sampling) -> Option<Traffic> {
        None
    }

    fn rollout(&self, env: &EnvKey, id: u64) -> Result<Option<wire::RolloutRecord>, String> {
        match id {
            0 => Err("the disk fails".into()),
            7 => Ok(self.rollouts(env, 1)?.pop()),
            _ => Ok(None),
        }
    }

    fn seen(&self, _: &EnvKey) -> Result<Seen, String> {
        Ok(Seen::default())
    }

    fn release(&self, digest: &Digest) -> Result<Release, String> {
        Err(format!("release {} is not stored", digest.short()))
    }

    fn has_binding(&self, _: &Digest) -> bool {
        true
    }

    fn disk(&self) -> Option<wire::Disk> {
        None
    }

    fn damaged(&self) -> Vec<String> {
        Vec::new()
    }

    fn collect(&self, request: &wire::Collect) -> Result<wire::Collection, wire::Problem> {
        if request.dry_run {
            return Ok(wire::Collection { dry_run: true, bytes: 7, ..Default::default() });
        }
        Err(wire::Problem { kind: "refused".into(), code: "storing".into(), message: "a bake".into() })
    }
}

fn entry(position: u64) -> Entry {
    Entry {
        position: Position(position),
        at: Timestamp(position),
        term: Term(1),
        actor: Actor::Controller,
        env: None,
        event: Event::Control(kiln_model::event::ControlEvent::ControllerStarted { term: Term(1) }),
    }
}

/// Serves a fake until the test ends.
struct Served {
    folder: tempfile::TempDir,
    fake: Arc<Fake>,
    _runtime: tokio::runtime::Runtime,
}

impl Served {
    fn new() -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let fake = Arc::new(Fake::default());
        let listener = {
            let _guard = runtime.enter();
            tokio::net::UnixListener::bind(folder.path().join("kiln.sock")).unwrap()
        };
        runtime.spawn(serve(listener, fake.clone(), std::future::pending()));
        Self { folder, fake, _runtime: runtime }
    }

    fn client(&self) -> Client {
        Client::connect(&self.folder.path().join("kiln.sock")).unwrap()
    }

    /// One request by hand, for what the client never sends.
    fn raw(&self, head: &str) -> String {
        use std::io::{Read as _, Write as _};
        let mut socket =
            std::os::unix::net::UnixStream::connect(self.folder.path().join("kiln.sock")).unwrap();
        write!(socket, "{head}\r\nHost: kiln\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }
}

fn env() -> EnvKey {
    EnvKey { stack: StackName::new("shop").unwrap(), env: EnvName::new("dev").unwrap() }
}

fn refused(error: &RequestError) -> &wire::Problem {
    match error {
        RequestError::Problem(problem) => problem,
        other => panic!("not a problem: {other}"),
    }
}

#[test]
fn a_command_reaches_the_controller_with_the_one_who_asked() {
    let served = Served::new();
    let to = Some(kiln_model::RevisionNumber(41));
    let accepted = served.client().rollback(&env(), to, None, false).unwrap();
    assert_eq!((accepted.rollout, accepted.revision), (Some(7), Some(41)));
    let asked = served.fake.asked.lock().unwrap();
    let [(command, Actor::User(name))] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(command, "rollback Some(RevisionNumber(41))");
    assert!(!name.is_empty());
}

#[test]
fn a_refusal_comes_back_with_its_code() {
    let served = Served::new();
    let error = served.client().down(&env()).unwrap_err();
    assert_eq!(
        (refused(&error).kind.as_str(), refused(&error).code.as_str()),
        ("refused", "unknown_environment")
    );
    let error = served.client().environment(&env()).unwrap_err();
    assert_eq!(refused(&error).code, "unknown_environment");
}

#[test]
fn a_collection_is_asked_for_and_answered() {
    let served = Served::new();
    let client = served.client();
    assert_eq!(client.collect(&wire::Collect { dry_run: true, pack: false }).unwrap().bytes, 7);
    let error = client.collect(&wire::Collect::default()).unwrap_err();
    assert_eq!(refused(&error).code, "storing");
}

#[test]
fn a_history_is_bounded_and_what_never_was_is_told_apart_from_what_cannot_be_read() {
    let served = Served::new();
    let client = served.client();
    assert_eq!(client.rollouts(&env(), 2).unwrap().len(), 2);
    assert_eq!(client.rollouts(&env(), 1_000_000).unwrap().len(), 1000);
    assert!(served.raw("GET /v1/environments/shop/dev/rollouts HTTP/1.1").contains("\"id\":1981"));
    assert!(client.rollout(&env(), 7).is_ok());
    assert_eq!(refused(&client.rollout(&env(), 8).unwrap_err()).code, "no_such_rollout");
    let error = client.rollout(&env(), 0).unwrap_err();
    assert_eq!(
        (refused(&error).kind.as_str(), refused(&error).code.as_str()),
        ("unavailable", "log_unreadable")
    );
}

#[test]
fn nothing_that_is_not_stored_can_be_moved_to() {
    let served = Served::new();
    let nowhere = Digest::new([7; 32]).to_string();
    let up = wire::Up {
        origin: "/x".into(),
        adopt: false,
        base: None,
        release: nowhere.clone(),
        binding: nowhere,
        sealed: Sealed::default(),
        promoted_from: None,
        if_running: wire::IfRunning::default(),
        gates: None,
        break_glass: None,
        ttl_ms: None,
    };
    let error = served.client().up(&env(), &up).unwrap_err();
    assert_eq!(refused(&error).code, "release_not_stored");
    assert!(served.fake.asked.lock().unwrap().is_empty(), "the controller was not asked");
}

#[test]
fn the_log_is_streamed_in_order_over_several_pages() {
    let served = Served::new();
    let client = served.client();
    let mut stream = client.events(3, false).unwrap();
    let mut next = 4;
    loop {
        match stream.next(Duration::from_secs(10)).unwrap() {
            Next::Item(event) => {
                assert_eq!(event.position, next);
                next += 1;
            }
            Next::Idle => panic!("the stream stands still"),
            Next::End => break,
        }
    }
    assert_eq!(next, 1101);
}

#[test]
fn another_version_is_told_apart_but_its_health_is_not() {
    let served = Served::new();
    let far = format!("{}: {}", wire::VERSION_HEADER, wire::VERSION + 2);
    let answer = served.raw(&format!("GET /v1/environments HTTP/1.1\r\n{far}"));
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("other_version"), "{answer}");
    assert!(served.raw(&format!("GET /v1/health HTTP/1.1\r\n{far}")).starts_with("HTTP/1.1 200"));
    let near = format!("{}: {}", wire::VERSION_HEADER, wire::VERSION + 1);
    assert!(served.raw(&format!("GET /v1/environments HTTP/1.1\r\n{near}")).starts_with("HTTP/1.1 200"));
    assert!(served.raw("GET /v1/environments HTTP/1.1").starts_with("HTTP/1.1 200"), "curl sends no version");
}

#[test]
fn what_is_malformed_is_refused_in_the_form_of_the_api() {
    let served = Served::new();
    for (head, code) in [
        ("GET /v1/nothing HTTP/1.1", "unknown_path"),
        ("GET /v1/environments/Shop/dev HTTP/1.1", "malformed"),
        ("POST /v1/environments/shop/dev/scale HTTP/1.1\r\nContent-Length: 0", "malformed"),
    ] {
        let answer = served.raw(head);
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(code), "{head}: {answer}");
    }
}

#[test]
fn nobody_there_is_told_apart_from_a_failure() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = folder.path().join("kiln.sock");
    assert!(matches!(Client::connect(&path), Err(ConnectError::NotRunning { .. })));
    // A socket that outlived its process.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(matches!(Client::connect(&path), Err(ConnectError::NotRunning { .. })));
}

/// Compares what is sent with the golden file, and reads the golden file as a later version would send it.
/// Answers each connection with one of these, and ends it.
fn play(socket: &Path, answers: Vec<String>) -> std::thread::JoinHandle<()> {
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        // The first connection only asks whether somebody is there.
        drop(listener.accept().unwrap());
        for answer in answers {
            let (mut connection, _) = listener.accept().unwrap();
            let mut read = [0; 4096];
            std::io::Read::read(&mut connection, &mut read).unwrap();
            std::io::Write::write_all(&mut connection, answer.as_bytes()).unwrap();
        }
    })
}

#[test]
fn an_answer_that_a_dying_controller_cut_off_is_asked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("kiln.sock");
    let health =
        serde_json::to_string(&wire::Health { api: wire::VERSION, ..wire::Health::default() }).unwrap();
    let whole = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{health}",
        health.len()
    );
    let cut = |length: usize| whole[..length].to_owned();
    let answers =
        vec![String::new(), cut(9), cut(whole.len() - health.len()), cut(whole.len() - 1), whole.clone()];
    let player = play(&socket, answers);
    Client::connect(&socket).unwrap();
    player.join().unwrap();
}

fn golden<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(name: &str, value: &T) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/golden").join(name);
    let text = serde_json::to_string_pretty(value).unwrap() + "\n";
    if std::env::var_os("KILN_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, golden, "{name}: what travels has changed; old and new must understand each other");
    let mut later: serde_json::Value = serde_json::from_str(&golden).unwrap();
    later["a_field_of_tomorrow"] = serde_json::json!({ "x": 1 });
    assert_eq!(serde_json::from_value::<T>(later).unwrap(), *value, "{name}");
}

#[test]
fn the_answer_of_a_collection_is_as_in_its_golden_file() {
    let image = |reasons: Vec<String>| wire::CollectedImage {
        digest: Digest::new([2; 32]).to_string(),
        names: vec!["shop/web".into()],
        size_bytes: 1_000,
        reasons,
        packed: true,
    };
    golden(
        "collection.json",
        &wire::Collection {
            dry_run: true,
            gone: vec![image(Vec::new())],
            kept: vec![image(vec!["it is called shop/web".into()])],
            trees: 1,
            files: 2,
            blobs: 3,
            secrets: 4,
            packed: 6,
            caches: vec![wire::CollectedCache { id: "/root/.npm".into(), size_bytes: 7_000 }],
            fetched: 8,
            bytes: 5_000,
            packing: Some(wire::Packing { files: 1, bytes: 9_000, packs_bytes: 2_000 }),
            disk: Some(wire::Disk {
                budget_bytes: 1_000,
                used_bytes: 2_000,
                held: vec![wire::Held { what: "what runs".into(), bytes: 2_000 }],
            }),
        },
    );
}

#[test]
fn a_rollout_of_the_history_is_as_in_its_golden_file() {
    golden(
        "rollout.json",
        &wire::RolloutRecord {
            rollout: wire::Rollout { id: 5, to: Some(42), ..wire::Rollout::default() },
            service: Some("web".into()),
            way_back: Some(wire::WayBack {
                at_ms: 2500,
                actor: "alice".into(),
                steps: vec![wire::Step {
                    text: "remove the old web/0".into(),
                    state: "done".into(),
                    started_ms: Some(2500),
                    ended_ms: Some(2700),
                    deadline_ms: None,
                    note: Some("promoted by bob".into()),
                    expected_ms: Some(190),
                }],
            }),
            pauses: vec![wire::PauseRecord { by: "bob".into(), since_ms: 1500, until_ms: 2000 }],
            receipt: Some(wire::Receipt {
                from_ms: Some(1001),
                until_ms: Some(3001),
                requests: Some(vec![wire::ServedRequests {
                    service: "web".into(),
                    revision: 41,
                    served: 10,
                    lost: 1,
                    retried: 2,
                }]),
                longest_drain_ms: Some(40),
                memory_extra_bytes: Some(3 << 20),
                unlimited_extra: Some(2),
            }),
            predicted: Some(wire::Predicted {
                unknown: None,
                total_ms: 3705,
                approvals: 1,
                goes_back: Some("too slow".into()),
                memory_extra_bytes: 2 << 20,
                unlimited_extra: 3,
            }),
            measurements: vec![wire::Measurement {
                at_ms: 9,
                service: "web".into(),
                window: 1,
                metric: "queue".into(),
                finding: "failed".into(),
                text: "0.31".into(),
            }],
            analyses: vec![wire::Analysis {
                at_ms: 2400,
                service: "web".into(),
                window: 1,
                verdict: "fail".into(),
                metrics: vec![wire::MetricEvidence {
                    metric: "p99".into(),
                    verdict: "fail".into(),
                    worse_by: "20% more".into(),
                    baseline: wire::Estimate { samples: 900, value: 20_000, low: 19_000, high: 22_000 },
                    canary: wire::Estimate { samples: 910, value: 40_000, low: 35_000, high: 48_000 },
                }],
                synthetic: 40,
            }],
        },
    );
}

fn canary() -> wire::Canary {
    wire::Canary {
        service: "web".into(),
        window: 1,
        canary: wire::Side { requests: 1200, failed: 3, synthetic: 700 },
        baseline: wire::Side { requests: 1180, failed: 1, synthetic: 0 },
        copies: Some(wire::Copies { answered: 490, differed: 3, lost: 10, skipped: 1 }),
        outlook: Some(wire::Outlook {
            undecided: vec!["p99".into()],
            more_requests: Some(4800),
            per_minute: Some(7200),
            needed_ms: Some(40_000),
            until_ms: Some(560_000),
            then: "extend".into(),
            extended: 1,
            extend_limit: 3,
        }),
        outside: vec![wire::Outside {
            metric: "queue".into(),
            standing: "measuring".into(),
            measured: 2,
            count: 5,
            failed: 1,
            errors: 3,
            dry_run: false,
            text: "queue was measured 2 of 5 times, last 0.31".into(),
        }],
    }
}

#[test]
fn every_shape_is_as_in_its_golden_file() {
    let rollout = wire::Rollout {
        id: 5,
        from: Some(41),
        to: Some(42),
        cause: "up".into(),
        actor: "alice".into(),
        started_ms: 1000,
        going_back: Some("web/0 was not healthy within 3s".into()),
        steps: vec![wire::Step {
            text: "create web/0".into(),
            state: "running".into(),
            started_ms: Some(1000),
            ended_ms: None,
            deadline_ms: Some(2000),
            note: None,
            expected_ms: None,
        }],
        trouble: "exited with code 3".into(),
        canaries: vec![canary()],
        halted: Some(wire::Halted { reason: "unhealthy".into(), until_ms: 90_000 }),
        paused: Some(wire::Paused { by: "bob".into(), since_ms: 1500 }),
        ended: Some(wire::Ended { at_ms: 3000, outcome: "went_back".into(), reason: "too slow".into() }),
    };
    let route = wire::Route {
        name: "public".into(),
        url: "http://localhost:8080/".into(),
        listen: "0.0.0.0:8080".into(),
        host: None,
        path: "/".into(),
        service: "web".into(),
        port: "http".into(),
    };
    let counts = wire::Counts { instances: 1, healthy: 2, routed: 3, warm: 4, leaving: 5 };
    golden(
        "progress.json",
        &wire::Progress {
            position: 9,
            now_ms: 2500,
            rollout: rollout.clone(),
            services: vec![wire::ServiceProgress {
                service: "web".into(),
                wanted: 2,
                new: counts,
                old: wire::Counts::default(),
                trouble: String::new(),
            }],
            routes: vec![route.clone()],
        },
    );
    golden("environment.json", &environment(rollout, route));
}

#[test]
fn what_is_asked_and_answered_is_as_in_its_golden_file() {
    golden(
        "up.json",
        &wire::Up {
            origin: "/srv/shop".into(),
            adopt: true,
            base: Some(41),
            release: "sha256:aa".into(),
            binding: "sha256:bb".into(),
            sealed: (&super::sealed::sample()).into(),
            promoted_from: None,
            if_running: wire::IfRunning::Refuse,
            gates: None,
            break_glass: None,
            ttl_ms: None,
        },
    );
    let accepted = wire::Accepted { position: 9, rollout: Some(5), revision: Some(42), behind: None };
    golden("accepted.json", &accepted);
    let queued = wire::Accepted { rollout: None, behind: Some(5), ..accepted };
    golden("accepted-queued.json", &queued);
    let problem =
        wire::Problem { kind: "refused".into(), code: "stale_plan".into(), message: "it moved on".into() };
    golden("problem.json", &wire::ProblemBody { problem });
}

fn environment(rollout: wire::Rollout, route: wire::Route) -> wire::Environment {
    wire::Environment {
        stack: "shop".into(),
        env: "dev".into(),
        origin: Some("/srv/shop".into()),
        current: Some(41),
        previous: Some(40),
        release: Some("sha256:aa".into()),
        rollout: Some(rollout),
        ends_ms: None,
        queued: Some(wire::Queued { revision: 43, by: "alice".into(), since_ms: 7 }),
        waits_for: vec!["the edge".into()],
        services: vec![wire::Service {
            name: "web".into(),
            kind: "service".into(),
            strategy: "blue_green".into(),
            replicas: 2,
            replicas_owner: "hand".into(),
            healthy: 1,
            serving: 2,
            image: "sha256:cc".into(),
            trouble: "connection refused".into(),
        }],
        routes: vec![route],
        instances: vec![wire::Instance {
            id: "abcdefghij".into(),
            service: "web".into(),
            ordinal: 0,
            revision: 41,
            state: "healthy".into(),
            since_ms: 1000,
            address: Some("10.1.0.2".into()),
            weight: Some(1000),
            warm_until_ms: Some(5000),
            detail: String::new(),
        }],
        position: 9,
        now_ms: 2500,
    }
}
