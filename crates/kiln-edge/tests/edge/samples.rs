//! What an analysis is told agrees with what clients and instances saw, to the request.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_model::route::{Backend, Group, Pool, Sampling};
use kiln_model::sample::{GroupSamples, WindowSamples};
use kiln_model::{RolloutId, Weight};

use crate::http::Connection;
use crate::origin::{Origin, Refusing};
use crate::process::eventually;
use crate::world::{World, backend, pool_key};

const WINDOW: Sampling = Sampling { rollout: RolloutId(90), window: 1 };

/// Answers with its group's name, and with the status that the path is.
fn origin(group: Group) -> Origin {
    Origin::start(move |mut connection| {
        while let Some(head) = connection.head() {
            let status = head.first_line.split(['/', ' ']).nth(2).unwrap().to_owned();
            let name = group.as_str();
            connection.send(&format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{name}", name.len()));
        }
    })
}

fn member(seed: u64, group: Group, weight: u16, origin: &Origin) -> Backend {
    let revision = if group == Group::Canary { 2 } else { 1 };
    let weight = Weight::new(weight).unwrap();
    Backend { group, weight, ..backend(seed, revision, origin.address) }
}

fn samples(world: &World, sampling: Sampling) -> Option<WindowSamples> {
    let key = pool_key("web");
    world.edge.client.samples(&key.env, &key.service, sampling).unwrap()
}

/// Answers by group and status, as clients saw them.
type Seen = BTreeMap<(String, u16), u64>;

/// Connections that the edge has accepted: what waits in the listener's queue would outlive the edge.
fn connections(world: &World, count: usize) -> Vec<Connection> {
    let accepted = |_| {
        let mut connection = world.connect();
        connection.get("/200");
        connection
    };
    (0..count).map(accepted).collect()
}

/// Sends requests over all connections at once, until each had its number or the edge is gone.
fn load(connections: Vec<Connection>, requests: usize) -> Seen {
    let one = |(number, mut connection): (usize, Connection)| {
        let mut seen = Seen::new();
        for request in 0..requests {
            let status = [200, 200, 302, 404, 500, 503][(number + request) % 6];
            let Ok(answer) = connection.try_exchange("GET", &format!("/{status}"), "") else { break };
            assert_eq!(answer.status(), status);
            *seen.entry((answer.text(), status)).or_default() += 1;
        }
        seen
    };
    std::thread::scope(|scope| {
        let one = &one;
        let numbered = connections.into_iter().enumerate();
        let running: Vec<_> = numbered.map(|numbered| scope.spawn(move || one(numbered))).collect();
        let all = running.into_iter().flat_map(|thread| thread.join().unwrap());
        all.fold(Seen::new(), |mut sum, (key, count)| {
            *sum.entry(key).or_default() += count;
            sum
        })
    })
}

fn answers(samples: &GroupSamples) -> [u64; 3] {
    [samples.ok, samples.client_error, samples.server_error]
}

/// The same of what clients saw.
fn answers_seen(seen: &Seen, group: Group) -> [u64; 3] {
    let sum = |from: u16, to: u16| {
        let of =
            seen.iter().filter(|((name, status), _)| name == group.as_str() && (from..to).contains(status));
        of.map(|(_, count)| count).sum()
    };
    [sum(0, 400), sum(400, 500), sum(500, 600)]
}

#[test]
fn counts_agree_with_what_clients_saw_to_the_request_over_a_killed_edge() {
    let origins = Group::ALL.map(origin);
    let mut world = World::new();
    let backends = vec![
        member(1, Group::Stable, 600, &origins[0]),
        member(2, Group::Baseline, 200, &origins[1]),
        member(3, Group::Canary, 200, &origins[2]),
    ];
    world.publish_pool(Pool { backends, sampling: Some(WINDOW), ..Pool::default() });
    let mut seen = load((0..8).map(|_| world.connect()).collect(), 60);
    world.edge.kill();
    world.restart();
    for (key, count) in load((0..8).map(|_| world.connect()).collect(), 60) {
        *seen.entry(key).or_default() += count;
    }
    let counted = samples(&world, WINDOW).unwrap();
    for group in Group::ALL {
        let of = &counted[&group];
        assert_eq!(answers(of), answers_seen(&seen, group), "{group}");
        assert_eq!(of.latency.values().sum::<u64>(), of.requests());
        assert_eq!((of.lost, of.broken, of.left), (0, 0, 0));
    }
    let share = counted[&Group::Canary].requests();
    assert!((188..=196).contains(&share), "{share} of 960");

    // Now with requests in flight: what the kill cut may have been answered or not.
    let total = |groups: &WindowSamples| groups.values().flat_map(answers).sum::<u64>();
    let ready = connections(&world, 4);
    let before = total(&samples(&world, WINDOW).unwrap());
    let seen = std::thread::scope(|scope| {
        let loading = scope.spawn(|| load(ready, usize::MAX));
        eventually(|| samples(&world, WINDOW).filter(|counted| total(counted) >= before + 200));
        world.edge.signal_kill();
        loading.join().unwrap()
    });
    world.edge.kill();
    world.restart();
    let after = samples(&world, WINDOW).unwrap();
    let (answered, counted) = (seen.values().sum::<u64>(), total(&after) - before);
    assert!(
        (answered..=answered + 4).contains(&counted),
        "{counted} counted, {answered} seen, 4 connections"
    );
    assert!(after.values().all(|of| (of.lost, of.broken, of.left) == (0, 0, 0)), "{after:?}");
}

#[test]
fn each_failure_counts_for_the_group_that_failed_and_the_answer_for_the_one_that_gave_it() {
    let stable = origin(Group::Stable);
    let free = Refusing::new();
    let mut world = World::new();
    let refusing = Backend { address: free.address, ..member(2, Group::Canary, 1000, &stable) };
    let backends = vec![member(1, Group::Stable, 1000, &stable), refusing];
    world.publish_pool(Pool { backends, sampling: Some(WINDOW), ..Pool::default() });
    let mut connection = world.connect();
    for _ in 0..8 {
        assert_eq!(connection.get("/200").text(), "stable");
    }
    let counted = samples(&world, WINDOW).unwrap();
    let (stable, canary) = (&counted[&Group::Stable], &counted[&Group::Canary]);
    assert_eq!((stable.ok, stable.requests()), (8, 8));
    assert!(canary.lost >= 1 && canary.requests() == canary.lost, "{canary:?}");
}

/// Answers every request but the second, of which the test says what comes, and then closes.
fn except(second: &'static str) -> Origin {
    let requests = AtomicUsize::new(0);
    Origin::start(move |mut connection| {
        while connection.head().is_some() {
            if requests.fetch_add(1, Ordering::SeqCst) == 1 {
                return connection.send(second);
            }
            connection.answer("whole");
        }
    })
}

#[test]
fn an_instance_that_breaks_off_is_found_out() {
    // Of two requests: how many were answered, how many not, and how many answers broke off.
    let counted = |second: &'static str| {
        let origin = except(second);
        let mut world = World::new();
        let backends = vec![member(1, Group::Canary, 1000, &origin)];
        world.publish_pool(Pool { backends, sampling: Some(WINDOW), ..Pool::default() });
        let mut connection = world.connect();
        assert_eq!(connection.get("/").status(), 200);
        let repeated = connection.try_exchange("GET", "/", "").is_ok_and(|answer| answer.status() == 200);
        world.settled();
        let of = samples(&world, WINDOW).unwrap().remove(&Group::Canary).unwrap();
        // On a reused connection it was sent again, and answered then.
        (of.ok - u64::from(repeated), of.lost, of.broken)
    };
    assert_eq!(counted(""), (1, 1, 0), "closed without a word");
    assert_eq!(counted("HTTP/1.1 2"), (1, 1, 0), "closed within a head");
    assert_eq!(counted("no http\r\n\r\n"), (1, 1, 0), "nonsense");
    assert_eq!(
        counted("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
        (2, 0, 1),
        "closed within a body"
    );
}

#[test]
fn a_client_that_leaves_is_no_failure_of_the_instance() {
    let silent = Origin::start(|mut connection| {
        connection.head();
        connection.wait_for_end();
    });
    let mut world = World::new();
    let backends = vec![member(1, Group::Canary, 1000, &silent)];
    world.publish_pool(Pool { backends, sampling: Some(WINDOW), ..Pool::default() });
    let mut connection = Connection::open(world.address);
    connection.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    eventually(|| (silent.connections() == 1).then_some(()));
    drop(connection);
    let left = |counted: &WindowSamples| counted[&Group::Canary].left == 1;
    let counted = eventually(|| samples(&world, WINDOW).filter(left));
    assert_eq!(counted[&Group::Canary].requests(), 0);
}

#[test]
fn only_the_window_that_the_table_names_counts() {
    let origin = origin(Group::Canary);
    let mut world = World::new();
    let pool = |sampling| Pool {
        backends: vec![member(1, Group::Canary, 1000, &origin)],
        sampling,
        ..Pool::default()
    };
    let mut connection = world.connect();
    let later = Sampling { window: 2, ..WINDOW };
    assert_eq!(samples(&world, WINDOW), None);
    for (sampling, requests) in [(Some(WINDOW), 3), (None, 5), (Some(later), 7), (Some(WINDOW), 1)] {
        world.publish_pool(pool(sampling));
        for _ in 0..requests {
            connection.get("/200");
        }
    }
    let ok = |sampling| samples(&world, sampling).unwrap()[&Group::Canary].ok;
    assert_eq!((ok(WINDOW), ok(later)), (4, 7));
}
