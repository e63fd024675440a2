//! Bodies pass as they come, in both directions, and hold each other back.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::http::{read_chunk, read_head, read_trailers};
use crate::origin::Origin;
use crate::process::eventually;
use crate::world::World;

#[test]
fn an_answer_reaches_the_client_piece_by_piece() {
    let (go, gone_on) = channel::<()>();
    let gone_on = Mutex::new(gone_on);
    let origin = Origin::start(move |mut connection| {
        connection.head();
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
        gone_on.lock().unwrap().recv().unwrap();
        connection.send("3\r\ntwo\r\n0\r\n\r\n");
    });
    let world = World::routed_to(&[origin.address]);
    let mut connection = world.connect();
    connection.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(read_head(&mut connection.stream).unwrap().unwrap().status(), 200);
    assert_eq!(read_chunk(&mut connection.stream).unwrap(), b"one");
    go.send(()).unwrap();
    assert_eq!(read_chunk(&mut connection.stream).unwrap(), b"two");
    assert!(read_chunk(&mut connection.stream).unwrap().is_empty());
}

#[test]
fn a_request_reaches_the_backend_piece_by_piece() {
    let (came, coming) = channel();
    let came = Mutex::new(came);
    let origin = Origin::start(move |mut connection| {
        let head = connection.head().unwrap();
        assert!(head.is_chunked());
        loop {
            let chunk = read_chunk(&mut connection.stream).unwrap();
            let last = chunk.is_empty();
            came.lock().unwrap().send(chunk).unwrap();
            if last {
                break;
            }
        }
        let trailers = read_trailers(&mut connection.stream).unwrap();
        connection.answer(&trailers.join("|"));
    });
    let world = World::routed_to(&[origin.address]);
    let mut connection = world.connect();
    connection.send(
        "POST / HTTP/1.1\r\nHost: x\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n",
    );
    assert_eq!(coming.recv().unwrap(), b"one");
    connection.send("3\r\ntwo\r\n");
    assert_eq!(coming.recv().unwrap(), b"two");
    connection.send("0\r\nX-Sum: 6\r\n\r\n");
    assert_eq!(coming.recv().unwrap(), b"");
    assert_eq!(connection.answer().text().to_lowercase(), "x-sum: 6");
}

#[test]
fn trailers_reach_a_client_that_takes_them() {
    let origin = Origin::start(|mut connection| {
        connection.head();
        connection.send("HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n");
        connection.send("3\r\none\r\n0\r\nX-Sum: 3\r\n\r\n");
    });
    let world = World::routed_to(&[origin.address]);
    let mut connection = world.connect();
    connection.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: TE\r\nTE: trailers\r\n\r\n");
    read_head(&mut connection.stream).unwrap();
    assert_eq!(read_chunk(&mut connection.stream).unwrap(), b"one");
    assert!(read_chunk(&mut connection.stream).unwrap().is_empty());
    assert_eq!(read_trailers(&mut connection.stream).unwrap()[0].to_lowercase(), "x-sum: 3");
}

#[test]
fn a_backend_that_does_not_read_holds_the_client_back() {
    let (go, gone_on) = channel::<()>();
    let gone_on = Mutex::new(gone_on);
    let origin = Origin::start(move |mut connection| {
        let head = connection.head().unwrap();
        gone_on.lock().unwrap().recv().unwrap();
        let length = connection.body(&head).len();
        connection.answer(&length.to_string());
    });
    let world = World::routed_to(&[origin.address]);
    const BYTES: usize = 64 << 20;
    let mut connection = world.connect();
    connection.send(&format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {BYTES}\r\n\r\n"));
    let mut stream = connection.stream.get_ref().try_clone().unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let sending = std::thread::spawn(move || {
        let piece = vec![b'x'; 1 << 16];
        for _ in 0..BYTES / piece.len() {
            stream.write_all(&piece).unwrap();
            counted.fetch_add(piece.len(), Ordering::SeqCst);
        }
    });
    // It comes to a stop: two sockets' buffers and some of the edge's are full.
    let held = comes_to_a_stop(&sent);
    assert!(held < BYTES / 2, "{held} bytes went into the edge");
    go.send(()).unwrap();
    sending.join().unwrap();
    assert_eq!(connection.answer().text(), BYTES.to_string());
}

/// Waits until no more bytes go out, and returns how many did.
fn comes_to_a_stop(sent: &AtomicUsize) -> usize {
    let mut before = usize::MAX;
    eventually(|| {
        let now = sent.load(Ordering::SeqCst);
        let stopped = now == before && now > 0;
        before = now;
        std::thread::sleep(Duration::from_millis(200));
        stopped.then_some(now)
    })
}

#[test]
fn a_client_that_does_not_read_holds_the_backend_back() {
    const BYTES: usize = 64 << 20;
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let origin = Origin::start(move |mut connection| {
        connection.head();
        connection.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n"));
        let piece = "x".repeat(1 << 16);
        for _ in 0..BYTES / piece.len() {
            connection.send(&piece);
            counted.fetch_add(piece.len(), Ordering::SeqCst);
        }
    });
    let world = World::routed_to(&[origin.address]);
    let mut connection = world.connect();
    connection.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let held = comes_to_a_stop(&sent);
    assert!(held < BYTES / 2, "{held} bytes went into the edge");
    assert_eq!(connection.answer().body.len(), BYTES);
    assert_eq!(world.settled().answered, 1);
}

#[test]
fn the_body_waits_for_the_backends_leave() {
    let origin = Origin::start(|mut connection| {
        let head = connection.head().unwrap();
        assert_eq!(head.header("expect"), Some("100-continue"));
        if head.first_line.contains("/no") {
            connection.send("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return;
        }
        connection.send("HTTP/1.1 100 Continue\r\n\r\n");
        let body = connection.body(&head);
        connection.answer(&String::from_utf8(body).unwrap());
    });
    let world = World::routed_to(&[origin.address]);
    let mut connection = world.connect();
    connection.send("POST /yes HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(read_head(&mut connection.stream).unwrap().unwrap().status(), 100);
    connection.send("body");
    assert_eq!(connection.answer().text(), "body");

    let mut connection = world.connect();
    connection.send("POST /no HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(connection.answer().status(), 413, "the answer comes first: no leave was given");
}

#[test]
fn a_backend_that_never_gives_leave_gets_the_body_all_the_same() {
    let origin = Origin::polite("web", Duration::from_secs(60));
    let world = World::routed_to(&[origin.address]);
    let mut connection = world.connect();
    connection.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(read_head(&mut connection.stream).unwrap().unwrap().status(), 100);
    connection.send("body");
    assert_eq!(connection.answer().text(), "web body");
}

#[test]
fn another_protocol_is_tunnelled_until_a_side_ends() {
    let origin = Origin::start(|mut connection| {
        let head = connection.head().unwrap();
        if head.header("upgrade") != Some("websocket") {
            connection.answer("plain");
            return;
        }
        // Said in one breath with the agreement: must not be lost.
        connection.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello",
        );
        let mut byte = [0; 1];
        while connection.stream.read_exact(&mut byte).is_ok() {
            connection.send(&char::from(byte[0]).to_ascii_uppercase().to_string());
        }
    });
    let world = World::routed_to(&[origin.address]);
    let mut connection = world.connect();
    connection.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let head = read_head(&mut connection.stream).unwrap().unwrap();
    assert_eq!((head.status(), head.header("upgrade")), (101, Some("websocket")));
    let mut hello = [0; 5];
    connection.stream.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");
    connection.send("GET not / http\n\n");
    let mut echo = [0; 16];
    connection.stream.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"GET NOT / HTTP\n\n");
    assert_eq!(world.ledger().total().in_flight(), 1);
    drop(connection);
    assert_eq!(world.settled().answered, 1);
}

#[test]
fn a_declined_upgrade_leaves_an_ordinary_connection() {
    let origin = Origin::polite("web", Duration::from_secs(60));
    let world = World::routed_to(&[origin.address]);
    let mut connection = world.connect();
    let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    // The second is already there while the first waits for the backend's decision.
    connection.send(&request.repeat(2));
    assert_eq!(connection.answer().text(), "web ");
    assert_eq!(connection.answer().text(), "web ");
    assert_eq!(connection.get("/").text(), "web ");
}

#[test]
fn a_client_that_leaves_takes_its_request_with_it() {
    let (ended, end) = channel();
    let ended = Mutex::new(ended);
    let origin = Origin::start(move |mut connection| {
        connection.head();
        connection.wait_for_end();
        ended.lock().unwrap().send(()).unwrap();
    });
    let world = World::routed_to(&[origin.address]);
    let mut connection = world.connect();
    connection.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    eventually(|| (origin.connections() == 1).then_some(()));
    drop(connection);
    end.recv().unwrap();
    assert_eq!((world.settled().gone, world.settled().lost()), (1, 0));
}
