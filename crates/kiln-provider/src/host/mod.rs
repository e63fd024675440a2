//! The provider on this host: control groups, namespaces, a bridge, and an init of our own.
//!
//! Everything that must outlive this process is in `STATE/host`: what was accepted (a record per instance, before anything is
//! made of it), the identity of each init, how each program ended, and the fences. A host process that is started again adopts what
//! runs, goes on with what was accepted, and removes what carries this Kiln's name and belongs to nothing.

mod adopt;
mod anchor;
mod boot;
mod capability;
mod cgroup;
mod client;
mod confine;
mod durable;
mod exec;
mod feed;
mod fences;
mod images;
mod init;
mod instance;
mod launcher;
mod lifecycle;
mod listener;
mod log;
mod network;
mod probe;
mod provide;
mod record;
mod rootfs;
mod seccomp;
mod server;
mod stored;
mod user;
mod watcher;
mod zygote;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use kiln_model::InstanceId;

pub use self::anchor::{Anchor, UnreadableAnchor, stored_anchor};
pub use self::client::Client;
pub use self::images::{FolderImages, ImageError, Images, Place};
pub use self::listener::Listeners;
pub use self::network::NetworkError;
pub use self::server::Server;
pub use self::stored::StoredImages;
pub use self::zygote::{ZYGOTE_COMMAND, ZygoteProgram, run_zygote};

use self::cgroup::Cgroups;
use self::feed::Feed;
use self::fences::Fences;
use self::instance::Registry;
use self::launcher::Launchers;
use self::log::Collector;
use self::network::Network;
use self::probe::Prober;
use self::watcher::Watcher;
use self::zygote::Zygote;

/// Instances that are made or removed at once. Most of the time goes to locks of the kernel, so that more would only wait.
const WORKERS: usize = 4;

/// What a host needs to start.
pub struct HostConfig {
    /// The state folder; the host's own part is `host/` in it.
    pub state_dir: PathBuf,
    /// Where roots and secrets come from.
    pub images: Box<dyn Images>,
    /// Who opens sockets for the edge.
    pub listeners: Box<dyn Listeners>,
    /// The program that becomes the zygote; by default this one.
    pub zygote: ZygoteProgram,
}

/// Why a host can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Namespaces, mounts and control groups are root's.
    #[error("instances can only be run by root: start `kiln host` as root")]
    NotRoot,
    /// Another process has this state folder.
    #[error("another host process runs on {0}")]
    Running(PathBuf),
    /// The state folder's id is damaged.
    #[error("{0} does not hold an id of four characters of a-z and 2-7")]
    Id(PathBuf),
    /// The network can't be set up.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The machine refused.
    #[error("cannot {step}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl StartError {
    fn step(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Step { step, source }
    }
}

/// This host as a provider.
pub struct Host {
    folders: Folders,
    state_id: String,
    images: Box<dyn Images>,
    listeners: Box<dyn Listeners>,
    cgroups: Cgroups,
    network: Network,
    zygote: Zygote,
    launchers: Launchers,
    fences: Mutex<Fences>,
    /// Held while an anchor is written.
    anchoring: Mutex<()>,
    registry: Mutex<Registry>,
    feed: Feed,
    logs: Collector,
    watcher: Watcher,
    prober: Prober,
    jobs: Jobs,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Held as long as this host runs.
    _lock: rustix::fd::OwnedFd,
}

/// Where a host keeps its files.
#[derive(Debug)]
struct Folders {
    host: PathBuf,
    instances: PathBuf,
    /// The logs of instances that are gone.
    ended: PathBuf,
    volumes: PathBuf,
    /// An empty folder: every init mounts its root on it, in its own view.
    stage: PathBuf,
}

impl Folders {
    fn new(state: &Path) -> Self {
        let host = state.join("host");
        Self {
            instances: host.join("instances"),
            ended: host.join("ended"),
            stage: host.join("stage"),
            volumes: state.join("volumes"),
            host,
        }
    }

    fn instance(&self, id: InstanceId) -> PathBuf {
        self.instances.join(id.as_str())
    }
}

/// What a worker does. There are at most two per instance, so the queue is bounded by what a bridge takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    Start(InstanceId),
    Stop(InstanceId),
    Remove(InstanceId),
}

#[derive(Debug, Default)]
struct Jobs {
    queue: Mutex<(VecDeque<Job>, bool)>,
    changed: Condvar,
}

impl Jobs {
    fn locked(&self) -> MutexGuard<'_, (VecDeque<Job>, bool)> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Job) {
        self.locked().0.push_back(job);
        self.changed.notify_one();
    }

    fn close(&self) {
        self.locked().1 = true;
        self.changed.notify_all();
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.locked();
        loop {
            if queue.1 {
                return None;
            }
            if let Some(job) = queue.0.pop_front() {
                return Some(job);
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Host {
    /// Starts on a state folder: adopts, sweeps, goes on.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing of another Kiln is touched either way.
    pub fn start(config: HostConfig) -> Result<Arc<Self>, StartError> {
        let host = Arc::new(Self::open(config)?);
        host.recover().map_err(StartError::step("take over what this host was doing"))?;
        let mut threads = Vec::new();
        for number in 0..WORKERS {
            threads.push(spawn(&host, &format!("kiln-work-{number}"), Self::work)?);
        }
        threads.push(spawn(&host, "kiln-stock", Self::stock_launchers)?);
        threads.push(spawn(&host, "kiln-watch", Self::notice)?);
        threads.push(spawn(&host, "kiln-probe", |host| host.prober.run(host))?);
        *host.threads.lock().unwrap_or_else(PoisonError::into_inner) = threads;
        Ok(host)
    }

    /// Stops this process's part. Instances go on, and the next host adopts them.
    pub fn stop(&self) {
        self.feed.close();
        self.jobs.close();
        self.watcher.stop();
        self.prober.stop();
        self.launchers.stop(&self.cgroups);
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join();
        }
        self.logs.stop();
        self.zygote.stop();
    }

    /// Returns the id that every kernel object of this Kiln carries.
    pub fn state_id(&self) -> &str {
        &self.state_id
    }

    /// Returns the process number of the zygote.
    pub fn zygote_pid(&self) -> Option<u32> {
        self.zygote.pid()
    }

    /// Returns how many rules the table for outbound traffic has; none if there is no table.
    pub fn outbound_rules(&self) -> io::Result<Option<usize>> {
        network::nat::rule_count(&self.state_id)
    }

    /// Removes the bridge, the rules and the control groups, for a state folder that is given up: call it after [`Host::stop`], with
    /// no instance left.
    pub fn remove_traces(&self) -> io::Result<()> {
        self.network.remove()?;
        self.cgroups.remove()
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fences(&self) -> MutexGuard<'_, Fences> {
        self.fences.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spawn(host: &Arc<Host>, name: &str, run: fn(&Host)) -> Result<JoinHandle<()>, StartError> {
    let host = Arc::clone(host);
    thread::Builder::new()
        .name(name.into())
        .spawn(move || run(&host))
        .map_err(StartError::step("start a thread"))
}
