//! The system calls that rustix does not offer, and nothing else: the only unsafe code of the crate.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use rustix::process::Pid;

/// What an instance gets of its own.
const NAMESPACES: libc::c_int = libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP;

/// `struct clone_args` of clone3(2), in its second published size, which knows cgroups.
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Which side of a fork this is.
pub(crate) enum Forked {
    /// The process that called, with the new process's id.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Forks into namespaces of its own and into `cgroup` of the unified tree.
///
/// The process must have one thread only: the child goes on with a copy of its memory, locks included.
pub(crate) fn clone_into_namespaces(cgroup: BorrowedFd<'_>) -> io::Result<Forked> {
    /// From linux/sched.h; libc has it as a wider type on some targets.
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let args = CloneArgs {
        flags: NAMESPACES as u64 | CLONE_INTO_CGROUP,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: cgroup.as_raw_fd() as u64,
        ..CloneArgs::default()
    };
    // SAFETY: the arguments outlive the call; without CLONE_VM and with no stack given it behaves as fork(2).
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    forked(result)
}

/// Forks. The process must have one thread only.
pub(crate) fn fork() -> io::Result<Forked> {
    // SAFETY: the callers are single-threaded, so no lock is held by a thread that the child lacks.
    let result = unsafe { libc::fork() };
    forked(result.into())
}

fn forked(result: libc::c_long) -> io::Result<Forked> {
    match result {
        0 => Ok(Forked::Child),
        pid if pid > 0 => {
            let pid = Pid::from_raw(pid as i32).expect("the kernel gives positive process ids");
            Ok(Forked::Parent(pid))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends this process at once, without running anything that belongs to the process that it was forked from.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit never returns and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// Replaces the program of this process; returns only what went wrong.
pub(crate) fn execute(path: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays end with a null pointer and borrow texts that live until the call returns.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Lets the kernel reap this process's children: nobody waits for them.
pub(crate) fn ignore_children() {
    // SAFETY: SIG_IGN is a valid disposition for SIGCHLD.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Blocks every signal, so that they queue up for [`wait_for_signal`], and makes children waitable again.
pub(crate) fn block_signals() {
    // SAFETY: the set is initialised by sigfillset before it is read.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
    }
}

/// Waits for a signal that is blocked, and takes it.
pub(crate) fn wait_for_signal() -> io::Result<i32> {
    // SAFETY: the set is initialised by sigfillset before it is read; no information about the sender is asked for.
    let signal = unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut set);
        libc::sigwaitinfo(&raw const set, ptr::null_mut())
    };
    if signal > 0 { Ok(signal) } else { Err(io::Error::last_os_error()) }
}

/// Gives a new program the signal state that it expects: nothing blocked, nothing ignored.
///
/// Past the C library, which keeps two signals for its threads to itself, and would leave them as whoever started the host had them.
pub(crate) fn reset_signals() {
    /// The kernel's own set of signals: 64 bits.
    const SET_BYTES: usize = 8;
    /// `struct sigaction` of the kernel is four words; all zero is the default action.
    const DEFAULT: [usize; 4] = [0; 4];
    let empty: u64 = 0;
    let no_old = ptr::null_mut::<u8>();
    // SAFETY: both structures have the kernel's layout and outlive the calls. Signals that can't be changed refuse harmlessly.
    unsafe {
        for signal in 1..=64 {
            libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), no_old, SET_BYTES);
        }
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const empty, no_old, SET_BYTES);
    }
}

/// Sends a signal, real-time ones included.
pub(crate) fn send_signal(pid: Pid, signal: i32) {
    // SAFETY: kill(2) takes numbers only. That the process is gone is no error of the caller's.
    unsafe { libc::kill(pid.as_raw_nonzero().get(), signal) };
}

/// Kills every process that this one may signal but itself: called by the first process of a pid namespace, all others in it.
pub(crate) fn kill_everybody() {
    // SAFETY: kill(2) takes numbers only.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// Closes every descriptor but these and the three standard ones.
pub(crate) fn close_all_but(keep: &[RawFd]) {
    let mut keep: Vec<u32> = keep.iter().map(|fd| *fd as u32).filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    let mut from = 3;
    for last in keep.into_iter().map(Some).chain([None]) {
        let to = last.map_or(u32::MAX, |fd| fd.saturating_sub(1));
        if from <= to {
            // SAFETY: runs right after a fork, whose copy of the parent's descriptors has no owner in this process.
            unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
        }
        from = last.map_or(from, |fd| fd + 1);
    }
}

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Read-only.
pub(crate) const MOUNT_READ_ONLY: u64 = 0x1;
/// Set-user-id bits do nothing.
pub(crate) const MOUNT_NO_SUID: u64 = 0x2;
/// Device files do nothing.
pub(crate) const MOUNT_NO_DEVICES: u64 = 0x4;

/// Adds attributes to a detached mount.
pub(crate) fn restrict_mount(mount: BorrowedFd<'_>, attributes: u64) -> io::Result<()> {
    let attr = MountAttr { set: attributes, ..MountAttr::default() };
    // SAFETY: the structure and the empty path outlive the call, and the size is the structure's.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Returns how many bytes wait in a pipe.
pub(crate) fn bytes_waiting(pipe: BorrowedFd<'_>) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    let result = unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    if result == 0 { count.max(0) as usize } else { 0 }
}
