//! The controller's link to the host: actions out, transitions back.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use kiln_core::{Action, ActionKind, Observation};
use kiln_provider::host::Client;
use kiln_provider::{Cursor, Provider, ProviderError, Watched};

use super::outbox::{Deliveries, Next, Outbox, outbox};
use super::translation::{Answer, Request, listed, seen};
use crate::controller::{Ended, Handle, Peer};

/// Workers that carry actions out side by side: an instance takes milliseconds of mostly waiting, and a rollout of many
/// must not wait for each in turn. Actions on one instance go to one worker, so they stay in order.
const WORKERS: usize = 4;
/// How long a host that is away is left alone. `kiln host` restarts within tens of milliseconds.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How often the watcher looks up from an idle stream, to see whether a list was asked for.
const WATCH_FOR: Duration = Duration::from_millis(200);

/// The sending side, held by the controller.
#[derive(Debug)]
pub(super) struct HostLink {
    workers: Vec<Outbox>,
    relist: Arc<AtomicBool>,
}

impl HostLink {
    /// Starts the threads; they end with the controller.
    pub(super) fn start(host: &Arc<Client>, handle: &Handle) -> std::io::Result<Self> {
        let relist = Arc::new(AtomicBool::new(false));
        let away = Arc::new(AtomicBool::new(false));
        let mut workers = Vec::new();
        for number in 0..WORKERS {
            let (sender, deliveries) = outbox();
            let (host, handle, away) = (host.clone(), handle.clone(), away.clone());
            let worker = Worker { host, handle, deliveries, away };
            thread::Builder::new().name(format!("host-{number}")).spawn(move || worker.run())?;
            workers.push(sender);
        }
        let watcher = Watcher { host: host.clone(), handle: handle.clone(), relist: relist.clone() };
        thread::Builder::new().name("host-watch".into()).spawn(move || watcher.run())?;
        Ok(Self { workers, relist })
    }

    /// Queues an action for the worker of its subject.
    pub(super) fn send(&self, action: Action) {
        let mut hasher = DefaultHasher::new();
        match &action.kind {
            ActionKind::CreateInstance { id, .. } | ActionKind::DestroyInstance { id, .. } => {
                id.hash(&mut hasher)
            }
            ActionKind::OpenListener(listener) | ActionKind::CloseListener(listener) => {
                listener.hash(&mut hasher)
            }
            ActionKind::PublishTable(_) | ActionKind::AwaitIdle(_) => return,
        }
        self.workers[hasher.finish() as usize % WORKERS].send(action);
    }

    /// Has the watcher ask for a complete list.
    pub(super) fn relist(&self) {
        self.relist.store(true, Ordering::Release);
    }
}

struct Worker {
    host: Arc<Client>,
    handle: Handle,
    deliveries: Deliveries,
    /// Whether it was told that the host is away, by whichever worker noticed first.
    away: Arc<AtomicBool>,
}

impl Worker {
    fn run(mut self) {
        loop {
            let result = match self.deliveries.next() {
                Next::Deliver(action) => self.deliver(action),
                Next::AskAgain => self.handle.reconnected(Peer::Host),
                Next::End => return,
            };
            if result.is_err() {
                return;
            }
        }
    }

    fn deliver(&self, action: Action) -> Result<(), Ended> {
        let fence = action.fence;
        match action.kind {
            ActionKind::CreateInstance { .. } | ActionKind::DestroyInstance { .. } => {
                let Some(request) = Request::of(action) else { return Ok(()) };
                self.settle(request.carry_out(&*self.host), || match &request {
                    Request::Create(request) => format!("create {}", request.id),
                    Request::Destroy(request) => format!("destroy {}", request.id),
                })
            }
            ActionKind::OpenListener(listener) => match self.host.open_listener(listener, fence) {
                Ok(_) => {
                    self.answered();
                    self.handle.observe(Observation::ListenerOpened { listener, fence })
                }
                // A socket that can't be opened now fails the step that waits for it: a port in use does not free itself.
                Err(ProviderError::Failed { reason }) => {
                    self.handle.observe(Observation::ListenerFailed { listener, fence, reason })
                }
                Err(error) => {
                    let refused = |reason| Observation::ListenerFailed { listener, fence, reason };
                    self.settle(Answer::of(Err(error), refused), || format!("open {listener}"))
                }
            },
            ActionKind::CloseListener(listener) => match self.host.close_listener(listener, fence) {
                Ok(()) => {
                    self.answered();
                    self.handle.observe(Observation::ListenerClosed { listener, fence })
                }
                Err(error) => {
                    self.later(&format!("close {listener}"), &error);
                    Ok(())
                }
            },
            ActionKind::PublishTable(_) | ActionKind::AwaitIdle(_) => Ok(()),
        }
    }

    /// Tells the controller what will stay refused; what may succeed later is asked for again.
    fn settle(&self, answer: Answer, what: impl FnOnce() -> String) -> Result<(), Ended> {
        match answer {
            Answer::Accepted => self.answered(),
            Answer::Refused(observation) => return self.handle.observe(observation),
            Answer::TooLate(error) => tracing::info!(%error, "a late action was refused"),
            Answer::Later(error) => self.later(&what(), &error),
        }
        Ok(())
    }

    /// Has an action asked for again, and tells why: of a host that is away once, for it is away for every action.
    fn later(&self, what: &str, error: &ProviderError) {
        let is_away = matches!(error, ProviderError::Away(_));
        if !is_away {
            self.answered();
        }
        if !is_away || !self.away.swap(true, Ordering::AcqRel) {
            tracing::warn!(%error, "the host did not {what}; it is asked again");
        }
        self.deliveries.failed();
    }

    fn answered(&self) {
        self.away.store(false, Ordering::Release);
    }
}

struct Watcher {
    host: Arc<Client>,
    handle: Handle,
    relist: Arc<AtomicBool>,
}

/// Why watching stopped.
enum Broken {
    Host(ProviderError),
    Controller,
}

impl From<Ended> for Broken {
    fn from(_: Ended) -> Self {
        Self::Controller
    }
}

impl From<ProviderError> for Broken {
    fn from(error: ProviderError) -> Self {
        Self::Host(error)
    }
}

impl Watcher {
    fn run(self) {
        let mut told = false;
        loop {
            match self.watch() {
                Ok(()) => {}
                Err(Broken::Controller) => return,
                Err(Broken::Host(error)) => {
                    // Once is enough: a host that is away is away at every attempt.
                    if !told {
                        tracing::warn!(%error, "the host is away");
                    }
                    told = true;
                    thread::sleep(RETRY_AFTER);
                    continue;
                }
            }
            told = false;
        }
    }

    /// One life of the connection: what is outstanding is issued again, everything is listed, then watched.
    fn watch(&self) -> Result<(), Broken> {
        let cursor = self.list(true)?;
        let mut stream = self.host.watch(cursor)?;
        loop {
            if self.relist.swap(false, Ordering::AcqRel) {
                self.list(false)?;
            }
            match stream.next(WATCH_FOR)? {
                None => {}
                Some(Watched::Relist { .. }) => return Ok(()),
                Some(Watched::Transition { id, transition, .. }) => {
                    self.handle.observe(seen(id, transition))?
                }
            }
        }
    }

    fn list(&self, reconnected: bool) -> Result<Cursor, Broken> {
        // Before the list is asked for: what is recorded later may rightly be missing from it.
        let as_of = self.handle.head();
        let listing = self.host.list()?;
        if reconnected {
            // Not before the list: what an action comes to is then told after the cursor, where it is watched.
            self.handle.reconnected(Peer::Host)?;
        }
        for observation in listed(as_of, &listing) {
            self.handle.observe(observation)?;
        }
        Ok(listing.cursor)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use kiln_model::{Fence, InstanceId, Millis};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_host_that_is_away_is_told_of_once_and_again_after_it_was_there() {
        let (handle, _inbox) = crate::controller::channel();
        let (_sender, deliveries) = outbox();
        let folder = tempfile::tempdir().unwrap();
        let host = Arc::new(Client::new(folder.path().join("host.sock")));
        let worker = Worker { host, handle, deliveries, away: Arc::default() };
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let destroy = |seed| {
            let id = InstanceId::from_seed(seed);
            let kind = ActionKind::DestroyInstance { id, grace: Millis(0) };
            worker.deliver(Action { fence: Fence::default(), kind }).unwrap();
        };
        tracing::subscriber::with_default(subscriber, || {
            (0..20).for_each(destroy);
            worker.answered();
            (0..20).for_each(destroy);
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("did not destroy"), "{text}");
    }
}
