//! A registry that is killed, or asked to end, at any moment.

use std::io::Write;
use std::time::Duration;

use crate::http::{head, read};
use crate::server::{Registry, sha256};

#[test]
fn a_kill_in_the_middle_of_an_upload_leaves_nothing_half_written_visible() {
    let mut registry = Registry::start();
    let bytes: Vec<u8> = (0..8_000_000_u32).map(|number| (number >> 4) as u8).collect();
    let digest = sha256(&bytes);
    let kept = registry.push_image("kept", "v1", b"layer");
    for sent in [0, 1, 300_000, 5_000_000, 7_999_999] {
        let path = format!("/v2/a/blobs/uploads/?digest={digest}");
        let mut stream = registry.connect();
        stream.write_all(head("POST", &path, &[("Content-Length", "8000000")]).as_bytes()).unwrap();
        stream.write_all(&bytes[..sent]).unwrap();
        registry.kill_and_start_again();
        assert_eq!(registry.get(&format!("/v2/a/blobs/{digest}")).status, 404, "after {sent} bytes");
        assert_eq!(registry.get("/v2/kept/manifests/v1").body, kept.as_bytes());
    }
    assert_eq!(registry.push("a", &bytes), digest);
    assert!(registry.get(&format!("/v2/a/blobs/{digest}")).body == bytes);
}

#[test]
fn an_upload_is_gone_on_with_after_a_kill() {
    let mut registry = Registry::start();
    let upload = registry.begin("a/b");
    assert_eq!(registry.chunk(&upload, 0, b"before ").status, 202);
    registry.kill_and_start_again();
    let status = registry.get(&upload);
    assert_eq!((status.status, status.header("range")), (204, "0-6"));
    assert_eq!(registry.chunk(&upload, 7, b"after").status, 202);
    let digest = sha256(b"before after");
    assert_eq!(registry.send("PUT", &format!("{upload}?digest={digest}"), &[], b"").status, 201);
}

#[test]
fn kills_while_many_push_leave_only_whole_images() {
    let mut registry = Registry::start();
    for round in 0..4_u64 {
        let client = registry.client.clone();
        let pushers: Vec<_> = (0..3)
            .map(|pusher| {
                let client = client.clone();
                std::thread::spawn(move || {
                    for number in 0..200 {
                        let layer = format!("{round}/{pusher}/{number}").repeat(1000);
                        // Whoever is cut off stops: the next panics on an answer that does not come.
                        let tag = format!("t{pusher}.{number}");
                        let push = || client.push_image("a", &tag, layer.as_bytes());
                        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(push)).is_err() {
                            return;
                        }
                    }
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(60 + 70 * round));
        registry.kill_and_start_again();
        for pusher in pushers {
            pusher.join().unwrap();
        }
        let tags = registry.get("/v2/a/tags/list").json()["tags"].clone();
        for tag in tags.as_array().unwrap() {
            let manifest = registry.get(&format!("/v2/a/manifests/{}", tag.as_str().unwrap()));
            assert_eq!(manifest.status, 200, "{tag}");
            assert_eq!(manifest.header("docker-content-digest"), sha256(&manifest.body));
            for layer in manifest.json()["layers"].as_array().unwrap() {
                let digest = layer["digest"].as_str().unwrap();
                assert_eq!(sha256(&registry.get(&format!("/v2/a/blobs/{digest}")).body), digest);
            }
        }
        assert_eq!(registry.files("tmp").len(), 0);
    }
}

#[test]
fn old_uploads_are_swept_at_the_start_and_young_ones_are_not() {
    let mut registry = Registry::start();
    let (old, young) = (registry.begin("a"), registry.begin("a"));
    for upload in [&old, &young] {
        assert_eq!(registry.chunk(upload, 0, b"some").status, 202);
    }
    let id = old.rsplit('/').next().unwrap();
    let data = registry.root().join("uploads").join(id).join("data");
    let two_days_ago = std::time::SystemTime::now() - Duration::from_secs(2 * 24 * 3600);
    std::fs::File::options().write(true).open(data).unwrap().set_modified(two_days_ago).unwrap();
    registry.kill_and_start_again();
    for _ in 0..100 {
        if registry.files("uploads").len() == 2 {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(registry.get(&old).status, 404);
    assert_eq!(registry.get(&young).status, 204);
}

#[test]
fn sigterm_lets_a_request_end_and_ends_the_process() {
    let mut registry = Registry::start();
    let digest = sha256(b"to the end");
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    let idle = registry.connect();
    let mut stream = registry.connect();
    stream.write_all(head("POST", &path, &[("Content-Length", "10")]).as_bytes()).unwrap();
    stream.write_all(b"to the ").unwrap();
    // The upload's folder says that the request is being carried out.
    while registry.files("uploads").is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let address = registry.client.address;
    let waits = std::thread::spawn(move || {
        // Nothing listens any more once it ends.
        while std::net::TcpStream::connect(address).is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
        stream.write_all(b"end").unwrap();
        read(stream, "POST").status
    });
    assert_eq!(registry.terminate(), Some(0));
    assert_eq!(waits.join().unwrap(), 201);
    drop(idle);
}
