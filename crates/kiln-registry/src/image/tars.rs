//! Archives that mean harm, made byte by byte: for whatever reads tars from outside, here and where ADD unpacks.

use std::io::Read as _;

/// An entry of a tar that is made here byte by byte: no library would write most of them.
#[derive(Clone)]
pub(crate) struct Item {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: u8,
    pub(crate) link: Vec<u8>,
    pub(crate) content: Vec<u8>,
    /// What the header says, where that is not the content's length.
    pub(crate) says: Option<u64>,
    pub(crate) mode: u64,
    pub(crate) owner: u64,
    pub(crate) device: (u64, u64),
    pub(crate) pax: Vec<(&'static str, Vec<u8>)>,
}

pub(crate) fn item(kind: u8, path: impl AsRef<[u8]>, link: impl AsRef<[u8]>) -> Item {
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

pub(crate) fn file(path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Item {
    Item { content: content.as_ref().to_vec(), ..item(b'0', path, "") }
}

pub(crate) fn dir(path: impl AsRef<[u8]>) -> Item {
    item(b'5', path, "")
}

pub(crate) fn symlink(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Item {
    item(b'2', path, target)
}

pub(crate) fn hard(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Item {
    item(b'1', path, target)
}

impl Item {
    pub(crate) fn pax(mut self, key: &'static str, value: impl AsRef<[u8]>) -> Self {
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

pub(crate) fn tar(items: &[Item]) -> Vec<u8> {
    let mut out = Vec::new();
    items.iter().for_each(|item| item.write(&mut out));
    out.extend([0; 1024]);
    out
}

pub(crate) const COMPRESSIONS: [&str; 3] = ["plain", "gzip", "zstd"];

pub(crate) fn compress(how: &str, tar: &[u8]) -> Vec<u8> {
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

/// Archives of which nothing may be laid, by what each tries.
pub(crate) fn refused() -> Vec<(&'static str, Vec<Item>)> {
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

/// Archives that reach for what is outside, or say a thing twice, and what is there when they are laid.
pub(crate) fn within() -> Vec<(Vec<Item>, &'static str)> {
    vec![
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
    ]
}
