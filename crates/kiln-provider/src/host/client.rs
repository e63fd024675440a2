//! The other side of the host's door.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kiln_model::route::Listener;
use kiln_model::{Digest, Fence, InstanceId, Position};

use super::server::LINE_BYTES_MAX;
use crate::port::{
    Capabilities, CreateRequest, Cursor, DestroyRequest, ExecOutcome, Listing, LogCursor, LogNext, LogStream,
    Provider, ProviderError, Transitions, Watched,
};
use crate::wire::{Answer, DecodeError, Hello, Request, Told, message};

/// Requests are accepted, not carried out, before they are answered; the longest wait is for a slow disk.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// A stream shows every two seconds that it lives.
const SIGN_OF_LIFE_WITHIN: Duration = Duration::from_secs(10);

/// Asks a host over its socket. It connects when it is first used, and again after the host was away.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    connection: Mutex<Option<Connection>>,
}

impl Client {
    /// Takes the path of the socket, `STATE/run/host.sock`. Nothing is opened yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { path: socket.into(), connection: Mutex::new(None) }
    }

    /// Opens a socket for the edge, and returns where it is bound. Repeated, it does nothing.
    ///
    /// # Errors
    /// `Failed` with the reason, such as a port in use.
    pub fn open_listener(&self, listener: Listener, fence: Fence) -> Result<SocketAddr, ProviderError> {
        let (term, position) = (fence.term.0, fence.position.0);
        let request = Request::OpenListener { listener: listener.to_string(), term, position };
        match self.ask(&request, ANSWER_WITHIN)? {
            Answer::Ok(accepted) => accepted.address.ok_or_else(|| unexpected(&"no address")),
            other => Err(unexpected(&other)),
        }
    }

    /// Closes a socket of the edge.
    ///
    /// # Errors
    /// `Failed` with the reason.
    pub fn close_listener(&self, listener: Listener, fence: Fence) -> Result<(), ProviderError> {
        let (term, position) = (fence.term.0, fence.position.0);
        self.accept(&Request::CloseListener { listener: listener.to_string(), term, position })
    }

    /// Stores where the log stands, durably.
    ///
    /// # Errors
    /// `Failed`: the disk refuses.
    pub fn put_anchor(&self, position: Position, hash: &Digest) -> Result<(), ProviderError> {
        self.accept(&Request::PutAnchor { position: position.0, hash: hash.to_string() })
    }

    fn accept(&self, request: &Request) -> Result<(), ProviderError> {
        match self.ask(request, ANSWER_WITHIN)? {
            Answer::Ok(_) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks once; on a connection that turns out to be dead, once more on a new one. Every request may be repeated.
    fn ask(&self, request: &Request, within: Duration) -> Result<Answer, ProviderError> {
        let mut kept = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = kept.as_mut() {
            match connection.ask(request, within) {
                Ok(answer) => return answered(answer),
                Err(error) => {
                    *kept = None;
                    // It was slow, not gone: asking again would only wait again.
                    if is_timeout(&error) {
                        return Err(ProviderError::Away(error));
                    }
                }
            }
        }
        let mut connection = Connection::open(&self.path)?;
        let answer = connection.ask(request, within).map_err(ProviderError::Away)?;
        *kept = Some(connection);
        answered(answer)
    }
}

fn answered(answer: Answer) -> Result<Answer, ProviderError> {
    match answer {
        Answer::Problem(problem) => Err(problem.into()),
        answer => Ok(answer),
    }
}

fn unexpected(seen: &dyn std::fmt::Debug) -> ProviderError {
    ProviderError::Protocol { reason: format!("unexpected answer {seen:?}") }
}

fn decode(error: DecodeError) -> ProviderError {
    ProviderError::Protocol { reason: error.to_string() }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

impl Provider for Client {
    fn capabilities(&self) -> Result<Capabilities, ProviderError> {
        match self.ask(&Request::Capabilities, ANSWER_WITHIN)? {
            Answer::Capabilities(capabilities) => Ok(capabilities.into()),
            other => Err(unexpected(&other)),
        }
    }

    fn prepare(&self, image: &Digest) -> Result<(), ProviderError> {
        self.accept(&Request::Prepare { image: image.to_string() })
    }

    fn create(&self, request: &CreateRequest) -> Result<(), ProviderError> {
        self.accept(&Request::Create(Box::new(request.into())))
    }

    fn destroy(&self, request: &DestroyRequest) -> Result<(), ProviderError> {
        self.accept(&message::destroy(request.id, request.fence, request.grace))
    }

    fn list(&self) -> Result<Listing, ProviderError> {
        match self.ask(&Request::List, ANSWER_WITHIN)? {
            Answer::Instances { life, seq, instances } => {
                let instances = instances.into_iter().map(TryInto::try_into).collect::<Result<_, _>>();
                Ok(Listing { cursor: Cursor { life, seq }, instances: instances.map_err(decode)? })
            }
            other => Err(unexpected(&other)),
        }
    }

    fn watch(&self, cursor: Cursor) -> Result<Box<dyn Transitions>, ProviderError> {
        let mut connection = Connection::open(&self.path)?;
        connection
            .send(&Request::Watch { life: cursor.life, seq: cursor.seq })
            .map_err(ProviderError::Away)?;
        Ok(Box::new(Watch { stream: Stream::new(connection) }))
    }

    fn logs(
        &self,
        id: InstanceId,
        cursor: LogCursor,
        follow: bool,
    ) -> Result<Box<dyn LogStream>, ProviderError> {
        let mut connection = Connection::open(&self.path)?;
        let request = Request::Logs { id: id.to_string(), cursor: cursor.0, follow };
        connection.send(&request).map_err(ProviderError::Away)?;
        let mut log = ClientLog { stream: Stream::new(connection), first: None };
        // That there is no such instance is told by this call, not by the first line.
        log.first = Some(log.receive(ANSWER_WITHIN)?);
        Ok(Box::new(log))
    }

    fn exec(&self, id: InstanceId, argv: &[String], timeout: Duration) -> Result<ExecOutcome, ProviderError> {
        let request = Request::Exec {
            id: id.to_string(),
            argv: argv.to_vec(),
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        };
        // On a connection of its own: others need not wait for it, and it must not be sent twice.
        let mut connection = Connection::open(&self.path)?;
        let answer =
            connection.ask(&request, timeout.saturating_add(ANSWER_WITHIN)).map_err(ProviderError::Away)?;
        match answered(answer)? {
            Answer::Exec(outcome) => {
                Ok(ExecOutcome { status: outcome.status.into(), output: outcome.output })
            }
            other => Err(unexpected(&other)),
        }
    }
}

#[derive(Debug)]
struct Connection {
    reader: BufReader<UnixStream>,
    /// The beginning of a line whose end did not come in time.
    line: Vec<u8>,
}

impl Connection {
    fn open(path: &Path) -> Result<Self, ProviderError> {
        let stream = UnixStream::connect(path).map_err(ProviderError::Away)?;
        let mut connection = Self { reader: BufReader::new(stream), line: Vec::new() };
        let hello = Hello::ours();
        connection.send(&hello).map_err(ProviderError::Away)?;
        let text = connection.receive_line(ANSWER_WITHIN).map_err(ProviderError::Away)?;
        let protocol = |reason| ProviderError::Protocol { reason };
        if let Ok(Answer::Problem(problem)) = serde_json::from_slice(&text) {
            return Err(problem.into());
        }
        let theirs: Hello = serde_json::from_slice(&text).map_err(|error| protocol(error.to_string()))?;
        match hello.agree(&theirs) {
            Some(_) => Ok(connection),
            None => {
                Err(protocol(format!("it speaks version {}, this is {}", theirs.kiln_host, hello.kiln_host)))
            }
        }
    }

    fn send(&mut self, value: &impl serde::Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.reader.get_mut().write_all(&line)
    }

    fn ask(&mut self, request: &Request, within: Duration) -> io::Result<Answer> {
        self.send(request)?;
        Ok(serde_json::from_slice(&self.receive_line(within)?)?)
    }

    /// Reads a line. After a timeout, the next call goes on with what was read.
    fn receive_line(&mut self, within: Duration) -> io::Result<Vec<u8>> {
        // A timeout of zero would be none at all.
        self.reader.get_mut().set_read_timeout(Some(within.max(Duration::from_millis(1))))?;
        let room = LINE_BYTES_MAX.saturating_sub(self.line.len() as u64);
        (&mut self.reader).take(room).read_until(b'\n', &mut self.line)?;
        if self.line.last() != Some(&b'\n') {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(std::mem::take(&mut self.line))
    }
}

/// A connection on which the host talks by itself.
struct Stream {
    connection: Connection,
    heard: Instant,
}

impl Stream {
    fn new(connection: Connection) -> Self {
        Self { connection, heard: Instant::now() }
    }

    /// Waits for a line; none after the timeout, an error when the host has not shown that it lives for too long.
    fn next(&mut self, timeout: Duration) -> Result<Option<Answer>, ProviderError> {
        match self.connection.receive_line(timeout) {
            Ok(line) => {
                self.heard = Instant::now();
                let answer = serde_json::from_slice(&line)
                    .map_err(|error| ProviderError::Protocol { reason: error.to_string() })?;
                answered(answer).map(Some)
            }
            Err(error) if is_timeout(&error) && self.heard.elapsed() < SIGN_OF_LIFE_WITHIN => Ok(None),
            Err(error) => Err(ProviderError::Away(error)),
        }
    }
}

struct Watch {
    stream: Stream,
}

impl Transitions for Watch {
    fn next(&mut self, timeout: Duration) -> Result<Option<Watched>, ProviderError> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.stream.next(deadline.saturating_duration_since(Instant::now()))? {
                None => return Ok(None),
                Some(Answer::Watched { told: Told::Quiet, .. }) if Instant::now() >= deadline => {
                    return Ok(None);
                }
                Some(Answer::Watched { life, seq, told }) => {
                    if let Some(watched) = told.into_watched(life, seq).map_err(decode)? {
                        return Ok(Some(watched));
                    }
                }
                Some(other) => return Err(unexpected(&other)),
            }
        }
    }
}

struct ClientLog {
    stream: Stream,
    first: Option<LogNext>,
}

impl ClientLog {
    fn receive(&mut self, timeout: Duration) -> Result<LogNext, ProviderError> {
        match self.stream.next(timeout)? {
            None => Ok(LogNext::Quiet),
            Some(Answer::Log(next)) => Ok(next.into()),
            Some(other) => Err(unexpected(&other)),
        }
    }
}

impl LogStream for ClientLog {
    fn next(&mut self, timeout: Duration) -> Result<LogNext, ProviderError> {
        match self.first.take() {
            Some(next) => Ok(next),
            None => self.receive(timeout),
        }
    }
}
