//! Stored bytes that a disk may have damaged, or somebody else has written, mutated.

use ::fuzz::Target;

use super::event::decode_event;
use super::samples;
use crate::erofs::{metadata_image, read_tree};
use crate::tree::{Entry, Meta, Tree, TreePath};

fn image() -> Vec<u8> {
    let mut tree = Tree::new();
    let path = |text: &str| TreePath::parse(text).unwrap();
    tree.insert(&path("etc"), Entry::dir(0o755)).unwrap();
    tree.insert(&path("etc/passwd"), Entry::file(0o644, samples::digest(1), 10_000)).unwrap();
    tree.insert(&path("lib"), Entry::symlink("usr/lib")).unwrap();
    let xattrs = [(b"user.a".to_vec(), vec![7; 300])].into();
    let kind = crate::tree::Kind::Dir;
    tree.insert(&path("etc/more"), Entry { meta: Meta { mode: 0o700, xattrs, ..Meta::default() }, kind })
        .unwrap();
    tree.link(&path("etc/more/link"), &path("etc/passwd")).unwrap();
    metadata_image(&tree).unwrap()
}

#[test]
fn records() {
    let words = [
        "\"term\":",
        "\"instance\":",
        "\"revision\":",
        "\"rollout\":",
        "null",
        "{}",
        "[]",
        "sha256:",
        "\\ud800",
    ];
    let mut target = Target::new(env!("CARGO_MANIFEST_DIR"), "records").words(&words).seed(image());
    for event in samples::events() {
        target = target.seed(super::event::encode_event(&event).2);
    }
    target.run(|bytes| {
        let mut said = String::new();
        for kind in ["control", "environment", "rollout", "instance", "traffic", "check"] {
            match decode_event(kind, 1, bytes) {
                Ok(event) => {
                    // What is read is what is written.
                    let (kind, schema, again) = super::event::encode_event(&event);
                    assert_eq!(decode_event(kind, schema, &again).unwrap(), event);
                    said += "event ";
                }
                Err(error) => said += &format!("{error:?} "),
            }
        }
        let tree = read_tree(bytes).map(|tree| tree.len().min(8));
        let snapshot = serde_json::from_slice::<super::snapshot::SnapshotWire>(bytes).map(|_| ());
        format!("{said} {tree:?} {snapshot:?}")
    });
}
