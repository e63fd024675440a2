//! What is made side by side: everything after what it is made from, and nothing waits for its neighbour.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Makes all of `parents`, a node and what it is made from, on some threads; returns what became of each.
///
/// `make` is given what its parents became.
///
/// The first failure ends it: nothing is begun any more, and `stop` is called so that what runs may end early. What the others
/// fail with for that is not told.
///
/// **Contract:** every parent is a node, and nothing is made from itself, however far around.
pub(crate) fn grow<N: Ord + Clone + Send + Sync, T: Clone + Send, E: Send>(
    parents: &BTreeMap<N, BTreeSet<N>>,
    threads: usize,
    stop: impl Fn() + Sync,
    make: impl Fn(&N, BTreeMap<N, T>) -> Result<T, E> + Sync,
) -> Result<BTreeMap<N, T>, E> {
    let roots = parents.iter().filter(|(_, parents)| parents.is_empty());
    let growth = Growth {
        parents,
        state: Mutex::new(State {
            // Taken from the end, and in order where one thread does it all.
            ready: roots.rev().map(|(node, _)| node.clone()).collect(),
            running: 0,
            done: BTreeMap::new(),
            failed: None,
            ended: false,
        }),
        changed: Condvar::new(),
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.min(parents.len()) {
            scope.spawn(|| growth.work(&stop, &make));
        }
    });
    let state = growth.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.failed.map_or(Ok(state.done), Err)
}

struct Growth<'a, N, T, E> {
    parents: &'a BTreeMap<N, BTreeSet<N>>,
    state: Mutex<State<N, T, E>>,
    changed: Condvar,
}

struct State<N, T, E> {
    ready: Vec<N>,
    running: usize,
    done: BTreeMap<N, T>,
    failed: Option<E>,
    /// Nothing is begun any more.
    ended: bool,
}

impl<N: Ord + Clone, T: Clone, E> Growth<'_, N, T, E> {
    fn work(&self, stop: &impl Fn(), make: &impl Fn(&N, BTreeMap<N, T>) -> Result<T, E>) {
        while let Some((node, from)) = self.next() {
            let place = Place(self);
            let made = make(&node, from);
            let mut state = self.lock();
            match made {
                Ok(value) => {
                    state.done.insert(node.clone(), value);
                    let done = |parent: &N| state.done.contains_key(parent);
                    let children = self.parents.iter().filter(|(_, parents)| {
                        // The last of its parents makes it ready.
                        parents.contains(&node) && parents.iter().all(done)
                    });
                    let ready: Vec<N> = children.rev().map(|(child, _)| child.clone()).collect();
                    state.ready.extend(ready);
                }
                Err(error) if state.failed.is_none() => {
                    (state.failed, state.ended) = (Some(error), true);
                    stop();
                }
                Err(_) => {}
            }
            state.running -= 1;
            drop(state);
            std::mem::forget(place);
            self.changed.notify_all();
        }
    }

    /// Waits until something can be made; none when all is done or something failed.
    fn next(&self) -> Option<(N, BTreeMap<N, T>)> {
        let mut state = self.lock();
        loop {
            if state.ended {
                return None;
            }
            if let Some(node) = state.ready.pop() {
                state.running += 1;
                let parents = self.parents[&node].iter();
                let from = parents.map(|parent| (parent.clone(), state.done[parent].clone())).collect();
                return Some((node, from));
            }
            if state.running == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<N, T, E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Dropped only by a panic: the others must not wait for this thread, which the scope hands on.
struct Place<'a, 'b, N: Ord + Clone, T: Clone, E>(&'a Growth<'b, N, T, E>);

impl<N: Ord + Clone, T: Clone, E> Drop for Place<'_, '_, N, T, E> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn parents(pairs: &[(&'static str, &[&'static str])]) -> BTreeMap<&'static str, BTreeSet<&'static str>> {
        pairs.iter().map(|(node, parents)| (*node, parents.iter().copied().collect())).collect()
    }

    #[test]
    fn everything_is_made_from_its_parent_in_order_by_one_thread() {
        let parents = parents(&[("b", &["a"]), ("a", &[]), ("c", &["b"]), ("d", &["a"]), ("z", &[])]);
        let order = Mutex::new(Vec::new());
        let done: Result<_, ()> = grow(
            &parents,
            1,
            || {},
            |node, from: BTreeMap<_, String>| {
                order.lock().unwrap().push(*node);
                Ok(from.into_values().collect::<String>() + node)
            },
        );
        let made: Vec<String> = done.unwrap().into_values().collect();
        assert_eq!(made, ["a", "ab", "abc", "ad", "z"]);
        assert_eq!(*order.lock().unwrap(), ["a", "b", "c", "d", "z"]);
    }

    #[test]
    fn what_is_made_from_several_waits_for_all_of_them() {
        let parents = parents(&[("a", &[]), ("b", &["a"]), ("c", &["a", "b", "z"]), ("z", &[])]);
        for threads in [1, 3] {
            let make = |node: &&'static str, from: BTreeMap<_, String>| {
                Ok::<_, ()>(from.into_values().collect::<String>() + node)
            };
            let done = grow(&parents, threads, || {}, make).unwrap();
            assert_eq!(done["c"], "aabzc");
        }
    }

    #[test]
    fn neighbours_are_made_at_the_same_time() {
        let parents = parents(&[("base", &[]), ("left", &["base"]), ("right", &["base"])]);
        // Both must be there at once, or neither comes through.
        let meeting = Barrier::new(2);
        let done: Result<_, ()> = grow(
            &parents,
            8,
            || {},
            |node, _: BTreeMap<_, ()>| {
                if *node != "base" {
                    meeting.wait();
                }
                Ok(())
            },
        );
        assert_eq!(done.unwrap().len(), 3);
    }

    #[test]
    fn the_first_failure_is_told_and_ends_the_others() {
        let parents = parents(&[("bad", &[]), ("child", &["bad"]), ("slow", &[]), ("after", &["slow"])]);
        let (stopped, meeting) = (AtomicUsize::new(0), Barrier::new(2));
        let stop = || {
            stopped.fetch_add(1, Ordering::SeqCst);
        };
        let done = grow(&parents, 2, stop, |node, _: BTreeMap<_, ()>| match *node {
            "bad" => {
                meeting.wait();
                Err("bad failed")
            }
            "slow" => {
                meeting.wait();
                while stopped.load(Ordering::SeqCst) == 0 {
                    std::thread::yield_now();
                }
                Err("slow was called off")
            }
            other => panic!("{other} was begun"),
        });
        assert_eq!(done, Err("bad failed"));
        assert_eq!(stopped.load(Ordering::SeqCst), 1);
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_panic_is_handed_on_instead_of_waited_for() {
        let parents = parents(&[("a", &[]), ("b", &["a"])]);
        let _: Result<_, ()> = grow(&parents, 2, || {}, |_, _: BTreeMap<_, ()>| panic!("a defect"));
    }
}
