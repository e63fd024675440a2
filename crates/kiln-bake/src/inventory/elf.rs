//! Programs that carry the list of what they were built from: a section that Go or `cargo auditable` wrote.
//!
//! Source: the System V ABI's chapter on object files.

use std::fs::File;
use std::io;

use kiln_store::{ReadError, TreePath};

use super::bytes::Bytes;
use super::scan::Scan;
use super::{cargo, go};

/// Neither a Go program nor a Rust one with its list is smaller.
pub(super) const SMALLEST_BYTES: u64 = 4096;

/// The field that counts sections has 16 bits, of which the highest numbers are reserved.
const SECTIONS_MAX: usize = 0xff00;

/// Thousands of sections, as one per function gives, have names of tens of bytes each.
const NAMES_BYTES_MAX: u64 = 4 << 20;

/// The list of a program with a thousand modules has 100 KB.
const LIST_BYTES_MAX: u64 = 16 << 20;

/// One section of an object file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Section {
    name: u32,
    offset: u64,
    size: u64,
}

/// How its numbers are written.
#[derive(Clone, Copy)]
struct Layout {
    is_64: bool,
    is_big: bool,
}

/// Reads a program's own list, where it has one.
pub(super) fn read(scan: &mut Scan<'_>, path: &TreePath) -> Result<(), ReadError> {
    let Some(file) = scan.open(path)? else { return Ok(()) };
    let failed = |source: io::Error| ReadError::Io { path: path.to_string().into(), source };
    let lists = lists(&file).map_err(failed)?;
    if lists.is_empty() || !scan.is_new_program(path) {
        return Ok(());
    }
    // Only what is used is verified: hashing every program of an image would take most of the time.
    scan.verify(path)?;
    for (kind, list) in lists {
        match (kind, list) {
            (_, None) => scan.omit(path, "its list of modules is too long or beyond its end"),
            (List::Go, Some(bytes)) => go::read_list(scan, path, &bytes),
            (List::Cargo, Some(bytes)) => cargo::read_list(scan, path, &bytes),
        }
    }
    Ok(())
}

/// Who wrote a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    Go,
    Cargo,
}

/// Returns the lists that a file has; none for a list that can't be read. What is no ELF file has no list.
fn lists(file: &File) -> io::Result<Vec<(List, Option<Vec<u8>>)>> {
    let Some((sections, names)) = sections(file)? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for section in &sections {
        let name = names.get(section.name as usize..).unwrap_or_default();
        let list = match name.split(|byte| *byte == 0).next().unwrap_or_default() {
            b".go.buildinfo" => List::Go,
            b".dep-v0" => List::Cargo,
            _ => continue,
        };
        let bytes = match section.size <= LIST_BYTES_MAX {
            true => file.slice(section.offset, section.size as usize)?,
            false => None,
        };
        found.push((list, bytes));
        // One of each is what compilers write; a file that claims thousands wants to be read thousands of times.
        if found.len() == 2 {
            break;
        }
    }
    Ok(found)
}

/// Reads the table of sections and the table of their names; none where it is no ELF file, or a broken one.
fn sections(file: &impl Bytes) -> io::Result<Option<(Vec<Section>, Vec<u8>)>> {
    let Some(header) = file.slice(0, 64)? else { return Ok(None) };
    if !header.starts_with(b"\x7fELF") {
        return Ok(None);
    }
    let layout = match (header[4], header[5]) {
        (1, 1) => Layout { is_64: false, is_big: false },
        (1, 2) => Layout { is_64: false, is_big: true },
        (2, 1) => Layout { is_64: true, is_big: false },
        (2, 2) => Layout { is_64: true, is_big: true },
        _ => return Ok(None),
    };
    let (table, counts) =
        if layout.is_64 { (layout.word(&header, 40), 58) } else { (layout.half(&header, 32), 46) };
    let entry_bytes = usize::from(layout.short(&header, counts));
    let count = usize::from(layout.short(&header, counts + 2));
    let names = usize::from(layout.short(&header, counts + 4));
    let expected = if layout.is_64 { 64 } else { 40 };
    if entry_bytes != expected || count == 0 || count > SECTIONS_MAX || names >= count {
        return Ok(None);
    }
    let Some(table) = file.slice(table, count * entry_bytes)? else { return Ok(None) };
    let sections: Vec<Section> = table.chunks_exact(entry_bytes).map(|entry| layout.section(entry)).collect();
    let Section { offset, size, .. } = sections[names];
    let names = if size > NAMES_BYTES_MAX { None } else { file.slice(offset, size as usize)? };
    Ok(names.map(|names| (sections, names)))
}

impl Layout {
    fn section(self, entry: &[u8]) -> Section {
        let name = self.half(entry, 0) as u32;
        match self.is_64 {
            true => Section { name, offset: self.word(entry, 24), size: self.word(entry, 32) },
            false => Section { name, offset: self.half(entry, 16), size: self.half(entry, 20) },
        }
    }

    fn short(self, bytes: &[u8], at: usize) -> u16 {
        let two = [bytes[at], bytes[at + 1]];
        if self.is_big { u16::from_be_bytes(two) } else { u16::from_le_bytes(two) }
    }

    fn half(self, bytes: &[u8], at: usize) -> u64 {
        let four = bytes[at..at + 4].try_into().expect("four bytes were taken");
        u64::from(if self.is_big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) })
    }

    fn word(self, bytes: &[u8], at: usize) -> u64 {
        let eight = bytes[at..at + 8].try_into().expect("eight bytes were taken");
        if self.is_big { u64::from_be_bytes(eight) } else { u64::from_le_bytes(eight) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::super::tests::elf;
    use super::*;

    fn lists_of(bytes: &[u8]) -> Vec<(List, Option<Vec<u8>>)> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        lists(&file).unwrap()
    }

    #[test]
    fn a_list_is_found_by_its_sections_name() {
        let found = lists_of(&elf(&[(".text", b"x"), (".dep-v0", b"list"), (".go.buildinfo", b"other")]));
        assert_eq!(found, [(List::Cargo, Some(b"list".to_vec())), (List::Go, Some(b"other".to_vec()))]);
        assert_eq!(lists_of(&elf(&[(".text", b"x")])), []);
        assert_eq!(lists_of(b"#!/bin/sh\n"), []);
    }

    #[test]
    fn a_list_beyond_the_files_end_is_none() {
        let mut bytes = elf(&[(".dep-v0", b"list")]);
        // The size of the one section that has a list: the entry after the empty first one.
        let table = u64::from_le_bytes(bytes[40..48].try_into().unwrap()) as usize;
        for size in [u64::MAX, 1 << 40, LIST_BYTES_MAX, LIST_BYTES_MAX + 1] {
            bytes[table + 64 + 32..][..8].copy_from_slice(&size.to_le_bytes());
            assert_eq!(lists_of(&bytes), [(List::Cargo, None)], "{size}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(mut bytes in prop::collection::vec(any::<u8>(), 64..400), class in 1..=2_u8, order in 1..=2_u8) {
            bytes[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, order]);
            lists_of(&bytes);
        }

        #[test]
        fn a_damaged_program_gives_an_answer(at in 0..700_usize, byte: u8) {
            let mut bytes = elf(&[(".dep-v0", b"list"), (".go.buildinfo", b"other")]);
            let at = at % bytes.len();
            bytes[at] = byte;
            lists_of(&bytes);
        }
    }
}
