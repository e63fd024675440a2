//! The zygote: a small process with one thread, from which every instance's init is cloned.
//!
//! The host has many threads, and a fork of a process with threads may run hardly any code; it also may be large, and copying its
//! page tables would take longer than all the rest. The zygote is this same program, started again by a hidden command before
//! anything else is in its memory. Its end touches no instance, and the host starts another one.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use kiln_model::instance::Security;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::network::netlink::Socket;
use super::seccomp::Filters;
use super::{capability, exec, init, launcher};
use crate::sys::{self, Forked};

/// The hidden command under which the program runs as a zygote. The program must call [`run_zygote`] for it.
pub const ZYGOTE_COMMAND: &str = "kiln-zygote";

/// The most descriptors that one request carries.
const FDS_MAX: usize = 5;

/// What the zygote is asked for, as the first byte of a request, with the descriptors that come with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// Clone an init: boot, report, root, the unified control group, go.
    Spawn,
    /// Run a command inside: request, answer, output, the init's pidfd.
    Exec,
    /// Wait in control groups to clone an init: the groups, the socket to wait on.
    Launcher,
}

impl Request {
    const fn byte(self) -> u8 {
        match self {
            Self::Spawn => b'S',
            Self::Exec => b'E',
            Self::Launcher => b'L',
        }
    }
}

/// Runs the zygote: call this first thing in `main` when the program was started with [`ZYGOTE_COMMAND`].
///
/// It serves the socket that is its standard input, and returns when the host is gone.
pub fn run_zygote() -> io::Result<()> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    sys::ignore_children();
    // A launcher is gone before its init is: inits come to the zygote then, which has the kernel reap them at once.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let _ = rustix::thread::set_name(c"kiln-zygote");
    let granted = capability::grant(&Security::default()).map_err(io::Error::other)?.bounding;
    let compiled = (granted, Filters::compile(granted).map_err(io::Error::other)?);
    // The host's terminal is not an instance's; what is written to it later would be lost in between other lines.
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    while let Some((kind, fds)) = receive(&socket)? {
        serve(kind, fds, &compiled);
    }
    Ok(())
}

fn serve(kind: u8, fds: Vec<OwnedFd>, compiled: &(u64, Filters)) {
    if kind == b'S' {
        return spawn(fds, compiled);
    }
    let mut fds = fds.into_iter();
    let mut next = || fds.next();
    match kind {
        b'E' => {
            let (Some(request), Some(answer), Some(output), Some(init)) = (next(), next(), next(), next())
            else {
                return;
            };
            // That it can't fork is told by the answer's end.
            if let Ok(Forked::Child) = sys::fork() {
                exec::run(exec::Inherited { request, answer, output, init }, compiled);
            }
        }
        b'L' => {
            let (Some(join), Some(control)) = (next(), next()) else { return };
            // That it can't fork is told by the socket's end.
            if let Ok(Forked::Child) = sys::fork() {
                launcher::run(join, control, compiled);
            }
        }
        _ => {}
    }
}

/// Clones an init; returns in the process that it is cloned from.
pub(super) fn spawn(fds: Vec<OwnedFd>, compiled: &(u64, Filters)) {
    let Ok([boot, report, root, group, go]) = <[OwnedFd; 5]>::try_from(fds) else { return };
    // Opened here, before the child has a network of its own.
    let cloned = Socket::route()
        .and_then(|outside| sys::clone_into_namespaces(group.as_fd()).map(|forked| (forked, outside)));
    match cloned {
        Ok((Forked::Child, outside)) => {
            init::run(init::Inherited { boot, report, root, go, outside }, compiled)
        }
        Ok((Forked::Parent(_), _)) => {}
        Err(error) => {
            let reason = format!("cannot clone a process: {error}");
            init::tell(&report, &super::boot::Failure::Failed(reason));
        }
    }
}

pub(super) fn receive(socket: &OwnedFd) -> io::Result<Option<(u8, Vec<OwnedFd>)>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok(Some((byte[0], fds)))
}

/// The program that becomes the zygote.
#[derive(Debug, Clone)]
pub struct ZygoteProgram {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// What is added to its environment.
    pub env: BTreeMap<OsString, OsString>,
}

impl Default for ZygoteProgram {
    fn default() -> Self {
        Self { program: "/proc/self/exe".into(), args: vec![ZYGOTE_COMMAND.into()], env: BTreeMap::new() }
    }
}

/// The host's end.
#[derive(Debug)]
pub(crate) struct Zygote {
    program: ZygoteProgram,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    socket: OwnedFd,
    child: Child,
}

impl Zygote {
    /// Starts it.
    pub(crate) fn start(program: ZygoteProgram) -> io::Result<Self> {
        let running = Running::start(&program)?;
        Ok(Self { program, running: Mutex::new(Some(running)) })
    }

    /// Hands a request over. What comes of it is told through the descriptors; their silent end means that nothing came.
    pub(crate) fn send(&self, request: Request, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(zygote) = running.as_ref() {
            match send(&zygote.socket, request, fds) {
                Ok(()) => return Ok(()),
                Err(Errno::PIPE | Errno::CONNRESET) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // It is gone; a request goes through or is not received at all, so that sending it again is safe.
        if let Some(mut gone) = running.take() {
            let _ = gone.child.wait();
        }
        let fresh = Running::start(&self.program)?;
        let sent = send(&fresh.socket, request, fds);
        *running = Some(fresh);
        Ok(sent?)
    }

    /// Ends it. Instances go on.
    pub(crate) fn stop(&self) {
        if let Some(Running { socket, mut child }) =
            self.running.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            drop(socket);
            let _ = child.wait();
        }
    }

    /// Returns its process number, for tests that end it.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|running| running.child.id())
    }
}

impl Running {
    fn start(program: &ZygoteProgram) -> io::Result<Self> {
        let (socket, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let child = Command::new(&program.program)
            .args(&program.args)
            .envs(&program.env)
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            // Ctrl-C in the host's terminal is for the host.
            .process_group(0)
            .spawn()?;
        Ok(Self { socket, child })
    }
}

/// Hands a request and its descriptors over.
pub(super) fn send(socket: &OwnedFd, request: Request, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fits = ancillary.push(SendAncillaryMessage::ScmRights(fds));
    debug_assert!(fits, "the space is for FDS_MAX descriptors");
    loop {
        match sendmsg(socket, &[IoSlice::new(&[request.byte()])], &mut ancillary, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            other => return other.map(drop),
        }
    }
}
