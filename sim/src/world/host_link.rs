//! The controller's link to the host: what `kiln::runtime::host_link` does with threads and a socket, here turned by hand,
//! with the same provider port on one side and the same translation on the other.

use std::time::Duration;

use kiln::controller::Peer;
use kiln::runtime::translation::{Answer, Request, listed, seen};
use kiln_core::Action;
use kiln_model::Position;
use kiln_provider::{Provider, Watched};

use super::{Happening, Post, World};
use crate::host::HostEvent;
use crate::{Violation, invariants};

impl World {
    /// An action comes to the host.
    pub(super) fn ask_host(&mut self, action: &Action) -> Result<(), Violation> {
        let Some(request) = Request::of(action.clone()) else { return Ok(()) };
        if let Request::Destroy(asked) = &request {
            let host = self.host.lock();
            if host.is_up() && !host.refuses(asked.fence) {
                invariants::check_unrouted(&self.edge, asked.id)?;
            }
        }
        let answer = request.carry_out(&self.host);
        self.host_moved();
        // The answer is for who asked; a controller that is gone hears nothing.
        let Some(life) = &self.life else { return Ok(()) };
        if life.controller.term() != Some(action.fence.term) {
            return Ok(());
        }
        let number = life.number;
        let is_lost = self.goes_wrong(self.faults.loss);
        match answer {
            // Without an answer nobody knows whether the host acted.
            _ if is_lost => self.ask_again_soon(number),
            Answer::Later(_) => self.ask_again_soon(number),
            Answer::Refused(observation) => self.say(Peer::Host, vec![observation]),
            Answer::Accepted | Answer::TooLate(_) => {}
        }
        Ok(())
    }

    /// What failed is asked for again after a pause, by a link that stays as it is.
    fn ask_again_soon(&mut self, life: u64) {
        let wait = self.rng.between(100, 5_000);
        self.queue.add(self.now() + wait, Happening::AskAgain(life));
    }

    /// Something happens to an instance.
    pub(super) fn host_happens(&mut self, event: &HostEvent) {
        self.host.lock().happen(event);
        self.trace.line(self.now(), || format!("host: {event:?}"));
        self.host_moved();
    }

    /// Asks the host for all that it has. A new connection begins with it, and is watched from there.
    ///
    /// What is outstanding is issued again only once the host has listed: an action that came before it would be told
    /// before the place from which the host is watched, and that it is done would never be heard.
    pub(super) fn ask_list(&mut self, as_of: Position, is_new: bool) {
        if !is_new && !self.link(Peer::Host).up {
            return;
        }
        // One that is away is asked again when it is back.
        let Ok(listing) = self.host.list() else { return };
        if is_new {
            self.watching = self.host.watch(listing.cursor).ok();
            self.link(Peer::Host).up = true;
            self.post(Post::Reconnected(Peer::Host));
        }
        self.say(Peer::Host, listed(as_of, &listing));
    }

    /// Lays out what the host has set going, and takes in what it tells.
    fn host_moved(&mut self) {
        let later = self.host.lock().take_later();
        for (after, event) in later {
            self.queue.add(self.now() + after, Happening::Host(event));
        }
        while let Some(watching) = &mut self.watching {
            match watching.next(Duration::ZERO) {
                Ok(Some(Watched::Transition { id, transition, .. })) => {
                    self.say(Peer::Host, vec![seen(id, transition)]);
                }
                // It is another life of the host: everything is listed, and watched from there.
                Ok(Some(Watched::Relist { .. })) => {
                    self.watching = None;
                    self.reconnect_soon(Peer::Host);
                }
                Ok(None) => return,
                // It is away; the link is made again when it is back.
                Err(_) => self.watching = None,
            }
        }
    }

    pub(super) fn kill_host(&mut self, away: u64) {
        if self.host.lock().is_up() {
            self.host.lock().kill();
            self.link(Peer::Host).up = false;
            self.queue.add(self.now() + away, Happening::HostBack);
        }
    }

    pub(super) fn host_back(&mut self) {
        if !self.host.lock().is_up() {
            self.host.lock().restart();
            self.host_moved();
            self.reconnect_soon(Peer::Host);
        }
    }
}
