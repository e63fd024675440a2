//! The first process of an instance: it sets everything up, starts the program, reaps, passes signals on, and leaves word of how
//! the program ended where the next host process finds it.
//!
//! It is a fork of the zygote, not a program of its own: nothing is executed before the application, and its memory is
//! shared with the zygote's until it writes to it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use kiln_model::instance::ExitStatus;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fsync, openat, renameat};
use rustix::process::{Pid, WaitOptions, WaitStatus, setsid, wait};
use rustix::system::sethostname;

use super::boot::{Boot, EXIT_FILE, Failure, GO, InitIdentity, exit_text};
use super::confine::become_program;
use super::durable;
use super::log::{FIFOS, LEFT_OVER, READER_LOCK};
use super::network::link;
use super::network::netlink::Socket;
use super::rootfs;
use super::seccomp::Filters;
use super::user;
use crate::sys::{self, Forked};

/// How long an init waits for the host to read the last lines: it does so at once, or it is gone.
const LAST_LINES_WITHIN: Duration = Duration::from_secs(5);
const LAST_LINES_POLL: Duration = Duration::from_millis(5);

/// What a new init inherits from the zygote.
pub(crate) struct Inherited {
    pub(crate) boot: OwnedFd,
    pub(crate) report: OwnedFd,
    pub(crate) root: OwnedFd,
    /// On which the host says that the instance's folder is ready.
    pub(crate) go: OwnedFd,
    /// Speaks to the host's network.
    pub(crate) outside: Socket,
}

/// Runs in the process that was just cloned.
pub(crate) fn run(inherited: Inherited, compiled: &(u64, Filters)) -> ! {
    // A panic must not unwind into the zygote's loop, of which this process has a copy.
    let ended = catch_unwind(AssertUnwindSafe(|| live(inherited, compiled)));
    sys::exit_now(if ended.is_ok() { 0 } else { 101 })
}

fn live(inherited: Inherited, compiled: &(u64, Filters)) {
    let Inherited { boot, report, root, go, outside } = inherited;
    let fds = [boot.as_raw_fd(), report.as_raw_fd(), root.as_raw_fd(), go.as_raw_fd(), outside.as_raw_fd()];
    sys::close_all_but(&fds);
    match set_up(boot, root, go, outside) {
        Ok(ready) => ready.start(report, compiled),
        Err(failure) => tell(&report, &failure),
    }
}

/// Tells the host why there will be no instance.
pub(crate) fn tell(report: &OwnedFd, failure: &Failure) {
    let text = serde_json::to_vec(failure).expect("strings are always JSON");
    // The host may be gone; whoever comes next finds no running program and starts over.
    let _ = rustix::io::write(report, &text);
}

/// An instance that is set up, with what its init keeps open.
struct Ready {
    boot: Boot,
    user: user::Identity,
    folder: OwnedFd,
    lock: OwnedFd,
    oom: Option<OwnedFd>,
    /// Read ends: as long as they are open, an application never writes to a pipe without a reader.
    readers: [OwnedFd; 2],
    writers: [OwnedFd; 2],
}

fn set_up(boot: OwnedFd, root: OwnedFd, go: OwnedFd, mut outside: Socket) -> Result<Ready, Failure> {
    let boot = read_boot(boot)?;
    // Own session: what happens to the host's terminal is no business of an instance.
    let _ = setsid();
    let _ = rustix::thread::set_name(c"kiln-init");
    for file in &boot.join {
        fs::write(file, "0").map_err(Failure::step_io(format!("join {}", file.display())))?;
    }
    connect(&boot, &mut outside)?;
    drop(outside);
    wait_for_folder(go)?;
    // Not before: a host that finds it takes the instance for made.
    let identity = InitIdentity::of_self().map_err(Failure::step_io("find out the process number"))?;
    let text = serde_json::to_vec(&identity).expect("numbers and strings are always JSON");
    durable::replace_unsynced(&boot.folder.join(InitIdentity::FILE), &text)
        .map_err(Failure::step_io("write down the process number"))?;
    let kept = open_kept(&boot)?;
    let prepared = rootfs::prepare(&boot)?;
    rootfs::enter(root, &boot.stage)?;
    let user = user::resolve(Path::new("/"), &boot.program.user).map_err(Failure::Refused)?;
    rootfs::furnish(&boot, prepared, &user)?;
    sethostname(boot.hostname.as_bytes()).map_err(Failure::step("set the host name"))?;
    let (folder, lock, oom, readers, writers) = kept;
    for writer in &writers {
        // Programs open /dev/stdout again, also those that are not root.
        rustix::fs::fchown(writer, Some(rustix::fs::Uid::from_raw(user.uid)), None)
            .map_err(Failure::step("hand over the log"))?;
    }
    Ok(Ready { boot, user, folder, lock, oom, readers, writers })
}

fn read_boot(boot: OwnedFd) -> Result<Boot, Failure> {
    let mut file = fs::File::from(boot);
    io::Seek::rewind(&mut file).map_err(Failure::step_io("read the request"))?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut file, &mut bytes).map_err(Failure::step_io("read the request"))?;
    serde_json::from_slice(&bytes).map_err(|e| Failure::Failed(format!("cannot read the request: {e}")))
}

fn wait_for_folder(go: OwnedFd) -> Result<(), Failure> {
    let mut said = [0; GO.len()];
    match rustix::io::retry_on_intr(|| rustix::io::read(&go, &mut said)) {
        Ok(1..) => Ok(()),
        Ok(0) => Err(Failure::Failed("the host ended before the instance began".into())),
        Err(error) => Err(Failure::step("wait for the host")(error)),
    }
}

type Kept = (OwnedFd, OwnedFd, Option<OwnedFd>, [OwnedFd; 2], [OwnedFd; 2]);

fn open_kept(boot: &Boot) -> Result<Kept, Failure> {
    let open = |path: &Path, flags| {
        rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
            .map_err(Failure::step(format!("open {}", path.display())))
    };
    let folder = open(&boot.folder, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let lock = open(&boot.folder.join(READER_LOCK), OFlags::RDONLY)?;
    let oom = boot.oom_file.as_deref().map(|path| open(path, OFlags::RDONLY)).transpose()?;
    let fifo = |name, flags| open(&boot.folder.join(name), flags);
    // The readers come first: a fifo without one can't be opened for writing.
    let reading = OFlags::RDONLY | OFlags::NONBLOCK;
    let readers = [fifo(FIFOS[0], reading)?, fifo(FIFOS[1], reading)?];
    let writers = [fifo(FIFOS[0], OFlags::WRONLY)?, fifo(FIFOS[1], OFlags::WRONLY)?];
    Ok((folder, lock, oom, readers, writers))
}

fn connect(boot: &Boot, outside: &mut Socket) -> Result<(), Failure> {
    link::create_pair(outside, &boot.wiring).map_err(Failure::step_io("make the network link"))?;
    Socket::route()
        .and_then(|mut inside| link::configure_inside(&mut inside, &boot.wiring))
        .map_err(Failure::step_io("set up the network"))?;
    // As in Docker: who a service runs as does not decide which ports it may have, and ping needs no privilege.
    for (switch, value) in [("ip_unprivileged_port_start", "0"), ("ping_group_range", "0 2147483647")] {
        let path = format!("/proc/sys/net/ipv4/{switch}");
        fs::write(&path, value).map_err(Failure::step_io(format!("write {path}")))?;
    }
    Ok(())
}

impl Ready {
    fn start(self, report: OwnedFd, compiled: &(u64, Filters)) {
        sys::block_signals();
        match sys::fork() {
            Err(error) => tell(&report, &Failure::Failed(format!("cannot fork: {error}"))),
            Ok(Forked::Child) => {
                let failure = self.program(compiled);
                tell(&report, &failure);
                sys::exit_now(127);
            }
            Ok(Forked::Parent(program)) => {
                // The host sees the end of the report when the program's copy is closed by its exec.
                drop(report);
                let Self { boot, user, folder, lock, oom, readers, writers } = self;
                drop((boot, user, writers));
                let status = attend(program, oom.as_ref());
                leave_word(&folder, status);
                hand_over_last_lines(&folder, &lock, &readers);
            }
        }
    }

    fn program(&self, compiled: &(u64, Filters)) -> Failure {
        let stdio = rustix::fs::open("/dev/null", OFlags::RDONLY, Mode::empty())
            .and_then(|null| rustix::stdio::dup2_stdin(&null))
            .and_then(|()| rustix::stdio::dup2_stdout(&self.writers[0]))
            .and_then(|()| rustix::stdio::dup2_stderr(&self.writers[1]));
        match stdio {
            Ok(()) => become_program(&self.boot.program, &self.user, compiled, &self.boot.hostname),
            Err(error) => Failure::step("connect the log")(error),
        }
    }
}

/// Passes signals on and reaps until the program ends.
fn attend(program: Pid, oom: Option<&OwnedFd>) -> ExitStatus {
    loop {
        match sys::wait_for_signal() {
            Ok(libc::SIGCHLD) => {
                while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                    if pid == program {
                        return exit_status(status, oom);
                    }
                }
            }
            Ok(signal) => sys::send_signal(program, signal),
            // A stop and continue of this process itself interrupts the wait.
            Err(_) => {}
        }
    }
}

fn exit_status(status: WaitStatus, oom: Option<&OwnedFd>) -> ExitStatus {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitStatus::Code(code as u8),
        (None, Some(libc::SIGKILL)) if oom.is_some_and(was_out_of_memory) => ExitStatus::OutOfMemory,
        (None, Some(signal)) => ExitStatus::Signal(signal as u8),
        (None, None) => ExitStatus::Unknown,
    }
}

/// Both memory.events (v2) and memory.oom_control (v1) have a line `oom_kill COUNT`.
fn was_out_of_memory(counters: &OwnedFd) -> bool {
    let mut buffer = [0; 512];
    let count = rustix::io::pread(counters, &mut buffer, 0).unwrap_or(0);
    let text = String::from_utf8_lossy(&buffer[..count]);
    text.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count.trim() != "0")
}

/// Writes down how the program ended; it is durable before this process, and with it every trace, is gone.
fn leave_word(folder: &OwnedFd, status: ExitStatus) {
    let fresh = "exit.new";
    let write = || -> Result<(), rustix::io::Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let file = openat(folder, fresh, flags, Mode::from(0o600))?;
        rustix::io::write(&file, exit_text(status).as_bytes())?;
        fsync(&file)?;
        renameat(folder, fresh, folder, EXIT_FILE)?;
        fsync(folder)
    };
    // On a full disk nothing can be told: the status stays unknown, which the host reports as such.
    let _ = write();
}

/// Waits until the host has read what the program wrote last; where there is no host, keeps it in files for the next one.
fn hand_over_last_lines(folder: &OwnedFd, lock: &OwnedFd, readers: &[OwnedFd; 2]) {
    // Everybody else goes first, so that nobody writes any more. This process is not among those that it signals.
    sys::kill_everybody();
    let mut waited = Duration::ZERO;
    while readers.iter().any(|pipe| sys::bytes_waiting(pipe.as_fd()) > 0) && waited < LAST_LINES_WITHIN {
        if flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            for (pipe, name) in readers.iter().zip(LEFT_OVER) {
                keep(folder, pipe, name);
            }
            return;
        }
        sleep(LAST_LINES_POLL);
        waited += LAST_LINES_POLL;
    }
}

fn keep(folder: &OwnedFd, pipe: &OwnedFd, name: &str) {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
    let Ok(file) = openat(folder, name, flags, Mode::from(0o600)) else { return };
    let mut buffer = [0; 16 << 10];
    while let Ok(count) = rustix::io::read(pipe, &mut buffer) {
        if count == 0 || rustix::io::write(&file, &buffer[..count]).is_err() {
            return;
        }
    }
}
