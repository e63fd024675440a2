//! SIGKILL in the middle of storing: what has a name is whole, and what was acknowledged is there.
#![allow(clippy::unwrap_used)] // the whole file is a test, though clippy sees that of test functions only

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use kiln_model::event::ControlEvent;
use kiln_model::{Actor, Entry, Event, Millis, Position, Term, Timestamp};
use kiln_store::{EventLog, Lease, Store};

/// Tells the child where to store; without it the child's part is no test.
const STATE: &str = "KILN_TEST_STATE";

/// How often a writer is killed: each time at another moment.
const ROUNDS: u64 = 12;

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
        acknowledge(number);
    }
}

#[test]
fn a_killed_writer_leaves_whole_blobs_all_that_it_acknowledged_and_no_rubbish() {
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
            assert!(store.blobs.contains(&kiln_store::canonical::digest_of(&content(number))), "{number}");
        }
        for number in 0..(last + 1) * 20 {
            assert!(store.objects.contains(&kiln_store::canonical::digest_of(&content(number))), "{number}");
        }
        assert!(store.leases.holders().is_empty());
        store.leases.begin_collection().expect("the lease ended with its process");
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
