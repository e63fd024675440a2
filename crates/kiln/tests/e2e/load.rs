//! A load generator that trusts nobody: raw sockets, its own count, every request accounted for.
//!
//! Open loop: each worker has a fixed schedule and sends late rather than never, so a stall shows as late requests and
//! not as fewer of them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longer than any answer of the test's backends, so that a hang is told from a loss.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The largest body that is posted: several reads, so that it is streamed and not swallowed whole.
const BODY_MAX: usize = 48 * 1024;

/// What is sent.
#[derive(Clone)]
pub struct Plan {
    /// Where.
    pub address: SocketAddr,
    /// The `Host` header.
    pub host: String,
    /// Requests in a second over all workers, half of them on kept connections.
    pub rate: u32,
    /// Workers that each read two-second streams back to back.
    pub streams: u32,
    /// How many workers share the rate.
    pub workers: u32,
}

/// One request that was answered in full.
#[derive(Clone)]
pub struct Answer {
    /// When its first byte was sent.
    pub sent: Instant,
    /// The first word of the body: the backend's version.
    pub version: String,
}

/// One request that was not.
#[derive(Clone, Debug)]
pub struct Loss {
    /// What kind, and what happened.
    pub what: String,
    /// Whether an answer had begun: then the request had surely been received.
    pub in_answer: bool,
}

/// All that one run saw.
#[derive(Default)]
pub struct Report {
    /// Requests answered in full with 200 and the right content.
    pub answers: Vec<Answer>,
    /// How many of them were two-second streams.
    pub streams: usize,
    /// All the others.
    pub losses: Vec<Loss>,
}

impl Report {
    /// Fails the test if a single request was lost, or if none was sent.
    #[track_caller]
    pub fn assert_none_lost(&self) {
        let shown: Vec<_> = self.losses.iter().take(20).collect();
        assert!(self.losses.is_empty(), "{} of {} lost: {shown:#?}", self.losses.len(), self.answers.len());
        assert!(!self.answers.is_empty(), "the load sent something");
    }

    /// Returns when the last request that this version answered was sent.
    pub fn last_sent_to(&self, version: &str) -> Option<Instant> {
        self.answers.iter().filter(|answer| answer.version == version).map(|answer| answer.sent).max()
    }
}

/// Load that is running.
pub struct Load {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Report>>,
}

impl Load {
    /// Starts sending.
    pub fn start(plan: &Plan) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let begin = Instant::now() + Duration::from_millis(20);
        let spawn = |index: u32| {
            let worker =
                Worker { plan: plan.clone(), index, begin, stop: stop.clone(), report: Report::default() };
            std::thread::Builder::new()
                .stack_size(256 * 1024)
                .spawn(move || worker.run())
                .expect("threads are to be had")
        };
        let workers = (0..plan.workers + plan.streams).map(spawn).collect();
        Self { stop, workers }
    }

    /// Stops sending, waits for what is in flight, and returns what was seen.
    pub fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Report::default();
        for worker in self.workers {
            let report = worker.join().expect("a load worker does not panic");
            total.answers.extend(report.answers);
            total.streams += report.streams;
            total.losses.extend(report.losses);
        }
        total
    }
}

struct Worker {
    plan: Plan,
    index: u32,
    begin: Instant,
    stop: Arc<AtomicBool>,
    report: Report,
}

impl Worker {
    fn run(mut self) -> Report {
        let streams = self.index >= self.plan.workers;
        let keep = !streams && self.index.is_multiple_of(2);
        let interval =
            Duration::from_secs_f64(f64::from(self.plan.workers) / f64::from(self.plan.rate.max(1)));
        let mut due =
            self.begin + interval.mul_f64(f64::from(self.index) / f64::from(self.plan.workers.max(1)));
        let mut kept = None;
        let mut count = self.index;
        while !self.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if !streams && due > now {
                std::thread::sleep((due - now).min(Duration::from_millis(100)));
                if due > Instant::now() {
                    continue;
                }
            }
            due += interval;
            count = count.wrapping_add(1);
            let kind = match (streams, count % 3) {
                (true, _) => Kind::Stream,
                (false, 0) => Kind::Post((count as usize).wrapping_mul(7919) % BODY_MAX),
                _ => Kind::Get,
            };
            self.send(kind, keep, &mut kept);
        }
        self.report
    }

    fn send(&mut self, kind: Kind, keep: bool, kept: &mut Option<BufReader<TcpStream>>) {
        let sent = Instant::now();
        let mut in_answer = false;
        let result = kept.take().filter(is_open).map_or_else(|| connect(self.plan.address), Ok).and_then(
            |mut connection| {
                let answer = exchange(&mut connection, &self.plan.host, kind, keep, &mut in_answer)?;
                Ok((connection, answer))
            },
        );
        match result {
            Ok((connection, (version, reusable))) => {
                if keep && reusable {
                    *kept = Some(connection);
                }
                self.report.streams += usize::from(matches!(kind, Kind::Stream));
                self.report.answers.push(Answer { sent, version });
            }
            Err(error) => {
                self.report.losses.push(Loss { what: format!("{}: {error}", kind.name()), in_answer });
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Get,
    Post(usize),
    Stream,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post(_) => "POST",
            Self::Stream => "stream",
        }
    }
}

/// Whether a kept connection may carry another request: as every client does, look before sending.
fn is_open(connection: &BufReader<TcpStream>) -> bool {
    let socket = connection.get_ref();
    let Ok(()) = socket.set_nonblocking(true) else { return false };
    let silent = matches!(socket.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
    silent && socket.set_nonblocking(false).is_ok()
}

fn connect(address: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(BufReader::new(stream))
}

/// Sends one request and reads its answer; returns the version that answered and whether the connection may be kept.
fn exchange(
    connection: &mut BufReader<TcpStream>,
    host: &str,
    kind: Kind,
    keep: bool,
    in_answer: &mut bool,
) -> io::Result<(String, bool)> {
    let close = if keep { "" } else { "Connection: close\r\n" };
    let request = match kind {
        Kind::Get => format!("GET /page HTTP/1.1\r\nHost: {host}\r\n{close}\r\n"),
        Kind::Stream => format!("GET /stream HTTP/1.1\r\nHost: {host}\r\n{close}\r\n"),
        Kind::Post(n) => {
            let body = "x".repeat(n);
            format!("POST /form HTTP/1.1\r\nHost: {host}\r\n{close}Content-Length: {n}\r\n\r\n{body}")
        }
    };
    connection.get_mut().write_all(request.as_bytes())?;
    let (reusable, body) = read_answer(connection, in_answer)?;
    let mut words = body.split_whitespace();
    let version = words.next().unwrap_or_default().to_owned();
    match kind {
        Kind::Get => {}
        Kind::Post(n) => {
            if words.nth(1) != Some(n.to_string().as_str()) {
                return Err(wrong(format!("posted {n} bytes, answered `{body}`")));
            }
        }
        Kind::Stream => {
            if body.lines().count() != 20 {
                return Err(wrong(format!("a stream of {} lines instead of 20", body.lines().count())));
            }
        }
    }
    Ok((version, reusable))
}

fn read_answer(connection: &mut BufReader<TcpStream>, begun: &mut bool) -> io::Result<(bool, String)> {
    let status = read_line(connection)?;
    *begun = true;
    let (mut length, mut chunked, mut reusable) = (None, false, true);
    let mut headers = String::new();
    loop {
        let line = read_line(connection)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| wrong(format!("header `{line}`")))?;
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse::<usize>().ok(),
            "transfer-encoding" => chunked = value.trim().eq_ignore_ascii_case("chunked"),
            "connection" => reusable &= !value.trim().eq_ignore_ascii_case("close"),
            _ => {}
        }
        headers.push_str(&line);
        headers.push('|');
    }
    let body = match (chunked, length) {
        (true, _) => read_chunks(connection)?,
        (false, Some(n)) => read_exactly(connection, n)?,
        (false, None) => return Err(wrong(format!("an answer without a length: {status} {headers}"))),
    };
    let body = String::from_utf8_lossy(&body).into_owned();
    if !status.contains(" 200 ") {
        return Err(wrong(format!("{status} {}", body.trim())));
    }
    Ok((reusable, body))
}

fn read_chunks(connection: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = read_line(connection)?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
            .map_err(|_| wrong(format!("chunk size `{size}`")))?;
        if size == 0 {
            while !read_line(connection)?.is_empty() {}
            return Ok(body);
        }
        body.extend(read_exactly(connection, size)?);
        read_line(connection)?;
    }
}

fn read_exactly(connection: &mut BufReader<TcpStream>, n: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; n];
    connection.read_exact(&mut bytes).map_err(|error| wrong(format!("the body was cut: {error}")))?;
    Ok(bytes)
}

fn read_line(connection: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if connection.read_line(&mut line)? == 0 {
        return Err(wrong("the connection was closed before the answer was complete".into()));
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn wrong(what: String) -> io::Error {
    io::Error::other(what)
}
