//! What happens between fork and exec: the one place of this crate with `unsafe`.
//!
//! The processes of a sandbox may begin before it is known what runs in them. They do what every step needs, and wait: what
//! is to be done is written into memory that they share, and its mounts come over a socket.
//!
//! **Architecture invariant:** between fork and exec nothing is allocated, locked or freed, because another thread may have
//! held the allocator's lock when this one forked, and because the heap is given back. Every string and list is made
//! outside, in shared memory, and only system calls run here.
#![allow(unsafe_code)]

mod memory;
mod order;
mod shared;

use std::ffi::{CStr, c_char};
use std::fs::{self, File};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::Ordering;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::Pid;

use super::filter::Filters;
#[cfg(test)]
pub(super) use memory::dispensable;
pub use memory::share_heap;
pub(super) use order::{Attached, Desk, Order, Over};
use order::{Jail, Mount};
use shared::{Shared, Slot};

/// Linux has 41 capabilities; asking for one beyond the last is refused, which ends the loop.
const CAPABILITIES_MAX: libc::c_ulong = 64;

/// What a step may do as root: what Docker leaves to a container, without making device nodes.
const KEPT_CAPABILITIES: [libc::c_ulong; 13] = [
    0,  // CHOWN
    1,  // DAC_OVERRIDE
    3,  // FOWNER
    4,  // FSETID
    5,  // KILL
    6,  // SETGID
    7,  // SETUID
    8,  // SETPCAP
    10, // NET_BIND_SERVICE
    13, // NET_RAW
    18, // SYS_CHROOT
    29, // AUDIT_WRITE
    31, // SETFCAP
];

/// What the processes of a sandbox have before it is known what runs in it.
#[derive(Debug)]
pub(super) struct Ahead<'a> {
    /// Whether the host's network stays.
    pub(super) network: bool,
    /// A process that writes 0 into each of these is in the step's control groups.
    pub(super) join: &'a [File],
    /// What the command is refused.
    pub(super) filters: &'a Filters,
    /// The command's standard input, and its output, which takes what is said of a failure, too.
    pub(super) input: &'a File,
    pub(super) output: &'a File,
    /// Where the mounts come from; its other end closed means that nothing is to be run.
    pub(super) socket: BorrowedFd<'a>,
    /// Where [`Report`]s go to.
    pub(super) report: &'a File,
}

/// What the processes have from the beginning: descriptors, and lists in the shared memory.
#[derive(Debug, Clone, Copy)]
struct Begun {
    network: bool,
    join: &'static [RawFd],
    filters: [&'static [libc::sock_filter]; 2],
    input: RawFd,
    output: RawFd,
    socket: RawFd,
    report: RawFd,
    /// All of the above in order.
    kept: &'static [RawFd],
    /// Memory that is given back: addresses and lengths.
    dispensable: &'static [(usize, usize)],
    slot: &'static Slot<Jail>,
}

/// What a sandbox tells of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// The command ended with this status, and nothing runs any more.
    Ended(u8),
    /// It could not be started, for this number of an error.
    Failed(i32),
}

impl Report {
    /// The length of its bytes: few enough for a pipe to take them as one.
    pub(super) const BYTES: usize = 5;

    fn bytes(self) -> [u8; Self::BYTES] {
        let (kind, number) = match self {
            Self::Ended(status) => (0, i32::from(status)),
            Self::Failed(errno) => (1, errno),
        };
        let [a, b, c, d] = number.to_ne_bytes();
        [kind, a, b, c, d]
    }

    pub(super) fn read([kind, a, b, c, d]: [u8; Self::BYTES]) -> Self {
        let number = i32::from_ne_bytes([a, b, c, d]);
        if kind == 0 { Self::Ended(number as u8) } else { Self::Failed(number) }
    }
}

/// Starts the processes of a sandbox, which then wait for an order. To be called in a thread that stays until the returned process, the outermost, has
/// ended: it dies with that thread.
///
/// The outermost process waits for the sandbox, reports how its command ended and ends, too; killing it kills all in the sandbox.
/// When it reports, nothing runs in the sandbox any more.
pub(super) fn begin(ahead: &Ahead<'_>) -> io::Result<(Pid, Desk)> {
    let mut shared = Shared::new()?;
    let join: Vec<RawFd> = ahead.join.iter().map(AsRawFd::as_raw_fd).collect();
    let [input, output, report] = [ahead.input, ahead.output, ahead.report].map(AsRawFd::as_raw_fd);
    let socket = ahead.socket.as_raw_fd();
    let mut kept = [&join[..], &[input, output, report, socket]].concat();
    kept.sort_unstable();
    // SAFETY: only the child uses what is kept, and the slot is used by the desk, which has the memory.
    let begun = unsafe {
        let mut filters = [&[][..]; 2];
        for (kept, program) in filters.iter_mut().zip(&ahead.filters.0) {
            let plain = |it: &seccompiler::sock_filter| libc::sock_filter {
                code: it.code,
                jt: it.jt,
                jf: it.jf,
                k: it.k,
            };
            *kept = shared.keep(&program.iter().map(plain).collect::<Vec<_>>())?;
        }
        // The stack and what belongs to the thread.
        let needed = [std::ptr::from_ref(&ahead).addr(), libc::__errno_location().addr()];
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let ranges = memory::dispensable(&maps, &needed);
        let ranges: Vec<_> = ranges.into_iter().map(|range| (range.start, range.len())).collect();
        Begun {
            network: ahead.network,
            join: shared.keep(&join)?,
            filters,
            input,
            output,
            socket,
            report,
            kept: shared.keep(&kept)?,
            dispensable: shared.keep(&ranges)?,
            slot: shared.slot()?,
        }
    };
    match fork()? {
        0 => {
            let Err(error) = outermost(&begun);
            fail(report, &error)
        }
        pid => {
            let pid = Pid::from_raw(pid).expect("a child's number is positive");
            Ok((pid, Desk::new(shared, begun.slot)))
        }
    }
}

/// Makes `status` known as the end of this process.
fn fail(report: RawFd, error: &io::Error) -> ! {
    tell(report, Report::Failed(error.raw_os_error().unwrap_or(libc::EIO)));
    // SAFETY: a system call.
    unsafe { libc::_exit(127) }
}

fn tell(to: RawFd, report: Report) {
    let bytes = report.bytes();
    // SAFETY: the pointer and the length are those of one array.
    unsafe {
        libc::write(to, bytes.as_ptr().cast(), bytes.len());
    }
}

/// Turns a failed call into its error, and names it on standard error, which is the step's log.
fn check(done: libc::c_long, what: &'static CStr) -> io::Result<()> {
    if done >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    complain(what);
    Err(error)
}

fn check_errno<T>(errno: rustix::io::Errno, what: &'static CStr) -> io::Result<T> {
    complain(what);
    Err(errno.into())
}

fn complain(what: &'static CStr) {
    say(c"kiln: cannot set up the sandbox: ");
    say(what);
    say(c"\n");
}

fn say(text: &CStr) {
    let bytes = text.to_bytes();
    // SAFETY: the pointer and the length are those of one slice.
    unsafe {
        libc::write(2, bytes.as_ptr().cast(), bytes.len());
    }
}

/// The outermost process: outside of the namespaces, and the parent of the first one in them.
fn outermost(begun: &Begun) -> io::Result<std::convert::Infallible> {
    let mut spaces = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
    if !begun.network {
        spaces |= libc::CLONE_NEWNET;
    }
    // SAFETY: system calls. What is given back is the heap, which nothing here uses.
    unsafe {
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL).into(), c"die with the bake")?;
        for (start, length) in begun.dispensable {
            libc::munmap(*start as *mut libc::c_void, *length);
        }
        for (from, to) in [(begun.input, 0), (begun.output, 1), (begun.output, 2)] {
            check(libc::dup2(from, to).into(), c"open the standard files")?;
        }
    }
    let mut next = 3;
    for kept in begun.kept {
        close(next, kept - 1);
        next = next.max(kept + 1);
    }
    close(next, RawFd::MAX);
    for group in begun.join {
        // SAFETY: the pointer and the length are those of one constant.
        let wrote = unsafe { libc::write(*group, b"0".as_ptr().cast(), 1) };
        check(wrote as libc::c_long, c"join the control group")?;
    }
    // SAFETY: a plain system call without pointers.
    check(unsafe { libc::unshare(spaces) }.into(), c"unshare namespaces")?;
    // The new pid namespace begins with the next child: it reaps, and its end is the end of all in there.
    match fork()? {
        0 => first(begun),
        child => wait_and_exit(child, Some(begun.report)),
    }
}

/// The first process in the namespaces.
fn first(begun: &Begun) -> io::Result<std::convert::Infallible> {
    // SAFETY: plain system calls; the one pointer is that of a constant.
    unsafe {
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL).into(), c"die with the bake")?;
        // Programs look at what runs as the first process, and it may not be named after what happens to bake.
        check(libc::prctl(libc::PR_SET_NAME, c"init".as_ptr()).into(), c"name the first process")?;
    }
    let ready = furnish(begun.network)?;
    let jail = await_order(begun)?;
    change_root(jail)?;
    move_in(begun, jail, ready)?;
    match fork()? {
        0 => become_command(begun, jail),
        child => wait_and_exit(child, None),
    }
}

/// Waits until the mounts come, and returns what is to be done with them. Where nothing comes any more, this is the end.
fn await_order(begun: &Begun) -> io::Result<&'static Jail> {
    // SAFETY: it was opened by the bake, and is open here for as long.
    let socket = unsafe { BorrowedFd::borrow_raw(begun.socket) };
    let mut received = receive(socket)?;
    // SAFETY: it was written before the first mount was sent.
    let jail = unsafe { begun.slot.get() };
    let mut trees = jail.trees.iter();
    let mut tree = trees.next();
    while let Some(place) = tree {
        place.store(received, Ordering::Relaxed);
        tree = trees.next();
        if tree.is_some() {
            received = receive(socket)?;
        }
    }
    Ok(jail)
}

/// Receives one descriptor.
fn receive(socket: BorrowedFd<'_>) -> io::Result<RawFd> {
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut bytes = [IoSliceMut::new(&mut byte)];
        match rustix::net::recvmsg(socket, &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => continue,
            // SAFETY: a system call.
            Ok(message) if message.bytes == 0 => unsafe { libc::_exit(0) },
            Ok(_) => {}
            Err(errno) => return check_errno(errno, c"receive a mount"),
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut descriptors) = message
                && let Some(descriptor) = descriptors.next()
            {
                return Ok(descriptor.into_raw_fd());
            }
        }
        return check_errno(rustix::io::Errno::BADF, c"receive a mount");
    }
}

/// Returns 0 in the child.
///
/// The C library's own function would look after threads and locks in memory that is given back.
fn fork() -> io::Result<libc::pid_t> {
    // SAFETY: the child goes on with system calls only, as the invariant of this module demands.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD as libc::c_long, 0, 0, 0, 0) };
    check(pid, c"fork")?;
    Ok(pid as libc::pid_t)
}

/// Reaps children, the adopted ones, too, until `child` ends, and exits as it did. Whoever reports keeps nothing else open, the
/// command's output included.
fn wait_and_exit(child: libc::pid_t, report: Option<RawFd>) -> ! {
    match report {
        Some(kept) => {
            close(0, kept - 1);
            close(kept + 1, RawFd::MAX);
        }
        None => close(3, RawFd::MAX),
    }
    let end = |status: u8| {
        if let Some(report) = report {
            tell(report, Report::Ended(status));
        }
        // SAFETY: a system call.
        unsafe { libc::_exit(status.into()) }
    };
    let mut status = 0;
    loop {
        // SAFETY: the pointer is that of a variable that outlives the call.
        let pid = unsafe { libc::waitpid(-1, &mut status, 0) };
        if pid == child && libc::WIFEXITED(status) {
            end(libc::WEXITSTATUS(status) as u8);
        }
        if pid == child {
            end((128 + libc::WTERMSIG(status)) as u8);
        }
        // SAFETY: the thread's own variable.
        if pid < 0 && unsafe { *libc::__errno_location() } != libc::EINTR {
            end(1);
        }
    }
}

/// Closes the descriptors of a range, which may be empty.
fn close(first: RawFd, last: RawFd) {
    if first > last {
        return;
    }
    // SAFETY: a system call without pointers; what is closed is used by nobody in this process.
    unsafe {
        libc::syscall(libc::SYS_close_range, first as libc::c_uint, last as libc::c_uint, 0);
    }
}

/// The options of an overlay over a whole tree. `volatile`: a bake that loses power starts again, so nothing in it needs to be
/// synced; the rest keeps what is captured afterwards plain: no redirects, no metadata without data.
const OVERLAY: &CStr =
    c"lowerdir=lower,upperdir=upper,workdir=work,volatile,redirect_dir=off,metacopy=off,index=off,xino=off";

fn change_root(jail: &Jail) -> io::Result<()> {
    // SAFETY: every pointer is that of a C string that outlives the call; every fd is open.
    unsafe {
        check(libc::chdir(jail.folder.as_ptr()).into(), c"enter the work folder")?;
        lay_root(jail)?;
        for (tree, mounted) in jail.mounts() {
            lay_over(tree, mounted)?;
        }
        let old = libc::open(c"/".as_ptr(), libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC);
        check(old.into(), c"open the old root")?;
        check(libc::chdir(c"root".as_ptr()).into(), c"enter the root")?;
        check(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()), c"pivot the root")?;
        // The old root now lies over the new one, and relative paths are the host's until it is taken away.
        check(libc::fchdir(old).into(), c"keep the old root")
    }
}

/// Attaches the root. Device nodes of an image mean the host's devices, and nobody in a bake may open those.
fn lay_root(jail: &Jail) -> io::Result<()> {
    if jail.is_writable {
        return attach(jail.root(), c"root");
    }
    attach(jail.root(), c"lower")?;
    mount(Some(c"overlay"), c"root", Some(c"overlay"), libc::MS_NODEV, Some(OVERLAY), c"mount the overlay")
}

/// Lays an overlay over a mount whose changes are forgotten; its descriptor is that of the overlay afterwards.
fn lay_over(tree: RawFd, mounted: &Mount) -> io::Result<()> {
    let Some(over) = mounted.over else { return Ok(()) };
    attach(tree, over.lower)?;
    let nodev = libc::MS_NODEV;
    mount(Some(c"overlay"), over.place, Some(c"overlay"), nodev, Some(over.options), c"mount an overlay")?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the pointer is that of a C string that outlives the call, and both descriptors are open.
    unsafe {
        let overlay = libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, over.place.as_ptr(), flags);
        check(overlay, c"take up an overlay")?;
        let kept = libc::dup3(overlay as RawFd, tree, libc::O_CLOEXEC);
        check(kept.into(), c"keep an overlay")
    }
}

/// Attaches a mount to a folder or file.
fn attach(tree: RawFd, target: &CStr) -> io::Result<()> {
    // SAFETY: both pointers are those of C strings that outlive the call.
    let moved = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree,
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    check(moved, c"attach a mount")
}

/// Attaches a mount of the step, or what of it is meant.
fn attach_mount(tree: RawFd, mounted: &Mount) -> io::Result<()> {
    match mounted.inner {
        None => attach(tree, mounted.target)?,
        Some(inner) => {
            // SAFETY: every pointer is that of a C string that outlives the call.
            unsafe {
                check(libc::mkdir(c"/dev/.kiln".as_ptr(), 0o700).into(), c"make a place for a mount")?;
                attach(tree, c"/dev/.kiln")?;
                mount(Some(inner), mounted.target, None, libc::MS_BIND, None, c"attach part of a mount")?;
                check(libc::umount2(c"/dev/.kiln".as_ptr(), libc::MNT_DETACH).into(), c"leave a mount")?;
                check(libc::rmdir(c"/dev/.kiln".as_ptr()).into(), c"leave a mount")?;
            }
        }
    }
    if mounted.read_only {
        let flags = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY;
        mount(None, mounted.target, None, flags, None, c"make a mount read-only")?;
    }
    Ok(())
}

const DEVICES: [(&CStr, u32, u32); 6] = [
    (c"/dev/null", 1, 3),
    (c"/dev/zero", 1, 5),
    (c"/dev/full", 1, 7),
    (c"/dev/random", 1, 8),
    (c"/dev/urandom", 1, 9),
    (c"/dev/tty", 5, 0),
];

const DEVICE_LINKS: [(&CStr, &CStr); 4] = [
    (c"/proc/self/fd", c"/dev/fd"),
    (c"/proc/self/fd/0", c"/dev/stdin"),
    (c"/proc/self/fd/1", c"/dev/stdout"),
    (c"/proc/self/fd/2", c"/dev/stderr"),
];

/// Root inside is root outside but for its capabilities, and these need none.
const READ_ONLY_PATHS: [&CStr; 4] = [c"/proc/sys", c"/proc/sysrq-trigger", c"/proc/irq", c"/proc/bus"];
const MASKED_PATHS: [&CStr; 4] = [c"/proc/kcore", c"/proc/keys", c"/proc/timer_list", c"/proc/kmsg"];

/// What every sandbox has, attached where the host has its own of it: nobody else sees these mounts.
#[derive(Debug, Clone, Copy)]
struct Furniture {
    dev: RawFd,
    proc: RawFd,
}

/// Makes what every sandbox has, whatever runs in it.
fn furnish(network: bool) -> io::Result<Furniture> {
    mount(None, c"/", None, libc::MS_REC | libc::MS_PRIVATE, None, c"make mounts private")?;
    let quiet = libc::MS_NOSUID | libc::MS_NOEXEC;
    mount(Some(c"tmpfs"), c"/dev", Some(c"tmpfs"), quiet, Some(c"mode=755,size=64k"), c"mount /dev")?;
    // SAFETY: every pointer is that of a C string that outlives the call.
    unsafe {
        libc::umask(0);
        for (path, major, minor) in DEVICES {
            let device = libc::makedev(major, minor);
            check(libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o666, device).into(), c"make devices")?;
        }
        for (target, path) in DEVICE_LINKS {
            check(libc::symlink(target.as_ptr(), path.as_ptr()).into(), c"make devices")?;
        }
        check(libc::mkdir(c"/dev/shm".as_ptr(), 0o1777).into(), c"make /dev/shm")?;
        libc::umask(0o022);
    }
    let shared = libc::MS_NOSUID | libc::MS_NODEV;
    mount(
        Some(c"tmpfs"),
        c"/dev/shm",
        Some(c"tmpfs"),
        shared,
        Some(c"mode=1777,size=256m"),
        c"mount /dev/shm",
    )?;
    mount(Some(c"proc"), c"/proc", Some(c"proc"), quiet | libc::MS_NODEV, None, c"mount /proc")?;
    if !network {
        raise_loopback()?;
    }
    for path in READ_ONLY_PATHS {
        let flags = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | quiet | libc::MS_NODEV;
        // Not every kernel has all of these.
        if mount(Some(path), path, None, libc::MS_BIND, None, c"").is_ok() {
            mount(None, path, None, flags, None, c"make /proc read-only")?;
        }
    }
    for path in MASKED_PATHS {
        let _ = mount(Some(c"/dev/null"), path, None, libc::MS_BIND, None, c"");
    }
    // SAFETY: the pointer and the length are those of one constant.
    check(unsafe { libc::sethostname(c"kiln".as_ptr(), 4) }.into(), c"set the host name")?;
    Ok(Furniture { dev: open_mount(c"/dev")?, proc: open_mount(c"/proc")? })
}

fn open_mount(path: &CStr) -> io::Result<RawFd> {
    // SAFETY: the pointer is that of a C string that outlives the call.
    let mount = unsafe { libc::open(path.as_ptr(), libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) };
    check(mount.into(), c"open a mount")?;
    Ok(mount)
}

/// Brings all that the root lacks, and leaves the host's.
fn move_in(begun: &Begun, jail: &Jail, ready: Furniture) -> io::Result<()> {
    attach(ready.dev, c"/dev")?;
    attach(ready.proc, c"/proc")?;
    if begun.network {
        // A relative source is the host's file; an absolute target is found from the new root. An image without the file
        // goes without: its steps may still use addresses.
        let _ = mount(Some(c"etc/resolv.conf"), c"/etc/resolv.conf", None, libc::MS_BIND, None, c"");
    }
    for (tree, mounted) in jail.mounts() {
        attach_mount(tree, mounted)?;
    }
    // SAFETY: every pointer is that of a C string that outlives the call.
    unsafe {
        check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH).into(), c"leave the old root")?;
        check(libc::chdir(jail.workdir.as_ptr()).into(), c"enter the working folder")?;
    }
    Ok(())
}

fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
    data: Option<&CStr>,
    what: &'static CStr,
) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: every pointer is null or that of a C string that outlives the call.
    let done =
        unsafe { libc::mount(pointer(source), target.as_ptr(), pointer(kind), flags, pointer(data).cast()) };
    if done < 0 && what.is_empty() {
        return Err(io::Error::last_os_error());
    }
    check(done.into(), what)
}

fn raise_loopback() -> io::Result<()> {
    // SAFETY: a zeroed `ifreq` is valid, and the kernel writes no further than its size.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        check(socket.into(), c"open a socket")?;
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        check(libc::ioctl(socket, libc::SIOCSIFFLAGS, &request).into(), c"raise the loopback link")?;
        libc::close(socket);
    }
    Ok(())
}

/// Becomes the command, or tells why not.
fn become_command(begun: &Begun, jail: &Jail) -> io::Result<std::convert::Infallible> {
    unsafe extern "C" {
        static mut environ: *const *const c_char;
    }
    become_user(begun, jail)?;
    // SAFETY: system calls, and the C library's search along PATH, which allocates nothing. Every pointer is that of C strings or of
    // a list of them with its end, in memory that stays.
    unsafe {
        // What Rust changed for all of the bake, and what a thread may have changed, is as a program expects it.
        let mut none = MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        environ = jail.env;
        libc::execvp(jail.program, jail.argv);
    }
    Err(io::Error::last_os_error())
}

fn become_user(begun: &Begun, jail: &Jail) -> io::Result<()> {
    // SAFETY: system calls only; the pointer and the length are those of one list. The raw calls change this one thread,
    // which is the only one; glibc's would try to reach the others that were left behind by the fork.
    unsafe {
        for capability in 0..CAPABILITIES_MAX {
            let kept = KEPT_CAPABILITIES.contains(&capability);
            if !kept && libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 {
                break;
            }
        }
        filter(&begun.filters)?;
        let groups = libc::syscall(libc::SYS_setgroups, jail.groups.len(), jail.groups.as_ptr());
        check(groups, c"set the groups")?;
        check(libc::syscall(libc::SYS_setresgid, jail.gid, jail.gid, jail.gid), c"set the group")?;
        check(libc::syscall(libc::SYS_setresuid, jail.uid, jail.uid, jail.uid), c"set the user")?;
        check(libc::setsid().into(), c"begin a session")?;
        // Whatever was open until here stays outside. The report is open until exec, for an error of it.
        let cloexec = libc::CLOSE_RANGE_CLOEXEC;
        check(libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, cloexec), c"close files")
    }
}

/// Installs the filters while this process may do so without no_new_privs: a step may use `sudo`, whose root has the
/// capabilities that are left.
///
/// # Safety
/// To be called between fork and exec only, in the thread that goes on to exec.
unsafe fn filter(filters: &[&[libc::sock_filter]]) -> io::Result<()> {
    for program in filters {
        let program =
            libc::sock_fprog { len: program.len() as libc::c_ushort, filter: program.as_ptr().cast_mut() };
        // SAFETY: the kernel reads as many instructions as there are.
        let done = unsafe {
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, std::ptr::from_ref(&program))
        };
        check(done.into(), c"refuse system calls")?;
    }
    Ok(())
}

/// Gives this process, which has one thread, mounts and a host name of its own: those of now, from now on changed for it alone.
pub(crate) fn own_mounts_and_name() -> io::Result<()> {
    // SAFETY: no memory is shared with the kernel, and what the flags part is no descriptor or memory of another thread.
    check(
        unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWUTS) }.into(),
        c"own mounts and host name",
    )
}

/// Makes `command` end with the process that starts it.
pub(crate) fn die_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec one system call runs, and nothing is allocated.
    unsafe {
        command.pre_exec(|| {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL).into(), c"die with the parent")
        });
    }
}
