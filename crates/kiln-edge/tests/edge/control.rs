//! The control socket, and what survives a restart.

use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use kiln_edge::anchor::Anchor;
use kiln_edge::client::{ClientError, EdgeClient, Published};
use kiln_model::route::Listener;

use crate::origin::Origin;
use crate::process::{EdgeProcess, eventually};
use crate::world::{World, backend, fence};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_lower_fence_is_refused_and_an_equal_one_is_acknowledged_again_even_after_a_restart() {
    let mut world = World::new();
    let mut table = world.table(vec![]);
    table.fence = fence(7);
    world.publish_table(&table);
    world.publish_table(&table);
    let mut older = table.clone();
    older.fence = fence(6);
    let refused = Published::Refused { highest: fence(7) };
    assert_eq!(world.edge.client.publish(&older).unwrap(), refused);
    world.edge.kill();
    world.restart();
    assert_eq!(world.edge.client.publish(&older).unwrap(), refused);
    assert_eq!(world.edge.client.table().unwrap().table, table);
}

#[test]
fn a_restarted_edge_serves_the_last_acknowledged_table() {
    let origin = Origin::polite("web", LONG);
    let mut world = World::routed_to(&[origin.address]);
    assert_eq!(world.connect().get("/").text(), "web ");
    world.edge.kill();
    // Nobody accepts now, and yet the connect succeeds: the listener lives here.
    let mut waiting = world.connect();
    waiting.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    world.restart();
    assert_eq!(waiting.answer().text(), "web ");
    assert_eq!(world.ledger().starts, 2);
}

#[test]
fn a_damaged_table_is_set_aside_and_an_old_fence_still_refused() {
    let mut world = World::new();
    let mut table = world.table(vec![]);
    table.fence = fence(7);
    world.publish_table(&table);
    world.edge.kill();
    std::fs::write(world.state.path().join("edge/table.json"), b"{\"v\":1,").unwrap();
    world.restart();
    let served = world.edge.client.table().unwrap();
    assert!(served.table.rules.is_empty());
    assert!(served.notes[0].contains("damaged"), "{:?}", served.notes);
    assert_eq!(world.connect().get("/").status(), 404);
    let mut older = table.clone();
    older.fence = fence(6);
    assert!(matches!(world.edge.client.publish(&older).unwrap(), Published::Refused { .. }));
    world.publish_table(&table);
    assert!(world.edge.client.table().unwrap().notes.is_empty());
    assert_eq!(world.connect().get("/").status(), 503);
}

#[test]
fn a_restarted_host_gets_its_listeners_back() {
    let origin = Origin::polite("web", LONG);
    let world = World::routed_to(&[origin.address]);
    let (host, _events) = EdgeClient::connect(&world.state.path().join("run/edge.sock")).unwrap();
    let mut listeners = host.listeners().unwrap();
    let (key, socket) = listeners.pop().unwrap();
    assert!(listeners.is_empty());
    assert_eq!(key, world.key());
    assert_eq!(TcpListener::from(socket).local_addr().unwrap(), world.address);

    host.remove_listener(key).unwrap();
    assert!(host.listeners().unwrap().is_empty());
    let mut waiting = world.connect();
    waiting.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    world.give_listener();
    assert_eq!(waiting.answer().text(), "web ");
}

#[test]
fn once_a_listener_is_removed_its_port_can_be_taken() {
    let world = World::new();
    for round in 0..50 {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let key = Listener::Public(address);
        world.edge.client.add_listener(key, socket.as_fd()).unwrap();
        drop(socket);
        world.edge.client.remove_listener(key).unwrap();
        assert!(
            TcpListener::bind(address).is_ok(),
            "round {round}: a thread of the edge still holds {address}"
        );
    }
}

#[test]
fn many_listeners_come_back_in_several_frames() {
    let world = World::new();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    for index in 0..=200 {
        world.edge.client.add_listener(Listener::Internal(index), socket.as_fd()).unwrap();
    }
    let listeners = world.edge.client.listeners().unwrap();
    assert_eq!(listeners.len(), 202);
    let keys: std::collections::BTreeSet<_> = listeners.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys.len(), 202);
}

#[test]
fn only_a_listening_tcp_socket_is_a_listener() {
    let world = World::new();
    let file = tempfile::tempfile().unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for socket in [file.as_fd(), udp.as_fd()] {
        let added = world.edge.client.add_listener(Listener::Internal(9), socket);
        assert!(matches!(added, Err(ClientError::Refused(_))), "{added:?}");
    }
}

#[test]
fn idle_is_said_when_the_last_request_ended_and_its_connections_are_closed() {
    let origin = Origin::polite("web", LONG);
    let mut world = World::routed_to(&[origin.address]);
    let web = backend(1, 1, origin.address);
    world.connect().get("/");
    let mut streaming = world.connect();
    streaming.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    eventually(|| (world.ledger().total().in_flight() == 1).then_some(()));

    world.edge.client.await_idle(web.instance).unwrap();
    let soon = Duration::from_millis(300);
    assert!(world.edge.events.recv_timeout(soon).is_err(), "the table names it");
    world.publish(vec![]);
    assert!(world.edge.events.recv_timeout(soon).is_err(), "a request is in flight to it");
    assert_eq!(streaming.answer().text(), "piece".repeat(20));
    world.await_idle(web.instance);
    // One that is asked for late is answered at once.
    world.await_idle(web.instance);
}

#[test]
fn a_client_keeps_its_connection_over_swaps() {
    let (old, new) = (Origin::polite("old", LONG), Origin::polite("new", LONG));
    let mut world = World::routed_to(&[old.address]);
    let mut connection = world.connect();
    for round in 2..12 {
        assert_eq!(connection.get("/").text(), "old ");
        world.publish(vec![backend(round * 2, round, new.address)]);
        assert_eq!(connection.get("/").text(), "new ", "from the acknowledgement on");
        world.publish(vec![backend(round * 2 + 1, round, old.address)]);
    }
}

#[test]
fn an_anchor_survives() {
    let mut world = World::new();
    assert_eq!(world.edge.client.anchor().unwrap(), None);
    assert_eq!(kiln_edge::anchor::stored(world.state.path()).unwrap(), None);
    let anchor = Anchor { position: "@7".to_owned(), hash: "sha256:ab".to_owned(), at: None };
    world.edge.client.put_anchor(&anchor).unwrap();
    world.edge.kill();
    world.restart();
    let stored = world.edge.client.anchor().unwrap().unwrap();
    assert!(stored.at.is_some(), "the edge says when it was");
    assert_eq!(Anchor { at: None, ..stored.clone() }, anchor);
    assert_eq!(kiln_edge::anchor::stored(world.state.path()).unwrap(), Some(stored), "without asking it");
    let long = Anchor { position: "x".repeat(10_000), ..anchor };
    assert!(matches!(world.edge.client.put_anchor(&long), Err(ClientError::Refused(_))));
}

#[test]
fn the_socket_is_for_root_alone_and_a_second_edge_refuses_to_start() {
    let world = World::new();
    let socket = world.state.path().join("run/edge.sock");
    assert_eq!(std::fs::metadata(socket).unwrap().permissions().mode() & 0o777, 0o600);
    let config = kiln_edge::EdgeConfig { state_dir: world.state.path().to_owned() };
    assert!(matches!(kiln_edge::run(config), Err(kiln_edge::RunError::AlreadyRunning(_))));
}

#[test]
fn the_ledger_is_the_same_over_the_socket_and_in_the_file() {
    let origin = Origin::polite("web", LONG);
    let world = World::routed_to(&[origin.address]);
    world.connect().get("/");
    world.settled();
    assert_eq!(world.edge.client.stats().unwrap(), world.ledger());
}

#[test]
fn an_edge_that_is_told_to_stop_finishes_what_it_has_begun() {
    let origin = Origin::polite("web", LONG);
    let mut world = World::routed_to(&[origin.address]);
    let mut streaming = world.connect();
    streaming.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut kept = world.connect();
    kept.get("/");
    eventually(|| (world.ledger().total().in_flight() == 1).then_some(()));
    world.edge.terminate();
    let last = eventually(|| Some(kept.get("/")).filter(|a| a.head.header("connection") == Some("close")));
    assert_eq!(last.text(), "web ");
    assert!(kept.is_closed());
    assert_eq!(streaming.answer().text(), "piece".repeat(20));
    assert!(world.edge.wait());
    assert_eq!((world.ledger().total().in_flight(), world.ledger().total().lost()), (0, 0));
}

#[test]
fn a_stranger_on_the_control_socket_is_shown_out_and_others_are_served() {
    use std::io::{Read, Write};
    let world = World::new();
    for bytes in [b"\xff\xff\xff\xff".as_slice(), b"\x02\0\0\0{}", b"\x04\0\0\0nope", b"\x10"] {
        let path = world.state.path().join("run/edge.sock");
        let mut stranger = std::os::unix::net::UnixStream::connect(path).unwrap();
        stranger.write_all(bytes).unwrap();
        stranger.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(stranger.read_to_end(&mut Vec::new()).unwrap(), 0);
    }
    let path = world.state.path().join("run/edge.sock");
    let mut newer = std::os::unix::net::UnixStream::connect(path).unwrap();
    let text = br#"{"v":2,"id":5,"body":{"kind":"sing"}}"#;
    newer.write_all(&(text.len() as u32).to_le_bytes()).unwrap();
    newer.write_all(text).unwrap();
    let expected = br#"{"v":1,"id":5,"body":{"kind":"unsupported","version":1}}"#;
    let mut answer = vec![0; 4 + expected.len()];
    newer.read_exact(&mut answer).unwrap();
    assert_eq!(&answer[4..], expected);
    world.edge.client.stats().unwrap();
}

#[test]
fn a_client_learns_that_the_edge_is_gone() {
    let state = tempfile::tempdir_in("/var/tmp").unwrap();
    let mut edge = EdgeProcess::start(state.path());
    edge.kill();
    assert_eq!(edge.events.recv().unwrap(), kiln_edge::client::EdgeEvent::Disconnected);
    assert!(matches!(edge.client.stats(), Err(ClientError::Connection(_))));
}
