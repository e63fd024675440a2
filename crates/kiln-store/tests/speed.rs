//! Printed, never asserted: `cargo test -p kiln-store --test speed -- --nocapture`.
#![allow(clippy::unwrap_used)] // the whole file is a test, though clippy sees that of test functions only

use std::time::Instant;

use kiln_model::event::{InstanceEvent, TrafficEvent};
use kiln_model::{
    Actor, Entry, EnvKey, EnvName, Event, InstanceId, Position, StackName, Term, Timestamp, Weight,
};
use kiln_store::{EventLog, Store};

const ENTRIES: u64 = 100_000;
const BATCH: u64 = 1_000;
const FILES: u64 = 1_000;

fn entry(position: u64) -> Entry {
    let id = InstanceId::from_seed(position);
    let event = match position % 2 {
        0 => Event::Instance(id, InstanceEvent::BecameHealthy),
        _ => Event::Traffic(TrafficEvent::Shifted { weights: vec![(id, Weight::FULL)] }),
    };
    let env = EnvKey { stack: StackName::new("shop").unwrap(), env: EnvName::new("prod").unwrap() };
    let (position, at, term) = (Position(position), Timestamp(position), Term(1));
    Entry { position, at, term, actor: Actor::Controller, env: Some(env), event }
}

#[test]
fn a_hundred_thousand_entries_are_appended_and_read() {
    let state = tempfile::tempdir().unwrap();
    let mut log = EventLog::open(state.path()).unwrap();
    let begun = Instant::now();
    for start in (0..ENTRIES).step_by(BATCH as usize) {
        let batch: Vec<_> = (start + 1..=start + BATCH).map(entry).collect();
        log.append(Position(start), &batch).unwrap();
    }
    println!("append: {ENTRIES} entries in batches of {BATCH}: {:?}", begun.elapsed());
    let begun = Instant::now();
    for position in ENTRIES + 1..=ENTRIES + 100 {
        log.append(Position(position - 1), &[entry(position)]).unwrap();
    }
    println!("append: one entry, durable: {:?}", begun.elapsed() / 100);
    drop(log);
    let begun = Instant::now();
    let log = EventLog::open(state.path()).unwrap();
    println!("open: {:?}", begun.elapsed());
    let begun = Instant::now();
    assert_eq!(log.read(Position(1)).map(Result::unwrap).count() as u64, ENTRIES + 100);
    println!("read and verify all: {:?}", begun.elapsed());
}

#[test]
fn thousands_of_small_files_are_stored() {
    let state = tempfile::tempdir_in("/var/tmp").unwrap();
    let store = Store::open(state.path()).unwrap();
    let begun = Instant::now();
    let batch = store.objects.batch();
    for number in 0..FILES {
        batch.put_bytes(&number.to_le_bytes().repeat(500)).unwrap();
    }
    println!("write {FILES} files of 4 KB: {:?}", begun.elapsed());
    let begun = Instant::now();
    batch.commit().unwrap();
    println!("make them durable and visible: {:?}", begun.elapsed());
}
