//! Where everything of an image goes, before a byte is written.

use std::collections::HashMap;

use kiln_model::Digest;

use super::{
    BLOCK_BYTES, COMPACT_INODE_BYTES, DIRENT_BYTES, EXTENDED_INODE_BYTES, FIRST_INODE_OFFSET, NID_BYTES,
    chunks_of, xattr,
};
use crate::shelf::sha256;
use crate::tree::{Entry, Kind, Mtime, Tree, TreePath};

/// The tree has what the format can't hold.
#[derive(Debug, thiserror::Error)]
#[error("the format of images can't hold {0}")]
pub(crate) struct FormatError(pub(crate) String);

/// An image, laid out.
pub(super) struct Plan<'a> {
    pub(super) inodes: Vec<Planned<'a>>,
    /// What a compact inode's time of modification is: the root's, since most files of a bake share one.
    pub(super) epoch: Mtime,
    /// Blocks of metadata, the superblock's included.
    pub(super) meta_blocks: u64,
    /// All blocks.
    pub(super) blocks: u64,
}

/// An inode and where it goes.
pub(super) struct Planned<'a> {
    pub(super) entry: &'a Entry,
    pub(super) links: u32,
    pub(super) xattrs: Attributes<'a>,
    pub(super) body: Body<'a>,
    pub(super) compact: bool,
    /// Its offset in the image.
    pub(super) offset: u64,
    /// Whether the end of its data, beyond whole blocks, follows it.
    pub(super) inline: bool,
    /// Its first block of data, where it has one.
    pub(super) block: u32,
}

/// The attributes that follow an inode.
pub(super) enum Attributes<'a> {
    /// What most files have: none of their own, and what leads to their object.
    Redirect(&'a Digest),
    /// Any others, as they are written.
    Encoded(Vec<u8>),
}

impl Attributes<'_> {
    /// How many bytes they take.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Redirect(_) => xattr::redirect_bytes(),
            Self::Encoded(bytes) => bytes.len(),
        }
    }
}

/// The data of an inode.
pub(super) enum Body<'a> {
    /// None: devices, pipes, empty files.
    Empty,
    /// The entries of a folder in the order of their names, cut into blocks.
    Dir(Vec<Vec<Child<'a>>>),
    /// A symlink's target.
    Target(&'a [u8]),
    /// A file's hole, which the overlay fills from an object.
    Hole { size: u64 },
    /// A file's bytes, from an object.
    Object { digest: &'a Digest, size: u64 },
}

/// A folder's entry.
#[derive(Clone, Copy)]
pub(super) struct Child<'a> {
    pub(super) name: &'a [u8],
    pub(super) inode: usize,
}

impl Planned<'_> {
    pub(super) fn nid(&self) -> u64 {
        self.offset / NID_BYTES
    }

    /// The inode and its attributes.
    pub(super) fn header_bytes(&self) -> u64 {
        let inode = if self.compact { COMPACT_INODE_BYTES } else { EXTENDED_INODE_BYTES };
        inode + self.xattrs.len() as u64
    }

    /// Its size as `stat` shows it.
    pub(super) fn size(&self) -> u64 {
        match &self.body {
            Body::Empty => 0,
            Body::Dir(blocks) => {
                let last = blocks.last().map_or(0, |block| block.iter().map(Child::bytes).sum());
                (blocks.len() as u64 - 1) * BLOCK_BYTES + last as u64
            }
            Body::Target(target) => target.len() as u64,
            Body::Hole { size } | Body::Object { size, .. } => *size,
        }
    }

    /// What follows the header in the metadata.
    pub(super) fn tail_bytes(&self) -> u64 {
        match &self.body {
            Body::Hole { size } => chunks_of(*size).1 * 4,
            _ if self.inline => self.size() % BLOCK_BYTES,
            _ => 0,
        }
    }

    /// Its blocks of data outside the metadata.
    pub(super) fn data_blocks(&self) -> u64 {
        match &self.body {
            Body::Hole { .. } => 0,
            _ if self.inline => self.size() / BLOCK_BYTES,
            _ => self.size().div_ceil(BLOCK_BYTES),
        }
    }
}

impl Child<'_> {
    fn bytes(&self) -> usize {
        DIRENT_BYTES + self.name.len()
    }
}

/// Lays a tree out; `whole` images have the files' data, others redirect to their objects.
pub(super) fn plan(tree: &Tree, whole: bool) -> Result<Plan<'_>, FormatError> {
    let epoch = tree.get(&TreePath::root()).expect("a tree has a root").meta.mtime;
    let (mut inodes, mut folders) = number(tree);
    let empty = sha256(b"");
    for (planned, children) in inodes.iter_mut().zip(&mut folders) {
        let mut redirected = None;
        planned.body = match &planned.entry.kind {
            Kind::Dir => {
                let mut children = std::mem::take(children);
                children.sort_unstable_by_key(|child| child.name);
                Body::Dir(cut(children))
            }
            Kind::Symlink { target } => Body::Target(target),
            Kind::File { size: 0, digest } if whole || *digest == empty => Body::Empty,
            Kind::File { digest, size } if whole => Body::Object { digest, size: *size },
            Kind::File { digest, size } => {
                redirected = Some(digest);
                match size {
                    0 => Body::Empty,
                    size => Body::Hole { size: *size },
                }
            }
            Kind::Char { .. } | Kind::Block { .. } | Kind::Fifo | Kind::Socket => Body::Empty,
        };
        let own = &planned.entry.meta.xattrs;
        planned.xattrs = match redirected {
            Some(object) if own.is_empty() => Attributes::Redirect(object),
            _ if whole => Attributes::Encoded(xattr::encode(own)?),
            redirected => {
                let mut xattrs = xattr::escape(own)?;
                if let Some(object) = redirected {
                    xattr::redirect(&mut xattrs, object);
                }
                Attributes::Encoded(xattr::encode(&xattrs)?)
            }
        };
        xattr::count(planned.xattrs.len())?;
        let meta = &planned.entry.meta;
        planned.compact = meta.mtime == epoch
            && [meta.uid, meta.gid, planned.links].into_iter().all(|number| number <= u32::from(u16::MAX))
            && planned.size() <= u64::from(u32::MAX);
    }
    place(inodes, epoch)
}

/// Numbers the inodes in the order of their first paths, the root first, and collects what is in each that is a folder.
fn number(tree: &Tree) -> (Vec<Planned<'_>>, Vec<Vec<Child<'_>>>) {
    let mut inodes: Vec<Planned<'_>> = Vec::with_capacity(tree.len());
    let mut folders: Vec<Vec<Child<'_>>> = Vec::with_capacity(tree.len());
    let mut by_inode: Vec<Option<usize>> = vec![None; tree.inodes_end()];
    let mut by_path: HashMap<&[u8], usize> = HashMap::new();
    // Most files lie in the folder of the one before.
    let mut last_folder: (&[u8], usize) = (b"", 0);
    for (path, inode, entry, names) in tree.iter_linked() {
        let index = *by_inode[inode.index()].get_or_insert(inodes.len());
        if index == inodes.len() {
            let links = if entry.is_dir() { 2 } else { names };
            let planned = Planned {
                entry,
                links,
                xattrs: Attributes::Encoded(Vec::new()),
                body: Body::Empty,
                compact: false,
                offset: 0,
                inline: false,
                block: 0,
            };
            inodes.push(planned);
            folders.push(Vec::new());
        }
        let (bytes, name) = (path.as_bytes(), path.name());
        let folder = bytes[..bytes.len() - name.len()].strip_suffix(b"/").unwrap_or(b"");
        if folder != last_folder.0 {
            // Folders come before what is in them.
            last_folder = (folder, by_path[folder]);
        }
        let parent = last_folder.1;
        if entry.is_dir() {
            by_path.insert(bytes, index);
            let own = [Child { name: b".", inode: index }, Child { name: b"..", inode: parent }];
            folders[index].extend(own);
        }
        if !path.is_root() {
            folders[parent].push(Child { name, inode: index });
            if entry.is_dir() {
                inodes[parent].links += 1;
            }
        }
    }
    (inodes, folders)
}

/// Cuts the entries of a folder into blocks: an entry and its name never cross one.
fn cut(children: Vec<Child<'_>>) -> Vec<Vec<Child<'_>>> {
    let mut blocks: Vec<Vec<Child<'_>>> = vec![Vec::new()];
    let mut used = 0;
    for child in children {
        if used + child.bytes() > BLOCK_BYTES as usize {
            blocks.push(Vec::new());
            used = 0;
        }
        used += child.bytes();
        blocks.last_mut().expect("there is always a block").push(child);
    }
    blocks
}

/// Gives every inode its offset and every piece of data its blocks.
fn place(mut inodes: Vec<Planned<'_>>, epoch: Mtime) -> Result<Plan<'_>, FormatError> {
    let mut offset = FIRST_INODE_OFFSET;
    for planned in &mut inodes {
        let header = planned.header_bytes();
        let tail = match planned.body {
            Body::Dir(_) | Body::Target(_) => planned.size() % BLOCK_BYTES,
            _ => 0,
        };
        // The tail of the data must lie in one block; so, where it can, must all of the inode, which is then read at once.
        let room = BLOCK_BYTES - offset % BLOCK_BYTES;
        if header + tail > room && (header + tail <= BLOCK_BYTES || header > room) {
            offset = offset.next_multiple_of(BLOCK_BYTES);
        }
        let tail_start = (offset + header) % BLOCK_BYTES;
        planned.inline = tail > 0 && tail_start + tail <= BLOCK_BYTES;
        planned.offset = offset;
        offset = (offset + header + planned.tail_bytes()).next_multiple_of(NID_BYTES);
    }
    let meta_blocks = offset.div_ceil(BLOCK_BYTES);
    let mut next = meta_blocks;
    for planned in &mut inodes {
        let count = planned.data_blocks();
        if count > 0 {
            let too_large = |_| FormatError("more than 16 TiB".into());
            planned.block = u32::try_from(next).map_err(too_large)?;
            next = next.saturating_add(count);
            u32::try_from(next).map_err(too_large)?;
        }
    }
    Ok(Plan { inodes, epoch, meta_blocks, blocks: next })
}
