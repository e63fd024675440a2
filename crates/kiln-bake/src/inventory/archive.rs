//! Zip archives, as far as jars need them: the list of members, and single ones.
//!
//! Source: PKWARE's APPNOTE 6.3, without zip64, encryption and methods other than stored and deflated.

use std::io::{self, Read};

use super::bytes::Bytes;

/// The end record stands behind at most a comment, whose length has 16 bits.
const END_BYTES: usize = 22;
const END_BYTES_MAX: usize = END_BYTES + 0xffff;

/// The count of members has 16 bits; their names and extras have some tens of bytes each.
const DIRECTORY_BYTES_MAX: u64 = 32 << 20;

const END_MAGIC: &[u8] = b"PK\x05\x06";
const MEMBER_MAGIC: &[u8] = b"PK\x01\x02";
const LOCAL_MAGIC: &[u8] = b"PK\x03\x04";

/// What a count or an offset is where the real one stands in a zip64 record.
const ZIP64: u32 = u32::MAX;

/// A zip archive that can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// It is broken, or of a kind that is not read.
    #[error("{0}")]
    Refused(&'static str),
    /// Its bytes can't be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: Vec<u8>,
    method: u16,
    packed: u32,
    at: u64,
}

/// Lists the members of an archive.
pub(crate) fn members(archive: &(impl Bytes + ?Sized)) -> Result<Vec<Member>, ArchiveError> {
    let length = archive.len()?;
    let tail_bytes = length.min(END_BYTES_MAX as u64);
    let tail_at = length - tail_bytes;
    let broken = ArchiveError::Refused("it is no zip archive, or a broken one");
    let Some(tail) = archive.slice(tail_at, tail_bytes as usize)? else { return Err(broken) };
    let Some(end) = tail.windows(END_MAGIC.len()).rposition(|window| window == END_MAGIC) else {
        return Err(broken);
    };
    let record = &tail[end..];
    if record.len() < END_BYTES {
        return Err(broken);
    }
    let (count, size, offset) = (short(record, 10), long(record, 12), long(record, 16));
    if count == u16::MAX || size == ZIP64 || offset == ZIP64 {
        return Err(ArchiveError::Refused("it is a zip64 archive, which is not read"));
    }
    // A program may stand before the archive: offsets are counted from where the archive begins.
    let directory_at = (tail_at + end as u64).checked_sub(u64::from(size));
    let start = directory_at.and_then(|at| at.checked_sub(u64::from(offset)));
    let (Some(directory_at), Some(start)) = (directory_at, start) else { return Err(broken) };
    if u64::from(size) > DIRECTORY_BYTES_MAX {
        return Err(ArchiveError::Refused("its list of members is too long"));
    }
    let Some(directory) = archive.slice(directory_at, size as usize)? else { return Err(broken) };
    let mut members = Vec::new();
    let mut rest = &directory[..];
    for _ in 0..count {
        let Some((member, after)) = member(rest, start) else { return Err(broken) };
        members.push(member);
        rest = after;
    }
    Ok(members)
}

fn member(bytes: &[u8], start: u64) -> Option<(Member, &[u8])> {
    let (fixed, rest) = bytes.split_at_checked(46)?;
    if !fixed.starts_with(MEMBER_MAGIC) {
        return None;
    }
    let [name, extra, comment] = [28, 30, 32].map(|at| usize::from(short(fixed, at)));
    let (name, rest) = rest.split_at_checked(name)?;
    let rest = rest.get(extra + comment..)?;
    let at = start.checked_add(u64::from(long(fixed, 42)))?;
    Some((Member { name: name.to_vec(), method: short(fixed, 10), packed: long(fixed, 20), at }, rest))
}

/// Reads a member of `limit` bytes at most; what the list says of its size is not believed.
pub(crate) fn read(
    archive: &(impl Bytes + ?Sized),
    member: &Member,
    limit: u64,
) -> Result<Vec<u8>, ArchiveError> {
    let broken = || ArchiveError::Refused("a member of it is broken");
    let local = archive.slice(member.at, 30)?.ok_or_else(broken)?;
    if !local.starts_with(LOCAL_MAGIC) {
        return Err(broken());
    }
    if u64::from(member.packed) > limit {
        return Err(ArchiveError::Refused("a member of it is too large"));
    }
    let at = member.at + 30 + u64::from(short(&local, 26)) + u64::from(short(&local, 28));
    let packed = archive.slice(at, member.packed as usize)?.ok_or_else(broken)?;
    match member.method {
        0 => Ok(packed),
        8 => {
            let mut bytes = Vec::new();
            let mut inflated = flate2::read::DeflateDecoder::new(&packed[..]).take(limit + 1);
            inflated.read_to_end(&mut bytes).map_err(|_| broken())?;
            if bytes.len() as u64 > limit {
                return Err(ArchiveError::Refused("a member of it is too large"));
            }
            Ok(bytes)
        }
        _ => Err(ArchiveError::Refused("a member of it is compressed in a way that is not read")),
    }
}

fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    /// Writes an archive; a member is deflated where it is said so.
    pub(crate) fn zip(files: &[(&str, &[u8], bool)]) -> Vec<u8> {
        let (mut bytes, mut directory) = (Vec::new(), Vec::new());
        for (name, content, deflated) in files {
            let at = bytes.len() as u32;
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(content).unwrap();
            let packed = if *deflated { encoder.finish().unwrap() } else { content.to_vec() };
            let method: u16 = if *deflated { 8 } else { 0 };
            let mut fields = vec![20, 0, 0, 0];
            fields.extend(method.to_le_bytes());
            fields.extend([0; 8]);
            fields.extend((packed.len() as u32).to_le_bytes());
            fields.extend((content.len() as u32).to_le_bytes());
            fields.extend((name.len() as u16).to_le_bytes());
            fields.extend([0, 0]);
            bytes.extend([LOCAL_MAGIC, &fields, name.as_bytes(), &packed].concat());
            directory.extend(
                [MEMBER_MAGIC, &[20, 0], &fields, &[0; 10], &at.to_le_bytes(), name.as_bytes()].concat(),
            );
        }
        let (size, at, count) = (directory.len() as u32, bytes.len() as u32, files.len() as u16);
        bytes.extend(directory);
        bytes.extend(
            [
                END_MAGIC,
                &[0; 4],
                &count.to_le_bytes(),
                &count.to_le_bytes(),
                &size.to_le_bytes(),
                &at.to_le_bytes(),
                &[0; 2],
            ]
            .concat(),
        );
        bytes
    }

    fn read_all(archive: &[u8], limit: u64) -> Result<Vec<(String, Vec<u8>)>, ArchiveError> {
        let mut found = Vec::new();
        for member in members(archive)? {
            found.push((String::from_utf8_lossy(&member.name).into_owned(), read(archive, &member, limit)?));
        }
        Ok(found)
    }

    #[test]
    fn stored_and_deflated_members_read_back_also_behind_a_program() {
        let archive = zip(&[("a", b"stored", false), ("b/c", b"deflated deflated", true)]);
        let expected =
            vec![("a".to_owned(), b"stored".to_vec()), ("b/c".to_owned(), b"deflated deflated".to_vec())];
        assert_eq!(read_all(&archive, 100).unwrap(), expected);
        let runnable = [b"#!/bin/sh\nexec java -jar $0\n", &archive[..]].concat();
        assert_eq!(read_all(&runnable, 100).unwrap(), expected);
    }

    #[test]
    fn a_bomb_ends_at_the_limit_and_a_cut_archive_is_broken() {
        let archive = zip(&[("a", &vec![0; 1 << 20], true)]);
        assert!(archive.len() < 100_000);
        assert!(matches!(
            read_all(&archive, 1000),
            Err(ArchiveError::Refused("a member of it is too large"))
        ));
        let archive = zip(&[("a", b"stored", false), ("b/c", b"deflated deflated", true)]);
        for end in 0..archive.len() {
            assert!(read_all(&archive[..end], 1 << 20).is_err(), "{end}");
        }
    }

    proptest! {
        #[test]
        fn a_damaged_archive_gives_an_answer(at in 0..250_usize, byte: u8) {
            let mut archive = zip(&[("a", b"stored", false), ("b/c", b"deflated deflated", true)]);
            let at = at % archive.len();
            archive[at] = byte;
            let _ = read_all(&archive, 100);
        }

        #[test]
        fn any_end_record_gives_an_answer(before in prop::collection::vec(any::<u8>(), 0..100), fields in prop::collection::vec(any::<u8>(), 18..40)) {
            let _ = read_all(&[&before, END_MAGIC, &fields].concat(), 100);
        }
    }
}
