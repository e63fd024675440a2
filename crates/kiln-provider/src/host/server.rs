//! The host's door: a unix socket on which the controller asks.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fs, mem};

use kiln_model::{Digest, InstanceId};

use super::{Host, HostConfig, StartError};
use crate::port::{Cursor, DestroyRequest, LogCursor, LogNext, Provider, ProviderError};
use crate::wire::{Accepted, Answer, DecodeError, Hello, LogNextWire, Problem, Request, Told, fence, parse};

/// Each is a thread and two descriptors. A controller has one for requests and one for its stream, a command one.
const CONNECTIONS_MAX: usize = 1024;
/// Of those, what may read logs: `kiln logs -f` takes one for each of 256 instances for as long as somebody looks on. What is
/// left is for those who must get through, first of all a controller that was just started.
const LOG_STREAMS_MAX: usize = 768;
/// The largest thing that is sent is a spec with its environment; Linux itself takes 2 MiB of it at exec.
pub(super) const LINE_BYTES_MAX: u64 = 8 << 20;
/// How often a stream that has nothing to say shows that it lives.
const QUIET_AFTER: Duration = Duration::from_secs(2);

/// The host with its socket.
pub struct Server {
    host: Arc<Host>,
    path: PathBuf,
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    connections: Arc<AtomicUsize>,
    log_streams: Arc<AtomicUsize>,
}

/// One of a bounded number of places; free again when it is dropped, also by a panic.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(taken: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        let place = Self(Arc::clone(taken));
        (taken.fetch_add(1, Ordering::SeqCst) < max).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Server {
    /// Starts the host and serves `STATE/run/host.sock`.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(config: HostConfig) -> Result<Self, StartError> {
        let folder = config.state_dir.join("run");
        let host = Host::start(config)?;
        let step = StartError::step("open the host's socket");
        let path = folder.join("host.sock");
        let listener = match bind(&folder, &path) {
            Ok(listener) => listener,
            Err(error) => {
                host.stop();
                return Err(step(error));
            }
        };
        let shared = Arc::new(Shared::default());
        let accepting = {
            let (host, shared) = (Arc::clone(&host), Arc::clone(&shared));
            thread::Builder::new()
                .name("kiln-accept".into())
                .spawn(move || accept(&listener, &host, &shared))
                .map_err(StartError::step("start a thread"))?
        };
        Ok(Self { host, path, shared, accepting: Mutex::new(Some(accepting)) })
    }

    /// Returns the host itself, for callers in this process.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Stops serving. Instances go on, and the next host adopts them.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then sees that it is to stop.
        let _ = UnixStream::connect(&self.path);
        if let Some(thread) = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
        self.host.stop();
    }
}

fn bind(folder: &Path, path: &Path) -> io::Result<UnixListener> {
    fs::create_dir_all(folder)?;
    // The lock on the state folder is ours, so a socket that is there belongs to nobody.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn accept(listener: &UnixListener, host: &Arc<Host>, shared: &Arc<Shared>) {
    loop {
        let stream = listener.accept();
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok((stream, _)) = stream else {
            // Out of descriptors: those that are open will be closed.
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        let Some(place) = Place::take(&shared.connections, CONNECTIONS_MAX) else { continue };
        let (host, log_streams) = (Arc::clone(host), Arc::clone(&shared.log_streams));
        // Where no thread can be started the connection is closed, and its owner opens another.
        let _ = thread::Builder::new().name("kiln-serve".into()).spawn(move || {
            let _place = place;
            // A connection that breaks is its owner's to open again.
            let _ = Connection::open(stream, log_streams).and_then(|mut connection| connection.serve(&host));
        });
    }
}

struct Connection {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    log_streams: Arc<AtomicUsize>,
}

impl Connection {
    fn open(stream: UnixStream, log_streams: Arc<AtomicUsize>) -> io::Result<Self> {
        let peer = rustix::net::sockopt::socket_peercred(&stream)?;
        let writer = stream.try_clone()?;
        let mut connection = Self { reader: BufReader::new(stream), writer, log_streams };
        if !peer.uid.is_root() {
            let reason = "only root may ask the host".into();
            connection.answer(&Answer::Problem(Problem::Refused { reason }))?;
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        connection.line(&Hello::ours())?;
        let hello: Hello = connection.read()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if Hello::ours().agree(&hello).is_none() {
            let reason = format!(
                "the host speaks versions {} to {}, the caller {} to {}",
                Hello::ours().oldest,
                Hello::ours().kiln_host,
                hello.oldest,
                hello.kiln_host
            );
            connection.answer(&Answer::Problem(Problem::Protocol { reason }))?;
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(connection)
    }

    fn read<T: serde::de::DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut line = Vec::new();
        let count = (&mut self.reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if count == 0 {
            return Ok(None);
        }
        serde_json::from_slice(&line).map(Some).map_err(io::Error::other)
    }

    fn line(&mut self, value: &impl serde::Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.writer.write_all(&line)
    }

    fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        self.line(answer)
    }

    fn serve(&mut self, host: &Arc<Host>) -> io::Result<()> {
        loop {
            let request = match self.read::<Request>() {
                Ok(Some(request)) => request,
                Ok(None) => return Ok(()),
                Err(error) => {
                    let reason = format!("the request can't be read: {error}");
                    self.answer(&Answer::Problem(Problem::Protocol { reason }))?;
                    return Err(error);
                }
            };
            match request {
                Request::Watch { life, seq } => return self.watch(host, Cursor { life, seq }),
                Request::Logs { id, cursor, follow } => {
                    if let Err(error) = self.logs(host, &id, LogCursor(cursor), follow)? {
                        self.answer(&Answer::Problem(error.into()))?;
                    }
                }
                request => {
                    let answer =
                        carry_out(host, request).unwrap_or_else(|error| Answer::Problem(error.into()));
                    self.answer(&answer)?;
                }
            }
        }
    }

    fn watch(&mut self, host: &Arc<Host>, mut cursor: Cursor) -> io::Result<()> {
        let mut transitions = host.watch(cursor).map_err(io::Error::other)?;
        loop {
            let answer = match transitions.next(QUIET_AFTER).map_err(io::Error::other)? {
                Some(watched) => Answer::from(watched),
                None => Answer::Watched { life: cursor.life, seq: cursor.seq, told: Told::Quiet },
            };
            if let Answer::Watched { life, seq, .. } = answer {
                cursor = Cursor { life, seq };
            }
            self.answer(&answer)?;
        }
    }

    fn logs(
        &mut self,
        host: &Arc<Host>,
        id: &str,
        cursor: LogCursor,
        follow: bool,
    ) -> io::Result<Result<(), ProviderError>> {
        let Some(_place) = Place::take(&self.log_streams, LOG_STREAMS_MAX) else {
            let reason = format!("{LOG_STREAMS_MAX} logs are being read already");
            return Ok(Err(ProviderError::Failed { reason }));
        };
        let opened =
            parse::<InstanceId>("id", id).map_err(decode).and_then(|id| host.logs(id, cursor, follow));
        let mut log = match opened {
            Ok(log) => log,
            Err(error) => return Ok(Err(error)),
        };
        loop {
            match log.next(QUIET_AFTER) {
                Ok(next) => {
                    let is_end = next == LogNext::End;
                    self.answer(&Answer::Log(LogNextWire::from(next)))?;
                    if is_end {
                        return Ok(Ok(()));
                    }
                }
                Err(error) => return Ok(Err(error)),
            }
        }
    }
}

fn decode(error: DecodeError) -> ProviderError {
    ProviderError::Protocol { reason: error.to_string() }
}

fn carry_out(host: &Arc<Host>, request: Request) -> Result<Answer, ProviderError> {
    let ok = Answer::Ok(Accepted::default());
    match request {
        Request::Capabilities => host.capabilities().map(|c| Answer::Capabilities(c.into())),
        Request::Prepare { image } => {
            let image: Digest = parse("image", &image).map_err(decode)?;
            host.prepare(&image).map(|()| ok)
        }
        Request::Create(create) => host.create(&(*create).try_into().map_err(decode)?).map(|()| ok),
        Request::Destroy { id, term, position, grace_ms } => {
            let id = parse("id", &id).map_err(decode)?;
            let grace = kiln_model::Millis(grace_ms);
            host.destroy(&DestroyRequest { id, fence: fence(term, position), grace }).map(|()| ok)
        }
        Request::List => {
            let mut listing = host.list()?;
            let instances = mem::take(&mut listing.instances).into_iter().map(Into::into).collect();
            Ok(Answer::Instances { life: listing.cursor.life, seq: listing.cursor.seq, instances })
        }
        Request::Exec { id, argv, timeout_ms } => {
            let id = parse("id", &id).map_err(decode)?;
            let outcome = host.exec(id, &argv, Duration::from_millis(timeout_ms))?;
            let status = outcome.status.into();
            Ok(Answer::Exec(crate::wire::ExecWire { status, output: outcome.output }))
        }
        Request::OpenListener { listener, term, position } => {
            let listener = parse("listener", &listener).map_err(decode)?;
            let address = host.open_listener(listener, fence(term, position))?;
            Ok(Answer::Ok(Accepted { address: Some(address) }))
        }
        Request::CloseListener { listener, term, position } => {
            let listener = parse("listener", &listener).map_err(decode)?;
            host.close_listener(listener, fence(term, position)).map(|()| ok)
        }
        Request::PutAnchor { position, hash } => {
            let hash = parse("hash", &hash).map_err(decode)?;
            host.put_anchor(kiln_model::Position(position), hash).map(|()| ok)
        }
        Request::Watch { .. } | Request::Logs { .. } => {
            Err(ProviderError::Protocol { reason: "a stream was asked for in the middle of requests".into() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_free_again_also_after_a_panic() {
        let taken = Arc::default();
        let first = Place::take(&taken, 2).unwrap();
        let second = Place::take(&taken, 2).unwrap();
        assert!(Place::take(&taken, 2).is_none());
        assert!(Place::take(&taken, 2).is_none(), "who was refused takes no place");
        let panicked = thread::spawn(move || {
            let _place = second;
            panic!("on purpose");
        });
        assert!(panicked.join().is_err());
        let _third = Place::take(&taken, 2).unwrap();
        drop(first);
        assert!(Place::take(&taken, 2).is_some());
    }
}
