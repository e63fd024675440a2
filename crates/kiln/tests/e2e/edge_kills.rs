//! SIGKILL of the edge cuts what was in flight and nothing else, and the ledger says how many.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::load::Load;
use crate::machine::{Machine, Requests, WITHIN, wait_for};

/// Requests of the exact count: each was surely received, and none is answered by the time of the kill.
const STREAMS: usize = 12;
const UPLOADS: usize = 5;

#[test]
fn the_ledger_counts_exactly_what_a_killed_edge_cut() {
    let machine = Machine::new();
    machine.write_tiny("v1", 2, "");
    machine.kiln(&["up"]).ok();
    machine.wait_page("v1");
    assert_eq!(machine.requests().lost, 0);
    let mut open: Vec<BufReader<TcpStream>> = (0..STREAMS).map(|_| begun_stream(&machine)).collect();
    open.extend((0..UPLOADS).map(|_| begun_upload(&machine)));
    assert_eq!(machine.requests().in_flight, (STREAMS + UPLOADS) as u64);
    machine.kill("edge");
    let cut = open.iter_mut().filter_map(|connection| ends_early(connection).then_some(())).count();
    assert_eq!(cut, STREAMS + UPLOADS, "by the client's own count");
    // The next edge closes the books of the one before it.
    machine.wait_page("v1");
    let ledger = settled(&machine);
    assert_eq!((ledger.lost, ledger.cut), (cut as u64, cut as u64), "{ledger:?}");
    let said = machine.kiln(&["status"]).ok().out;
    assert!(said.contains(&format!("{cut} lost ({cut} cut)")), "{said}");
}

/// The counts once nothing is in flight; what they were until then is told with a test that fails.
fn settled(machine: &Machine) -> Requests {
    wait_for("the ledger is settled", || {
        let requests = machine.requests();
        println!("{requests:?}");
        (requests.in_flight == 0).then_some(requests)
    })
}

/// A stream of which the first bytes have come.
fn begun_stream(machine: &Machine) -> BufReader<TcpStream> {
    let mut connection = connect(machine);
    write!(connection.get_mut(), "GET /stream HTTP/1.1\r\nHost: tiny.localhost\r\n\r\n").unwrap();
    expect_line(&mut connection, "HTTP/1.1 200");
    connection
}

/// An upload that waits to be continued, after the backend asked for its body.
fn begun_upload(machine: &Machine) -> BufReader<TcpStream> {
    let mut connection = connect(machine);
    let head =
        "POST /form HTTP/1.1\r\nHost: tiny.localhost\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n";
    connection.get_mut().write_all(head.as_bytes()).unwrap();
    expect_line(&mut connection, "HTTP/1.1 100");
    connection
}

fn connect(machine: &Machine) -> BufReader<TcpStream> {
    let connection = TcpStream::connect(machine.address).unwrap();
    connection.set_read_timeout(Some(WITHIN)).unwrap();
    BufReader::new(connection)
}

fn expect_line(connection: &mut BufReader<TcpStream>, begins: &str) {
    let mut line = String::new();
    connection.read_line(&mut line).unwrap();
    assert!(line.starts_with(begins), "{line}");
}

/// Whether the connection ends before its answer does.
fn ends_early(connection: &mut BufReader<TcpStream>) -> bool {
    let mut rest = Vec::new();
    let read = connection.read_to_end(&mut rest);
    read.is_err() || !rest.ends_with(b"0\r\n\r\n")
}

#[test]
fn an_edge_that_is_killed_again_and_again_under_load_refuses_nothing() {
    let machine = Machine::new();
    machine.write_tiny("v1", 2, "");
    machine.kiln(&["up"]).ok();
    machine.wait_page("v1");
    let plan = machine.plan(1000);
    let load = Load::start(&plan);
    let mut kills = 0;
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(400));
        machine.kill("edge");
        kills += 1;
        machine.wait_page("v1");
    }
    let report = load.stop();
    let in_flight_max = kills * (plan.workers + plan.streams) as usize;
    assert!(report.losses.len() <= in_flight_max, "{} lost", report.losses.len());
    let refused: Vec<_> = report.losses.iter().filter(|loss| loss.what.contains("refused")).collect();
    assert!(refused.is_empty(), "no connect is refused: {refused:#?}");
    let ledger = settled(&machine);
    // What the client had sent but the edge not read yet looks the same to the client, and never began for the edge.
    let surely = report.losses.iter().filter(|loss| loss.in_answer).count() as u64;
    assert!(surely >= 8, "streams were in flight at each kill");
    println!(
        "lost by the client's count {}, of those in an answer {surely}; by the ledger {}",
        report.losses.len(),
        ledger.lost
    );
    assert!((surely..=report.losses.len() as u64).contains(&ledger.lost), "{ledger:?}: {:#?}", report.losses);
}

#[test]
fn an_edge_killed_at_every_step_of_a_rollout_serves_the_right_revision_again() {
    let machine = Machine::new();
    machine.write_tiny("v0", 2, "");
    machine.kiln(&["up"]).ok();
    machine.wait_page("v0");
    let load = Load::start(&machine.plan(300));
    for (round, moment) in ["open the sockets", "wait until", "send 100%", "drain the old"].iter().enumerate()
    {
        let version = format!("v{}", round + 1);
        machine.write_tiny(&version, 2, "");
        machine.kiln_until(&["up"], moment, || machine.kill("edge")).ok();
        machine.wait_page(&version);
        // Not only the next answer: the old ones are out for good.
        let others: Vec<String> = (0..20)
            .filter_map(|_| machine.get("/page").ok())
            .filter(|page| page.split_whitespace().next() != Some(&version))
            .collect();
        assert!(others.is_empty(), "{version}: {others:?}");
    }
    let report = load.stop();
    let refused: Vec<_> = report.losses.iter().filter(|loss| loss.what.contains("refused")).collect();
    assert!(refused.is_empty(), "no connect is refused: {refused:#?}");
}
