//! The people who use the simulated world, and who repeat what was not answered.

use std::collections::BTreeMap;

use kiln_core::{Command, State};
use kiln_model::rollout::ReplicaOwner;
use kiln_model::{EnvKey, Millis, RevisionNumber};

use crate::rng::Rng;
use crate::stacks::{self, Declared};

/// The users.
#[derive(Debug)]
pub struct Client {
    declared: BTreeMap<EnvKey, Declared>,
    last: Option<Command>,
    bad: u64,
    rng: Rng,
}

impl Client {
    /// Returns users who deploy bad versions this often in a thousand.
    pub fn new(mut rng: Rng, bad: u64) -> Self {
        let count = rng.between(1, 3) as usize;
        let environments = stacks::environments().into_iter().take(count);
        let declared =
            environments.enumerate().map(|(index, env)| (env, Declared::new(&mut rng, index as u16)));
        let declared = declared.collect();
        Self { declared, last: None, bad, rng }
    }

    /// Returns the next command, made in the sight of what is there.
    pub fn next(&mut self, state: &State) -> Command {
        let command = match (&self.last, self.rng.below(100)) {
            (Some(last), 0..8) => last.clone(),
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
        self.last = Some(command.clone());
        command
    }

    fn env(&mut self) -> EnvKey {
        let envs: Vec<_> = self.declared.keys().cloned().collect();
        self.rng.pick(&envs).clone()
    }

    fn up(&mut self, state: &State, changes: u64) -> Command {
        let env = self.env();
        let current = state.environment(&env).and_then(|found| found.current);
        let declared = self.declared.get_mut(&env).expect("every environment of the client is declared");
        for _ in 0..changes {
            declared.change(&mut self.rng, self.bad);
        }
        let (release, binding, spec) = declared.seal();
        Command::Up {
            origin: format!("/src/{}", env.stack),
            adopt: false,
            base: current.filter(|_| self.rng.chance(300)),
            release,
            binding,
            spec,
            checks: Vec::new(),
            admission: kiln_core::Admission::default(),
            env,
        }
    }

    fn rollback(&mut self, state: &State) -> Command {
        let env = self.env();
        let to = self.revision(state, &env).filter(|_| self.rng.chance(600));
        Command::Rollback { env, to, service: None, careful: false }
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
