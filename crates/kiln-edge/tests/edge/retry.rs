//! What is sent again, and what never is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::origin::{Origin, Refusing};
use crate::world::World;

/// Closes each connection after its answer, without a word.
fn abrupt() -> Origin {
    Origin::start(|mut connection| {
        if let Some(head) = connection.head() {
            let body = connection.body(&head);
            connection.answer(&format!("got {}", String::from_utf8_lossy(&body)));
        }
    })
}

#[test]
fn a_backend_that_closes_without_a_word_costs_no_request_not_even_a_post() {
    let origin = abrupt();
    let world = World::routed_to(&[origin.address]);
    let mut connection = world.connect();
    for n in 0..300 {
        // Sometimes before the close has arrived, sometimes after.
        if n % 3 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
        let text = format!("body {n}");
        if n % 2 == 0 {
            assert_eq!(connection.get("/").text(), "got ");
        } else {
            assert_eq!(connection.post("/", &text).text(), format!("got {text}"));
        }
    }
    let total = world.settled();
    assert_eq!((total.answered, total.lost()), (300, 0));
}

#[test]
fn a_backend_that_closes_idle_connections_after_a_second_costs_no_request() {
    let origin = Origin::polite("web", Duration::from_secs(1));
    let world = World::routed_to(&[origin.address]);
    let mut connection = world.connect();
    // Pauses around the moment at which backend and edge close: 500 ms and 1 s.
    for pause in [0, 95, 105, 495, 505, 995, 1000, 1005] {
        std::thread::sleep(Duration::from_millis(pause));
        assert_eq!(connection.post("/", "x").text(), "web x", "after {pause} ms");
        std::thread::sleep(Duration::from_millis(pause));
        assert_eq!(connection.get("/").text(), "web ", "after {pause} ms");
    }
    assert_eq!(world.settled().lost(), 0);
}

/// Answers a connection's first request; reads the next and closes without an answer. Counts what it read.
fn reads_and_closes(requests: &Arc<AtomicUsize>) -> Origin {
    let requests = Arc::clone(requests);
    Origin::start(move |mut connection| {
        if let Some(head) = connection.head() {
            connection.body(&head);
            requests.fetch_add(1, Ordering::SeqCst);
            connection.answer("first");
        }
        if let Some(head) = connection.head() {
            connection.body(&head);
            requests.fetch_add(1, Ordering::SeqCst);
        }
    })
}

#[test]
fn a_get_on_a_reused_connection_that_fails_unanswered_is_sent_again() {
    let requests = Arc::new(AtomicUsize::new(0));
    let origin = reads_and_closes(&requests);
    let world = World::routed_to(&[origin.address]);
    let mut connection = world.connect();
    for _ in 0..2 {
        assert_eq!(connection.get("/").text(), "first");
    }
    assert_eq!(requests.load(Ordering::SeqCst), 3);
    assert_eq!((world.settled().retried, world.settled().lost()), (1, 0));
}

#[test]
fn a_put_with_a_small_body_is_sent_again_with_the_whole_body() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let bodies = Arc::clone(&seen);
    let origin = Origin::start(move |mut connection| {
        for answered in [true, false] {
            let Some(head) = connection.head() else { return };
            bodies.lock().unwrap().push(String::from_utf8(connection.body(&head)).unwrap());
            if answered {
                connection.answer("first");
            }
        }
    });
    let world = World::routed_to(&[origin.address]);
    let mut connection = world.connect();
    connection.get("/");
    assert_eq!(connection.try_exchange("PUT", "/", "exactly this").unwrap().text(), "first");
    assert_eq!(*seen.lock().unwrap(), ["", "exactly this", "exactly this"]);
}

#[test]
fn a_post_that_a_backend_may_have_acted_on_is_never_sent_again() {
    let requests = Arc::new(AtomicUsize::new(0));
    let origin = reads_and_closes(&requests);
    let world = World::routed_to(&[origin.address]);
    let mut connection = world.connect();
    assert_eq!(connection.post("/", "x").text(), "first");
    // Rested for long enough to be used again.
    std::thread::sleep(Duration::from_millis(20));
    let answer = connection.post("/", "y");
    assert_eq!((answer.status(), answer.head.header("x-kiln-error")), (502, Some("backend-broke-off")));
    assert_eq!((requests.load(Ordering::SeqCst), origin.connections()), (2, 1));
    assert_eq!((world.settled().retried, world.settled().made), (0, 1));
    // From now on the backend is known to close: a POST gets a connection of its own.
    for connections in 2..5 {
        assert_eq!(connection.post("/", "z").text(), "first");
        assert_eq!(origin.connections(), connections);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn posts_share_a_connection_to_a_backend_that_keeps_it() {
    let origin = Origin::polite("web", Duration::from_secs(60));
    let world = World::routed_to(&[origin.address]);
    let mut connection = world.connect();
    for _ in 0..20 {
        connection.post("/", "x");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(origin.connections() < 10, "{}", origin.connections());
}

#[test]
fn an_answer_that_has_begun_is_not_begun_again() {
    let origin = Origin::start(|mut connection| {
        if connection.head().is_some() {
            connection.answer("whole");
        }
        if connection.head().is_some() {
            connection.send("HTTP/1.1 200 OK\r\nContent-Le");
        }
    });
    let world = World::routed_to(&[origin.address]);
    let mut connection = world.connect();
    assert_eq!(connection.get("/").status(), 200);
    assert_eq!(connection.get("/").status(), 502);
    assert_eq!(world.settled().retried, 0);
}

#[test]
fn an_answer_that_is_cut_is_cut_for_the_client_and_counted() {
    let origin = Origin::start(|mut connection| {
        if connection.head().is_some() {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        }
    });
    let world = World::routed_to(&[origin.address]);
    let mut connection = world.connect();
    connection.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(connection.try_answer(false).is_err());
    assert_eq!(world.settled().cut, 1);
}

#[test]
fn a_refused_connect_goes_to_another_backend_without_a_loss() {
    let origin = Origin::polite("alive", Duration::from_secs(60));
    let refusing = [Refusing::new(), Refusing::new()];
    let world = World::routed_to(&[refusing[0].address, origin.address, refusing[1].address]);
    let mut connection = world.connect();
    for n in 0..50 {
        let text = n.to_string();
        assert_eq!(connection.post("/", &text).text(), format!("alive {text}"));
    }
    let total = world.settled();
    assert_eq!((total.answered, total.lost()), (50, 0));
    // Set aside after the first refusals: most requests go straight to the one that is alive.
    assert!(total.retried < 25, "{total:?}");
}

#[test]
fn a_service_whose_every_backend_refuses_is_unavailable_and_recovers_by_itself() {
    let refusing = Refusing::new();
    let world = World::routed_to(&[refusing.address]);
    let mut connection = world.connect();
    let answer = connection.post("/", "x");
    assert_eq!((answer.status(), answer.head.header("x-kiln-error")), (502, Some("backend-unreachable")));
    let listener = refusing.listen();
    let serving = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut accepted = crate::origin::Accepted { stream: std::io::BufReader::new(stream) };
        accepted.head();
        accepted.answer("back");
        accepted.wait_for_end();
    });
    assert_eq!(connection.get("/").text(), "back");
    drop((connection, world));
    serving.join().unwrap();
}
