//! One thread that probes the health of all instances.

mod attempt;
mod expected;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kiln_model::InstanceId;
use kiln_model::instance::{HealthCheck, Probe};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};

use self::attempt::{Attempt, Begun, Outcome, Waits};
use self::verdict::Judge;

/// How many answers are taken at once; the rest follow at once.
const EVENTS_MAX: usize = 64;
const WAKE: u64 = u64::MAX;
/// A verdict's detail ends up in the log and on a screen.
const DETAIL_CHARS_MAX: usize = 400;

/// What the prober needs from the host.
pub(crate) trait ProbeHost {
    /// Starts a command in an instance and returns the pipe on which its report comes, which must not block. `captures`: with
    /// what it prints.
    fn start_command(
        &self,
        id: InstanceId,
        argv: &[String],
        timeout: Duration,
        captures: bool,
    ) -> Result<OwnedFd, String>;
    /// An instance turned healthy or unhealthy.
    fn turned(&self, id: InstanceId, healthy: bool, detail: String);
}

/// Who is probed.
#[derive(Debug)]
pub(crate) struct Prober {
    epoll: OwnedFd,
    wake: OwnedFd,
    changes: Mutex<Changes>,
}

#[derive(Debug, Default)]
struct Changes {
    stopped: bool,
    queue: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Add { id: InstanceId, address: IpAddr, check: HealthCheck, started: Instant },
    Remove(InstanceId),
}

#[derive(Debug)]
struct Probing {
    address: IpAddr,
    check: HealthCheck,
    judge: Judge,
    /// When the next probe begins, or the one in flight has taken too long.
    wake_at: Instant,
    attempt: Option<(u64, Attempt)>,
    /// What is asked next.
    asks: Asks,
}

/// One question of a probe.
#[derive(Debug, Clone, Copy)]
enum Asks {
    /// The probe's own.
    Probe,
    /// Whether this port is closed.
    Closed(u16),
}

impl Prober {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        Ok(Self { epoll, wake, changes: Mutex::default() })
    }

    /// Probes an instance from now on.
    pub(crate) fn add(&self, id: InstanceId, address: IpAddr, check: &HealthCheck, started: Instant) {
        self.change(|c| c.queue.push(Change::Add { id, address, check: check.clone(), started }));
    }

    /// Leaves an instance alone.
    pub(crate) fn remove(&self, id: InstanceId) {
        self.change(|c| c.queue.push(Change::Remove(id)));
    }

    /// Ends [`Prober::run`].
    pub(crate) fn stop(&self) {
        self.change(|c| c.stopped = true);
    }

    fn change(&self, change: impl FnOnce(&mut Changes)) {
        change(&mut self.changes());
        // A full counter wakes as well.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Probes until it is stopped.
    pub(crate) fn run(&self, host: &dyn ProbeHost) {
        let mut round = Round {
            epoll: &self.epoll,
            host,
            all: BTreeMap::new(),
            due: BTreeSet::new(),
            tokens: BTreeMap::new(),
            next: 0,
        };
        let mut buffer = [const { MaybeUninit::uninit() }; EVENTS_MAX];
        loop {
            let queue = {
                let mut changes = self.changes();
                if changes.stopped {
                    return;
                }
                std::mem::take(&mut changes.queue)
            };
            queue.into_iter().for_each(|change| round.change(change));
            round.wake_due();
            let timeout = round.due.first().map(|(at, _)| {
                let left = at.saturating_duration_since(Instant::now());
                Timespec::try_from(left).expect("deadlines are hours away at most")
            });
            let Ok((ready, _)) = epoll::wait(&self.epoll, &mut buffer, timeout.as_ref()) else { continue };
            let tokens: Vec<u64> = ready.iter().map(|event| event.data.u64()).collect();
            for token in tokens {
                if token == WAKE {
                    let _ = rustix::io::read(&self.wake, &mut [0; 8]);
                } else {
                    round.advance(token);
                }
            }
        }
    }
}

struct Round<'a> {
    epoll: &'a OwnedFd,
    host: &'a dyn ProbeHost,
    all: BTreeMap<InstanceId, Probing>,
    due: BTreeSet<(Instant, InstanceId)>,
    tokens: BTreeMap<u64, InstanceId>,
    next: u64,
}

impl Round<'_> {
    fn change(&mut self, change: Change) {
        match change {
            Change::Add { id, address, check, started } => {
                self.forget(id);
                let (judge, wake_at) = (Judge::new(&check, started), Instant::now());
                self.due.insert((wake_at, id));
                self.all
                    .insert(id, Probing { address, check, judge, wake_at, attempt: None, asks: Asks::Probe });
            }
            Change::Remove(id) => self.forget(id),
        }
    }

    fn forget(&mut self, id: InstanceId) {
        if let Some(old) = self.all.remove(&id) {
            self.due.remove(&(old.wake_at, id));
            if let Some((token, _)) = old.attempt {
                self.tokens.remove(&token);
            }
        }
    }

    fn wake_due(&mut self) {
        while let Some((at, id)) = self.due.first().copied() {
            if at > Instant::now() {
                return;
            }
            self.due.pop_first();
            let Some(probing) = self.all.get_mut(&id) else { continue };
            match probing.attempt.take() {
                Some((token, _)) => {
                    self.tokens.remove(&token);
                    let timeout = probing.check.timeout;
                    self.conclude(id, Err(format!("no answer within {timeout}")));
                }
                None => self.begin(id),
            }
        }
    }

    fn begin(&mut self, id: InstanceId) {
        let Some(probing) = self.all.get_mut(&id) else { return };
        let timeout = probing.check.timeout.as_duration();
        let attempt = match (probing.asks, &probing.check.probe) {
            (Asks::Closed(port), _) => Attempt::of_closed_port(port, probing.address),
            (Asks::Probe, Probe::Command { argv, expected }) => {
                let report = self.host.start_command(id, argv, timeout, expected.is_some());
                report.map(|report| Begun::Goes(Attempt::of_command(report, expected.clone())))
            }
            (Asks::Probe, probe) => Attempt::over_network(probe, probing.address).map(Begun::Goes),
        };
        match attempt {
            Ok(Begun::Ended(outcome)) => self.conclude(id, outcome),
            Ok(Begun::Goes(attempt)) => {
                let token = self.next;
                self.next += 1;
                let added = epoll::add(
                    self.epoll,
                    attempt.fd(),
                    epoll::EventData::new_u64(token),
                    interest(attempt.waits()),
                );
                if let Err(error) = added {
                    return self.conclude(id, Err(io::Error::from(error).to_string()));
                }
                self.tokens.insert(token, id);
                // A command ends itself at its timeout and says so; a moment more lets that answer come.
                let slack =
                    if matches!(attempt.waits(), Waits::Readable) { timeout / 4 } else { Duration::ZERO };
                probing.wake_at = Instant::now() + timeout + slack;
                probing.attempt = Some((token, attempt));
                self.due.insert((probing.wake_at, id));
            }
            Err(reason) => self.conclude(id, Err(reason)),
        }
    }

    fn advance(&mut self, token: u64) {
        let Some(id) = self.tokens.get(&token).copied() else { return };
        let Some(probing) = self.all.get_mut(&id) else { return };
        let Some((_, attempt)) = probing.attempt.as_mut() else { return };
        match attempt.advance() {
            Some(outcome) => {
                // Closing the descriptor takes it out of the epoll set.
                probing.attempt = None;
                self.tokens.remove(&token);
                self.due.remove(&(probing.wake_at, id));
                self.conclude(id, outcome);
            }
            None => {
                let data = epoll::EventData::new_u64(token);
                // If it can't be watched on, its timeout ends it.
                let _ = epoll::modify(self.epoll, attempt.fd(), data, interest(attempt.waits()));
            }
        }
    }

    fn conclude(&mut self, id: InstanceId, outcome: Outcome) {
        let Some(probing) = self.all.get_mut(&id) else { return };
        let now = Instant::now();
        let closed = &probing.check.closed_ports;
        let next = match probing.asks {
            Asks::Probe => closed.first(),
            Asks::Closed(port) => closed.range(port.saturating_add(1)..).next(),
        };
        if let (Some(port), true) = (next, outcome.is_ok()) {
            (probing.asks, probing.wake_at) = (Asks::Closed(*port), now);
            self.due.insert((now, id));
            return;
        }
        probing.asks = Asks::Probe;
        let (turned, delay) = probing.judge.take(outcome.is_ok(), now);
        probing.wake_at = now + delay;
        self.due.insert((probing.wake_at, id));
        if let Some(healthy) = turned {
            let (Ok(detail) | Err(detail)) = outcome;
            self.host.turned(id, healthy, detail.chars().take(DETAIL_CHARS_MAX).collect());
        }
    }
}

const fn interest(waits: Waits) -> epoll::EventFlags {
    match waits {
        Waits::Readable => epoll::EventFlags::IN,
        Waits::Writable => epoll::EventFlags::OUT,
    }
}
