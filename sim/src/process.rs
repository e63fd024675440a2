//! The controller's ports in the simulated world, and its sudden death between any two of their operations.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use kiln::controller::{AppendError, DueAction, Effects, Log, ReadError, snapshot};
use kiln_core::{Action, State};
use kiln_model::event::{InstanceEvent, RolloutEvent, TrafficEvent};
use kiln_model::{Actor, Entry, Event, InstanceId, Position, RolloutId, Weight};

use crate::plant::Plant;
use crate::rng::Rng;

/// Entries between two snapshots: so few that most starts have one, and that most of them have entries after it.
const SNAPSHOT_EVERY: u64 = 40;

/// Of so many snapshots one goes through its bytes: for the others the state is taken as it is, which costs nothing. To write and
/// read one takes longer than all that happens between two of them.
const THROUGH_BYTES_EVERY: u64 = 4;

/// What outlives the controller: the disk. And what dies with it: what it sent in its last step.
#[derive(Debug)]
pub struct Machine {
    /// What is durable.
    pub durable: Vec<Entry>,
    /// Whether the disk has no room.
    pub full: bool,
    /// How often, in a thousand appends, the outcome is unknown.
    pub unknown_per_mille: u64,
    /// What the controller sent since this was last emptied, with the length of the log at that moment.
    pub sent: Vec<(Action, Position)>,
    /// Whether the controller asked for everything to be listed again.
    pub relist: bool,
    /// Whether the controller died.
    pub dead: bool,
    /// How many more port operations the controller lives for.
    pub fuse: Option<u64>,
    /// How many appends failed, for the trace.
    pub failed_appends: u64,
    snapshot: Option<Snapshot>,
    /// How often a controller began from a snapshot.
    pub restored: u64,
    /// Set by an unknown outcome: nothing may be read or written before the log is opened again.
    broken: bool,
    /// What a planted fault calls durable and is not.
    lied: Vec<Entry>,
    plant: Option<Plant>,
    rng: Rng,
}

/// The last state that was saved. Most are overtaken before anybody starts from them, so what one encodes to and what is
/// read from that are made for the first who does.
#[derive(Debug)]
struct Snapshot {
    /// The entry up to which it goes: what the log's hash is in a real one.
    entry: Entry,
    state: Arc<State>,
    read: Option<State>,
}

/// The ports of one life of the controller.
#[derive(Debug, Clone)]
pub struct Ports(Rc<RefCell<Machine>>);

impl Ports {
    /// Returns the ports to this machine.
    pub fn new(machine: &Rc<RefCell<Machine>>) -> Self {
        Self(Rc::clone(machine))
    }
}

impl Machine {
    /// Returns an empty disk.
    pub fn new(rng: Rng, plant: Option<Plant>) -> Self {
        Self {
            durable: Vec::new(),
            full: false,
            unknown_per_mille: 0,
            sent: Vec::new(),
            relist: false,
            dead: false,
            fuse: None,
            failed_appends: 0,
            snapshot: None,
            restored: 0,
            broken: false,
            lied: Vec::new(),
            plant,
            rng,
        }
    }

    /// A new process of the controller: nothing of the old one's memory is left.
    pub fn boot(&mut self) {
        self.dead = false;
        self.fuse = None;
        self.broken = false;
        self.lied.clear();
        self.sent.clear();
        self.relist = false;
    }

    /// The step is over; whoever lied about the disk writes now.
    pub fn settle(&mut self) {
        if !self.dead && self.plant == Some(Plant::ActBeforeAppend) {
            self.durable.append(&mut self.lied);
        }
    }

    /// Spends one operation of the controller's life; false once it is dead.
    fn lives(&mut self) -> bool {
        if let Some(left) = &mut self.fuse {
            if *left == 0 {
                self.dead = true;
            } else {
                *left -= 1;
            }
        }
        !self.dead
    }

    fn head(&self) -> u64 {
        (self.durable.len() + self.lied.len()) as u64
    }

    fn append(&mut self, expected: Position, entries: &[Entry]) -> Result<(), AppendError> {
        if !self.lives() || self.broken {
            return Err(AppendError::Unknown("the process is dead or the log is not open".into()));
        }
        if expected.0 != self.head() {
            return Err(AppendError::Conflict);
        }
        let unknown = self.rng.chance(self.unknown_per_mille);
        if self.plant == Some(Plant::PublishSpeculative) && (self.full || unknown) {
            self.lied.extend_from_slice(entries);
            return Ok(());
        }
        if self.full {
            self.failed_appends += 1;
            return Err(AppendError::Full("no space left on device".into()));
        }
        let written = !unknown || self.rng.chance(500);
        let entries: Vec<Entry> = entries.iter().map(|entry| self.rewritten(entry, entries)).collect();
        if written && self.plant == Some(Plant::ActBeforeAppend) {
            self.lied.extend(entries);
        } else if written {
            self.durable.append(&mut self.lied);
            self.durable.extend(entries);
        }
        if unknown {
            self.failed_appends += 1;
            self.broken = true;
            return Err(AppendError::Unknown("input/output error".into()));
        }
        // The process may end here, with the batch written and nothing done about it.
        if self.lives() { Ok(()) } else { Err(AppendError::Unknown("the process is dead".into())) }
    }

    /// What is written in place of an entry by a controller with a planted fault.
    fn rewritten(&self, entry: &Entry, batch: &[Entry]) -> Entry {
        let mut entry = entry.clone();
        match (self.plant, &mut entry.event) {
            (Some(Plant::KeepUnhealthy), Event::Traffic(TrafficEvent::Shifted { weights })) => {
                weights.retain(|(id, weight)| *weight > Weight::ZERO || !falls_ill(batch, *id));
            }
            (Some(Plant::KeepUnhealthy), Event::Instance(id, InstanceEvent::Retiring { .. }))
                if falls_ill(batch, *id) =>
            {
                // A place in the log can't be left out, and nothing follows from this.
                let (rollout, is_end, counts, extra) = (RolloutId(0), true, None, None);
                entry.event = Event::Rollout(RolloutEvent::Counted { rollout, is_end, counts, extra });
            }
            (Some(Plant::LoseDeadline), Event::Rollout(RolloutEvent::StepStarted { deadline, .. })) => {
                *deadline = None;
            }
            (Some(Plant::ApproveForAnybody), Event::Rollout(RolloutEvent::Promoted { .. })) => {
                entry.actor = Actor::User("mallory".into());
            }
            _ => {}
        }
        entry
    }

    /// Saves a state, now and then.
    fn keep(&mut self, state: &Arc<State>) {
        let last = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.entry.position.0);
        let position = state.position().0;
        if self.dead || position < last + SNAPSHOT_EVERY {
            return;
        }
        let entry = self.durable.iter().chain(&self.lied).nth(position as usize - 1);
        self.snapshot = entry.cloned().map(|entry| Snapshot { entry, state: Arc::clone(state), read: None });
    }

    /// Reads the snapshot as one who knows nothing but the bytes.
    fn kept(&mut self) -> Option<State> {
        let snapshot = self.snapshot.as_mut()?;
        let is_of_this_log =
            self.durable.get(snapshot.entry.position.0 as usize - 1) == Some(&snapshot.entry);
        if self.dead || self.broken || !is_of_this_log {
            return None;
        }
        self.restored += 1;
        let forgets = self.plant == Some(Plant::SnapshotForgets);
        if !forgets && !snapshot.entry.position.0.is_multiple_of(THROUGH_BYTES_EVERY) {
            return Some(snapshot.state.as_ref().clone());
        }
        Some(snapshot.read.get_or_insert_with(|| through_bytes(&snapshot.state, forgets)).clone())
    }

    fn check_open(&self) -> Result<(), ReadError> {
        if self.dead || self.broken { Err(ReadError("the log is not open".into())) } else { Ok(()) }
    }
}

fn falls_ill(batch: &[Entry], id: InstanceId) -> bool {
    batch.iter().any(|entry| {
        matches!(&entry.event, Event::Instance(of, InstanceEvent::BecameUnhealthy { .. }) if *of == id)
    })
}

/// What comes back of a state that was written and read.
fn through_bytes(state: &State, forgets: bool) -> State {
    let mut parts = state.to_parts();
    if forgets {
        parts.table.acknowledged = Position(0);
    }
    let bytes = snapshot::encode(&State::from_parts(parts).expect("only a number may differ"));
    snapshot::decode(&bytes).expect("what was encoded can be decoded")
}

impl Log for Ports {
    fn append(&mut self, expected: Position, entries: &[Entry]) -> Result<(), AppendError> {
        self.0.borrow_mut().append(expected, entries)
    }

    fn read(&mut self, after: Position, max: usize) -> Result<Vec<Entry>, ReadError> {
        let machine = self.0.borrow();
        machine.check_open()?;
        let all = machine.durable.iter().chain(&machine.lied);
        Ok(all.skip(after.0 as usize).take(max).cloned().collect())
    }

    fn reopen(&mut self) -> Result<(), ReadError> {
        let mut machine = self.0.borrow_mut();
        let fails = machine.unknown_per_mille > 0 && machine.rng.chance(300);
        if !machine.lives() || fails {
            return Err(ReadError("the log can't be opened".into()));
        }
        machine.broken = false;
        Ok(())
    }

    fn keep(&mut self, state: &Arc<State>) {
        self.0.borrow_mut().keep(state);
    }

    fn kept(&mut self) -> Option<State> {
        self.0.borrow_mut().kept()
    }
}

impl Effects for Ports {
    fn execute(&mut self, action: DueAction) {
        let mut machine = self.0.borrow_mut();
        if machine.lives() {
            let durable = Position(machine.durable.len() as u64);
            machine.sent.push((action.into_inner(), durable));
        }
    }

    fn relist(&mut self) {
        let mut machine = self.0.borrow_mut();
        if machine.lives() {
            machine.relist = true;
        }
    }
}
