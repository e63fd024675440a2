//! The desk on which a decision is made: a speculative state and the drafts that led to it.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::digest::Digest;
use kiln_model::event::{InstanceEvent, Purpose, TrafficEvent};
use kiln_model::{
    Actor, Entry, EnvKey, Event, InstanceId, Position, RevisionNumber, ServiceName, SlotKey, Timestamp,
};

use super::focus::{Focus, Reach};
use super::{Draft, check, entry_of, listeners, maintain, retain, retire, rollout, traffic};
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
        /// Whether its slot is then as it should be: nobody need look at it once more.
        is_all: bool,
    },
}

impl Deed {
    pub(super) fn instance(id: InstanceId, event: InstanceEvent) -> Self {
        Self::Log(Event::Instance(id, event))
    }
}

/// Where something may have happened that is not written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// Nowhere.
    Global,
    /// At one instance.
    Instance(InstanceId),
    /// Wherever the edge is waited for.
    Edge,
    /// At the sockets.
    Sockets,
    /// At what the rollout of an environment is judged by.
    Rollout(EnvKey),
    /// Anywhere in an environment.
    Environment(EnvKey),
    /// Anywhere.
    All,
}

/// What a rule may read.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) state: &'a State,
    pub(super) observed: &'a Observed,
    pub(super) now: Timestamp,
    pub(super) env: &'a Environment,
    /// Where to look.
    pub(super) focus: &'a Focus,
    /// How it was when no rule had anything to add: none of an environment that was not there.
    pub(super) before: Option<(&'a State, &'a Environment)>,
}

impl<'a> View<'a> {
    /// What to look at in a service.
    pub(super) fn reach(self, name: &ServiceName) -> Option<&'a Reach> {
        if self.focus.is_everything { Some(&Reach::Whole) } else { self.focus.services.get(name) }
    }

    /// The slots of a service in which something happened, if they are few.
    pub(super) fn touched(self, name: &ServiceName) -> Option<&'a BTreeSet<u32>> {
        match self.reach(name) {
            Some(Reach::Slots(slots)) => Some(slots),
            Some(Reach::Whole) | None => None,
        }
    }

    /// The services to look at.
    pub(super) fn services(self) -> impl Iterator<Item = (&'a ServiceName, &'a ServiceState)> {
        let all = self.focus.is_everything.then_some(&self.env.services).into_iter().flatten();
        let some = self.focus.services.keys().filter_map(move |name| self.env.services.get_key_value(name));
        some.chain(all).map(|(name, service)| (name, service.as_ref()))
    }

    /// The slots of a service to look at.
    pub(super) fn slots_of(
        self,
        name: &ServiceName,
        service: &'a ServiceState,
    ) -> impl Iterator<Item = (u32, &'a Slot)> {
        let reach = self.reach(name);
        let is_whole = reach == Some(&Reach::Whole);
        let all = is_whole.then(|| service.slots.iter()).into_iter().flatten();
        let some = self.touched(name).into_iter().flatten();
        let some = some.filter_map(|ordinal| Some((*ordinal, service.slots.get(ordinal)?.as_ref())));
        some.chain(all.map(|(ordinal, slot)| (*ordinal, slot.as_ref())))
    }

    /// The instances to look at.
    pub(super) fn instances(self) -> impl Iterator<Item = &'a Instance> {
        let slots = self.services().flat_map(move |(name, service)| self.slots_of(name, service));
        let ids = slots.flat_map(|(_, slot)| &slot.instances);
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

/// Instances up to which a debug build checks each decision: a look at more takes longer than all else.
const CHECKED_MAX: usize = 200;

pub(super) struct Work<'a> {
    /// The state that was there, in which no rule had anything to add.
    before: &'a State,
    state: State,
    observed: &'a Observed,
    input: &'a Input,
    drafts: Vec<Draft>,
    drawn: u64,
    /// What was touched of each environment since its rules last came to rest.
    touched: BTreeMap<EnvKey, Focus>,
}

impl<'a> Work<'a> {
    pub(super) fn new(before: &'a State, observed: &'a Observed, input: &'a Input) -> Self {
        let (state, touched) = (before.clone(), BTreeMap::new());
        Self { before, state, observed, input, drafts: Vec::new(), drawn: 0, touched }
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
        self.append(draft);
        let Some(Draft { env, event, .. }) = self.drafts.last() else { return };
        if let Some(found) = env.as_ref().and_then(|key| self.state.environments.get(key)) {
            let touched = match self.touched.get_mut(&found.key) {
                Some(touched) => touched,
                None => self.touched.entry(found.key.clone()).or_default(),
            };
            touched.add(&self.state, found, event);
        }
    }

    /// Writes down what no rule need look at.
    fn append(&mut self, draft: Draft) {
        if let Event::Instance(id, InstanceEvent::Destroyed) = &draft.event {
            // Nothing says afterwards where it was.
            self.touch(&Scope::Instance(*id));
        }
        let actor = draft.actor.clone();
        let entry = entry_of((&self.state, self.state.term, self.state.position), draft, self.input);
        if let Err(error) = apply(&mut self.state, &entry) {
            // Going on would leave a state that the log does not lead to; the log is still good.
            panic!("a decision must be legal, and this one is not: {error} ({:?})", entry.event);
        }
        let Entry { env, event, .. } = entry;
        self.drafts.push(Draft { env, event, actor });
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

    /// Draws as many, in order: so what is created together lies together, and slot after slot it is found side by side. Looked up
    /// here and there, thousands take several times as long.
    fn draw_ids(&mut self, count: usize) -> Vec<InstanceId> {
        let mut ids = Vec::new();
        while ids.len() < count {
            let missing = count - ids.len();
            ids.extend((0..missing).map(|_| self.draw_id()));
            ids.sort_unstable();
            ids.dedup();
        }
        ids
    }

    /// Lets the rules look until none has anything to add: where something was written down, and where it may have happened.
    pub(super) fn settle(&mut self, scope: &Scope) {
        self.touch(scope);
        let mut is_local = matches!(scope, Scope::Instance(_));
        for _ in 0..PASSES_MAX {
            let before = self.drafts.len();
            while let Some((key, focus)) = self.touched.pop_first() {
                self.look_at_environment(&key, focus);
            }
            is_local &= self.drafts[before..].iter().all(|draft| is_about_instances(&draft.event));
            let local = self.drafts.len();
            // Which sockets are needed is no matter of instances.
            if !is_local {
                listeners::look(self);
            }
            check::look(self);
            retain::remove(self);
            if self.drafts.len() == before {
                return;
            }
            if self.drafts.len() > local {
                // Sockets are shared: what changed there may matter to any environment.
                self.touch(&Scope::All);
                is_local = false;
            }
        }
        debug_assert!(false, "the rules do not come to rest");
    }

    /// Looks at everything once more: a look that was missed is found by whatever runs in a debug build, each history of the
    /// simulation among it, and not by a user whose instance stays where it is.
    pub(super) fn check_rest(&mut self) {
        let is_small = self.state.instances.len() <= CHECKED_MAX;
        if !cfg!(debug_assertions) || !is_small {
            return;
        }
        let before = self.drafts.len();
        self.settle(&Scope::All);
        if self.drafts.len() > before {
            // What was observed may be ahead of what was decided about it: of a batch, or of one that could not be stored.
            let mut earlier = Work::new(self.before, self.observed, self.input);
            earlier.settle(&Scope::All);
            let missed = self.drafts.split_off(before);
            assert!(!earlier.drafts.is_empty(), "after {:?} the rules missed {missed:?}", self.input.kind);
        }
    }

    fn touch(&mut self, scope: &Scope) {
        let (state, touched) = (&self.state, &mut self.touched);
        match scope {
            Scope::Global => {}
            Scope::Instance(id) => {
                if let Some(instance) = state.instance(*id).filter(|instance| instance.slot().is_some()) {
                    touched.entry(instance.env.clone()).or_default().instance(state, *id);
                }
            }
            Scope::Edge => {
                for key in state.environments.keys() {
                    touched.entry(key.clone()).or_default().rollout = true;
                }
                for instance in state.leaving.keys().filter_map(|id| state.instance(*id)) {
                    if let Some(focus) = touched.get_mut(&instance.env) {
                        focus.instance(state, instance.id);
                    }
                }
            }
            Scope::Sockets => {
                for key in state.environments.keys() {
                    touched.entry(key.clone()).or_default().rollout = true;
                }
            }
            Scope::Rollout(key) => touched.entry(key.clone()).or_default().rollout = true,
            Scope::Environment(key) => drop(touched.insert(key.clone(), Focus::everything())),
            Scope::All => {
                let all = state.environments.keys().map(|key| (key.clone(), Focus::everything()));
                touched.extend(all);
            }
        }
    }

    fn look_at_environment(&mut self, key: &EnvKey, focus: Focus) {
        // What was touched since each rule looked last.
        let mut unseen = RULES.map(|_| focus.clone());
        for _ in 0..PASSES_MAX {
            let before = self.drafts.len();
            for (at, rule) in RULES.into_iter().enumerate() {
                self.follow(key, rule, &std::mem::take(&mut unseen[at]));
                // The rules after it see what it wrote in this pass; it and those before it in the next one.
                if let Some(touched) = self.touched.remove(key) {
                    unseen.iter_mut().for_each(|focus| focus.join(&touched));
                }
            }
            if self.drafts.len() == before {
                return;
            }
        }
    }

    fn follow(&mut self, key: &EnvKey, rule: Rule, focus: &Focus) {
        let now = self.now();
        let Some(env) = self.state.environments.get(key) else { return };
        let before = self.before.environment(key).map(|env| (self.before, env));
        let deeds = rule(View { state: &self.state, observed: self.observed, now, env, focus, before });
        self.drafts.reserve(deeds.len());
        let creations = deeds.iter().filter(|deed| matches!(deed, Deed::Create { .. })).count();
        let mut ids = self.draw_ids(creations).into_iter();
        for deed in deeds {
            match deed {
                Deed::Log(event) => self.act(Some(key), event),
                Deed::AskedBy(actor, event) => {
                    self.write(Draft { env: Some(key.clone()), event, actor: Some(actor) });
                }
                Deed::Create { service, ordinal, revision, spec, is_all } => {
                    let id = ids.next().expect("one was drawn for each");
                    let slot = SlotKey { env: key.clone(), service, ordinal };
                    let purpose = Purpose::Slot { slot, revision };
                    let event = Event::Instance(id, InstanceEvent::Requested { purpose, spec });
                    let draft = Draft { env: Some(key.clone()), event, actor: Some(Actor::Controller) };
                    if is_all { self.append(draft) } else { self.write(draft) }
                }
            }
        }
    }
}

/// Whether it is about some instances and their requests, and nothing else of an environment.
fn is_about_instances(event: &Event) -> bool {
    matches!(event, Event::Instance(..) | Event::Traffic(TrafficEvent::Shifted { .. }))
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
