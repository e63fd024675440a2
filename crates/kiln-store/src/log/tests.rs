use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use kiln_model::event::ControlEvent;
use kiln_model::{Actor, Event, Millis, StackName, Term, Timestamp};

use super::*;
use crate::wire::samples::{entries, env};

fn positions(log: &EventLog, from: u64) -> Vec<u64> {
    log.read(Position(from)).map(|entry| entry.unwrap().position.0).collect()
}

/// A log with `count` entries, closed, so that its file may be tampered with.
fn closed_log(count: usize) -> tempfile::TempDir {
    let state = tempfile::tempdir().unwrap();
    let mut log = EventLog::open(state.path()).unwrap();
    log.append(Position(0), &entries(0, count)).unwrap();
    state
}

fn tamper(state: &tempfile::TempDir, sql: &str) {
    let database = Connection::open(state.path().join("log/events.db")).unwrap();
    database
        .execute_batch("DROP TRIGGER events_are_never_changed; DROP TRIGGER events_are_never_removed;")
        .unwrap();
    database.execute_batch(sql).unwrap();
}

#[test]
fn what_was_appended_reads_back_after_a_new_open() {
    let state = tempfile::tempdir().unwrap();
    let written = entries(0, 1_234);
    let mut log = EventLog::open(state.path()).unwrap();
    assert_eq!(log.head(), Head::EMPTY);
    log.append(Position(0), &written[..1]).unwrap();
    let head = log.append(Position(1), &written[1..]).unwrap();
    assert_eq!(log.append(head.position, &[]).unwrap(), head, "nothing to append is no change");
    drop(log);
    let log = EventLog::open(state.path()).unwrap();
    assert_eq!(log.head(), head);
    let read: Vec<_> = log.read(Position(1)).map(Result::unwrap).collect();
    assert_eq!(read, written);
    assert_eq!(positions(&log, 1_233), [1_233, 1_234]);
    assert_eq!(positions(&log, 1_235), [0; 0]);
    assert_eq!(positions(&log, 0).len(), 1_234);
}

#[test]
fn a_second_writer_is_refused_and_readers_are_not() {
    let state = tempfile::tempdir().unwrap();
    assert!(matches!(EventLog::open_read_only(state.path()), Err(OpenLogError::Missing { .. })));
    let mut log = EventLog::open(state.path()).unwrap();
    assert!(matches!(EventLog::open(state.path()), Err(OpenLogError::Locked { .. })));
    log.append(Position(0), &entries(0, 3)).unwrap();
    let mut reader = EventLog::open_read_only(state.path()).unwrap();
    log.append(Position(3), &entries(3, 2)).unwrap();
    assert_eq!(positions(&reader, 1), [1, 2, 3, 4, 5]);
    assert!(matches!(reader.append(Position(5), &entries(5, 1)), Err(AppendError::Invalid { .. })));
    drop(log);
    EventLog::open(state.path()).unwrap();
}

#[test]
fn an_append_elsewhere_than_at_the_end_is_a_conflict_and_changes_nothing() {
    let state = closed_log(3);
    let mut log = EventLog::open(state.path()).unwrap();
    let Err(AppendError::Conflict { expected, found }) = log.append(Position(2), &entries(2, 1)) else {
        panic!("a conflict");
    };
    assert_eq!((expected, found), (Position(2), Position(3)));
    assert!(matches!(log.append(Position(3), &entries(7, 1)), Err(AppendError::Invalid { .. })));
    assert_eq!(positions(&log, 1), [1, 2, 3]);
    log.append(Position(3), &entries(3, 1)).unwrap();
}

#[test]
fn the_database_itself_refuses_to_change_or_drop_an_entry() {
    let state = closed_log(3);
    let database = Connection::open(state.path().join("log/events.db")).unwrap();
    for sql in ["UPDATE events SET at = 0", "DELETE FROM events"] {
        let refusal = database.execute(sql, []).unwrap_err().to_string();
        assert!(refusal.contains("never"), "{refusal}");
    }
}

#[test]
fn an_edited_entry_is_named() {
    for change in ["at = at + 1", "actor = 'user:eve'", "body = body || ' '", "env = 'dev'", "kind = 'check'"]
    {
        let state = closed_log(40);
        tamper(&state, &format!("UPDATE events SET {change} WHERE position = 39"));
        let Err(OpenLogError::Damaged { position, .. }) = EventLog::open(state.path()) else {
            panic!("{change}")
        };
        assert_eq!(position, Position(39), "{change}");
    }
}

#[test]
fn an_entry_that_was_edited_with_its_hash_breaks_the_next_one() {
    let state = closed_log(5);
    tamper(&state, "UPDATE events SET hash = zeroblob(32), prev_hash = zeroblob(32) WHERE position = 3");
    assert!(matches!(EventLog::open(state.path()), Err(OpenLogError::Damaged { position: Position(3), .. })));
}

#[test]
fn a_missing_entry_is_named_even_before_the_tail() {
    let count = TAIL_ENTRIES as usize + 100;
    let state = closed_log(count);
    tamper(&state, "DELETE FROM events WHERE position = 50");
    let log = EventLog::open(state.path()).expect("the tail is whole");
    let damage = log.read(Position(1)).find_map(Result::err).unwrap();
    assert!(matches!(damage, ReadLogError::Damaged { position: Position(50), .. }), "{damage}");
    assert_eq!(log.read(Position(1)).count(), 50, "it ends with the error");
    let verification = log.verify(&[]).unwrap();
    assert_eq!((verification.entries, verification.first_bad.unwrap().0), (49, Position(50)));
    assert!(matches!(
        log.read(Position(51)).next(),
        Some(Err(ReadLogError::Damaged { position: Position(50), .. }))
    ));
}

fn anchor(who: &str, head: Head) -> Anchor {
    Anchor { who: who.into(), head, at: Some(Timestamp(5)) }
}

#[test]
fn a_log_that_was_cut_is_found_out_by_an_anchor() {
    let state = closed_log(10);
    let mut log = EventLog::open(state.path()).unwrap();
    let anchors = [anchor("edge", log.head()), anchor("host", log.head())];
    log.append(Position(10), &entries(10, 5)).unwrap();
    log.check_anchors(&anchors).unwrap();
    assert_eq!(log.verify(&anchors).unwrap().proven, anchors);
    drop(log);
    tamper(&state, "DELETE FROM events WHERE position > 9");
    let log = EventLog::open(state.path()).expect("what is left is whole");
    let Err(OpenLogError::Damaged { position, reason }) = log.check_anchors(&anchors) else {
        panic!("damaged")
    };
    assert_eq!(
        (position, reason.as_str()),
        (Position(10), "the log ends at @9, but edge remembers this entry")
    );
    let found = log.verify(&anchors).unwrap();
    assert_eq!((found.entries, found.proven.len(), found.broken.len()), (9, 0, 2));
    assert_eq!(found.first_bad.unwrap().1, "the log ends at @9, but edge and host remember this entry");
}

#[test]
fn a_log_that_was_written_anew_is_found_out_by_an_anchor() {
    let (state, other) = (closed_log(10), tempfile::tempdir().unwrap());
    let head = EventLog::open(state.path()).unwrap().head();
    let mut forged = entries(0, 10);
    forged[3].actor = Actor::User("eve".into());
    let mut log = EventLog::open(other.path()).unwrap();
    log.append(Position(0), &forged).unwrap();
    assert!(log.verify(&[]).unwrap().is_sound(), "by itself it holds together");
    let anchors = [anchor("edge", head)];
    assert!(matches!(log.check_anchors(&anchors), Err(OpenLogError::Damaged { position: Position(10), .. })));
    let (position, reason) = log.verify(&anchors).unwrap().first_bad.unwrap();
    assert_eq!(position, Position(10));
    assert!(reason.contains("written anew"), "{reason}");
}

#[test]
fn an_anchor_beyond_an_edited_entry_proves_nothing() {
    let state = closed_log(TAIL_ENTRIES as usize + 100);
    let head = EventLog::open(state.path()).unwrap().head();
    tamper(&state, "UPDATE events SET at = at + 1 WHERE position = 50");
    let log = EventLog::open(state.path()).expect("the tail is whole");
    let found = log.verify(&[anchor("edge", head), anchor("host", head_at(&log, 7))]).unwrap();
    assert_eq!(found.first_bad.unwrap().0, Position(50));
    let names = |anchors: &[Anchor]| anchors.iter().map(|anchor| anchor.who.clone()).collect::<Vec<_>>();
    assert_eq!((names(&found.proven), names(&found.broken)), (vec!["host".into()], vec!["edge".into()]));
}

#[test]
fn a_damaged_or_foreign_file_is_an_error_and_not_a_panic() {
    let state = closed_log(500);
    let path = state.path().join("log/events.db");
    let size = std::fs::metadata(&path).unwrap().len();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(size / 2).unwrap();
    assert!(matches!(EventLog::open(state.path()), Err(OpenLogError::Damaged { .. })));
    std::fs::write(&path, "not a database, though long enough to be taken for one".repeat(100)).unwrap();
    assert!(matches!(EventLog::open(state.path()), Err(OpenLogError::Damaged { .. })));
}

#[test]
fn no_flipped_byte_of_the_file_goes_unseen_or_panics() {
    let state = closed_log(60);
    let path = state.path().join("log/events.db");
    let original = std::fs::read(&path).unwrap();
    let whole: Vec<_> = entries(0, 60);
    for at in (0..original.len()).step_by(97) {
        std::fs::write(&path, &original).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[original[at] ^ 0x55], at as u64).unwrap();
        let Ok(log) = EventLog::open_read_only(state.path()) else { continue };
        let read: Result<Vec<_>, _> = log.read(Position(1)).collect();
        // Where the byte was padding or an index, the log is as it was; otherwise it says so.
        assert!(read.is_err() || read.unwrap() == whole[..], "byte {at}");
    }
}

#[test]
fn a_newer_format_is_refused() {
    let state = closed_log(1);
    tamper(&state, "PRAGMA user_version = 2");
    assert!(matches!(EventLog::open(state.path()), Err(OpenLogError::Newer { found: 2, known: 1 })));
}

#[test]
fn the_entries_of_one_environment_are_read_alone() {
    let state = closed_log(700);
    let log = EventLog::open(state.path()).unwrap();
    let all: Vec<_> = log.read(Position(1)).map(Result::unwrap).collect();
    let mine: Vec<_> = log.read_env(&env(), Position(20)).map(Result::unwrap).collect();
    let expected: Vec<_> =
        all.into_iter().filter(|entry| entry.env.is_some() && entry.position.0 >= 20).collect();
    assert_eq!(mine, expected);
    let other = EnvKey { stack: StackName::new("other").unwrap(), ..env() };
    assert_eq!(log.read_env(&other, Position(0)).count(), 0);
}

#[test]
fn the_history_of_an_environments_rollouts_is_read_from_either_end() {
    let state = closed_log(1_600);
    let log = EventLog::open(state.path()).unwrap();
    let is_mine = |entry: &Entry| matches!(entry.event, Event::Rollout(_)) && entry.env == Some(env());
    let mut expected: Vec<_> = log.read(Position(1)).map(Result::unwrap).filter(is_mine).collect();
    assert!(expected.len() > PAGE_ROWS as usize / 4, "{} entries", expected.len());
    let from = expected[expected.len() / 2].position;
    let later: Vec<_> = log.read_rollouts(&env(), from).map(Result::unwrap).collect();
    assert_eq!(later, expected[expected.len() / 2..]);
    let back: Vec<_> = log.read_rollouts_back(&env()).map(Result::unwrap).collect();
    expected.reverse();
    assert_eq!(back, expected);
    let other = EnvKey { stack: StackName::new("other").unwrap(), ..env() };
    assert_eq!(log.read_rollouts_back(&other).count(), 0);
}

#[test]
fn a_login_can_not_pass_for_the_controller() {
    let state = tempfile::tempdir().unwrap();
    let mut log = EventLog::open(state.path()).unwrap();
    let entry = Entry {
        position: Position(1),
        at: Timestamp(1),
        term: Term(1),
        actor: Actor::User("kiln:controller".into()),
        env: None,
        event: Event::Control(ControlEvent::ClockJumped { by: Millis(1) }),
    };
    log.append(Position(0), std::slice::from_ref(&entry)).unwrap();
    assert_eq!(log.read(Position(1)).next().unwrap().unwrap(), entry);
}

/// The head of the log when it was `position` long.
fn head_at(log: &EventLog, position: u64) -> Head {
    Head { position: Position(position), hash: row::hash_at(&log.database, position).unwrap().unwrap() }
}

#[test]
fn snapshots_are_read_back_the_latest_first() {
    let state = closed_log(30);
    let log = EventLog::open(state.path()).unwrap();
    assert_eq!(log.saved().count(), 0);
    for position in [10, 20, 30] {
        let bytes = format!("state at\n{position}");
        log.snapshots().save(head_at(&log, position), bytes.as_bytes()).unwrap();
    }
    let saved: Vec<_> = log.saved().map(Result::unwrap).collect();
    let expected = [30, 20].map(|position| LogSnapshot {
        position: Position(position),
        bytes: format!("state at\n{position}").into(),
    });
    assert_eq!(saved, expected, "the one before the last is kept, older ones are not");
}

#[test]
fn a_snapshot_that_is_damaged_or_of_another_log_says_so() {
    let state = closed_log(30);
    let log = EventLog::open(state.path()).unwrap();
    let save = |head: Head| log.snapshots().save(head, b"a state").unwrap();
    let path = state.path().join("log/snapshots/00000000000000000020");
    let reason = || log.saved().next().unwrap().unwrap_err().reason;
    save(head_at(&log, 20));
    let whole = std::fs::read_to_string(&path).unwrap();
    assert!(log.saved().next().unwrap().is_ok());
    for (from, to, expected) in [
        ("a state", "a slate", "not those that were saved"),
        ("log-snapshot/1", "log-snapshot/2", "not one of this version"),
        ("\"position\":20", "\"position\":21", "not those that were saved"),
        ("{", "", "not one of this version"),
        ("\n", "", "no header"),
    ] {
        std::fs::write(&path, whole.replacen(from, to, 1)).unwrap();
        assert!(reason().contains(expected), "{to}: {}", reason());
    }
    save(Head { position: Position(20), ..head_at(&log, 19) });
    assert!(reason().contains("another entry"), "{}", reason());
    save(Head { position: Position(31), ..head_at(&log, 19) });
    save(Head { position: Position(32), ..head_at(&log, 19) });
    assert!(reason().contains("or none"), "{}", reason());
    save(head_at(&log, 10));
    let left: Vec<_> = log.saved().filter_map(Result::ok).map(|saved| saved.position).collect();
    assert_eq!((left, log.saved().count()), (vec![Position(10)], 1), "what is ahead of it goes");
}

#[test]
fn the_chain_is_computed_as_it_always_was() {
    let state = tempfile::tempdir().unwrap();
    let mut log = EventLog::open(state.path()).unwrap();
    let entry = |position: u64, actor, env| Entry {
        position: Position(position),
        at: Timestamp(1_000 + position),
        term: Term(2),
        actor,
        env,
        event: Event::Control(ControlEvent::ClockJumped { by: Millis(7) }),
    };
    let entries = [entry(1, Actor::Controller, None), entry(2, Actor::User("ada".into()), Some(env()))];
    let head = log.append(Position(0), &entries).unwrap();
    // If this changes, no log that exists can be verified any more.
    assert_eq!(
        head.hash.to_string(),
        "sha256:da5f31a14dccb9cfbc0e8149f92e16be0f8dbbee082a14f82c474c381a8b606c"
    );
}
