//! The controller over ports in memory. Histories with faults are the simulation's; here is one rule per test.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kiln_core::{Action, ActionKind, Command, Input, InputKind, Observation, Reply, State, apply};
use kiln_model::release::RevisionSpec;
use kiln_model::service::{RolloutBounds, Service, ServiceKind, Strategy};
use kiln_model::{
    Actor, Digest, Entry, EnvKey, EnvName, InstanceId, InstanceSpec, Position, ServiceName, StackName, Term,
    Timestamp,
};

use super::*;

/// What the next append comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Fate {
    #[default]
    Kept,
    Full,
    /// Nobody knows, and it was written.
    UnknownKept,
    /// Nobody knows, and it was not.
    UnknownLost,
}

#[derive(Debug, Clone, Default)]
struct Memory(Arc<Mutex<Disk>>);

#[derive(Debug, Default)]
struct Disk {
    entries: Vec<Entry>,
    fate: Fate,
    broken: bool,
    appends: usize,
    sent: Vec<(Action, usize)>,
    relisted: usize,
    kept: Option<Arc<State>>,
    folded_from: Option<Position>,
}

impl Log for Memory {
    fn append(&mut self, expected: Position, entries: &[Entry]) -> Result<(), AppendError> {
        let mut disk = self.0.lock().unwrap();
        assert!(!disk.broken, "an append of unknown outcome is followed by a reopen");
        if expected.0 != disk.entries.len() as u64 {
            return Err(AppendError::Conflict);
        }
        disk.appends += 1;
        let fate = std::mem::take(&mut disk.fate);
        if fate == Fate::Full {
            return Err(AppendError::Full("full".into()));
        }
        if fate != Fate::UnknownLost {
            disk.entries.extend_from_slice(entries);
        }
        disk.broken = fate != Fate::Kept;
        if disk.broken { Err(AppendError::Unknown("who knows".into())) } else { Ok(()) }
    }

    fn read(&mut self, after: Position, max: usize) -> Result<Vec<Entry>, ReadError> {
        let disk = self.0.lock().unwrap();
        Ok(disk.entries.iter().skip(after.0 as usize).take(max).cloned().collect())
    }

    fn reopen(&mut self) -> Result<(), ReadError> {
        self.0.lock().unwrap().broken = false;
        Ok(())
    }

    fn keep(&mut self, state: &Arc<State>) {
        self.0.lock().unwrap().kept = Some(Arc::clone(state));
    }

    fn kept(&mut self) -> Option<State> {
        let mut disk = self.0.lock().unwrap();
        disk.folded_from = disk.kept.as_deref().map(State::position);
        disk.kept.as_deref().cloned()
    }
}

impl Effects for Memory {
    fn execute(&mut self, action: DueAction) {
        let mut disk = self.0.lock().unwrap();
        let durable = disk.entries.len();
        disk.sent.push((action.into_inner(), durable));
    }

    fn relist(&mut self) {
        self.0.lock().unwrap().relisted += 1;
    }
}

impl Memory {
    fn set(&self, fate: Fate) {
        self.0.lock().unwrap().fate = fate;
    }

    fn sent(&self) -> Vec<Action> {
        self.0.lock().unwrap().sent.drain(..).map(|(action, _)| action).collect()
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().entries.len()
    }
}

fn open(memory: &Memory) -> Controller<Memory, Memory> {
    Controller::open(memory.clone(), memory.clone()).unwrap()
}

fn started(memory: &Memory) -> Controller<Memory, Memory> {
    let mut controller = open(memory);
    controller.step(vec![input(0, InputKind::Tick)]);
    controller
}

fn input(at: u64, kind: InputKind) -> Input {
    Input { now: Timestamp(1_000_000 + at), seed: at * 7919 + 13, actor: Actor::Controller, kind }
}

fn env() -> EnvKey {
    EnvKey { stack: StackName::new("shop").unwrap(), env: EnvName::new("prod").unwrap() }
}

fn up(version: u8) -> Command {
    let name = ServiceName::new("mail").unwrap();
    let spec = InstanceSpec::plain(Digest::new([version; 32]), vec!["/app".into()]);
    let service = Service {
        name: name.clone(),
        kind: ServiceKind::Worker,
        spec: Arc::new(spec),
        spec_digest: Digest::new([version; 32]),
        replicas: 1,
        strategy: Strategy::StopThenStart,
        after: Default::default(),
        bounds: RolloutBounds::default(),
        interludes: Arc::default(),
    };
    let services = BTreeMap::from([(name, service)]);
    Command::Up {
        env: env(),
        origin: "/src/shop".into(),
        adopt: false,
        base: None,
        release: Digest::new([version; 32]),
        binding: Digest::new([0; 32]),
        spec: Arc::new(RevisionSpec { services, ..RevisionSpec::default() }),
        checks: Vec::new(),
        admission: kiln_core::Admission::default(),
    }
}

fn create_of(actions: &[Action]) -> Option<InstanceId> {
    actions.iter().find_map(|action| match &action.kind {
        ActionKind::CreateInstance { id, .. } => Some(*id),
        _ => None,
    })
}

/// The observation that an edge answers a table with.
fn acknowledgement(actions: &[Action]) -> Option<Observation> {
    let fence = actions.iter().find_map(|action| match &action.kind {
        ActionKind::PublishTable(table) => Some(table.fence),
        _ => None,
    });
    fence.map(|fence| Observation::TableAcknowledged { fence })
}

/// Acknowledges tables until an instance is to be created, and returns its id.
fn created(memory: &Memory, controller: &mut Controller<Memory, Memory>) -> InstanceId {
    loop {
        let sent = memory.sent();
        if let Some(id) = create_of(&sent) {
            return id;
        }
        let seen = acknowledgement(&sent).expect("a table comes before the instance");
        controller.step(vec![input(1, InputKind::Observation(seen))]);
    }
}

#[test]
fn a_batch_is_one_append_and_is_acted_on_after_it() {
    let memory = Memory::default();
    let mut controller = open(&memory);
    let outcome = controller.step(vec![
        input(1, InputKind::Command(up(1))),
        input(1, InputKind::Command(up(1))),
        input(1, InputKind::Tick),
    ]);
    assert!(matches!(outcome.replies[0], Some(Ok(Reply::RolloutStarted { .. }))), "{:?}", outcome.replies);
    assert!(
        matches!(outcome.replies[1], Some(Ok(Reply::AlreadyRunning { .. }))),
        "decided on what is not durable yet"
    );
    assert_eq!(outcome.replies[2], None);
    let disk = memory.0.lock().unwrap();
    assert_eq!(disk.appends, 1);
    assert!(!disk.sent.is_empty());
    assert!(disk.sent.iter().all(|(_, durable)| *durable == disk.entries.len()));
    assert_eq!(controller.state().position().0, disk.entries.len() as u64);
}

#[test]
fn a_start_goes_on_from_what_was_kept_unless_it_does_not_lead_to_the_log() {
    let memory = Memory::default();
    let mut controller = started(&memory);
    controller.step(vec![input(1, InputKind::Command(up(1)))]);
    let kept = memory.0.lock().unwrap().kept.clone();
    controller.step(vec![input(2, InputKind::Command(up(2)))]);
    let live = State::clone(controller.state());
    let start_with = |kept: Option<Arc<State>>| {
        memory.0.lock().unwrap().kept = kept;
        State::clone(open(&memory).state())
    };
    assert_eq!(start_with(kept.clone()), live);
    assert_eq!(memory.0.lock().unwrap().folded_from, kept.map(|state| state.position()));

    // A fold of other entries: the log's own don't follow from it.
    let mut other = State::new();
    let first = memory.0.lock().unwrap().entries[0].clone();
    apply(&mut other, &first).unwrap();
    for position in 2..=live.position().0 - 1 {
        apply(&mut other, &Entry { position: Position(position), ..first_jump(&first) }).unwrap();
    }
    assert_eq!(start_with(Some(Arc::new(other))), live);
}

/// An entry about nothing that stands in a log.
fn first_jump(like: &Entry) -> Entry {
    let jump = kiln_model::event::ControlEvent::ClockJumped { by: kiln_model::Millis(1) };
    Entry { event: kiln_model::Event::Control(jump), ..like.clone() }
}

#[test]
fn what_is_outstanding_is_issued_once_in_a_life_and_again_in_the_next() {
    let memory = Memory::default();
    let mut controller = started(&memory);
    controller.step(vec![input(1, InputKind::Command(up(1)))]);
    let id = created(&memory, &mut controller);
    controller.step(vec![input(2, InputKind::Tick)]);
    assert_eq!(memory.sent(), Vec::new());

    controller.reconnected(Peer::Edge);
    controller.step(vec![input(3, InputKind::Tick)]);
    assert_eq!(create_of(&memory.sent()), None, "the edge creates nothing");
    controller.reconnected(Peer::Host);
    controller.step(vec![input(4, InputKind::Tick)]);
    assert_eq!(create_of(&memory.sent()), Some(id));

    let mut next = open(&memory);
    assert_eq!(memory.sent(), Vec::new(), "nothing is carried out before the start is recorded");
    next.step(vec![input(5, InputKind::Tick)]);
    let again = memory.sent();
    assert_eq!(create_of(&again), Some(id));
    assert!(again.iter().all(|action| action.fence.term == Term(2)));
}

#[test]
fn a_full_disk_refuses_commands_keeps_observations_and_stops_nothing() {
    let memory = Memory::default();
    let mut controller = started(&memory);
    controller.step(vec![input(1, InputKind::Command(up(1)))]);
    let id = created(&memory, &mut controller);
    let before = controller.state().clone();

    memory.set(Fate::Full);
    let address = "10.0.0.2".parse().unwrap();
    let started = Observation::InstanceStarted { id, address };
    let outcome =
        controller.step(vec![input(2, InputKind::Observation(started)), input(2, InputKind::Command(up(2)))]);
    assert!(matches!(outcome.replies[1], Some(Err(CommandError::NotRecorded { .. }))));
    assert!(outcome.trouble.is_some());
    assert_eq!(controller.state(), &before);
    assert_eq!(memory.sent(), Vec::new());

    assert!(!outcome.in_doubt, "what was refused for want of room is not in the log");

    let retry_at = outcome.wake_at.expect("it is tried again");
    assert!(retry_at > Timestamp(1_000_002));
    let waits = controller.step(vec![Input { now: Timestamp(1_000_003), ..input(0, InputKind::Tick) }]);
    assert!(waits.trouble.is_some(), "an operator who asks between two attempts is told");
    let again = controller.step(vec![Input { now: retry_at, ..input(0, InputKind::Tick) }]);
    assert_eq!(again.trouble, None);
    assert_eq!(controller.state().instance(id).unwrap().address, Some(address));
}

#[test]
fn the_wait_after_failed_appends_grows_and_is_bounded() {
    let memory = Memory::default();
    let mut controller = open(&memory);
    let (mut now, mut waits) = (Timestamp(1_000_000), Vec::new());
    for _ in 0..10 {
        memory.set(Fate::Full);
        let outcome = controller.step(vec![Input { now, ..input(0, InputKind::Tick) }]);
        let next = outcome.wake_at.unwrap();
        waits.push(next.since(now));
        now = next;
    }
    assert_eq!(waits[0], step::RETRY_FIRST);
    assert_eq!(waits[9], step::RETRY_MAX);
    assert!(waits.is_sorted());
    assert_eq!(controller.term(), None, "it has not begun");
}

#[test]
fn after_an_append_of_unknown_outcome_the_log_decides() {
    for (fate, recorded) in [(Fate::UnknownKept, true), (Fate::UnknownLost, false)] {
        let memory = Memory::default();
        let mut controller = started(&memory);
        let before = memory.len();
        memory.set(fate);
        let outcome = controller.step(vec![input(1, InputKind::Command(up(1)))]);
        assert!(matches!(outcome.replies[0], Some(Err(CommandError::NotRecorded { .. }))));
        assert_eq!(memory.sent(), Vec::new());
        assert_eq!(controller.state().environment(&env()).is_some(), recorded);
        assert_eq!(memory.len() > before, recorded);

        let outcome = controller.step(vec![input(9_000, InputKind::Command(up(1)))]);
        assert!(matches!(&outcome.replies[0], Some(Ok(_))), "the command is safe to repeat");
        created(&memory, &mut controller);
        assert_eq!(controller.state().instances().count(), 1);
    }
}

#[test]
fn a_jump_of_the_clock_counts_once_whatever_becomes_of_its_append() {
    for fate in [Fate::Kept, Fate::Full, Fate::UnknownKept, Fate::UnknownLost] {
        let memory = Memory::default();
        let mut controller = started(&memory);
        memory.set(fate);
        let by = kiln_model::Millis(60_000);
        controller.step(vec![input(1, InputKind::Observation(Observation::ClockJumped { by }))]);
        controller.step(vec![input(60_000, InputKind::Tick)]);
        controller.step(vec![input(70_000, InputKind::Tick)]);
        let entries = &memory.0.lock().unwrap().entries;
        let jumps = entries.iter().filter(|entry| {
            matches!(
                entry.event,
                kiln_model::Event::Control(kiln_model::event::ControlEvent::ClockJumped { .. })
            )
        });
        assert_eq!(jumps.count(), 1, "{fate:?}");
    }
}

#[test]
fn what_was_seen_before_a_jump_of_the_clock_is_dated_before_it() {
    let memory = Memory::default();
    let mut controller = started(&memory);
    controller.step(vec![input(1, InputKind::Command(up(1)))]);
    let id = created(&memory, &mut controller);
    memory.set(Fate::Full);
    let address = "10.0.0.2".parse().unwrap();
    let seen = Observation::InstanceStarted { id, address };
    controller.step(vec![input(2, InputKind::Observation(seen))]);
    let by = kiln_model::Millis(60_000);
    controller.step(vec![input(70_000, InputKind::Observation(Observation::ClockJumped { by }))]);
    let started_at = controller.state().instance(id).unwrap().started_at;
    assert_eq!(
        started_at,
        Some(Timestamp(1_060_002)),
        "when it was seen, and as much later as the clock jumped"
    );
}

#[test]
fn a_controller_that_another_one_followed_does_nothing_more() {
    let memory = Memory::default();
    let mut old = started(&memory);
    let mut new = started(&memory);
    memory.sent();
    let outcome = old.step(vec![input(1, InputKind::Command(up(1)))]);
    assert!(outcome.deposed);
    assert!(matches!(outcome.replies[0], Some(Err(CommandError::NotRecorded { .. }))));
    assert_eq!(memory.sent(), Vec::new());
    assert!(!new.step(vec![input(2, InputKind::Command(up(1)))]).deposed);
}

#[test]
fn too_many_held_observations_become_one_list() {
    let memory = Memory::default();
    let mut controller = started(&memory);
    controller.step(vec![input(1, InputKind::Command(up(1)))]);
    let id = created(&memory, &mut controller);
    memory.set(Fate::Full);
    let address = "10.0.0.2".parse().unwrap();
    let seen = |at| input(at, InputKind::Observation(Observation::InstanceStarted { id, address }));
    let outcome = controller.step((0..=step::HELD_MAX as u64).map(|_| seen(2)).collect());
    controller.step(vec![Input { now: outcome.wake_at.unwrap(), ..input(0, InputKind::Tick) }]);
    assert_eq!(memory.0.lock().unwrap().relisted, 1);
}

#[derive(Debug, Clone, Default)]
struct HandClock {
    wall: Rc<Cell<u64>>,
    elapsed: Rc<Cell<u64>>,
    seed: Rc<RefCell<u64>>,
}

impl Clock for HandClock {
    fn wall(&mut self) -> Timestamp {
        Timestamp(self.wall.get())
    }

    fn elapsed(&mut self) -> Duration {
        Duration::from_micros(self.elapsed.get())
    }

    fn seed(&mut self) -> u64 {
        *self.seed.borrow_mut() += 1;
        *self.seed.borrow()
    }
}

#[test]
fn time_follows_the_wall_clock_but_never_backwards_and_never_stands_still() {
    let clock = HandClock::default();
    clock.wall.set(10_000);
    let mut time = Time::new(clock.clone(), Timestamp(9_000));
    assert_eq!((time.advance(), time.now()), (None, Timestamp(10_000)));

    clock.elapsed.set(1_000_000);
    clock.wall.set(11_500);
    assert_eq!((time.advance(), time.now()), (None, Timestamp(11_500)), "half a second is drift");

    clock.elapsed.set(2_000_000);
    clock.wall.set(62_500);
    assert_eq!(time.advance(), Some(kiln_model::Millis(50_000)), "the machine slept");

    clock.elapsed.set(3_000_000);
    clock.wall.set(5);
    assert_eq!((time.advance(), time.now()), (None, Timestamp(63_500)), "somebody set it back");
}

#[test]
fn a_handle_gets_answers_and_sees_what_was_done() {
    let memory = Memory::default();
    let (handle, inbox) = channel();
    let ports = memory.clone();
    let runner = std::thread::spawn(move || run(inbox, ports.clone(), ports, SystemClock::default()));

    let reply = handle.command(up(1), Actor::User("ada".into())).unwrap();
    assert!(matches!(reply, Reply::RolloutStarted { .. }));
    let state = handle.state();
    assert!(state.environment(&env()).is_some(), "the answer came after the state");

    let head = handle.head();
    handle.observe(acknowledgement(&memory.sent()).unwrap()).unwrap();
    let later = handle.wait_past(head, Duration::from_secs(60));
    assert!(later.position() > head);
    assert_eq!(later.instances().count(), 1);
    assert!(matches!(handle.command(up(1), Actor::User("ada".into())), Ok(Reply::AlreadyRunning { .. })));

    handle.stop().unwrap();
    assert_eq!(runner.join().unwrap().unwrap(), End::Stopped);
    assert_eq!(handle.command(up(2), Actor::Controller), Err(CommandError::NoAnswer));
    handle.wait_past(handle.head(), Duration::from_secs(60));
}
