//! One process of the controller, and what lies in its inbox.

use kiln::controller::{Controller, Peer, Time};
use kiln_core::{Input, InputKind, Observation};
use kiln_model::{Actor, Position, Timestamp};

use super::WorldClock;
use crate::client::Ask;
use crate::process::Ports;

/// What lies in the controller's inbox.
#[derive(Debug)]
pub(crate) enum Post {
    Command(Box<Ask>),
    Observation(Observation),
    Reconnected(Peer),
}

/// One process of the controller.
pub(super) struct Life {
    pub(super) number: u64,
    pub(super) controller: Controller<Ports, Ports>,
    pub(super) time: Time<WorldClock>,
    pub(super) inbox: Vec<Post>,
    pub(super) stepping: bool,
    pub(super) wake_at: Option<Timestamp>,
    pub(super) alarm: u64,
    pub(super) greeted: bool,
    /// The end of the log when it started.
    pub(super) began_at: Position,
}

impl Life {
    /// Makes inputs of what is in the inbox, as `run` does; beside them the commands, to be asked again if need be.
    pub(super) fn take_inbox(&mut self) -> (Vec<Input>, Vec<Option<Box<Ask>>>) {
        let (mut inputs, mut asked) = (Vec::new(), Vec::new());
        if let Some(by) = self.time.advance() {
            let jump = InputKind::Observation(Observation::ClockJumped { by });
            inputs.push(self.time.input(Actor::Controller, jump));
            asked.push(None);
        }
        for post in std::mem::take(&mut self.inbox) {
            let (actor, kind, command) = match post {
                Post::Command(ask) => {
                    let kind = InputKind::Command(ask.command.clone());
                    (Actor::User(ask.by.into()), kind, Some(ask))
                }
                Post::Observation(observation) => {
                    (Actor::Controller, InputKind::Observation(observation), None)
                }
                Post::Reconnected(peer) => {
                    self.controller.reconnected(peer);
                    continue;
                }
            };
            inputs.push(self.time.input(actor, kind));
            asked.push(command);
        }
        if inputs.is_empty() || self.wake_at.is_some_and(|at| at <= self.time.now()) {
            inputs.push(self.time.input(Actor::Controller, InputKind::Tick));
            asked.push(None);
        }
        (inputs, asked)
    }
}
