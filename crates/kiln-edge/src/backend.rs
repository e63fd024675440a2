//! One instance as the edge sees it: what is in flight to it, its pooled connections, and whether it can be reached.
//!
//! Backends outlive route tables: the registry holds one object for an instance's address, and successive tables point to it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kiln_model::InstanceId;

use crate::limits::{
    ASIDE_MAX, ASIDE_MIN, POOL_IDLE_CONNECTIONS_MAX, UNREPLAYABLE_IDLE_MAX, UNREPLAYABLE_IDLE_MIN,
};
use crate::upstream::Pooled;

/// Locks even if another thread panicked: every critical section leaves its data whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rings when a backend out of the routes may have become idle.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    ringing: Condvar,
}

impl Bell {
    pub(crate) fn ring(&self) {
        *lock(&self.rung) = true;
        self.ringing.notify_all();
    }

    /// Waits until it was rung since the last wait, at most this long.
    pub(crate) fn wait(&self, at_most: Duration) {
        let rung = lock(&self.rung);
        let waited = self.ringing.wait_timeout_while(rung, at_most, |rung| !*rung);
        let (mut rung, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *rung = false;
    }
}

/// An instance's address.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) instance: InstanceId,
    pub(crate) address: SocketAddr,
    routed: AtomicBool,
    in_flight: AtomicU32,
    connections: AtomicU32,
    failures: AtomicU32,
    /// Milliseconds since `epoch`; 0 when it is not set aside.
    aside_until: AtomicU64,
    closes_early: AtomicBool,
    epoch: Instant,
    /// For each worker, because a connection is driven by the runtime that opened it. The most recently used are last.
    idle: Box<[Mutex<Vec<Pooled>>]>,
    bell: Arc<Bell>,
}

impl Backend {
    /// Counts a request, unless the backend has left the routes.
    ///
    /// Counting first and looking second, against `retire`'s marking first and looking second, makes sure that one of the
    /// two sees the other: a request never starts towards a backend that was reported idle.
    pub(crate) fn enter(&self) -> bool {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        if self.routed.load(Ordering::SeqCst) {
            return true;
        }
        self.leave();
        false
    }

    pub(crate) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.ring_if_retired();
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn is_routed(&self) -> bool {
        self.routed.load(Ordering::SeqCst)
    }

    fn is_idle(&self) -> bool {
        !self.is_routed()
            && self.in_flight.load(Ordering::SeqCst) == 0
            && self.connections.load(Ordering::SeqCst) == 0
    }

    fn ring_if_retired(&self) {
        if !self.is_routed() {
            self.bell.ring();
        }
    }

    /// Marks a connection as open until the token is dropped.
    pub(crate) fn connection(self: &Arc<Self>) -> ConnectionToken {
        self.connections.fetch_add(1, Ordering::SeqCst);
        ConnectionToken(Arc::clone(self))
    }

    /// Takes the connection that was used last, for a request that may be sent twice.
    pub(crate) fn take_idle(&self, worker: usize, now: Instant) -> Option<Pooled> {
        let mut idle = lock(&self.idle[worker]);
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            if self.is_dead(&idle[at], now) {
                idle.remove(at);
            } else if now.saturating_duration_since(idle[at].idle_since) >= idle[at].idle_max {
                // Those before it are older.
                return None;
            } else if idle[at].sender.is_ready() {
                return Some(idle.remove(at));
            }
            // Else its answer ended in this same round of the runtime, and the next finds it ready.
        }
        None
    }

    /// Takes a connection for a request that must not be sent twice: one that has rested for a moment, so that a close
    /// would have arrived, but not for long; and none of a backend that was seen to close without a word.
    pub(crate) fn take_idle_unreplayable(&self, worker: usize, now: Instant) -> Option<Pooled> {
        let mut idle = lock(&self.idle[worker]);
        idle.retain(|pooled| !self.is_dead(pooled, now));
        if self.closes_early.load(Ordering::Relaxed) {
            return None;
        }
        let rested = |pooled: &Pooled| {
            let idle = now.saturating_duration_since(pooled.idle_since);
            idle >= UNREPLAYABLE_IDLE_MIN && idle < UNREPLAYABLE_IDLE_MAX.min(pooled.idle_max)
        };
        let at = idle.iter().position(|pooled| rested(pooled) && pooled.sender.is_ready())?;
        Some(idle.remove(at))
    }

    /// Whether a pooled connection is closed. If the backend did that before its time, it is remembered.
    fn is_dead(&self, pooled: &Pooled, now: Instant) -> bool {
        let closed = pooled.sender.is_closed();
        if closed && now.saturating_duration_since(pooled.idle_since) < pooled.idle_max {
            self.closed_early();
        }
        closed
    }

    /// The backend closed a pooled connection that it could have been expected to keep.
    pub(crate) fn closed_early(&self) {
        self.closes_early.store(true, Ordering::Relaxed);
    }

    /// Takes a connection back, unless the backend has left the routes.
    pub(crate) fn put_idle(&self, worker: usize, pooled: Pooled) {
        let mut idle = lock(&self.idle[worker]);
        // Looked at under the lock: `retire` clears the pool after it took the backend out.
        if self.is_routed() && idle.len() < POOL_IDLE_CONNECTIONS_MAX {
            idle.push(pooled);
        }
    }

    /// Closes what has been idle for too long.
    pub(crate) fn sweep(&self, worker: usize, now: Instant) {
        let keep = |pooled: &Pooled| {
            !self.is_dead(pooled, now) && now.saturating_duration_since(pooled.idle_since) < pooled.idle_max
        };
        lock(&self.idle[worker]).retain(keep);
    }

    /// Whether connecting is worth an attempt now.
    pub(crate) fn is_aside(&self, now: Instant) -> bool {
        let until = self.aside_until.load(Ordering::Relaxed);
        until != 0 && now.saturating_duration_since(self.epoch).as_millis() < u128::from(until)
    }

    pub(crate) fn connected(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.aside_until.store(0, Ordering::Relaxed);
        }
    }

    /// Sets it aside for a time that doubles with each failure in a row.
    pub(crate) fn connect_failed(&self, now: Instant) {
        let before = self.failures.fetch_add(1, Ordering::Relaxed).min(16);
        let aside = (ASIDE_MIN * 2_u32.pow(before)).min(ASIDE_MAX);
        let until = now.saturating_duration_since(self.epoch) + aside;
        self.aside_until.store(until.as_millis() as u64, Ordering::Relaxed);
    }
}

/// An open connection to a backend, for as long as its socket is open.
#[derive(Debug)]
pub(crate) struct ConnectionToken(Arc<Backend>);

impl Drop for ConnectionToken {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
        self.0.ring_if_retired();
    }
}

/// All backends that are routed, or still have something in flight.
#[derive(Debug)]
pub(crate) struct Registry {
    backends: Mutex<HashMap<(InstanceId, SocketAddr), Arc<Backend>>>,
    workers: usize,
    epoch: Instant,
    pub(crate) bell: Arc<Bell>,
}

impl Registry {
    pub(crate) fn new(workers: usize) -> Self {
        let bell = Arc::new(Bell::default());
        Self { backends: Mutex::default(), workers, epoch: Instant::now(), bell }
    }

    /// Returns the backend for an address, routed from now on.
    pub(crate) fn route(&self, instance: InstanceId, address: SocketAddr) -> Arc<Backend> {
        let mut backends = lock(&self.backends);
        if let Some(backend) = backends.get(&(instance, address)) {
            backend.routed.store(true, Ordering::SeqCst);
            return Arc::clone(backend);
        }
        let backend = Arc::new(Backend {
            instance,
            address,
            routed: AtomicBool::new(true),
            in_flight: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            aside_until: AtomicU64::new(0),
            closes_early: AtomicBool::new(false),
            epoch: self.epoch,
            idle: (0..self.workers).map(|_| Mutex::default()).collect(),
            bell: Arc::clone(&self.bell),
        });
        backends.insert((instance, address), Arc::clone(&backend));
        backend
    }

    /// Takes out of the routes all that is not `kept`, and closes their idle connections.
    pub(crate) fn retire_others(&self, kept: &dyn Fn(&Backend) -> bool) {
        let mut backends = lock(&self.backends);
        for backend in backends.values().filter(|backend| !kept(backend)) {
            backend.routed.store(false, Ordering::SeqCst);
            for pool in &backend.idle {
                lock(pool).clear();
            }
        }
        backends.retain(|_, backend| !backend.is_idle());
        drop(backends);
        self.bell.ring();
    }

    /// Whether nothing is in flight to an instance, no connection is open, and it is not routed.
    pub(crate) fn is_idle(&self, instance: InstanceId) -> bool {
        let mut backends = lock(&self.backends);
        let idle = backends.values().filter(|b| b.instance == instance).all(|b| b.is_idle());
        if idle {
            backends.retain(|(of, _), _| *of != instance);
        }
        idle
    }

    pub(crate) fn sweep(&self, worker: usize, now: Instant) {
        for backend in lock(&self.backends).values() {
            backend.sweep(worker, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(registry: &Registry) -> Arc<Backend> {
        let address = "127.0.0.1:1".parse().unwrap();
        registry.route(InstanceId::from_seed(1), address)
    }

    #[test]
    fn a_backend_out_of_the_routes_takes_no_request_and_is_idle_when_the_last_one_ended() {
        let registry = Registry::new(1);
        let backend = backend(&registry);
        assert!(backend.enter());
        registry.retire_others(&|_| false);
        assert!(!backend.enter());
        assert!(!registry.is_idle(backend.instance));
        let connection = backend.connection();
        backend.leave();
        assert!(!registry.is_idle(backend.instance), "a connection is still open");
        drop(connection);
        assert!(registry.is_idle(backend.instance));
    }

    #[test]
    fn a_warm_instance_is_routed_again_as_the_same_backend() {
        let registry = Registry::new(1);
        let first = backend(&registry);
        assert!(first.enter());
        registry.retire_others(&|_| false);
        let again = backend(&registry);
        assert!(Arc::ptr_eq(&first, &again));
        assert!(again.enter());
        assert_eq!(again.in_flight(), 2);
    }

    #[test]
    fn a_backend_is_set_aside_for_longer_with_each_failure_and_taken_back_at_once() {
        let registry = Registry::new(1);
        let backend = backend(&registry);
        let now = Instant::now();
        backend.connect_failed(now);
        assert!(backend.is_aside(now));
        assert!(!backend.is_aside(now + ASIDE_MIN * 2));
        for _ in 0..40 {
            backend.connect_failed(now);
        }
        assert!(backend.is_aside(now + ASIDE_MAX / 2));
        assert!(!backend.is_aside(now + ASIDE_MAX * 2));
        backend.connected();
        assert!(!backend.is_aside(now));
    }

    #[test]
    fn an_unknown_instance_is_idle() {
        assert!(Registry::new(1).is_idle(InstanceId::from_seed(9)));
    }
}
