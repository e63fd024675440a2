//! The people who use the simulated world, and who repeat what was not answered.

use std::collections::BTreeMap;

use kiln_core::{Admission, Command, IfRunning, State};
use kiln_model::rollout::ReplicaOwner;
use kiln_model::{EnvKey, Millis, RevisionNumber};

use crate::rng::Rng;
use crate::stacks::{self, Declared};

/// What somebody asks for.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Who.
    pub by: &'static str,
    /// What.
    pub command: Command,
}

/// The users.
#[derive(Debug)]
pub struct Client {
    declared: BTreeMap<EnvKey, Declared>,
    last: Option<Ask>,
    bad: u64,
    /// Whether they mostly try out new versions as canaries, one after the other.
    careful: bool,
    rng: Rng,
}

impl Client {
    /// Returns users who deploy bad versions this often in a thousand, and in a wide world more kinds of rollouts.
    pub fn new(mut rng: Rng, bad: u64, is_wide: bool) -> Self {
        let count = rng.between(1, 3) as usize;
        let environments = stacks::environments().into_iter().take(count);
        let careful = rng.chance(400);
        let declared = environments.enumerate();
        let declared =
            declared.map(|(index, env)| (env, Declared::new(&mut rng, index as u16, careful, is_wide)));
        let declared = declared.collect();
        Self { declared, last: None, bad, careful, rng }
    }

    /// Returns the next command, made in the sight of what is there.
    pub fn next(&mut self, state: &State) -> Ask {
        if self.careful && self.rng.chance(700) {
            let command = self.try_out(state);
            return self.by_somebody(command);
        }
        let command = match (&self.last, self.rng.below(100)) {
            (Some(last), 0..8) => return last.clone(),
            (_, 8..12) => Command::Promote { env: self.env(), step: None },
            (_, 12..20) => self.rollback(state),
            (_, 20..28) => self.rollback_service(state),
            (_, 28..40) => self.scale(state),
            (_, 40..46) => Command::Abort { env: self.env() },
            (_, 46..51) => Command::Down { env: self.env() },
            (_, 51..60) => self.check(),
            (_, 60..66) => self.up(state, 0),
            (_, 66..71) => Command::Pause { env: self.env() },
            (_, 71..76) => Command::Resume { env: self.env() },
            _ => self.up(state, 1),
        };
        let ask = self.by_somebody(command);
        self.last = Some(ask.clone());
        ask
    }

    /// Returns what somebody does who watches a step of a rollout begin: most often something that gets in its way.
    pub fn meddle(&mut self, state: &State, env: &EnvKey, step: u32) -> Ask {
        let command = match self.rng.below(10) {
            0..4 if self.declared.contains_key(env) => self.up_in(state, env.clone(), 1),
            4 => Command::Abort { env: env.clone() },
            5 if self.apart().chance(200) => Command::Withdraw { env: env.clone() },
            5 => Command::Pause { env: env.clone() },
            6 => Command::Down { env: env.clone() },
            7 => Command::Promote { env: env.clone(), step: Some(step) },
            _ => {
                let to = self.revision(state, env);
                Command::Rollback { env: env.clone(), to, service: None, careful: self.rng.chance(300) }
            }
        };
        self.by_somebody(command)
    }

    /// Returns an approval of a step by somebody, who may or may not.
    pub fn approve(&mut self, env: &EnvKey, step: u32) -> Ask {
        self.by_somebody(Command::Promote { env: env.clone(), step: Some(step) })
    }

    fn by_somebody(&mut self, command: Command) -> Ask {
        Ask { by: self.rng.word(&["ada", "ada", "ada", "bob", "eve"]), command }
    }

    /// The chance of what was added to the users later: apart, so that older seeds ask for what they always asked for.
    fn apart(&self) -> Rng {
        Rng::new(!self.rng.clone().bits())
    }

    fn env(&mut self) -> EnvKey {
        let envs: Vec<_> = self.declared.keys().cloned().collect();
        self.rng.pick(&envs).clone()
    }

    fn up(&mut self, state: &State, changes: u64) -> Command {
        let env = self.env();
        self.up_in(state, env, changes)
    }

    /// Deploys another version where nothing else is on its way, or else the same once more.
    fn try_out(&mut self, state: &State) -> Command {
        let env = self.env();
        let moves = state.environment(&env).is_some_and(|found| found.rollout.is_some());
        if !moves {
            let declared = self.declared.get_mut(&env).expect("every environment of the client is declared");
            declared.new_version(&mut self.rng, self.bad);
        }
        self.up_in(state, env, 0)
    }

    fn up_in(&mut self, state: &State, env: EnvKey, changes: u64) -> Command {
        let current = state.environment(&env).and_then(|found| found.current);
        let declared = self.declared.get_mut(&env).expect("every environment of the client is declared");
        for _ in 0..changes {
            declared.change(&mut self.rng, self.bad);
        }
        let (release, binding, spec) = declared.seal();
        let if_running = *self.apart().pick(&[
            IfRunning::Supersede,
            IfRunning::Supersede,
            IfRunning::Supersede,
            IfRunning::Queue,
            IfRunning::Queue,
            IfRunning::Refuse,
        ]);
        Command::Up {
            origin: format!("/src/{}", env.stack),
            adopt: false,
            base: current.filter(|_| self.rng.chance(300)),
            release,
            binding,
            spec,
            checks: Vec::new(),
            admission: Admission { if_running, ..Admission::default() },
            env,
        }
    }

    fn rollback(&mut self, state: &State) -> Command {
        let env = self.env();
        let to = self.revision(state, &env).filter(|_| self.rng.chance(600));
        Command::Rollback { env, to, service: None, careful: self.rng.chance(200) }
    }

    fn rollback_service(&mut self, state: &State) -> Command {
        let env = self.env();
        let to = self.revision(state, &env);
        let service = stacks::service(self.rng.word(&["web", "api", "mail"]));
        Command::Rollback { env, to, service: Some(service), careful: false }
    }

    fn revision(&mut self, state: &State, env: &EnvKey) -> Option<RevisionNumber> {
        let numbers: Vec<_> = state.environment(env)?.revisions.keys().copied().collect();
        if numbers.is_empty() { None } else { Some(*self.rng.pick(&numbers)) }
    }

    /// Who has a canary wants another number of replicas of it rather than of anything else: it is what is held for long.
    fn scale(&mut self, state: &State) -> Command {
        let env = self.env();
        let service = stacks::service(self.rng.word(&["web", "web", "api", "mail"]));
        let replicas = self.rng.below(6) as u32;
        let held = |key: &EnvKey| {
            let name = state.environment(key)?.rollout.as_ref()?.splits.keys().next()?;
            Some((key.clone(), name.clone()))
        };
        let (env, service) = self.declared.keys().find_map(held).unwrap_or((env, service));
        Command::Scale { env, service, replicas, owner: ReplicaOwner::Hand }
    }

    fn check(&mut self) -> Command {
        let env = self.env();
        let declared = self.declared.get(&env).expect("every environment of the client is declared");
        let (_, _, spec) = declared.seal();
        let service = spec.services.values().next().expect("`web` is never removed");
        Command::Check {
            env,
            image: service.spec.image,
            test: "starts".into(),
            spec: service.spec.clone(),
            spec_digest: service.spec_digest,
            within: Millis::from_secs(self.rng.between(5, 40)),
        }
    }
}
