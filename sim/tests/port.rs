//! The simulated host keeps what every provider promises: the suite of the real one, word for word.
#![allow(clippy::unwrap_used, reason = "tests say by their panics what went wrong")]

#[path = "../../crates/kiln-provider/tests/conformance/mod.rs"]
mod conformance;

use std::time::Duration;

use conformance::Subject;
use kiln_model::instance::InstanceSpec;
use kiln_model::{EnvKey, Fence, InstanceId, Millis, Position, Term};
use kiln_provider::{
    CreateRequest, DestroyRequest, LogCursor, LogNext, Provider, ProviderError, Transition, Watched,
};
use sim::Plant;
use sim::host::{Host, HostEvent, KEPT, SharedHost};
use sim::queue::Queue;
use sim::rng::Rng;
use sim::stacks;

/// A simulated host and its time.
struct World {
    host: SharedHost,
    later: Queue<HostEvent>,
    now: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut host = Host::new(Rng::new(seed), None);
        // An instance that fails by itself would be another story than the one that is told here.
        host.wild = false;
        Self { host: SharedHost::new(host), later: Queue::default(), now: 0 }
    }

    fn create(&self, number: u64) -> InstanceId {
        let id = InstanceId::from_seed(number);
        let request = CreateRequest {
            id,
            spec: self.endless().into(),
            fence: Fence { term: Term(1), position: Position(1) },
            env: EnvKey { stack: "shop".parse().unwrap(), env: "dev".parse().unwrap() },
            service: "web".parse().unwrap(),
            internal: None,
        };
        self.host.create(&request).unwrap();
        id
    }

    fn destroy(&self, id: InstanceId) {
        let fence = Fence { term: Term(1), position: Position(2) };
        self.host.destroy(&DestroyRequest { id, fence, grace: Millis(10) }).unwrap();
    }

    /// Until nothing is to happen any more.
    fn settle(&mut self) {
        while self.happens() {}
    }

    fn happens(&mut self) -> bool {
        for (after, event) in self.host.lock().take_later() {
            self.later.add(self.now + after, event);
        }
        let Some((at, event)) = self.later.take() else { return false };
        self.now = at;
        self.host.lock().happen(&event);
        true
    }
}

impl Subject for World {
    fn provider(&self) -> &dyn Provider {
        &self.host
    }

    fn pass(&mut self) {
        self.happens();
    }

    fn restart(&mut self) {
        self.host.lock().kill();
        assert!(matches!(self.host.list(), Err(ProviderError::Away(_))));
        self.host.lock().restart();
    }

    fn endless(&self) -> InstanceSpec {
        stacks::example("good")
    }

    fn impossible(&self) -> InstanceSpec {
        stacks::example("refused")
    }
}

#[test]
fn the_simulated_host_keeps_what_a_provider_promises() {
    for seed in 0..200 {
        conformance::all(|| World::new(seed));
    }
}

/// Without this, a suite that checks nothing would pass everything.
#[test]
#[should_panic(expected = "Ok(())")]
fn a_host_that_accepts_old_fences_does_not_keep_it() {
    let host = Host::new(Rng::new(1), Some(Plant::AcceptOldFence));
    let mut world = World { host: SharedHost::new(host), later: Queue::default(), now: 0 };
    conformance::an_older_term_is_refused(&mut world);
}

#[test]
fn a_reader_that_is_too_far_behind_is_told_to_list_again() {
    let mut world = World::new(1);
    let from = world.host.list().unwrap().cursor;
    for number in 0..KEPT as u64 {
        world.destroy(InstanceId::from_seed(number));
    }
    let next = |world: &World| world.host.watch(from).unwrap().next(Duration::ZERO).unwrap();
    assert!(matches!(next(&world), Some(Watched::Transition { transition: Transition::Destroyed, .. })));
    world.destroy(InstanceId::from_seed(KEPT as u64));
    world.settle();
    assert!(matches!(next(&world), Some(Watched::Relist { .. })));
}

#[test]
fn a_world_without_programs_has_an_empty_log_and_runs_no_commands() {
    let mut world = World::new(1);
    let id = world.create(1);
    world.settle();
    let mut log = world.host.logs(id, LogCursor::default(), true).unwrap();
    assert_eq!(log.next(Duration::ZERO).unwrap(), LogNext::Quiet);
    let refused = world.host.exec(id, &["/app".into()], Duration::ZERO).unwrap_err();
    assert!(matches!(refused, ProviderError::Refused { .. }) && refused.is_permanent(), "{refused:?}");
    assert!(!world.host.capabilities().unwrap().unenforced.is_empty());
    world.destroy(id);
    world.settle();
    assert_eq!(log.next(Duration::ZERO).unwrap(), LogNext::End);
}

#[test]
fn a_host_that_has_no_address_left_refuses() {
    let world = World::new(1);
    let addresses = u64::from(world.host.capabilities().unwrap().instances_max);
    (0..addresses).for_each(|number| _ = world.create(number));
    let mut request = CreateRequest {
        id: InstanceId::from_seed(addresses),
        spec: world.endless().into(),
        fence: Fence { term: Term(1), position: Position(1) },
        env: EnvKey { stack: "shop".parse().unwrap(), env: "dev".parse().unwrap() },
        service: "web".parse().unwrap(),
        internal: None,
    };
    assert!(matches!(world.host.create(&request), Err(ProviderError::Refused { .. })));
    // Who is there already is not refused for it.
    request.id = InstanceId::from_seed(0);
    world.host.create(&request).unwrap();
}
