//! A start from a snapshot comes to what a start from the first entry comes to. How long each takes is printed, never asserted:
//! `KILN_START_ENTRIES=100000 cargo test -p kiln --test start -- --nocapture`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "the whole file is a test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln::controller::{Committed, Log, StoredLog};
use kiln_core::State;
use kiln_model::event::{ControlEvent, EnvironmentEvent, InstanceEvent, Purpose};
use kiln_model::instance::{ExitStatus, InstanceSpec};
use kiln_model::release::{Revision, RevisionSpec};
use kiln_model::service::{RolloutBounds, Service, ServiceKind, Strategy};
use kiln_model::{
    Actor, Digest, Entry, EnvKey, EnvName, Event, InstanceId, Millis, Position, RevisionNumber, ServiceName,
    SlotKey, StackName, Term, Timestamp,
};

/// Entries of one append: as many as a busy controller batches.
const BATCH: usize = 250;

fn env() -> EnvKey {
    EnvKey { stack: StackName::new("shop").unwrap(), env: EnvName::new("prod").unwrap() }
}

fn revision() -> Revision {
    let name = ServiceName::new("mail").unwrap();
    let spec = InstanceSpec::plain(Digest::new([1; 32]), vec!["/app".into()]);
    let service = Service {
        name: name.clone(),
        kind: ServiceKind::Worker,
        spec: Arc::new(spec),
        spec_digest: Digest::new([2; 32]),
        replicas: 100,
        strategy: Strategy::StopThenStart,
        after: Default::default(),
        bounds: RolloutBounds::default(),
        interludes: Arc::default(),
    };
    let spec = RevisionSpec { services: BTreeMap::from([(name, service)]), ..RevisionSpec::default() };
    let (number, release, binding) = (RevisionNumber(1), Digest::new([3; 32]), Digest::new([4; 32]));
    Revision { number, release, binding, spec: Arc::new(spec), composed: None }
}

/// A history of instances that come and go, a hundred at a time.
fn history(count: usize) -> Vec<Entry> {
    let mut events = vec![
        Event::Control(ControlEvent::ControllerStarted { term: Term(1) }),
        Event::Environment(EnvironmentEvent::Created { index: 0 }),
        Event::Environment(EnvironmentEvent::RevisionSealed { revision: Arc::new(revision()) }),
    ];
    let life = |number: u64| {
        let slot = SlotKey {
            env: env(),
            service: ServiceName::new("mail").unwrap(),
            ordinal: u32::try_from(number % 100).unwrap(),
        };
        let purpose = Purpose::Slot { slot, revision: RevisionNumber(1) };
        let id = InstanceId::from_seed(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        [
            InstanceEvent::Requested { purpose, spec: Digest::new([2; 32]) },
            InstanceEvent::Started { address: "10.0.0.2".parse().unwrap() },
            InstanceEvent::BecameHealthy,
            InstanceEvent::Exited { status: ExitStatus::Code(1) },
            InstanceEvent::Retiring { reason: "it ended".into(), drain_within: Millis(0) },
            InstanceEvent::Destroying { grace: Millis(0), cut: false },
            InstanceEvent::Destroyed,
        ]
        .map(|event| Event::Instance(id, event))
    };
    events.extend((1..).flat_map(life).take(count - events.len()));
    let entry = |(position, event): (u64, Event)| Entry {
        position: Position(position),
        at: Timestamp(1_000_000 + position),
        term: Term(1),
        actor: Actor::Controller,
        env: (!matches!(event, Event::Control(_))).then(env),
        event,
    };
    (1..).zip(events).map(entry).collect()
}

fn start(folder: &Path) -> (State, Duration) {
    let begun = Instant::now();
    let mut log = StoredLog::open(folder).unwrap();
    let state = State::clone(Committed::load(&mut log).unwrap().state());
    (state, begun.elapsed())
}

/// Writes a history as a controller does, and compares starts with and without its snapshots.
fn compare(count: usize) {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let history = history(count);
    let mut log = StoredLog::open(folder.path()).unwrap();
    let mut live = State::new();
    for batch in history.chunks(BATCH) {
        log.append(live.position(), batch).unwrap();
        for entry in batch {
            kiln_core::apply(&mut live, entry).unwrap();
        }
        log.keep(&Arc::new(live.clone()));
    }
    // The last that is offered is taken once the thread is done with the one before.
    let snapshots = folder.path().join("log/snapshots");
    let newest = || {
        let names = fs::read_dir(&snapshots).into_iter().flatten().flatten();
        names.filter_map(|file| file.file_name().to_str()?.parse::<usize>().ok()).max().unwrap_or(0)
    };
    let begun = Instant::now();
    while newest() + 1_000 < count {
        assert!(begun.elapsed() < Duration::from_secs(60), "no snapshot is saved");
        log.keep(&Arc::new(live.clone()));
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(log);

    let (from_snapshot, fast) = start(folder.path());
    let size = fs::metadata(snapshots.join(format!("{:020}", newest()))).unwrap().len();
    fs::rename(&snapshots, folder.path().join("aside")).unwrap();
    let (from_first, slow) = start(folder.path());
    println!("{count} entries: a start takes {slow:?}, from a snapshot of {size} bytes {fast:?}");
    assert_eq!(from_snapshot, from_first);
    assert_eq!(from_snapshot, live);

    fs::rename(folder.path().join("aside"), &snapshots).unwrap();
    for file in fs::read_dir(&snapshots).unwrap().flatten().filter(|file| file.path().is_file()) {
        let text = fs::read_to_string(file.path()).unwrap();
        fs::write(file.path(), text.replacen("\"now\":", "\"then\":", 1)).unwrap();
    }
    assert_eq!(start(folder.path()).0, live, "damaged snapshots are passed over");
}

#[test]
fn a_start_from_a_snapshot_comes_to_what_the_whole_log_folds_to() {
    let asked = std::env::var("KILN_START_ENTRIES").ok();
    compare(asked.map_or(4_321, |count| count.parse().unwrap()));
}
