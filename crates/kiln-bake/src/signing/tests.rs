//! Signing in a store, and what must not pass.

use kiln_model::image::ImageConfig;
use kiln_store::Tree;

use super::*;
use crate::attest::{STATEMENT_TYPE, Statement, attach};

fn key(kind: KeyKind) -> SigningKey {
    SigningKey::from_pem(&generate(kind).unwrap()).unwrap()
}

/// A store with two images, of which the first has provenance and a bill of materials.
fn world() -> (tempfile::TempDir, Store, [Image; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let tree = store.trees.put(&Tree::new()).unwrap();
    let images = ["one", "two"].map(|name| {
        let manifest = store.blobs.put_bytes(format!("manifest of {name}").as_bytes()).unwrap();
        Image { manifest, tree, config: ImageConfig::default(), size_bytes: 0, unproven: Vec::new() }
    });
    let subject = &images[0].manifest;
    attach(&store, subject, &Statement::new(SPDX_TYPE, SPDX_TYPE, b"{\"spdx\":1}".to_vec())).unwrap();
    let text = format!(
        r#"{{"predicateType":"{PROVENANCE}","subject":[{{"digest":{{"sha256":"{}"}}}}]}}"#,
        subject.hex()
    );
    let mut provenance = Statement::new(STATEMENT_TYPE, STATEMENT_TYPE, text.into_bytes());
    provenance.annotations.insert("in-toto.io/predicate-type".into(), PROVENANCE.into());
    attach(&store, subject, &provenance).unwrap();
    (folder, store, images)
}

fn manifests(store: &Store, subject: &Digest) -> Vec<(String, Digest)> {
    said_about(store, subject).unwrap().into_iter().map(|said| (said.artifact_type, said.manifest)).collect()
}

#[test]
fn a_key_vouches_for_the_image_and_for_what_is_said_of_it() {
    for kind in [KeyKind::P256, KeyKind::Ed25519] {
        let (_folder, store, [image, _]) = world();
        let (own, other) = (key(kind), key(kind));
        let unsigned: BTreeSet<String> = [PROVENANCE, SPDX_PREDICATE].map(str::to_owned).into();
        let nothing = Vouched { unsigned: unsigned.clone(), ..Vouched::default() };
        assert_eq!(verify(&store, &image.manifest, &own.public()).unwrap(), nothing);
        sign(&store, &image, "demo/web", &own).unwrap();
        let statements = unsigned.clone();
        let vouched = Vouched { image: true, statements, ..Vouched::default() };
        assert_eq!(verify(&store, &image.manifest, &own.public()).unwrap(), vouched);
        let strange = verify(&store, &image.manifest, &other.public()).unwrap();
        assert_eq!(strange, Vouched { others: 1, ..nothing });

        let before = manifests(&store, &image.manifest);
        sign(&store, &image, "demo/web", &own).unwrap();
        assert_eq!(manifests(&store, &image.manifest), before, "signing again adds nothing");
        sign(&store, &image, "demo/web", &other).unwrap();
        assert_eq!(manifests(&store, &image.manifest).len(), before.len(), "two keys share a manifest");
        assert_eq!(
            verify(&store, &image.manifest, &own.public()).unwrap(),
            Vouched { others: 1, ..vouched.clone() }
        );
        assert_eq!(
            verify(&store, &image.manifest, &other.public()).unwrap(),
            Vouched { others: 1, ..vouched }
        );
    }
}

#[test]
fn signatures_of_another_image_do_not_pass() {
    let (_folder, store, [image, other]) = world();
    let key = key(KeyKind::P256);
    sign(&store, &image, "demo/web", &key).unwrap();
    for (kind, manifest) in manifests(&store, &image.manifest) {
        if kind == SIGNATURES_TYPE || kind == ATTESTATIONS_TYPE {
            store.referrers.put(&other.manifest, &manifest).unwrap();
        }
    }
    let vouched = verify(&store, &other.manifest, &key.public()).unwrap();
    assert_eq!(vouched, Vouched { others: 1, ..Vouched::default() });
}

#[test]
fn a_document_that_was_exchanged_since_is_not_signed_and_is_signed_again_when_asked_for() {
    let (_folder, store, [image, _]) = world();
    let key = key(KeyKind::Ed25519);
    sign(&store, &image, "demo/web", &key).unwrap();
    let spdx = said_about(&store, &image.manifest).unwrap().into_iter().find(|said| said.kind() == SPDX_TYPE);
    store.referrers.remove(&image.manifest, &spdx.unwrap().manifest).unwrap();
    let other = Statement::new(SPDX_TYPE, SPDX_TYPE, b"{\"spdx\":2}".to_vec());
    attach(&store, &image.manifest, &other).unwrap();
    let vouched = verify(&store, &image.manifest, &key.public()).unwrap();
    assert_eq!(vouched.unsigned, [SPDX_PREDICATE.to_owned()].into());
    sign(&store, &image, "demo/web", &key).unwrap();
    assert_eq!(verify(&store, &image.manifest, &key.public()).unwrap().unsigned, [].into());
}

#[test]
fn a_signature_has_the_form_that_cosign_takes() {
    let (_folder, store, [image, _]) = world();
    let key = key(KeyKind::P256);
    sign(&store, &image, "demo/web", &key).unwrap();
    let of = |kind: &str| {
        let (_, manifest) =
            manifests(&store, &image.manifest).into_iter().find(|(it, _)| it == kind).unwrap();
        serde_json::from_slice::<Value>(&store.blobs.read_verified(&manifest).unwrap()).unwrap()
    };
    let signatures = of(SIGNATURES_TYPE);
    let layer = &signatures["layers"][0];
    assert_eq!(layer["mediaType"], "application/vnd.dev.cosign.simplesigning.v1+json");
    let payload = store.blobs.read_verified(&layer["digest"].as_str().unwrap().parse().unwrap()).unwrap();
    let expected = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"demo/web"}},"image":{{"docker-manifest-digest":"{}"}},"type":"cosign container image signature"}},"optional":null}}"#,
        image.manifest
    );
    assert_eq!(String::from_utf8(payload.clone()).unwrap(), expected);
    let signature = STANDARD.decode(layer["annotations"][SIGNATURE].as_str().unwrap()).unwrap();
    assert!(key.public().verifies(&payload, &signature));
    assert_eq!(signatures["subject"]["digest"], image.manifest.to_string());
    let attestations = of(ATTESTATIONS_TYPE);
    let predicates: BTreeSet<&str> = attestations["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer["annotations"]["predicateType"].as_str().unwrap())
        .collect();
    assert_eq!(predicates, [PROVENANCE, SPDX_PREDICATE].into());
}

#[test]
fn garbage_beside_a_signature_is_counted_and_nothing_more() {
    let (_folder, store, [image, _]) = world();
    let key = key(KeyKind::Ed25519);
    sign(&store, &image, "demo/web", &key).unwrap();
    let garbage = |media_type, payload: &[u8]| Layer {
        media_type,
        payload: payload.to_vec(),
        annotations: BTreeMap::new(),
    };
    add(&store, &image.manifest, SIGNATURES_TYPE, vec![garbage(SIMPLE_SIGNING_TYPE, b"\xff")]).unwrap();
    add(&store, &image.manifest, ATTESTATIONS_TYPE, vec![garbage(ENVELOPE_TYPE, b"{\"payload\":1}")])
        .unwrap();
    let vouched = verify(&store, &image.manifest, &key.public()).unwrap();
    assert_eq!((vouched.image, vouched.statements.len(), vouched.others), (true, 2, 1));
}
