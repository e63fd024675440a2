//! Rust crates: the list that `cargo auditable` puts into programs, and lock files.
//!
//! Source: the `cargo-auditable` project's format description, and Cargo's book on `Cargo.lock`.

use std::io::Read;

use kiln_store::{ReadError, TreePath};
use serde::Deserialize;

use super::package::{Ecosystem, Package};
use super::purl::purl;
use super::scan::Scan;

/// The limit that the format's own readers have.
const LIST_BYTES_MAX: u64 = 8 << 20;

/// The locks of the largest workspaces have half a megabyte.
const LOCK_BYTES_MAX: u64 = 16 << 20;

/// How a lock names the registry of crates.io.
const REGISTRIES: [&str; 2] =
    ["registry+https://github.com/rust-lang/crates.io-index", "sparse+https://index.crates.io/"];

#[derive(Deserialize)]
struct List {
    packages: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    version: String,
    source: String,
    kind: Option<String>,
}

/// Reads the section of a program: JSON, compressed by zlib.
pub(super) fn read_list(scan: &mut Scan<'_>, path: &TreePath, section: &[u8]) {
    match list(section) {
        Ok(packages) => packages.into_iter().for_each(|package| scan.add(path, package)),
        Err(reason) => scan.omit(path, reason),
    }
}

fn list(section: &[u8]) -> Result<Vec<Package>, &'static str> {
    let mut json = Vec::new();
    let mut inflated = flate2::read::ZlibDecoder::new(section).take(LIST_BYTES_MAX + 1);
    inflated.read_to_end(&mut json).map_err(|_| "its list of crates can't be decompressed")?;
    if json.len() as u64 > LIST_BYTES_MAX {
        return Err("its list of crates is too long");
    }
    let list: List = serde_json::from_slice(&json).map_err(|_| "its list of crates can't be read")?;
    // What was needed only to build it is not in it.
    let built_in = list.packages.into_iter().filter(|listed| listed.kind.as_deref() != Some("build"));
    Ok(built_in
        .map(|Listed { name, version, source, .. }| package(&name, &version, source == "crates.io"))
        .collect())
}

/// Reads a `Cargo.lock`: what Cargo writes, a line for each field.
pub(super) fn read_lock(scan: &mut Scan<'_>, path: &TreePath) -> Result<(), ReadError> {
    let Some(bytes) = scan.read(path, LOCK_BYTES_MAX)? else { return Ok(()) };
    let text = String::from_utf8_lossy(&bytes);
    let packages = locked(&text);
    if packages.is_empty() {
        scan.omit(path, "it names no crates");
    }
    packages.into_iter().for_each(|package| scan.add(path, package));
    Ok(())
}

fn locked(text: &str) -> Vec<Package> {
    let blocks = text.split("[[package]]").skip(1);
    let crates = blocks.filter_map(|block| {
        // The next table of another kind ends the block.
        let lines = || block.lines().take_while(|line| !line.starts_with('['));
        let field = |name: &str| {
            lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"'))
        };
        // A crate of the workspace has no source, and no public name.
        let is_public = field("source").is_some_and(|source| REGISTRIES.contains(&source));
        Some(package(field("name")?, field("version")?, is_public))
    });
    crates.collect()
}

fn package(name: &str, version: &str, is_public: bool) -> Package {
    let url = is_public.then(|| purl("cargo", "", name, version, &[]));
    Package::new(Ecosystem::Cargo, name, version, url)
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    /// Compresses a list as `cargo auditable` does.
    pub(crate) fn section(json: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(json).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_programs_list_has_what_is_built_in_and_a_bomb_is_refused() {
        let json = br#"{"packages":[{"name":"serde","version":"1.0.1","source":"crates.io"},
            {"name":"cc","version":"1.0.0","source":"crates.io","kind":"build"},{"name":"app","version":"0.1.0","source":"local","root":true}]}"#;
        let found = list(&section(json)).unwrap();
        let urls: Vec<_> =
            found.iter().map(|package| (package.name.as_str(), package.purl.as_deref())).collect();
        assert_eq!(urls, [("serde", Some("pkg:cargo/serde@1.0.1")), ("app", None)]);
        let bomb = section(&vec![b' '; LIST_BYTES_MAX as usize + 1]);
        assert!(bomb.len() < 100_000);
        assert_eq!(list(&bomb), Err("its list of crates is too long"));
        assert!(list(b"not zlib").is_err());
        assert!(list(&section("[".repeat(100_000).as_bytes())).is_err());
    }

    #[test]
    fn a_lock_is_read_block_by_block() {
        let text = "version = 4\n\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\ndependencies = [\n \"libc\",\n]\n\n\
                    [[package]]\nname = \"libc\"\nversion = \"0.2.1\"\n\
                    source = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = \"00\"\n\n\
                    [metadata]\nname = \"no crate\"\n\n[[package]]\nname = \"half\"\n[other]\nversion = \"1\"\n";
        let found = locked(text);
        let names: Vec<_> =
            found.iter().map(|package| (package.name.as_str(), package.purl.is_some())).collect();
        assert_eq!(names, [("app", false), ("libc", true)]);
        assert_eq!(locked("garbage [[package]] = \n\"\""), []);
    }

    proptest! {
        #[test]
        fn any_section_gives_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200), json: bool) {
            let _ = list(&if json { section(&bytes) } else { bytes });
        }
    }
}
