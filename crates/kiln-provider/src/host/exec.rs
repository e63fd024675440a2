//! A command inside an instance: for command probes, and under the same restrictions as the program itself.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kiln_model::instance::ExitStatus;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use serde::{Deserialize, Serialize};

use super::boot::{Failure, Program};
use super::confine::become_program;
use super::seccomp::Filters;
use super::user;
use crate::sys::{self, Forked};

/// What is run.
#[derive(Serialize, Deserialize)]
pub(crate) struct ExecRequest {
    pub(crate) program: Program,
    pub(crate) hostname: String,
    pub(crate) join: Vec<PathBuf>,
    pub(crate) timeout_ms: u64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ExecAnswer {
    /// It ended with this code.
    Code(u8),
    /// This signal ended it.
    Signal(u8),
    /// It took longer than it may.
    TimedOut,
    /// It could not be run.
    Failed(String),
}

impl ExecAnswer {
    /// Reads an answer; none means that nobody was there to give one.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        serde_json::Deserializer::from_slice(bytes)
            .into_iter()
            .next()
            .and_then(Result::ok)
            .unwrap_or_else(|| Self::Failed("the command could not be started".into()))
    }

    /// Returns the exit status, or why there is none.
    pub(crate) fn into_status(self) -> Result<ExitStatus, String> {
        match self {
            Self::Code(code) => Ok(ExitStatus::Code(code)),
            Self::Signal(signal) => Ok(ExitStatus::Signal(signal)),
            Self::TimedOut => Err("the command took longer than it may".into()),
            Self::Failed(reason) => Err(reason),
        }
    }
}

/// What comes from the zygote.
pub(crate) struct Inherited {
    pub(crate) request: OwnedFd,
    pub(crate) answer: OwnedFd,
    pub(crate) output: OwnedFd,
    /// A pidfd of the instance's init.
    pub(crate) init: OwnedFd,
}

/// Runs in a fork of the zygote, for one command.
pub(crate) fn run(inherited: Inherited, compiled: &(u64, Filters)) -> ! {
    // A panic must not unwind into the zygote's loop, of which this process has a copy.
    let ended = catch_unwind(AssertUnwindSafe(|| {
        // The program is this process's own child, to be waited for.
        sys::block_signals();
        let answer = execute(&inherited, compiled).unwrap_or_else(ExecAnswer::Failed);
        reply(&inherited.answer, &answer);
    }));
    sys::exit_now(if ended.is_ok() { 0 } else { 101 })
}

fn reply(pipe: &OwnedFd, answer: &ExecAnswer) {
    let text = serde_json::to_vec(answer).expect("strings and numbers are always JSON");
    // The host may have stopped waiting.
    let _ = rustix::io::write(pipe, &text);
}

fn execute(inherited: &Inherited, compiled: &(u64, Filters)) -> Result<ExecAnswer, String> {
    let said = |what: &'static str| move |error: io::Error| format!("cannot {what}: {error}");
    let mut file = fs::File::from(inherited.request.try_clone().map_err(said("read the request"))?);
    let mut bytes = Vec::new();
    io::Seek::rewind(&mut file).map_err(said("read the request"))?;
    file.read_to_end(&mut bytes).map_err(said("read the request"))?;
    let request: ExecRequest = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
    for file in &request.join {
        fs::write(file, "0").map_err(said("join the instance's control group"))?;
    }
    let all = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::CONTROL_GROUP;
    move_into_thread_name_spaces(inherited.init.as_fd(), all)
        .map_err(|error| format!("cannot enter the instance: {}", io::Error::from(error)))?;
    match sys::fork().map_err(said("fork"))? {
        Forked::Child => {
            let failure = program(inherited, &request, compiled);
            let (Failure::Refused(reason) | Failure::Failed(reason)) = failure;
            reply(&inherited.answer, &ExecAnswer::Failed(reason));
            sys::exit_now(127)
        }
        Forked::Parent(pid) => watch(pid, Duration::from_millis(request.timeout_ms)),
    }
}

fn program(inherited: &Inherited, request: &ExecRequest, compiled: &(u64, Filters)) -> Failure {
    let user = match user::resolve(Path::new("/"), &request.program.user) {
        Ok(user) => user,
        Err(reason) => return Failure::Refused(reason),
    };
    let stdio = rustix::fs::open("/dev/null", OFlags::RDONLY, Mode::empty())
        .and_then(|null| rustix::stdio::dup2_stdin(&null))
        .and_then(|()| rustix::stdio::dup2_stdout(&inherited.output))
        .and_then(|()| rustix::stdio::dup2_stderr(&inherited.output));
    match stdio {
        Ok(()) => become_program(&request.program, &user, compiled, &request.hostname),
        Err(error) => Failure::step("connect the output")(error),
    }
}

fn watch(pid: Pid, timeout: Duration) -> Result<ExecAnswer, String> {
    let said = |error: rustix::io::Errno| io::Error::from(error).to_string();
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(said)?;
    let deadline = Instant::now() + timeout;
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let ended = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match poll(&mut fds, Some(&Timespec::try_from(left).map_err(|e| e.to_string())?)) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other.map_err(said)? > 0,
        }
    };
    if !ended {
        pidfd_send_signal(&pidfd, Signal::KILL).map_err(said)?;
    }
    let status = waitpid(Some(pid), WaitOptions::empty()).map_err(said)?.map(|(_, status)| status);
    Ok(match status {
        _ if !ended => ExecAnswer::TimedOut,
        Some(status) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => ExecAnswer::Code(code as u8),
            (None, signal) => ExecAnswer::Signal(signal.unwrap_or_default() as u8),
        },
        None => ExecAnswer::Failed("the command is gone, and nobody saw how it ended".into()),
    })
}
