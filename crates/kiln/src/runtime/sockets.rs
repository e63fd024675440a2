//! The listening sockets: opened by the host, served by the edge, lost by neither alone.
//!
//! The host keeps a handle on every socket, so that killing the edge refuses no connect: what arrives waits in the
//! socket's queue for the next edge. A new host takes them back from a living edge, or opens them again from its list.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kiln_edge::client::{ClientError, EdgeClient};
use kiln_model::route::Listener;
use kiln_provider::host::Listeners;
use rustix::fd::{AsFd, OwnedFd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use super::paths::StateDir;

/// Connections that wait to be accepted while the edge is away or busy; the kernel caps it at `somaxconn`.
const BACKLOG: i32 = 4096;
/// How long a starting edge has to answer. It loads one file.
const EDGE_WITHIN: Duration = Duration::from_secs(20);
const EDGE_POLL: Duration = Duration::from_millis(2);

/// The sockets of one Kiln.
pub(super) struct Sockets {
    state: StateDir,
    open: Mutex<BTreeMap<Listener, Socket>>,
}

struct Socket {
    address: SocketAddr,
    socket: TcpListener,
}

impl Sockets {
    /// Takes back what a living edge serves, and opens what the list has beyond that.
    pub(super) fn recover(state: &StateDir) -> Self {
        let sockets = Self { state: state.clone(), open: Mutex::default() };
        let served = EdgeClient::connect(&state.edge_socket())
            .and_then(|(edge, _)| edge.listeners())
            .unwrap_or_default();
        for (listener, fd) in served {
            let socket = TcpListener::from(fd);
            if let Ok(address) = socket.local_addr() {
                sockets.lock().insert(listener, Socket { address, socket });
            }
        }
        sockets
    }

    /// Opens what an earlier host had open and is not open now. `place` puts an internal listener's address on the bridge,
    /// which a restart of the machine removed.
    pub(super) fn reopen(&self, place: impl Fn(u8) -> io::Result<()>) {
        for (listener, address) in self.listed() {
            if self.lock().contains_key(&listener) {
                continue;
            }
            let placed = match listener {
                Listener::Internal(index) => place(index),
                Listener::Public(_) => Ok(()),
            };
            match placed.and_then(|()| bind(address)) {
                Ok(socket) => drop(self.lock().insert(listener, Socket { address, socket })),
                Err(error) => tracing::error!(%listener, %address, %error, "cannot be opened again"),
            }
        }
    }

    /// Hands every socket to an edge that was just started. The edge answers as soon as it has loaded its table.
    pub(super) fn hand_over(&self) {
        let begin = Instant::now();
        let edge = loop {
            match EdgeClient::connect(&self.state.edge_socket()) {
                Ok((edge, _)) => break edge,
                Err(error) if begin.elapsed() > EDGE_WITHIN => {
                    tracing::error!(%error, "the edge does not answer");
                    return;
                }
                Err(_) => thread::sleep(EDGE_POLL),
            }
        };
        for (listener, socket) in self.lock().iter() {
            if let Err(error) = edge.add_listener(*listener, socket.socket.as_fd()) {
                tracing::error!(%listener, %error, "the edge does not take a socket");
            }
        }
    }

    /// Gives a socket to the edge that runs now.
    fn hand(&self, listener: Listener, socket: &Socket) -> Result<(), String> {
        let handed = EdgeClient::connect(&self.state.edge_socket())
            .and_then(|(edge, _)| edge.add_listener(listener, socket.socket.as_fd()));
        match handed {
            // Not there yet, or just gone. The one that is started next is handed every socket that is open, and what comes
            // until then waits in the socket's queue.
            Err(ClientError::Connection(error)) => {
                tracing::info!(%listener, %error, "opened before the edge could be reached");
                Ok(())
            }
            handed => handed.map_err(|error| format!("the edge does not take {listener}: {error}")),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Listener, Socket>> {
        // Every change is one insert or remove, so a thread that panicked left nothing half done.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list_path(&self) -> PathBuf {
        self.state.path().join("host/listeners.json")
    }

    /// What the list says; a list that can't be read is empty, and the controller opens anew what it needs.
    fn listed(&self) -> Vec<(Listener, SocketAddr)> {
        let text = fs::read(self.list_path()).unwrap_or_default();
        let wire: BTreeMap<String, String> = serde_json::from_slice(&text).unwrap_or_default();
        wire.iter()
            .filter_map(|(listener, address)| Some((listener.parse().ok()?, address.parse().ok()?)))
            .collect()
    }

    fn write_list(&self, open: &BTreeMap<Listener, Socket>) -> io::Result<()> {
        let wire: BTreeMap<String, String> = open
            .iter()
            .map(|(listener, socket)| (listener.to_string(), socket.address.to_string()))
            .collect();
        let (path, new) = (self.list_path(), self.list_path().with_extension("new"));
        let mut file = fs::File::create(&new)?;
        file.write_all(&serde_json::to_vec(&wire)?)?;
        file.sync_all()?;
        fs::rename(new, path)
    }
}

impl Listeners for Sockets {
    fn open(&self, listener: Listener, address: SocketAddr) -> Result<(), String> {
        let mut open = self.lock();
        if open.contains_key(&listener) {
            return self.hand(listener, &open[&listener]);
        }
        let socket = bind(address).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => format!("{address} is in use by another process"),
            _ => format!("cannot listen on {address}: {error}"),
        })?;
        open.insert(listener, Socket { address, socket });
        let remembered =
            self.write_list(&open).map_err(|error| format!("cannot remember {listener}: {error}"));
        let opened = remembered.and_then(|()| self.hand(listener, &open[&listener]));
        if opened.is_err() {
            // Whoever connected would wait for ever, and nobody is told to close what was not opened.
            open.remove(&listener);
            let _ = self.write_list(&open);
        }
        opened
    }

    fn close(&self, listener: Listener) -> Result<(), String> {
        let mut open = self.lock();
        let fail = |error: &dyn std::fmt::Display| format!("the edge does not give up {listener}: {error}");
        let (edge, _) = EdgeClient::connect(&self.state.edge_socket()).map_err(|error| fail(&error))?;
        edge.remove_listener(listener).map_err(|error| fail(&error))?;
        open.remove(&listener);
        self.write_list(&open).map_err(|error| format!("cannot forget {listener}: {error}"))
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    // A restart must not wait for the old connections' TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(bind(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_socket_is_opened_also_while_no_edge_runs_and_what_connects_waits() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("host")).unwrap();
        let sockets = Sockets::recover(&StateDir::new(folder.path()));
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        sockets.open(Listener::Public(address), address).unwrap();
        std::net::TcpStream::connect(address).unwrap();
        assert_eq!(sockets.listed(), [(Listener::Public(address), address)], "the next host opens it again");
    }

    #[test]
    fn a_socket_that_is_said_not_to_be_open_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let sockets = Sockets::recover(&StateDir::new(folder.path()));
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = sockets.open(Listener::Public(address), address).unwrap_err();
        assert!(error.contains("cannot remember"), "there is no folder for the list: {error}");
        TcpListener::bind(address).unwrap();
        fs::create_dir(folder.path().join("host")).unwrap();
        sockets.open(Listener::Public(address), address).unwrap();
        assert_eq!(sockets.listed(), [(Listener::Public(address), address)]);
    }
}
