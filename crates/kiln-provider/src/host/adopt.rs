//! The start of a host: what it finds, it adopts, goes on with, or removes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use kiln_model::InstanceId;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::process::geteuid;

use super::boot::{InitIdentity, read_exit};
use super::cgroup::Cgroups;
use super::feed::Feed;
use super::fences::Fences;
use super::instance::{Instance, Leaving, Phase, Registry};
use super::launcher::Launchers;
use super::log::Collector;
use super::network::subnet::Addresses;
use super::network::{Network, bridge_name, link, netlink::Socket};
use super::probe::Prober;
use super::provide::open_init;
use super::record::{Record, read_refusal};
use super::watcher::Watcher;
use super::zygote::Zygote;
use super::{Folders, Host, HostConfig, Job, Jobs, StartError};

/// The length of a state folder's id: what is left of a link's 15 bytes beside `k` and an instance's id.
const STATE_ID_BYTES: usize = 4;

impl Host {
    /// Opens everything, without starting anything.
    pub(super) fn open(config: HostConfig) -> Result<Self, StartError> {
        if !geteuid().is_root() {
            return Err(StartError::NotRoot);
        }
        let state = fs::canonicalize(&config.state_dir).map_err(StartError::step("find the state folder"))?;
        let folders = Folders::new(&state);
        for folder in [&folders.host, &folders.instances, &folders.ended, &folders.volumes, &folders.stage] {
            fs::create_dir_all(folder).map_err(StartError::step("make the host's folders"))?;
        }
        let lock = rustix::fs::open(
            folders.host.join("lock"),
            OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC,
            Mode::from(0o600),
        )
        .map_err(|error| StartError::step("open the host's lock")(error.into()))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StartError::Running(state.clone()))?;
        let state_id = state_id(&state)?;

        let cgroups = Cgroups::open(&state_id).map_err(StartError::step("make control groups"))?;
        let network = Network::open(&state_id, &folders.host.join("subnet"))?;
        let fences = Fences::open(&folders.host).map_err(StartError::step("read the fences"))?;
        let registry = Registry {
            instances: BTreeMap::new(),
            addresses: Addresses::new(network.subnet, BTreeMap::new()),
        };
        Ok(Self {
            zygote: Zygote::start(config.zygote).map_err(StartError::step("start the zygote"))?,
            feed: Feed::new().map_err(StartError::step("get randomness"))?,
            logs: Collector::start().map_err(StartError::step("read logs"))?,
            watcher: Watcher::new().map_err(StartError::step("watch processes"))?,
            prober: Prober::new().map_err(StartError::step("probe health"))?,
            images: config.images,
            listeners: config.listeners,
            fences: Mutex::new(fences),
            anchoring: Mutex::default(),
            registry: Mutex::new(registry),
            jobs: Jobs::default(),
            launchers: Launchers::default(),
            threads: Mutex::default(),
            folders,
            state_id,
            cgroups,
            network,
            _lock: lock,
        })
    }

    /// Adopts what runs, goes on with what was accepted, and removes what belongs to nothing.
    pub(super) fn recover(&self) -> io::Result<()> {
        let records = self.read_records()?;
        let addresses = records.iter().map(|(id, record)| (*id, record.address)).collect();
        self.registry().addresses = Addresses::new(self.network.subnet, addresses);
        self.sweep(&records.keys().copied().collect())?;
        for (id, record) in records {
            self.take_over(id, record)?;
        }
        Ok(())
    }

    fn read_records(&self) -> io::Result<BTreeMap<InstanceId, Record>> {
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(&self.folders.instances)? {
            let entry = entry?;
            let id = entry.file_name().to_str().and_then(|name| name.parse::<InstanceId>().ok());
            match (id, Record::read(&entry.path())) {
                (Some(id), Ok(record)) if record.id() == id => {
                    records.insert(id, record);
                }
                // To go on would end an instance that may run well, for want of its record.
                (Some(id), Err(error)) if !is_unwritten(&error) => {
                    let why = format!("the record of instance {id} can't be read: {error}");
                    return Err(io::Error::new(error.kind(), why));
                }
                // Torn by a power failure before anything was made of it; whoever asked for it asks again.
                _ => fs::remove_dir_all(entry.path())?,
            }
        }
        Ok(records)
    }

    /// Removes links and control groups with this Kiln's name that belong to no record.
    fn sweep(&self, known: &BTreeSet<InstanceId>) -> io::Result<()> {
        let mut socket = Socket::route()?;
        let (prefix, bridge) = (format!("k{}", self.state_id), bridge_name(&self.state_id));
        for name in link::names(&mut socket)? {
            let Some(rest) = name.strip_prefix(&prefix).filter(|_| name != bridge) else { continue };
            if !rest.parse().is_ok_and(|id: InstanceId| known.contains(&id)) {
                link::delete(&mut socket, &name)?;
            }
        }
        for name in self.cgroups.names()? {
            if !name.parse().is_ok_and(|id: InstanceId| known.contains(&id)) {
                let group = self.cgroups.group(&name);
                group.kill()?;
                group.remove()?;
            }
        }
        Ok(())
    }

    fn take_over(&self, id: InstanceId, record: Record) -> io::Result<()> {
        let folder = self.folders.instance(id);
        let grace = record.request.spec.stop.grace;
        let mut instance = Instance::new(record, Phase::Queued);
        if self.fences().is_tombstoned(id) {
            instance.leaving = Leaving::Asked(grace);
        }
        let mut running = None;
        if let Some(reason) = read_refusal(&folder) {
            instance.phase = Phase::Refused(reason);
        } else if let (true, Ok(identity)) = (Collector::has_fifos(&folder), InitIdentity::read(&folder)) {
            match open_init(&identity) {
                Ok(pidfd) => {
                    instance.phase = Phase::Running;
                    running = Some(pidfd);
                }
                Err(_) => instance.phase = Phase::Ended(read_exit(&folder)),
            }
            // With it comes what an init kept while nobody read.
            self.logs.add(id, &folder)?;
        } else {
            // Accepted, and perhaps half made: an init that is there without what it would write to has waited for a word that
            // the host before never gave. It is made anew.
            self.unmake(id)?;
        }
        let (is_queued, is_leaving) = (instance.phase == Phase::Queued, instance.leaving != Leaving::No);
        let (address, check) = (instance.address(), instance.record.request.spec.health.clone());
        if running.is_some() && !is_leaving {
            match check {
                Some(check) => self.prober.add(id, address, &check, started_at(&folder)),
                None => instance.health = Some((true, "runs".into())),
            }
        }
        self.registry().instances.insert(id, instance);
        if let Some(pidfd) = running {
            self.watcher.watch(id, pidfd)?;
        }
        match (is_leaving, is_queued) {
            (true, _) => self.jobs.push(Job::Stop(id)),
            (false, true) => self.jobs.push(Job::Start(id)),
            (false, false) => {}
        }
        Ok(())
    }
}

/// Whether a record is missing or stops half-way, as [`Record::read`] says it.
fn is_unwritten(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
}

/// Returns when an instance was started, by the file that its init wrote then.
fn started_at(folder: &Path) -> Instant {
    let written = fs::metadata(folder.join(InitIdentity::FILE)).and_then(|data| data.modified()).ok();
    let age = written.and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or(Duration::ZERO);
    Instant::now().checked_sub(age).unwrap_or_else(Instant::now)
}

/// Reads the state folder's id, or makes one.
fn state_id(state: &Path) -> Result<String, StartError> {
    let path = state.join("id");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let id = text.trim();
            let valid = |b: u8| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b);
            if id.len() == STATE_ID_BYTES && id.bytes().all(valid) {
                return Ok(id.into());
            }
            Err(StartError::Id(path))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut bytes = [0; 8];
            rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
                .map_err(|error| StartError::step("get randomness")(error.into()))?;
            let id = InstanceId::from_seed(u64::from_ne_bytes(bytes)).as_str()[..STATE_ID_BYTES].to_owned();
            super::durable::replace(&path, format!("{id}\n").as_bytes())
                .map_err(StartError::step("write the state folder's id"))?;
            Ok(id)
        }
        Err(error) => Err(StartError::step("read the state folder's id")(error)),
    }
}
