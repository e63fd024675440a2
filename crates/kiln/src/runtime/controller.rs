//! `kiln controller`: the one writer, its links and its API, in one process.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use kiln_core::{ActionKind, Command, Refusal, Reply, State};
use kiln_model::instance::SecretRef;
use kiln_model::release::{Release, RevisionSpec};
use kiln_model::route::Sampling;
use kiln_model::{Actor, Digest, Entry, EnvKey, Position, ServiceName};
use kiln_provider::host::Client;
use kiln_store::lease::{LeaseError, LeaseHolder};
use kiln_store::log::OpenLogError;
use kiln_store::{EventLog, Store, sealed};

use super::anchors::{self, Anchors};
use super::collector::{self, CollectorError, SharedCollector};
use super::counted::Counted;
use super::edge_link::EdgeLink;
use super::foretelling;
use super::host_link::HostLink;
use super::notices;
use super::packs;
use super::paths::StateDir;
use super::process::{self, ProcessError};
use super::receipts;
use super::{asking, measuring};
use crate::api::canaries::Traffic;
use crate::api::history::Seen;
use crate::api::{history, server, wire};
use crate::controller::event_log::StoredLog;
use crate::controller::step::chain;
use crate::controller::{self, CommandError, DueAction, Effects, Handle, SystemClock};

/// How long a controller that is being replaced has to let go of the log. It was killed, so its locks go with it.
const LOG_WITHIN: Duration = Duration::from_secs(10);
/// How long folding the log may take before the API opens anyway and says that it is starting.
const FOLD_WITHIN: Duration = Duration::from_secs(30);

/// Runs the controller until another one takes over or it is told to stop.
///
/// # Errors
/// See [`ProcessError`]; the supervisor starts it again.
pub fn run(state: &StateDir, holds_lock: bool) -> Result<(), ProcessError> {
    let _alive = process::begin("controller", state, holds_lock)?;
    let store = Store::open(state.path()).map_err(ProcessError::because("open the store"))?;
    let log = open_log(state)?;
    anchors::keep_telling(state, log.watch_head()).map_err(ProcessError::because("start a thread"))?;
    let (handle, inbox) = controller::channel();
    let host = Arc::new(Client::new(state.host_socket()));
    let counted = Arc::new(Counted::default());
    let links = Links {
        host: HostLink::start(&host, &handle).map_err(ProcessError::because("start a thread"))?,
        edge: EdgeLink::start(state.edge_socket(), handle.clone(), Arc::clone(&counted))
            .map_err(ProcessError::because("start a thread"))?,
    };
    let collector =
        collector::start(&handle, &store, state).map_err(ProcessError::because("start a thread"))?;
    let folder = || state.path().to_owned();
    asking::start(handle.clone(), folder()).map_err(ProcessError::because("start a thread"))?;
    measuring::start(handle.clone(), folder()).map_err(ProcessError::because("start a thread"))?;
    notices::start(handle.clone(), state).map_err(ProcessError::because("start to tell of rollouts"))?;
    receipts::start(handle.clone(), state).map_err(ProcessError::because("start a thread"))?;
    let api = Api { handle: handle.clone(), store, state: state.clone(), collector, counted };
    thread::Builder::new()
        .name("api".into())
        .spawn(move || {
            if let Err(error) = api.serve() {
                // Without its API nobody can ask for anything: the supervisor starts a new controller.
                tracing::error!(%error, "the API ended");
                let _ = handle.stop();
            }
        })
        .map_err(ProcessError::because("start a thread"))?;
    let end = controller::run(inbox, log, links, SystemClock::default());
    let end = end.map_err(ProcessError::because("take over from the log"))?;
    tracing::info!(?end, "the controller ends");
    Ok(())
}

/// Opens the log, unless it is not what others remember: a controller that acted on a part of it would destroy what the rest
/// created.
fn open_log(state: &StateDir) -> Result<StoredLog, ProcessError> {
    let begin = Instant::now();
    let anchors = Anchors::read(state);
    for reason in &anchors.unreadable {
        tracing::warn!(reason, "an anchor of the log can't be read, and is written anew");
    }
    loop {
        match StoredLog::open(state.path()) {
            Ok(log) => {
                log.check_anchors(&anchors.found).map_err(ProcessError::because("take over from the log"))?;
                return Ok(log);
            }
            Err(OpenLogError::Locked { .. }) if begin.elapsed() < LOG_WITHIN => {
                thread::sleep(Duration::from_millis(10))
            }
            Err(error) => return Err(ProcessError::because("open the log")(error)),
        }
    }
}

/// So many damaged packs are named.
const DAMAGED_SHOWN_MAX: usize = 10;

/// Where actions go.
struct Links {
    host: HostLink,
    edge: EdgeLink,
}

impl Effects for Links {
    fn execute(&mut self, action: DueAction) {
        let action = action.into_inner();
        match &action.kind {
            ActionKind::PublishTable(_) | ActionKind::AwaitIdle(_) => self.edge.send(action),
            ActionKind::OpenListener(_)
            | ActionKind::CloseListener(_)
            | ActionKind::CreateInstance { .. }
            | ActionKind::DestroyInstance { .. } => self.host.send(action),
        }
    }

    fn relist(&mut self) {
        self.host.relist();
        self.edge.relist();
    }
}

/// What the API shows and asks.
struct Api {
    handle: Handle,
    store: Store,
    state: StateDir,
    collector: SharedCollector,
    counted: Arc<Counted>,
}

impl Api {
    fn serve(self) -> io::Result<()> {
        // Nobody should be shown an empty state that is only not read yet.
        self.handle.wait_past(Position(0), FOLD_WITHIN);
        let socket = self.state.api_socket();
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::bind(&socket)?;
            server::serve(listener, Arc::new(self), std::future::pending()).await
        })
    }
}

impl Api {
    /// Something that a revision refers to and that is not stored.
    fn missing(&self, blobs: &[Digest], spec: &RevisionSpec) -> Option<String> {
        if let Some(blob) = blobs.iter().find(|blob| !self.store.blobs.contains(blob)) {
            return Some(format!("{blob} is not stored"));
        }
        let signing = spec.webhooks.values().map(|it| (&it.secret.name, &it.secret.version));
        for (name, version) in signing.chain(&spec.credentials) {
            if !sealed::is_kept(self.state.path(), version) {
                return Some(format!("version {version} of secret {name} is not kept"));
            }
        }
        let mut images = BTreeSet::new();
        for (name, service) in &spec.services {
            let image = service.spec.image;
            if images.insert(image) && !self.store.images.contains(&image) {
                return Some(format!("the image {} of {name} is not stored", image.short()));
            }
            let versions = service.spec.secrets.values();
            let is_lost = |secret: &&SecretRef| !sealed::is_kept(self.state.path(), &secret.version);
            if let Some(secret) = versions.into_iter().find(is_lost) {
                return Some(format!("version {} of secret {} is not kept", secret.version, secret.name));
            }
        }
        None
    }
}

/// Names whoever is storing: what they store is wanted, and nothing says so yet.
fn unfinished(holders: &[LeaseHolder]) -> String {
    let holders: Vec<String> =
        holders.iter().map(|holder| format!("{} (process {})", holder.purpose, holder.pid)).collect();
    match holders.as_slice() {
        [] => "something is being stored".into(),
        some => format!("not finished: {}", some.join(", ")),
    }
}

impl server::Backend for Api {
    fn command(&self, command: Command, actor: Actor) -> Result<Reply, CommandError> {
        // Who asks holds a lease, but may die before the answer: what is recorded must be there whoever lives.
        let _lease = match &command {
            Command::Up { .. } => Some(
                self.store
                    .leases
                    .take("record a revision")
                    .map_err(|error| CommandError::NotRecorded { reason: error.to_string() })?,
            ),
            _ => None,
        };
        if let Command::Up { release, binding, spec, .. } = &command {
            let missing = self.missing(&[*release, *binding], spec);
            if let Some(reason) = missing {
                return Err(CommandError::Refused(Refusal::InvalidRevision { reason }));
            }
        }
        foretelling::with_prediction(&self.handle, &self.state, command, actor)
    }

    fn state(&self) -> Arc<State> {
        self.handle.state()
    }

    fn trouble(&self) -> Option<String> {
        self.handle.trouble()
    }

    fn disk(&self) -> Option<wire::Disk> {
        self.collector.disk()
    }

    fn damaged(&self) -> Vec<String> {
        // Bounded, as everything that people are to read: the first ones tell what happened to the disk.
        self.store.pack_damage().iter().take(DAMAGED_SHOWN_MAX).map(packs::told).collect()
    }

    fn wait_past(&self, position: Position, timeout: Duration) -> Arc<State> {
        self.handle.wait_past(position, timeout)
    }

    fn events(&self, after: Position, max: usize) -> Result<Vec<Entry>, String> {
        let log = EventLog::open_read_only(self.state.path()).map_err(|error| error.to_string())?;
        let entries = log.read(Position(after.0 + 1));
        entries.take(max).collect::<Result<_, _>>().map_err(|error| error.to_string())
    }

    fn rollouts(&self, env: &EnvKey, max: usize) -> Result<Vec<wire::RolloutRecord>, String> {
        let log = EventLog::open_read_only(self.state.path()).map_err(|error| error.to_string())?;
        history::latest(log.read_rollouts_back(env), max).map_err(|error| error.to_string())
    }

    fn rollout(&self, env: &EnvKey, id: u64) -> Result<Option<wire::RolloutRecord>, String> {
        let log = EventLog::open_read_only(self.state.path()).map_err(|error| error.to_string())?;
        // What follows it belongs to it until the next one starts, which is not read any more.
        let mut entries = log.read_rollouts(env, Position(id)).peekable();
        if !matches!(entries.peek(), Some(Ok(entry)) if entry.position.0 == id) {
            return match entries.next() {
                Some(Err(error)) => Err(error.to_string()),
                _ => Ok(None),
            };
        }
        let first = entries.peek().and_then(|entry| entry.as_ref().ok()).cloned();
        let mut failure = None;
        let readable =
            entries.map_while(|entry| entry.map_err(|error| failure = Some(error.to_string())).ok());
        let mut record = history::record(readable);
        if let Some(failure) = failure {
            return Err(failure);
        }
        if let (Some(record), Some(first)) = (&mut record, first)
            && record.predicted.is_none()
        {
            history::expect(record, &first, &foretelling::seen_before(&log, env, id)?);
        }
        Ok(record)
    }

    fn traffic(&self, env: &EnvKey, service: &ServiceName, sampling: Sampling) -> Option<Traffic> {
        self.counted.of(env, service, sampling)
    }

    fn seen(&self, env: &EnvKey) -> Result<Seen, String> {
        let log = EventLog::open_read_only(self.state.path()).map_err(|error| error.to_string())?;
        Seen::read(log.read_rollouts_back(env)).map_err(|error| error.to_string())
    }

    fn release(&self, digest: &Digest) -> Result<Release, String> {
        self.store.releases.release(digest).map_err(|error| error.to_string())
    }

    fn has_binding(&self, digest: &Digest) -> bool {
        self.store.releases.binding(digest).is_ok()
    }

    fn collect(&self, request: &wire::Collect) -> Result<wire::Collection, wire::Problem> {
        self.collector.ask(request).map_err(|error| {
            let problem = |kind: &str, code: &str, message: String| wire::Problem {
                kind: kind.into(),
                code: code.into(),
                message,
            };
            match &error {
                CollectorError::Lease(LeaseError::Held { holders }) => {
                    problem("refused", "storing", unfinished(holders))
                }
                error => problem("unavailable", "not_collected", chain(error)),
            }
        })
    }
}
