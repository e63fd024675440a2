//! Launchers: processes that wait in control groups of their own, each to become the parent of one init.
//!
//! A child of clone3 can begin its life in a group of the unified tree, but not in one of a controller's own tree: there a process
//! has to move, and for that the kernel waits for a grace period of RCU: 8 to 16 ms measured, more than all the rest of a start. So on a
//! hybrid host a few processes have moved beforehand, into groups that are called `spare-N`. A start renames the groups of one
//! of them; its child is in them from the beginning.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::Host;
use super::cgroup::Cgroups;
use super::provide::memory_file;
use super::seccomp::Filters;
use super::zygote::{Request, Zygote, receive, send, spawn};
use crate::sys;

/// How many wait: the replicas of an ordinary service start without waiting. What goes beyond moves by itself.
const READY: usize = 12;
/// A move holds the kernel's lock on control groups while it waits, and with it every start: new launchers are made when none was
/// taken for a while.
const QUIET: Duration = Duration::from_millis(50);
/// A grace period is some milliseconds, on a busy machine some hundred.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// When one can't be made, the next attempt waits: instances start without them.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A process that waits.
#[derive(Debug)]
pub(crate) struct Launcher {
    control: OwnedFd,
    /// The name of its groups.
    pub(crate) spare: String,
}

impl Launcher {
    /// Has it clone an init, after which it ends. The descriptors are those of [`Request::Spawn`].
    pub(crate) fn spawn(&self, fds: &[std::os::fd::BorrowedFd<'_>]) -> io::Result<()> {
        Ok(send(&self.control, Request::Spawn, fds)?)
    }
}

/// The launchers that are ready.
#[derive(Debug, Default)]
pub(crate) struct Launchers {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Launcher>,
    made: u64,
    taken: u64,
    stopped: bool,
}

impl Launchers {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns one if one is ready.
    pub(crate) fn take(&self) -> Option<Launcher> {
        let mut state = self.state();
        state.taken += 1;
        self.changed.notify_all();
        state.ready.pop_front()
    }

    /// Ends all of them, and removes their groups.
    pub(crate) fn stop(&self, cgroups: &Cgroups) {
        let mut state = self.state();
        state.stopped = true;
        self.changed.notify_all();
        for launcher in std::mem::take(&mut state.ready) {
            discard(launcher, cgroups);
        }
    }

    /// Waits until one is missing and none was taken for a while; returns its number, or none when it is stopped.
    fn wait_for_need(&self) -> Option<u64> {
        let is_enough = |state: &mut State| !state.stopped && state.ready.len() >= READY;
        let waited = self.changed.wait_while(self.state(), is_enough);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        loop {
            let taken = state.taken;
            let is_quiet = |state: &mut State| !state.stopped && state.taken == taken;
            let waited = self.changed.wait_timeout_while(state, QUIET, is_quiet);
            let (next, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = next;
            if state.stopped {
                return None;
            }
            if timeout.timed_out() {
                state.made += 1;
                return Some(state.made);
            }
        }
    }

    /// Keeps enough of them ready until it is stopped.
    pub(crate) fn stock(&self, cgroups: &Cgroups, zygote: &Zygote) {
        loop {
            let Some(number) = self.wait_for_need() else { return };
            match make(cgroups, zygote, format!("spare-{number}")) {
                Ok(launcher) => {
                    let mut state = self.state();
                    if !state.stopped {
                        state.ready.push_back(launcher);
                        continue;
                    }
                    drop(state);
                    discard(launcher, cgroups);
                }
                Err(_) => {
                    let stopped = |state: &mut State| !state.stopped;
                    drop(self.changed.wait_timeout_while(self.state(), RETRY_AFTER, stopped));
                }
            }
        }
    }
}

/// Ends a launcher that is not needed. What can't be removed now is swept by the next host.
pub(crate) fn discard(launcher: Launcher, cgroups: &Cgroups) {
    let Launcher { control, spare } = launcher;
    drop(control);
    let _ = cgroups.group(&spare).remove();
}

fn make(cgroups: &Cgroups, zygote: &Zygote, spare: String) -> io::Result<Launcher> {
    let group = cgroups.make_spare(&spare)?;
    let (control, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let launcher = Launcher { control, spare };
    let join = memory_file(&serde_json::to_vec(&group.join_files())?)?;
    let made = zygote.send(Request::Launcher, &[join.as_fd(), theirs.as_fd()]).and_then(|()| {
        drop(theirs);
        wait_until_ready(&launcher.control)
    });
    match made {
        Ok(()) => Ok(launcher),
        Err(error) => {
            discard(launcher, cgroups);
            Err(error)
        }
    }
}

fn wait_until_ready(control: &OwnedFd) -> io::Result<()> {
    let timeout = Timespec::try_from(READY_WITHIN).map_err(io::Error::other)?;
    poll(&mut [PollFd::new(control, PollFlags::IN)], Some(&timeout))?;
    match rustix::net::recv(control, &mut [0; 1], rustix::net::RecvFlags::DONTWAIT)? {
        (1.., _) => Ok(()),
        _ => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

/// Runs in a fork of the zygote.
pub(crate) fn run(join: OwnedFd, control: OwnedFd, compiled: &(u64, Filters)) -> ! {
    use std::os::fd::AsRawFd;
    sys::close_all_but(&[join.as_raw_fd(), control.as_raw_fd()]);
    let _ = rustix::thread::set_name(c"kiln-launcher");
    let is_launched =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| launch(join, &control, compiled)));
    sys::exit_now(if matches!(is_launched, Ok(Ok(()))) { 0 } else { 1 })
}

fn launch(join: OwnedFd, control: &OwnedFd, compiled: &(u64, Filters)) -> io::Result<()> {
    let mut file = fs::File::from(join);
    io::Seek::rewind(&mut file)?;
    let mut text = Vec::new();
    io::Read::read_to_end(&mut file, &mut text)?;
    let files: Vec<PathBuf> = serde_json::from_slice(&text)?;
    for file in files {
        fs::write(file, "0")?;
    }
    rustix::net::send(control, b"R", rustix::net::SendFlags::NOSIGNAL)?;
    // None: the host is gone or has no use for this one.
    if let Some((_, fds)) = receive(control)? {
        spawn(fds, compiled);
    }
    Ok(())
}

impl Host {
    /// Keeps launchers ready where they are of use, until the host stops.
    pub(super) fn stock_launchers(&self) {
        if self.cgroups.has_own_trees() {
            self.launchers.stock(&self.cgroups, &self.zygote);
        }
    }
}
