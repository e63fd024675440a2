//! The desk on which a decision is made: a speculative state and the drafts that led to it.

use kiln_model::digest::Digest;
use kiln_model::event::{InstanceEvent, Purpose, TrafficEvent};
use kiln_model::{
    Actor, EnvKey, Event, InstanceId, Position, RevisionNumber, ServiceName, SlotKey, Timestamp,
};

use super::{Draft, check, listeners, maintain, number, retain, retire, rollout, traffic};
use crate::apply::apply;
use crate::bounds::{PASSES_MAX, REASON_CHARS_MAX};
use crate::input::Input;
use crate::observed::Observed;
use crate::state::{Environment, Instance, ServiceState, Slot, State};

/// What a rule wants written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Deed {
    /// An event.
    Log(Event),
    /// An event that is due now, and that somebody asked for before.
    AskedBy(Actor, Event),
    /// A new instance, whose id is drawn when it is written down.
    Create {
        /// The service.
        service: ServiceName,
        /// The place.
        ordinal: u32,
        /// The revision whose spec it has.
        revision: RevisionNumber,
        /// The digest of that.
        spec: Digest,
    },
}

impl Deed {
    pub(super) fn instance(id: InstanceId, event: InstanceEvent) -> Self {
        Self::Log(Event::Instance(id, event))
    }
}

/// Which environments the rules look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// None of them, only what is shared.
    Global,
    /// One slot of one, and what its environment's rollout makes of it.
    Slot(EnvKey, ServiceName, u32),
    /// One.
    Environment(EnvKey),
    /// All.
    All,
}

/// What a rule may read.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) state: &'a State,
    pub(super) observed: &'a Observed,
    pub(super) now: Timestamp,
    pub(super) env: &'a Environment,
    /// The only slot in which something happened; none to look at all of them.
    pub(super) focus: Option<(&'a ServiceName, u32)>,
}

impl<'a> View<'a> {
    /// The slots to look at.
    pub(super) fn slots(self) -> impl Iterator<Item = (&'a ServiceName, u32, &'a Slot)> {
        let services =
            self.services().flat_map(|(name, service)| service.slots.iter().map(move |slot| (name, slot)));
        let all = self.focus.is_none().then_some(services).into_iter().flatten();
        let one = self.focus.and_then(|(name, ordinal)| Some((name, ordinal, self.env.slot(name, ordinal)?)));
        one.into_iter().chain(all.map(|(name, (ordinal, slot))| (name, *ordinal, slot.as_ref())))
    }

    /// The services to look at.
    pub(super) fn services(self) -> impl Iterator<Item = (&'a ServiceName, &'a ServiceState)> {
        let one = self.focus.and_then(|(name, _)| self.env.services.get_key_value(name));
        let all = self.focus.is_none().then_some(&self.env.services);
        let services = one.into_iter().chain(all.into_iter().flatten());
        services.map(|(name, service)| (name, service.as_ref()))
    }

    /// The instances to look at.
    pub(super) fn instances(self) -> impl Iterator<Item = &'a Instance> {
        let ids = self.slots().flat_map(|(_, _, slot)| &slot.instances);
        ids.filter_map(move |id| self.state.instance(*id))
    }
}

/// A rule: what is to be written down about one environment, given how things are.
type Rule = fn(View<'_>) -> Vec<Deed>;

/// In this order, each sees what the ones before it wrote.
const RULES: [Rule; 7] = [
    retire::advance,
    maintain::settle,
    traffic::balance,
    rollout::advance,
    traffic::return_routes,
    maintain::fill,
    retain::release,
];

pub(super) struct Work<'a> {
    state: State,
    observed: &'a Observed,
    input: &'a Input,
    drafts: Vec<Draft>,
    drawn: u64,
}

impl<'a> Work<'a> {
    pub(super) fn new(state: &State, observed: &'a Observed, input: &'a Input) -> Self {
        Self { state: state.clone(), observed, input, drafts: Vec::new(), drawn: 0 }
    }

    /// The state that the drafts lead to.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn observed(&self) -> &'a Observed {
        self.observed
    }

    /// Who is behind the input.
    pub(super) fn actor(&self) -> &'a Actor {
        &self.input.actor
    }

    pub(super) fn now(&self) -> Timestamp {
        self.state.now.max(self.input.now)
    }

    pub(super) fn into_drafts(self) -> Vec<Draft> {
        self.drafts
    }

    /// The position that the next draft gets.
    pub(super) fn next_position(&self) -> Position {
        Position(self.state.position.0 + 1)
    }

    /// Writes down what the input's actor asked for.
    pub(super) fn ask(&mut self, env: Option<&EnvKey>, event: Event) {
        self.write(Draft { env: env.cloned(), event, actor: None });
    }

    /// Writes down what Kiln does by itself.
    pub(super) fn act(&mut self, env: Option<&EnvKey>, event: Event) {
        self.write(Draft { env: env.cloned(), event, actor: Some(Actor::Controller) });
    }

    fn write(&mut self, draft: Draft) {
        for entry in number(&self.state, std::slice::from_ref(&draft), self.input) {
            if let Err(error) = apply(&mut self.state, &entry) {
                // Going on would leave a state that the log does not lead to; the log is still good.
                panic!("a decision must be legal, and this one is not: {error} ({:?})", entry.event);
            }
        }
        self.drafts.push(draft);
    }

    /// Draws an id that was never used.
    pub(super) fn draw_id(&mut self) -> InstanceId {
        loop {
            self.drawn += 1;
            let id = InstanceId::from_seed(mix(self.input.seed.wrapping_add(self.drawn)));
            if !self.state.used.contains(id) {
                return id;
            }
        }
    }

    pub(super) fn create(&mut self, env: &EnvKey, purpose: Purpose, spec: Digest) {
        let id = self.draw_id();
        self.act(Some(env), Event::Instance(id, InstanceEvent::Requested { purpose, spec }));
    }

    /// Lets the rules look until none has anything to add.
    pub(super) fn settle(&mut self, scope: &Scope) {
        let mut scope = scope.clone();
        for _ in 0..PASSES_MAX {
            let before = self.drafts.len();
            self.look_at_environments(&scope);
            let local = self.drafts.len();
            listeners::look(self);
            check::look(self);
            retain::remove(self);
            if self.drafts.len() == before {
                return;
            }
            if self.drafts.len() > local {
                // Sockets are shared: what changed there may matter to any environment.
                scope = Scope::All;
            }
        }
        debug_assert!(false, "the rules do not come to rest");
    }

    fn look_at_environments(&mut self, scope: &Scope) {
        let (keys, focus): (Vec<EnvKey>, _) = match scope {
            Scope::Global => return,
            Scope::Slot(key, service, ordinal) => (vec![key.clone()], Some((service.clone(), *ordinal))),
            Scope::Environment(key) => (vec![key.clone()], None),
            Scope::All => (self.state.environments.keys().cloned().collect(), None),
        };
        for key in keys {
            self.look_at_environment(&key, focus.clone());
        }
    }

    fn look_at_environment(&mut self, key: &EnvKey, mut focus: Option<(ServiceName, u32)>) {
        for _ in 0..PASSES_MAX {
            let before = self.drafts.len();
            for rule in RULES {
                self.follow(key, rule, focus.as_ref());
            }
            if self.drafts.len() == before {
                return;
            }
            if focus.as_ref().is_some_and(|focus| self.has_spread(before, focus)) {
                focus = None;
            }
        }
    }

    /// Whether the drafts from `before` on are about more than one slot.
    fn has_spread(&self, before: usize, (service, ordinal): &(ServiceName, u32)) -> bool {
        let is_there = |id: &InstanceId| {
            // One that is destroyed is gone from its slot, and nobody else's business.
            self.state.instance(*id).is_none_or(|found| found.slot() == Some((service, *ordinal)))
        };
        !self.drafts[before..].iter().all(|draft| match &draft.event {
            Event::Instance(id, _) => is_there(id),
            Event::Traffic(TrafficEvent::Shifted { weights }) => weights.iter().all(|(id, _)| is_there(id)),
            _ => false,
        })
    }

    fn follow(&mut self, key: &EnvKey, rule: Rule, focus: Option<&(ServiceName, u32)>) {
        let now = self.now();
        let Some(env) = self.state.environments.get(key) else { return };
        let focus = focus.map(|(service, ordinal)| (service, *ordinal));
        let deeds = rule(View { state: &self.state, observed: self.observed, now, env, focus });
        for deed in deeds {
            match deed {
                Deed::Log(event) => self.act(Some(key), event),
                Deed::AskedBy(actor, event) => {
                    self.write(Draft { env: Some(key.clone()), event, actor: Some(actor) });
                }
                Deed::Create { service, ordinal, revision, spec } => {
                    let slot = SlotKey { env: key.clone(), service, ordinal };
                    self.create(key, Purpose::Slot { slot, revision }, spec);
                }
            }
        }
    }
}

/// Shortens text from outside to what the log keeps.
pub(super) fn brief(text: &str) -> String {
    text.chars().take(REASON_CHARS_MAX).collect()
}

/// Spreads a seed over all bits (SplitMix64: Steele, Lea and Flood, 2014).
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
