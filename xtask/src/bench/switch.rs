//! The switch of a blue-green rollout at 10,000 requests a second: from the decision to the last answer of the old release.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::machine::{Machine, WITHIN};
use super::median;
use super::table::Table;

const RATE: u32 = 10_000;
/// Connections that share the rate, each kept: enough that none has to wait for its last answer.
const CONNECTIONS: u32 = 32;
/// Rollouts of which the median is printed.
const ROUNDS: u32 = 7;

/// What one connection saw.
#[derive(Default)]
struct Seen {
    answered: u64,
    lost: Vec<String>,
    /// For each version the moment at which its last answer began to arrive, in the order in which they came.
    last_begun: Vec<(String, SystemTime)>,
}

/// Measures each round's switch under load, the load generator's own count beside it.
pub(super) fn run(table: &mut Table) -> Result<(), String> {
    let machine = Machine::new();
    machine.write_tiny("v0", 3, "");
    machine.kiln(&["up"]).ok();
    let (mut times, mut lost, mut answered, mut spent) = (Vec::new(), 0, 0, Duration::ZERO);
    for round in 1..=ROUNDS {
        machine.write_tiny(&format!("v{round}"), 3, "");
        machine.kiln(&["bake"]).ok();
        let begin = Instant::now();
        let load = start(machine.address);
        std::thread::sleep(Duration::from_millis(700));
        machine.kiln(&["up"]).ok();
        std::thread::sleep(Duration::from_millis(300));
        let seen = load.stop();
        spent += begin.elapsed();
        let old = format!("v{}", round - 1);
        let last = seen.iter().flat_map(|seen| &seen.last_begun).filter(|(version, _)| *version == old);
        let last = last.map(|(_, at)| *at).max().ok_or_else(|| format!("nothing was sent to {old}"))?;
        // The log counts in milliseconds: what is shown is up to one too long.
        times.push(last.duration_since(decided(&machine)?).unwrap_or_default());
        lost += seen.iter().map(|seen| seen.lost.len()).sum::<usize>();
        answered += seen.iter().map(|seen| seen.answered).sum::<u64>();
        if let Some(what) = seen.iter().find_map(|seen| seen.lost.first()) {
            println!("  lost: {what}");
        }
    }
    let rate = u128::from(answered) * 1000 / spent.as_millis().max(1);
    let longest = times.iter().max().copied().unwrap_or_default();
    table.row("switch of a blue-green rollout: decision to last old answer (bar 10 ms)", median(times), None);
    table.row("… the longest", longest, None);
    table.fact("… requests a second, answered", rate.to_string(), None);
    table.fact("… requests lost", format!("{lost} of {answered}"), None);
    Ok(())
}

/// When the last rollout moved the requests, as the log has it.
fn decided(machine: &Machine) -> Result<SystemTime, String> {
    let events = machine.kiln(&["events", "--json"]).ok();
    let mut at = None;
    for line in events.out.lines() {
        let event: serde_json::Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        match event["kind"].as_str() {
            Some("rollout.started") => at = None,
            Some("traffic.shifted") => at = at.or(event["at_ms"].as_u64()),
            _ => {}
        }
    }
    at.map(|at| UNIX_EPOCH + Duration::from_millis(at)).ok_or_else(|| "the log has no switch".into())
}

struct Load {
    stop: Arc<AtomicBool>,
    connections: Vec<JoinHandle<Seen>>,
}

impl Load {
    fn stop(self) -> Vec<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let joined = self.connections.into_iter().map(|thread| thread.join());
        joined.map(|seen| seen.expect("a connection of the load does not panic")).collect()
    }
}

fn start(address: SocketAddr) -> Load {
    let stop = Arc::new(AtomicBool::new(false));
    let begin = Instant::now();
    let spawn = |index: u32| {
        let stop = Arc::clone(&stop);
        let interval = Duration::from_secs(1) * CONNECTIONS / RATE;
        let first = begin + interval * index / CONNECTIONS;
        std::thread::spawn(move || send(address, first, interval, &stop))
    };
    Load { connections: (0..CONNECTIONS).map(spawn).collect(), stop }
}

/// Sends on a fixed schedule: what is late is sent late and not left out.
fn send(address: SocketAddr, first: Instant, interval: Duration, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut kept = None;
    let mut due = first;
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        due += interval;
        match kept.take().map_or_else(|| connect(address), Ok).and_then(exchange) {
            Ok((connection, version, begun)) => {
                kept = Some(connection);
                seen.answered += 1;
                match seen.last_begun.iter_mut().find(|(known, _)| *known == version) {
                    Some((_, last)) => *last = begun,
                    None => seen.last_begun.push((version, begun)),
                }
            }
            Err(error) => seen.lost.push(error.to_string()),
        }
    }
    seen
}

fn connect(address: SocketAddr) -> std::io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect_timeout(&address, WITHIN)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(WITHIN))?;
    Ok(BufReader::new(stream))
}

/// One request and its answer: who answered, and when that began to arrive.
fn exchange(
    mut connection: BufReader<TcpStream>,
) -> std::io::Result<(BufReader<TcpStream>, String, SystemTime)> {
    connection.get_mut().write_all(b"GET /page HTTP/1.1\r\nHost: tiny.localhost\r\n\r\n")?;
    let mut line = String::new();
    connection.fill_buf()?;
    let begun = SystemTime::now();
    let mut length = 0;
    let mut status = String::new();
    while line != "\r\n" {
        line.clear();
        if connection.read_line(&mut line)? == 0 {
            return Err(std::io::Error::other("the connection was closed in an answer"));
        }
        if status.is_empty() {
            status.clone_from(&line);
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body)?;
    if !status.starts_with("HTTP/1.1 200") {
        return Err(std::io::Error::other(status));
    }
    let body = String::from_utf8_lossy(&body);
    let version = body.split_whitespace().next().unwrap_or_default().to_owned();
    Ok((connection, version, begun))
}
