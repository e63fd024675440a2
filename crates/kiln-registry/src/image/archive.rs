//! A tar that nobody vouches for, entry by entry.
//!
//! Source: POSIX pax(1), and GNU's long names. Own code, because what a header may ask for is bounded here before it is read:
//! a general reader takes the whole of an extended header into memory, however long that says that it is.

use std::collections::BTreeMap;
use std::io::{self, Read};

/// A name has 4 KB at most, and extended attributes 64 KB each.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;

const BLOCK: usize = 512;

/// An entry of a tar. Names and attributes are as the archive has them: nothing about them is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: u8,
    pub(super) mode: u64,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) size: u64,
    pub(super) mtime: (i64, u32),
    pub(super) device: (u64, u64),
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A tar can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Its source failed, or its compression is broken.
    #[error("it can't be read")]
    Read(#[source] io::Error),
    /// It is none, or is broken off.
    #[error("it is not a whole tar: {0}")]
    Malformed(&'static str),
}

/// Reads a tar from its beginning to its end.
pub(super) struct Archive<R> {
    reader: R,
    /// What is left of the last entry's content, and of its padding.
    content: u64,
    padding: u64,
    global: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl<R: Read> Archive<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, content: 0, padding: 0, global: BTreeMap::new() }
    }

    /// What it reads from.
    pub(super) const fn reader(&self) -> &R {
        &self.reader
    }

    /// Returns the next entry; its content is what this reads until the next call.
    pub(super) fn next(&mut self) -> Result<Option<Header>, ArchiveError> {
        let mut records = self.global.clone();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            self.skip()?;
            let Some(block) = self.block()? else { return Ok(None) };
            let mut header = parse(&block)?;
            self.content = header.size;
            match header.kind {
                b'L' => long_name = Some(self.extension()?),
                b'K' => long_link = Some(self.extension()?),
                b'x' => records.extend(pax(&self.extension()?)?),
                b'g' => {
                    let more = pax(&self.extension()?)?;
                    self.global.extend(more);
                    records.extend(self.global.clone());
                }
                _ => {
                    if let Some(name) = long_name {
                        header.path = name;
                    }
                    if let Some(link) = long_link {
                        header.link = link;
                    }
                    apply(&mut header, records)?;
                    // Only files have content; some writers give links the size of what they lead to.
                    let has_content = matches!(header.kind, b'0' | 0 | b'7');
                    self.content = if has_content { header.size } else { 0 };
                    self.padding = self.content.next_multiple_of(BLOCK as u64) - self.content;
                    return Ok(Some(header));
                }
            }
        }
    }

    /// Reads what follows the last entry, so that all of the archive was read.
    pub(super) fn finish(mut self) -> Result<R, ArchiveError> {
        self.skip()?;
        io::copy(&mut self.reader, &mut io::sink()).map_err(ArchiveError::Read)?;
        Ok(self.reader)
    }

    fn extension(&mut self) -> Result<Vec<u8>, ArchiveError> {
        if self.content > EXTENSION_BYTES_MAX {
            return Err(ArchiveError::Malformed("a name or attribute of it is too long"));
        }
        self.padding = self.content.next_multiple_of(BLOCK as u64) - self.content;
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(ArchiveError::Read)?;
        // GNU ends a long name with a NUL; one in a pax record is found where it is used.
        if bytes.last() == Some(&0) {
            bytes.pop();
        }
        Ok(bytes)
    }

    fn skip(&mut self) -> Result<(), ArchiveError> {
        let left = self.content + self.padding;
        let skipped = io::copy(&mut (&mut self.reader).take(left), &mut io::sink());
        (self.content, self.padding) = (0, 0);
        match skipped.map_err(ArchiveError::Read)? {
            count if count == left => Ok(()),
            _ => Err(ArchiveError::Malformed("it ends in the middle of a file")),
        }
    }

    /// Returns the next block; none at the end, which is a block of NULs, or nothing.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, ArchiveError> {
        let mut block = [0; BLOCK];
        let mut done = 0;
        while done < BLOCK {
            match self.reader.read(&mut block[done..]) {
                Ok(0) if done == 0 => return Ok(None),
                Ok(0) => return Err(ArchiveError::Malformed("it ends in the middle of a header")),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ArchiveError::Read(error)),
            }
        }
        Ok((block != [0; BLOCK]).then_some(block))
    }
}

impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.content).unwrap_or(usize::MAX).min(buffer.len());
        if left == 0 {
            return Ok(0);
        }
        let count = self.reader.read(&mut buffer[..left])?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends in the middle of a file"));
        }
        self.content -= count as u64;
        Ok(count)
    }
}

fn parse(block: &[u8; BLOCK]) -> Result<Header, ArchiveError> {
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    let own: u64 = block[148..156].iter().map(|byte| u64::from(*byte)).sum();
    // The checksum counts its own field as spaces.
    if number(&block[148..156])? != sum - own + 8 * u64::from(b' ') {
        return Err(ArchiveError::Malformed("a header's checksum is wrong"));
    }
    let mut path = text(&block[..100]).to_vec();
    let prefix = text(&block[345..500]);
    // GNU's old format has times where ustar has the prefix.
    if &block[257..263] == b"ustar\0" && !prefix.is_empty() {
        path = [prefix, b"/", &path].concat();
    }
    Ok(Header {
        path,
        link: text(&block[157..257]).to_vec(),
        kind: block[156],
        mode: number(&block[100..108])?,
        uid: number(&block[108..116])?,
        gid: number(&block[116..124])?,
        size: number(&block[124..136])?,
        mtime: (i64::try_from(number(&block[136..148])?).unwrap_or(0), 0),
        device: (number(&block[329..337])?, number(&block[337..345])?),
        xattrs: BTreeMap::new(),
    })
}

/// Up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Octal digits; or, where the first bit is set, a number in base 256, of which a negative one is taken for 0.
fn number(field: &[u8]) -> Result<u64, ArchiveError> {
    if field[0] & 0x80 != 0 {
        if field[0] & 0x40 != 0 {
            return Ok(0);
        }
        let (head, tail) = field.split_at(field.len() - 8);
        if head.iter().enumerate().any(|(at, byte)| byte & if at == 0 { 0x7f } else { 0xff } != 0) {
            return Err(ArchiveError::Malformed("a number in a header is too large"));
        }
        let mut bytes: [u8; 8] = tail.try_into().expect("eight bytes were split off");
        if head.is_empty() {
            bytes[0] &= 0x7f;
        }
        return Ok(u64::from_be_bytes(bytes));
    }
    let digits = text(field);
    let digits = digits.trim_ascii();
    digits.iter().try_fold(0_u64, |number, digit| match digit {
        b'0'..=b'7' => Ok(number << 3 | u64::from(digit - b'0')),
        _ => Err(ArchiveError::Malformed("a number in a header is not octal")),
    })
}

/// Reads `LENGTH KEY=VALUE\n`, again and again.
fn pax(mut bytes: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, ArchiveError> {
    let malformed = || ArchiveError::Malformed("an extended header of it is broken");
    let mut records = BTreeMap::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ').ok_or_else(malformed)?;
        let length: usize =
            str::from_utf8(&bytes[..space]).ok().and_then(|text| text.parse().ok()).ok_or_else(malformed)?;
        if length <= space + 1 || length > bytes.len() {
            return Err(malformed());
        }
        let record = bytes[space + 1..length].strip_suffix(b"\n").ok_or_else(malformed)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
        records.insert(record[..equals].to_vec(), record[equals + 1..].to_vec());
        bytes = &bytes[length..];
    }
    Ok(records)
}

fn apply(header: &mut Header, records: BTreeMap<Vec<u8>, Vec<u8>>) -> Result<(), ArchiveError> {
    let malformed = || ArchiveError::Malformed("a number in an extended header is none");
    let number = |value: &[u8]| -> Result<u64, ArchiveError> {
        str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or_else(malformed)
    };
    for (key, value) in records {
        match key.as_slice() {
            b"path" => header.path = value,
            b"linkpath" => header.link = value,
            b"size" => header.size = number(&value)?,
            b"uid" => header.uid = number(&value)?,
            b"gid" => header.gid = number(&value)?,
            b"mtime" => header.mtime = time(&value).ok_or_else(malformed)?,
            key if key.starts_with(b"GNU.sparse.") => {
                return Err(ArchiveError::Malformed("it holds a file with holes, which no image has"));
            }
            key => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    header.xattrs.insert(name.to_vec(), value);
                }
            }
        }
    }
    Ok(())
}

/// Reads `-12.345`; digits beyond nanoseconds are left out.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = str::from_utf8(value).ok()?;
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = part.chars().chain("000000000".chars()).take(9).collect();
    let (seconds, nanos): (i64, u32) = (whole.parse().ok()?, digits.parse().ok()?);
    // Seconds count downwards before 1970, nanoseconds always upwards.
    Some(match whole.starts_with('-') && nanos > 0 {
        true => (seconds.checked_sub(1)?, 1_000_000_000 - nanos),
        false => (seconds, nanos),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_to_the_nanosecond() {
        assert_eq!(time(b"12"), Some((12, 0)));
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"1.0000000019"), Some((1, 1)));
        for bad in [&b""[..], b"x", b"1.x", b"1.-5", b"-9223372036854775808.5"] {
            assert_eq!(time(bad), None);
        }
    }

    #[test]
    fn an_extended_header_that_never_ends_is_not_read() {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::XHeader);
        header.set_size(1 << 40);
        header.set_cksum();
        let endless = io::Cursor::new(header.as_bytes().to_vec()).chain(io::repeat(b'1'));
        assert!(matches!(Archive::new(endless).next(), Err(ArchiveError::Malformed(_))));
    }

    #[test]
    fn what_is_cut_anywhere_is_not_whole() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(700);
        header.set_mode(0o644);
        builder.append_data(&mut header, "n".repeat(200), &[7; 700][..]).unwrap();
        let whole = builder.into_inner().unwrap();
        let read = |bytes: &[u8]| -> Result<usize, ArchiveError> {
            let mut archive = Archive::new(bytes);
            let mut count = 0;
            while archive.next()?.is_some() {
                count += io::copy(&mut archive, &mut io::sink()).map_err(ArchiveError::Read)?;
            }
            Ok(count as usize)
        };
        assert_eq!(read(&whole).unwrap(), 700);
        for cut in (1..whole.len() - 1024).filter(|cut| cut % 512 != 0 || *cut > 1536) {
            assert!(read(&whole[..cut]).is_err(), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000), kind in 0_usize..8) {
            let mut bytes = bytes;
            if bytes.len() >= 512 {
                // With a right checksum, so that more than the first check is tried.
                bytes[156] = b"0125xgLK"[kind];
                bytes[124..136].copy_from_slice(b"00000000700\0");
                bytes[148..156].copy_from_slice(b"        ");
                let sum: u32 = bytes[..512].iter().map(|byte| u32::from(*byte)).sum();
                bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
            let mut archive = Archive::new(&bytes[..]);
            while let Ok(Some(_)) = archive.next() {
                let _ = io::copy(&mut archive, &mut io::sink());
            }
        }
    }
}
