//! One probe in flight, without ever blocking.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use kiln_model::instance::{ExpectedRun, Probe};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt::socket_error};

use super::super::exec::{ExecReport, PRINTED_BYTES_MAX};
use super::expected;

/// A status line is some twenty bytes; who sends more without a line end does not speak HTTP.
const ANSWER_BYTES_MAX: usize = 4096;

/// A command's report: two outputs as JSON, in which a byte becomes six at most.
const REPORT_BYTES_MAX: usize = 2 * 6 * PRINTED_BYTES_MAX + 4096;

/// What an attempt came to: what was seen, for people.
pub(crate) type Outcome = Result<String, String>;

/// One probe in flight.
#[derive(Debug)]
pub(crate) struct Attempt {
    fd: OwnedFd,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The connect is under way; what is sent then, if anything.
    Connecting(Option<(Vec<u8>, Option<u16>)>),
    /// The beginning of an HTTP answer, and the status that counts.
    Reading(Vec<u8>, Option<u16>),
    /// The beginning of a command's report, and what it must come to.
    Waiting(Vec<u8>, Option<ExpectedRun>),
    /// A connect that must be refused.
    Refusing(u16),
}

/// How an attempt begins.
#[derive(Debug)]
pub(crate) enum Begun {
    Goes(Attempt),
    /// It is over at once.
    Ended(Outcome),
}

/// What an attempt waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    Readable,
    Writable,
}

impl Attempt {
    /// Begins a probe over the network.
    pub(crate) fn over_network(probe: &Probe, address: IpAddr) -> Result<Self, String> {
        let (port, request) = match probe {
            Probe::Http { port, path, status } => {
                let path = if path.starts_with('/') { path.clone() } else { format!("/{path}") };
                let text = format!(
                    "GET {path} HTTP/1.1\r\nHost: {address}:{port}\r\nUser-Agent: kiln-probe\r\nAccept: */*\r\n\
                     Connection: close\r\n\r\n"
                );
                (*port, Some((text.into_bytes(), *status)))
            }
            Probe::Tcp { port } => (*port, None),
            Probe::Command { .. } => return Err("a command is not probed over the network".into()),
        };
        match begin_connect(address, port)? {
            (fd, Ok(())) => Ok(Self { fd, stage: Stage::Connecting(request) }),
            (_, Err(error)) => Err(said(error)),
        }
    }

    /// Begins a connect that must be refused.
    pub(crate) fn of_closed_port(port: u16, address: IpAddr) -> Result<Begun, String> {
        Ok(match begin_connect(address, port)? {
            (fd, Ok(())) => Begun::Goes(Self { fd, stage: Stage::Refusing(port) }),
            (_, Err(error)) => Begun::Ended(judge_refusal(port, Err(error))),
        })
    }

    /// Waits for the report of a command on a pipe that does not block.
    pub(crate) const fn of_command(report: OwnedFd, expected: Option<ExpectedRun>) -> Self {
        Self { fd: report, stage: Stage::Waiting(Vec::new(), expected) }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) const fn waits(&self) -> Waits {
        match self.stage {
            Stage::Connecting(_) | Stage::Refusing(_) => Waits::Writable,
            Stage::Reading(..) | Stage::Waiting(..) => Waits::Readable,
        }
    }

    /// Goes on as far as it can; none means that it waits.
    pub(crate) fn advance(&mut self) -> Option<Outcome> {
        match &mut self.stage {
            Stage::Connecting(request) => {
                match socket_error(&self.fd) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) | Err(error) => return Some(Err(said(error))),
                }
                let Some((request, status)) = request.take() else {
                    return Some(Ok("accepts connections".into()));
                };
                // A socket that just connected takes some hundred bytes at once.
                match rustix::net::send(&self.fd, &request, rustix::net::SendFlags::NOSIGNAL) {
                    Ok(count) if count == request.len() => {
                        self.stage = Stage::Reading(Vec::new(), status);
                        None
                    }
                    Ok(_) => Some(Err("does not take the request".into())),
                    Err(error) => Some(Err(said(error))),
                }
            }
            Stage::Refusing(port) => {
                let connected = socket_error(&self.fd).and_then(|result| result);
                Some(judge_refusal(*port, connected))
            }
            Stage::Reading(answer, status) => match read_more(&self.fd, answer, ANSWER_BYTES_MAX) {
                Ok(ended) => judge_http(answer, *status, ended),
                Err(error) => Some(Err(said(error))),
            },
            Stage::Waiting(report, expected) => match read_more(&self.fd, report, REPORT_BYTES_MAX) {
                Ok(false) => None,
                Ok(true) => Some(expected::judge(ExecReport::parse(report), expected.as_ref())),
                Err(error) => Some(Err(said(error))),
            },
        }
    }
}

fn said(error: Errno) -> String {
    io::Error::from(error).to_string()
}

/// Returns a socket that connects, or whose connect failed.
fn begin_connect(address: IpAddr, port: u16) -> Result<(OwnedFd, Result<(), Errno>), String> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = socket_with(family, SocketType::STREAM, flags, None).map_err(said)?;
    Ok(match connect(&fd, &SocketAddr::new(address, port)) {
        Ok(()) | Err(Errno::INPROGRESS) => (fd, Ok(())),
        Err(error) => (fd, Err(error)),
    })
}

/// Only a refusal proves that nobody listens: who listens and is too busy to answer looks like who drops what comes.
fn judge_refusal(port: u16, connected: Result<(), Errno>) -> Outcome {
    match connected {
        Err(Errno::CONNREFUSED) => Ok(format!("port {port} is closed")),
        Err(error) => Err(format!("whether port {port} is closed can't be seen: {}", said(error))),
        Ok(()) => Err(format!("port {port} takes connections and must be closed")),
    }
}

/// Reads what is there, up to a bound; whether that was all that counts.
fn read_more(fd: &OwnedFd, into: &mut Vec<u8>, bytes_max: usize) -> Result<bool, Errno> {
    let mut buffer = [0; 1024];
    while into.len() < bytes_max {
        match rustix::io::read(fd, &mut buffer) {
            Ok(0) => return Ok(true),
            Ok(count) => into.extend_from_slice(&buffer[..count]),
            Err(Errno::AGAIN) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn judge_http(answer: &[u8], wanted: Option<u16>, ended: bool) -> Option<Outcome> {
    let Some(end) = answer.iter().position(|byte| *byte == b'\n') else {
        return ended.then(|| Err("closed the connection without an HTTP answer".into()));
    };
    let line = String::from_utf8_lossy(&answer[..end]);
    let mut words = line.split_whitespace();
    let (version, status) =
        (words.next().unwrap_or_default(), words.next().and_then(|word| word.parse::<u16>().ok()));
    let Some(status) = status.filter(|_| version.starts_with("HTTP/")) else {
        return Some(Err("answers something that is not HTTP".into()));
    };
    let is_good = wanted.map_or((200..400).contains(&status), |wanted| wanted == status);
    let seen = format!("answers {status}");
    Some(if is_good { Ok(seen) } else { Err(seen) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_http_answer_is_judged_by_its_status_line() {
        let judge = |text: &str, wanted| judge_http(text.as_bytes(), wanted, true).unwrap();
        assert!(judge("HTTP/1.1 204 No Content\r\n", None).is_ok());
        assert!(judge("HTTP/1.1 302 Found\r\n", None).is_ok());
        assert_eq!(judge("HTTP/1.0 500 x\r\n", None), Err("answers 500".into()));
        assert!(judge("HTTP/1.1 503 x\r\n", Some(503)).is_ok());
        assert!(judge("HTTP/1.1 200 OK\r\n", Some(204)).is_err());
        assert!(judge("SSH-2.0-x\r\n", None).is_err());
        assert!(judge("", None).is_err());
        assert_eq!(judge_http(b"HTTP/1.1 20", None, false), None);
    }
}
