//! Many instances at once.
#![allow(clippy::unwrap_used, reason = "tests say by their panics what went wrong")]

mod world;

use std::collections::BTreeSet;

use kiln_model::Millis;
use kiln_provider::Provider;
use world::{World, spec};

#[test]
fn a_hundred_instances_start_beside_each_other_and_nothing_is_left_of_them() {
    let world = World::new();
    let ids: Vec<_> = (0..100).map(|_| world.create(spec(&["sleep"]))).collect();
    let addresses: BTreeSet<_> = ids.iter().map(|id| world.started(*id)).collect();
    assert_eq!(addresses.len(), 100);
    assert_eq!(world.host().list().unwrap().instances.len(), 100);
    ids.iter().for_each(|id| world.destroy(*id, Millis(0)));
    ids.iter().for_each(|id| world.destroyed(*id));
    let prefix = format!("k{}", world.state_id());
    let links =
        std::fs::read_dir("/sys/class/net").unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
    assert_eq!(links.filter(|name| name.starts_with(&prefix)).collect::<Vec<_>>(), [format!("{prefix}br")]);
}
