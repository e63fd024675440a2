//! What happens between fork and exec: the one place of this crate with `unsafe`.
//!
//! **Architecture invariant:** between fork and exec nothing is allocated, locked or freed, because another thread may have
//! held the allocator's lock when this one forked. Every string and list is made before, and only system calls run after.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::filter::Filters;

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

/// All that the child needs, made before the fork.
#[derive(Debug)]
pub(super) struct Jail {
    /// What becomes its root, mounted and attached nowhere.
    pub(super) root: OwnedFd,
    /// Whether what is written there goes to `upper` already; else an overlay is laid over it.
    pub(super) is_writable: bool,
    /// What is attached to the root.
    pub(super) mounts: Vec<Mount>,
    /// The work folder: `lower`, `upper`, `work` and `root` in it.
    pub(super) folder: CString,
    /// Whether the host's network stays.
    pub(super) network: bool,
    /// The working folder inside; made where it is missing.
    pub(super) workdir: CString,
    /// The user, the group and the other groups.
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    /// A process that writes 0 into each of these is in the step's control groups.
    pub(super) join: Vec<File>,
    /// What it is refused.
    pub(super) filters: Filters,
    /// Where the outermost process writes how the command ended: a byte, its exit status.
    pub(super) report: OwnedFd,
}

/// Something that is attached to the root.
#[derive(Debug)]
pub(super) struct Mount {
    /// It, attached nowhere.
    pub(super) tree: OwnedFd,
    /// What of it is meant, below `/dev/.kiln`; none means all.
    pub(super) inner: Option<CString>,
    /// Where, from the new root.
    pub(super) target: CString,
    pub(super) read_only: bool,
    /// What takes what is written, where that is forgotten.
    pub(super) over: Option<Over>,
}

/// An overlay for one mount: folders of the work folder, and its options.
#[derive(Debug)]
pub(super) struct Over {
    pub(super) lower: CString,
    pub(super) place: CString,
    pub(super) options: CString,
}

/// Makes `command` run in a jail of its own.
///
/// The process that `command` becomes waits for the jail, reports its exit status and takes it; killing it kills all in the jail.
/// When it reports, nothing runs in the jail any more.
pub(super) fn confine(command: &mut Command, jail: Jail) {
    let child = move || enter(&jail);
    // SAFETY: `enter` keeps to the invariant of this module: system calls on memory that was prepared before the fork.
    unsafe {
        command.pre_exec(child);
    }
}

/// Turns a failed call into its error, and names it on standard error, which is the step's log.
fn check(done: libc::c_long, what: &'static CStr) -> io::Result<()> {
    if done >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    say(c"kiln: cannot set up the sandbox: ");
    say(what);
    say(c"\n");
    Err(error)
}

fn say(text: &CStr) {
    let bytes = text.to_bytes();
    // SAFETY: the pointer and the length are those of one slice.
    unsafe {
        libc::write(2, bytes.as_ptr().cast(), bytes.len());
    }
}

fn enter(jail: &Jail) -> io::Result<()> {
    let mut spaces = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
    if !jail.network {
        spaces |= libc::CLONE_NEWNET;
    }
    for group in &jail.join {
        // SAFETY: the pointer and the length are those of one constant.
        let wrote = unsafe { libc::write(group.as_raw_fd(), b"0".as_ptr().cast(), 1) };
        check(wrote as libc::c_long, c"join the control group")?;
    }
    // SAFETY: plain system calls without pointers.
    unsafe {
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL).into(), c"die with the bake")?;
        check(libc::unshare(spaces).into(), c"unshare namespaces")?;
    }
    // The new pid namespace begins with the next child: it reaps, and its end is the end of all in there.
    let first = fork()?;
    if first != 0 {
        wait_and_exit(first, Some(jail.report.as_raw_fd()));
    }
    // SAFETY: plain system calls; the one pointer is that of a constant.
    unsafe {
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL).into(), c"die with the bake")?;
        // Programs look at what runs as the first process, and it may not be named after what happens to bake.
        check(libc::prctl(libc::PR_SET_NAME, c"init".as_ptr()).into(), c"name the first process")?;
    }
    change_root(jail)?;
    furnish(jail)?;
    let command = fork()?;
    if command != 0 {
        wait_and_exit(command, None);
    }
    become_user(jail)
}

/// Returns 0 in the child.
fn fork() -> io::Result<libc::pid_t> {
    // SAFETY: the child goes on with system calls only, as the invariant of this module demands.
    let pid = unsafe { libc::fork() };
    check(pid.into(), c"fork")?;
    Ok(pid)
}

/// Reaps children, the adopted ones, too, until `child` ends, and exits as it did. Whoever reports keeps nothing else open, the
/// command's output included.
fn wait_and_exit(child: libc::pid_t, report: Option<RawFd>) -> ! {
    // Closing everything also closes the pipe by which the standard library hears of a failed exec: it would stay open as
    // long as this process, and `spawn` would wait for it.
    match report {
        Some(kept) => {
            close(0, kept - 1);
            close(kept + 1, RawFd::MAX);
        }
        None => close(3, RawFd::MAX),
    }
    let end = |status: u8| {
        // SAFETY: system calls only; the pointer is that of one byte.
        unsafe {
            if let Some(report) = report {
                libc::write(report, std::ptr::from_ref(&status).cast(), 1);
            }
            libc::_exit(status.into())
        }
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

/// Closes the descriptors of a range.
fn close(first: RawFd, last: RawFd) {
    // SAFETY: a system call without pointers; what is closed is used by nobody in this process, which only waits.
    unsafe {
        libc::syscall(libc::SYS_close_range, first as libc::c_uint, last as libc::c_uint, 0);
    }
}

/// The options of an overlay over a whole tree. `volatile`: a bake that loses power starts again, so nothing in it needs to be
/// synced; the rest keeps what is captured afterwards plain: no redirects, no metadata without data.
const OVERLAY: &CStr =
    c"lowerdir=lower,upperdir=upper,workdir=work,volatile,redirect_dir=off,metacopy=off,index=off,xino=off";

fn change_root(jail: &Jail) -> io::Result<()> {
    mount(None, c"/", None, libc::MS_REC | libc::MS_PRIVATE, None, c"make mounts private")?;
    // SAFETY: every pointer is that of a C string that outlives the call; every fd is open.
    unsafe {
        check(libc::chdir(jail.folder.as_ptr()).into(), c"enter the work folder")?;
        lay_root(jail)?;
        for mounted in &jail.mounts {
            lay_over(mounted)?;
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
        return attach(jail.root.as_raw_fd(), c"root");
    }
    attach(jail.root.as_raw_fd(), c"lower")?;
    mount(Some(c"overlay"), c"root", Some(c"overlay"), libc::MS_NODEV, Some(OVERLAY), c"mount the overlay")
}

/// Lays an overlay over a mount whose changes are forgotten; its descriptor is that of the overlay afterwards.
fn lay_over(mounted: &Mount) -> io::Result<()> {
    let Some(over) = &mounted.over else { return Ok(()) };
    attach(mounted.tree.as_raw_fd(), &over.lower)?;
    let nodev = libc::MS_NODEV;
    mount(Some(c"overlay"), &over.place, Some(c"overlay"), nodev, Some(&over.options), c"mount an overlay")?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the pointer is that of a C string that outlives the call, and both descriptors are open.
    unsafe {
        let tree = libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, over.place.as_ptr(), flags);
        check(tree, c"take up an overlay")?;
        let kept = libc::dup3(tree as RawFd, mounted.tree.as_raw_fd(), libc::O_CLOEXEC);
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
fn attach_mount(mounted: &Mount) -> io::Result<()> {
    match &mounted.inner {
        None => attach(mounted.tree.as_raw_fd(), &mounted.target)?,
        Some(inner) => {
            // SAFETY: every pointer is that of a C string that outlives the call.
            unsafe {
                check(libc::mkdir(c"/dev/.kiln".as_ptr(), 0o700).into(), c"make a place for a mount")?;
                attach(mounted.tree.as_raw_fd(), c"/dev/.kiln")?;
                mount(Some(inner), &mounted.target, None, libc::MS_BIND, None, c"attach part of a mount")?;
                check(libc::umount2(c"/dev/.kiln".as_ptr(), libc::MNT_DETACH).into(), c"leave a mount")?;
                check(libc::rmdir(c"/dev/.kiln".as_ptr()).into(), c"leave a mount")?;
            }
        }
    }
    if mounted.read_only {
        let flags = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY;
        mount(None, &mounted.target, None, flags, None, c"make a mount read-only")?;
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

fn furnish(jail: &Jail) -> io::Result<()> {
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
    if jail.network {
        // A relative source is the host's file; an absolute target is found from the new root. An image without the file
        // goes without: its steps may still use addresses.
        let _ = mount(Some(c"etc/resolv.conf"), c"/etc/resolv.conf", None, libc::MS_BIND, None, c"");
    } else {
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
    for mounted in &jail.mounts {
        attach_mount(mounted)?;
    }
    // SAFETY: every pointer is that of a C string that outlives the call.
    unsafe {
        check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH).into(), c"leave the old root")?;
        check(libc::sethostname(c"kiln".as_ptr(), 4).into(), c"set the host name")?;
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

fn become_user(jail: &Jail) -> io::Result<()> {
    // SAFETY: system calls only; the pointer and the length are those of one vector. The raw calls change this one thread,
    // which is the only one; glibc's would try to reach the others that were left behind by the fork.
    unsafe {
        for capability in 0..CAPABILITIES_MAX {
            let kept = KEPT_CAPABILITIES.contains(&capability);
            if !kept && libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 {
                break;
            }
        }
        filter(&jail.filters)?;
        let groups = libc::syscall(libc::SYS_setgroups, jail.groups.len(), jail.groups.as_ptr());
        check(groups, c"set the groups")?;
        check(libc::syscall(libc::SYS_setresgid, jail.gid, jail.gid, jail.gid), c"set the group")?;
        check(libc::syscall(libc::SYS_setresuid, jail.uid, jail.uid, jail.uid), c"set the user")?;
        check(libc::setsid().into(), c"begin a session")?;
        // Whatever the bake has open stays outside; the standard library's pipe closes at exec, as before.
        let cloexec = libc::CLOSE_RANGE_CLOEXEC;
        check(libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, cloexec), c"close files")
    }
}

/// Installs the filters while this process may do so without no_new_privs: a step may use `sudo`, whose root has the
/// capabilities that are left.
///
/// # Safety
/// To be called between fork and exec only, in the thread that goes on to exec.
unsafe fn filter(filters: &Filters) -> io::Result<()> {
    for program in &filters.0 {
        let program = libc::sock_fprog {
            len: program.len() as libc::c_ushort,
            filter: program.as_ptr().cast_mut().cast(),
        };
        // SAFETY: the kernel reads as many instructions as there are, in the layout that both crates take from it.
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
