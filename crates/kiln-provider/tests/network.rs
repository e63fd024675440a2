//! Addresses, links, names and the way out.
#![allow(clippy::unwrap_used, reason = "tests say by their panics what went wrong")]

mod world;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::path::Path;

use kiln_model::route::Listener;
use kiln_model::{Fence, Millis};
use kiln_provider::{Provider, ProviderError};
use world::{World, eventually, fence, spec};

fn get(address: IpAddr, port: u16) -> Option<String> {
    let mut stream = TcpStream::connect((address, port)).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

#[test]
fn an_instance_is_reached_at_its_address_and_its_link_goes_with_it() {
    let world = World::new();
    let mut serve = spec(&["serve", "80"]);
    // A port below 1024, and no privilege.
    serve.user = "web".into();
    serve.security.drop_capabilities.insert("ALL".into());
    let id = world.create(serve);
    let address = world.started(id);
    eventually("it answers", || get(address, 80).is_some_and(|text| text.ends_with("ok\n")));
    let link = format!("/sys/class/net/k{}{id}", world.state_id());
    assert!(Path::new(&link).exists());
    world.destroy(id, Millis(0));
    world.destroyed(id);
    assert!(!Path::new(&link).exists());
    assert_eq!(get(address, 80), None);
}

#[test]
fn instances_have_different_addresses_and_names_for_the_services_that_they_use() {
    let world = World::new();
    let mut with = spec(&["cat", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"]);
    with.uses.insert("orders".parse().unwrap());
    let first = world.create(with);
    let second = world.run(&["sleep"]);
    let (one, two) = (world.started(first), world.started(second));
    assert_ne!(one, two);
    world.exited(first);
    let said = world.log(first);
    let subnet = world.host().capabilities().unwrap().subnet;
    let internal = world.host().open_listener(Listener::Internal(3), fence(1)).unwrap();
    assert_eq!(internal.port(), 80);
    assert!(said.contains(&format!("{}\torders.shop.kiln", internal.ip())), "{said} {subnet}");
    assert!(said.contains(&format!("{one}\tweb-{first}")), "{said}");
    assert!(said.contains("127.0.0.1\tlocalhost"), "{said}");
}

#[test]
fn a_listener_is_bound_where_it_belongs_and_closed_again() {
    let world = World::new();
    let public: Listener = "127.0.0.1:18080".parse().unwrap();
    assert_eq!(world.host().open_listener(public, fence(1)).unwrap().to_string(), "127.0.0.1:18080");
    let internal = world.host().open_listener(Listener::Internal(0), fence(1)).unwrap();
    world.host().open_listener(Listener::Internal(0), fence(1)).unwrap();
    std::net::TcpListener::bind(internal).expect("the address is on the bridge");
    assert_eq!(world.opened.0.lock().unwrap().len(), 2);
    world.host().close_listener(public, fence(1)).unwrap();
    assert_eq!(world.opened.0.lock().unwrap().len(), 1);
    let late = Fence { term: kiln_model::Term(0), ..fence(1) };
    assert!(matches!(world.host().close_listener(public, late), Err(ProviderError::Fenced { .. })));
}

#[test]
fn an_address_is_taken_until_its_instance_is_destroyed() {
    let world = World::new();
    let ended = world.run(&["exit", "0"]);
    let address = world.started(ended);
    world.exited(ended);
    let mut others = BTreeSet::new();
    for _ in 0..3 {
        others.insert(world.started(world.run(&["exit", "0"])));
    }
    assert!(!others.contains(&address), "an instance that ended keeps its address");
    assert_eq!(
        world.host().list().unwrap().instances.iter().filter(|i| i.address == Some(address)).count(),
        1
    );
}

#[test]
fn what_leaves_the_subnet_is_masqueraded_and_the_rule_goes_with_the_state() {
    let mut world = World::new();
    let host = std::sync::Arc::clone(world.host());
    assert_eq!(host.outbound_rules().unwrap(), Some(1));
    let bridge = format!("/sys/class/net/k{}br", world.state_id());
    assert!(Path::new(&bridge).exists());
    world.stop();
    host.remove_traces().unwrap();
    assert_eq!(host.outbound_rules().unwrap(), None);
    assert!(!Path::new(&bridge).exists());
}

#[test]
fn two_kilns_beside_each_other_have_different_subnets() {
    let (one, two) = (World::new(), World::new());
    let subnet = |world: &World| world.host().capabilities().unwrap().subnet;
    assert_ne!(subnet(&one), subnet(&two));
    assert_ne!(one.state_id(), two.state_id());
}
