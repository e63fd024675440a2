//! Who measures a canary from outside, in this world: he answers late or twice, with what is good, what is bad, what tells nothing and
//! what is no number, or that he can't answer, or not at all before the controller dies.

use kiln_core::{Observation, Standing, measured, standing};
use kiln_model::event::RolloutEvent;
use kiln_model::outside::Number;
use kiln_model::route::Sampling;
use kiln_model::{Entry, EnvKey, Event, ServiceName};

use super::{Happening, Post, World};

/// Of a thousand answers so many are errors, so many bad and so many unclear, where something goes wrong.
const ERRORS: u64 = 150;
const BAD: u64 = 120;
const UNCLEAR: u64 = 100;

/// One measurement, as one life of the controller asks for it.
pub(super) type Measured = (u64, EnvKey, ServiceName, u64, u32, String, u32);

impl World {
    /// Lets the controller of this life ask for what its canaries are judged by.
    pub(super) fn measure_others(&mut self) {
        let Some(life) = &self.life else { return };
        let (number, state) = (life.number, life.controller.state().clone());
        for env in state.environments() {
            let running = env.rollout.as_ref().filter(|it| !it.is_going_back() && it.paused.is_none());
            let Some(rollout) = running else { continue };
            for (service, split) in rollout.splits.iter().filter(|(_, split)| !split.is_mirror()) {
                let sampling = Sampling { rollout: rollout.id, window: split.window };
                for (metric, tally) in measured(env, rollout, service) {
                    if standing(metric, tally) != Standing::Measuring {
                        continue;
                    }
                    let (key, name, known) = (env.key.clone(), metric.name.clone(), tally.asked());
                    let asked = (
                        number,
                        key.clone(),
                        service.clone(),
                        rollout.id.0,
                        split.window,
                        name.clone(),
                        known,
                    );
                    if self.measured.insert(asked) {
                        let value = self.measure();
                        let at = self.now() + metric.interval.0 + self.meddler.between(1, 2_000);
                        let (env, service, metric) = (key, service.clone(), name);
                        let seen = Observation::Measured { env, service, sampling, metric, known, value };
                        self.tell_late(at, number, seen);
                    }
                }
            }
        }
    }

    /// Counts what came of it.
    pub(super) fn count(&mut self, news: &[Entry]) {
        for entry in news {
            match &entry.event {
                Event::Rollout(RolloutEvent::Measured { .. }) => self.stats.measured += 1,
                Event::Rollout(RolloutEvent::Promoted { .. }) => self.stats.let_on += 1,
                _ => {}
            }
        }
    }

    /// What is answered: below 1 is good, above 2 is bad, and between them it tells nothing.
    fn measure(&mut self) -> Result<Number, String> {
        if self.peace {
            return Ok(Number(0.5));
        }
        let draw = self.meddler.below(1000);
        if draw < ERRORS {
            return Err("it answered 503".to_owned());
        }
        Ok(Number(match draw - ERRORS {
            bad if bad < BAD => 2.5,
            unclear if unclear < BAD + UNCLEAR => *self.meddler.pick(&[1.5, f64::NAN]),
            _ => 0.5,
        }))
    }

    /// Tells the controller of this life something at a moment, and perhaps once more after it.
    pub(super) fn tell_late(&mut self, at: u64, life: u64, seen: Observation) {
        if self.meddler.chance(self.faults.repeat) {
            let again = at + self.meddler.between(1, 20_000);
            self.queue.add(again, Happening::Arrive(life, Post::Observation(seen.clone())));
        }
        self.queue.add(at, Happening::Arrive(life, Post::Observation(seen)));
    }
}
