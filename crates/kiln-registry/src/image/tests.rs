//! Layers of every compression, and archives that mean harm.

use std::io::Read;

use kiln_store::{Entry, Kind, TreePath};

use super::*;
use crate::image::layer::Budget;

/// An entry of a tar that is made here byte by byte: no library would write most of them.
#[derive(Clone)]
struct Item {
    path: Vec<u8>,
    kind: u8,
    link: Vec<u8>,
    content: Vec<u8>,
    /// What the header says, where that is not the content's length.
    says: Option<u64>,
    mode: u64,
    owner: u64,
    device: (u64, u64),
    pax: Vec<(&'static str, Vec<u8>)>,
}

fn item(kind: u8, path: impl AsRef<[u8]>, link: impl AsRef<[u8]>) -> Item {
    Item {
        path: path.as_ref().to_vec(),
        kind,
        link: link.as_ref().to_vec(),
        content: Vec::new(),
        says: None,
        mode: 0o755,
        owner: 0,
        device: (0, 0),
        pax: Vec::new(),
    }
}

fn file(path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Item {
    Item { content: content.as_ref().to_vec(), ..item(b'0', path, "") }
}

fn dir(path: impl AsRef<[u8]>) -> Item {
    item(b'5', path, "")
}

fn symlink(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Item {
    item(b'2', path, target)
}

fn hard(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Item {
    item(b'1', path, target)
}

impl Item {
    fn pax(mut self, key: &'static str, value: impl AsRef<[u8]>) -> Self {
        self.pax.push((key, value.as_ref().to_vec()));
        self
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut records = self.pax.clone();
        for (key, value) in [("path", &self.path), ("linkpath", &self.link)] {
            if value.len() > 100 {
                records.push((key, value.clone()));
            }
        }
        if !records.is_empty() {
            let mut body = Vec::new();
            for (key, value) in records {
                let rest = [b" ", key.as_bytes(), b"=", &value, b"\n"].concat();
                let mut length = rest.len() + 1;
                while length != rest.len() + length.to_string().len() {
                    length = rest.len() + length.to_string().len();
                }
                body.extend([length.to_string().as_bytes(), &rest].concat());
            }
            block(out, b"././@PaxHeader", b'x', b"", body.len() as u64, self);
            pad(out, &body);
        }
        let says = self.says.unwrap_or(self.content.len() as u64);
        block(
            out,
            &self.path[..self.path.len().min(100)],
            self.kind,
            &self.link[..self.link.len().min(100)],
            says,
            self,
        );
        pad(out, &self.content);
    }
}

fn block(out: &mut Vec<u8>, path: &[u8], kind: u8, link: &[u8], size: u64, item: &Item) {
    let mut header = [0; 512];
    let octal = |field: &mut [u8], number: u64| {
        let text = format!("{number:0width$o}", width = field.len() - 1);
        field[..text.len()].copy_from_slice(text.as_bytes());
    };
    header[..path.len()].copy_from_slice(path);
    octal(&mut header[100..108], item.mode);
    for (from, to) in [(108, 116), (116, 124)] {
        header[from..to].copy_from_slice(&(item.owner | 1 << 63).to_be_bytes());
    }
    octal(&mut header[124..136], size);
    octal(&mut header[136..148], 1_000_000);
    header[156] = kind;
    header[157..157 + link.len()].copy_from_slice(link);
    header[257..265].copy_from_slice(b"ustar\x0000");
    octal(&mut header[329..337], item.device.0);
    octal(&mut header[337..345], item.device.1);
    header[148..156].copy_from_slice(b"        ");
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend(header);
}

fn pad(out: &mut Vec<u8>, content: &[u8]) {
    out.extend(content);
    out.resize(out.len().next_multiple_of(512), 0);
}

fn tar(items: &[Item]) -> Vec<u8> {
    let mut out = Vec::new();
    items.iter().for_each(|item| item.write(&mut out));
    out.extend([0; 1024]);
    out
}

const COMPRESSIONS: [&str; 3] = ["plain", "gzip", "zstd"];

fn compress(how: &str, tar: &[u8]) -> Vec<u8> {
    match how {
        "gzip" => {
            let mut out = Vec::new();
            flate2::read::GzEncoder::new(tar, flate2::Compression::best()).read_to_end(&mut out).unwrap();
            out
        }
        "zstd" => zstd::encode_all(tar, 1).unwrap(),
        _ => tar.to_vec(),
    }
}

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

/// Archives of which nothing may be laid, by what each tries.
fn refused() -> Vec<(&'static str, Vec<Item>)> {
    let with = |kind: u8, path: &str| item(kind, path, "");
    vec![
        ("a parent", vec![file("../x", "")]),
        ("a parent in the middle", vec![file("a/../../x", "")]),
        ("a parent at the end", vec![dir("a/..")]),
        ("an absolute parent", vec![file("/../x", "")]),
        ("a parent by pax", vec![file("x", "").pax("path", "../x")]),
        ("a folder above", vec![dir("..")]),
        ("a hard link above", vec![hard("x", "../../etc/passwd")]),
        ("a hard link above by pax", vec![hard("x", "y").pax("linkpath", "../etc/passwd")]),
        ("a hard link to nothing", vec![hard("x", "etc/passwd")]),
        ("a hard link to a folder", vec![dir("d"), hard("x", "d")]),
        ("a hard link to the root", vec![hard("x", "/")]),
        ("a hard link through a file", vec![file("f", ""), hard("x", "f/y")]),
        ("a hard link through a circle", vec![symlink("l", "l"), hard("x", "l/y")]),
        ("a hard link over its own folder", vec![dir("d"), file("d/f", ""), hard("d", "d/f")]),
        ("a file in a file", vec![file("f", ""), file("f/x", "")]),
        ("a file in a link to a file", vec![file("f", ""), symlink("l", "f"), file("l/x", "")]),
        ("a circle of links", vec![symlink("a", "b"), symlink("b", "a"), file("a/x", "")]),
        ("a block device", vec![Item { device: (8, 0), ..with(b'4', "sda") }]),
        ("a character device", vec![Item { device: (1, 1), ..with(b'3', "etc/mem") }]),
        ("overlay's deletion", vec![with(b'3', "etc/passwd")]),
        (
            "a device behind a link",
            vec![symlink("dev", "etc"), Item { device: (1, 1), ..with(b'3', "dev/mem") }],
        ),
        ("a file with holes", vec![with(b'S', "x")]),
        ("a file with holes by pax", vec![file("x", "").pax("GNU.sparse.major", "1")]),
        ("an unknown kind", vec![with(b'Q', "x")]),
        ("a NUL in a name", vec![file("x", "").pax("path", "a\0b")]),
        ("a NUL in a link", vec![symlink("x", "y").pax("linkpath", "a\0b")]),
        ("an empty link", vec![symlink("x", "")]),
        ("a long name", vec![file("n".repeat(256), "")]),
        ("a long path", vec![file("n/".repeat(2048) + "n", "")]),
        ("a long link", vec![symlink("x", "t".repeat(4096))]),
        ("a whiteout of the parent", vec![file(".wh...", "")]),
        ("a whiteout of the folder", vec![file("d/.wh..", "")]),
        ("a whiteout of nothing", vec![file("d/.wh.", "")]),
        ("nobody as owner", vec![Item { owner: u64::from(u32::MAX), ..file("x", "") }]),
        ("an owner beyond Linux", vec![Item { owner: 1 << 40, ..file("x", "") }]),
        ("a size that lies", vec![Item { says: Some(1 << 20), ..file("x", "short") }]),
        ("a size without end", vec![Item { says: Some(0o77_777_777_777), ..file("x", "short") }]),
        ("a size by pax that lies", vec![file("x", "short").pax("size", "999999999999")]),
        ("a size that is no number", vec![file("x", "").pax("size", "-1")]),
        ("a time that is none", vec![file("x", "").pax("mtime", "later")]),
        ("an extended header that is none", vec![Item { content: b"junk".to_vec(), ..with(b'x', "x") }]),
        ("a long extended attribute", vec![file("x", "").pax("SCHILY.xattr.user.k", vec![b'v'; 70_000])]),
        ("a name that is too long to read", vec![Item { content: vec![b'n'; 2 << 20], ..with(b'L', "x") }]),
        ("a folder under a path that is a file", vec![file("f", ""), dir("f/d/e")]),
    ]
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
    for (items, left) in [
        (vec![symlink("l", "/etc"), file("l/x", "")], "etc etc/x l"),
        (vec![symlink("l", "../../../../tmp"), file("l/x", "")], "l tmp tmp/x"),
        (vec![symlink("a", "b"), symlink("b", "/c"), file("a/x", "")], "a b c c/x"),
        (vec![symlink("l", "/etc"), dir("l"), file("l/x", "")], "l l/x"),
        (vec![symlink("l", "/etc/passwd"), file("l", "own")], "l"),
        (vec![file("/absolute", "")], "absolute"),
        (vec![file("//./a//b", "")], "a a/b"),
        (vec![file("f", "1"), hard("/g", "/f")], "f g"),
        (vec![symlink("l", "/"), file("l/x", "")], "l x"),
        // A device that every instance has of its own.
        (vec![dir("dev"), Item { device: (1, 3), ..item(b'3', "dev/null", "") }], "dev"),
        // The later one counts.
        (vec![file("x", "1"), dir("x"), file("x/y", ""), file("x", "2")], "x"),
    ] {
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
