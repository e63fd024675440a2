//! Pulling, mounting and deleting blobs.

use crate::server::{Registry, sha256, sha512};

#[test]
fn the_base_says_what_it_speaks() {
    let registry = Registry::start();
    for path in ["/v2/", "/v2"] {
        let answer = registry.get(path);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
    }
    assert_eq!(registry.get("/").status, 404);
    assert_eq!(registry.get("/v1/_ping").status, 404);
    registry.send("POST", "/v2/", &[], b"").refused(405, "UNSUPPORTED");
}

#[test]
fn a_blob_is_pulled_as_it_was_pushed() {
    let registry = Registry::start();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| (number >> 3) as u8).collect();
    for bytes in [&bytes[..], b"", b"{}"] {
        let path = format!("/v2/a/b/blobs/{}", registry.push("a/b", bytes));
        let answer = registry.get(&path);
        assert_eq!((answer.status, answer.body == bytes), (200, true));
        assert_eq!(answer.header("docker-content-digest"), sha256(bytes));
        assert_eq!(answer.header("accept-ranges"), "bytes");
        let head = registry.head(&path);
        assert_eq!(head.status, 200);
        assert_eq!(head.header("content-length"), bytes.len().to_string());
        assert_eq!(head.header("docker-content-digest"), sha256(bytes));
    }
}

#[test]
fn a_part_of_a_blob_is_pulled_by_its_range() {
    let registry = Registry::start();
    let bytes: Vec<u8> = (0..2048_u32).map(|number| (number * 7) as u8).collect();
    let path = format!("/v2/a/blobs/{}", registry.push("a", &bytes));
    let range = |range: &str| registry.send("GET", &path, &[("Range", range)], b"");
    for (text, from, to) in [
        ("bytes=500-1499", 500, 1500),
        ("bytes=500-", 500, 2048),
        ("bytes=-500", 1548, 2048),
        ("bytes=2000-5000", 2000, 2048),
        ("bytes=0-0", 0, 1),
    ] {
        let answer = range(text);
        assert_eq!(answer.status, 206, "{text}");
        assert_eq!(answer.body, &bytes[from..to], "{text}");
        assert_eq!(answer.header("content-range"), format!("bytes {from}-{}/2048", to - 1));
    }
    for text in ["bytes=2048-", "bytes=5000-10000", "bytes=500-0", "bytes=-0"] {
        let answer = range(text);
        assert_eq!((answer.status, answer.header("content-range")), (416, "bytes */2048"), "{text}");
    }
    for text in ["bytes=0-1,4-5", "lines=0-1", "bytes=x-y"] {
        assert_eq!((range(text).status, range(text).body == bytes), (200, true), "{text}");
    }
    let etag = registry.head(&path).header("etag").to_owned();
    let conditional =
        |tag: &str| registry.send("GET", &path, &[("Range", "bytes=0-1"), ("If-Range", tag)], b"").status;
    assert_eq!((conditional(&etag), conditional("\"another\"")), (206, 200));
}

#[test]
fn what_is_not_there_is_not_found() {
    let registry = Registry::start();
    let digest = registry.push("a", b"x");
    let other = sha256(b"y");
    registry.get(&format!("/v2/a/blobs/{other}")).refused(404, "BLOB_UNKNOWN");
    registry.get(&format!("/v2/b/blobs/{digest}")).refused(404, "BLOB_UNKNOWN");
    assert_eq!(registry.head(&format!("/v2/b/blobs/{digest}")).status, 404);
    registry.delete(&format!("/v2/b/blobs/{digest}")).refused(404, "BLOB_UNKNOWN");
    registry.get("/v2/a/blobs/sha256:abc").refused(400, "DIGEST_INVALID");
    registry.get(&format!("/v2/a/blobs/md5:{}", "0".repeat(32))).refused(400, "DIGEST_INVALID");
    registry.get(&format!("/v2/A/blobs/{digest}")).refused(400, "NAME_INVALID");
    registry.send("PUT", &format!("/v2/a/blobs/{digest}"), &[], b"").refused(405, "UNSUPPORTED");
}

#[test]
fn a_blob_is_mounted_from_a_named_repository_and_from_any() {
    let registry = Registry::start();
    let digest = registry.push("from", b"mounted");
    let mount = |to: &str, query: &str| {
        registry.send("POST", &format!("/v2/{to}/blobs/uploads/?mount={digest}{query}"), &[], b"")
    };
    for (to, query) in [("to/one", "&from=from"), ("to/two", "")] {
        let answer = mount(to, query);
        assert_eq!(answer.status, 201);
        assert_eq!(registry.get(answer.header("location")).body, b"mounted");
    }
    // What can't be mounted is to be uploaded.
    let answer = mount("to/three", "&from=elsewhere");
    assert_eq!(answer.status, 202);
    let upload = answer.header("location").to_owned();
    let closed = registry.send("PUT", &format!("{upload}?digest={digest}"), &[], b"mounted");
    assert_eq!(closed.status, 201);
    assert_eq!(registry.files("blobs").len(), 1, "the content is stored once");
    mount("to/four", "&from=../x").refused(400, "NAME_INVALID");
    let bad = registry.send("POST", "/v2/to/blobs/uploads/?mount=sha256:x&from=from", &[], b"");
    bad.refused(400, "DIGEST_INVALID");
}

#[test]
fn a_deleted_blob_is_gone_from_its_repository_alone() {
    let registry = Registry::start();
    let digest = registry.push("a", b"x");
    registry.push("b", b"x");
    assert_eq!(registry.delete(&format!("/v2/a/blobs/{digest}")).status, 202);
    assert_eq!(registry.get(&format!("/v2/a/blobs/{digest}")).status, 404);
    assert_eq!(registry.get(&format!("/v2/b/blobs/{digest}")).status, 200);
    assert_eq!(registry.delete(&format!("/v2/b/blobs/{digest}")).status, 202);
    assert_eq!(registry.files("blobs").len(), 0, "nobody has it any more");
}

#[test]
fn sha512_is_an_address_as_well() {
    let registry = Registry::start();
    let digest = sha512(b"longer");
    let one = registry.send("POST", &format!("/v2/a/blobs/uploads/?digest={digest}"), &[], b"longer");
    assert_eq!(one.status, 201);
    assert_eq!(one.header("docker-content-digest"), digest);
    let begun = registry.send("POST", "/v2/b/blobs/uploads/?digest-algorithm=sha512", &[], b"");
    assert_eq!(begun.status, 202);
    let upload = begun.header("location").to_owned();
    assert_eq!(registry.chunk(&upload, 0, b"lon").status, 202);
    assert_eq!(registry.send("PUT", &format!("{upload}?digest={digest}"), &[], b"ger").status, 201);
    // Whoever does not say so is hashed again.
    let upload = registry.begin("c");
    assert_eq!(registry.send("PUT", &format!("{upload}?digest={digest}"), &[], b"longer").status, 201);
    for repository in ["a", "b", "c"] {
        assert_eq!(registry.get(&format!("/v2/{repository}/blobs/{digest}")).body, b"longer");
    }
    let unknown = registry.send("POST", "/v2/b/blobs/uploads/?digest-algorithm=md5", &[], b"");
    unknown.refused(400, "DIGEST_INVALID");
}
