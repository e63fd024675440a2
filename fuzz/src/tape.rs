//! Tape archives: a changed header is nothing but a wrong checksum, unless that is changed, too.

const BLOCK_BYTES: usize = 512;

/// Where a header's checksum is.
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// Corrects the checksum of every block of a tar that looks like a header.
pub fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut tar = bytes.to_vec();
    for block in tar.chunks_exact_mut(BLOCK_BYTES).filter(|block| block[257..262] == *b"ustar") {
        block[CHECKSUM].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    tar
}
