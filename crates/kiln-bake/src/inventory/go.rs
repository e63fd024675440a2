//! Go modules: the build information that the linker writes into every program.
//!
//! Source: Go's `debug/buildinfo` and `runtime/debug`, the form since Go 1.18.

use kiln_store::TreePath;

use super::package::{Ecosystem, Package};
use super::purl::purl;
use super::scan::Scan;

const MAGIC: &[u8] = b"\xff Go buildinf:";

/// The bit that says that the texts stand in the section itself.
const INLINE: u8 = 2;

/// Where they begin then.
const TEXTS_AT: usize = 32;

/// What stands around the list of modules, so that it is found in a core dump.
const SENTINEL_BYTES: usize = 16;

/// Reads the section.
pub(super) fn read_list(scan: &mut Scan<'_>, path: &TreePath, section: &[u8]) {
    match modules(section) {
        Ok(packages) => packages.into_iter().for_each(|package| scan.add(path, package)),
        Err(reason) => scan.omit(path, reason),
    }
}

fn modules(section: &[u8]) -> Result<Vec<Package>, &'static str> {
    if section.len() < TEXTS_AT || !section.starts_with(MAGIC) {
        return Err("its Go build information can't be read");
    }
    if section[MAGIC.len() + 1] & INLINE == 0 {
        return Err("it was built by a Go before 1.18, whose list of modules is not read");
    }
    let broken = "its Go build information ends too soon";
    let (version, rest) = text(&section[TEXTS_AT..]).ok_or(broken)?;
    let (list, _) = text(rest).ok_or(broken)?;
    let mut packages = Vec::new();
    let version = std::str::from_utf8(version).ok().and_then(|version| version.strip_prefix("go"));
    // The rest of it names experiments: `go1.22.1 X:boringcrypto`.
    if let Some(version) = version.and_then(|version| version.split(' ').next()) {
        packages.push(module("stdlib", version, true));
    }
    // A program without modules, such as one of a single file, has no list.
    let within = list.len().checked_sub(2 * SENTINEL_BYTES).filter(|length| *length > 0);
    let list = within.map_or(&[][..], |length| &list[SENTINEL_BYTES..SENTINEL_BYTES + length]);
    for line in String::from_utf8_lossy(list).lines() {
        match line.split('\t').collect::<Vec<_>>()[..] {
            ["mod" | "dep", name, version, ..] => packages.push(module(name, version, true)),
            // What stands before it was built from this instead; a folder has no version and no public name.
            ["=>", name, version, ..] => {
                if let Some(replaced) = packages.pop() {
                    let is_public = version.starts_with('v');
                    let kept = || module(&replaced.name, &replaced.version, false);
                    packages.push(if is_public { module(name, version, true) } else { kept() });
                }
            }
            _ => {}
        }
    }
    Ok(packages)
}

fn module(name: &str, version: &str, is_public: bool) -> Package {
    let is_devel = version == "(devel)";
    let lower = name.to_ascii_lowercase();
    let (namespace, last) = lower.rsplit_once('/').unwrap_or(("", &lower));
    let namespace = if name == "stdlib" { "" } else { namespace };
    let url = (is_public && !is_devel).then(|| purl("golang", namespace, last, version, &[]));
    Package::new(Ecosystem::Go, name, if is_devel { "" } else { version }, url)
}

/// Splits off a text behind its length, a varint.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(9) {
        length |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let length = usize::try_from(length).ok()?;
            return bytes[index + 1..].split_at_checked(length);
        }
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The section of a program with this list.
    pub(crate) fn section(version: &str, list: &str) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([8, INLINE]);
        bytes.resize(TEXTS_AT, 0);
        let varint = |mut length: usize| {
            let mut bytes = Vec::new();
            while length >= 0x80 {
                bytes.push(length as u8 | 0x80);
                length >>= 7;
            }
            bytes.push(length as u8);
            bytes
        };
        bytes.extend(varint(version.len()));
        bytes.extend(version.as_bytes());
        let list = [&[b'<'; SENTINEL_BYTES][..], list.as_bytes(), &[b'>'; SENTINEL_BYTES]].concat();
        bytes.extend(varint(list.len()));
        bytes.extend(list);
        bytes
    }

    const LIST: &str = "path\tcommand-line\nmod\tgithub.com/Me/app\t(devel)\t\ndep\tgolang.org/x/net\tv0.1.0\th1:x=\n\
                        dep\tgithub.com/a/b\tv1.0.0\n=>\tgithub.com/c/b\tv1.0.1\th1:y=\ndep\texample.org/l\tv0.0.0\n=>\t./l\t(devel)\t\n\
                        build\t-compiler=gc\n";

    #[test]
    fn modules_and_what_replaced_them_are_read() {
        let found: Vec<_> = modules(&section("go1.22.1 X:boring", LIST))
            .unwrap()
            .into_iter()
            .map(|package| (package.name, package.version, package.purl.unwrap_or_default()))
            .collect();
        let expected = [
            ("stdlib", "1.22.1", "pkg:golang/stdlib@1.22.1"),
            ("github.com/Me/app", "", ""),
            ("golang.org/x/net", "v0.1.0", "pkg:golang/golang.org/x/net@v0.1.0"),
            ("github.com/c/b", "v1.0.1", "pkg:golang/github.com/c/b@v1.0.1"),
            ("example.org/l", "v0.0.0", ""),
        ];
        assert_eq!(found, expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
        assert!(modules(b"\xff Go buildinf:\x08\x00").is_err());
        let mut old = section("go1.17", "");
        old[15] = 0;
        assert!(modules(&old).unwrap_err().contains("before 1.18"));
    }

    proptest! {
        #[test]
        fn any_section_gives_an_answer(rest in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = section("", "")[..TEXTS_AT].to_vec();
            bytes.extend(rest);
            let _ = modules(&bytes);
        }
    }
}
