//! This host keeps what every provider promises, spoken to directly and over its socket.
#![allow(clippy::unwrap_used, reason = "tests say by their panics what went wrong")]

mod conformance;
mod world;

use std::process::Child;

use conformance::Subject;
use kiln_model::instance::InstanceSpec;
use kiln_provider::Provider;
use kiln_provider::host::Client;
use world::{World, spec};

fn impossible() -> InstanceSpec {
    InstanceSpec { argv: vec!["/absent".into()], ..spec(&[]) }
}

impl Subject for World {
    fn provider(&self) -> &dyn Provider {
        self.host()
    }

    fn pass(&mut self) {}

    fn restart(&mut self) {
        self.stop();
        self.start();
    }

    fn endless(&self) -> InstanceSpec {
        spec(&["sleep"])
    }

    fn impossible(&self) -> InstanceSpec {
        impossible()
    }
}

/// A host in a process of its own, which is killed where the other one stops.
struct Remote {
    world: World,
    client: Client,
    process: Child,
}

impl Remote {
    fn new() -> Self {
        let world = World::without_host();
        let process = world.start_process();
        Self { client: world.client(), world, process }
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Subject for Remote {
    fn provider(&self) -> &dyn Provider {
        &self.client
    }

    fn pass(&mut self) {}

    fn restart(&mut self) {
        self.kill();
        self.process = self.world.start_process();
    }

    fn endless(&self) -> InstanceSpec {
        spec(&["sleep"])
    }

    fn impossible(&self) -> InstanceSpec {
        impossible()
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // The world starts a host of its own to clean up with.
        self.kill();
    }
}

#[test]
fn this_host_keeps_what_a_provider_promises() {
    conformance::all(World::new);
}

#[test]
fn a_host_that_is_killed_and_spoken_to_over_its_socket_keeps_it_too() {
    conformance::all(Remote::new);
}
