//! The control side: publishes tables, keeps listeners, tells who is idle. Its threads never touch a request.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_model::route::{Listener, RouteTable};
use kiln_model::{Fence, InstanceId};
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::backend::lock;
use crate::limits::{ANCHOR_BYTES_MAX, LISTENERS_MAX, UNLISTEN_MAX};
use crate::persist::{EdgeFolder, Loaded};
use crate::shared::{Shared, Stop};
use crate::table::{Ground, Table};
use crate::wire::{AnchorWire, TableWire};
use crate::worker::{Gate, Job, Seat};

/// The edge as its control socket sees it.
pub(crate) struct Edge {
    pub(crate) shared: Arc<Shared>,
    seats: Arc<[Seat]>,
    folder: EdgeFolder,
    published: Mutex<Published>,
    /// Held while an anchor is written, so that two don't share a temporary file. Not the table's lock: that must not wait
    /// for the disk to take an anchor.
    anchoring: Mutex<()>,
    listeners: Mutex<BTreeMap<Listener, TcpListener>>,
}

struct Published {
    /// The highest fence that was ever acknowledged; above the table's after a damaged file.
    highest: Fence,
    table: RouteTable,
    notes: Vec<String>,
}

/// What came of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Acknowledged(Fence),
    Refused(Fence),
}

impl Edge {
    /// Begins with the table that was acknowledged last.
    pub(crate) fn start(shared: Arc<Shared>, seats: Arc<[Seat]>, folder: EdgeFolder) -> io::Result<Self> {
        let mut notes = Vec::new();
        let table = match folder.load_table()? {
            Loaded::Table(table) => table,
            Loaded::Nothing => RouteTable::default(),
            Loaded::Damaged(why) => {
                notes.push(format!(
                    "the stored route table is damaged, nothing is routed until the next one: {why}"
                ));
                RouteTable::default()
            }
        };
        let highest = table.fence.max(shared.ledger.fence());
        let edge = Self {
            shared,
            seats,
            folder,
            published: Mutex::new(Published { highest, table: RouteTable::default(), notes }),
            anchoring: Mutex::default(),
            listeners: Mutex::default(),
        };
        let compiled = edge.compile(&table);
        lock(&edge.published).table = table;
        edge.serve(compiled);
        Ok(edge)
    }

    fn compile(&self, table: &RouteTable) -> Table {
        let Shared { registry, ledger, samples, .. } = &*self.shared;
        let served = &self.shared.table.load();
        Table::compile(table, &Ground { registry, ledger, samples: samples.as_ref(), served })
    }

    fn serve(&self, table: Table) {
        let table = Arc::new(table);
        self.shared.table.store(Arc::clone(&table));
        // After the swap: what still chose by the old table finds these marks and chooses again.
        self.shared.registry.retire_others(&|backend| table.names(backend));
        for (synthesis, seat) in table.syntheses().iter().zip(self.seats.iter().cycle()) {
            seat.tell(Job::Synthesise(Arc::clone(synthesis)));
        }
    }

    /// Stores a table, then serves it. Once this has returned `Acknowledged`, no request starts by an older one, and
    /// the edge comes up with it after a crash.
    ///
    /// # Errors
    /// It could not be stored; the old one is still served.
    pub(crate) fn publish(&self, table: RouteTable) -> io::Result<Outcome> {
        let mut published = lock(&self.published);
        if table.fence < published.highest {
            return Ok(Outcome::Refused(published.highest));
        }
        let fence = table.fence;
        // The same fence is the same table, said again after a lost acknowledgement; unless ours was lost with its file.
        if fence == published.table.fence && fence == published.highest && fence != Fence::default() {
            return Ok(Outcome::Acknowledged(fence));
        }
        self.folder.put_table(&TableWire::from(&table))?;
        self.shared.ledger.put_fence(fence);
        let compiled = self.compile(&table);
        self.serve(compiled);
        (published.highest, published.table) = (fence, table);
        published.notes.clear();
        Ok(Outcome::Acknowledged(fence))
    }

    /// Returns the table that is served, and what is wrong.
    pub(crate) fn table(&self) -> (TableWire, Vec<String>) {
        let published = lock(&self.published);
        (TableWire::from(&published.table), published.notes.clone())
    }

    /// Whether nothing is in flight to an instance, which no table names.
    pub(crate) fn is_idle(&self, instance: InstanceId) -> bool {
        self.shared.registry.is_idle(instance)
    }

    /// Accepts connections from a socket that is listening. Another one for the same key takes the first one's place.
    pub(crate) fn add_listener(&self, key: Listener, socket: OwnedFd) -> Result<(), String> {
        check_listening(&socket).map_err(|error| error.to_string())?;
        let socket = TcpListener::from(socket);
        socket.set_nonblocking(true).map_err(|error| error.to_string())?;
        let mut listeners = lock(&self.listeners);
        if listeners.len() >= LISTENERS_MAX && !listeners.contains_key(&key) {
            return Err(format!("an edge has at most {LISTENERS_MAX} listeners"));
        }
        let gate = Gate::new(key);
        for seat in &*self.seats {
            let own = socket.try_clone().map_err(|error| error.to_string())?;
            seat.tell(Job::Listen(Arc::clone(&gate), own));
        }
        listeners.insert(key, socket);
        Ok(())
    }

    /// Stops accepting; on return the edge has no descriptor of the socket left. It and its backlog stay with whoever else
    /// has it.
    ///
    /// # Errors
    /// A worker did not let go of it in time.
    pub(crate) fn remove_listener(&self, key: Listener) -> Result<(), String> {
        // The lock is held while the workers let go, so that an `add_listener` for the same key comes after it in each inbox.
        let mut listeners = lock(&self.listeners);
        listeners.remove(&key);
        let (released, all_released) = mpsc::channel();
        self.seats.iter().for_each(|seat| seat.tell(Job::Unlisten(key, released.clone())));
        drop(released);
        match all_released.recv_timeout(UNLISTEN_MAX) {
            Err(RecvTimeoutError::Disconnected) => Ok(()),
            Err(RecvTimeoutError::Timeout) => {
                Err(format!("a thread of the edge has not let go of {key} for {UNLISTEN_MAX:?}"))
            }
        }
    }

    /// Returns listeners from a place on, and whether there are more.
    pub(crate) fn listeners(
        &self,
        from: usize,
        at_most: usize,
    ) -> io::Result<(Vec<(Listener, OwnedFd)>, bool)> {
        let listeners = lock(&self.listeners);
        let page = listeners.iter().skip(from).take(at_most);
        let page: Vec<_> = page
            .map(|(key, socket)| Ok((*key, OwnedFd::from(socket.try_clone()?))))
            .collect::<io::Result<_>>()?;
        let more = from + page.len() < listeners.len();
        Ok((page, more))
    }

    /// Stores an anchor and when that was; durable on return.
    pub(crate) fn put_anchor(&self, anchor: AnchorWire) -> io::Result<()> {
        if anchor.position.len() + anchor.hash.len() > ANCHOR_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the anchor is too long"));
        }
        let _anchoring = lock(&self.anchoring);
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_ms = u64::try_from(since_epoch.as_millis()).ok();
        self.folder.put_anchor(&AnchorWire { at_ms, ..anchor })
    }

    pub(crate) fn anchor(&self) -> Option<AnchorWire> {
        self.folder.load_anchor()
    }

    pub(crate) fn advance_stop(&self, stop: Stop) {
        self.shared.advance_stop(stop);
        self.seats.iter().for_each(|seat| seat.tell(Job::Stop));
    }
}

fn check_listening(socket: &OwnedFd) -> io::Result<()> {
    let wrong = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    let domain = sockopt::socket_domain(socket)?;
    if !matches!(domain, AddressFamily::INET | AddressFamily::INET6) {
        return wrong("the listener is not an internet socket");
    }
    if sockopt::socket_type(socket)? != SocketType::STREAM || !sockopt::socket_acceptconn(socket)? {
        return wrong("the listener is not a listening TCP socket");
    }
    Ok(())
}
