//! What two readers could understand in two ways never reaches a backend.

use std::io::Write;
use std::time::Duration;

use crate::origin::Origin;
use crate::world::World;

#[test]
fn ambiguous_requests_are_refused_closed_and_never_reach_a_backend() {
    let origin = Origin::echo();
    let world = World::routed_to(&[origin.address]);
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    for lines in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 4\r\nContent-Length: 4",
        "Content-Length: 4\r\nContent-Length: 5",
        "Content-Length: 4,4",
        "Content-Length: +4",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\r\n chunked",
        "X: y\r\n folded",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rContent-Length: 4",
        "Na me: y",
        "X: \u{0}",
        "Host: second",
    ] {
        let mut connection = world.connect();
        connection.send(&format!("POST / HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n0\r\n\r\n{smuggled}"));
        let answer = connection.answer();
        let what = (answer.status(), answer.head.header("x-kiln-error"), answer.head.header("connection"));
        assert_eq!(what, (400, Some("bad-request"), Some("close")), "{lines:?}");
        assert!(answer.text().starts_with("kiln edge: "), "{lines:?}");
        assert!(connection.is_closed(), "{lines:?}");
    }
    assert_eq!(origin.connections(), 0);
    assert_eq!(world.settled().declined, 19);
}

#[test]
fn a_refused_request_does_not_take_those_before_it_along() {
    let origin = Origin::echo();
    let world = World::routed_to(&[origin.address]);
    let mut connection = world.connect();
    connection.send("GET /first HTTP/1.1\r\nHost: x\r\n\r\nGET /second HTTP/1.1\nHost: x\n\n");
    assert!(connection.answer().text().starts_with("GET /first"));
    assert_eq!(connection.answer().status(), 400);
    assert!(connection.is_closed());
}

#[test]
fn a_malformed_chunk_ends_the_request_at_both_sides() {
    let origin = Origin::start(|mut connection| {
        while let Some(head) = connection.head() {
            if connection.body(&head).is_empty() {
                return;
            }
            connection.answer("taken");
        }
    });
    let world = World::routed_to(&[origin.address]);
    for body in ["5\nhello\r\n0\r\n\r\n", "5\r\nhello!\r\n0\r\n\r\n", "5 \r\nhello\r\n0\r\n\r\n", "x\r\n"] {
        let mut connection = world.connect();
        connection.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        connection.send(body);
        let answer = connection.answer();
        assert_eq!(
            (answer.status(), answer.head.header("x-kiln-error")),
            (400, Some("bad-request")),
            "{body:?}"
        );
        assert!(connection.is_closed());
    }
    assert_eq!(world.settled().lost(), 0);
}

#[test]
fn a_head_that_is_too_large_is_refused_with_a_reason() {
    let world = World::new();
    let status = |request: &str| {
        let mut connection = world.connect();
        let _ = connection.stream.get_mut().write_all(request.as_bytes());
        connection.answer().status()
    };
    let long = "a".repeat(40_000);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n")), 431);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(150))), 431);
    assert_eq!(status(&format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n")), 414);
    assert_eq!(status("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
}

#[test]
fn a_head_that_never_ends_is_given_up() {
    let world = World::new();
    let mut connection = world.connect();
    connection.send("GET / HTTP/1.1\r\n");
    let mut slow = connection.stream.get_ref().try_clone().unwrap();
    let drip = std::thread::spawn(move || {
        while slow.write_all(b"X: y\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    let answer = connection.answer();
    assert_eq!((answer.status(), answer.head.header("x-kiln-error")), (408, Some("head-timeout")));
    drop(connection);
    drip.join().unwrap();
}

#[test]
fn an_answer_with_two_framings_ends_where_its_chunks_do() {
    for length in ["3", "9"] {
        let origin = Origin::start(move |mut connection| {
            while connection.head().is_some() {
                connection.send(&format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
                ));
            }
        });
        let world = World::routed_to(&[origin.address]);
        let mut connection = world.connect();
        for _ in 0..2 {
            let answer = connection.get("/");
            assert_eq!((answer.text().as_str(), answer.head.length()), ("hello", None), "{length}");
        }
    }
}

#[test]
fn an_answer_that_breaks_the_rules_is_told_apart_from_none() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(200_000));
    for said in [
        "SSH-2.0-server\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        &long,
    ] {
        let answer = said.to_owned();
        let origin = Origin::start(move |mut connection| {
            if connection.head().is_some() {
                connection.send(&answer);
                connection.wait_for_end();
            }
        });
        let world = World::routed_to(&[origin.address]);
        let answer = world.connect().get("/");
        let what = (answer.status(), answer.head.header("x-kiln-error"));
        assert_eq!(what, (502, Some("backend-garbled")), "{:.40}", said);
    }
}
