//! What every provider promises, whatever is behind it: one suite, included by the tests of each implementation.
//!
//! It knows nothing but the port, and what [`Subject`] adds: specs that the provider can run, time that passes, a restart.
#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "it is a part of the tests")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use kiln_model::instance::InstanceSpec;
use kiln_model::{EnvKey, Fence, InstanceId, Millis, Position, Term};
use kiln_provider::{
    CreateRequest, Cursor, DestroyRequest, InstanceStatus, LogCursor, LogNext, Provider, ProviderError,
    Transition, Transitions, Watched,
};

/// How long a stream is waited on at a time.
const LOOK: Duration = Duration::from_millis(100);
/// How often at most: beyond it the provider has failed. A provider without real time answers at once.
const LOOKS_MAX: u32 = 600;

/// A provider with nothing on it.
pub trait Subject {
    /// The provider, in the life that it has now.
    fn provider(&self) -> &dyn Provider;
    /// Lets some time pass, where it does not by itself.
    fn pass(&mut self);
    /// Ends its process and starts another one, when no stream is open. What was accepted stays.
    fn restart(&mut self);
    /// A spec whose command runs until it is destroyed.
    fn endless(&self) -> InstanceSpec;
    /// A spec that can never be created.
    fn impossible(&self) -> InstanceSpec;
}

fn id(number: u64) -> InstanceId {
    InstanceId::from_seed(1_000_000 + number)
}

fn creation(number: u64, term: u64, spec: InstanceSpec) -> CreateRequest {
    CreateRequest {
        id: id(number),
        spec: Arc::new(spec),
        fence: Fence { term: Term(term), position: Position(number) },
        env: EnvKey { stack: "shop".parse().unwrap(), env: "dev".parse().unwrap() },
        service: "web".parse().unwrap(),
        internal: None,
    }
}

fn end(number: u64, term: u64) -> DestroyRequest {
    let fence = Fence { term: Term(term), position: Position(number) };
    DestroyRequest { id: id(number), fence, grace: Millis(10) }
}

/// A stream from the end of what was told until now.
fn watch(subject: &impl Subject) -> Box<dyn Transitions> {
    let cursor = subject.provider().list().unwrap().cursor;
    subject.provider().watch(cursor).unwrap()
}

/// Waits for the next transition of an instance.
fn next(subject: &mut impl Subject, watch: &mut dyn Transitions, of: InstanceId) -> (Cursor, Transition) {
    for _ in 0..LOOKS_MAX {
        match watch.next(LOOK).unwrap() {
            Some(Watched::Transition { cursor, id, transition }) if id == of => return (cursor, transition),
            Some(Watched::Transition { .. }) => {}
            Some(relist @ Watched::Relist { .. }) => panic!("{relist:?} within one life"),
            None => subject.pass(),
        }
    }
    panic!("nothing is told of {of}");
}

/// Waits until an instance is told to have started; verdicts about it may be told before, if it is not the first time.
fn started(subject: &mut impl Subject, watch: &mut dyn Transitions, of: InstanceId) -> IpAddr {
    loop {
        match next(subject, watch, of).1 {
            Transition::Started { address } => return address,
            Transition::Health { .. } => {}
            other => panic!("{of} did not start: {other:?}"),
        }
    }
}

/// Waits until nothing is left of an instance; how its process ended may be told before.
fn destroyed(subject: &mut impl Subject, watch: &mut dyn Transitions, of: InstanceId) {
    loop {
        match next(subject, watch, of).1 {
            Transition::Destroyed => return,
            Transition::Exited { .. } | Transition::Health { .. } => {}
            other => panic!("{of} is to go: {other:?}"),
        }
    }
}

/// Waits to be told that everything is to be listed.
fn relisted(subject: &mut impl Subject, watch: &mut dyn Transitions) -> Cursor {
    for _ in 0..LOOKS_MAX {
        match watch.next(LOOK).unwrap() {
            Some(Watched::Relist { cursor }) => return cursor,
            Some(other) => panic!("{other:?} after a place of another life"),
            None => subject.pass(),
        }
    }
    panic!("nothing is told of the new life")
}

fn listed(subject: &impl Subject) -> Vec<InstanceStatus> {
    subject.provider().list().unwrap().instances
}

/// Runs all of it, each on a provider of its own.
pub fn all<S: Subject>(mut fresh: impl FnMut() -> S) {
    creating_twice_is_the_same_answer(&mut fresh());
    what_was_destroyed_is_never_created_again(&mut fresh());
    an_unknown_id_is_told_destroyed(&mut fresh());
    an_older_term_is_refused(&mut fresh());
    the_list_is_complete(&mut fresh());
    a_cursor_of_another_life_is_told_to_list_again(&mut fresh());
    every_place_in_the_stream_can_be_gone_on_from(&mut fresh());
    only_what_there_is_has_a_log_and_runs_commands(&mut fresh());
}

/// The id is the idempotency key: the answer and the news come again, and another spec under it is refused.
pub fn creating_twice_is_the_same_answer(subject: &mut impl Subject) {
    let mut watch = watch(subject);
    let request = creation(1, 1, subject.endless());
    subject.provider().create(&request).unwrap();
    subject.provider().create(&request).unwrap();
    let address = started(subject, &mut *watch, request.id);
    let again = CreateRequest { fence: Fence { term: Term(2), position: Position(9) }, ..request.clone() };
    subject.provider().create(&again).unwrap();
    assert_eq!(started(subject, &mut *watch, request.id), address);
    let mut other = creation(1, 2, subject.endless());
    Arc::make_mut(&mut other.spec).env.insert("OTHER".into(), "yes".into());
    let refused = subject.provider().create(&other);
    assert!(matches!(refused, Err(ProviderError::Refused { .. })), "{refused:?}");
    assert_eq!(listed(subject).len(), 1);
}

/// An id is used once, also by the next process of the provider.
pub fn what_was_destroyed_is_never_created_again(subject: &mut impl Subject) {
    let request = creation(1, 1, subject.endless());
    let mut stream = watch(subject);
    subject.provider().create(&request).unwrap();
    started(subject, &mut *stream, request.id);
    subject.provider().destroy(&end(1, 1)).unwrap();
    // From the moment at which it was accepted, not only when nothing is left.
    assert!(matches!(subject.provider().create(&request), Err(ProviderError::Tombstoned(_))));
    destroyed(subject, &mut *stream, request.id);
    drop(stream);
    for _ in 0..2 {
        let refused = subject.provider().create(&request).unwrap_err();
        assert!(matches!(refused, ProviderError::Tombstoned(id) if id == request.id), "{refused:?}");
        assert!(refused.is_permanent());
        // Asked again, it is told again: the first answer may have been lost.
        let mut stream = watch(subject);
        subject.provider().destroy(&end(1, 1)).unwrap();
        destroyed(subject, &mut *stream, request.id);
        assert_eq!(listed(subject), []);
        drop(stream);
        subject.restart();
    }
}

/// A destroy that overtakes its create wins.
pub fn an_unknown_id_is_told_destroyed(subject: &mut impl Subject) {
    let mut watch = watch(subject);
    subject.provider().destroy(&end(1, 1)).unwrap();
    assert_eq!(next(subject, &mut *watch, id(1)).1, Transition::Destroyed);
    let late = subject.provider().create(&creation(1, 1, subject.endless()));
    assert!(matches!(late, Err(ProviderError::Tombstoned(_))), "{late:?}");
    assert_eq!(listed(subject), []);
}

/// Whoever is of an older term comes too late for everything, also at the next process of the provider.
pub fn an_older_term_is_refused(subject: &mut impl Subject) {
    subject.provider().create(&creation(1, 7, subject.endless())).unwrap();
    for _ in 0..2 {
        for late in [
            subject.provider().create(&creation(1, 6, subject.endless())),
            subject.provider().create(&creation(2, 6, subject.endless())),
            subject.provider().destroy(&end(1, 6)),
            subject.provider().destroy(&end(3, 6)),
        ] {
            let fenced = matches!(late, Err(ProviderError::Fenced { asked: Term(6), seen: Term(7) }));
            assert!(fenced, "{late:?}");
        }
        subject.restart();
    }
    assert_eq!(listed(subject).into_iter().map(|found| found.id).collect::<Vec<_>>(), [id(1)]);
    // What was refused left nothing behind: neither a tombstone nor a lower term.
    subject.provider().create(&creation(3, 7, subject.endless())).unwrap();
}

/// Everything that was accepted is in the list at once, by id, with what was told of it.
pub fn the_list_is_complete(subject: &mut impl Subject) {
    let mut stream = watch(subject);
    for number in 1..=5 {
        subject.provider().create(&creation(number, 1, subject.endless())).unwrap();
    }
    subject.provider().create(&creation(6, 1, subject.impossible())).unwrap();
    let mut ids: Vec<_> = (1..=6).map(id).collect();
    ids.sort();
    assert_eq!(listed(subject).into_iter().map(|found| found.id).collect::<Vec<_>>(), ids);
    let Transition::Refused { reason } = next(subject, &mut *stream, id(6)).1 else {
        panic!("it was created")
    };
    let is_settled = |found: &InstanceStatus| found.address.is_some() || found.refused.is_some();
    for _ in 0..LOOKS_MAX {
        if listed(subject).iter().all(is_settled) {
            break;
        }
        let _ = stream.next(LOOK).unwrap();
        subject.pass();
    }
    let settled = listed(subject);
    let refused = settled.iter().find(|found| found.id == id(6)).unwrap();
    assert_eq!((refused.address, refused.refused.as_ref()), (None, Some(&reason)));
    let addresses: BTreeSet<_> = settled.iter().filter_map(|found| found.address).collect();
    assert_eq!(addresses.len(), 5, "an address belongs to one instance: {settled:?}");
    let mut stream = watch(subject);
    subject.provider().destroy(&end(6, 1)).unwrap();
    destroyed(subject, &mut *stream, id(6));
    ids.retain(|found| *found != id(6));
    assert_eq!(listed(subject).into_iter().map(|found| found.id).collect::<Vec<_>>(), ids);
}

/// A cursor is worth nothing to another life of the provider, which says so and has everything listed.
pub fn a_cursor_of_another_life_is_told_to_list_again(subject: &mut impl Subject) {
    // The beginning of all is no place.
    let mut beginning = subject.provider().watch(Cursor::default()).unwrap();
    relisted(subject, &mut *beginning);
    drop(beginning);
    let mut stream = watch(subject);
    subject.provider().create(&creation(1, 1, subject.endless())).unwrap();
    let address = started(subject, &mut *stream, id(1));
    let before = subject.provider().list().unwrap();
    drop(stream);
    subject.restart();
    let mut stream = subject.provider().watch(before.cursor).unwrap();
    let cursor = relisted(subject, &mut *stream);
    assert_ne!(cursor.life, before.cursor.life);
    let after = subject.provider().list().unwrap();
    let found: Vec<_> = after.instances.iter().map(|found| (found.id, found.address)).collect();
    assert_eq!(found, [(id(1), Some(address))], "it ran on, at its address");
    // The stream goes on from the place that it named.
    subject.provider().destroy(&end(1, 1)).unwrap();
    destroyed(subject, &mut *stream, id(1));
}

/// What is told of one instance keeps its order, and each place in the stream leads to the same rest of it.
pub fn every_place_in_the_stream_can_be_gone_on_from(subject: &mut impl Subject) {
    let mut stream = watch(subject);
    subject.provider().create(&creation(1, 1, subject.endless())).unwrap();
    started(subject, &mut *stream, id(1));
    let from = subject.provider().list().unwrap().cursor;
    subject.provider().destroy(&end(1, 1)).unwrap();
    destroyed(subject, &mut *stream, id(1));
    let mut told = Vec::new();
    let mut whole = subject.provider().watch(from).unwrap();
    while told.last().is_none_or(|(_, last)| *last != Transition::Destroyed) {
        told.push(next(subject, &mut *whole, id(1)));
    }
    let mut last = from;
    for (number, (cursor, _)) in told.iter().enumerate() {
        assert!(cursor.life == from.life && *cursor > last, "{told:?}");
        let mut rest = subject.provider().watch(last).unwrap();
        for expected in &told[number..] {
            assert_eq!(next(subject, &mut *rest, id(1)), *expected);
        }
        last = *cursor;
    }
}

/// A log that is not followed ends; what is unknown has none.
pub fn only_what_there_is_has_a_log_and_runs_commands(subject: &mut impl Subject) {
    let mut watch = watch(subject);
    subject.provider().create(&creation(1, 1, subject.endless())).unwrap();
    started(subject, &mut *watch, id(1));
    let mut log = subject.provider().logs(id(1), LogCursor::default(), false).unwrap();
    let mut last = log.next(LOOK).unwrap();
    while let LogNext::Line(_) | LogNext::Quiet = last {
        last = log.next(LOOK).unwrap();
    }
    assert_eq!(last, LogNext::End);
    let unknown = subject.provider().logs(id(2), LogCursor::default(), true);
    assert!(matches!(unknown, Err(ProviderError::Unknown(_))));
    assert!(subject.provider().exec(id(2), &["/app".into()], LOOK).is_err());
    let capabilities = subject.provider().capabilities().unwrap();
    assert!(capabilities.instances_max > 0 && capabilities.subnet.contains('/'), "{capabilities:?}");
}
