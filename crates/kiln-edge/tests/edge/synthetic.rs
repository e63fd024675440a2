//! Requests that the edge makes itself for an analysis: as many to the canary as to its baseline, and none that a client sent.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kiln_model::ask::Method;
use kiln_model::route::{Backend, Group, Pool, Sampling, Synthetic};
use kiln_model::sample::{GroupSamples, WindowSamples};
use kiln_model::{PortName, RolloutId, Weight};

use crate::origin::Origin;
use crate::process::eventually;
use crate::world::{World, backend, pool_key};

const WINDOW: Sampling = Sampling { rollout: RolloutId(9), window: 1 };

/// An origin that counts the requests that are marked, and fails those for `/fails`.
fn counting() -> (Origin, Arc<AtomicU64>) {
    let marked = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&marked);
    let origin = Origin::start(move |mut connection| {
        while let Some(head) = connection.head() {
            let is_made = head.header("kiln-synthetic") == Some("1") && head.header("host") == Some("shop");
            seen.fetch_add(u64::from(is_made), Ordering::SeqCst);
            match head.first_line.contains("/fails") {
                true => connection.send("HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"),
                false => connection.answer("fine"),
            }
        }
    });
    (origin, marked)
}

fn synthetic(path: &str, count: u32) -> Option<Arc<Synthetic>> {
    let (method, path, host) = (Method::Get, path.to_owned(), "shop".to_owned());
    let port = PortName::new("http").unwrap();
    Some(Arc::new(Synthetic { method, path, host, port, rate: 200, count }))
}

fn pool(stable: &Origin, baseline: SocketAddr, canary: SocketAddr) -> Pool {
    let small = Weight::new(100).unwrap();
    let backends = vec![
        backend(1, 1, stable.address),
        Backend { weight: small, group: Group::Baseline, ..backend(2, 1, baseline) },
        Backend { weight: small, group: Group::Canary, ..backend(3, 2, canary) },
    ];
    Pool { backends, sampling: Some(WINDOW), ..Pool::default() }
}

fn samples(world: &World) -> WindowSamples {
    let key = pool_key("web");
    world.edge.client.samples(&key.env, &key.service, WINDOW).unwrap().unwrap_or_default()
}

/// Waits until each side has had this many.
fn both(world: &World, count: u64) -> [GroupSamples; 2] {
    eventually(|| {
        let mut counted = samples(world);
        let found = [Group::Canary, Group::Baseline].map(|group| counted.remove(&group).unwrap_or_default());
        found.iter().all(|group| group.synthetic == count).then_some(found)
    })
}

#[test]
fn both_sides_get_their_count_and_no_more_though_the_edge_is_killed() {
    let stable = Origin::polite("stable", Duration::from_secs(60));
    let ((baseline, to_baseline), (canary, to_canary)) = (counting(), counting());
    let mut world = World::new();
    let pool = pool(&stable, baseline.address, canary.address);
    world.publish_pool(Pool { synthetic: synthetic("/page?x=1", 20), ..pool.clone() });
    both(&world, 20);
    // What was sent is known to the next one, and it goes on from there.
    world.edge.kill();
    world.restart();
    world.publish_pool(Pool { synthetic: synthetic("/page?x=1", 30), ..pool });
    let [first, second] = both(&world, 30);
    assert_eq!((first.ok, second.ok), (30, 30));
    assert_eq!(first.latency.values().sum::<u64>(), 30);
    assert_eq!((to_canary.load(Ordering::SeqCst), to_baseline.load(Ordering::SeqCst)), (30, 30));
    assert_eq!(samples(&world)[&Group::Stable], GroupSamples::default());
    let total = world.settled();
    assert_eq!(total.begun, 0, "the ledger counts what clients sent");
}

#[test]
fn an_instance_that_fails_or_is_away_is_counted_as_one() {
    let stable = Origin::polite("stable", Duration::from_secs(60));
    let (baseline, _) = counting();
    // Nobody listens there any more.
    let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut world = World::new();
    let pool = pool(&stable, baseline.address, away);
    world.publish_pool(Pool { synthetic: synthetic("/fails", 10), ..pool });
    let [canary, baseline] = both(&world, 10);
    assert_eq!((canary.lost, canary.failures(), canary.requests()), (10, 10, 10));
    assert_eq!((baseline.server_error, baseline.failures()), (10, 10));
}

#[test]
fn none_is_made_where_the_table_does_not_want_it_or_only_one_side_is_there() {
    let stable = Origin::polite("stable", Duration::from_secs(60));
    let ((baseline, _), (canary, to_canary)) = (counting(), counting());
    let mut world = World::new();
    let full = pool(&stable, baseline.address, canary.address);
    let mut alone = full.clone();
    alone.backends.remove(1);
    world.publish_pool(Pool { synthetic: synthetic("/", 1_000_000), ..alone });
    world.publish_pool(Pool { synthetic: synthetic("/", 1_000_000), ..full.clone() });
    eventually(|| (to_canary.load(Ordering::SeqCst) >= 5).then_some(()));
    // Both were told to begin by the same worker; the first one had nothing to do.
    world.publish_pool(full);
    // Nothing is in flight to an instance that left the routes, so nothing is counted for it later.
    world.publish(vec![backend(1, 1, stable.address)]);
    world.await_idle(backend(3, 2, canary.address).instance);
    let after = samples(&world)[&Group::Canary].synthetic;
    world.publish_pool(pool(&stable, baseline.address, canary.address));
    let mut connection = world.connect();
    for _ in 0..50 {
        connection.get("/");
    }
    world.settled();
    let counted = samples(&world);
    assert_eq!(counted[&Group::Canary].synthetic, after, "{counted:?}");
    assert!(counted[&Group::Canary].requests() > after, "clients' requests are counted");
}
