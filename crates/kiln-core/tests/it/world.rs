//! A world that answers every action: a provider, an edge and sockets, in memory and in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use kiln_core::input::InstanceSeen;
use kiln_core::state::{Environment, Instance, Parts, Phase, Rollout, ServiceState};
use kiln_core::{
    ActionKind, Command, Decision, Input, InputKind, Observation, Observed, State, apply, decide, number,
    observe, outstanding,
};
use kiln_model::event::{EnvironmentEvent, InstanceEvent, Purpose};
use kiln_model::instance::ExitStatus;
use kiln_model::rollout::BASELINE_FIRST;
use kiln_model::route::{Listener, RouteTable};
use kiln_model::service::Strategy;
use kiln_model::{
    Actor, Entry, Event, Fence, InstanceId, InstanceSpec, Millis, Position, ServiceName, Timestamp,
};

/// One instance at the provider.
pub(crate) struct Body {
    pub(crate) spec: Arc<InstanceSpec>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) healthy: Option<bool>,
    pub(crate) exited: Option<ExitStatus>,
}

/// Everything outside the core, and the core's log.
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) observed: Observed,
    pub(crate) log: Vec<Entry>,
    pub(crate) now: Timestamp,
    pub(crate) bodies: BTreeMap<InstanceId, Body>,
    pub(crate) tombstones: BTreeSet<InstanceId>,
    pub(crate) table: RouteTable,
    pub(crate) sockets: BTreeSet<Listener>,
    pub(crate) taken: BTreeSet<Listener>,
    /// Instances to which a request is in flight for ever.
    pub(crate) busy: BTreeSet<InstanceId>,
    pub(crate) edge_is_away: bool,
    pub(crate) provider_is_away: bool,
    taken_down: Option<Parts>,
    wake_at: Option<Timestamp>,
    issued: BTreeSet<(Fence, u8, String)>,
    later: Vec<(Timestamp, Observation)>,
    /// Everything that was ever told about instances and tables: any of it may be told again.
    told: Vec<Observation>,
    seed: u64,
    addresses: u32,
}

const START: Timestamp = Timestamp(1_000_000);

/// A decision that never comes to rest is a bug; a big rollout takes some thousands of turns.
const TURNS_MAX: usize = 200_000;

/// Inputs between two moments at which the state is taken down: few, so that every scenario has some.
const TAKE_DOWN_EVERY: u64 = 5;

impl World {
    pub(crate) fn new() -> Self {
        let mut world = Self {
            state: State::new(),
            observed: Observed::default(),
            log: Vec::new(),
            now: START,
            bodies: BTreeMap::new(),
            tombstones: BTreeSet::new(),
            table: RouteTable::default(),
            sockets: BTreeSet::new(),
            taken: BTreeSet::new(),
            busy: BTreeSet::new(),
            edge_is_away: false,
            provider_is_away: false,
            taken_down: None,
            wake_at: None,
            issued: BTreeSet::new(),
            later: Vec::new(),
            told: Vec::new(),
            seed: 1,
            addresses: 0,
        };
        world.see(Observation::ControllerStarted);
        world
    }

    pub(crate) fn command(&mut self, command: Command) -> Decision {
        self.feed(InputKind::Command(command), Actor::User("ann".into()))
    }

    pub(crate) fn see(&mut self, observation: Observation) -> Decision {
        self.feed(InputKind::Observation(observation), Actor::Controller)
    }

    fn feed(&mut self, kind: InputKind, actor: Actor) -> Decision {
        self.seed += 1;
        let before = self.state.clone();
        let input = Input { now: self.now, seed: self.seed, actor, kind };
        observe(&mut self.observed, &input);
        let decision = decide(&self.state, &self.observed, &input);
        let again = decide(&self.state, &self.observed, &input);
        assert_eq!(decision, again, "a decision depends on its arguments alone");
        for entry in number(&self.state, &decision.events, &input) {
            apply(&mut self.state, &entry).expect("a decision is legal");
            self.starts_after_stop(&entry);
            self.log.push(entry);
        }
        assert!(decision.wake_at.is_none_or(|moment| moment > self.now), "time that passed wakes nobody");
        self.wake_at = decision.wake_at;
        self.check();
        if self.seed.is_multiple_of(TAKE_DOWN_EVERY) {
            self.take_down();
        }
        check_availability(&before, &self.state, &decision);
        if let InputKind::Observation(
            told @ (Observation::InstanceStarted { .. }
            | Observation::InstanceExited { .. }
            | Observation::InstanceDestroyed { .. }
            | Observation::InstanceRefused { .. }
            | Observation::BackendIdle { .. }
            | Observation::TableAcknowledged { .. }
            | Observation::Listed { .. }),
        ) = input.kind
        {
            self.told.push(told);
        }
        decision
    }

    /// Tells something old again.
    pub(crate) fn repeat(&mut self, at: usize) {
        if !self.told.is_empty() {
            let observation = self.told[at % self.told.len()].clone();
            self.see(observation);
        }
    }

    /// The wall clock goes ahead of the time that passed.
    pub(crate) fn jump(&mut self, by: Millis) {
        self.now = self.now.plus(by);
        for (due, _) in &mut self.later {
            *due = due.plus(by);
        }
        self.see(Observation::ClockJumped { by });
    }

    /// Whether some environment is at, or moves to or from, something that can't work.
    pub(crate) fn has_bad_services(&self) -> bool {
        let specs = self.state.environments().filter_map(|env| env.spec(env.current));
        let mut services = specs.flat_map(|spec| spec.services.values());
        services.any(|service| {
            let manner = &service.spec.argv[0];
            ["sick", "crash", "refuse"].iter().any(|word| manner.starts_with(word))
        })
    }

    /// Answers actions until there is nothing to answer at this moment.
    pub(crate) fn run(&mut self) {
        for _ in 0..TURNS_MAX {
            if !self.turn() {
                return;
            }
        }
        panic!("the world does not come to rest");
    }

    /// Answers one action or lets one thing happen that is due; false if there is none.
    pub(crate) fn turn(&mut self) -> bool {
        if let Some(at) = self.later.iter().position(|(due, _)| *due <= self.now) {
            let (_, observation) = self.later.remove(at);
            self.happen(observation);
            return true;
        }
        for action in outstanding(&self.state) {
            assert_eq!(action.fence.term, self.state.term());
            let (kind, subject) = key(&action.kind);
            if self.is_away(&action.kind) || !self.issued.insert((action.fence, kind, subject)) {
                continue;
            }
            if let Some(observation) = self.execute(action.fence, action.kind) {
                self.happen(observation);
            }
            return true;
        }
        false
    }

    /// Lets time pass, stopping wherever something is due.
    pub(crate) fn wait(&mut self, span: Millis) {
        let end = self.now.plus(span);
        for _ in 0..TURNS_MAX {
            self.run();
            let due = self.later.iter().map(|(due, _)| *due).min();
            let next = [self.wake_at, due].into_iter().flatten().filter(|moment| *moment <= end).min();
            let Some(next) = next else { break };
            self.now = next.max(self.now);
            self.feed(InputKind::Tick, Actor::Controller);
        }
        self.now = end;
        self.feed(InputKind::Tick, Actor::Controller);
        self.run();
    }

    /// The controller dies and another starts: it folds the log, from where the state was taken down if it was, lists, and
    /// issues everything again.
    pub(crate) fn restart(&mut self) {
        let folded = replay(&self.log);
        let restored = self.taken_down.take().map_or_else(State::new, rebuilt);
        self.state = fold(restored, &self.log);
        assert_eq!(
            self.state, folded,
            "a state that was put together goes on as the one that was taken apart"
        );
        self.observed = Observed::default();
        self.issued.clear();
        self.see(Observation::ControllerStarted);
        self.list();
    }

    /// Takes the state apart, as who stores it does, for the next start.
    fn take_down(&mut self) {
        assert_eq!(rebuilt(self.state.to_parts()), self.state);
        self.taken_down = Some(self.state.to_parts());
    }

    pub(crate) fn list(&mut self) {
        let as_of = self.state.position();
        let instances = self.bodies.iter().map(|(id, body)| InstanceSeen {
            id: *id,
            address: body.address,
            healthy: body.healthy,
            exited: body.exited,
        });
        let instances = instances.collect();
        self.see(Observation::Listed { as_of, instances });
    }

    /// Sets what an instance's probes say, and tells.
    pub(crate) fn set_health(&mut self, id: InstanceId, healthy: bool) {
        if let Some(body) = self.bodies.get_mut(&id) {
            body.healthy = Some(healthy);
            let detail = if healthy { "200" } else { "connection refused" }.to_owned();
            self.see(Observation::InstanceHealth { id, healthy, detail });
        }
    }

    /// Ends an instance's main process, and tells.
    pub(crate) fn exit(&mut self, id: InstanceId, status: ExitStatus) {
        if let Some(body) = self.bodies.get_mut(&id) {
            body.exited = Some(status);
            self.see(Observation::InstanceExited { id, status });
        }
    }

    /// Ends everything at the provider, as when the machine loses its power, without telling.
    pub(crate) fn power_loss(&mut self) {
        self.bodies.clear();
        self.sockets.clear();
        self.later.clear();
    }

    fn is_away(&self, kind: &ActionKind) -> bool {
        match kind {
            ActionKind::CreateInstance { .. } | ActionKind::DestroyInstance { .. } => self.provider_is_away,
            ActionKind::PublishTable(_) | ActionKind::AwaitIdle(_) => self.edge_is_away,
            ActionKind::OpenListener(_) | ActionKind::CloseListener(_) => false,
        }
    }

    fn execute(&mut self, fence: Fence, kind: ActionKind) -> Option<Observation> {
        match kind {
            ActionKind::OpenListener(listener) if self.taken.contains(&listener) => {
                Some(Observation::ListenerFailed { listener, fence, reason: "address in use".into() })
            }
            ActionKind::OpenListener(listener) => {
                self.sockets.insert(listener);
                Some(Observation::ListenerOpened { listener, fence })
            }
            ActionKind::CloseListener(listener) => {
                self.sockets.remove(&listener);
                assert!(
                    self.table.rules.iter().all(|rule| rule.listener != listener),
                    "a socket is closed once the edge let go of it"
                );
                Some(Observation::ListenerClosed { listener, fence })
            }
            ActionKind::CreateInstance { id, spec, .. } => self.create(id, spec),
            ActionKind::DestroyInstance { id, .. } => {
                let is_served =
                    self.table.pools.values().flat_map(|pool| &pool.backends).any(|b| b.instance == id);
                assert!(!is_served, "{id} is destroyed while the edge sends requests to it");
                self.bodies.remove(&id);
                self.busy.remove(&id);
                self.tombstones.insert(id);
                Some(Observation::InstanceDestroyed { id })
            }
            ActionKind::PublishTable(table) => {
                assert!(table.fence >= self.table.fence, "tables only go forward");
                self.table = RouteTable::clone(&table);
                Some(Observation::TableAcknowledged { fence })
            }
            ActionKind::AwaitIdle(id) => {
                let is_busy = self.busy.contains(&id);
                (!is_busy).then_some(Observation::BackendIdle { id, fence })
            }
        }
    }

    /// The first word of an instance's command says how it behaves.
    fn create(&mut self, id: InstanceId, spec: Arc<InstanceSpec>) -> Option<Observation> {
        assert!(!self.tombstones.contains(&id), "{id} is used a second time");
        if self.bodies.contains_key(&id) {
            return None;
        }
        let manner = spec.argv[0].clone();
        if manner.starts_with("refuse") {
            return Some(Observation::InstanceRefused { id, reason: "no such command".into() });
        }
        self.addresses += 1;
        let address = IpAddr::from((0x0a00_0000 + self.addresses).to_be_bytes());
        let body = Body { spec: spec.clone(), address: Some(address), healthy: None, exited: None };
        self.bodies.insert(id, body);
        let delay = Millis(if manner.starts_with("slow") { 5000 } else { 10 });
        if manner.starts_with("crash") {
            let status = ExitStatus::Code(1);
            self.later.push((self.now.plus(delay), Observation::InstanceExited { id, status }));
        } else if manner.starts_with("once") {
            let status = ExitStatus::Code(0);
            self.later.push((self.now.plus(delay), Observation::InstanceExited { id, status }));
        } else if spec.health.is_some() && !manner.starts_with("sick") {
            let health = Observation::InstanceHealth { id, healthy: true, detail: "200".into() };
            self.later.push((self.now.plus(delay), health));
        }
        Some(Observation::InstanceStarted { id, address })
    }

    /// Something becomes true, and is told.
    fn happen(&mut self, observation: Observation) {
        match &observation {
            Observation::InstanceExited { id, status } => {
                let Some(body) = self.bodies.get_mut(id).filter(|body| body.exited.is_none()) else { return };
                body.exited = Some(*status);
            }
            Observation::InstanceHealth { id, healthy, .. } => {
                let Some(body) = self.bodies.get_mut(id).filter(|body| body.exited.is_none()) else { return };
                body.healthy = Some(*healthy);
            }
            _ => {}
        }
        self.see(observation);
    }

    /// The provider has something that nobody asked for, and says so.
    pub(crate) fn stray(&mut self) {
        let id = InstanceId::from_seed(0x5757 + self.seed);
        let spec = Arc::new(super::shapes::instance_spec("stray"));
        self.bodies.insert(id, Body { spec, address: None, healthy: None, exited: None });
        self.list();
    }

    /// What must hold at any moment.
    fn check(&self) {
        for instance in self.state.instances() {
            if instance.is_routed() {
                assert_eq!(instance.phase, Phase::Running, "{} is routed", instance.id);
                assert!(instance.address.is_some());
            }
        }
        for (id, _) in self.bodies.iter().filter(|(id, _)| self.state.instance(**id).is_none()) {
            let is_ordered = outstanding(&self.state).iter().any(
                |action| matches!(action.kind, ActionKind::DestroyInstance { id: other, .. } if other == *id),
            );
            assert!(is_ordered || self.log.is_empty(), "{id} is an orphan");
        }
        self.every_slot_has_work();
    }

    /// While a rollout runs, however long it is held: every slot that what serves is to have is one that the rollout knows.
    fn every_slot_has_work(&self) {
        for env in self.state.environments() {
            let is_forward = |rollout: &Arc<Rollout>| rollout.to.is_some() && !rollout.is_going_back();
            let moves = env.rollout.as_ref().is_some_and(is_forward);
            let spec = env.spec(env.current).filter(|_| moves);
            for name in spec.into_iter().flat_map(|spec| spec.services.keys()) {
                for ordinal in 0..env.replicas(env.current, name) {
                    let duty = env.slot(name, ordinal).and_then(|slot| slot.duty);
                    assert!(duty.is_some(), "{}: nothing works for {name}/{ordinal}", env.key);
                }
            }
        }
    }

    /// What stops before it starts is created in an empty slot.
    fn starts_after_stop(&self, entry: &Entry) {
        let Event::Instance(_, InstanceEvent::Requested { purpose, .. }) = &entry.event else { return };
        let Purpose::Slot { slot, revision } = purpose else { return };
        let env = self.state.environment(&slot.env).unwrap();
        if env.service(Some(*revision), &slot.service).unwrap().strategy == Strategy::StopThenStart {
            let place = env.slot(&slot.service, slot.ordinal).unwrap();
            assert_eq!(place.instances.len(), 1, "{slot} runs twice");
        }
    }

    /// Whether nothing is outstanding and nothing is wrong.
    pub(crate) fn is_at_rest(&self) -> bool {
        outstanding(&self.state).is_empty()
            && self.state.environments().all(|env| env.rollout.is_none())
            && self.state.table().version == self.state.table().acknowledged
            && Position(self.table.fence.position.0) == self.state.table().version
    }
}

/// Nothing that a rollout does leaves fewer healthy instances behind a route than its strategy allows.
fn check_availability(before: &State, after: &State, decision: &Decision) {
    let is_rollouts = |draft: &kiln_core::Draft| match &draft.event {
        Event::Instance(_, event) => !matches!(
            event,
            InstanceEvent::Exited { .. }
                | InstanceEvent::BecameUnhealthy { .. }
                | InstanceEvent::Refused { .. }
        ),
        Event::Environment(event) => !matches!(event, EnvironmentEvent::ReplicasSet { .. }),
        _ => true,
    };
    if !decision.events.iter().all(is_rollouts) {
        return;
    }
    for env in after.environments() {
        let Some(rollout) = &env.rollout else { continue };
        let Some(then) = before.environment(&env.key) else { continue };
        for (name, service) in env.spec(rollout.target()).into_iter().flat_map(|spec| &spec.services) {
            let replicas = env.replicas(rollout.target(), name);
            let required = match service.strategy {
                Strategy::BlueGreen | Strategy::Canary(_) => replicas,
                Strategy::Rolling { max_unavailable, .. } => replicas.saturating_sub(max_unavailable),
                Strategy::StopThenStart => 0,
            };
            let (was, is) = (rested_on(before, then, name), serving(after, env, name));
            assert!(is >= was.min(required), "{}: {name} fell from {was} to {is} of {required}", env.key);
        }
    }
}

/// How many served, without those of a canary: they come on top of what served before, and may go again.
fn rested_on(state: &State, env: &Environment, name: &ServiceName) -> u32 {
    let Some(rollout) = env.rollout.as_ref().filter(|rollout| rollout.splits.contains_key(name)) else {
        return serving(state, env, name);
    };
    let old = env.service(rollout.from, name).map(|service| service.spec_digest);
    let is_stable = |instance: &&kiln_core::state::Instance| {
        let (service, ordinal) = instance.slot().unwrap();
        let is_old = Some(instance.spec_digest) == old && ordinal < BASELINE_FIRST;
        service == name && is_old && instance.is_routed() && instance.is_routable()
    };
    u32::try_from(state.instances_of(env).filter(is_stable).count()).unwrap()
}

fn serving(state: &State, env: &Environment, name: &ServiceName) -> u32 {
    let of_service = |instance: &&Instance| {
        instance.slot().is_some_and(|(other, _)| other == name)
            && instance.is_routed()
            && instance.is_routable()
    };
    u32::try_from(state.instances_of(env).filter(of_service).count()).unwrap()
}

fn key(kind: &ActionKind) -> (u8, String) {
    match kind {
        ActionKind::OpenListener(listener) => (0, listener.to_string()),
        ActionKind::CloseListener(listener) => (1, listener.to_string()),
        ActionKind::CreateInstance { id, .. } => (2, id.to_string()),
        ActionKind::DestroyInstance { id, .. } => (3, id.to_string()),
        ActionKind::PublishTable(_) => (4, String::new()),
        ActionKind::AwaitIdle(id) => (5, id.to_string()),
    }
}

/// Folds a log.
pub(crate) fn replay(log: &[Entry]) -> State {
    fold(State::new(), log)
}

/// Applies what comes after the state.
fn fold(mut state: State, log: &[Entry]) -> State {
    for entry in &log[state.position().0 as usize..] {
        apply(&mut state, entry).expect("what was applied once can be applied again");
    }
    state
}

/// Puts a state together as one who read its parts from a disk does: nothing is shared, and nothing private is known.
fn rebuilt(parts: Parts) -> State {
    let service = |service: &ServiceState| {
        let slots = service.slots.iter().map(|(ordinal, slot)| (*ordinal, slot.clone())).collect();
        Arc::new(ServiceState::new(slots, service.replicas, service.job_done))
    };
    let env = |env: &Arc<Environment>| {
        let services = env.services.iter().map(|(name, it)| (name.clone(), service(it))).collect();
        Arc::new(Environment { services, ..Environment::clone(env) })
    };
    let environments = parts.environments.iter().map(env).collect();
    State::from_parts(Parts { environments, ..parts }).expect("the parts of a state hold together")
}
