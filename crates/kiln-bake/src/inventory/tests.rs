//! Whole trees, read as an image's.

use kiln_model::image::ImageConfig;
use kiln_store::{Entry, Meta, Tree};
use serde_json::Value;

use super::*;

/// Writes a program with these sections and nothing else.
pub(super) fn elf(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    let mut names = vec![0];
    let mut table = vec![0; 64];
    let mut entry = |name: usize, offset: usize, size: usize| {
        let mut entry = [0; 64];
        entry[..4].copy_from_slice(&(name as u32).to_le_bytes());
        entry[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
        entry[32..40].copy_from_slice(&(size as u64).to_le_bytes());
        table.extend(entry);
    };
    for (name, content) in sections {
        entry(names.len(), bytes.len(), content.len());
        bytes.extend_from_slice(content);
        names.extend_from_slice(name.as_bytes());
        names.push(0);
    }
    entry(0, bytes.len(), names.len());
    bytes.extend(&names);
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    let at = bytes.len() as u64;
    bytes[40..48].copy_from_slice(&at.to_le_bytes());
    let count = sections.len() as u16 + 2;
    for (at, value) in [(58, 64), (60, count), (62, count - 1)] {
        bytes[at..at + 2].copy_from_slice(&u16::to_le_bytes(value));
    }
    bytes.extend(table);
    bytes
}

/// Stores these files, programs by their mode, and returns them as a tree.
pub(super) fn stored(files: &[(&str, u16, Vec<u8>)]) -> (tempfile::TempDir, Store, Tree) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (mut tree, batch) = (Tree::new(), store.objects.batch());
    for (path, mode, bytes) in files {
        let path = TreePath::parse(path).unwrap();
        tree.make_dirs(&path.parent().unwrap(), &Meta { mode: 0o755, ..Meta::default() }).unwrap();
        let stored = batch.put_bytes(bytes).unwrap();
        tree.insert(&path, Entry::file(*mode, stored.digest, stored.size)).unwrap();
    }
    batch.commit().unwrap();
    (folder, store, tree)
}

/// Stores an image of these files, and lists its software.
fn inventory(files: &[(&str, u16, Vec<u8>)]) -> (tempfile::TempDir, Inventory) {
    let (folder, store, tree) = stored(files);
    let config = store.blobs.put_bytes(br#"{"created":"2026-07-11T10:16:37.5Z"}"#).unwrap();
    let manifest = format!(r#"{{"config":{{"digest":"{config}"}},"layers":[]}}"#);
    let manifest = store.blobs.put_bytes(manifest.as_bytes()).unwrap();
    let tree = store.trees.put(&tree).unwrap();
    let image = Image { manifest, tree, config: ImageConfig::default(), size_bytes: 0, unproven: Vec::new() };
    let inventory = Inventory::of(&store, &image).unwrap();
    (folder, inventory)
}

fn text(path: &'static str, text: &str) -> (&'static str, u16, Vec<u8>) {
    (path, 0o644, text.as_bytes().to_vec())
}

/// One of everything.
pub(super) fn everything() -> Vec<(&'static str, u16, Vec<u8>)> {
    let status = "Package: bash\nStatus: install ok installed\nMaintainer: Matthias <doko@debian.org>\nArchitecture: amd64\n\
                  Source: bash (5.2.15-2)\nVersion: 5.2.15-2+b2\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n\
                  Architecture: all\n";
    let copyright = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: GPL-3+ or own\n";
    let crates = br#"{"packages":[{"name":"serde","version":"1.0.1","source":"crates.io"}]}"#;
    let padding = vec![0; elf::SMALLEST_BYTES as usize];
    let sections = |name: &str, list: &[u8]| elf(&[(name, list), (".text", &padding)]);
    let inner = archive::tests::zip(&[(
        "META-INF/maven/g/inner/pom.properties",
        b"groupId=g\nartifactId=inner\nversion=2\n",
        true,
    )]);
    let outer = archive::tests::zip(&[
        ("META-INF/MANIFEST.MF", b"Implementation-Version: 1.0\n", true),
        ("BOOT-INF/lib/inner-2.jar", &inner, false),
    ]);
    vec![
        text("etc/os-release", "PRETTY_NAME=\"Debian\"\nVERSION_ID=\"12\"\nID=debian\n"),
        text("var/lib/dpkg/status", status),
        text("usr/share/doc/bash/copyright", copyright),
        text("var/lib/dpkg/status.d/base", "Package: base-files\nVersion: 12.4\nArchitecture: arm64\n"),
        text("var/lib/dpkg/status.d/base.md5sums", "no paragraph"),
        text(
            "usr/lib/python3/dist-packages/six-1.16.0.dist-info/METADATA",
            "Name: six\nVersion: 1.16.0\nLicense: MIT\n",
        ),
        text(
            "app/node_modules/@s/a/package.json",
            r#"{"name":"@s/a","version":"1.0.0","license":{"type":"ISC"}}"#,
        ),
        text(
            "app/package-lock.json",
            r#"{"lockfileVersion":3,"packages":{"":{"version":"9"},"node_modules/b":{"version":"2.0.0"},"node_modules/c":{"version":"3.0.0","dev":true}}}"#,
        ),
        text(
            "app/Cargo.lock",
            "[[package]]\nname = \"libc\"\nversion = \"0.2.1\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\n",
        ),
        ("usr/bin/rust", 0o755, sections(".dep-v0", &cargo::tests::section(crates))),
        (
            "usr/bin/go",
            0o755,
            sections(".go.buildinfo", &go::tests::section("go1.22.1", "dep\tgolang.org/x/net\tv0.1.0\n")),
        ),
        ("app/app.jar", 0o644, outer),
    ]
}

#[test]
fn every_ecosystem_is_found_in_one_tree() {
    let (_folder, inventory) = inventory(&everything());
    let found: Vec<String> = inventory.packages.iter().map(Package::reference).collect();
    assert_eq!(
        found,
        [
            "pkg:deb/debian/base-files@12.4?arch=arm64&distro=debian-12",
            "pkg:deb/debian/bash@5.2.15-2%2Bb2?arch=amd64&distro=debian-12",
            "pkg:cargo/libc@0.2.1",
            "pkg:cargo/serde@1.0.1",
            "pkg:golang/golang.org/x/net@v0.1.0",
            "pkg:golang/stdlib@1.22.1",
            "maven:app@1.0:",
            "pkg:maven/g/inner@2",
            "pkg:npm/%40s/a@1.0.0",
            "pkg:npm/b@2.0.0",
            "pkg:pypi/six@1.16.0",
        ]
    );
    assert_eq!(inventory.omissions, []);
    assert_eq!(inventory.created, "2026-07-11T10:16:37Z");
    let bash = &inventory.packages[1];
    assert_eq!(bash.source.as_ref().unwrap().version, "5.2.15-2");
    assert_eq!(bash.licence.as_ref().unwrap().expression, "GPL-3.0-or-later OR LicenseRef-own");
}

#[test]
fn the_same_image_gives_the_same_documents() {
    let (_folder, one) = inventory(&everything());
    let (_other_folder, other) = inventory(&everything());
    for format in [BomFormat::Spdx, BomFormat::CycloneDx] {
        assert_eq!(one.render(format), other.render(format));
    }
}

/// An inventory with every field in use.
fn sample() -> Inventory {
    let mut bash =
        Package::new(Ecosystem::Debian, "bash", "5.2+b2", Some("pkg:deb/debian/bash@5.2%2Bb2".into()));
    bash.arch = Some("amd64".into());
    bash.source = Some(SourcePackage { name: "bash".into(), version: "5.2".into() });
    bash.supplier = Some("M <m@x.org>".into());
    let references = [("LicenseRef-own".to_owned(), "own".to_owned())].into();
    bash.licence = Some(Licence { expression: "MIT OR LicenseRef-own".into(), references });
    bash.found.insert(TreePath::parse("var/lib/dpkg/status").unwrap());
    let nameless = Package::new(Ecosystem::Maven, "app", "", None);
    Inventory {
        image: Digest::new([0xab; 32]),
        created: "2026-07-11T10:16:37Z".into(),
        system: Some(System { id: "debian".into(), version: "12".into() }),
        packages: vec![bash, nameless],
        omissions: vec![Omission { path: TreePath::parse("a.jar").unwrap(), reason: "broken".into() }],
    }
}

#[test]
fn documents_are_golden() {
    for (format, golden) in [
        (BomFormat::Spdx, include_str!("golden/spdx.json")),
        (BomFormat::CycloneDx, include_str!("golden/cyclonedx.json")),
    ] {
        let Inventory { image, created, system, packages, omissions } = sample();
        let ahead = Bills::of(&Software { system, packages, omissions }).document(&image, &created, format);
        assert_eq!(ahead, sample().render(format), "what is written ahead is the same");
        let text = String::from_utf8(ahead).unwrap();
        let text = text.replace(&"ab".repeat(32), "HEX").replace(env!("CARGO_PKG_VERSION"), "KILN");
        assert_eq!(text, golden.trim_end(), "a change of the format gives every image another document");
    }
}

#[test]
fn an_spdx_document_relates_every_package_to_the_image() {
    let (_folder, inventory) = inventory(&everything());
    let document: Value = serde_json::from_slice(&inventory.render(BomFormat::Spdx)).unwrap();
    let ids: std::collections::BTreeSet<&str> = document["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| package["SPDXID"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), inventory.packages.len() + 1, "every identifier is there once");
    let relationships = document["relationships"].as_array().unwrap();
    assert_eq!(relationships[0]["relationshipType"], "DESCRIBES");
    for relationship in &relationships[1..] {
        assert_eq!(relationship["spdxElementId"], "SPDXRef-image");
        assert!(ids.contains(relationship["relatedSpdxElement"].as_str().unwrap()));
    }
    assert_eq!(relationships.len(), ids.len());
    let own = &document["hasExtractedLicensingInfos"];
    assert_eq!(own[0]["licenseId"], "LicenseRef-own");
}

#[test]
fn garbage_is_named_and_the_rest_is_still_found() {
    let garbage = vec![0xff; 5000];
    let mut files = vec![
        ("var/lib/dpkg/status", 0o644, b"Package: a\n\nPackage: b\nVersion: 1\n".to_vec()),
        ("a.dist-info/METADATA", 0o644, garbage.clone()),
        ("node_modules/a/package.json", 0o644, garbage.clone()),
        ("package-lock.json", 0o644, garbage.clone()),
        ("Cargo.lock", 0o644, garbage.clone()),
        ("a.jar", 0o644, garbage.clone()),
        ("go", 0o755, elf(&[(".go.buildinfo", &garbage)])),
        ("rust", 0o755, elf(&[(".dep-v0", &garbage)])),
        ("garbage", 0o755, garbage),
        ("etc/os-release", 0o644, b"ID=\"x y\"\n".to_vec()),
    ];
    files.push((
        "b.dist-info/METADATA",
        0o644,
        format!("Name: {}\nVersion: 1\n", "x".repeat(5000)).into_bytes(),
    ));
    let (_folder, inventory) = inventory(&files);
    let names: Vec<_> = inventory.packages.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(names, ["b"]);
    let omitted: Vec<String> = inventory.omissions.iter().map(|omission| omission.path.to_string()).collect();
    let expected = [
        "/var/lib/dpkg/status",
        "/Cargo.lock",
        "/a.dist-info/METADATA",
        "/a.jar",
        "/b.dist-info/METADATA",
        "/go",
        "/node_modules/a/package.json",
        "/package-lock.json",
        "/rust",
    ];
    assert_eq!(omitted, expected);
    assert_eq!(inventory.system, None);
    let document: Value = serde_json::from_slice(&inventory.render(BomFormat::CycloneDx)).unwrap();
    assert_eq!(document["metadata"]["properties"].as_array().unwrap().len(), expected.len());
}

#[test]
fn jars_that_lie_too_deep_are_named() {
    let mut jar = archive::tests::zip(&[("META-INF/MANIFEST.MF", b"Implementation-Version: 0\n", false)]);
    for depth in 1..=6 {
        let name = format!("inner-{depth}.jar");
        jar = archive::tests::zip(&[(&name, &jar, true)]);
    }
    let (_folder, inventory) = inventory(&[("outer.jar", 0o644, jar)]);
    assert_eq!(inventory.omissions[0].reason, "jars lie more than 4 deep in it");
    assert_eq!(inventory.packages.len(), 5);
}

#[test]
fn a_damaged_image_is_an_error_and_not_an_empty_list() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let manifest = store.blobs.put_bytes(b"{}").unwrap();
    let tree = store.trees.put(&Tree::new()).unwrap();
    let image = Image { manifest, tree, config: ImageConfig::default(), size_bytes: 0, unproven: Vec::new() };
    assert!(matches!(Inventory::of(&store, &image), Err(InventoryError::NotAnImage(_))));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

    /// Each reader sees a file of its own kind with some of it replaced by anything.
    #[test]
    fn any_damage_to_any_file_gives_an_inventory(
        which in 0..12_usize, at in 0..10_000_usize, bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 1..40), cut: bool
    ) {
        let mut files = everything();
        let count = files.len();
        let content = &mut files[which % count].2;
        let at = at % content.len();
        if cut {
            content.truncate(at);
        }
        let end = content.len().min(at + bytes.len());
        content.splice(at.min(end)..end, bytes);
        let (_folder, inventory) = inventory(&files);
        for format in [BomFormat::Spdx, BomFormat::CycloneDx] {
            serde_json::from_slice::<Value>(&inventory.render(format)).unwrap();
        }
    }
}

#[test]
fn what_is_too_large_or_too_deep_is_named() {
    let text = format!("Name: x\nVersion: 1\n\n{}", "y".repeat(4 << 20));
    let (_folder, once) = inventory(&[("a.dist-info/METADATA", 0o644, text.clone().into_bytes())]);
    assert_eq!(once.omissions.len(), 1, "it is larger than any metadata");
    let nested = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let (_folder, deep) = inventory(&[("package-lock.json", 0o644, nested.into_bytes())]);
    assert_eq!(deep.omissions[0].reason, "it is not npm's lock");
}
