//! What software is found in files, mutated.

use ::fuzz::Target;
use kiln_model::image::ImageConfig;
use kiln_store::{Entry, Meta, Store, Tree};

use super::*;

/// What makes each parser read a file.
const PLACES: [(&str, u16); 11] = [
    ("bin/program", 0o755),
    ("app/Cargo.lock", 0o644),
    ("app/node_modules/a/package.json", 0o644),
    ("app/package-lock.json", 0o644),
    ("app/app.jar", 0o644),
    ("usr/lib/python3/dist-packages/a-1.dist-info/METADATA", 0o644),
    ("usr/lib/python3/dist-packages/b.egg-info", 0o644),
    ("etc/os-release", 0o644),
    ("var/lib/dpkg/status", 0o644),
    ("var/lib/dpkg/status.d/c", 0o644),
    ("usr/share/doc/a/copyright", 0o644),
];

#[test]
fn inventories() {
    // In memory: what is tried is not kept.
    let state = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = Store::open(state.path()).unwrap();
    let config = store.blobs.put_bytes(br#"{"created":"2026-07-11T10:16:37.5Z"}"#).unwrap();
    let manifest = format!(r#"{{"config":{{"digest":"{config}"}},"layers":[]}}"#);
    let manifest = store.blobs.put_bytes(manifest.as_bytes()).unwrap();
    let jar = archive::tests::zip(&[
        ("META-INF/MANIFEST.MF", b"Implementation-Title: a\nImplementation-Version: 1\n", true),
        ("META-INF/maven/g/a/pom.properties", b"groupId=g\nartifactId=a\nversion=1\n", false),
    ]);
    let padding = vec![0; elf::SMALLEST_BYTES as usize];
    let crates =
        cargo::tests::section(br#"{"packages":[{"name":"serde","version":"1.0.1","source":"crates.io"}]}"#);
    let modules = go::tests::section("go1.22", "path\ta/b\nmod\ta/b\tv1.0.0\t\ndep\tc/d\tv1.2.3\th1:x=\n");
    let words = [
        "\u{7f}ELF",
        ".dep-v0",
        ".go.buildinfo",
        "PK\u{3}\u{4}",
        "PK\u{1}\u{2}",
        "PK\u{5}\u{6}",
        "Name: ",
        "Version: ",
        "\n\n",
    ];
    let more = [
        "\"packages\":",
        "\"dependencies\":",
        "[[package]]\n",
        "name = \"",
        "version = \"",
        "License: ",
        "null",
        "{",
        "[",
    ];
    let target = Target::new(env!("CARGO_MANIFEST_DIR"), "inventories").words(&words).words(&more);
    let target = target.seed(jar).seed(tests::elf(&[(".dep-v0", &crates), (".text", &padding)]));
    target.seed(tests::elf(&[(".go.buildinfo", &modules), (".text", &padding)])).run(|bytes| {
        let (mut tree, batch) = (Tree::new(), store.objects.batch());
        let stored = batch.put_bytes(bytes).unwrap();
        for (path, mode) in PLACES {
            let path = TreePath::parse(path).unwrap();
            tree.make_dirs(&path.parent().unwrap(), &Meta { mode: 0o755, ..Meta::default() }).unwrap();
            tree.insert(&path, Entry::file(mode, stored.digest, stored.size)).unwrap();
        }
        batch.commit().unwrap();
        let config = ImageConfig::default();
        let tree = store.trees.put(&tree).unwrap();
        let image = Image { manifest, tree, config, size_bytes: 0, unproven: Vec::new() };
        let inventory = Inventory::of(&store, &image).unwrap();
        for format in [BomFormat::Spdx, BomFormat::CycloneDx] {
            serde_json::from_slice::<serde_json::Value>(&inventory.render(format)).unwrap();
        }
        // What was tried is not kept: a minute would fill a disk.
        std::fs::remove_file(store.objects.path_of(&stored.digest)).unwrap();
        let omitted: Vec<_> = inventory.omissions.iter().map(|omission| &omission.reason).collect();
        format!("{} {omitted:?}", inventory.packages.len().min(8))
    });
}
