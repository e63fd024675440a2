//! Reading a metadata image back. Whatever the bytes are, the answer is a tree or an error.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    BLOCK_BITS, BLOCK_BYTES, COMPACT_INODE_BYTES, DIRENT_BYTES, EXTENDED_INODE_BYTES, INCOMPAT_CHUNKED_FILE,
    LAYOUT_CHUNKED, LAYOUT_INLINE, LAYOUT_PLAIN, NID_BYTES, SUPER_MAGIC, SUPER_OFFSET, xattr,
};
use crate::shelf::sha256;
use crate::tree::{Entry, Inode, Kind, Meta, Mtime, Tree, TreePath, TreeReading};

type Result<T> = std::result::Result<T, String>;

/// Reads the tree of a metadata image, or says what is wrong with it.
pub(crate) fn read_tree(image: &[u8]) -> Result<Tree> {
    let reader = Reader::open(image)?;
    let mut walk = Walk {
        reader: &reader,
        tree: TreeReading::default(),
        seen: HashSet::new(),
        single: Vec::new(),
        linked: HashMap::new(),
        entries: 0,
    };
    walk.run()?;
    walk.tree.finish().map_err(|path| format!("{path} is there twice"))
}

struct Reader<'a> {
    image: &'a [u8],
    epoch: Mtime,
    root: u64,
}

/// An inode as it is stored.
struct Raw {
    layout: u16,
    mode: u16,
    size: u64,
    union: u32,
    links: u32,
    meta: Meta,
    object: Option<kiln_model::Digest>,
    /// Where its attributes end.
    end: u64,
}

impl<'a> Reader<'a> {
    fn open(image: &'a [u8]) -> Result<Self> {
        let mut reader = Self { image, epoch: Mtime::default(), root: 0 };
        let base = SUPER_OFFSET as u64;
        if reader.u32(base)? != SUPER_MAGIC {
            return Err("it is not an EROFS image".into());
        }
        let [block_bits] = reader.bytes(base + 12)?;
        let incompatible = reader.u32(base + 80)? & !INCOMPAT_CHUNKED_FILE;
        let meta_block = reader.u32(base + 40)?;
        if block_bits != BLOCK_BITS || incompatible != 0 || meta_block != 0 {
            return Err("it is an EROFS image of another kind".into());
        }
        reader.root = u64::from(reader.u16(base + 14)?);
        reader.epoch = Mtime { secs: reader.u64(base + 24)? as i64, nanos: reader.u32(base + 32)? };
        Ok(reader)
    }

    fn slice(&self, at: u64, length: u64) -> Result<&'a [u8]> {
        let start = usize::try_from(at).ok();
        let end = at.checked_add(length).and_then(|end| usize::try_from(end).ok());
        let range = start.zip(end).and_then(|(start, end)| self.image.get(start..end));
        range.ok_or_else(|| format!("{length} bytes at {at} are beyond its end"))
    }

    fn bytes<const N: usize>(&self, at: u64) -> Result<[u8; N]> {
        Ok(self.slice(at, N as u64)?.try_into().expect("the slice has this length"))
    }

    fn u16(&self, at: u64) -> Result<u16> {
        self.bytes(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: u64) -> Result<u32> {
        self.bytes(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: u64) -> Result<u64> {
        self.bytes(at).map(u64::from_le_bytes)
    }

    fn inode(&self, nid: u64) -> Result<Raw> {
        let at = nid.checked_mul(NID_BYTES).ok_or("an inode's number is too large")?;
        let fixed: [u8; COMPACT_INODE_BYTES as usize] = self.bytes(at)?;
        let u16_at = |at: usize| u16::from_le_bytes([fixed[at], fixed[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let (format, mode, union) = (u16_at(0), u16_at(4), u32_at(16));
        let extended = format & 1 == 1;
        let xattr_bytes = xattr::bytes_of(u16_at(2)) as u64;
        let header = if extended { EXTENDED_INODE_BYTES } else { COMPACT_INODE_BYTES };
        let start = at + header;
        let stored = self.slice(start, xattr_bytes)?;
        let (xattrs, object) = match xattr::decode_redirect(stored) {
            Some(object) => (BTreeMap::new(), Some(object)),
            None => {
                let stored = xattr::decode(stored).ok_or("attributes that can't be read")?;
                xattr::unescape(stored).ok_or("attributes of an overlay that are not ours")?
            }
        };
        let (size, links, uid, gid, mtime) = if extended {
            let mtime = Mtime { secs: self.u64(at + 32)? as i64, nanos: self.u32(at + 40)? };
            (self.u64(at + 8)?, self.u32(at + 44)?, u32_at(24), u32_at(28), mtime)
        } else {
            let owner = (u32::from(u16_at(24)), u32::from(u16_at(26)));
            (u64::from(u32_at(8)), u32::from(u16_at(6)), owner.0, owner.1, self.epoch)
        };
        let meta = Meta { mode: mode & 0o7777, uid, gid, mtime, xattrs };
        let layout = format >> 1 & 0x7;
        Ok(Raw { layout, mode, size, union, links, meta, object, end: start + xattr_bytes })
    }

    /// Returns the data of a folder or a symlink: whole blocks, then what follows the inode.
    fn data(&self, raw: &Raw) -> Result<Vec<&'a [u8]>> {
        let tail = match raw.layout {
            LAYOUT_INLINE => raw.size % BLOCK_BYTES,
            LAYOUT_PLAIN => 0,
            _ => return Err("a folder or a symlink in a layout that is not ours".into()),
        };
        let whole = raw.size - tail;
        let mut blocks = Vec::new();
        let mut at = u64::from(raw.union) * BLOCK_BYTES;
        let mut left = whole;
        while left > 0 {
            let length = left.min(BLOCK_BYTES);
            blocks.push(self.slice(at, length)?);
            at += length;
            left -= length;
        }
        if tail > 0 {
            blocks.push(self.slice(raw.end, tail)?);
        }
        Ok(blocks)
    }

    fn kind(&self, raw: &Raw) -> Result<Kind> {
        // The kernel's `new_decode_dev`.
        let major = raw.union >> 8 & 0xfff;
        let minor = raw.union & 0xff | raw.union >> 12 & 0xf_ff00;
        Ok(match raw.mode & 0o170_000 {
            0o010_000 => Kind::Fifo,
            0o020_000 => Kind::Char { major, minor },
            0o040_000 => Kind::Dir,
            0o060_000 => Kind::Block { major, minor },
            0o100_000 => match (raw.object, raw.size, raw.layout) {
                (Some(digest), 0, LAYOUT_PLAIN) => Kind::File { digest, size: 0 },
                (Some(digest), size, LAYOUT_CHUNKED) => Kind::File { digest, size },
                (None, 0, LAYOUT_PLAIN) => Kind::File { digest: sha256(b""), size: 0 },
                _ => return Err("a file whose data is in no object".into()),
            },
            0o120_000 => Kind::Symlink { target: self.data(raw)?.concat() },
            0o140_000 => Kind::Socket,
            _ => return Err("a file of no known type".into()),
        })
    }
}

struct Walk<'a> {
    reader: &'a Reader<'a>,
    tree: TreeReading,
    /// Every folder.
    seen: HashSet<u64>,
    /// Every inode that is not a folder and says to have one name.
    single: Vec<u64>,
    /// Every other inode that is not a folder.
    linked: HashMap<u64, Names>,
    entries: usize,
}

/// The names of an inode.
struct Names {
    first: TreePath,
    inode: Inode,
    /// How many were found.
    found: u32,
    /// How many it says to have.
    said: u32,
}

/// A folder that is being read.
struct Folder<'a> {
    path: TreePath,
    /// What in it is still to come, the next one last.
    names: Vec<(&'a [u8], u64)>,
    /// The folders in it that are to be read, the next one last.
    ahead: Vec<(TreePath, Raw)>,
}

impl Folder<'_> {
    /// Returns the folder in it that is to be read now. What is in `a` comes after `a-b` and before `a0`, as their paths do.
    fn next_folder(&mut self) -> Option<(TreePath, Raw)> {
        let (path, _) = self.ahead.last()?;
        let rest = self.names.last().and_then(|(name, _)| name.strip_prefix(path.name()));
        match rest.is_some_and(|rest| rest.first() < Some(&b'/')) {
            true => None,
            false => self.ahead.pop(),
        }
    }
}

impl<'a> Walk<'a> {
    fn run(&mut self) -> Result<()> {
        let root = self.reader.inode(self.reader.root)?;
        if self.reader.kind(&root)? != Kind::Dir {
            return Err("its root is not a folder".into());
        }
        self.put(TreePath::root(), Entry { meta: root.meta.clone(), kind: Kind::Dir })?;
        self.seen.insert(self.reader.root);
        let mut open = vec![self.folder(TreePath::root(), &root)?];
        while let Some(folder) = open.last_mut() {
            if let Some((path, raw)) = folder.next_folder() {
                open.push(self.folder(path, &raw)?);
            } else if let Some((name, nid)) = folder.names.pop() {
                let path = folder.path.join(name).map_err(|error| error.to_string())?;
                folder.ahead.extend(self.add(&path, nid)?.map(|raw| (path, raw)));
            } else {
                open.pop();
            }
        }
        self.check_links()
    }

    fn folder(&mut self, path: TreePath, raw: &Raw) -> Result<Folder<'a>> {
        let mut names = Vec::new();
        for block in self.reader.data(raw)? {
            self.entries_of(block, &mut names)?;
        }
        names.reverse();
        Ok(Folder { path, names, ahead: Vec::new() })
    }

    fn put(&mut self, path: TreePath, entry: Entry) -> Result<Inode> {
        self.tree.add(path, entry).map_err(|error| error.to_string())
    }

    /// Adds what an entry names to the tree; returns it where it is a folder.
    fn add(&mut self, path: &TreePath, nid: u64) -> Result<Option<Raw>> {
        let mut raw = self.reader.inode(nid)?;
        let said = raw.links;
        if said != 1
            && let Some(names) = self.linked.get_mut(&nid)
        {
            names.found += 1;
            self.tree.link(path.clone(), names.inode);
            return Ok(None);
        }
        let kind = self.reader.kind(&raw)?;
        let folder = kind == Kind::Dir;
        // A folder has one name: this also ends every circle.
        if folder && !self.seen.insert(nid) {
            return Err(format!("the folder {path} has two names"));
        }
        let inode = self.put(path.clone(), Entry { meta: std::mem::take(&mut raw.meta), kind })?;
        match said {
            _ if folder => return Ok(Some(raw)),
            1 => self.single.push(nid),
            said => drop(self.linked.insert(nid, Names { first: path.clone(), inode, found: 1, said })),
        }
        Ok(None)
    }

    fn check_links(&mut self) -> Result<()> {
        self.single.sort_unstable();
        if let Some(pair) = self.single.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("the file {} has more names than the one that it says", pair[0]));
        }
        match self.linked.values().find(|names| names.found != names.said) {
            Some(names) => Err(format!("{} has another number of names than it says", names.first)),
            None => Ok(()),
        }
    }

    /// Adds the names in a block of a folder, but `.` and `..`, with the inodes that they name.
    fn entries_of(&mut self, block: &'a [u8], entries: &mut Vec<(&'a [u8], u64)>) -> Result<()> {
        let broken = || "a block of a folder that can't be read".to_string();
        let offset_at = |index: usize| -> Option<usize> {
            let at = index * DIRENT_BYTES + 8;
            let bytes: [u8; 2] = block.get(at..at + 2)?.try_into().ok()?;
            Some(usize::from(u16::from_le_bytes(bytes)))
        };
        let first = offset_at(0).ok_or_else(broken)?;
        let count = first / DIRENT_BYTES;
        if count == 0 || first % DIRENT_BYTES != 0 {
            return Err(broken());
        }
        self.entries += count;
        // Every entry takes its bytes: more of them than fit means blocks that several folders claim.
        if self.entries > self.reader.image.len() / DIRENT_BYTES {
            return Err("more entries than it has room for".into());
        }
        entries.reserve(count);
        for index in 0..count {
            let start = offset_at(index).ok_or_else(broken)?;
            let end = if index + 1 < count { offset_at(index + 1).ok_or_else(broken)? } else { block.len() };
            let name = block.get(start..end).ok_or_else(broken)?;
            // Only the last name of a block can be followed by padding.
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            let nid = block[index * DIRENT_BYTES..][..8]
                .try_into()
                .map(u64::from_le_bytes)
                .map_err(|_| broken())?;
            if name != b"." && name != b".." {
                entries.push((name, nid));
            }
        }
        Ok(())
    }
}
