//! EROFS images of trees: our own writer and reader.
//!
//! The format is that of `fs/erofs/erofs_fs.h` in Linux: uncompressed, 4 KiB blocks, no shared attributes. A *metadata*
//! image has every attribute of a tree, but its regular files are holes that an overlay fills: each carries
//! `trusted.overlay.metacopy` and `trusted.overlay.redirect` to its object (the composefs layout). A *whole* image holds the
//! bytes as well. The same tree always gives the same bytes.

mod plan;
mod read;
mod write;
mod xattr;

pub(crate) use read::read_tree;
pub(crate) use write::{WriteError, metadata_image, write_metadata_image, write_whole_image};

use crate::tree::Kind;

pub(crate) const BLOCK_BYTES: u64 = 4096;
const BLOCK_BITS: u8 = 12;

/// The superblock begins here, whatever the size of a block.
const SUPER_OFFSET: usize = 1024;
const SUPER_BYTES: usize = 128;
const SUPER_MAGIC: u32 = 0xE0F5_E1E2;

/// Some file has its data in chunks.
const INCOMPAT_CHUNKED_FILE: u32 = 0x4;

/// Inodes begin right after the superblock; they are addressed in units of this many bytes.
const NID_BYTES: u64 = 32;
const FIRST_INODE_OFFSET: u64 = (SUPER_OFFSET + SUPER_BYTES) as u64;

const COMPACT_INODE_BYTES: u64 = 32;
const EXTENDED_INODE_BYTES: u64 = 64;

/// Data layouts, in bits 1 to 3 of an inode's format.
const LAYOUT_PLAIN: u16 = 0;
const LAYOUT_INLINE: u16 = 2;
const LAYOUT_CHUNKED: u16 = 4;

/// A chunk that is a hole.
const NULL_BLOCK: u32 = u32::MAX;

/// The low bits of a chunk format: log2 of the blocks of a chunk.
const CHUNK_BITS_MAX: u32 = 31;

const DIRENT_BYTES: usize = 12;

/// What the attributes of an inode begin with.
const XATTR_HEADER_BYTES: usize = 12;

/// The type of a file as directory entries name it.
fn file_type(kind: &Kind) -> u8 {
    match kind {
        Kind::File { .. } => 1,
        Kind::Dir => 2,
        Kind::Char { .. } => 3,
        Kind::Block { .. } => 4,
        Kind::Fifo => 5,
        Kind::Socket => 6,
        Kind::Symlink { .. } => 7,
    }
}

/// The file type bits of `st_mode`.
fn type_bits(kind: &Kind) -> u16 {
    match kind {
        Kind::Fifo => 0o010_000,
        Kind::Char { .. } => 0o020_000,
        Kind::Dir => 0o040_000,
        Kind::Block { .. } => 0o060_000,
        Kind::File { .. } => 0o100_000,
        Kind::Symlink { .. } => 0o120_000,
        Kind::Socket => 0o140_000,
    }
}

/// Returns how a sparse file is cut into chunks: log2 of the blocks of one, and how many there are. As few as possible.
fn chunks_of(size: u64) -> (u32, u64) {
    let bits = size.next_power_of_two().trailing_zeros().max(u32::from(BLOCK_BITS)) - u32::from(BLOCK_BITS);
    let bits = bits.min(CHUNK_BITS_MAX);
    (bits, size.div_ceil(1 << (bits + u32::from(BLOCK_BITS))))
}

#[cfg(test)]
pub(crate) mod tests;
