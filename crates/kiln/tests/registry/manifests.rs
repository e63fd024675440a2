//! Manifests by tag and by digest.

use serde_json::json;

use crate::server::{INDEX, MANIFEST, Registry, descriptor, image, sha256, sha512};

const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

#[test]
fn a_manifest_is_pulled_byte_for_byte_by_tag_and_by_digest() {
    let registry = Registry::start();
    let text = registry.push_image("shop/web", "v1", b"layer");
    let digest = sha256(text.as_bytes());
    for reference in ["v1", &digest] {
        let path = format!("/v2/shop/web/manifests/{reference}");
        let answer = registry.get(&path);
        assert_eq!((answer.status, answer.body == text.as_bytes()), (200, true));
        assert_eq!(answer.header("content-type"), MANIFEST);
        assert_eq!(answer.header("docker-content-digest"), digest);
        let head = registry.head(&path);
        assert_eq!((head.status, head.header("content-length")), (200, text.len().to_string().as_str()));
        assert_eq!(head.header("docker-content-digest"), digest);
    }
}

#[test]
fn a_tag_moves_and_the_digest_stays() {
    let registry = Registry::start();
    let one = registry.push_image("a", "latest", b"one");
    let two = registry.push_image("a", "latest", b"two");
    assert_eq!(registry.get("/v2/a/manifests/latest").body, two.as_bytes());
    let by_digest = registry.get(&format!("/v2/a/manifests/{}", sha256(one.as_bytes())));
    assert_eq!(by_digest.body, one.as_bytes());
}

#[test]
fn dockers_formats_and_lists_are_taken() {
    let registry = Registry::start();
    let text = registry.push_image("a", "oci", b"layer");
    let docker = text.replace(MANIFEST, DOCKER);
    assert_eq!(registry.put_manifest("a", "docker", &docker).status, 201);
    assert_eq!(registry.get("/v2/a/manifests/docker").header("content-type"), DOCKER);
    for (tag, kind) in [("index", INDEX), ("list", DOCKER_LIST)] {
        let manifests = [descriptor(MANIFEST, text.as_bytes()), descriptor(DOCKER, docker.as_bytes())];
        let list = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": manifests }).to_string();
        let answer = registry.put_manifest("a", tag, &list);
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(registry.get(answer.header("location")).header("content-type"), kind);
        // A list of lists.
        let nested = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": [descriptor(kind, list.as_bytes())] });
        assert_eq!(registry.put_manifest("a", "nested", &nested.to_string()).status, 201);
    }
}

#[test]
fn a_manifest_by_sha512_is_what_it_says() {
    let registry = Registry::start();
    let text = registry.push_image("a", "v1", b"layer");
    let digest = sha512(text.as_bytes());
    let answer = registry.put_manifest("a", &digest, &text);
    assert_eq!((answer.status, answer.header("docker-content-digest")), (201, digest.as_str()));
    let pulled = registry.get(&format!("/v2/a/manifests/{digest}"));
    assert_eq!((pulled.status, pulled.header("docker-content-digest")), (200, digest.as_str()));
}

#[test]
fn what_is_not_there_is_not_found() {
    let registry = Registry::start();
    let text = registry.push_image("a", "v1", b"layer");
    let digest = sha256(text.as_bytes());
    for path in [
        "/v2/a/manifests/v2".to_owned(),
        "/v2/a/manifests/.INVALID_MANIFEST_NAME".to_owned(),
        format!("/v2/a/manifests/{}", sha256(b"other")),
        format!("/v2/b/manifests/{digest}"),
        "/v2/b/manifests/v1".to_owned(),
    ] {
        registry.get(&path).refused(404, "MANIFEST_UNKNOWN");
        registry.delete(&path).refused(404, "MANIFEST_UNKNOWN");
        assert_eq!(registry.head(&path).status, 404);
    }
}

#[test]
fn a_manifest_of_what_is_not_there_is_refused() {
    let registry = Registry::start();
    registry.push("a", b"{}");
    let text = image(b"layer", &json!({}));
    let answer = registry.put_manifest("a", "v1", &text);
    answer.refused(400, "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(answer.json()["errors"][0]["detail"]["digest"], sha256(b"layer"));
    registry.push("other", b"layer");
    registry.put_manifest("a", "v1", &text).refused(400, "MANIFEST_BLOB_UNKNOWN");
    let list = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(MANIFEST, b"x")] });
    registry.put_manifest("a", "v1", &list.to_string()).refused(400, "MANIFEST_BLOB_UNKNOWN");
    registry.push("a", b"layer");
    let lie = text.replace("\"size\":5", "\"size\":6");
    registry.put_manifest("a", "v1", &lie).refused(400, "MANIFEST_INVALID");
    assert_eq!(registry.put_manifest("a", "v1", &text).status, 201);
    // What its owner keeps to himself need not be here.
    let foreign = text.replace("vnd.oci.image.layer.v1", "vnd.oci.image.layer.nondistributable.v1");
    let foreign = foreign.replace(&sha256(b"layer"), &sha256(b"elsewhere"));
    assert_eq!(registry.put_manifest("a", "foreign", &foreign).status, 201);
    // Nor the subject.
    let subject = image(b"layer", &json!({ "subject": descriptor(MANIFEST, b"later") }));
    assert_eq!(registry.put_manifest("a", "subject", &subject).status, 201);
}

#[test]
fn what_is_no_manifest_is_refused() {
    let registry = Registry::start();
    let text = registry.push_image("a", "v1", b"layer");
    let put = |reference: &str, kind: &str, text: &str| {
        let path = format!("/v2/a/manifests/{reference}");
        registry.send("PUT", &path, &[("Content-Type", kind)], text.as_bytes())
    };
    put("v2", MANIFEST, "{").refused(400, "MANIFEST_INVALID");
    put("v2", MANIFEST, "{}").refused(400, "MANIFEST_INVALID");
    put("v2", INDEX, &text).refused(400, "MANIFEST_INVALID");
    put("v2", "text/html", "<html></html>").refused(400, "MANIFEST_INVALID");
    put(&sha256(b"other"), MANIFEST, &text).refused(400, "DIGEST_INVALID");
    put("sha256:baddigeststring", MANIFEST, &text).refused(400, "DIGEST_INVALID");
    put(".hidden", MANIFEST, &text).refused(400, "MANIFEST_INVALID");
    put("v2", &format!("{MANIFEST}; charset=utf-8"), &text);
    assert_eq!(registry.get("/v2/a/manifests/v2").header("content-type"), MANIFEST);
    registry.send("POST", "/v2/a/manifests/v1", &[], b"").refused(405, "UNSUPPORTED");
}

#[test]
fn deleting_a_tag_leaves_the_manifest_and_deleting_the_manifest_takes_its_tags() {
    let registry = Registry::start();
    let text = registry.push_image("a", "one", b"layer");
    for tag in ["two", "three"] {
        assert_eq!(registry.put_manifest("a", tag, &text).status, 201);
    }
    let digest = sha256(text.as_bytes());
    assert_eq!(registry.delete("/v2/a/manifests/one").status, 202);
    registry.get("/v2/a/manifests/one").refused(404, "MANIFEST_UNKNOWN");
    assert_eq!(registry.get(&format!("/v2/a/manifests/{digest}")).status, 200);
    assert_eq!(registry.delete(&format!("/v2/a/manifests/{digest}")).status, 202);
    for reference in ["two", "three", &digest] {
        registry.get(&format!("/v2/a/manifests/{reference}")).refused(404, "MANIFEST_UNKNOWN");
    }
    assert_eq!(registry.get("/v2/a/tags/list").json()["tags"], json!([]));
}

#[test]
fn the_largest_manifest_is_taken_and_a_larger_one_is_not() {
    let registry = Registry::start();
    registry.push_image("a", "v1", b"layer");
    let sized = |size: usize| {
        let empty = image(b"layer", &json!({ "annotations": { "x": "" } }));
        let filler = "x".repeat(size - empty.len());
        image(b"layer", &json!({ "annotations": { "x": filler } }))
    };
    assert_eq!(registry.put_manifest("a", "large", &sized(4 << 20)).status, 201);
    registry.put_manifest("a", "larger", &sized((4 << 20) + 1)).refused(413, "MANIFEST_INVALID");
    // One that does not say how long it is.
    let mut body = String::from("{\"x\":\"");
    body.push_str(&"x".repeat(5 << 20));
    let chunked = format!(
        "{}{:x}\r\n{body}\r\n0\r\n\r\n",
        crate::http::head("PUT", "/v2/a/manifests/l", &[("Transfer-Encoding", "chunked")]),
        body.len()
    );
    registry.raw(chunked.as_bytes()).refused(413, "MANIFEST_INVALID");
}
