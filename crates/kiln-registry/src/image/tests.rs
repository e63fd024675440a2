//! Layers of every compression, and archives that mean harm.

use std::io::Read;

use kiln_store::{Entry, Kind, TreePath};

use super::*;
use crate::image::layer::Budget;
use crate::image::tars::{COMPRESSIONS, Item, compress, dir, file, hard, refused, symlink, tar, within};

fn store() -> (tempfile::TempDir, Store) {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    (state, store)
}

fn digest(bytes: &[u8]) -> Digest {
    ContentDigest::of(crate::digest::Algorithm::Sha256, bytes).to_string().parse().unwrap()
}

/// Lays layers, and returns the tree or what is wrong with the last of them.
fn lay(store: &Store, layers: &[Vec<Item>], how: &str) -> Result<Tree, LayerError> {
    let mut tree = Tree::new();
    let mut budget = Budget::default();
    let batch = store.objects.batch();
    for layer in layers {
        let tar = tar(layer);
        let bytes = compress(how, &tar);
        let size = bytes.len() as u64;
        layer::lay(&mut tree, &batch, &mut budget, std::io::Cursor::new(bytes), size, digest(&tar))?;
    }
    batch.commit().unwrap();
    // What was laid can be stored.
    store.trees.put(&tree).unwrap();
    Ok(tree)
}

fn names(tree: &Tree) -> Vec<String> {
    tree.iter().map(|(path, _)| String::from_utf8_lossy(path.as_bytes()).into_owned()).skip(1).collect()
}

fn at<'a>(tree: &'a Tree, path: &str) -> Option<&'a Entry> {
    tree.get(&TreePath::parse(path).unwrap())
}

#[test]
fn a_layer_is_laid_whatever_it_is_compressed_with() {
    let (_state, store) = store();
    let layers = [
        vec![dir("etc"), file("etc/a", "1"), file("etc/b", "2"), symlink("lib", "usr/lib"), dir("usr/lib/")],
        vec![
            file("./etc/.wh.a", ""),
            file("/etc/c", "3"),
            hard("etc/d", "etc/c"),
            file("lib/x", "within usr"),
            file(format!("long/{}", "n".repeat(200)), "4")
                .pax("SCHILY.xattr.user.k", "v")
                .pax("mtime", "5.5"),
        ],
    ];
    for how in COMPRESSIONS {
        let tree = lay(&store, &layers, how).unwrap();
        let long = format!("long/{}", "n".repeat(200));
        assert_eq!(
            names(&tree),
            ["etc", "etc/b", "etc/c", "etc/d", "lib", "long", &long, "usr", "usr/lib", "usr/lib/x"],
            "{how}"
        );
        assert_eq!(tree.links(&TreePath::parse("etc/c").unwrap()), 2);
        let meta = &at(&tree, &long).unwrap().meta;
        assert_eq!(meta.xattrs[&b"user.k"[..]], b"v");
        assert_eq!((meta.mtime.secs, meta.mtime.nanos), (5, 500_000_000));
        let Kind::File { digest, size } = at(&tree, "etc/c").unwrap().kind else { panic!("not a file") };
        assert_eq!((store.objects.read_verified(&digest, 9).unwrap(), size), (b"3".to_vec(), 1));
    }
}

#[test]
fn a_whiteout_takes_what_was_below_and_not_what_comes_with_it() {
    let (_state, store) = store();
    let below = vec![dir("d"), file("d/old", "1"), dir("d/s"), file("d/s/old", "1"), file("e", "1")];
    let cases = [
        (vec![file("d/.wh..wh..opq", ""), file("d/new", "")], "d d/new e"),
        // In any order.
        (vec![file("d/new", ""), file("d/.wh..wh..opq", "")], "d d/new e"),
        (vec![file("d/s/new", ""), file(".wh.d", "")], "d d/s d/s/new e"),
        (vec![file(".wh..wh..opq", ""), file("new", "")], "new"),
        (vec![file(".wh..wh.plnk", ""), file("d/.wh.nothing", "")], "d d/old d/s d/s/old e"),
        (vec![file(".wh.d", ""), file("d", "")], "d e"),
        (vec![symlink("d/s", "/etc"), file("d/s/.wh.x", "")], "d d/old d/s e etc"),
    ];
    for (above, left) in cases {
        let tree = lay(&store, &[below.clone(), above], "plain").unwrap();
        assert_eq!(names(&tree).join(" "), left);
    }
}

#[test]
fn archives_that_mean_harm_are_refused_whatever_they_are_compressed_with() {
    let (_state, store) = store();
    assert!(refused().len() >= 40);
    for how in COMPRESSIONS {
        for (what, items) in refused() {
            let laid = lay(&store, &[items], how);
            assert!(laid.is_err(), "{what} as {how}: {:?}", laid.map(|tree| names(&tree)));
        }
    }
    assert!(store.objects.list().unwrap().is_empty(), "nothing of them was stored");
}

#[test]
fn what_reaches_out_by_a_link_stays_within() {
    let (_state, store) = store();
    for (items, left) in within() {
        for how in COMPRESSIONS {
            let tree = lay(&store, std::slice::from_ref(&items), how).unwrap();
            assert_eq!(names(&tree).join(" "), left);
        }
    }
}

#[test]
fn a_bomb_ends_at_its_ratio() {
    let (_state, store) = store();
    // 200 MB of zeros: a thousand to one for gzip, and more for zstd.
    let zeros = tar(&[Item { content: vec![0; 200 << 20], ..file("zeros", "") }]);
    for how in ["gzip", "zstd"] {
        let bytes = compress(how, &zeros);
        let size = bytes.len() as u64;
        assert!(size * 200 < zeros.len() as u64);
        let batch = store.objects.batch();
        let mut tree = Tree::new();
        let mut budget = Budget::default();
        let laid =
            layer::lay(&mut tree, &batch, &mut budget, std::io::Cursor::new(bytes), size, digest(&zeros));
        assert!(matches!(laid, Err(LayerError::TooLarge { .. })), "{how}: {laid:?}");
        drop(batch);
    }
    assert!(store.objects.list().unwrap().is_empty());
}

#[test]
fn a_stream_without_end_ends() {
    let (_state, store) = store();
    let mut budget = Budget::default();
    let mut tree = Tree::new();
    let header = tar(&[Item { says: Some(1 << 30), ..file("x", "") }])[..512].to_vec();
    let endless = std::io::Cursor::new(header).chain(std::io::repeat(7));
    let batch = store.objects.batch();
    let laid = layer::lay(&mut tree, &batch, &mut budget, endless, 100, digest(b""));
    assert!(matches!(laid, Err(LayerError::TooLarge { .. })), "{laid:?}");
}

#[test]
fn what_unpacks_to_something_else_or_is_cut_is_refused() {
    let (_state, store) = store();
    let whole = tar(&[file("x", vec![7; 5000])]);
    for how in COMPRESSIONS {
        let bytes = compress(how, &whole);
        let lay = |bytes: &[u8], diff_id| {
            let source = std::io::Cursor::new(bytes.to_vec());
            let batch = store.objects.batch();
            let (mut tree, mut budget) = (Tree::new(), Budget::default());
            layer::lay(&mut tree, &batch, &mut budget, source, bytes.len() as u64, diff_id)
        };
        assert!(lay(&bytes, digest(&whole)).is_ok());
        assert!(matches!(lay(&bytes, digest(b"other")), Err(LayerError::Mismatch { .. })), "{how}");
        for cut in [1, 10, bytes.len() / 2, bytes.len() - 1] {
            assert!(lay(&bytes[..cut], digest(&whole)).is_err(), "{how} cut at {cut}");
        }
    }
}

#[test]
fn lists_lead_to_the_image_of_this_machine_and_not_in_circles() {
    struct Lists(std::collections::BTreeMap<String, Vec<u8>>);
    impl Origin for Lists {
        fn manifest(&self, reference: &Reference) -> Result<(Vec<u8>, Option<String>), ImageError> {
            Ok((self.0[&reference.to_string()].clone(), None))
        }
        fn blob(&self, _: &Target, _: &mut dyn Write) -> Result<(), ImageError> {
            unreachable!("only manifests are asked for")
        }
    }
    let entry = |bytes: &[u8], platform: Option<(&str, &str)>| {
        let mut entry = serde_json::json!({ "digest": digest(bytes).to_string(), "size": bytes.len() });
        if let Some((os, architecture)) = platform {
            entry["platform"] = serde_json::json!({ "os": os, "architecture": architecture });
        }
        entry
    };
    let list = |entries: Vec<serde_json::Value>| {
        serde_json::json!({ "schemaVersion": 2, "manifests": entries }).to_string().into_bytes()
    };
    let config = serde_json::json!({ "mediaType": "x", "digest": digest(b"c").to_string(), "size": 1 });
    let image =
        serde_json::json!({ "schemaVersion": 2, "config": config, "layers": [] }).to_string().into_bytes();
    let other = serde_json::json!({ "schemaVersion": 2, "config": config, "layers": [], "x": 1 });
    let mut lists = Lists(std::collections::BTreeMap::new());
    let mut add = |name: &str, bytes: &[u8]| {
        lists.0.insert(digest(bytes).to_string(), bytes.to_vec());
        lists.0.insert(name.to_owned(), bytes.to_vec());
    };
    add("image", &image);
    let two = list(vec![
        entry(other.to_string().as_bytes(), Some(("linux", "s390x"))),
        entry(&image, Some(("linux", ARCHITECTURE))),
    ]);
    add("two", &two);
    add("nested", &list(vec![entry(&two, None)]));
    add("elsewhere", &list(vec![entry(&image, Some(("windows", ARCHITECTURE)))]));
    add("empty", &list(vec![]));
    let mut deep = image.clone();
    for _ in 0..=LISTS_MAX {
        deep = list(vec![entry(&deep, None)]);
        add("deep", &deep);
    }
    let found = |name: &str| find(&lists, &Reference::Tag(name.parse().unwrap())).map(|found| found.bytes);
    for name in ["image", "two", "nested"] {
        assert!(found(name).unwrap() == image, "{name}");
    }
    assert!(matches!(found("elsewhere"), Err(ImageError::NoPlatform { found }) if found.contains("windows")));
    assert!(matches!(found("empty"), Err(ImageError::NoPlatform { .. })));
    assert!(matches!(found("deep"), Err(ImageError::Nested)));
}
