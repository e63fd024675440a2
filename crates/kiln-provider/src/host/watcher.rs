//! One thread that notices the end of every init, and wakes up what is due.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kiln_model::InstanceId;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};

/// How many ends are told about at once; the rest follow at once.
const EVENTS_MAX: usize = 64;
const WAKE: u64 = u64::MAX;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Happened {
    /// The init of an instance is gone, and everything in its pid namespace.
    Ended(InstanceId),
    /// The grace after the stop signal is over.
    GraceOver(InstanceId),
    /// What failed may be tried again.
    Retry(InstanceId),
}

/// Watches pidfds and deadlines.
#[derive(Debug)]
pub(crate) struct Watcher {
    epoll: OwnedFd,
    wake: OwnedFd,
    stopped: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    inits: BTreeMap<u64, (InstanceId, OwnedFd)>,
    deadlines: BinaryHeap<Reverse<(Instant, Happened)>>,
}

impl Watcher {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        Ok(Self { epoll, wake, stopped: AtomicBool::new(false), state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells when the process behind a pidfd is gone; at once if it is.
    pub(crate) fn watch(&self, id: InstanceId, pidfd: OwnedFd) -> io::Result<()> {
        let mut state = self.state();
        let token = state.next;
        state.next += 1;
        epoll::add(&self.epoll, &pidfd, epoll::EventData::new_u64(token), epoll::EventFlags::IN)?;
        state.inits.insert(token, (id, pidfd));
        Ok(())
    }

    /// Tells `happened` after `delay`.
    pub(crate) fn after(&self, delay: Duration, happened: Happened) {
        self.state().deadlines.push(Reverse((Instant::now() + delay, happened)));
        self.wake();
    }

    /// Lets [`Watcher::next`] return an empty batch for good.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        // A full counter wakes as well.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Waits for the next things to happen; none means that the watcher was stopped.
    pub(crate) fn next(&self) -> Option<Vec<Happened>> {
        let mut buffer = [const { MaybeUninit::uninit() }; EVENTS_MAX];
        loop {
            if self.stopped.load(Ordering::SeqCst) {
                return None;
            }
            let due = self.take_due();
            if !due.is_empty() {
                return Some(due);
            }
            let timeout = self.state().deadlines.peek().map(|Reverse((at, _))| {
                let left = at.saturating_duration_since(Instant::now());
                Timespec::try_from(left).expect("deadlines are hours away at most")
            });
            let Ok((ready, _)) = epoll::wait(&self.epoll, &mut buffer, timeout.as_ref()) else { continue };
            let tokens: Vec<u64> = ready.iter().map(|event| event.data.u64()).collect();
            let mut state = self.state();
            // Closing the pidfd takes it out of the epoll set.
            let ended: Vec<_> = tokens.iter().filter_map(|token| state.inits.remove(token)).collect();
            if tokens.contains(&WAKE) {
                let _ = rustix::io::read(&self.wake, &mut [0; 8]);
            }
            if !ended.is_empty() {
                return Some(ended.into_iter().map(|(id, _)| Happened::Ended(id)).collect());
            }
        }
    }

    fn take_due(&self) -> Vec<Happened> {
        let mut state = self.state();
        let mut due = Vec::new();
        while let Some(Reverse((at, _))) = state.deadlines.peek() {
            if *at > Instant::now() {
                break;
            }
            due.extend(state.deadlines.pop().map(|Reverse((_, happened))| happened));
        }
        due
    }
}
