//! Who is asked over HTTP by rollouts of this world: they answer late or twice, as they should or not, or not at all before the
//! controller dies. What is never answered at all fails at its timeout, which the runtime tells.

use kiln_core::{Observation, question};
use kiln_model::EnvKey;

use super::{Happening, Post, World};

/// Of a thousand attempts so many fail.
const FAILURES: u64 = 300;

/// One attempt, as one life of the controller asks for it.
pub(super) type Asked = (u64, EnvKey, u64, u32, u32);

impl World {
    /// Lets the controller of this life ask what its rollouts wait for.
    pub(super) fn ask_others(&mut self) {
        let Some(life) = &mut self.life else { return };
        let (number, now) = (life.number, life.time.now());
        let state = life.controller.state().clone();
        for question in state.environments().filter_map(|env| question(&state, env)) {
            let (env, rollout, index, known) =
                (question.env, question.rollout, question.index, question.known);
            if !self.asked.insert((number, env.clone(), rollout.0, index, known)) {
                continue;
            }
            let fails = self.meddler.chance(FAILURES);
            let answer =
                if fails { Err("it answered 503".to_owned()) } else { Ok("it answered 200".to_owned()) };
            let most = if self.peace { 100 } else { question.ask.timeout.0 };
            let at = self.now() + question.due.since(now).0 + self.meddler.between(1, most);
            let seen = Observation::Asked { env, rollout, index, known, answer };
            if self.meddler.chance(self.faults.repeat) {
                let again = Post::Observation(seen.clone());
                self.queue.add(at + self.meddler.between(1, 20_000), Happening::Arrive(number, again));
            }
            self.queue.add(at, Happening::Arrive(number, Post::Observation(seen)));
        }
    }
}
