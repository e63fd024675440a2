//! A seeded world around the real controller.
//!
//! One history is one seed: users, instances, a host and an edge that fail in every way that is promised to be survived,
//! and the real `kiln::controller` over the real `kiln_core` in the middle, killed between any two operations. Time is
//! virtual, chance is a generator of our own, nothing else is asked: the same seed is the same history on every machine.
//!
//! What is checked is in [`invariants`], [`witness`], [`floor`], [`honest`] and [`drill`]; that the checks can fail is shown by [`Plant`].

pub mod client;
pub mod drill;
pub mod edge;
pub mod faults;
pub mod floor;
pub mod honest;
pub mod host;
pub mod invariants;
pub mod large;
pub mod link;
pub mod plant;
pub mod process;
pub mod queue;
pub mod rng;
pub mod stacks;
mod trace;
pub mod witness;
mod world;

use std::fmt;

pub use plant::Plant;
pub use world::{Met, Stats, is_wide};

use kiln_core::state::StepPhase;
use kiln_core::{Command, State};
use kiln_model::rollout::Step;
use kiln_model::{EnvKey, RevisionNumber};

use world::World;

/// How long after the faults every rollout must have ended and everything be in its place, in milliseconds. The longest
/// way: a rolling update of five slots, one by one, that fails at the last and goes back one by one.
const REST_WITHIN: u64 = 45 * 60 * 1_000;

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What should hold.
    pub invariant: &'static str,
    /// What is the case instead.
    pub detail: String,
    /// When, in milliseconds of virtual time.
    pub at: u64,
}

impl Violation {
    /// Makes a violation of an invariant.
    pub fn new(invariant: &'static str, detail: impl Into<String>) -> Self {
        Self { invariant, detail: detail.into(), at: 0 }
    }

    pub(crate) fn at(self, at: u64) -> Self {
        Self { at, ..self }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} ms: broken: {}: {}", self.at, self.invariant, self.detail)
    }
}

impl std::error::Error for Violation {}

/// Runs the history of a seed, perhaps with a planted fault.
///
/// # Errors
/// The first invariant that does not hold.
pub fn run(seed: u64, plant: Option<Plant>) -> Result<Stats, Violation> {
    let mut world = World::new(seed, plant, false);
    history(&mut world)?;
    Ok(world.stats)
}

/// Runs the history of a seed and tells what happened.
pub fn trace(seed: u64, plant: Option<Plant>) -> (Vec<String>, Result<Stats, Violation>) {
    let mut world = World::new(seed, plant, true);
    let outcome = history(&mut world);
    let faults = format!("faults: {:?}", world.faults);
    let mut lines = vec![faults];
    lines.extend(world.trace.into_lines());
    (lines, outcome.map(|()| world.stats))
}

fn history(world: &mut World) -> Result<(), Violation> {
    let until = world.faults.until;
    world.turn(until, |_| false)?;
    settle(world)?;
    check_end(world).map_err(|violation| violation.at(world.now()))?;
    if world.faults.cured {
        roll_back(world)?;
    }
    Ok(())
}

/// Turns the world until it is at rest; what somebody paused is resumed, or it would wait for ever, and what stopped goes back, or
/// it would wait for a day.
fn settle(world: &mut World) -> Result<(), Violation> {
    let until = world.now() + REST_WITHIN;
    loop {
        world.turn(until, |world| world.is_at_rest() || held_up(world).is_some())?;
        // Whoever repeats a command that was not answered may pause it once more.
        let Some((env, hold)) = held_up(world).filter(|_| world.now() < until) else { break };
        let held = Some((env.clone(), hold));
        world.ask(match hold {
            Hold::Halted => Command::Abort { env },
            Hold::Paused => Command::Resume { env },
            Hold::Waits => Command::Promote { env, step: None },
        });
        world.turn(until, |world| held_up(world) != held)?;
    }
    let state = world.witness.state();
    let checked = if world.is_at_rest() {
        invariants::check_rest(state, &world.host.lock(), &world.edge)
    } else if world.faults.cured {
        Err(Violation::new("the world comes to rest", unrest(state)))
    } else {
        // A version that never works is tried again for ever; but no rollout waits for it for ever.
        invariants::check_ended(state)
    };
    checked.map_err(|violation| violation.at(world.now()))
}

/// Why a rollout does not go on until somebody comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    Paused,
    Halted,
    /// For somebody who lets it switch, all day long.
    Waits,
}

/// An environment whose rollout is held up, and why.
fn held_up(world: &World) -> Option<(EnvKey, Hold)> {
    let mut environments = world.witness.state().environments();
    environments.find_map(|env| {
        let rollout = env.rollout.as_ref()?;
        let is_long = |step: &Step| matches!(step, Step::Approve { within, .. } if within.0 > REST_WITHIN);
        let hold = match (&rollout.halted, &rollout.paused, rollout.step) {
            (Some(_), _, _) => Hold::Halted,
            (None, Some(_), _) => Hold::Paused,
            (None, None, StepPhase::Started { .. }) if rollout.current_step().is_some_and(is_long) => {
                Hold::Waits
            }
            _ => return None,
        };
        Some((env.key.clone(), hold))
    })
}

fn check_end(world: &World) -> Result<(), Violation> {
    let durable = &world.machine.borrow().durable;
    if let Some(live) = world.live() {
        witness::check_replay(durable, live, "the end")?;
    }
    invariants::check_rollbacks(world.witness.state())
}

/// Goes back to the oldest retained revision of some environment, for real.
fn roll_back(world: &mut World) -> Result<(), Violation> {
    // Whoever still waits to repeat a command would be in the way.
    world.forget_asks();
    world.turn(world.now() + 1_000, |_| false)?;
    settle(world)?;
    let Some((env, to)) = oldest(world.witness.state()) else { return Ok(()) };
    world.ask(Command::Rollback { env: env.clone(), to: Some(to), service: None, careful: false });
    let (asked_at, asked) = (world.now(), world.stats.acknowledged + world.stats.refused);
    world.turn(asked_at + REST_WITHIN, |world| world.stats.acknowledged + world.stats.refused > asked)?;
    settle(world)?;
    let state = world.witness.state();
    let current = state.environment(&env).and_then(|found| found.current);
    let spec = |number| state.environment(&env).and_then(|found| found.spec(number)).cloned();
    if current.is_some() && spec(current) == spec(Some(to)) {
        return Ok(());
    }
    let detail = format!(
        "{env} is at {current:?}, not at {to}: {:?}",
        state.environment(&env).map(|e| &e.last_rollout)
    );
    Err(Violation::new("a rollback arrives", detail).at(world.now()))
}

fn oldest(state: &State) -> Option<(EnvKey, RevisionNumber)> {
    let env = state.environments().find(|env| env.completed.len() > 1)?;
    Some((env.key.clone(), *env.completed.iter().min()?))
}

/// What is still going on, for people.
fn unrest(state: &State) -> String {
    let rollouts =
        state.environments().filter_map(|env| env.rollout.as_ref().map(|rollout| (&env.key, rollout)));
    let rollouts: Vec<_> = rollouts.collect();
    let odd = |found: &&kiln_core::state::Instance| {
        found.phase != kiln_core::state::Phase::Running || found.health != kiln_core::state::Health::Healthy
    };
    let instances: Vec<_> = state.instances().filter(odd).collect();
    let listeners: Vec<_> = state.listeners().collect();
    let (checks, slots): (Vec<_>, Vec<_>) = (state.checks().collect(), invariants::unfilled(state).collect());
    format!(
        "rollouts {rollouts:?}; checks {checks:?}; slots not as wanted {slots:?}; instances {instances:?}; listeners {listeners:?}; table {:?}; outstanding {:?}",
        state.table(),
        kiln_core::outstanding(state)
    )
}
