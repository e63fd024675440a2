//! Clients that lie, dawdle and reach for what is not theirs.

use std::io::{Read, Write};
use std::time::Duration;

use crate::http::{head, read};
use crate::server::{Registry, sha256};

#[test]
fn no_name_or_digest_reaches_out_of_the_folder() {
    let registry = Registry::start();
    registry.push_image("a", "v1", b"layer");
    let folder = registry.root().parent().unwrap().to_owned();
    std::fs::write(folder.join("secret"), "secret").unwrap();
    let before = registry.files("..").len();
    let hex = "a".repeat(64);
    for path in [
        "/v2/../secret".to_owned(),
        "/v2/a/blobs/..%2f..%2f..%2f..%2fsecret".to_owned(),
        "/v2/a/blobs/sha256:..%2f..%2fsecret".to_owned(),
        "/v2/a/manifests/..%2f..%2f..%2fregistry.lock".to_owned(),
        "/v2/a/manifests/..".to_owned(),
        "/v2/..%2f..%2fx/manifests/secret".to_owned(),
        "/v2/%2e%2e/%2e%2e/tags/list".to_owned(),
        "/v2/a/blobs/uploads/..%2f..%2fregistry.lock".to_owned(),
        format!("/v2/a/_manifests/blobs/sha256:{hex}"),
        format!("/v2/a%00/blobs/sha256:{hex}"),
        format!("/v2/{}/blobs/sha256:{hex}", "a/".repeat(200) + "a"),
        format!("/v2/a/referrers/sha256:{}%2f..%2f..", &hex[6..]),
        format!("/v2/a/manifests/{}", "t".repeat(129)),
    ] {
        for method in ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"] {
            let answer = registry.send(method, &path, &[], b"x");
            assert!((400..500).contains(&answer.status), "{method} {path}: {answer:?}");
            assert!(!answer.body.windows(6).any(|part| part == b"secret"), "{method} {path}");
        }
    }
    for query in ["mount=sha256:../../x&from=a", "digest=sha512:../../../../secret", "digest-algorithm=../x"]
    {
        assert_eq!(registry.send("POST", &format!("/v2/a/blobs/uploads/?{query}"), &[], b"x").status, 400);
    }
    assert_eq!(registry.files("..").len(), before, "nothing was written or removed");
}

#[test]
fn a_body_that_is_shorter_than_it_says_is_no_blob() {
    let registry = Registry::start();
    let digest = sha256(b"all of it");
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    let mut stream = registry.connect();
    stream.write_all(head("POST", &path, &[("Content-Length", "9")]).as_bytes()).unwrap();
    stream.write_all(b"all").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 400"), "{said}");
    assert_eq!(registry.get(&format!("/v2/a/blobs/{digest}")).status, 404);
    assert_eq!(registry.files("blobs").len(), 0);
}

#[test]
fn a_length_and_chunks_at_once_are_no_way_to_hide_a_request() {
    let registry = Registry::start();
    let upload = registry.begin("a");
    let inner = "GET /v2/_catalog HTTP/1.1\r\nHost: x\r\n\r\n";
    let request = format!(
        "PATCH {upload} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"
    );
    let mut stream = registry.connect();
    stream.write_all(request.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    // By RFC 9112 the chunks count, and the connection ends after such a request.
    assert!(said.matches("HTTP/1.1").count() <= 1, "{said}");
}

#[test]
fn a_slow_client_holds_nobody_up() {
    let registry = Registry::start();
    let bytes = b"drop by drop";
    let digest = sha256(bytes);
    let path = format!("/v2/slow/blobs/uploads/?digest={digest}");
    let mut slow = registry.connect();
    slow.write_all(head("POST", &path, &[("Content-Length", "12")]).as_bytes()).unwrap();
    let idle: Vec<_> = (0..20).map(|_| registry.connect()).collect();
    for byte in bytes {
        slow.write_all(&[*byte]).unwrap();
        registry.push("fast", &[*byte; 1000]);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(read(slow, "POST").status, 201);
    drop(idle);
    assert_eq!(registry.get(&format!("/v2/slow/blobs/{digest}")).body, bytes);
}

#[test]
fn a_reader_that_leaves_half_way_is_forgotten() {
    let registry = Registry::start();
    let bytes = vec![1; 4 << 20];
    let path = format!("/v2/a/blobs/{}", registry.push("a", &bytes));
    for _ in 0..30 {
        let mut stream = registry.connect();
        stream.write_all(head("GET", &path, &[]).as_bytes()).unwrap();
        let _ = stream.read(&mut [0; 1000]).unwrap();
    }
    assert!(registry.get(&path).body == bytes);
}

#[test]
fn nonsense_is_refused_and_ends_nothing() {
    let registry = Registry::start();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"GET /v2/ HTTP/9.9\r\n\r\n",
        b"PUT /v2/a/manifests/x HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"PUT /v2/a/manifests/x HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"PUT /v2/a/manifests/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    ] {
        let mut stream = registry.connect();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&said));
    }
    let long = format!("/v2/{}/tags/list", "a".repeat(100_000));
    let answer = registry.get(&long);
    assert!((400..500).contains(&answer.status), "{}", answer.status);
    let depth = "[".repeat(100_000);
    registry.send("PUT", "/v2/a/manifests/x", &[], depth.as_bytes()).refused(400, "MANIFEST_INVALID");
    assert_eq!(registry.get("/v2/").status, 200);
}

#[test]
fn a_full_disk_refuses_what_is_new_and_serves_what_is_there() {
    let (registry, _disk) = Registry::with_disk("4m");
    let kept = registry.push_image("a", "v1", b"layer");
    let large = vec![7; 6 << 20];
    let digest = sha256(&large);
    let push = format!("/v2/a/blobs/uploads/?digest={digest}");
    registry.send("POST", &push, &[], &large).refused(507, "UNKNOWN");
    assert_eq!(registry.files("uploads").len(), 0, "nobody knows where to go on with it");
    // In chunks: what fitted stays, and nothing of the chunk that did not.
    let upload = registry.begin("a");
    assert_eq!(registry.chunk(&upload, 0, &large[..1000]).status, 202);
    registry.chunk(&upload, 1000, &large[1000..]).refused(507, "UNKNOWN");
    assert_eq!(registry.get(&format!("/v2/a/blobs/{digest}")).status, 404);
    assert_eq!(registry.get("/v2/a/manifests/v1").body, kept.as_bytes());
    let status = registry.get(&upload);
    let have: usize = status.header("range").strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1;
    assert!((1000..6 << 20).contains(&have));
    // A cancelled upload makes room.
    assert_eq!(registry.delete(&upload).status, 204);
    registry.push("a", &large[..1 << 20]);
}

#[test]
fn memory_does_not_grow_with_a_blob() {
    let registry = Registry::start();
    // 300 MB of pieces that differ, so that nothing is held twice for being equal.
    let piece: Vec<u8> =
        (0..1 << 20).map(|number: u32| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut hasher = kiln_registry::digest::Hasher::new(kiln_registry::digest::Algorithm::Sha256);
    let upload = registry.begin("a");
    let mut stream = registry.connect();
    let length = (300 * piece.len()).to_string();
    stream.write_all(head("PATCH", &upload, &[("Content-Length", &length)]).as_bytes()).unwrap();
    for _ in 0..300 {
        stream.write_all(&piece).unwrap();
        hasher.update(&piece);
    }
    assert_eq!(read(stream, "PATCH").status, 202);
    let digest = hasher.digest().to_string();
    assert_eq!(registry.send("PUT", &format!("{upload}?digest={digest}"), &[], b"").status, 201);
    let mut stream = registry.connect();
    stream.write_all(head("GET", &format!("/v2/a/blobs/{digest}"), &[]).as_bytes()).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut count = 0;
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => break,
            more => count += more,
        }
    }
    assert!(count > 300 * piece.len());
    let status = std::fs::read_to_string(format!("/proc/{}/status", registry.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 64 << 10, "it needed {peak} kB");
}
