//! Work beside what somebody waits for.
//!
//! On a machine with few processors a command and the bake around it want the same ones, and it is the command that is waited
//! for. So the threads here are nice; there are no more of them than processors, since two pieces of work that take turns end later
//! than one after the other; and whoever waits for something hurries it, or does it itself where nobody began.

use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::{fmt, mem, thread};

use rustix::process::{Pid, getpriority_process, setpriority_process};

/// What is begun first where several wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// What is of use only for a moment.
    Now,
    /// A step to come waits for it.
    Soon,
    /// Nobody waits for it before the end.
    Late,
}

impl Rank {
    const ALL: [Self; 3] = [Self::Now, Self::Soon, Self::Late];

    /// How much further than the rest of a bake it gives way to others, as `nice` counts.
    fn nice(self) -> i32 {
        match self {
            Self::Now | Self::Soon => 10,
            Self::Late => 19,
        }
    }
}

/// Work that goes on by itself. Dropped, it is called off, or where it was begun its end is waited for: what it reads is there
/// for as long as a bake's lease is held.
pub struct Beside<T>(Arc<Job<T>>);

struct Job<T> {
    state: Mutex<State<T>>,
    ended: Condvar,
}

type Work<T> = Box<dyn FnOnce() -> T + Send>;

enum State<T> {
    /// Nobody began it.
    Waiting(Work<T>),
    /// A worker is at it; none where somebody who waits for it is.
    Begun(Option<Arc<Pace>>),
    /// It came to this, or to a panic.
    Ended(Result<T, Box<dyn Any + Send>>),
    /// Somebody has what it came to, or nobody wants it.
    Taken,
}

impl<T> fmt::Debug for Beside<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Beside").finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Beside<T> {
    /// Begins work as soon as a processor has nothing else to do.
    pub fn begin(rank: Rank, work: impl FnOnce() -> T + Send + 'static) -> Self {
        let state = Mutex::new(State::Waiting(Box::new(work)));
        let job = Arc::new(Job { state, ended: Condvar::new() });
        Crew::add(rank, job.clone());
        Self(job)
    }
}

impl<T> Beside<T> {
    /// Waits for the end; none if somebody did so before.
    pub fn end(&self) -> Option<T> {
        self.0.advance(None);
        match mem::replace(&mut *self.0.hurried(), State::Taken) {
            State::Ended(came_to) => Some(came_to.unwrap_or_else(|panic| resume_unwind(panic))),
            _ => None,
        }
    }

    /// Does it, unless somebody began.
    pub(crate) fn advance(&self) {
        self.0.advance(None);
    }

    /// Whether nobody would wait for it.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(*self.0.lock(), State::Ended(_) | State::Taken)
    }
}

impl<T> Drop for Beside<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if matches!(*state, State::Waiting(_)) {
            let waiting = mem::replace(&mut *state, State::Taken);
            drop(state);
            return drop(waiting);
        }
        drop(state);
        // What it came to is nobody's any more.
        let left = mem::replace(&mut *self.0.hurried(), State::Taken);
        drop(left);
    }
}

impl<T> Job<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does it if nobody began, at the pace of a worker or of whoever waits.
    fn advance(&self, pace: Option<&Arc<Pace>>) {
        let mut state = self.lock();
        let work = match mem::replace(&mut *state, State::Begun(pace.cloned())) {
            State::Waiting(work) => work,
            other => return *state = other,
        };
        drop(state);
        let came_to = catch_unwind(AssertUnwindSafe(work));
        *self.lock() = State::Ended(came_to);
        self.ended.notify_all();
    }

    /// Waits until nobody is at it, and has whoever is hurry.
    fn hurried(&self) -> MutexGuard<'_, State<T>> {
        let mut state = self.lock();
        if let State::Begun(Some(pace)) = &*state {
            pace.hurry();
        }
        while matches!(*state, State::Begun(_)) {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }
}

/// Something that a worker can do.
trait Run: Send + Sync {
    fn run(&self, pace: &Arc<Pace>);
}

impl<T: Send> Run for Job<T> {
    fn run(&self, pace: &Arc<Pace>) {
        self.advance(Some(pace));
    }
}

/// The threads that all bakes of this process share, as they share the processors.
struct Crew {
    /// By rank.
    waiting: [VecDeque<Arc<dyn Run>>; Rank::ALL.len()],
    workers: usize,
    /// Those that have nothing to do.
    idle: usize,
    /// How many processors are left to others.
    spared: usize,
}

static CREW: Mutex<Crew> = Mutex::new(Crew {
    waiting: [const { VecDeque::new() }; Rank::ALL.len()],
    workers: 0,
    idle: 0,
    spared: 0,
});

static MORE: Condvar = Condvar::new();

impl Crew {
    fn lock() -> MutexGuard<'static, Self> {
        // Nothing that may panic happens while it is locked.
        CREW.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(rank: Rank, job: Arc<dyn Run>) {
        let mut crew = Self::lock();
        crew.waiting[rank as usize].push_back(job);
        let waiting: usize = crew.waiting.iter().map(VecDeque::len).sum();
        if crew.idle < waiting && crew.workers < processors() {
            // Where no thread can be had, whoever waits does the work.
            let worker = thread::Builder::new().name("beside".into()).spawn(Self::work);
            crew.workers += usize::from(worker.is_ok());
        }
        drop(crew);
        MORE.notify_one();
    }

    fn work() {
        let pace = Arc::new(Pace::of_this_thread());
        OWN_PACE.set(Some(Arc::clone(&pace)));
        loop {
            let (rank, job) = Self::next();
            pace.give_way(rank.nice());
            job.run(&pace);
        }
    }

    fn pop(&mut self, rank: Rank) -> Option<(Rank, Arc<dyn Run>)> {
        self.waiting[rank as usize].pop_front().map(|job| (rank, job))
    }

    fn next() -> (Rank, Arc<dyn Run>) {
        let mut crew = Self::lock();
        loop {
            // This one is none of the idle here.
            let others_busy = crew.workers - crew.idle - 1;
            if others_busy < processors().saturating_sub(crew.spared).max(1)
                && let Some(next) = Rank::ALL.into_iter().find_map(|rank| crew.pop(rank))
            {
                return next;
            }
            crew.idle += 1;
            crew = MORE.wait(crew).unwrap_or_else(PoisonError::into_inner);
            crew.idle -= 1;
        }
    }
}

thread_local! {
    /// A worker's.
    static OWN_PACE: RefCell<Option<Arc<Pace>>> = const { RefCell::new(None) };
}

/// Does what is of use only for a moment, if that waits and this is a worker: what takes long asks this again and again.
pub(crate) fn let_pass() {
    let Some(pace) = OWN_PACE.with_borrow(Clone::clone) else { return };
    let urgent = || Crew::lock().pop(Rank::Now);
    while let Some((_, job)) = urgent() {
        job.run(&pace);
    }
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// A processor that is left to a command: nothing is begun on it beside the bake until this is dropped, unless it is the only one. How
/// nice a worker is matters little to a command, which has a session of its own where Linux weighs sessions against each other.
#[derive(Debug)]
pub(crate) struct Spared(());

impl Spared {
    pub(crate) fn one() -> Self {
        Crew::lock().spared += 1;
        Self(())
    }
}

impl Drop for Spared {
    fn drop(&mut self) {
        Crew::lock().spared -= 1;
        MORE.notify_all();
    }
}

/// How far a worker, which never ends, gives way to others. Where that is refused it runs as all others do.
#[derive(Debug)]
struct Pace {
    thread: Pid,
    /// What it began with, as all of a bake that is nice itself.
    own_nice: i32,
    /// How much nicer it is now.
    nicer: Mutex<i32>,
}

impl Pace {
    fn of_this_thread() -> Self {
        let thread = rustix::thread::gettid();
        let own_nice = getpriority_process(Some(thread)).unwrap_or_default();
        Self { thread, own_nice, nicer: Mutex::new(0) }
    }

    fn give_way(&self, nicer: i32) {
        let mut now = self.nicer.lock().unwrap_or_else(PoisonError::into_inner);
        // Linux counts it for each thread, and there is an end to it.
        if *now != nicer && setpriority_process(Some(self.thread), self.own_nice + nicer).is_ok() {
            *now = nicer;
        }
    }

    fn hurry(&self) {
        self.give_way(0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    /// Work that waits for a word.
    fn held() -> (Beside<&'static str>, std::sync::mpsc::Sender<()>) {
        let (go, wait): (_, Receiver<()>) = channel();
        let work = move || {
            let _ = wait.recv();
            "held"
        };
        (Beside::begin(Rank::Soon, work), go)
    }

    #[test]
    fn what_many_began_comes_to_its_end_once() {
        let all: Vec<_> = (0..100).map(|number| Beside::begin(Rank::Soon, move || number * 2)).collect();
        for (number, beside) in all.iter().enumerate().rev() {
            assert_eq!((beside.end(), beside.end()), (Some(number * 2), None));
        }
    }

    #[test]
    fn what_waits_for_something_else_does_it_where_nobody_has_time() {
        let workers = thread::available_parallelism().unwrap().get();
        let held: Vec<_> = (0..workers).map(|_| held()).collect();
        let inner = Arc::new(Beside::begin(Rank::Late, || 1));
        let of_outer = Arc::clone(&inner);
        let outer = Beside::begin(Rank::Late, move || of_outer.end().unwrap() + 1);
        assert_eq!(outer.end(), Some(2));
        for (beside, go) in held {
            drop(go);
            assert_eq!(beside.end(), Some("held"));
        }
    }

    #[test]
    fn what_is_dropped_is_called_off_or_has_ended() {
        let workers = thread::available_parallelism().unwrap().get();
        let held: Vec<_> = (0..workers).map(|_| held()).collect();
        let (told, heard) = channel();
        // Others of this process may have work done, too: this one is begun by nobody or ends before the drop does.
        let dropped = Beside::begin(Rank::Late, move || told.send(()));
        drop(dropped);
        let _ = heard.try_recv();
        assert!(heard.recv().is_err(), "the work and what it holds are gone");
        drop(held.into_iter().map(|(beside, go)| (go, beside)).collect::<Vec<_>>());
    }

    #[test]
    fn what_takes_long_lets_what_is_urgent_pass() {
        let workers = thread::available_parallelism().unwrap().get();
        let (urgent, heard) = channel();
        let all: Vec<_> = (0..workers)
            .map(|_| {
                let (go, wait): (_, Receiver<Beside<()>>) = channel();
                let long = Beside::begin(Rank::Soon, move || {
                    let urgent = wait.recv().unwrap();
                    while !urgent.has_ended() {
                        let_pass();
                    }
                });
                (long, go)
            })
            .collect();
        for (_, go) in &all {
            let urgent = urgent.clone();
            go.send(Beside::begin(Rank::Now, move || urgent.send(()).unwrap())).unwrap();
        }
        all.iter().for_each(|(long, _)| long.end().unwrap());
        assert_eq!(heard.try_iter().count(), workers);
        let_pass();
    }

    #[test]
    fn a_panic_reaches_whoever_waits() {
        let beside = Beside::begin(Rank::Soon, || panic!("of the work"));
        let caught = catch_unwind(AssertUnwindSafe(|| beside.end())).unwrap_err();
        assert_eq!(caught.downcast_ref::<&str>(), Some(&"of the work"));
        assert_eq!(Beside::begin(Rank::Soon, || 1).end(), Some(1), "the workers go on");
    }

    #[test]
    fn a_thread_gives_way_until_it_is_hurried() {
        let nice = |pace: &Pace| getpriority_process(Some(pace.thread)).unwrap();
        thread::spawn(move || {
            let pace = Pace::of_this_thread();
            let mut seen = vec![nice(&pace)];
            pace.give_way(Rank::Soon.nice());
            seen.push(nice(&pace));
            pace.hurry();
            seen.push(nice(&pace));
            let own = seen[0];
            assert_eq!(seen, [own, (own + 10).min(19), own]);
        })
        .join()
        .unwrap();
    }
}
