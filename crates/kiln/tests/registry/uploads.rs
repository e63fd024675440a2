//! Uploads: whole, in chunks, gone on with, and cancelled.

use std::io::Write;

use crate::http::{head, read};
use crate::server::{Registry, sha256};

#[test]
fn a_blob_is_pushed_in_two_requests() {
    let registry = Registry::start();
    let upload = registry.begin("a");
    let digest = sha256(b"whole");
    let answer = registry.send("PUT", &format!("{upload}?digest={digest}"), &[], b"whole");
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("docker-content-digest"), digest);
    assert_eq!(registry.get(answer.header("location")).body, b"whole");
    // It is closed.
    registry.get(&upload).refused(404, "BLOB_UPLOAD_UNKNOWN");
    registry
        .send("PUT", &format!("{upload}?digest={digest}"), &[], b"whole")
        .refused(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(registry.files("uploads").len(), 0);
}

#[test]
fn chunks_are_taken_in_order_and_no_other() {
    let registry = Registry::start();
    let upload = registry.begin("a");
    let first = registry.chunk(&upload, 0, b"0123456789");
    assert_eq!((first.status, first.header("range")), (202, "0-9"));
    for from in [0, 9, 11, 1000] {
        let refused = registry.chunk(&upload, from, b"abc");
        refused.refused(416, "BLOB_UPLOAD_INVALID");
        assert_eq!(refused.header("range"), "0-9");
    }
    let status = registry.get(&upload);
    assert_eq!((status.status, status.header("range")), (204, "0-9"));
    assert_eq!(status.header("location"), upload);
    assert_eq!(registry.chunk(&upload, 10, b"abc").header("range"), "0-12");
    let digest = sha256(b"0123456789abcdef");
    let close = |range: &str| {
        registry.send("PUT", &format!("{upload}?digest={digest}"), &[("Content-Range", range)], b"def")
    };
    close("12-14").refused(416, "BLOB_UPLOAD_INVALID");
    assert_eq!(close("13-15").status, 201);
    assert_eq!(registry.get(&format!("/v2/a/blobs/{digest}")).body, b"0123456789abcdef");
}

#[test]
fn a_chunk_has_the_length_of_its_range() {
    let registry = Registry::start();
    let upload = registry.begin("a");
    let send = |range: &str, body: &[u8]| registry.send("PATCH", &upload, &[("Content-Range", range)], body);
    send("0-9", b"short").refused(400, "SIZE_INVALID");
    send("0-1", b"too long").refused(400, "SIZE_INVALID");
    for range in ["0", "a-b", "5-0", "bytes 0-4/5", "-4", "0-99999999999999999999"] {
        send(range, b"01234").refused(400, "BLOB_UPLOAD_INVALID");
    }
    // Without a length of its own the body is counted, and nothing of a wrong one stays.
    for (range, body) in [("0-9", "5\r\nshort\r\n0\r\n\r\n"), ("0-1", "5\r\nlong!\r\n0\r\n\r\n")] {
        let mut stream = registry.connect();
        let headers = [("Content-Range", range), ("Transfer-Encoding", "chunked")];
        stream.write_all(head("PATCH", &upload, &headers).as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        read(stream, "PATCH").refused(400, "SIZE_INVALID");
    }
    let digest = sha256(b"right");
    assert_eq!(send("0-4", b"right").status, 202);
    assert_eq!(registry.send("PUT", &format!("{upload}?digest={digest}"), &[], b"").status, 201);
}

#[test]
fn a_body_without_a_range_is_appended() {
    let registry = Registry::start();
    let upload = registry.begin("a");
    for (number, part) in ["stream", "ed ", "push"].iter().enumerate() {
        let mut stream = registry.connect();
        let headers = [("Transfer-Encoding", "chunked")];
        stream.write_all(head("PATCH", &upload, &headers).as_bytes()).unwrap();
        let (begin, end) = part.split_at(1);
        let body = format!("1\r\n{begin}\r\n{:x}\r\n{end}\r\n0\r\n\r\n", end.len());
        stream.write_all(body.as_bytes()).unwrap();
        let answer = read(stream, "PATCH");
        assert_eq!((answer.status, answer.header("range")), (202, ["0-5", "0-8", "0-12"][number]));
    }
    let digest = sha256(b"streamed push");
    assert_eq!(registry.send("PUT", &format!("{upload}?digest={digest}"), &[], b"").status, 201);
}

#[test]
fn an_upload_that_broke_off_is_gone_on_with() {
    let registry = Registry::start();
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|number| (number >> 2) as u8).collect();
    let upload = registry.begin("a");
    let mut stream = registry.connect();
    stream.write_all(head("PATCH", &upload, &[("Content-Length", "1000000")]).as_bytes()).unwrap();
    stream.write_all(&bytes[..600_000]).unwrap();
    let data = registry.files("uploads").into_iter().find(|path| path.ends_with("data")).unwrap();
    while std::fs::metadata(&data).unwrap().len() == 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop(stream);
    // It is being carried out, and the next request waits for its end: so this is what arrived.
    let status = registry.get(&upload);
    assert_eq!(status.status, 204);
    let have: usize = status.header("range").strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1;
    assert!(have <= 600_000);
    assert_eq!(registry.chunk(&upload, have, &bytes[have..]).status, 202);
    let digest = sha256(&bytes);
    assert_eq!(registry.send("PUT", &format!("{upload}?digest={digest}"), &[], b"").status, 201);
    assert!(registry.get(&format!("/v2/a/blobs/{digest}")).body == bytes);
}

#[test]
fn a_cancelled_upload_is_gone() {
    let registry = Registry::start();
    let upload = registry.begin("a");
    assert_eq!(registry.chunk(&upload, 0, b"some").status, 202);
    assert_eq!(registry.delete(&upload).status, 204);
    for method in ["GET", "PATCH", "DELETE"] {
        registry.send(method, &upload, &[], b"").refused(404, "BLOB_UPLOAD_UNKNOWN");
    }
    assert_eq!(registry.files("uploads").len(), 0);
}

#[test]
fn an_upload_is_its_repositorys_own() {
    let registry = Registry::start();
    let upload = registry.begin("a").replace("/v2/a/", "/v2/b/");
    registry.get(&upload).refused(404, "BLOB_UPLOAD_UNKNOWN");
    registry.get("/v2/a/blobs/uploads/no-such").refused(404, "BLOB_UPLOAD_UNKNOWN");
    let unknown = "/v2/a/blobs/uploads/00000000-0000-4000-8000-000000000000";
    registry.get(unknown).refused(404, "BLOB_UPLOAD_UNKNOWN");
}

#[test]
fn what_was_sent_is_what_was_promised_or_nothing() {
    let registry = Registry::start();
    let digest = sha256(b"promised");
    let one = registry.send("POST", &format!("/v2/a/blobs/uploads/?digest={digest}"), &[], b"others");
    one.refused(400, "DIGEST_INVALID");
    let upload = registry.begin("a");
    registry.send("PUT", &format!("{upload}?digest={digest}"), &[], b"others").refused(400, "DIGEST_INVALID");
    let upload = registry.begin("a");
    assert_eq!(registry.chunk(&upload, 0, b"others").status, 202);
    registry.send("PUT", &upload, &[], b"").refused(400, "DIGEST_INVALID");
    registry.send("PUT", &format!("{upload}?digest=sha256:12"), &[], b"").refused(400, "DIGEST_INVALID");
    registry.send("PUT", &format!("{upload}?digest={digest}"), &[], b"").refused(400, "DIGEST_INVALID");
    assert_eq!(registry.get(&format!("/v2/a/blobs/{digest}")).status, 404);
    assert_eq!((registry.files("blobs").len(), registry.files("uploads").len()), (0, 0));
}

#[test]
fn one_blob_may_be_pushed_by_many_at_once() {
    let registry = Registry::start();
    let bytes = vec![7; 2_000_000];
    std::thread::scope(|scope| {
        for number in 0..6 {
            let (client, bytes) = (&registry.client, &bytes);
            scope.spawn(move || client.push(["a", "b"][number % 2], bytes));
        }
    });
    let digest = sha256(&bytes);
    assert!(registry.get(&format!("/v2/b/blobs/{digest}")).body == bytes);
    assert_eq!((registry.files("blobs").len(), registry.files("uploads").len()), (1, 0));
}
