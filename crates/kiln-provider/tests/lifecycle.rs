//! The life of an instance, on this kernel.

mod world;

use kiln_model::Millis;
use kiln_model::instance::ExitStatus;
use kiln_provider::Provider;
use world::{World, eventually, lines};

#[test]
fn an_instance_starts_is_listed_says_something_and_ends() {
    let world = World::new();
    let id = world.run(&["say", "hello"]);
    let address = world.started(id);
    assert_eq!(world.exited(id), ExitStatus::Code(0));
    let listed = world.host().list().unwrap().instances;
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].address, listed[0].exited), (Some(address), Some(ExitStatus::Code(0))));
    eventually("the log is read", || lines(world.host(), id).len() == 2);
    let mut said = lines(world.host(), id);
    said.sort();
    assert_eq!(said, ["hello", "hello on stderr"]);
    world.destroy(id, Millis(0));
    world.destroyed(id);
    assert!(world.host().list().unwrap().instances.is_empty());
    assert!(!world.instance_folder(id).exists());
    assert_eq!(lines(world.host(), id).len(), 2, "the log outlives the instance for a while");
}
