//! Writing an image, front to back.

use std::io::{self, Read, Write};

use super::plan::{Attributes, Body, Child, FormatError, Plan, Planned, plan};
use super::{
    BLOCK_BITS, BLOCK_BYTES, COMPACT_INODE_BYTES, DIRENT_BYTES, EXTENDED_INODE_BYTES, INCOMPAT_CHUNKED_FILE,
    LAYOUT_CHUNKED, LAYOUT_INLINE, LAYOUT_PLAIN, NULL_BLOCK, SUPER_BYTES, SUPER_MAGIC, SUPER_OFFSET,
    chunks_of, file_type, type_bits, xattr,
};
use crate::error::ReadError;
use crate::object::Objects;
use crate::tree::{Kind, Tree};

/// An image can't be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(transparent)]
    Object(#[from] ReadError),
    #[error("the image can't be written")]
    Io(#[from] io::Error),
}

/// Returns the metadata image of a tree. It is small, some tens of bytes a file.
pub(crate) fn metadata_image(tree: &Tree) -> Result<Vec<u8>, WriteError> {
    let plan = plan(tree, false)?;
    let mut image = Vec::with_capacity((plan.blocks * BLOCK_BYTES) as usize);
    write_metadata(&plan, &mut image)?;
    write_all_data(&plan, None, &mut image)?;
    Ok(image)
}

/// As [`metadata_image`], without room for all of it: it goes on in pieces of some tens of bytes.
pub(crate) fn write_metadata_image(tree: &Tree, out: &mut impl Write) -> Result<(), WriteError> {
    let plan = plan(tree, false)?;
    write_metadata(&plan, out)?;
    write_all_data(&plan, None, out)
}

/// Writes the whole image of a tree, with its files' bytes copied from the objects.
pub(crate) fn write_whole_image(
    tree: &Tree,
    objects: &Objects,
    out: &mut impl Write,
) -> Result<(), WriteError> {
    let plan = plan(tree, true)?;
    write_metadata(&plan, out)?;
    write_all_data(&plan, Some(objects), out)
}

/// Writes the blocks of metadata.
fn write_metadata(plan: &Plan<'_>, out: &mut impl Write) -> Result<(), WriteError> {
    let mut bytes = vec![0; SUPER_OFFSET + SUPER_BYTES];
    write_super(plan, &mut bytes[SUPER_OFFSET..]);
    let mut written = 0;
    for (index, planned) in plan.inodes.iter().enumerate() {
        bytes.resize((planned.offset - written) as usize, 0);
        write_inode(plan, index, planned, &mut bytes)?;
        out.write_all(&bytes)?;
        written += bytes.len() as u64;
        bytes.clear();
    }
    bytes.resize((plan.meta_blocks * BLOCK_BYTES - written) as usize, 0);
    Ok(out.write_all(&bytes)?)
}

fn write_all_data(
    plan: &Plan<'_>,
    objects: Option<&Objects>,
    out: &mut impl Write,
) -> Result<(), WriteError> {
    let mut with_data = plan.inodes.iter().filter(|planned| planned.data_blocks() > 0);
    with_data.try_for_each(|planned| write_data(plan, planned, objects, out))
}

/// Fills in `struct erofs_super_block`.
fn write_super(plan: &Plan<'_>, bytes: &mut [u8]) {
    let root = plan.inodes[0].nid();
    let chunked = plan.inodes.iter().any(|planned| matches!(planned.body, Body::Hole));
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &SUPER_MAGIC.to_le_bytes());
    put(12, &[BLOCK_BITS]);
    put(14, &(root as u16).to_le_bytes());
    put(16, &(plan.inodes.len() as u64).to_le_bytes());
    put(24, &plan.epoch.secs.to_le_bytes());
    put(32, &plan.epoch.nanos.to_le_bytes());
    put(36, &(plan.blocks as u32).to_le_bytes());
    put(80, &(if chunked { INCOMPAT_CHUNKED_FILE } else { 0 }).to_le_bytes());
}

/// Adds an inode with its attributes and what of its data follows it.
fn write_inode(
    plan: &Plan<'_>,
    index: usize,
    planned: &Planned<'_>,
    bytes: &mut Vec<u8>,
) -> Result<(), WriteError> {
    let (layout, union) = data_of(planned);
    let meta = &planned.entry.meta;
    let format = layout << 1 | u16::from(!planned.compact);
    let mode = type_bits(&planned.entry.kind) | meta.mode;
    let mut inode = [0; EXTENDED_INODE_BYTES as usize];
    let mut put = |at: usize, value: &[u8]| inode[at..at + value.len()].copy_from_slice(value);
    put(0, &format.to_le_bytes());
    put(2, &xattr::count(planned.xattrs.len())?.to_le_bytes());
    put(4, &mode.to_le_bytes());
    put(16, &union.to_le_bytes());
    put(20, &(index as u32 + 1).to_le_bytes());
    if planned.compact {
        put(6, &(planned.links as u16).to_le_bytes());
        put(8, &(planned.size as u32).to_le_bytes());
        put(24, &(meta.uid as u16).to_le_bytes());
        put(26, &(meta.gid as u16).to_le_bytes());
        bytes.extend_from_slice(&inode[..COMPACT_INODE_BYTES as usize]);
    } else {
        put(8, &planned.size.to_le_bytes());
        put(24, &meta.uid.to_le_bytes());
        put(28, &meta.gid.to_le_bytes());
        put(32, &meta.mtime.secs.to_le_bytes());
        put(40, &meta.mtime.nanos.to_le_bytes());
        put(44, &planned.links.to_le_bytes());
        bytes.extend_from_slice(&inode);
    }
    match &planned.xattrs {
        Attributes::Redirect(object) => xattr::encode_redirect(object, bytes),
        Attributes::Encoded(encoded) => bytes.extend_from_slice(encoded),
    }
    match &planned.body {
        Body::Hole => {
            for _ in 0..chunks_of(planned.size).1 {
                bytes.extend_from_slice(&NULL_BLOCK.to_le_bytes());
            }
        }
        Body::Dir { first, end } if planned.inline => {
            dir_block(plan, plan.blocks_of(*first, *end).last().expect("it has a tail"), bytes);
        }
        Body::Target(target) if planned.inline => bytes.extend_from_slice(target),
        _ => {}
    }
    Ok(())
}

/// Returns the layout of an inode's data, and the number whose meaning depends on it.
fn data_of(planned: &Planned<'_>) -> (u16, u32) {
    match (&planned.body, &planned.entry.kind) {
        (Body::Hole, _) => (LAYOUT_CHUNKED, chunks_of(planned.size).0),
        (_, Kind::Char { major, minor } | Kind::Block { major, minor }) => {
            // The kernel's `new_encode_dev`.
            (LAYOUT_PLAIN, minor & 0xff | major << 8 | (minor & !0xff) << 12)
        }
        _ if planned.inline => (LAYOUT_INLINE, planned.block),
        _ => (LAYOUT_PLAIN, planned.block),
    }
}

/// Adds a block of a folder: its entries, then their names. Not filled up.
fn dir_block(plan: &Plan<'_>, children: &[Child<'_>], bytes: &mut Vec<u8>) {
    let mut name_offset = children.len() * DIRENT_BYTES;
    for child in children {
        let target = &plan.inodes[child.inode as usize];
        let mut entry = [0; DIRENT_BYTES];
        entry[..8].copy_from_slice(&target.nid().to_le_bytes());
        entry[8..10].copy_from_slice(&(name_offset as u16).to_le_bytes());
        entry[10] = file_type(&target.entry.kind);
        bytes.extend_from_slice(&entry);
        name_offset += child.name.len();
    }
    for child in children {
        bytes.extend_from_slice(child.name);
    }
}

/// Writes the whole blocks of an inode's data.
fn write_data(
    plan: &Plan<'_>,
    planned: &Planned<'_>,
    objects: Option<&Objects>,
    out: &mut impl Write,
) -> Result<(), WriteError> {
    match (&planned.body, objects) {
        (Body::Dir { first, end }, _) => {
            let mut bytes = Vec::with_capacity(BLOCK_BYTES as usize);
            for block in plan.blocks_of(*first, *end).take(planned.data_blocks() as usize) {
                bytes.clear();
                dir_block(plan, block, &mut bytes);
                bytes.resize(BLOCK_BYTES as usize, 0);
                out.write_all(&bytes)?;
            }
        }
        (Body::Target(target), _) => write_padded(target, out)?,
        (Body::Object(digest), Some(objects)) => {
            let size = planned.size;
            let mut object = objects.open_file(digest)?.take(size);
            let copied = io::copy(&mut object, out)?;
            if copied != size {
                return Err(ReadError::corrupt(digest, format!("it has {copied} bytes, not {size}")).into());
            }
            pad(size, out)?;
        }
        (Body::Object(_) | Body::Hole | Body::Empty, _) => {}
    }
    Ok(())
}

fn write_padded(bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
    out.write_all(bytes)?;
    pad(bytes.len() as u64, out)
}

fn pad(size: u64, out: &mut impl Write) -> io::Result<()> {
    let missing = size.next_multiple_of(BLOCK_BYTES) - size;
    out.write_all(&[0; BLOCK_BYTES as usize][..missing as usize])
}
