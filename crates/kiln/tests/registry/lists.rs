//! Tags, repositories and referrers, in pages.

use serde_json::{Value, json};

use crate::server::{INDEX, MANIFEST, Registry, descriptor, image, sha256, sha512};

#[test]
fn tags_are_listed_in_order_and_in_pages() {
    let registry = Registry::start();
    let text = registry.push_image("shop/web", "v1", b"layer");
    for tag in ["latest", "V2", "0", "_x", "v1.1"] {
        registry.put_manifest("shop/web", tag, &text);
    }
    let list = |query: &str| registry.get(&format!("/v2/shop/web/tags/list{query}"));
    let all = ["0", "V2", "_x", "latest", "v1", "v1.1"];
    assert_eq!(list("").json(), json!({ "name": "shop/web", "tags": all }));
    assert_eq!(list("").find("link"), None);
    assert_eq!((list("?n=0").json()["tags"].clone(), list("?n=0").find("link")), (json!([]), None));
    assert_eq!(list("?last=_x").json()["tags"], json!(["latest", "v1", "v1.1"]));
    assert_eq!(list("?n=2&last=V2").json()["tags"], json!(["_x", "latest"]));
    assert_eq!(list("?n=6").find("link"), None);
    assert_eq!(list("?n=9999999999999999999999").json()["tags"], json!(all));
    assert_eq!(list("?n=x").status, 400);
    let mut found = Vec::new();
    let mut next = Some("/v2/shop/web/tags/list?n=4".to_owned());
    while let Some(path) = next {
        let page = registry.get(&path);
        found.extend(page.json()["tags"].as_array().unwrap().clone());
        next = page.next();
    }
    assert_eq!(json!(found), json!(all));
}

#[test]
fn a_repository_without_tags_has_an_empty_list_and_one_that_is_not_there_has_none() {
    let registry = Registry::start();
    registry.push("a", b"x");
    assert_eq!(registry.get("/v2/a/tags/list").json()["tags"], json!([]));
    registry.get("/v2/b/tags/list").refused(404, "NAME_UNKNOWN");
    registry.get("/v2/_/tags/list").refused(400, "NAME_INVALID");
}

#[test]
fn repositories_are_listed_in_order_and_in_pages() {
    let registry = Registry::start();
    let names = ["a", "a-b", "a/b", "a/b/c", "z"];
    for name in names {
        registry.push_image(name, "v1", b"layer");
    }
    registry.push("no-manifest", b"x");
    assert_eq!(registry.get("/v2/_catalog").json(), json!({ "repositories": names }));
    let page = registry.get("/v2/_catalog?n=2");
    assert_eq!(page.json()["repositories"], json!(["a", "a-b"]));
    let page = registry.get(&page.next().unwrap());
    assert_eq!(page.json()["repositories"], json!(["a/b", "a/b/c"]));
    let page = registry.get(&page.next().unwrap());
    assert_eq!((page.json()["repositories"].clone(), page.next()), (json!(["z"]), None));
}

/// Pushes two manifests and an index that are about one subject, and returns the descriptors that are expected.
fn push_referrers(registry: &Registry, subject: &Value) -> Vec<Value> {
    let artifact =
        json!({ "subject": subject, "artifactType": "application/x.sbom", "annotations": { "a": "b" } });
    let artifact = image(b"sbom", &artifact);
    let plain = image(b"signature", &json!({ "subject": subject }));
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX, "manifests": [], "subject": subject, "annotations": { "c": "d" },
    });
    let index = index.to_string();
    registry.push("a", b"sbom");
    registry.push("a", b"signature");
    let mut expected = Vec::new();
    for (text, kind, said, annotations) in [
        (&artifact, MANIFEST, Some("application/x.sbom"), Some(json!({ "a": "b" }))),
        (&plain, MANIFEST, Some("application/vnd.oci.image.config.v1+json"), None),
        (&index, INDEX, None, Some(json!({ "c": "d" }))),
    ] {
        let answer = registry.put_manifest("a", &sha256(text.as_bytes()), text);
        assert_eq!((answer.status, answer.header("oci-subject")), (201, subject["digest"].as_str().unwrap()));
        let mut entry = descriptor(kind, text.as_bytes());
        if let Some(said) = said {
            entry["artifactType"] = json!(said);
        }
        if let Some(annotations) = annotations {
            entry["annotations"] = annotations;
        }
        expected.push(entry);
    }
    expected.sort_by_key(|entry| entry["digest"].as_str().unwrap().to_owned());
    expected
}

#[test]
fn what_is_about_a_manifest_is_listed() {
    let registry = Registry::start();
    let text = registry.push_image("a", "v1", b"layer");
    let subject = descriptor(MANIFEST, text.as_bytes());
    let path = format!("/v2/a/referrers/{}", sha256(text.as_bytes()));
    let empty = registry.get(&path);
    assert_eq!((empty.status, empty.header("content-type")), (200, INDEX));
    assert_eq!(empty.json(), json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }));
    let expected = push_referrers(&registry, &subject);
    let all = registry.get(&path);
    assert_eq!(all.json()["manifests"], json!(expected));
    assert_eq!(all.find("oci-filters-applied"), None);

    let filtered = registry.get(&format!("{path}?artifactType=application%2Fx.sbom"));
    assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
    let sbom: Vec<_> = expected.iter().filter(|it| it["artifactType"] == "application/x.sbom").collect();
    assert_eq!(filtered.json()["manifests"], json!(sbom));
    let none = registry.get(&format!("{path}?artifactType=application/none"));
    assert_eq!((none.status, none.json()["manifests"].clone()), (200, json!([])));

    let mut found = Vec::new();
    let mut next = Some(format!("{path}?n=1"));
    while let Some(path) = next {
        let page = registry.get(&path);
        assert_eq!(page.json()["manifests"].as_array().unwrap().len(), 1);
        found.extend(page.json()["manifests"].as_array().unwrap().clone());
        next = page.next();
    }
    assert_eq!(found, expected);

    // What is deleted is about nothing any more.
    let gone = expected[0]["digest"].as_str().unwrap();
    assert_eq!(registry.delete(&format!("/v2/a/manifests/{gone}")).status, 202);
    assert_eq!(registry.get(&path).json()["manifests"], json!(expected[1..]));
}

#[test]
fn referrers_of_what_is_not_there_are_listed_and_of_what_is_no_digest_are_not() {
    let registry = Registry::start();
    registry.push_image("a", "v1", b"layer");
    let expected = push_referrers(&registry, &descriptor(MANIFEST, b"pushed later"));
    let listed = registry.get(&format!("/v2/a/referrers/{}", sha256(b"pushed later")));
    assert_eq!(listed.json()["manifests"], json!(expected));
    let subject = json!({ "mediaType": MANIFEST, "digest": sha512(b"other"), "size": 5 });
    assert_eq!(push_referrers(&registry, &subject).len(), 3);
    let listed = registry.get(&format!("/v2/a/referrers/{}", sha512(b"other")));
    assert_eq!(listed.json()["manifests"].as_array().unwrap().len(), 3);
    assert_eq!(registry.get(&format!("/v2/nowhere/referrers/{}", sha256(b"x"))).status, 200);
    registry.get("/v2/a/referrers/sha256:zz").refused(400, "DIGEST_INVALID");
    registry.get("/v2/a/referrers/v1").refused(400, "DIGEST_INVALID");
}
