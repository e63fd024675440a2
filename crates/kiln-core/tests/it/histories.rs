//! Random histories: whatever happens in whatever order, the log can be folded again, nothing is forgotten, nothing is
//! used twice, and once the world is well everything comes to rest.

use std::collections::BTreeSet;

use kiln_core::state::Phase;
use kiln_core::{Command, IfRunning, outstanding};
use kiln_model::event::{InstanceEvent, RolloutEvent};
use kiln_model::instance::ExitStatus;
use kiln_model::rollout::ReplicaOwner;
use kiln_model::{Event, InstanceId, Millis, RevisionNumber};
use proptest::prelude::*;

use super::shapes::{env, service_name, up};
use super::world::{World, replay};

/// One thing that somebody or something does.
#[derive(Debug, Clone)]
enum Deed {
    Up(usize, usize),
    Queue(usize, usize),
    Withdraw,
    Rollback(Option<u64>),
    RollbackOne(usize),
    Scale(usize, u32),
    Abort,
    Pause,
    Resume,
    Promote,
    Down,
    Kill(usize),
    Sick(usize),
    Well(usize),
    Busy(usize),
    Edge(bool),
    Provider(bool),
    Turn,
    Wait(u64),
    Jump,
    Restart,
    PowerLoss,
    List,
    Repeat(usize),
}

const SERVICES: [&str; 3] = ["web", "orders", "mail"];

/// Stacks that differ in every way that a rollout may have to bridge.
const STACKS: [&[&str]; 17] = [
    &["web=v1*3+route:8080+uses:orders", "orders=v1*2"],
    &["web=v2*3+route:8080+uses:orders", "orders=v1*2"],
    &["web=v2*2+route:8080+uses:orders", "orders=v2*2+rolling:1-0", "mail=v1+worker"],
    &["web=v3*3+route:8081+rolling:0-1", "orders=v3*3+rolling:2-1+warm:0", "mail=v2+worker"],
    &["web=sick*2+route:8080", "orders=v1*2", "mail=v1+worker+bluegreen"],
    &["web=v1*4+route:8080+rolling:1-0", "migrate=once1+job", "mail=v1+worker"],
    &["web=crash+route:8080+uses:orders", "orders=v4+nohealth"],
    &["web=v5+route:8080+sts", "migrate=crash+job"],
    &["web=v6*3+route:8080+canary:50h20-500p60", "orders=v1*2"],
    &["web=v7*4+route:8080+uses:orders+canary:100h5-500h10-b", "orders=v5*3+canary:10-300h1-b"],
    &["web=v8*2+route:8080+canary:0h9-50h30-s-b", "orders=v6+canary:500p40", "mail=v2+worker"],
    &["web=crash*2+route:8080+canary:50h30-b", "orders=sick*2+canary:500h30"],
    &["web=v9*3+route:8080+manual+proven:20", "orders=v7*3+rolling:1-0+proven:3"],
    &["web=v10*4+route:8080+rolling:1-1+waves:1-50%-s20", "orders=v8*3+rolling:2-0+waves:2-s5"],
    &["web=crash*2+route:8080+stays+canary:100h20", "orders=sick*2+stays+rolling:1-0"],
    &["web=v11*4+route:8080+canary:100h5-500p60-b", "orders=v9*3+canary:50h10-300h1"],
    &["orders=refuse*2+rolling:1-1", "web=slow1*2+route:8080+warm:3+drain:2"],
];

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (0..STACKS.len(), 0..2usize).prop_map(|(stack, env)| Deed::Up(stack, env)),
        2 => (0..STACKS.len(), 0..2usize).prop_map(|(stack, env)| Deed::Queue(stack, env)),
        1 => Just(Deed::Withdraw),
        2 => prop::option::of(1..6u64).prop_map(Deed::Rollback),
        1 => (0..SERVICES.len()).prop_map(Deed::RollbackOne),
        2 => (0..SERVICES.len(), 0..5u32).prop_map(|(service, replicas)| Deed::Scale(service, replicas)),
        1 => Just(Deed::Abort),
        2 => Just(Deed::Pause),
        2 => Just(Deed::Resume),
        2 => Just(Deed::Promote),
        1 => Just(Deed::Down),
        3 => any::<usize>().prop_map(Deed::Kill),
        3 => any::<usize>().prop_map(Deed::Sick),
        2 => any::<usize>().prop_map(Deed::Well),
        1 => any::<usize>().prop_map(Deed::Busy),
        1 => any::<bool>().prop_map(Deed::Edge),
        1 => any::<bool>().prop_map(Deed::Provider),
        10 => Just(Deed::Turn),
        6 => (0..150_000u64).prop_map(Deed::Wait),
        4 => (0..30u64).prop_map(Deed::Wait),
        1 => Just(Deed::Jump),
        2 => Just(Deed::Restart),
        1 => Just(Deed::PowerLoss),
        1 => Just(Deed::List),
        3 => any::<usize>().prop_map(Deed::Repeat),
    ]
}

fn pick(world: &World, at: usize) -> Option<InstanceId> {
    let ids: Vec<InstanceId> = world.bodies.keys().copied().collect();
    (!ids.is_empty()).then(|| ids[at % ids.len()])
}

fn carry_out(world: &mut World, deed: &Deed) {
    let dev = env("dev");
    match deed {
        Deed::Up(stack, at) => drop(world.command(up(&[env("dev"), env("prod")][*at], STACKS[*stack]))),
        Deed::Queue(stack, at) => {
            let mut command = up(&[env("dev"), env("prod")][*at], STACKS[*stack]);
            if let Command::Up { admission, .. } = &mut command {
                admission.if_running = IfRunning::Queue;
            }
            world.command(command);
        }
        Deed::Withdraw => drop(world.command(Command::Withdraw { env: dev })),
        Deed::Rollback(to) => {
            drop(world.command(Command::Rollback {
                env: dev,
                to: to.map(RevisionNumber),
                service: None,
                careful: false,
            }));
        }
        Deed::RollbackOne(service) => {
            let service = Some(service_name(SERVICES[*service]));
            drop(world.command(Command::Rollback { env: dev, to: None, service, careful: true }));
        }
        Deed::Scale(service, replicas) => {
            let (service, owner) = (service_name(SERVICES[*service]), ReplicaOwner::Hand);
            drop(world.command(Command::Scale { env: dev, service, replicas: *replicas, owner }));
        }
        Deed::Abort => drop(world.command(Command::Abort { env: dev })),
        Deed::Pause => drop(world.command(Command::Pause { env: dev })),
        Deed::Resume => drop(world.command(Command::Resume { env: dev })),
        Deed::Promote => drop(world.command(Command::Promote { env: dev, step: None })),
        Deed::Down => drop(world.command(Command::Down { env: dev })),
        Deed::Kill(at) => {
            if let Some(id) = pick(world, *at) {
                world.exit(id, ExitStatus::Signal(9));
            }
        }
        Deed::Sick(at) | Deed::Well(at) => {
            let id = pick(world, *at).filter(|id| world.bodies[id].spec.health.is_some());
            if let Some(id) = id.filter(|id| world.bodies[id].exited.is_none()) {
                world.set_health(id, matches!(deed, Deed::Well(_)));
            }
        }
        Deed::Busy(at) => {
            if let Some(id) = pick(world, *at) {
                world.busy.insert(id);
            }
        }
        Deed::Edge(is_away) => world.edge_is_away = *is_away,
        Deed::Provider(is_away) => world.provider_is_away = *is_away,
        Deed::Turn => drop(world.turn()),
        Deed::Wait(ms) => world.wait(Millis(*ms)),
        Deed::Jump => world.jump(Millis::from_secs(3600)),
        Deed::Restart => world.restart(),
        Deed::PowerLoss => {
            world.power_loss();
            world.restart();
        }
        Deed::List => world.list(),
        Deed::Repeat(at) => world.repeat(*at),
    }
}

/// Makes the world well and waits long enough for every deadline there is.
fn recover(world: &mut World) {
    (world.edge_is_away, world.provider_is_away) = (false, false);
    world.busy.clear();
    world.restart();
    for id in world.bodies.keys().copied().collect::<Vec<_>>() {
        let body = &world.bodies[&id];
        if body.healthy == Some(false) {
            world.set_health(id, true);
        }
    }
    world.list();
    a_pause_lasts_until_somebody_resumes(world);
    for _ in 0..30 {
        world.wait(Millis::from_secs(120));
        // Who may let a rollout go on has a day for it; here somebody does.
        for env in [env("dev"), env("prod")] {
            world.command(Command::Promote { env: env.clone(), step: None });
            let halted = |world: &World| world.state.environment(&env)?.rollout.as_ref()?.halted.clone();
            if halted(world).is_some() {
                world.command(Command::Abort { env });
            }
        }
    }
}

/// However long it takes, a paused rollout begins no step, and ends only if it fails or nothing is left to do.
fn a_pause_lasts_until_somebody_resumes(world: &mut World) {
    let dev = env("dev");
    let paused = |world: &World| {
        let rollout = world.state.environment(&dev)?.rollout.clone()?;
        rollout.paused.is_some().then_some((rollout.id, rollout.next, rollout.steps.len()))
    };
    let Some((id, next, steps)) = paused(world) else { return };
    world.wait(Millis::from_secs(36_000));
    let began = |entry: &&kiln_model::Entry| {
        let is_later =
            matches!(entry.event, Event::Rollout(RolloutEvent::StepStarted { index, .. }) if index > next);
        is_later && entry.env.as_ref() == Some(&dev)
    };
    if let Some((again, later, _)) = paused(world) {
        assert_eq!((again, later.max(next + 1)), (id, next + 1), "at most the step that ran was completed");
        let since = world.log.iter().rposition(|it| it.event == Event::Rollout(RolloutEvent::Paused));
        assert!(!world.log[since.unwrap()..].iter().any(|entry| began(&entry)), "a step of {steps} began");
    }
    world.command(Command::Resume { env: dev });
}

fn ids_are_used_once(world: &World) {
    let mut seen = BTreeSet::new();
    for entry in &world.log {
        if let Event::Instance(id, InstanceEvent::Requested { .. }) = &entry.event {
            assert!(seen.insert(*id), "{id} was requested twice");
        }
    }
}

fn everything_is_at_rest(world: &World) {
    for found in world.state.environments() {
        assert!(found.rollout.is_none(), "{}: a rollout runs: {:?}", found.key, found.rollout);
        assert!(found.queued.is_none(), "{}: nothing is left in the queue", found.key);
        assert!(!found.ending, "{} is left behind", found.key);
        assert_eq!(
            found.routes, found.current,
            "{}: the routes are those of the current revision",
            found.key
        );
        let Some(spec) = found.spec(found.current) else { continue };
        for (name, service) in &spec.services {
            let manner = service.spec.argv[0].as_str();
            if ["sick", "crash", "refuse", "once"].iter().any(|word| manner.starts_with(word)) {
                continue;
            }
            let fits = |instance: &&kiln_core::state::Instance| {
                instance.slot().is_some_and(|(other, _)| other == name)
                    && instance.phase == Phase::Running
                    && instance.spec_digest == service.spec_digest
            };
            let running = world.state.instances_of(found).filter(fits).count();
            assert_eq!(running, found.replicas(found.current, name) as usize, "{}: {name}", found.key);
        }
        let bad = |manner: &str| ["sick", "crash", "refuse"].iter().any(|word| manner.starts_with(word));
        let is_well = spec.services.values().all(|service| !bad(&service.spec.argv[0]));
        if is_well {
            let all: Vec<_> = world.state.instances_of(found).map(|i| (i.slot(), &i.phase)).collect();
            assert!(all.iter().all(|(_, phase)| **phase == Phase::Running), "{all:?}");
        }
    }
    for action in outstanding(&world.state) {
        // What can't be is tried for ever.
        assert!(world.has_bad_services(), "{action:?} is outstanding");
    }
    if !world.has_bad_services() {
        assert!(world.is_at_rest());
        let known: BTreeSet<InstanceId> = world.state.instances().map(|instance| instance.id).collect();
        let there: BTreeSet<InstanceId> = world.bodies.keys().copied().collect();
        assert_eq!(known, there);
    }
}

/// What a history must hold when it is over and the world is well again.
fn check(deeds: &[Deed]) {
    let mut world = World::new();
    for deed in deeds {
        carry_out(&mut world, deed);
    }
    assert_eq!(replay(&world.log), world.state);
    recover(&mut world);
    assert_eq!(replay(&world.log), world.state);
    ids_are_used_once(&world);
    everything_is_at_rest(&world);
}

#[test]
fn a_slot_that_is_left_twice_over_is_kept_warm_once() {
    use Deed::*;
    check(&[
        Up(3, 1),
        Wait(10),
        Up(2, 1),
        Wait(15),
        Up(0, 0),
        List,
        Wait(15),
        Up(0, 0),
        Up(0, 0),
        Up(0, 0),
        Up(0, 0),
        Up(5, 1),
        Sick(0),
        Turn,
        Busy(7_607_773_412_509_605),
        Up(0, 0),
        Up(0, 0),
        Wait(10),
        Up(0, 1),
    ]);
}

#[test]
fn a_rollback_of_what_was_scaled_down_beside_a_dead_instance_keeps_the_one_that_serves() {
    use Deed::*;
    check(&[Up(0, 0), Wait(20), Kill(6_538_237_978_709_542_597), Up(1, 0), Scale(1, 1), Rollback(None)]);
}

#[test]
fn routes_come_back_after_a_way_back_that_got_stuck_while_the_provider_was_away() {
    use Deed::*;
    check(&[
        Restart,
        Up(2, 1),
        Wait(1001),
        Wait(19),
        Rollback(None),
        Up(5, 1),
        Wait(10),
        Sick(4_379_008_157_019_939_495),
        Provider(true),
        Wait(95_888),
        Wait(144_112),
    ]);
}

#[test]
fn an_up_in_the_middle_of_an_up_that_was_scaled_down_keeps_the_one_that_serves() {
    use Deed::*;
    check(&[Wait(0), Restart, Up(5, 0), Wait(20), Kill(1_486_231_989_319_804_776), Scale(0, 1), Up(0, 0)]);
}

#[test]
fn what_must_not_run_twice_does_not_wait_for_a_stranger_that_waits_for_it() {
    use Deed::*;
    check(&[
        Up(1, 0),
        Up(0, 0),
        Wait(20),
        Scale(0, 0),
        Edge(true),
        Up(9, 0),
        Up(0, 0),
        Promote,
        Up(7, 0),
        Up(0, 0),
        Rollback(Some(5)),
        Scale(0, 2),
    ]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_everything_comes_to_rest(deeds in prop::collection::vec(deed(), 1..60)) {
        check(&deeds);
    }
}
