//! Which request goes where, and what its backend sees of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kiln_model::route::{Pool, RouteTable};

use crate::http::Connection;
use crate::origin::Origin;
use crate::world::{World, backend, fence, pool_key};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn rules_choose_by_host_and_path_and_the_edge_says_when_it_answers_itself() {
    let (web, api) = (Origin::polite("web", LONG), Origin::polite("api", LONG));
    let world = World::new();
    assert_eq!(world.connect().get("/").head.header("x-kiln-error"), Some("no-route"));

    let pool = |seed, origin: &Origin| {
        Arc::new(Pool { backends: vec![backend(seed, 1, origin.address)], ..Pool::default() })
    };
    let table = RouteTable {
        fence: fence(1),
        rules: vec![
            world.rule(Some("shop.localhost"), "/", "web"),
            world.rule(Some("shop.localhost"), "/api", "api"),
            world.rule(Some("empty.localhost"), "/", "empty"),
        ],
        pools: BTreeMap::from([
            (pool_key("web"), pool(1, &web)),
            (pool_key("api"), pool(2, &api)),
            (pool_key("empty"), Arc::default()),
        ]),
    };
    world.publish_table(&table);
    let mut connection = world.connect();
    let mut get = |host: &str, path: &str| {
        connection.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        connection.answer()
    };
    assert_eq!(get("SHOP.localhost:8080", "/apis").text(), "web ");
    assert_eq!(get("shop.localhost", "/api/1").text(), "api ");
    assert_eq!(get("ignored", "http://shop.localhost/api").text(), "api ");
    let nowhere = get("other.localhost", "/");
    assert_eq!((nowhere.status(), nowhere.head.header("x-kiln-error")), (404, Some("no-route")));
    let empty = get("empty.localhost", "/");
    assert_eq!((empty.status(), empty.head.header("x-kiln-error")), (503, Some("no-backend")));
    world.settled();
    let ledger = world.ledger();
    assert_eq!(ledger.unrouted.declined, 2);
    assert_eq!(ledger.total_of(&pool_key("web").env, Some(&pool_key("empty").service)).made, 1);
    assert_eq!(ledger.total_of(&pool_key("web").env, Some(&pool_key("api").service)).answered, 2);
}

#[test]
fn a_backend_sees_the_client_and_nothing_that_was_meant_for_the_edge() {
    let origin = Origin::echo();
    let world = World::routed_to(&[origin.address]);
    let mut connection = world.connect();
    connection.send(
        "GET http://shop.localhost/a?b=c HTTP/1.1\r\nHost: other\r\nConnection: keep-alive, X-Secret\r\n\
         X-Secret: 1\r\nKeep-Alive: timeout=9\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\
         Proxy-Authorization: x\r\nTE: trailers\r\nAccept: */*\r\n\r\n",
    );
    let seen = connection.answer().text();
    let mut lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines.remove(0), "GET /a?b=c HTTP/1.1");
    lines.sort_unstable();
    let expected = [
        "accept: */*",
        "connection: te",
        "host: shop.localhost",
        "te: trailers",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: shop.localhost",
        "x-forwarded-proto: http",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn an_http_1_0_client_is_served_and_let_go() {
    let origin = Origin::polite("web", LONG);
    let world = World::routed_to(&[origin.address]);
    let mut connection = world.connect();
    connection.send("GET / HTTP/1.0\r\n\r\n");
    let answer = connection.answer();
    assert_eq!(answer.text(), "web ");
    assert!(answer.head.first_line.starts_with("HTTP/1.0 200"), "{}", answer.head.first_line);
    assert!(connection.is_closed());

    let mut connection = world.connect();
    for _ in 0..2 {
        connection.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(connection.answer().text(), "web ");
    }

    // Chunks are unknown to HTTP/1.0: the end of the connection is the end of the body.
    let mut connection = world.connect();
    connection.send("GET /stream HTTP/1.0\r\n\r\n");
    let answer = connection.answer();
    assert_eq!(answer.head.header("transfer-encoding"), None);
    assert_eq!(answer.text(), "piece".repeat(20));
}

#[test]
fn a_head_request_gets_the_length_and_no_body() {
    let origin = Origin::start(|mut connection| {
        while connection.head().is_some() {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n");
        }
    });
    let world = World::routed_to(&[origin.address]);
    let mut connection = world.connect();
    for _ in 0..3 {
        connection.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(connection.try_answer(true).unwrap().head.header("content-length"), Some("1234"));
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::echo();
    let world = World::routed_to(&[origin.address]);
    let mut connection = world.connect();
    let requests: Vec<String> =
        (0..20).map(|n| format!("POST /{n} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")).collect();
    connection.send(&requests.concat());
    for n in 0..20 {
        assert!(connection.answer().text().starts_with(&format!("POST /{n} ")));
    }
    assert_eq!(world.settled().answered, 20);
}

#[test]
fn connect_and_unknown_expectations_are_declined() {
    let world = World::new();
    let status = |request: &str| {
        let mut connection = world.connect();
        connection.send(request);
        connection.answer().status()
    };
    assert_eq!(status("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"), 405);
    assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\n\r\n"), 417);
    assert_eq!(status("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    assert_eq!(status("GET a HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
}

#[test]
fn weights_share_the_requests() {
    let (old, new) = (Origin::polite("old", LONG), Origin::polite("new", LONG));
    let mut world = World::new();
    let mut canary = backend(2, 2, new.address);
    canary.weight = kiln_model::Weight::new(53).unwrap();
    world.publish(vec![backend(1, 1, old.address), canary]);
    let mut connection = world.connect();
    let canaries = (0..400).filter(|_| connection.get("/").text() == "new ").count();
    // 53 of 1053 is 20.1 of 400.
    assert!((18..=22).contains(&canaries), "{canaries}");
    world.settled();
    let rows = world.ledger().rows;
    let answered: Vec<u64> = rows.iter().filter(|r| r.revision.0 > 0).map(|r| r.counts.answered).collect();
    assert_eq!(answered, [400 - canaries as u64, canaries as u64]);
}

#[test]
fn every_request_is_in_the_access_log() {
    let origin = Origin::polite("web", LONG);
    let mut world = World::routed_to(&[origin.address]);
    world.connect().post("/orders?id=1", "12345");
    drop(Connection::open(world.address));
    world.connect().get("/");
    world.settled();
    world.edge.terminate();
    assert!(world.edge.wait());
    let text = std::fs::read_to_string(world.state.path().join("edge/access.log")).unwrap();
    let mut lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    // Each worker writes its own in order.
    lines.sort_by_key(|line| line["method"] != "POST");
    let first = &lines[0];
    assert_eq!((first["method"].as_str(), first["path"].as_str()), (Some("POST"), Some("/orders?id=1")));
    assert_eq!((first["status"].as_u64(), first["bytes"].as_u64()), (Some(200), Some(9)));
    assert_eq!((first["revision"].as_u64(), first["attempts"].as_u64()), (Some(1), Some(1)));
    assert_eq!(first["host"], "test");
    assert!(first["client"].as_str().unwrap().starts_with("127.0.0.1:"));
}
