//! Zip archives, as far as jars and databases need them: the list of members, and single ones.
//!
//! Source: PKWARE's APPNOTE 6.3, with zip64, without encryption and methods other than stored and deflated.

use std::io::{self, Read};

use super::bytes::Bytes;

/// The end record stands behind at most a comment, whose length has 16 bits.
const END_BYTES: usize = 22;
const END_BYTES_MAX: usize = END_BYTES + 0xffff;

/// The list of a jar's members: their names and extras have some tens of bytes each, and few jars have 65,535.
pub(crate) const JAR_DIRECTORY_BYTES_MAX: u64 = 32 << 20;

const END_MAGIC: &[u8] = b"PK\x05\x06";
const MEMBER_MAGIC: &[u8] = b"PK\x01\x02";
const LOCAL_MAGIC: &[u8] = b"PK\x03\x04";

/// The end record of zip64 (4.3.14), what says where it is (4.3.15), and what of a member is in its extra field (4.5.3).
const END64_MAGIC: &[u8] = b"PK\x06\x06";
const END64_BYTES: usize = 56;
const LOCATOR_MAGIC: &[u8] = b"PK\x06\x07";
const LOCATOR_BYTES: usize = 20;
const EXTRA64: u16 = 1;

/// What a size or an offset is where the real one stands in a zip64 record.
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
    packed: u64,
    at: u64,
}

/// Where the list of members is.
struct End {
    /// Where the record begins that says so.
    at: u64,
    count: u64,
    /// In bytes.
    size: u64,
    /// From where the archive begins.
    offset: u64,
}

/// Lists the members of an archive, whose list may have so many bytes.
pub(crate) fn members(
    archive: &(impl Bytes + ?Sized),
    directory_bytes_max: u64,
) -> Result<Vec<Member>, ArchiveError> {
    let broken = || ArchiveError::Refused("it is no zip archive, or a broken one");
    let end = end(archive)?.ok_or_else(broken)?;
    // A program may stand before the archive: offsets are counted from where the archive begins.
    let directory_at = end.at.checked_sub(end.size).ok_or_else(broken)?;
    let start = directory_at.checked_sub(end.offset).ok_or_else(broken)?;
    if end.size > directory_bytes_max {
        return Err(ArchiveError::Refused("its list of members is too long"));
    }
    let directory = archive.slice(directory_at, end.size as usize)?.ok_or_else(broken)?;
    let mut members = Vec::new();
    let mut rest = &directory[..];
    // Each takes bytes of the list, so a count that lies ends with them.
    for _ in 0..end.count {
        let (member, after) = member(rest, start).ok_or_else(broken)?;
        members.push(member);
        rest = after;
    }
    Ok(members)
}

fn end(archive: &(impl Bytes + ?Sized)) -> Result<Option<End>, ArchiveError> {
    let length = archive.len()?;
    let tail_bytes = length.min(END_BYTES_MAX as u64);
    let tail_at = length - tail_bytes;
    let Some(tail) = archive.slice(tail_at, tail_bytes as usize)? else { return Ok(None) };
    let Some(end) = tail.windows(END_MAGIC.len()).rposition(|window| window == END_MAGIC) else {
        return Ok(None);
    };
    let record = &tail[end..];
    if record.len() < END_BYTES {
        return Ok(None);
    }
    let (at, count) = (tail_at + end as u64, short(record, 10));
    let (size, offset) = (long(record, 12), long(record, 16));
    if (count == u16::MAX || size == ZIP64 || offset == ZIP64)
        && let Some(end) = end64(archive, at)?
    {
        return Ok(Some(end));
    }
    Ok(Some(End { at, count: count.into(), size: size.into(), offset: offset.into() }))
}

/// Returns what the record of zip64 before an end record says, if there is one.
fn end64(archive: &(impl Bytes + ?Sized), end_at: u64) -> Result<Option<End>, ArchiveError> {
    let Some(locator_at) = end_at.checked_sub(LOCATOR_BYTES as u64) else { return Ok(None) };
    let Some(locator) = archive.slice(locator_at, LOCATOR_BYTES)? else { return Ok(None) };
    if !locator.starts_with(LOCATOR_MAGIC) {
        return Ok(None);
    }
    // Right before, where nobody has extended it, also behind a program; else where the locator says.
    let before = locator_at.checked_sub(END64_BYTES as u64);
    for at in before.into_iter().chain([quad(&locator, 8)]) {
        let Some(record) = archive.slice(at, END64_BYTES)? else { continue };
        if record.starts_with(END64_MAGIC) {
            let (count, size, offset) = (quad(&record, 32), quad(&record, 40), quad(&record, 48));
            return Ok(Some(End { at, count, size, offset }));
        }
    }
    Ok(None)
}

fn member(bytes: &[u8], start: u64) -> Option<(Member, &[u8])> {
    let (fixed, rest) = bytes.split_at_checked(46)?;
    if !fixed.starts_with(MEMBER_MAGIC) {
        return None;
    }
    let [name, extra, comment] = [28, 30, 32].map(|at| usize::from(short(fixed, at)));
    let (name, rest) = rest.split_at_checked(name)?;
    let (extra, rest) = rest.split_at_checked(extra)?;
    let rest = rest.get(comment..)?;
    let mut large = extra64(extra);
    // What is too large for its field, and nothing else, stands in the extra field, in this order.
    let mut real = |at: usize| match long(fixed, at) {
        ZIP64 => {
            let (value, after) = large.split_at_checked(8)?;
            large = after;
            Some(quad(value, 0))
        }
        value => Some(value.into()),
    };
    let (_unpacked, packed, offset) = (real(24)?, real(20)?, real(42)?);
    let at = start.checked_add(offset)?;
    Some((Member { name: name.to_vec(), method: short(fixed, 10), packed, at }, rest))
}

/// Finds the extra field of zip64; empty where there is none.
fn extra64(mut extra: &[u8]) -> &[u8] {
    while let Some((head, rest)) = extra.split_at_checked(4) {
        let Some((body, after)) = rest.split_at_checked(short(head, 2).into()) else { break };
        if short(head, 0) == EXTRA64 {
            return body;
        }
        extra = after;
    }
    &[]
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
    if member.packed > limit {
        return Err(ArchiveError::Refused("a member of it is too large"));
    }
    let head = 30 + u64::from(short(&local, 26)) + u64::from(short(&local, 28));
    let at = member.at.checked_add(head).ok_or_else(broken)?;
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

fn quad(bytes: &[u8], at: usize) -> u64 {
    u64::from(long(bytes, at)) | u64::from(long(bytes, at + 4)) << 32
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    /// Writes an archive; a member is deflated where it is said so.
    pub(crate) fn zip(files: &[(&str, &[u8], bool)]) -> Vec<u8> {
        write(files, false)
    }

    /// The same with every number that can stand there in records of zip64.
    pub(crate) fn zip64(files: &[(&str, &[u8], bool)]) -> Vec<u8> {
        write(files, true)
    }

    fn write(files: &[(&str, &[u8], bool)], is_large: bool) -> Vec<u8> {
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
            let mut extra = Vec::new();
            let mut offset = at.to_le_bytes();
            if is_large {
                let (size, packed) = (content.len() as u64, packed.len() as u64);
                fields[14..22].fill(0xff);
                offset.fill(0xff);
                // Another extra field before it, as of times.
                extra.extend([0x55, 0x54, 2, 0, 7, 7, 1, 0, 24, 0]);
                extra.extend([size, packed, u64::from(at)].map(u64::to_le_bytes).concat());
                fields[24] = extra.len() as u8;
            }
            directory.extend(
                [MEMBER_MAGIC, &[20, 0], &fields, &[0; 10], &offset, name.as_bytes(), &extra].concat(),
            );
        }
        let (size, at, count) = (directory.len() as u32, bytes.len() as u32, files.len() as u16);
        bytes.extend(directory);
        if is_large {
            let end_at = bytes.len() as u64;
            let quads = |numbers: &[u64]| -> Vec<u8> {
                numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
            };
            let count = files.len() as u64;
            bytes.extend([END64_MAGIC, &quads(&[44]), &[45, 0, 45, 0], &[0; 8]].concat());
            bytes.extend(quads(&[count, count, size.into(), at.into()]));
            bytes.extend([LOCATOR_MAGIC, &[0; 4], &quads(&[end_at]), &[1, 0, 0, 0]].concat());
            bytes.extend([END_MAGIC, &[0; 4], &[0xff; 12], &[0; 2]].concat());
            return bytes;
        }
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
        for member in members(archive, 1 << 20)? {
            found.push((String::from_utf8_lossy(&member.name).into_owned(), read(archive, &member, limit)?));
        }
        Ok(found)
    }

    #[test]
    fn stored_and_deflated_members_read_back_also_behind_a_program_and_with_zip64() {
        let expected =
            vec![("a".to_owned(), b"stored".to_vec()), ("b/c".to_owned(), b"deflated deflated".to_vec())];
        let files: [(&str, &[u8], bool); 2] = [("a", b"stored", false), ("b/c", b"deflated deflated", true)];
        for archive in [zip(&files), zip64(&files)] {
            assert_eq!(read_all(&archive, 100).unwrap(), expected);
            let runnable = [b"#!/bin/sh\nexec java -jar $0\n", &archive[..]].concat();
            assert_eq!(read_all(&runnable, 100).unwrap(), expected);
            assert!(matches!(members(&archive[..], 90), Err(ArchiveError::Refused(_))), "its list is longer");
        }
    }

    #[test]
    fn numbers_of_zip64_that_lie_or_are_missing_give_an_answer() {
        let archive = zip64(&[("a", b"stored", false)]);
        let end = archive.len() - END_BYTES - LOCATOR_BYTES - END64_BYTES;
        // The count, the size and the offset of the list, beyond anything.
        for (at, is_refused) in [(32, true), (40, true), (48, true), (24, false)] {
            let mut archive = archive.clone();
            archive[end + at..end + at + 8].fill(0xff);
            assert_eq!(read_all(&archive, 100).is_err(), is_refused, "{at}");
        }
        // A member whose sizes are said to be in a field that is not there.
        let mut archive = archive.clone();
        let extra = archive.windows(4).rposition(|window| window == [1, 0, 24, 0]).unwrap();
        archive[extra] = 2;
        assert!(read_all(&archive, 100).is_err());
    }

    #[test]
    fn a_bomb_ends_at_the_limit_and_a_cut_archive_is_broken() {
        let archive = zip(&[("a", &vec![0; 1 << 20], true)]);
        assert!(archive.len() < 100_000);
        assert!(matches!(
            read_all(&archive, 1000),
            Err(ArchiveError::Refused("a member of it is too large"))
        ));
        let files: [(&str, &[u8], bool); 2] = [("a", b"stored", false), ("b/c", b"deflated deflated", true)];
        for archive in [zip(&files), zip64(&files)] {
            for end in 0..archive.len() {
                assert!(read_all(&archive[..end], 1 << 20).is_err(), "{end}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_damaged_archive_gives_an_answer(at in 0..400_usize, byte: u8, is_large: bool) {
            let mut archive =
                write(&[("a", b"stored", false), ("b/c", b"deflated deflated", true)], is_large);
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
