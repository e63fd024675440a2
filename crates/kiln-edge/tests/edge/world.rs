//! An edge with one listener, and tables for it.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;

use kiln_edge::client::{EdgeEvent, Published};
use kiln_edge::ledger::{Counts, LedgerSnapshot};
use kiln_model::route::{Backend, Group, Listener, Pool, PoolKey, RouteTable, Rule};
use kiln_model::{
    EnvKey, EnvName, Fence, InstanceId, Position, RevisionNumber, ServiceName, StackName, Term, Weight,
};

use crate::http::Connection;
use crate::process::EdgeProcess;

pub(crate) struct World {
    pub(crate) state: tempfile::TempDir,
    pub(crate) edge: EdgeProcess,
    /// Held by the test, as the host does: it survives the edge.
    pub(crate) listener: TcpListener,
    pub(crate) address: SocketAddr,
    position: u64,
}

pub(crate) fn pool_key(service: &str) -> PoolKey {
    let env = EnvKey { stack: StackName::new("shop").unwrap(), env: EnvName::new("dev").unwrap() };
    PoolKey { env, service: ServiceName::new(service).unwrap(), port: 80 }
}

pub(crate) fn fence(position: u64) -> Fence {
    Fence { term: Term(1), position: Position(position) }
}

/// One backend of the service `web`.
pub(crate) fn backend(seed: u64, revision: u64, address: SocketAddr) -> Backend {
    let (instance, revision) = (InstanceId::from_seed(seed), RevisionNumber(revision));
    Backend { instance, revision, address, weight: Weight::FULL, group: Group::Stable }
}

impl World {
    pub(crate) fn new() -> Self {
        let state = tempfile::tempdir_in("/var/tmp").unwrap();
        let edge = EdgeProcess::start(state.path());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let world = Self { state, edge, listener, address, position: 0 };
        world.give_listener();
        world
    }

    /// A world whose every request goes to these addresses.
    pub(crate) fn routed_to(addresses: &[SocketAddr]) -> Self {
        let mut world = Self::new();
        let entry = |(at, address): (usize, &SocketAddr)| backend(at as u64 + 1, 1, *address);
        world.publish(addresses.iter().enumerate().map(entry).collect());
        world
    }

    pub(crate) fn key(&self) -> Listener {
        Listener::Public(self.address)
    }

    pub(crate) fn give_listener(&self) {
        self.edge.client.add_listener(self.key(), self.listener.as_fd()).unwrap();
    }

    pub(crate) fn restart(&mut self) {
        self.edge = EdgeProcess::start(self.state.path());
        self.give_listener();
    }

    pub(crate) fn rule(&self, host: Option<&str>, path: &str, service: &str) -> Rule {
        let host = host.map(str::to_owned);
        Rule { listener: self.key(), host, path: path.to_owned(), pool: pool_key(service) }
    }

    pub(crate) fn table(&mut self, backends: Vec<Backend>) -> RouteTable {
        self.position += 1;
        RouteTable {
            fence: fence(self.position),
            rules: vec![self.rule(None, "/", "web")],
            pools: BTreeMap::from([(pool_key("web"), Arc::new(Pool { backends, ..Pool::default() }))]),
        }
    }

    pub(crate) fn publish(&mut self, backends: Vec<Backend>) {
        let table = self.table(backends);
        self.publish_table(&table);
    }

    /// As `publish`, with all that a pool has.
    pub(crate) fn publish_pool(&mut self, pool: Pool) {
        let mut table = self.table(vec![]);
        table.pools.insert(pool_key("web"), Arc::new(pool));
        self.publish_table(&table);
    }

    pub(crate) fn publish_table(&self, table: &RouteTable) {
        let published = self.edge.client.publish(table).unwrap();
        assert_eq!(published, Published::Acknowledged(table.fence));
    }

    /// Blocks until the edge has let go of an instance.
    pub(crate) fn await_idle(&self, instance: InstanceId) {
        self.edge.client.await_idle(instance).unwrap();
        loop {
            match self.edge.events.recv().unwrap() {
                EdgeEvent::Idle(idle) if idle == instance => return,
                EdgeEvent::Idle(_) => {}
                EdgeEvent::Disconnected => panic!("the edge is gone"),
            }
        }
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    pub(crate) fn ledger(&self) -> LedgerSnapshot {
        kiln_edge::ledger::read(&self.state.path().join("edge/ledger")).unwrap()
    }

    /// What became of the requests, once nothing is in flight.
    pub(crate) fn settled(&self) -> Counts {
        crate::process::eventually(|| Some(self.ledger().total()).filter(|total| total.in_flight() == 0))
    }
}
