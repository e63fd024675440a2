//! ADD of archives: what is unpacked, and what is refused of hostile ones.

use std::io::Write;
use std::process::{Command, Stdio};

use kiln_store::Kind;
use tar::{Builder, EntryType, Header};

use crate::kitchen::{Kitchen, at};

/// One entry: its kind, its name, its link or content.
type Item<'a> = (EntryType, &'a str, &'a str);

/// Writes a tar with names as they are: no library refuses them on the way.
fn tar_of(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, name, rest) in items {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o640);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(100);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        let content = if *kind == EntryType::Regular { rest.as_bytes() } else { b"" };
        if matches!(kind, EntryType::Link | EntryType::Symlink) {
            header.as_old_mut().linkname[..rest.len()].copy_from_slice(rest.as_bytes());
        }
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn piped(program: &str, bytes: &[u8]) -> Vec<u8> {
    let mut child =
        Command::new(program).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    output.stdout
}

/// Two streams, one behind the other, as parallel compressors write them. Not every machine has the program.
fn bzipped(bytes: &[u8]) -> Vec<u8> {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let packed = |bytes: &[u8]| {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    [packed(first), packed(second)].concat()
}

/// An archive as it is, and compressed in each way that is unpacked.
fn packed(bytes: &[u8]) -> [(&'static str, Vec<u8>); 5] {
    [
        ("tar", bytes.to_vec()),
        ("tar.bz2", bzipped(bytes)),
        ("tar.gz", piped("gzip", bytes)),
        ("tar.xz", piped("xz", bytes)),
        ("tar.zst", piped("zstd", bytes)),
    ]
}

const FILE: EntryType = EntryType::Regular;
const FOLDER: EntryType = EntryType::Directory;
const SYMLINK: EntryType = EntryType::Symlink;
const LINK: EntryType = EntryType::Link;

#[test]
fn archives_are_unpacked_however_they_are_compressed_and_other_files_are_copied() {
    let kitchen = Kitchen::new();
    let bytes = tar_of(&[
        (FOLDER, "top/", ""),
        (FILE, "top/a", "a"),
        (LINK, "top/hard", "top/a"),
        (SYMLINK, "top/soft", "a"),
        (FILE, "/absolute", "abs"),
        (FILE, "implied/b", "b"),
        (FILE, "top/a", "again"),
    ]);
    let mut text = String::from("FROM os\nRUN mkdir -p /in && ln -s /in /link\n");
    for (name, bytes) in packed(&bytes) {
        kitchen.put(&format!("web/{name}"), &bytes, 0o644);
        text.push_str(&format!("ADD {name} /to-{name}/\n"));
    }
    kitchen.put("web/plain.gz", &piped("gzip", b"no archive"), 0o644).write("web/empty", "");
    text.push_str("ADD plain.gz empty /copied/\nADD --unpack=false tar /kept.tar\nCOPY tar /copied.tar\nADD --chown=app --chmod=700 tar /link\n");
    let dish = kitchen.of(&text);
    for name in ["tar", "tar.bz2", "tar.gz", "tar.xz", "tar.zst"] {
        let of = |path: &str| format!("to-{name}/{path}");
        assert_eq!(dish.text(&of("top/a")), "again", "{name}: the last of a name wins");
        assert_eq!(dish.text(&of("top/hard")), "a", "what was linked before stays");
        assert_eq!(dish.meta(&of("top/a")), "640 7:8");
        assert_eq!(dish.entry(&of("top/a")).meta.mtime.secs, 100);
        assert!(matches!(&dish.entry(&of("top/soft")).kind, Kind::Symlink { target } if target == b"a"));
        assert_eq!(dish.meta(&of("implied")), "755 0:0");
        assert_eq!(dish.text(&of("absolute")), "abs");
        assert!(!dish.has("absolute"));
    }
    assert_eq!(dish.meta("in/top/a"), "640 7:8", "an archive's own owners stay");
    for there in ["copied/plain.gz", "copied/empty", "kept.tar", "copied.tar"] {
        assert!(matches!(dish.entry(there).kind, Kind::File { .. }), "{there}");
    }
    assert!(dish.tree.get(&at("link/top")).is_none());
}

#[test]
fn nothing_of_a_hostile_archive_gets_out_of_it() {
    let kitchen = Kitchen::new();
    let many = "d/".repeat(49);
    let vectors: &[(&str, &[Item<'_>], &str)] = &[
        ("parent", &[(FILE, "../evil", "x")], "leads out"),
        ("deep parent", &[(FILE, "a/../../evil", "x")], "leads out"),
        ("absolute parent", &[(FILE, "/../evil", "x")], "leads out"),
        ("hard link out", &[(LINK, "a", "../etc/passwd")], "leads out"),
        ("hard link to nothing", &[(LINK, "a", "/etc/passwd")], "there is no /etc"),
        ("hard link to a folder", &[(FOLDER, "d/", ""), (LINK, "a", "d")], "is a folder"),
        ("hard link without a name", &[(LINK, "a", "")], "is a folder"),
        ("through a link", &[(SYMLINK, "a", "/etc"), (FILE, "a/passwd", "x")], "OK"),
        ("through a link up", &[(SYMLINK, "a", "../../etc"), (FILE, "a/passwd", "x")], "OK"),
        (
            "through a circle",
            &[(SYMLINK, "a", "b"), (SYMLINK, "b", "a"), (FILE, "a/x", "x")],
            "too many links",
        ),
        ("through itself", &[(SYMLINK, "a", "a"), (FILE, "a/x", "x")], "too many links"),
        ("through a file", &[(FILE, "a", "x"), (FILE, "a/b", "x")], "is not a folder"),
        ("link without a target", &[(SYMLINK, "a", "")], "1 to 4095 bytes"),
        ("character device", &[(EntryType::Char, "a", "")], "is a device"),
        ("block device", &[(EntryType::Block, "a", "")], "is a device"),
        ("unknown kind", &[(EntryType::new(b'Q'), "a", "")], "unknown kind"),
        ("deep", &[(FOLDER, &many, ""), (FILE, "x", "x")], "OK"),
        ("folder over file", &[(FILE, "a", "x"), (FOLDER, "a/", "")], "OK"),
        ("file over folder", &[(FOLDER, "a/", ""), (FILE, "a/b", "x"), (FILE, "a", "x")], "OK"),
        ("root as file", &[(FILE, "./", "x")], "is a folder"),
        ("twice", &[(FILE, "a", "x"), (FILE, "a", "y")], "OK"),
        ("clash with the image", &[(FILE, "bin", "x")], "a file can't replace"),
    ];
    for (what, items, expected) in vectors {
        for (name, bytes) in packed(&tar_of(items)) {
            kitchen.put(&format!("web/{name}"), &bytes, 0o644);
            kitchen.write("web/Dockerfile", &format!("FROM os\nADD {name} /\n"));
            let done = kitchen.try_bake(crate::kitchen::dockerfile("web"));
            match (done, *expected) {
                (Ok(dish), "OK") => assert!(
                    dish.text("etc/passwd").starts_with("root:") || what.starts_with("through"),
                    "{what}"
                ),
                (Ok(_), _) => panic!("{what} as {name} was unpacked"),
                (Err(error), expected) => {
                    let said = crate::fixture::causes(&error);
                    assert!(said.contains(expected), "{what} as {name}: {said}");
                }
            }
        }
    }
}

#[test]
fn archives_that_are_cut_off_or_have_no_end_are_refused() {
    let kitchen = Kitchen::new();
    // What does not compress, so that the beginning can be read of what is cut off.
    let mut state = 1_u64;
    let noise: String = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(33 + (state >> 58) as u8)
    })
    .take(400_000)
    .collect();
    let whole = tar_of(&[(FILE, "a", &noise), (FILE, "b", &noise)]);
    let bomb = vec![0_u8; 300 << 20];
    let mut zeros = tar_of(&[(FILE, "a", "x")]);
    zeros.truncate(1024);
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bomb.len() as u64);
    header.set_entry_type(FILE);
    header.set_path("zeros").unwrap();
    header.set_cksum();
    zeros.extend(header.as_bytes());
    zeros.extend(&bomb);
    let mut named = Header::new_gnu();
    named.set_size(200 << 20);
    named.set_entry_type(EntryType::GNULongName);
    named.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
    named.set_cksum();
    let mut named = named.as_bytes().to_vec();
    named.resize(512 + (200 << 20), b'n');
    for (name, bytes, expected) in [
        ("named.tar.gz", piped("gzip", &named), "names or attributes of more than"),
        ("named.tar.zst", piped("zstd", &named), "names or attributes of more than"),
        ("cut.tar", whole[..30_000].to_vec(), "is cut off"),
        (
            "cut.tar.gz",
            {
                let packed = piped("gzip", &whole);
                packed[..packed.len() - 2000].to_vec()
            },
            "can't be",
        ),
        (
            "cut.tar.zst",
            {
                let packed = piped("zstd", &whole);
                packed[..packed.len() - 2000].to_vec()
            },
            "can't be",
        ),
        ("bomb.tar.gz", piped("gzip", &zeros), "unpacks to more than 200 times"),
        ("bomb.tar.zst", piped("zstd", &zeros), "unpacks to more than 200 times"),
        ("bomb.tar.bz2", bzipped(&zeros), "unpacks to more than 200 times"),
        (
            "cut.tar.bz2",
            {
                let packed = bzipped(&whole);
                packed[..packed.len() - 2000].to_vec()
            },
            "can't be",
        ),
    ] {
        kitchen.put(&format!("web/{name}"), &bytes, 0o644);
        let refused = kitchen.refused(&format!("FROM os\nADD {name} /x\n"));
        assert!(refused.contains(expected), "{name}: {refused}");
    }
}
