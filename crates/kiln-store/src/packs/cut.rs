//! Where content is cut, so that what two versions have in common is cut alike.
//!
//! FastCDC (Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication Based Storage Systems", 2020): a
//! cut depends on the bytes before it alone. A layer is cut at the files in it besides, so that it shares their chunks.

use std::io::{self, ErrorKind, Read};

use fastcdc::v2020::StreamCDC;

/// Sizes of chunks: 64 KiB on average were measured to keep thirty versions of an image in the least room, index included.
pub(super) const CHUNK_BYTES_MIN: usize = 16 << 10;
const CHUNK_BYTES: usize = 64 << 10;
const CHUNK_BYTES_MAX: usize = 256 << 10;

/// A tar is made of blocks of this size (POSIX.1, ustar).
const BLOCK_BYTES: usize = 512;

/// Calls `keep` with each chunk of content.
pub(super) fn content<E: From<io::Error>>(
    mut reader: impl Read,
    size: u64,
    keep: &mut impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    if size <= CHUNK_BYTES_MIN as u64 {
        let mut bytes = Vec::with_capacity(size as usize);
        reader.read_to_end(&mut bytes)?;
        return if bytes.is_empty() { Ok(()) } else { keep(&bytes) };
    }
    for chunk in StreamCDC::new(reader, CHUNK_BYTES_MIN, CHUNK_BYTES, CHUNK_BYTES_MAX) {
        keep(&chunk.map_err(io::Error::from)?.data)?;
    }
    Ok(())
}

/// Calls `keep` with each chunk of a tar. What is no tar is cut in another way, and loses nothing.
pub(super) fn tar<E: From<io::Error>>(
    mut reader: impl Read,
    keep: &mut impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    // Headers, and whatever else stands between the contents of files.
    let mut between = Vec::new();
    loop {
        let start = between.len();
        between.resize(start + BLOCK_BYTES, 0);
        let read = fill(&mut reader, &mut between[start..])?;
        between.truncate(start + read);
        if read < BLOCK_BYTES {
            return if between.is_empty() { Ok(()) } else { keep(&between) };
        }
        let size = file_size(&between[start..]).unwrap_or(0);
        if size > 0 || between.len() >= CHUNK_BYTES {
            keep(&between)?;
            between.clear();
        }
        if size > 0 {
            content(reader.by_ref().take(size), size, keep)?;
            let padding = (BLOCK_BYTES as u64 - size % BLOCK_BYTES as u64) % BLOCK_BYTES as u64;
            reader.by_ref().take(padding).read_to_end(&mut between)?;
        }
    }
}

/// Returns the size of the regular file whose header this is.
fn file_size(header: &[u8]) -> Option<u64> {
    let is_file = matches!(header[156], b'0' | 0) && header[257..].starts_with(b"ustar");
    let digits = std::str::from_utf8(&header[124..136]).ok()?.trim_matches([' ', '\0']);
    is_file.then(|| u64::from_str_radix(digits, 8).ok())?
}

fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Bytes without a pattern, the same in every run.
    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..length).map(|_| next()).collect()
    }

    fn chunks(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        content(bytes, bytes.len() as u64, &mut |chunk| {
            found.push(chunk.to_vec());
            Ok::<(), io::Error>(())
        })
        .unwrap();
        found
    }

    fn tar_chunks(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        tar(bytes, &mut |chunk| {
            found.push(chunk.to_vec());
            Ok::<(), io::Error>(())
        })
        .unwrap();
        found
    }

    #[test]
    fn a_byte_that_is_put_in_changes_the_chunks_around_it_alone() {
        let old = noise(7, 2 << 20);
        let mut new = old.clone();
        new.insert(1 << 20, 9);
        let (old_chunks, new_chunks) = (chunks(&old), chunks(&new));
        assert_eq!((old_chunks.concat(), new_chunks.concat()), (old, new));
        let known: BTreeSet<_> = old_chunks.iter().collect();
        let fresh = new_chunks.iter().filter(|chunk| !known.contains(chunk)).count();
        assert!(fresh <= 3 && new_chunks.len() > 15, "{fresh} of {}", new_chunks.len());
    }

    #[test]
    fn a_tar_shares_the_chunks_of_the_files_in_it_and_whatever_else_it_is_nothing_is_lost() {
        let (small, large) = (noise(1, 3_000), noise(2, 600_000));
        let mut builder = tar_of(&[("small", &small), ("large", &large), ("empty", b"")]);
        let found = tar_chunks(&builder);
        assert_eq!(found.concat(), builder);
        assert!(found.contains(&small));
        assert!(chunks(&large).iter().all(|chunk| found.contains(chunk)));
        builder.truncate(100_000);
        for odd in [builder, noise(3, 100_000), vec![0; 5_000], b"short".to_vec(), Vec::new()] {
            assert_eq!(tar_chunks(&odd).concat(), odd);
        }
    }

    /// A tar by hand: name, size, kind and magic are all that is looked at.
    fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = Vec::new();
        for (name, bytes) in files {
            let mut header = [0; BLOCK_BYTES];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
            header[156] = b'0';
            header[257..262].copy_from_slice(b"ustar");
            tar.extend(header);
            tar.extend(*bytes);
            tar.resize(tar.len().next_multiple_of(BLOCK_BYTES), 0);
        }
        tar.resize(tar.len() + 2 * BLOCK_BYTES, 0);
        tar
    }
}
