//! Nothing is lost in a rollout, and a SIGKILL of the edge cuts what was in flight and nothing else.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use kiln_edge::client::EdgeEvent;
use kiln_model::InstanceId;

use crate::http::Connection;
use crate::origin::Origin;
use crate::world::{World, backend};

/// Clients that count for themselves.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    lost: Arc<Mutex<Vec<String>>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Clone, Copy)]
enum Kind {
    /// One connection for many requests, every other one a POST.
    KeptAlive,
    /// A connection for each request.
    Fresh,
    /// Streams of two seconds.
    Streams,
}

impl Load {
    fn start(address: SocketAddr, kinds: &[(Kind, usize)]) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            answered: Arc::default(),
            refused: Arc::default(),
            lost: Arc::default(),
            threads: Vec::new(),
        };
        for (kind, count) in kinds {
            for _ in 0..*count {
                load.threads.push(load.client(address, *kind));
            }
        }
        load
    }

    fn client(&self, address: SocketAddr, kind: Kind) -> JoinHandle<()> {
        let (stop, answered) = (Arc::clone(&self.stop), Arc::clone(&self.answered));
        let (lost, refused) = (Arc::clone(&self.lost), Arc::clone(&self.refused));
        std::thread::spawn(move || {
            let mut kept: Option<Connection> = None;
            for number in 0_u64.. {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let connection = match kept.take().map_or_else(|| Connection::try_open(address), Ok) {
                    Ok(connection) => connection,
                    Err(_) => {
                        refused.fetch_add(1, Ordering::SeqCst);
                        continue;
                    }
                };
                match exchange(connection, kind, number) {
                    Ok(connection) => {
                        answered.fetch_add(1, Ordering::SeqCst);
                        kept = connection;
                    }
                    Err(error) => lost.lock().unwrap().push(error.to_string()),
                }
                if !matches!(kind, Kind::Streams) {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        })
    }

    fn finish(self) -> (u64, u64, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let lost = self.lost.lock().unwrap().clone();
        (self.answered.load(Ordering::SeqCst), self.refused.load(Ordering::SeqCst), lost)
    }
}

fn exchange(mut connection: Connection, kind: Kind, number: u64) -> io::Result<Option<Connection>> {
    let (path, body) = match kind {
        Kind::Streams => ("/stream", String::new()),
        _ => ("/", format!("order {number}")),
    };
    let method = if number.is_multiple_of(2) || matches!(kind, Kind::Streams) { "GET" } else { "POST" };
    let answer = connection.try_exchange(method, path, &body)?;
    let whole = match kind {
        Kind::Streams => answer.body == "piece".repeat(20).as_bytes(),
        _ => answer.body.ends_with(body.as_bytes()),
    };
    if answer.status() != 200 || !whole {
        return Err(io::Error::other(format!("{} {}", answer.head.first_line, answer.text())));
    }
    Ok(matches!(kind, Kind::KeptAlive).then_some(connection))
}

#[test]
fn forty_rollouts_under_load_lose_nothing() {
    let idle_max = Duration::from_secs(1);
    let mut serving: Vec<Origin> = (0..2).map(|_| Origin::polite("web", idle_max)).collect();
    let mut world = World::new();
    let entries = |revision: u64, origins: &[Origin]| {
        let entry =
            |(at, origin): (usize, &Origin)| backend(revision * 10 + at as u64, revision, origin.address);
        origins.iter().enumerate().map(entry).collect::<Vec<_>>()
    };
    world.publish(entries(1, &serving));
    let load = Load::start(world.address, &[(Kind::KeptAlive, 8), (Kind::Fresh, 8), (Kind::Streams, 4)]);
    let mut retired: Vec<(InstanceId, Origin)> = Vec::new();
    for revision in 2..42 {
        let next: Vec<Origin> = (0..2).map(|_| Origin::polite("web", idle_max)).collect();
        let old = entries(revision - 1, &serving);
        let new = entries(revision, &next);
        // By halves, as a rolling strategy does.
        world.publish(vec![old[0].clone(), new[1].clone()]);
        std::thread::sleep(Duration::from_millis(50));
        world.publish(new);
        for (gone, origin) in old.iter().zip(std::mem::replace(&mut serving, next)) {
            world.edge.client.await_idle(gone.instance).unwrap();
            retired.push((gone.instance, origin));
        }
        // As soon as the edge has let go of it, and not before, a backend is shut down.
        while let Ok(EdgeEvent::Idle(idle)) = world.edge.events.recv_timeout(Duration::from_millis(50)) {
            retired.retain(|(instance, _)| *instance != idle);
        }
    }
    while !retired.is_empty() {
        let EdgeEvent::Idle(idle) = world.edge.events.recv().unwrap() else { panic!("the edge is gone") };
        retired.retain(|(instance, _)| *instance != idle);
    }
    let (answered, refused, lost) = load.finish();
    assert_eq!((refused, lost), (0, vec![]));
    let total = world.settled();
    assert_eq!((total.answered, total.lost()), (answered, 0));
    assert!(answered > 500, "{answered}");
}

#[test]
fn a_killed_edge_cuts_what_is_in_flight_and_nothing_else() {
    let origin = Origin::polite("web", Duration::from_secs(1));
    let mut world = World::routed_to(&[origin.address]);
    let load = Load::start(world.address, &[(Kind::KeptAlive, 4), (Kind::Fresh, 8), (Kind::Streams, 6)]);
    let mut counted = 0;
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(700));
        world.edge.kill();
        counted += world.ledger().total().in_flight();
        world.restart();
    }
    std::thread::sleep(Duration::from_millis(300));
    let (answered, refused, lost) = load.finish();
    assert_eq!(refused, 0, "the listener lives on: no connect is refused");
    let total = world.settled();
    assert_eq!((total.cut, total.made), (counted, 0));
    // Streams were under way each time. A connection whose request had not been read yet is cut uncounted, and one
    // whose answer was written but not yet accounted is counted uncut: few of either.
    assert!(total.cut >= 4 * 5, "{total:?}");
    assert!(lost.len() as u64 + 4 * 8 >= total.cut, "{} lost, {total:?}", lost.len());
    assert!(lost.len() as u64 <= total.cut + 4 * 12, "{lost:?}, {total:?}");
    assert!(answered > 100, "{answered}");
}
