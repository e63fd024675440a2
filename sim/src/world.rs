//! The world: virtual time, the processes, the ways between them, and what is checked while it turns.

mod asking;
mod host_link;
mod large;
mod life;
mod measuring;
mod meddle;
mod stats;

pub(crate) use life::Post;
pub use meddle::Met;
pub use stats::Stats;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use kiln::controller::{Clock, CommandError, Controller, Peer, StepOutcome, Time};
use kiln_core::{Action, ActionKind, Command, Observation, State};
use kiln_model::route::Listener;
use kiln_model::{Position, Timestamp};
use kiln_provider::Transitions;

use crate::client::{Ask, Client};
use crate::edge::{self, Edge, EdgeEvent};
use crate::faults::{Fault, Faults};
use crate::floor::Floor;
use crate::host::{Host, HostEvent, SharedHost};
use crate::link::Link;
use crate::plant::Plant;
use crate::process::{Machine, Ports};
use crate::queue::Queue;
use crate::rng::Rng;
use crate::trace::{Trace, brief_action, brief_command, brief_entry, brief_table};
use crate::witness::{self, Witness};
use crate::{Violation, honest, invariants};
use life::Life;

/// The wall clock at the beginning: some day in 2026.
const EPOCH: u64 = 1_780_000_000_000;

/// Steps at one moment of virtual time. A rollout is decided in passes within a step, so more than a few steps without
/// time passing mean a controller that wakes itself for ever.
const STEPS_PER_MOMENT_MAX: u32 = 50;

/// Of so many histories one has what was added last: those who measure canaries, and who let switches go on. The
/// others stay what they were, and with them what is known of seeds that once failed.
const WIDE_EVERY: u64 = 4;

/// Whether the history of a seed has what was added last.
pub const fn is_wide(seed: u64) -> bool {
    seed % WIDE_EVERY == WIDE_EVERY - 1
}

/// What happens in the world.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A process of the controller starts.
    Start,
    /// The controller of this life steps with what is in its inbox.
    Step(u64),
    /// The alarm of this number rings in the controller of this life.
    Wake(u64, u64),
    /// Something arrives in the inbox of the controller of this life.
    Arrive(u64, Post),
    /// The controller of this life and a peer are connected.
    Connect(u64, Peer),
    /// The host is asked by the controller of this life, when its position was this, for all that it has; a new connection
    /// goes on from there.
    AskList(u64, Position, bool),
    /// What the host did not do is asked for again by the controller of this life.
    AskAgain(u64),
    /// An action comes to whom it concerns.
    Act(Action),
    /// Something happens to an instance.
    Host(HostEvent),
    /// Something happens in this life of the edge.
    Edge(u64, EdgeEvent),
    /// A user has an idea.
    Idea,
    /// A user asks for this, perhaps not for the first time.
    Ask(Box<Ask>),
    /// Somebody tries on a copy whether going back is possible.
    Drill,
    /// Something goes wrong.
    Fault(Fault),
    /// The edge's process is back.
    EdgeBack,
    /// The host's process is back.
    HostBack,
    /// The disk has room again.
    RoomAgain,
    /// Another program let go of a port.
    SocketFree(Listener),
    /// The controller that was held up goes on.
    Awake,
    /// The faults are over.
    Peace,
}

/// The clocks of the simulated machine.
#[derive(Debug, Clone)]
pub(crate) struct WorldClock {
    now: Rc<Cell<u64>>,
    ahead: Rc<Cell<i64>>,
    rng: Rc<RefCell<Rng>>,
}

impl Clock for WorldClock {
    fn wall(&mut self) -> Timestamp {
        Timestamp((EPOCH + self.now.get()).saturating_add_signed(self.ahead.get()))
    }

    fn elapsed(&mut self) -> Duration {
        Duration::from_millis(self.now.get())
    }

    fn seed(&mut self) -> u64 {
        self.rng.borrow_mut().bits()
    }
}

/// The world of one seed.
pub(crate) struct World {
    pub(crate) clock: WorldClock,
    pub(crate) queue: Queue<Happening>,
    pub(crate) faults: Faults,
    pub(crate) host: SharedHost,
    pub(crate) edge: Edge,
    pub(crate) witness: Witness,
    pub(crate) machine: Rc<RefCell<Machine>>,
    pub(crate) trace: Trace,
    pub(crate) stats: Stats,
    life: Option<Life>,
    stalled: Option<Life>,
    /// What was asked over HTTP.
    asked: BTreeSet<asking::Asked>,
    /// What was measured outside.
    measured: BTreeSet<measuring::Measured>,
    links: [Link; 2],
    /// The host's transitions, as far as the link to it is made.
    watching: Option<Box<dyn Transitions>>,
    edge_life: u64,
    client: Client,
    floor: Floor,
    /// Whether the edge was up when what is served was last checked, and how far the log was.
    checked: (bool, Position),
    peace: bool,
    moment: (u64, u32),
    /// Until when the controller is busy with its last step, in a world so large that this counts.
    free_at: u64,
    plant: Option<Plant>,
    /// The chance of what was added to the world later: apart, so that older seeds stay what they were.
    meddler: Rng,
    rng: Rng,
}

impl World {
    pub(crate) fn new(seed: u64, plant: Option<Plant>, trace: bool) -> Self {
        let is_wide = is_wide(seed);
        let mut rng = Rng::new(seed);
        let faults = Faults::choose(&mut rng);
        let mut queue = Queue::default();
        faults.schedule(&mut rng, &mut queue, Happening::Fault);
        queue.add(0, Happening::Start);
        queue.add(faults.until, Happening::Peace);
        let mut at = rng.between(1, 3_000);
        while at < faults.until {
            queue.add(at, Happening::Idea);
            at += if rng.chance(150) { rng.between(1, 200) } else { rng.between(1, 40_000) };
        }
        let mut meddler = Rng::new(!seed);
        for _ in 0..meddler.below(3) {
            queue.add(meddler.between(1, faults.until), Happening::Drill);
        }
        let mut host = Host::new(rng.fork(), plant);
        host.wild = faults.wild;
        let mut edge = Edge::new(rng.fork(), plant);
        edge.requests = faults.requests;
        let machine = Rc::new(RefCell::new(Machine::new(rng.fork(), plant)));
        machine.borrow_mut().unknown_per_mille = faults.unknown;
        let clock =
            WorldClock { now: Rc::default(), ahead: Rc::default(), rng: Rc::new(RefCell::new(rng.fork())) };
        Self {
            clock,
            queue,
            host: SharedHost::new(host),
            edge,
            witness: Witness::default(),
            machine,
            trace: Trace::new(trace),
            stats: Stats::default(),
            life: None,
            stalled: None,
            asked: BTreeSet::new(),
            measured: BTreeSet::new(),
            links: Default::default(),
            watching: None,
            edge_life: 0,
            client: Client::new(rng.fork(), faults.bad, is_wide),
            floor: Floor::default(),
            checked: (true, Position(0)),
            free_at: 0,
            peace: false,
            moment: (0, 0),
            plant,
            faults,
            meddler,
            rng,
        }
    }

    /// Turns until a moment, or until `done` holds after something happened.
    pub(crate) fn turn(&mut self, until: u64, done: impl Fn(&Self) -> bool) -> Result<(), Violation> {
        while let Some((at, happening)) = self.queue.take() {
            if at > until {
                self.queue.add(at, happening);
                self.clock.now.set(until);
                return Ok(());
            }
            self.clock.now.set(at);
            self.happen(happening).map_err(|violation| violation.at(at))?;
            self.check().map_err(|violation| violation.at(at))?;
            if done(self) {
                return Ok(());
            }
        }
        Ok(())
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.now.get()
    }

    /// The last committed state of the controller that runs.
    pub(crate) fn live(&self) -> Option<&Arc<State>> {
        self.life.as_ref().map(|life| life.controller.state())
    }

    /// Whether nothing is going on that will end by itself, and the controller knows all of it.
    pub(crate) fn is_at_rest(&self) -> bool {
        let state = self.witness.state();
        // A slot that rests after failures is tried again, whatever serves in the place of what it wants.
        let is_known = |life: &Life| {
            life.controller.state().position() == state.position()
                && !invariants::rests(state, life.time.now())
        };
        self.life.as_ref().is_some_and(is_known) && invariants::is_at_rest(state)
    }

    /// Asks for something at this moment.
    pub(crate) fn ask(&mut self, command: Command) {
        self.queue.add(self.now(), Happening::Ask(Box::new(Ask { by: "ada", command })));
    }

    /// Lets nobody repeat a command that was not answered.
    pub(crate) fn forget_asks(&mut self) {
        self.queue.retain(|happening| !matches!(happening, Happening::Ask(_)));
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Violation> {
        match happening {
            Happening::Start => self.start()?,
            Happening::Step(life) if self.is_life(life) => self.step()?,
            Happening::Wake(life, alarm) if self.is_life(life) => {
                if self.life.as_ref().is_some_and(|life| life.alarm == alarm) {
                    self.step()?;
                }
            }
            Happening::Arrive(life, post) if self.is_life(life) => self.post(post),
            Happening::Connect(life, peer) if self.is_life(life) => self.connect(peer),
            Happening::AskList(life, as_of, is_new) if self.is_life(life) => self.ask_list(as_of, is_new),
            Happening::AskAgain(life) if self.is_life(life) => self.post(Post::Reconnected(Peer::Host)),
            Happening::Step(_)
            | Happening::Wake(..)
            | Happening::Arrive(..)
            | Happening::Connect(..)
            | Happening::AskList(..)
            | Happening::AskAgain(_) => {}
            Happening::Act(action) => self.act(&action)?,
            Happening::Host(event) => self.host_happens(&event),
            Happening::Edge(life, event) if life == self.edge_life => {
                self.trace.line(self.now(), || match &event {
                    EdgeEvent::Serve(table) => format!("edge: serve {}", brief_table(table)),
                    EdgeEvent::Idle(id, _) => format!("edge: idle {id}"),
                    EdgeEvent::Count(pool, _) => format!("edge: count {pool}"),
                });
                let host = self.host.lock();
                let said = self.edge.happen(event, |id| host.is_ill(id));
                drop(host);
                self.say(Peer::Edge, said);
            }
            Happening::Edge(..) => {}
            Happening::Idea => {
                let ask = self.client.next(self.witness.state());
                self.queue.add(self.now(), Happening::Ask(Box::new(ask)));
            }
            Happening::Ask(command) => self.deliver_command(command),
            Happening::Drill => self.drill()?,
            Happening::Fault(fault) => self.strike(fault),
            Happening::EdgeBack => self.edge_back(),
            Happening::HostBack => self.host_back(),
            Happening::RoomAgain => self.machine.borrow_mut().full = false,
            Happening::SocketFree(listener) => {
                self.edge.taken.remove(&listener);
            }
            Happening::Awake => self.awake()?,
            Happening::Peace => self.make_peace(),
        }
        Ok(())
    }

    fn is_life(&self, number: u64) -> bool {
        self.life.as_ref().is_some_and(|life| life.number == number)
    }

    fn delay(&mut self) -> u64 {
        let most = if self.peace { 5 } else { self.faults.delay };
        self.rng.between(0, most)
    }

    fn goes_wrong(&mut self, per_mille: u64) -> bool {
        !self.peace && self.rng.chance(per_mille)
    }

    // ---- the controller's process

    fn start(&mut self) -> Result<(), Violation> {
        if self.life.is_some() {
            return Ok(());
        }
        self.machine.borrow_mut().boot();
        let ports = Ports::new(&self.machine);
        let Ok(controller) = Controller::open(ports.clone(), ports) else {
            // Its supervisor tries again.
            self.queue.add(self.now() + 500, Happening::Start);
            return Ok(());
        };
        self.stats.lives += 1;
        self.trace.line(self.now(), || format!("controller: life {}", self.stats.lives));
        witness::check_replay(&self.machine.borrow().durable, controller.state(), "a start")?;
        let time = Time::new(self.clock.clone(), controller.state().now());
        let began_at = controller.state().position();
        self.links = Default::default();
        self.watching = None;
        self.life = Some(Life {
            number: self.stats.lives,
            controller,
            time,
            inbox: Vec::new(),
            stepping: false,
            wake_at: None,
            alarm: 0,
            greeted: false,
            began_at,
        });
        self.step()
    }

    fn post(&mut self, post: Post) {
        let Some(life) = &mut self.life else { return };
        life.inbox.push(post);
        if !life.stepping {
            life.stepping = true;
            // What comes within the time of an append is decided in one batch.
            let wait = self.rng.below(4);
            let number = life.number;
            self.queue.add((self.now() + wait).max(self.free_at), Happening::Step(number));
        }
    }

    fn step(&mut self) -> Result<(), Violation> {
        self.watch_for_spinning()?;
        if self.goes_wrong(self.faults.fuse) {
            self.machine.borrow_mut().fuse = Some(self.rng.below(6));
        }
        let Some(mut life) = self.life.take() else { return Ok(()) };
        life.stepping = false;
        let (inputs, asked) = life.take_inbox();
        self.free_at = self.busy_until(inputs.len());
        let outcome = life.controller.step(inputs);
        self.stats.steps += 1;
        let (sent, relist, dead) = {
            let mut machine = self.machine.borrow_mut();
            machine.fuse = None;
            (std::mem::take(&mut machine.sent), std::mem::take(&mut machine.relist), machine.dead)
        };
        self.read_log()?;
        self.check_sent(&sent)?;
        for (action, _) in sent {
            let is_old = action.fence.position <= life.began_at;
            if !(is_old && self.plant == Some(Plant::DropOutstanding)) {
                self.send(action);
            }
        }
        self.machine.borrow_mut().settle();
        self.read_log()?;
        if dead || outcome.deposed {
            self.trace.line(self.now(), || "controller: dies in a step".into());
            self.bury(life, asked);
            let wait = self.rng.between(10, 1_500);
            self.queue.add(self.now() + wait, Happening::Start);
            return Ok(());
        }
        witness::check_published(life.controller.state(), &self.machine.borrow().durable)?;
        if relist {
            let asked_at = life.controller.state().position();
            let wait = self.delay();
            self.queue.add(self.now() + wait, Happening::AskList(life.number, asked_at, false));
        }
        self.set_alarm(&mut life, outcome.wake_at);
        if life.controller.term().is_some() && !life.greeted {
            life.greeted = true;
            for peer in [Peer::Host, Peer::Edge] {
                let wait = self.delay();
                self.queue.add(self.now() + wait, Happening::Connect(life.number, peer));
            }
        }
        self.life = Some(life);
        self.ask_others();
        self.measure_others();
        self.answer(outcome, asked)
    }

    fn watch_for_spinning(&mut self) -> Result<(), Violation> {
        let now = self.now();
        self.moment = if self.moment.0 == now { (now, self.moment.1 + 1) } else { (now, 1) };
        if self.moment.1 > STEPS_PER_MOMENT_MAX {
            return Err(Violation::new("the controller comes to rest", "it steps without time passing"));
        }
        Ok(())
    }

    fn set_alarm(&mut self, life: &mut Life, wake_at: Option<Timestamp>) {
        life.alarm += 1;
        life.wake_at = wake_at;
        // As `run` does: no later than its idle wait, no sooner than its shortest.
        let wait = wake_at.map_or(60_000, |at| at.since(life.time.now()).0.clamp(1, 60_000));
        self.queue.add(self.now() + wait, Happening::Wake(life.number, life.alarm));
    }

    fn read_log(&mut self) -> Result<(), Violation> {
        let machine = Rc::clone(&self.machine);
        let machine = machine.borrow();
        let known = self.witness.state().position().0 as usize;
        let news = machine.durable.get(known..).unwrap_or_default();
        for entry in news {
            self.trace.line(self.clock.now.get(), || format!("log: {}", brief_entry(entry)));
        }
        self.witness.read(&machine.durable, &mut self.floor)?;
        if !news.is_empty() {
            self.check_decided(news)?;
            self.watch_steps(news);
            self.count(news);
        }
        self.stats.entries = machine.durable.len() as u64;
        self.stats.failed_appends = machine.failed_appends;
        self.stats.restored = machine.restored;
        Ok(())
    }

    fn check_sent(&mut self, sent: &[(Action, Position)]) -> Result<(), Violation> {
        let machine = self.machine.borrow();
        witness::check_intents(sent, &machine.durable)?;
        for (action, _) in sent {
            if let ActionKind::PublishTable(table) = &action.kind {
                invariants::check_table(table, self.witness.state())?;
            }
        }
        Ok(())
    }

    /// The process is gone: who waited for an answer asks again.
    fn bury(&mut self, life: Life, asked: Vec<Option<Box<Ask>>>) {
        let waiting = life.inbox.into_iter().filter_map(|post| match post {
            Post::Command(command) => Some(command),
            Post::Observation(_) | Post::Reconnected(_) => None,
        });
        for command in waiting.chain(asked.into_iter().flatten()) {
            let wait = self.rng.between(100, 3_000);
            self.queue.add(self.now() + wait, Happening::Ask(command));
        }
    }

    fn answer(&mut self, outcome: StepOutcome, asked: Vec<Option<Box<Ask>>>) -> Result<(), Violation> {
        for (reply, command) in outcome.replies.into_iter().zip(asked) {
            let (Some(reply), Some(command)) = (reply, command) else { continue };
            self.trace.line(self.now(), || format!("answer: {reply:?}"));
            match reply {
                Ok(_) => {
                    self.stats.acknowledged += 1;
                    self.witness.check_acknowledged(&command.command)?;
                }
                Err(CommandError::Refused(_)) => self.stats.refused += 1,
                Err(CommandError::Bug { reason }) => {
                    return Err(Violation::new("what is decided applies", reason));
                }
                Err(CommandError::NotRecorded { .. } | CommandError::NoAnswer) => {
                    let wait = self.rng.between(100, 3_000);
                    self.queue.add(self.now() + wait, Happening::Ask(command));
                }
            }
        }
        Ok(())
    }

    fn deliver_command(&mut self, command: Box<Ask>) {
        if self.life.is_some() {
            self.trace.line(self.now(), || format!("command: {}", brief_command(&command.command)));
            self.post(Post::Command(command));
        } else {
            let wait = self.rng.between(100, 3_000);
            self.queue.add(self.now() + wait, Happening::Ask(command));
        }
    }

    /// The old controller wakes up and acts on what it last knew: as late as an action can be.
    fn awake(&mut self) -> Result<(), Violation> {
        let Some(mut old) = self.stalled.take() else { return Ok(()) };
        self.trace.line(self.now(), || format!("controller: life {} wakes up again", old.number));
        old.controller.reconnected(Peer::Host);
        old.controller.reconnected(Peer::Edge);
        let (inputs, asked) = old.take_inbox();
        let outcome = old.controller.step(inputs);
        let mut machine = self.machine.borrow_mut();
        let sent = std::mem::take(&mut machine.sent);
        machine.relist = false;
        drop(machine);
        witness::check_intents(&sent, &self.machine.borrow().durable)?;
        for (action, _) in sent {
            self.queue.add(self.now() + 1, Happening::Act(action));
        }
        // What needs no entry it may still answer, from what it last knew: that it was recorded stays true.
        for (reply, command) in outcome.replies.into_iter().zip(asked) {
            if let (Some(Ok(_)), Some(command)) = (reply, command) {
                self.witness.check_acknowledged(&command.command)?;
            }
        }
        Ok(())
    }

    // ---- the ways between the processes

    fn link(&mut self, peer: Peer) -> &mut Link {
        &mut self.links[usize::from(peer == Peer::Edge)]
    }

    fn send(&mut self, action: Action) {
        let peer = peer_of(&action.kind);
        if !self.link(peer).up {
            return;
        }
        self.trace.line(self.now(), || format!("send: {} {}", action.fence, brief_action(&action.kind)));
        if self.goes_wrong(self.faults.loss) {
            self.trace.line(self.now(), || "  lost".into());
            self.reconnect_soon(peer);
            return;
        }
        if self.goes_wrong(self.faults.repeat) {
            let later = self.rng.between(1, 60_000);
            self.queue.add(self.now() + later, Happening::Act(action.clone()));
        }
        let delay = self.delay();
        self.queue.add(self.now() + delay, Happening::Act(action));
    }

    fn say(&mut self, peer: Peer, observations: Vec<Observation>) {
        let up = match peer {
            Peer::Host => self.host.lock().is_up(),
            Peer::Edge => self.edge.up,
        };
        let Some(life) = self.life.as_ref().map(|life| life.number) else { return };
        if !up || !self.link(peer).up {
            return;
        }
        for observation in observations {
            if self.goes_wrong(self.faults.loss) {
                self.trace.line(self.now(), || format!("lost: {observation:?}"));
                self.reconnect_soon(peer);
                continue;
            }
            let (now, delay) = (self.now(), self.delay());
            if Link::is_harmless_late(&observation) && self.goes_wrong(self.faults.repeat) {
                let later = self.rng.between(1, 60_000);
                let again = Post::Observation(observation.clone());
                self.queue.add(now + later, Happening::Arrive(life, again));
            }
            let at = self.link(peer).arrival(now, delay, &observation);
            self.queue.add(at, Happening::Arrive(life, Post::Observation(observation)));
        }
    }

    /// A message was lost, so the connection is broken, which is noticed before long.
    fn reconnect_soon(&mut self, peer: Peer) {
        if let Some(life) = &self.life {
            let number = life.number;
            let wait = self.rng.between(1, 5_000);
            self.queue.add(self.now() + wait, Happening::Connect(number, peer));
        }
    }

    fn connect(&mut self, peer: Peer) {
        let Some(life) = &self.life else { return };
        if life.controller.term().is_none() {
            return;
        }
        let position = life.controller.state().position();
        let number = life.number;
        match peer {
            Peer::Host if self.host.lock().is_up() => {
                let delay = self.delay();
                self.queue.add(self.now() + delay, Happening::AskList(number, position, true));
            }
            Peer::Edge if self.edge.up => {
                let said = self.edge.hello();
                self.link(peer).up = true;
                self.post(Post::Reconnected(peer));
                self.say(peer, said);
            }
            // It connects when the peer is back.
            Peer::Host | Peer::Edge => self.link(peer).up = false,
        }
    }

    fn act(&mut self, action: &Action) -> Result<(), Violation> {
        let now = self.now();
        self.trace.line(now, || format!("act: {} {}", action.fence, brief_action(&action.kind)));
        match &action.kind {
            ActionKind::CreateInstance { .. } | ActionKind::DestroyInstance { .. } => {
                self.ask_host(action)?
            }
            ActionKind::PublishTable(table) if self.edge.up => {
                let outcome = self.edge.publish(table);
                self.edge_outcome(outcome);
            }
            ActionKind::AwaitIdle(id) if self.edge.up => {
                let outcome = self.edge.await_idle(*id, action.fence);
                self.edge_outcome(outcome);
            }
            ActionKind::OpenListener(listener) if self.edge.up => {
                let outcome = self.edge.open(*listener, action.fence);
                self.edge_outcome(outcome);
            }
            ActionKind::CloseListener(listener) if self.edge.up => {
                let outcome = self.edge.close(*listener, action.fence);
                self.edge_outcome(outcome);
            }
            // Nobody is there to hear it.
            _ => {}
        }
        Ok(())
    }

    fn edge_outcome(&mut self, outcome: edge::Outcome) {
        for (after, event) in outcome.later {
            self.queue.add(self.now() + after, Happening::Edge(self.edge_life, event));
        }
        self.say(Peer::Edge, outcome.said);
    }

    // ---- what goes wrong

    fn strike(&mut self, fault: Fault) {
        let now = self.now();
        self.trace.line(now, || format!("fault: {fault:?}"));
        match fault {
            Fault::KillController(away) => {
                if let Some(life) = self.life.take() {
                    self.bury(life, Vec::new());
                    self.queue.add(now + away, Happening::Start);
                }
            }
            Fault::StallController(away) => {
                if let Some(life) = self.life.take()
                    && life.controller.term().is_some()
                {
                    // It is not one that never woke up before: only one is held up at a time.
                    self.stalled = Some(life);
                    self.queue.add(now + self.rng.between(1, away), Happening::Start);
                    self.queue.add(now + away + self.rng.between(1, 10_000), Happening::Awake);
                } else {
                    self.queue.add(now + 1, Happening::Start);
                }
            }
            Fault::KillEdge(away) => {
                if self.edge.up {
                    self.edge.up = false;
                    self.edge_life += 1;
                    self.link(Peer::Edge).up = false;
                    self.queue.add(now + away, Happening::EdgeBack);
                }
            }
            Fault::KillHost(away) => self.kill_host(away),
            Fault::BreakLink(peer) => {
                self.link(peer).up = false;
                if peer == Peer::Host {
                    self.watching = None;
                }
                self.reconnect_soon(peer);
            }
            Fault::ClockJump(by) => self.clock.ahead.set(self.clock.ahead.get() + by),
            Fault::FullDisk(span) => {
                self.machine.borrow_mut().full = true;
                self.queue.add(now + span, Happening::RoomAgain);
            }
            Fault::TakeSocket(port, span) => {
                let listener = Listener::Public(([0, 0, 0, 0], port).into());
                if !self.edge.listeners().contains(&listener) {
                    self.edge.taken.insert(listener);
                    self.queue.add(now + span, Happening::SocketFree(listener));
                }
            }
        }
    }

    fn edge_back(&mut self) {
        if !self.edge.up {
            self.edge.up = true;
            self.reconnect_soon(Peer::Edge);
        }
    }

    fn make_peace(&mut self) {
        self.trace.line(self.now(), || "peace".into());
        self.peace = true;
        let mut machine = self.machine.borrow_mut();
        (machine.full, machine.unknown_per_mille) = (false, 0);
        drop(machine);
        {
            let mut host = self.host.lock();
            (host.wild, host.cured) = (false, self.faults.cured);
        }
        self.edge.wild = false;
        self.edge.taken.clear();
        self.edge_back();
        self.host_back();
        self.reconnect_soon(Peer::Edge);
        self.reconnect_soon(Peer::Host);
        self.queue.add(self.now() + 1, Happening::Start);
    }

    // ---- what is always so

    /// Checks what is served, if anything that matters to it changed.
    fn check(&mut self) -> Result<(), Violation> {
        let mut host = self.host.lock();
        let (changed, moved) = (self.edge.take_changed(), host.take_moved());
        let state = self.witness.state();
        let read = std::mem::replace(&mut self.checked.1, state.position());
        // While its process is down it routes nothing; what it will serve again is checked the moment it is up.
        let is_back = self.edge.up && !std::mem::replace(&mut self.checked.0, self.edge.up);
        let is_news = is_back || !changed.is_empty() || !moved.is_empty() || read != state.position();
        if is_news && self.edge.is_large && !is_back {
            self.check_changes(&host, &changed, &moved, read)?;
        } else if is_news {
            invariants::check_routing(&self.edge, &host)?;
            honest::check_served(&self.edge, state)?;
        }
        if !self.faults.wild {
            let changed = self.edge.is_large.then_some(&changed);
            self.floor.served((&self.edge, changed), &host, state)?;
        }
        Ok(())
    }
}

const fn peer_of(kind: &ActionKind) -> Peer {
    match kind {
        ActionKind::CreateInstance { .. } | ActionKind::DestroyInstance { .. } => Peer::Host,
        ActionKind::OpenListener(_)
        | ActionKind::CloseListener(_)
        | ActionKind::PublishTable(_)
        | ActionKind::AwaitIdle(_) => Peer::Edge,
    }
}
