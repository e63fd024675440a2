//! A layer over a tree, read as hostile input.
//!
//! Source: the OCI image specification 1.1, `layer.md`. Nothing is unpacked into a folder: contents go into the store's
//! objects, and names into a tree, whose paths can't lead out of it.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read};

use kiln_model::Digest;
use kiln_store::tree::{PathError, ResolveError, TreeError};
use kiln_store::{Batch, Entry, Kind, Meta, Mtime, PutError, Tree, TreePath};
use sha2::{Digest as _, Sha256};

use super::archive::{Archive, ArchiveError, Header};

/// The files of an image; the largest that are known, with CUDA or a whole TeX, have 50 GB.
const UNPACKED_BYTES_MAX: u64 = 128 << 30;

/// What may unpack to much more than it has: a small layer of zeros is no attack.
const FREE_BYTES: u64 = 64 << 20;

/// Real layers shrink to a tenth at best. gzip can't do more than a thousand to one, and a bomb does.
const RATIO_MAX: u64 = 200;

/// The names of an image; a Debian with all of its packages has a tenth of that.
const ENTRIES_MAX: usize = 2 << 20;

/// The bytes of all names, which are in memory at once. Two million paths of a hundred bytes.
const NAME_BYTES_MAX: usize = 200 << 20;

/// A frame of zstd that asks for more memory is refused: 128 MiB, what its own `--long` takes.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

const WHITEOUT: &[u8] = b".wh.";

/// A layer can't be laid.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// It is not a tar, or is broken off.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// It is compressed in a way that is not known.
    #[error("its compression can't be used")]
    Compression(#[source] io::Error),
    /// A path of it can't be in an image.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A path of it leads nowhere.
    #[error("{path} has no place in the image")]
    Place {
        /// The path.
        path: TreePath,
        /// Why.
        #[source]
        source: ResolveError,
    },
    /// An entry of it can't be in an image.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// It holds what an image may not hold.
    #[error("{path} is {what}, which no image may hold")]
    Forbidden {
        /// Where.
        path: TreePath,
        /// What.
        what: &'static str,
    },
    /// It deletes what can't be a name.
    #[error("{path} stands for the deletion of what can't be a name")]
    Whiteout {
        /// Where.
        path: TreePath,
    },
    /// It is larger than any image should be, or than its compressed size allows for.
    #[error("it unpacks to more than {limit}")]
    TooLarge {
        /// The limit.
        limit: String,
    },
    /// Its content is not what the image's config promises.
    #[error("it unpacks to {found}, not to the {expected} of the image's config")]
    Mismatch {
        /// By the config.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// Its files can't be stored.
    #[error("its files can't be stored")]
    Put(#[from] PutError),
}

/// What all layers of an image may use together.
#[derive(Debug, Default)]
pub(super) struct Budget {
    bytes: u64,
    names: usize,
    name_bytes: usize,
}

/// Lays a layer over a tree.
pub(super) fn lay(
    tree: &mut Tree,
    objects: &Batch,
    budget: &mut Budget,
    compressed: impl Read + 'static,
    compressed_size: u64,
    diff_id: Digest,
) -> Result<(), LayerError> {
    let limit = FREE_BYTES.max(compressed_size.saturating_mul(RATIO_MAX));
    let counted = Counted { reader: decompress(compressed)?, hash: Sha256::new(), left: limit };
    let mut laying = Laying { tree, objects, budget, put: BTreeSet::new() };
    let mut archive = Archive::new(counted);
    let read = loop {
        match archive.next() {
            Ok(Some(header)) => {
                if let Err(error) = laying.entry(header, &mut archive) {
                    break Err(error);
                }
            }
            Ok(None) => break archive.finish().map_err(LayerError::from),
            Err(error) => break Err(error.into()),
        }
    };
    // The reader says that it has enough as an error of reading.
    let counted = read.map_err(|error| match error {
        LayerError::Archive(ArchiveError::Read(error)) | LayerError::Put(PutError::Source(error))
            if error.kind() == io::ErrorKind::FileTooLarge =>
        {
            LayerError::TooLarge { limit: format!("{RATIO_MAX} times its compressed size") }
        }
        error => error,
    })?;
    let found = Digest::new(counted.hash.finalize().into());
    if found == diff_id { Ok(()) } else { Err(LayerError::Mismatch { expected: diff_id, found }) }
}

/// By what it begins with: media types are known to lie.
pub(super) fn decompress(compressed: impl Read + 'static) -> Result<Box<dyn Read>, LayerError> {
    let mut buffered = BufReader::with_capacity(128 << 10, compressed);
    let magic = buffered.fill_buf().map_err(|error| LayerError::Archive(ArchiveError::Read(error)))?;
    if magic.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(buffered)));
    }
    // RFC 8878: a frame, or one that is to be skipped.
    let is_skipped = magic.len() >= 4 && magic[0] & 0xf0 == 0x50 && magic[1..4] == [0x2a, 0x4d, 0x18];
    if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skipped {
        let mut decoder =
            zstd::stream::read::Decoder::with_buffer(buffered).map_err(LayerError::Compression)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(LayerError::Compression)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(buffered))
}

/// Hashes what passes, and ends what has no end.
struct Counted<R> {
    reader: R,
    hash: Sha256,
    left: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

struct Laying<'a> {
    tree: &'a mut Tree,
    objects: &'a Batch,
    budget: &'a mut Budget,
    /// What this layer brought: a whiteout removes only what was there before it.
    put: BTreeSet<TreePath>,
}

impl Laying<'_> {
    fn entry(&mut self, header: Header, content: &mut impl Read) -> Result<(), LayerError> {
        let path = TreePath::parse(&header.path)?;
        self.count(&path, header.size)?;
        if path.is_root() {
            // The root's own attributes are the image's to say; anything but a folder is none.
            return if header.kind == b'5' { self.insert(path, Kind::Dir, &header) } else { Ok(()) };
        }
        let place = self.place(&path)?;
        if let Some(name) = place.name().strip_prefix(WHITEOUT) {
            let name = name.to_vec();
            return self.whiteout(&place, &name);
        }
        let forbidden = |what| LayerError::Forbidden { path: path.clone(), what };
        let kind = match header.kind {
            b'0' | 0 | b'7' => {
                let stored = self.objects.put_reader(content)?;
                Kind::File { digest: stored.digest, size: stored.size }
            }
            b'1' => return self.link(place, &header.link),
            b'2' => Kind::Symlink { target: header.link.clone() },
            b'5' => Kind::Dir,
            b'6' => Kind::Fifo,
            // Every instance has a /dev of its own; images made by debootstrap bring one all the same.
            b'3' | b'4' if place.as_bytes().starts_with(b"dev/") => return Ok(()),
            b'3' | b'4' => return Err(forbidden("a device")),
            b'S' => return Err(forbidden("a file with holes")),
            _ => return Err(forbidden("an entry of an unknown kind")),
        };
        self.insert(place, kind, &header)
    }

    fn count(&mut self, path: &TreePath, size: u64) -> Result<(), LayerError> {
        let Budget { bytes, names, name_bytes } = self.budget;
        *bytes = bytes.saturating_add(size);
        *names += 1;
        *name_bytes += path.as_bytes().len();
        let limit = match () {
            () if *bytes > UNPACKED_BYTES_MAX => format!("{UNPACKED_BYTES_MAX} bytes"),
            () if *names > ENTRIES_MAX => format!("{ENTRIES_MAX} entries"),
            () if *name_bytes > NAME_BYTES_MAX => format!("{NAME_BYTES_MAX} bytes of names"),
            () => return Ok(()),
        };
        Err(LayerError::TooLarge { limit })
    }

    /// Finds where a path of the archive is in the tree: links of the image are followed within it, and what is missing on the
    /// way is made.
    fn place(&mut self, path: &TreePath) -> Result<TreePath, LayerError> {
        let mut parent = path.parent().unwrap_or_default();
        loop {
            match self.tree.resolve(&parent, true) {
                Ok(found) if self.tree.get(&found).is_some_and(Entry::is_dir) => parent = found,
                // It was put as something else, and is a folder now.
                Ok(found) if self.tree.get(&found).is_some() => {
                    let source = ResolveError::NotAFolder(found);
                    return Err(LayerError::Place { path: path.clone(), source });
                }
                Ok(missing) | Err(ResolveError::Missing(missing)) => {
                    self.count(&missing, 0)?;
                    self.tree.insert(&missing, Entry::dir(0o755))?;
                    continue;
                }
                Err(source) => return Err(LayerError::Place { path: path.clone(), source }),
            }
            return Ok(parent.join(path.name())?);
        }
    }

    fn insert(&mut self, place: TreePath, kind: Kind, header: &Header) -> Result<(), LayerError> {
        let owner = |id: u64| {
            let beyond = || TreeError::Invalid {
                path: place.clone(),
                reason: "its owner or group is beyond what Linux has".into(),
            };
            u32::try_from(id).map_err(|_| beyond())
        };
        let is_kept = |name: &[u8]| name == b"security.capability" || name.starts_with(b"user.");
        let xattrs = header.xattrs.iter().filter(|(name, _)| is_kept(name));
        let meta = Meta {
            mode: (header.mode & 0o7777) as u16,
            uid: owner(header.uid)?,
            gid: owner(header.gid)?,
            mtime: Mtime { secs: header.mtime.0, nanos: header.mtime.1 },
            xattrs: xattrs.map(|(name, value)| (name.clone(), value.clone())).collect(),
        };
        self.tree.insert(&place, Entry { meta, kind })?;
        self.put.insert(place);
        Ok(())
    }

    fn link(&mut self, place: TreePath, target: &[u8]) -> Result<(), LayerError> {
        let target = TreePath::parse(target)?;
        let found = self.tree.resolve(&target, false);
        let found = found.map_err(|source| LayerError::Place { path: place.clone(), source })?;
        self.tree.link(&place, &found)?;
        self.put.insert(place);
        Ok(())
    }

    fn whiteout(&mut self, place: &TreePath, name: &[u8]) -> Result<(), LayerError> {
        let folder = place.parent().unwrap_or_default();
        if name == b".wh..opq" {
            let children: Vec<_> = self.tree.children(&folder).map(|(path, _)| path.clone()).collect();
            for child in children.iter().filter(|child| !child.is_root()) {
                self.remove(child);
            }
            return Ok(());
        }
        // What aufs kept for itself.
        if name.starts_with(b".wh.") {
            return Ok(());
        }
        let doomed = folder.join(name).ok().filter(|doomed| *doomed != folder);
        let doomed = doomed.ok_or_else(|| LayerError::Whiteout { path: place.clone() })?;
        self.remove(&doomed);
        Ok(())
    }

    /// Removes what earlier layers brought at a path and below; what this one brought stays, with the folders it is in.
    fn remove(&mut self, path: &TreePath) {
        if !self.brought(path) {
            self.tree.remove(path);
            return;
        }
        let below: Vec<_> = self.tree.within(path).map(|(path, _)| path.clone()).collect();
        for path in below.iter().rev().filter(|path| !path.is_root()) {
            if !self.brought(path) {
                self.tree.remove(path);
            }
        }
    }

    /// Whether this layer put something at a path or below.
    fn brought(&self, path: &TreePath) -> bool {
        // `a-b` stands between `a` and `a/b`, so what is below is looked for from the first name that could be.
        let below = |low| self.put.range(low..).next().is_some_and(|found: &TreePath| found.is_within(path));
        self.put.contains(path) || path.join([1]).is_ok_and(below)
    }
}
