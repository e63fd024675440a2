//! SIGKILL in the middle of storing: what has a name is whole, and what was acknowledged is there.
#![allow(clippy::unwrap_used)] // the whole file is a test, though clippy sees that of test functions only

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_model::event::ControlEvent;
use kiln_model::image::{Image, ImageConfig};
use kiln_model::{Actor, Digest, Entry, Event, Millis, Position, Term, Timestamp};
use kiln_store::canonical::digest_of;
use kiln_store::{Collection, Entry as TreeEntry, EventLog, Lease, Needed, Store, Tree, TreePath};

/// Tells the child where to store; without it the child's part is no test.
const STATE: &str = "KILN_TEST_STATE";

/// How often a writer is killed: each time at another moment.
const ROUNDS: u64 = 12;

/// A process that is being born holds what its parent has locked until it begins its own program: the tests of this file, which all lock
/// and all bear, go one by one.
static ONE_BY_ONE: Mutex<()> = Mutex::new(());

fn one_by_one() -> MutexGuard<'static, ()> {
    // The failure of one is no reason to fail the others.
    ONE_BY_ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `child` in a process of its own until it has acknowledged some work, and a little longer; returns its last
/// acknowledgement.
fn kill_in_the_middle(child: &str, state: &Path, round: u64) -> u64 {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args([child, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(STATE, state)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
    let acknowledged =
        |line: String| line.rsplit_once("done ").and_then(|(_, number)| number.parse::<u64>().ok());
    let first = lines.by_ref().find_map(acknowledged).expect("the child stores something");
    std::thread::sleep(Duration::from_micros(700 * round));
    process.kill().unwrap();
    process.wait().unwrap();
    lines.filter_map(acknowledged).last().unwrap_or(first)
}

fn state_of_child() -> Option<std::path::PathBuf> {
    std::env::var_os(STATE).map(Into::into)
}

fn acknowledge(number: u64) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "done {number}").unwrap();
    out.flush().unwrap();
}

fn content(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(1 + number as usize * 37 % 3_000)
}

/// What is stored as a blob and as an object at a time.
fn both(number: u64) -> Vec<u8> {
    [b"both ".to_vec(), content(number)].concat()
}

#[test]
#[ignore = "the child process of the test below, which runs it"]
fn child_that_puts() {
    let Some(state) = state_of_child() else { return };
    let store = Store::open(state).unwrap();
    let _lease: Lease = store.leases.take("test").unwrap();
    for number in 0.. {
        store.blobs.put_bytes(&content(number)).unwrap();
        let batch = store.objects.batch();
        for part in 0..20 {
            batch.put_bytes(&content(number * 20 + part)).unwrap();
        }
        batch.commit().unwrap();
        let few = store.objects.batch();
        few.put_bytes(&both(number)).unwrap();
        store.blobs.put_bytes_into(&few, &both(number)).unwrap();
        few.commit().unwrap();
        acknowledge(number);
    }
}

#[test]
fn a_killed_writer_leaves_whole_blobs_all_that_it_acknowledged_and_no_rubbish() {
    let _one = one_by_one();
    let state = tempfile::tempdir().unwrap();
    for round in 0..ROUNDS {
        let last = kill_in_the_middle("child_that_puts", state.path(), round);
        let store = Store::open(state.path()).unwrap();
        assert_eq!(std::fs::read_dir(state.path().join("store/tmp")).unwrap().count(), 0);
        for digest in store.blobs.list().unwrap() {
            store.blobs.read_verified(&digest).unwrap();
        }
        for digest in store.objects.list().unwrap() {
            store.objects.read_verified(&digest, 1 << 20).unwrap();
        }
        for number in 0..=last {
            assert!(store.blobs.contains(&digest_of(&content(number))), "{number}");
            let both = digest_of(&both(number));
            assert!(store.blobs.contains(&both) && store.objects.contains(&both), "{number}");
        }
        for number in 0..(last + 1) * 20 {
            assert!(store.objects.contains(&digest_of(&content(number))), "{number}");
        }
        assert!(store.leases.holders().is_empty());
        store.leases.begin_collection().expect("the lease ended with its process");
    }
}

/// Images of this many files each, of which the last differs from image to image.
const IMAGES: u64 = 4;

/// Stores an image and returns its manifest, the same for the same number.
fn image(store: &Store, number: u64) -> Digest {
    let mut tree = Tree::new();
    for part in (0..12).chain([100 + number]) {
        let content = part.to_le_bytes().repeat(3_000 + part as usize);
        let entry = TreeEntry::file(0o644, store.objects.put_bytes(&content).unwrap(), content.len() as u64);
        tree.insert(&TreePath::parse(format!("{part}")).unwrap(), entry).unwrap();
    }
    let manifest = store.blobs.put_bytes(format!("manifest {number}").as_bytes()).unwrap();
    let tree = store.trees.put(&tree).unwrap();
    let image = Image { manifest, tree, config: ImageConfig::default(), size_bytes: 1, unproven: Vec::new() };
    store.images.put(&image).unwrap();
    manifest
}

fn needed(store: &Store, begun: &Collection, images: &[Digest]) -> Needed {
    let mut needed = Needed::default();
    store.need(begun, &mut needed, images.iter().copied()).unwrap();
    needed
}

#[test]
#[ignore = "the child process of the test below, which runs it"]
fn child_that_packs_and_unpacks_and_collects() {
    let Some(state) = state_of_child() else { return };
    let store = Store::open(state).unwrap();
    let images: Vec<Digest> = (0..IMAGES).map(|number| image(&store, number)).collect();
    for round in 0.. {
        // One that nobody needs afterwards, so that the packs get holes.
        let lost = image(&store, IMAGES + round);
        for kept in [&[images.as_slice(), &[lost]].concat(), &images] {
            let begun = store.leases.begin_collection().unwrap();
            let all = needed(&store, &begun, kept);
            store.collect(&begun, &all).unwrap();
            let cold = store.cold(&begun, &all, &Needed::default()).unwrap();
            store.pack(&cold).unwrap();
            store.shed(&begun, &store.hold_starts().unwrap(), &cold).unwrap();
        }
        for image in &images {
            drop(store.trees.assemble(&store.images.get(image).unwrap().tree).unwrap());
        }
        acknowledge(round);
    }
}

#[test]
fn whoever_is_killed_while_packing_unpacking_or_collecting_leaves_every_kept_image_whole() {
    let _one = one_by_one();
    let state = tempfile::tempdir().unwrap();
    for round in 0..ROUNDS {
        kill_in_the_middle("child_that_packs_and_unpacks_and_collects", state.path(), round * 5);
        let store = Store::open(state.path()).unwrap();
        assert_eq!(std::fs::read_dir(state.path().join("store/tmp")).unwrap().count(), 0);
        for number in 0..IMAGES {
            let manifest = digest_of(format!("manifest {number}").as_bytes());
            assert_eq!(store.verification().damage(&manifest).unwrap(), []);
            let tree = store.images.get(&manifest).unwrap().tree;
            drop(store.trees.assemble(&tree).unwrap());
            for object in store.trees.load(&tree).unwrap().objects() {
                assert!(store.objects.path_of(&object).is_file(), "what is mounted is there for the mount");
            }
        }
    }
}

fn entry(position: u64) -> Entry {
    Entry {
        position: Position(position),
        at: Timestamp(position),
        term: Term(1),
        actor: Actor::Controller,
        env: None,
        event: Event::Control(ControlEvent::ClockJumped { by: Millis(position) }),
    }
}

#[test]
#[ignore = "the child process of the test below, which runs it"]
fn child_that_appends() {
    let Some(state) = state_of_child() else { return };
    let mut log = EventLog::open(state).unwrap();
    loop {
        let at = log.head().position.0;
        let batch: Vec<_> = (at + 1..=at + 1 + at % 7).map(entry).collect();
        let head = log.append(Position(at), &batch).unwrap();
        acknowledge(head.position.0);
    }
}

#[test]
fn a_killed_writer_leaves_a_sound_log_with_every_acknowledged_entry() {
    let _one = one_by_one();
    let state = tempfile::tempdir().unwrap();
    for round in 0..ROUNDS {
        let last = kill_in_the_middle("child_that_appends", state.path(), round);
        let log = EventLog::open(state.path()).expect("the lock ended with its process");
        assert!(
            log.head().position.0 >= last,
            "{last} was acknowledged, the log ends at {}",
            log.head().position
        );
        let verification = log.verify(&[]).unwrap();
        assert!(verification.is_sound(), "{verification:?}");
    }
}
