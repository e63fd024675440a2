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
use rustix::pipe::{PipeFlags, pipe_with};
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
    /// Whether the answer tells what it printed; else that goes to the output.
    pub(crate) captures: bool,
}

/// How much of each of a command's two outputs is told: an expectation is some lines.
pub(crate) const PRINTED_BYTES_MAX: usize = 64 << 10;

/// What a command printed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Printed {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// There was more than [`PRINTED_BYTES_MAX`].
    pub(crate) is_cut: bool,
}

/// What is told of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExecReport {
    pub(crate) answer: ExecAnswer,
    /// Empty unless it was asked for.
    #[serde(default)]
    pub(crate) printed: Printed,
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

impl ExecReport {
    /// Reads a report; none means that nobody was there to give one.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        serde_json::Deserializer::from_slice(bytes)
            .into_iter()
            .next()
            .and_then(Result::ok)
            .unwrap_or_else(|| ExecAnswer::Failed("the command could not be started".into()).into())
    }
}

impl From<ExecAnswer> for ExecReport {
    fn from(answer: ExecAnswer) -> Self {
        Self { answer, printed: Printed::default() }
    }
}

impl ExecAnswer {
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
        let report = execute(&inherited, compiled).unwrap_or_else(|reason| ExecAnswer::Failed(reason).into());
        reply(&inherited.answer, &report);
    }));
    sys::exit_now(if ended.is_ok() { 0 } else { 101 })
}

fn reply(pipe: &OwnedFd, report: &ExecReport) {
    let text = serde_json::to_vec(report).expect("strings and numbers are always JSON");
    let mut left = text.as_slice();
    while !left.is_empty() {
        match rustix::io::write(pipe, left) {
            Ok(count) => left = &left[count..],
            Err(rustix::io::Errno::INTR) => {}
            // The host may have stopped waiting.
            Err(_) => return,
        }
    }
}

fn execute(inherited: &Inherited, compiled: &(u64, Filters)) -> Result<ExecReport, String> {
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
    let taps = if request.captures { vec![Tap::new()?, Tap::new()?] } else { Vec::new() };
    let (writes, mut taps): (Vec<OwnedFd>, Vec<Tap>) = taps.into_iter().unzip();
    match sys::fork().map_err(said("fork"))? {
        Forked::Child => {
            let output = &inherited.output;
            let outputs = [writes.first().unwrap_or(output), writes.get(1).unwrap_or(output)];
            let failure = program(outputs, &request, compiled);
            let (Failure::Refused(reason) | Failure::Failed(reason)) = failure;
            reply(&inherited.answer, &ExecAnswer::Failed(reason).into());
            sys::exit_now(127)
        }
        Forked::Parent(pid) => {
            drop(writes);
            let answer = watch(pid, &mut taps, Duration::from_millis(request.timeout_ms))?;
            Ok(ExecReport { answer, printed: printed(taps) })
        }
    }
}

/// The end of a pipe on which a command prints.
struct Tap {
    pipe: OwnedFd,
    bytes: Vec<u8>,
    is_open: bool,
}

impl Tap {
    /// Returns where the command prints, and what reads it.
    fn new() -> Result<(OwnedFd, Self), String> {
        let (pipe, write) = pipe_with(PipeFlags::CLOEXEC)
            .map_err(|error| format!("cannot make a pipe: {}", io::Error::from(error)))?;
        rustix::io::ioctl_fionbio(&pipe, true)
            .map_err(|error| format!("cannot make a pipe: {}", io::Error::from(error)))?;
        Ok((write, Self { pipe, bytes: Vec::new(), is_open: true }))
    }

    /// Takes what is there: at most a full pipe, so that a command that prints without end can't keep it from its deadline.
    fn drain(&mut self) {
        // A pipe's capacity (pipe(7)), in pieces.
        const PIECE: usize = 4096;
        let mut buffer = [0; PIECE];
        for _ in 0..(64 << 10) / PIECE {
            match rustix::io::read(&self.pipe, &mut buffer) {
                Ok(0) => self.is_open = false,
                Ok(count) => {
                    // One byte more tells that there was more; the rest is let go, or the command would wait for ever.
                    let room = (PRINTED_BYTES_MAX + 1 - self.bytes.len()).min(count);
                    self.bytes.extend_from_slice(&buffer[..room]);
                    continue;
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(_) => self.is_open = false,
            }
            return;
        }
    }
}

fn printed(taps: Vec<Tap>) -> Printed {
    let is_cut = taps.iter().any(|tap| tap.bytes.len() > PRINTED_BYTES_MAX);
    let mut texts = taps.into_iter().map(|tap| {
        let kept = tap.bytes.len().min(PRINTED_BYTES_MAX);
        String::from_utf8_lossy(&tap.bytes[..kept]).into_owned()
    });
    let mut next = || texts.next().unwrap_or_default();
    Printed { stdout: next(), stderr: next(), is_cut }
}

fn program(outputs: [&OwnedFd; 2], request: &ExecRequest, compiled: &(u64, Filters)) -> Failure {
    let user = match user::resolve(Path::new("/"), &request.program.user) {
        Ok(user) => user,
        Err(reason) => return Failure::Refused(reason),
    };
    let stdio = rustix::fs::open("/dev/null", OFlags::RDONLY, Mode::empty())
        .and_then(|null| rustix::stdio::dup2_stdin(&null))
        .and_then(|()| rustix::stdio::dup2_stdout(outputs[0]))
        .and_then(|()| rustix::stdio::dup2_stderr(outputs[1]));
    match stdio {
        Ok(()) => become_program(&request.program, &user, compiled, &request.hostname),
        Err(error) => Failure::step("connect the output")(error),
    }
}

fn watch(pid: Pid, taps: &mut [Tap], timeout: Duration) -> Result<ExecAnswer, String> {
    let said = |error: rustix::io::Errno| io::Error::from(error).to_string();
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(said)?;
    let deadline = Instant::now() + timeout;
    let ended = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break false;
        }
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        fds.extend(taps.iter().filter(|tap| tap.is_open).map(|tap| PollFd::new(&tap.pipe, PollFlags::IN)));
        match poll(&mut fds, Some(&Timespec::try_from(left).map_err(|e| e.to_string())?)) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.map_err(said)?,
        };
        let has_ended = !fds[0].revents().is_empty();
        drop(fds);
        // What it leaves running in the background may keep the pipes open: that it has ended counts, not theirs.
        taps.iter_mut().filter(|tap| tap.is_open).for_each(Tap::drain);
        if has_ended {
            break true;
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
