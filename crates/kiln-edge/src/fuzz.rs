//! What clients, other processes and the disk say to the edge, mutated.

use std::io::Write as _;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use fuzz::Target;

use crate::chunk::ChunkScanner;
use crate::head::HeadScanner;
use crate::wire::{AnswerFrame, AnyFrame, RequestFrame, TableWire};
use crate::{frame, wire};

/// Follows a head and its body as they arrive in pieces of some size.
fn scan(bytes: &[u8], piece: usize) -> (String, usize) {
    let (mut head, mut arrived) = (HeadScanner::default(), 0);
    loop {
        match head.advance(&bytes[..arrived]) {
            Err(refusal) => return (format!("{refusal:?}"), 0),
            Ok(Some(head)) => {
                assert!(head.len <= arrived, "it reads what did not arrive");
                return (format!("{:?} {}", head.framing, head.upgrade), head.len);
            }
            Ok(None) if arrived == bytes.len() => return ("more".into(), 0),
            Ok(None) => arrived = (arrived + piece).min(bytes.len()),
        }
    }
}

fn chunks(bytes: &[u8], piece: usize) -> (String, usize) {
    let (mut body, mut taken) = (ChunkScanner::new(), 0);
    for part in bytes.chunks(piece) {
        match body.advance(part) {
            Err(refusal) => return (format!("{refusal:?}"), 0),
            Ok(count) => taken += count,
        }
        if body.is_complete() {
            break;
        }
    }
    (format!("{}", body.is_complete()), taken)
}

#[test]
fn heads() {
    let words = [
        "GET / HTTP/1.1\r\n",
        "Host: a\r\n",
        "Content-Length: ",
        "Transfer-Encoding: chunked\r\n",
        "Upgrade: websocket\r\n",
        "\r\n\r\n",
    ];
    let more = [
        "Connection: upgrade\r\n",
        "5\r\nhello\r\n",
        "0\r\n\r\n",
        ";a=b",
        "\u{b}",
        "\t",
        " HTTP/1.0\r\n",
        "fffffffffffffffff\r\n",
        "{\"v\":1,\"id\":1,\"body\":",
    ];
    Target::new(env!("CARGO_MANIFEST_DIR"), "heads").words(&words).words(&more).run(|bytes| {
        let (whole, rest) = (scan(bytes, bytes.len().max(1)), chunks(bytes, bytes.len().max(1)));
        for piece in [1, 7] {
            // A head that is too large may be refused for another of its faults when less of it is there.
            let (said, length) = scan(bytes, piece);
            assert!(length == whole.1, "in pieces of {piece} it is {said}, and {} at once", whole.0);
            assert_eq!(chunks(bytes, piece), rest);
        }
        let body = chunks(&bytes[whole.1..], 4096);
        let request = serde_json::from_slice::<RequestFrame>(bytes).map(|frame| frame.id);
        let answer = serde_json::from_slice::<AnswerFrame>(bytes).map(|frame| frame.id);
        let any = serde_json::from_slice::<AnyFrame>(bytes).map(|frame| frame.id);
        let table = serde_json::from_slice::<TableWire>(bytes).map(|table| table.into_model().map(|_| ()));
        let listener = wire::listener(&String::from_utf8_lossy(bytes)).is_ok();
        let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
        // More than a socket holds would wait for a reader.
        theirs.write_all(&bytes[..bytes.len().min(4096)]).expect("it fits");
        theirs.shutdown(Shutdown::Write).expect("it is open");
        let frame = frame::read(&ours).map(|frame| frame.is_some()).map_err(|error| error.kind());
        format!("{whole:?} {rest:?} {body:?} {request:?} {answer:?} {any:?} {table:?} {listener} {frame:?}")
    });
}
