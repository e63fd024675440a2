//! One request that is in flight for as long as a test wants.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::machine::{Machine, WITHIN, wait_for};

/// A request whose body is not whole yet: in flight until the test says otherwise, so that a rollout waits while it drains.
pub struct Upload {
    stream: TcpStream,
}

impl Upload {
    /// Each part is more than the edge keeps for a second attempt.
    const PART_BYTES: usize = 128 << 10;

    /// Begins one, and waits until the edge has counted it.
    pub fn begin(machine: &Machine) -> Self {
        Self::begin_with(machine, "")
    }

    /// As [`Upload::begin`], with more lines of the head, each with its end.
    pub fn begin_with(machine: &Machine, more: &str) -> Self {
        let mut stream = TcpStream::connect(machine.address).unwrap();
        stream.set_read_timeout(Some(WITHIN)).unwrap();
        let length = 2 * Self::PART_BYTES;
        let head = format!(
            "POST /form HTTP/1.1\r\nHost: tiny.localhost\r\n{more}Connection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&[b'x'; Self::PART_BYTES]).unwrap();
        wait_for("the edge counts it", || (machine.requests().in_flight == 1).then_some(()));
        Self { stream }
    }

    /// Sends the rest, and returns the answer.
    pub fn end(mut self) -> String {
        self.stream.write_all(&[b'x'; Self::PART_BYTES]).unwrap();
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).unwrap();
        answer
    }
}
