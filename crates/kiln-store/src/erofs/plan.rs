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
    /// The entries of all folders, those of one together and in the order of their names.
    children: Vec<Child<'a>>,
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
    /// Its first block of data, where it has one.
    pub(super) block: u32,
    pub(super) xattrs: Attributes<'a>,
    pub(super) body: Body<'a>,
    /// Its size as `stat` shows it.
    pub(super) size: u64,
    /// Its offset in the image.
    pub(super) offset: u64,
    pub(super) compact: bool,
    /// Whether the end of its data, beyond whole blocks, follows it.
    pub(super) inline: bool,
}

/// The attributes that follow an inode.
pub(super) enum Attributes<'a> {
    /// What most files have: none of their own, and what leads to their object.
    Redirect(&'a Digest),
    /// Any others, as they are written.
    Encoded(Box<[u8]>),
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
    /// The entries of a folder: which ones of the plan's.
    Dir { first: u32, end: u32 },
    /// A symlink's target.
    Target(&'a [u8]),
    /// A file's hole, which the overlay fills from an object.
    Hole,
    /// A file's bytes, from an object.
    Object(&'a Digest),
}

/// A folder's entry.
#[derive(Clone, Copy)]
pub(super) struct Child<'a> {
    pub(super) name: &'a [u8],
    pub(super) inode: u32,
}

impl<'a> Plan<'a> {
    /// Returns the entries of a folder block by block: an entry and its name never cross one.
    pub(super) fn blocks_of(&self, first: u32, end: u32) -> impl Iterator<Item = &[Child<'a>]> {
        cut(&self.children[first as usize..end as usize])
    }
}

impl<'a> Planned<'a> {
    /// An inode that is not laid out yet.
    fn new(entry: &'a Entry, links: u32) -> Self {
        let xattrs = Attributes::Encoded(Box::default());
        let (body, size) = (Body::Empty, 0);
        Self { entry, links, block: 0, xattrs, body, size, offset: 0, compact: false, inline: false }
    }

    pub(super) fn nid(&self) -> u64 {
        self.offset / NID_BYTES
    }

    /// The inode and its attributes.
    fn header_bytes(&self) -> u64 {
        let inode = if self.compact { COMPACT_INODE_BYTES } else { EXTENDED_INODE_BYTES };
        inode + self.xattrs.len() as u64
    }

    /// What follows the header in the metadata.
    fn tail_bytes(&self) -> u64 {
        match &self.body {
            Body::Hole => chunks_of(self.size).1 * 4,
            _ if self.inline => self.size % BLOCK_BYTES,
            _ => 0,
        }
    }

    /// Its blocks of data outside the metadata.
    pub(super) fn data_blocks(&self) -> u64 {
        match &self.body {
            Body::Hole => 0,
            _ if self.inline => self.size / BLOCK_BYTES,
            _ => self.size.div_ceil(BLOCK_BYTES),
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
    let (mut inodes, children) = number(tree)?;
    let empty = sha256(b"");
    for planned in &mut inodes {
        let mut redirected = None;
        (planned.body, planned.size) = match (&planned.body, &planned.entry.kind) {
            (Body::Dir { first, end }, _) => {
                let (first, end) = (*first, *end);
                (Body::Dir { first, end }, size_of(&children[first as usize..end as usize]))
            }
            (_, Kind::Symlink { target }) => (Body::Target(target), target.len() as u64),
            (_, Kind::File { size: 0, digest }) if whole || *digest == empty => (Body::Empty, 0),
            (_, Kind::File { digest, size }) if whole => (Body::Object(digest), *size),
            (_, Kind::File { digest, size }) => {
                redirected = Some(digest);
                (if *size == 0 { Body::Empty } else { Body::Hole }, *size)
            }
            _ => (Body::Empty, 0),
        };
        let own = &planned.entry.meta.xattrs;
        planned.xattrs = match redirected {
            Some(object) if own.is_empty() => Attributes::Redirect(object),
            _ if whole => Attributes::Encoded(xattr::encode(own)?.into()),
            redirected => {
                let mut xattrs = xattr::escape(own)?;
                if let Some(object) = redirected {
                    xattr::redirect(&mut xattrs, object);
                }
                Attributes::Encoded(xattr::encode(&xattrs)?.into())
            }
        };
        xattr::count(planned.xattrs.len())?;
        let meta = &planned.entry.meta;
        planned.compact = meta.mtime == epoch
            && [meta.uid, meta.gid, planned.links].into_iter().all(|number| number <= u32::from(u16::MAX))
            && planned.size <= u64::from(u32::MAX);
    }
    place(inodes, children, epoch)
}

/// Numbers the inodes in the order of their first paths, the root first, and collects what is in those that are folders.
fn number(tree: &Tree) -> Result<(Vec<Planned<'_>>, Vec<Child<'_>>), FormatError> {
    let mut inodes: Vec<Planned<'_>> = Vec::with_capacity(tree.len());
    // Each after the folder that it is in, and how many each folder has.
    let mut named: Vec<(u32, Child<'_>)> = Vec::with_capacity(tree.len() + tree.len() / 4);
    let mut counts: Vec<u32> = Vec::with_capacity(tree.len());
    let mut by_inode = vec![u32::MAX; tree.inodes_end()];
    let mut by_path: HashMap<&[u8], u32> = HashMap::new();
    // Most files lie in the folder of the one before.
    let mut last_folder: (&[u8], u32) = (b"", 0);
    for (path, inode, entry, names) in tree.iter_linked() {
        let index = match by_inode[inode.index()] {
            u32::MAX => inodes.len() as u32,
            index => index,
        };
        if index as usize == inodes.len() {
            by_inode[inode.index()] = index;
            inodes.push(Planned::new(entry, if entry.is_dir() { 2 } else { names }));
            counts.push(0);
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
            named.push((index, Child { name: b".", inode: index }));
            named.push((index, Child { name: b"..", inode: parent }));
            counts[index as usize] += 2;
        }
        if !path.is_root() {
            named.push((parent, Child { name, inode: index }));
            counts[parent as usize] += 1;
            if entry.is_dir() {
                inodes[parent as usize].links += 1;
            }
        }
    }
    if u32::try_from(named.len()).is_err() {
        return Err(FormatError("more than four billion names".into()));
    }
    let children = gather(&mut inodes, &named, counts);
    Ok((inodes, children))
}

/// Puts what is in each folder together, in the order of the names.
fn gather<'a>(inodes: &mut [Planned<'a>], named: &[(u32, Child<'a>)], counts: Vec<u32>) -> Vec<Child<'a>> {
    let mut children = vec![Child { name: b"", inode: 0 }; named.len()];
    let (mut next, mut end) = (counts, 0);
    for (planned, next) in inodes.iter_mut().zip(&mut next).filter(|(_, count)| **count > 0) {
        let first = end;
        end += std::mem::replace(next, first);
        planned.body = Body::Dir { first, end };
    }
    for (folder, child) in named {
        let next = &mut next[*folder as usize];
        children[*next as usize] = *child;
        *next += 1;
    }
    for planned in inodes {
        if let Body::Dir { first, end } = planned.body {
            // They come in this order but for the folder itself and the one that it is in.
            children[first as usize..end as usize].sort_unstable_by_key(|child| child.name);
        }
    }
    children
}

/// Cuts the entries of a folder into blocks.
fn cut<'c, 'a>(mut children: &'c [Child<'a>]) -> impl Iterator<Item = &'c [Child<'a>]> {
    std::iter::from_fn(move || {
        let mut used = 0;
        let mut fits = |child: &Child<'_>| {
            used += child.bytes();
            used <= BLOCK_BYTES as usize
        };
        let count = children.iter().position(|child| !fits(child)).unwrap_or(children.len());
        let (block, rest) = children.split_at(count);
        children = rest;
        (!block.is_empty()).then_some(block)
    })
}

/// Returns the size of a folder: all blocks but the last are counted as full.
fn size_of(children: &[Child<'_>]) -> u64 {
    cut(children).fold(0, |before: u64, block| {
        before.next_multiple_of(BLOCK_BYTES) + block.iter().map(Child::bytes).sum::<usize>() as u64
    })
}

/// Gives every inode its offset and every piece of data its blocks.
fn place<'a>(
    mut inodes: Vec<Planned<'a>>,
    children: Vec<Child<'a>>,
    epoch: Mtime,
) -> Result<Plan<'a>, FormatError> {
    let mut offset = FIRST_INODE_OFFSET;
    for planned in &mut inodes {
        let header = planned.header_bytes();
        let tail = match planned.body {
            Body::Dir { .. } | Body::Target(_) => planned.size % BLOCK_BYTES,
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
    Ok(Plan { inodes, children, epoch, meta_blocks, blocks: next })
}
