use kiln_model::Digest;
use proptest::prelude::*;

use super::*;
use crate::tree::{Entry, Meta, Mtime, Tree, TreePath};

fn image_of(tree: &Tree) -> Vec<u8> {
    let mut image = Vec::new();
    write_metadata_image(tree, &mut image).unwrap();
    assert_eq!(image, metadata_image(tree).unwrap());
    image
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    // Few letters, so that names collide and share prefixes; long ones, so that blocks of folders fill up.
    prop_oneof![
        4 => proptest::collection::vec(b'a'..b'e', 1..3),
        1 => proptest::collection::vec(1u8..=255, 1..255).prop_filter("a name", |name| {
            !name.contains(&b'/') && name != b"." && name != b".."
        }),
    ]
}

fn meta() -> impl Strategy<Value = Meta> {
    let xattr = (
        prop::sample::select(vec![
            "user.a",
            "security.capability",
            "trusted.overlay.opaque",
            "trusted.overlay.redirect",
            "trusted.x",
            "system.posix_acl_access",
        ]),
        proptest::collection::vec(any::<u8>(), 0..5000),
    );
    let mtime = prop_oneof![
        Just(Mtime::default()),
        (any::<i64>(), 0u32..1_000_000_000).prop_map(|(secs, nanos)| Mtime { secs, nanos }),
    ];
    let owner = || prop_oneof![Just(0), 0..u32::MAX];
    (0u16..=0o7777, owner(), owner(), mtime, proptest::collection::vec(xattr, 0..3)).prop_map(
        |(mode, uid, gid, mtime, xattrs)| {
            let xattrs = xattrs.into_iter().map(|(name, value)| (name.as_bytes().to_vec(), value)).collect();
            Meta { mode, uid, gid, mtime, xattrs }
        },
    )
}

fn kind() -> impl Strategy<Value = Kind> {
    let digest = any::<[u8; 32]>().prop_map(Digest::new);
    let target = proptest::collection::vec(1u8..=255, 1..4096);
    prop_oneof![
        4 => Just(Kind::Dir),
        4 => (digest, prop_oneof![0..10_000u64, 0..1u64 << 46]).prop_map(|(digest, size)| Kind::File { digest, size }),
        2 => target.prop_map(|target| Kind::Symlink { target }),
        1 => (1u32..4096, 0u32..1 << 20).prop_map(|(major, minor)| Kind::Char { major, minor }),
        1 => (0u32..4096, 0u32..1 << 20).prop_map(|(major, minor)| Kind::Block { major, minor }),
        1 => Just(Kind::Fifo),
        1 => Just(Kind::Socket),
    ]
}

/// A tree from random steps: each puts an entry or a link somewhere in a folder that is there already.
pub(crate) fn trees() -> impl Strategy<Value = Tree> {
    let step =
        (any::<prop::sample::Index>(), name(), meta(), kind(), any::<bool>(), any::<prop::sample::Index>());
    proptest::collection::vec(step, 0..60).prop_map(|steps| {
        let mut tree = Tree::new();
        for (folder, name, meta, kind, linked, target) in steps {
            let folders: Vec<_> =
                tree.iter().filter(|(_, entry)| entry.is_dir()).map(|(path, _)| path).collect();
            let Ok(path) = folder.get(&folders).join(&name) else { continue };
            let paths: Vec<_> = tree.iter().map(|(path, _)| path.clone()).collect();
            if linked && tree.link(&path, target.get(&paths)).is_ok() {
                continue;
            }
            tree.insert(&path, Entry { meta, kind }).unwrap();
        }
        tree
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_tree_reads_back_from_its_image(tree in trees()) {
        let image = image_of(&tree);
        let read = read_tree(&image).unwrap();
        prop_assert!(read == tree, "{read:#?}\n{tree:#?}");
        prop_assert_eq!(image_of(&read), image, "the bytes do not depend on how the tree came about");
    }

    #[test]
    fn a_damaged_image_is_an_error_or_a_tree_but_never_a_panic(
        tree in trees(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut image = image_of(&tree);
        for (at, byte) in damage {
            let at = at.index(image.len());
            image[at] ^= byte;
        }
        let _ = read_tree(&image);
        let _ = read_tree(&image[..cut.index(image.len())]);
    }

    #[test]
    fn damage_to_an_inode_or_a_folder_is_survived(
        tree in trees(),
        damage in proptest::collection::vec((0usize..600, any::<u8>()), 1..8),
    ) {
        let mut image = image_of(&tree);
        for (at, byte) in damage {
            image[SUPER_OFFSET + at] = byte;
        }
        image[SUPER_OFFSET..SUPER_OFFSET + 4].copy_from_slice(&SUPER_MAGIC.to_le_bytes());
        let _ = read_tree(&image);
    }
}

#[test]
fn a_folder_of_thousands_fills_blocks_and_reads_back() {
    let mut tree = Tree::new();
    for index in 0..5_000 {
        let path = TreePath::parse(format!("file-{index:05}-{}", "x".repeat(index % 90))).unwrap();
        tree.insert(&path, Entry::file(0o644, Digest::new([index as u8; 32]), index as u64)).unwrap();
    }
    assert_eq!(read_tree(&image_of(&tree)).unwrap(), tree);
}

#[test]
fn the_bytes_of_an_image_never_change() {
    let path = |text| TreePath::parse(text).unwrap();
    let mut tree = Tree::new();
    tree.insert(&path("etc"), Entry::dir(0o755)).unwrap();
    tree.insert(&path("etc/passwd"), Entry::file(0o644, Digest::new([7; 32]), 1234)).unwrap();
    tree.link(&path("etc/passwd-"), &path("etc/passwd")).unwrap();
    tree.insert(&path("link"), Entry::symlink("etc/passwd")).unwrap();
    let mut node = Entry { meta: Meta { mode: 0o600, uid: 70_000, ..Meta::default() }, kind: Kind::Fifo };
    node.meta.mtime = Mtime { secs: -1, nanos: 5 };
    node.meta.xattrs.insert(b"security.capability".to_vec(), vec![1, 2, 3]);
    tree.insert(&path("pipe"), node).unwrap();
    let digest = crate::canonical::digest_of(&image_of(&tree)).to_string();
    // If this changes, every stored tree gets another address: bakes are made anew, and instances replaced.
    assert_eq!(digest, "sha256:22abc7149f75e6cbb6d23d06e1db96e06a4d1daafeca1f855b03ef767347b6bd");
}
