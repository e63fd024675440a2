use std::fs;
use std::path::PathBuf;

use kiln_model::image::{Image, ImageConfig};
use kiln_model::release::{Binding, Release, RequiredCheck};
use kiln_model::{ImageName, InstanceSpec, StackName, VariableName};

use super::samples::{self, digest};
use super::*;
use crate::canonical;
use crate::skeleton::{Change, Skeleton};
use crate::snapshot::{Snapshot, SnapshotFile, SnapshotKind};
use crate::tree::{Entry, TreePath};

/// Compares with the stored bytes. To accept a deliberate change of format, run with `KILN_BLESS=1` and explain the
/// change in a decision record: what was stored before must still be read.
fn golden(name: &str, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("KILN_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    let stored = fs::read(&path).unwrap_or_default();
    assert_eq!(
        String::from_utf8_lossy(bytes),
        String::from_utf8_lossy(&stored),
        "{} has the bytes that are stored on users' disks",
        path.display()
    );
}

fn release() -> Release {
    let check = |test: &str| RequiredCheck { image: digest(1), test: test.into() };
    Release {
        stack: StackName::new("shop").unwrap(),
        source: digest(9),
        images: [(ImageName::new("web").unwrap(), digest(1))].into(),
        holes: [(VariableName::new("replicas").unwrap(), "number".into())].into(),
        given: [].into(),
        checks: vec![check("starts"), check("answers"), check("starts")],
    }
}

#[test]
fn every_event_is_stored_as_it_always_was_and_reads_back() {
    let mut lines = String::new();
    for event in samples::events() {
        let (kind, schema, body) = encode_event(&event);
        assert_eq!(decode_event(kind, schema, &body).unwrap(), event);
        lines.push_str(&format!("{kind}\t{schema}\t{}\n", String::from_utf8(body).unwrap()));
    }
    golden("events.tsv", lines.as_bytes());
}

#[test]
fn events_that_were_stored_long_ago_are_still_read() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/events.tsv");
    let stored = fs::read_to_string(path).unwrap();
    assert!(stored.lines().count() > 40);
    for line in stored.lines() {
        let mut parts = line.splitn(3, '\t');
        let mut part = || parts.next().unwrap();
        let (kind, schema, body) = (part(), part().parse().unwrap(), part());
        decode_event(kind, schema, body.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error:?}"));
    }
}

#[test]
fn an_event_from_a_newer_kiln_is_told_apart_from_a_damaged_one() {
    let unknown = |kind, schema, body: &str| decode_event(kind, schema, body.as_bytes()).unwrap_err();
    assert_eq!(unknown("weather", 1, "{}"), DecodeError::Unknown);
    assert_eq!(unknown("control", 2, r#"{"clock_jumped":{"by_ms":5}}"#), DecodeError::Unknown);
    assert_eq!(unknown("control", 1, r#"{"clock_stopped":{}}"#), DecodeError::Unknown);
    for damaged in [r#"{"clock_jumped":{"by_ms":-5}}"#, r#"{"clock_jumped":{"by_ms":5,"x":1}}"#, "{", ""] {
        assert!(matches!(unknown("control", 1, damaged), DecodeError::Malformed(_)), "{damaged}");
    }
    let heavy = r#"{"shifted":{"weights":[["aaaaaaaaaa",1001]]}}"#;
    assert!(matches!(unknown("traffic", 1, heavy), DecodeError::Malformed(_)));
}

#[test]
fn canonical_bytes_never_change() {
    golden("spec.json", &canonical::spec_bytes(&samples::spec()));
    golden("spec-bare.json", &canonical::spec_bytes(&samples::bare_spec()));
    golden("release.json", &canonical::release_bytes(&release()));
    let binding = Binding {
        variables: [(VariableName::new("replicas").unwrap(), "6".into())].into(),
        secrets: [("db_password".into(), "v7".into())].into(),
    };
    golden("binding.json", &canonical::binding_bytes(&binding));
    let digest = canonical::spec_digest(&samples::bare_spec());
    golden("spec-bare.digest", digest.to_string().as_bytes());
}

#[test]
fn the_order_in_which_checks_are_declared_is_no_difference() {
    let mut other = release();
    other.checks.reverse();
    assert_eq!(canonical::release_digest(&release()), canonical::release_digest(&other));
}

#[test]
fn specs_and_image_records_read_back() {
    for spec in [samples::spec(), samples::bare_spec()] {
        let bytes = to_json(&SpecWire::from(&spec));
        assert_eq!(InstanceSpec::from(serde_json::from_slice::<SpecWire>(&bytes).unwrap()), spec);
    }
    let config = ImageConfig {
        env: [("PATH".into(), "/bin".into())].into(),
        entrypoint: vec!["/init".into()],
        command: vec!["serve".into()],
        workdir: "/srv".into(),
        user: "1000:1000".into(),
        labels: [("a".into(), "b".into())].into(),
        expose: vec!["80/tcp".into()],
        volumes: vec!["/data".into()],
        stop_signal: "SIGINT".into(),
        health: None,
    };
    let (manifest, tree) = (digest(1), digest(2));
    let image = Image { manifest, tree, config, size_bytes: 12345, unproven: Vec::new() };
    let unproven = Image { unproven: vec!["run fetch could reach the network".into()], ..image.clone() };
    let health = samples::spec().health;
    let asked = Image { config: ImageConfig { health, ..image.config.clone() }, ..image.clone() };
    for (name, image) in
        [("image.json", image), ("image-unproven.json", unproven), ("image-health.json", asked)]
    {
        let bytes = to_json(&ImageWire::from(&image));
        golden(name, &bytes);
        assert_eq!(Image::from(serde_json::from_slice::<ImageWire>(&bytes).unwrap()), image);
    }
}

#[test]
fn snapshots_and_lists_of_mount_points_are_stored_as_they_always_were() {
    let path = |text: &[u8]| TreePath::parse(text).unwrap();
    let file = |text: &[u8], mode, kind| SnapshotFile { path: path(text), mode, kind };
    let snapshot = Snapshot {
        files: vec![
            file(b"empty", 0o755, SnapshotKind::Dir),
            file(b"odd-\xff", 0o777, SnapshotKind::Symlink { target: b"run.sh".to_vec() }),
            file(b"run.sh", 0o755, SnapshotKind::File { digest: digest(1), size: 9 }),
        ],
    };
    let bytes = to_json(&SnapshotWire::from(&snapshot));
    golden("snapshot.json", &bytes);
    let wire: SnapshotWire = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(Snapshot::try_from(wire).unwrap(), snapshot);

    let mut link = Entry::symlink("../run/resolv.conf");
    link.meta.xattrs.insert(b"security.x".to_vec(), vec![0xff]);
    let skeleton = Skeleton {
        changes: vec![
            Change { path: path(b"proc"), replaced: None },
            Change { path: path(b"etc/resolv.conf"), replaced: Some(link) },
        ],
    };
    let bytes = to_json(&SkeletonWire::from(&skeleton));
    golden("skeleton.json", &bytes);
    let wire: SkeletonWire = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(Skeleton::try_from(wire).unwrap(), skeleton);
}
