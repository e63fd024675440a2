//! What a path in a tree is.

use std::collections::BTreeMap;

use kiln_model::Digest;

/// A file, folder, link or node with all of its attributes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its attributes.
    pub meta: Meta,
    /// What it is.
    pub kind: Kind,
}

/// The attributes of an entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Meta {
    /// The permission bits with setuid, setgid and sticky: `0o7777` at most.
    pub mode: u16,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When it was last modified.
    pub mtime: Mtime,
    /// Extended attributes by full name, such as `security.capability`.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A time of modification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Mtime {
    /// Seconds since the Unix epoch.
    pub secs: i64,
    /// Nanoseconds within the second: below 1,000,000,000.
    pub nanos: u32,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A folder.
    Dir,
    /// A regular file, whose content is an object.
    File {
        /// The object.
        digest: Digest,
        /// How many bytes it has.
        size: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points, as written: 1 to 4095 bytes without NUL.
        target: Vec<u8>,
    },
    /// A character device.
    Char {
        /// Below 4096.
        major: u32,
        /// Below 1,048,576.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Below 4096.
        major: u32,
        /// Below 1,048,576.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
}

impl Entry {
    /// A folder of root's.
    pub fn dir(mode: u16) -> Self {
        Self { meta: Meta { mode, ..Meta::default() }, kind: Kind::Dir }
    }

    /// A regular file of root's.
    pub fn file(mode: u16, digest: Digest, size: u64) -> Self {
        Self { meta: Meta { mode, ..Meta::default() }, kind: Kind::File { digest, size } }
    }

    /// A symbolic link of root's.
    pub fn symlink(target: impl Into<Vec<u8>>) -> Self {
        Self { meta: Meta { mode: 0o777, ..Meta::default() }, kind: Kind::Symlink { target: target.into() } }
    }

    /// Whether it is a folder.
    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Dir
    }
}
