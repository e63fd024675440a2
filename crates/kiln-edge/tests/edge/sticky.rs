//! Users that stay with their version, and requests that are aimed at one.

use std::time::Duration;

use kiln_model::route::{Aim, Backend, Group, HeaderMatch, Pool, Sampling, Sticky};
use kiln_model::{Millis, RolloutId, Weight};

use crate::http::{Answer, Connection};
use crate::origin::Origin;
use crate::world::{World, backend, pool_key};

const LONG: Duration = Duration::from_secs(60);

struct Versions {
    stable: Origin,
    canary: Origin,
}

impl Versions {
    fn start() -> Self {
        Self { stable: Origin::polite("stable", LONG), canary: Origin::polite("canary", LONG) }
    }

    fn pool(&self, canary: u16) -> Pool {
        let weight = |share| Weight::new(share).unwrap();
        let stable = Backend { weight: weight(1000 - canary), ..backend(1, 1, self.stable.address) };
        let canary =
            Backend { weight: weight(canary), group: Group::Canary, ..backend(2, 2, self.canary.address) };
        Pool { backends: vec![stable, canary], ..Pool::default() }
    }
}

fn get(connection: &mut Connection, header: &str) -> Answer {
    connection.send(&format!("GET / HTTP/1.1\r\nHost: x\r\n{header}\r\n"));
    connection.answer()
}

#[test]
fn a_user_with_the_edges_cookie_comes_to_the_canary_once_and_stays() {
    let versions = Versions::start();
    let mut world = World::new();
    let sticky = Some(Sticky::Cookie { name: "kiln-web".to_owned(), max_age: Millis::from_secs(60) });
    world.publish_pool(Pool { sticky: sticky.clone(), ..versions.pool(50) });
    let mut connection = world.connect();
    let mut users: Vec<(String, bool)> = Vec::new();
    for _ in 0..40 {
        let answer = get(&mut connection, "Cookie: theme=dark\r\n");
        let cookie = answer.head.header("set-cookie").unwrap();
        assert!(cookie.starts_with("kiln-web=") && cookie.contains("; HttpOnly; SameSite=Lax"), "{cookie}");
        users.push((cookie.split_once(';').unwrap().0.to_owned(), answer.text() == "canary "));
    }
    for share in [50, 250, 500, 1000] {
        world.publish_pool(Pool { sticky: sticky.clone(), ..versions.pool(share) });
        if share == 250 {
            world.edge.kill();
            world.restart();
        }
        let mut connection = world.connect();
        for (cookie, was_canary) in &mut users {
            for _ in 0..2 {
                let answer = get(&mut connection, &format!("Cookie: theme=dark; {cookie}\r\n"));
                assert_eq!(answer.head.header("set-cookie"), None);
                let is_canary = answer.text() == "canary ";
                assert!(is_canary || !*was_canary, "{cookie} went back at {share}");
                *was_canary = is_canary;
            }
        }
    }
    assert!(users.iter().all(|(_, is_canary)| *is_canary));
}

#[test]
fn a_cookie_is_marked_secure_where_the_client_came_by_tls() {
    let versions = Versions::start();
    let mut world = World::new();
    let sticky = Some(Sticky::Cookie { name: "k".to_owned(), max_age: Millis::from_secs(60) });
    world.publish_pool(Pool { sticky, ..versions.pool(500) });
    let mut connection = world.connect();
    let mut is_secure =
        |header| get(&mut connection, header).head.header("set-cookie").unwrap().ends_with("; Secure");
    assert!(is_secure("X-Forwarded-Proto: https\r\n"));
    assert!(!is_secure("X-Forwarded-Proto: http\r\n"));
    assert!(!is_secure(""));
}

#[test]
fn testers_see_a_canary_that_nobody_else_sees_and_no_window_counts_them() {
    let versions = Versions::start();
    let mut world = World::new();
    let aim = |value: &str, group| Aim {
        header: "X-Version".to_owned(),
        value: HeaderMatch::Exact(value.to_owned()),
        group,
    };
    let window = Sampling { rollout: RolloutId(9), window: 1 };
    let pool = |share| Pool {
        aim: vec![aim("next", Group::Canary), aim("now", Group::Stable)],
        sticky: Some(Sticky::Header { name: "X-User".to_owned() }),
        sampling: Some(window),
        ..versions.pool(share)
    };
    let mut connection = world.connect();
    for (share, others) in [(0, "stable "), (1000, "canary ")] {
        world.publish_pool(pool(share));
        for _ in 0..10 {
            assert_eq!(get(&mut connection, "X-Version: next\r\nX-User: a\r\n").text(), "canary ");
            assert_eq!(get(&mut connection, "X-Version: now\r\nX-User: a\r\n").text(), "stable ");
            assert_eq!(get(&mut connection, "X-User: a\r\n").text(), others);
        }
    }
    let key = pool_key("web");
    let counted = world.edge.client.samples(&key.env, &key.service, window).unwrap().unwrap();
    assert_eq!(Group::ALL.map(|group| counted[&group].requests()), [10, 0, 10]);
}
