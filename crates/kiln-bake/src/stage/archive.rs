//! An archive that an ADD unpacks, read as hostile input: nothing of it can get out of its own root.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};

use kiln_store::tree::{PathError, ResolveError, TreeError};
use kiln_store::{Batch, Entry, Kind, Meta, Mtime, PutError, Tree, TreePath};
use tar::EntryType;

use crate::tape::guard;

/// A whole system has some hundred thousand files.
const ENTRIES_MAX: usize = 1 << 20;

/// The largest systems unpack to a few gigabytes.
const UNPACKED_BYTES_MAX: u64 = 16 << 30;

/// Files of any kind compress to a tenth, sparse images to a hundredth. More is made to fill a disk …
const RATIO_MAX: u64 = 200;

/// … unless it is small.
const RATIO_FREE_BYTES: u64 = 256 << 20;

/// A frame that asks for more memory than this to decompress is refused; the best preset of xz needs 65 MiB.
const XZ_MEMORY_MAX: u64 = 256 << 20;

/// The window that a frame may ask for, as a power of two: what zstd takes by itself, and no more.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Xz,
    Zstd,
    Bzip2,
}

/// Why an archive can't be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It can't be read, or its compression is broken.
    #[error("the archive can't be read")]
    Read(#[source] io::Error),
    /// A path of it can't be in an image.
    #[error("the archive holds a path that leads out of it")]
    Path(#[source] PathError),
    /// A path of it leads through something that is no folder of it.
    #[error("the archive holds a path that leads nowhere")]
    Resolve(#[from] ResolveError),
    /// A part of it can't be in an image.
    #[error("the archive holds what can't be in an image")]
    Tree(#[from] TreeError),
    /// It holds something that is refused.
    #[error("{path} in the archive is a {what}, which is not unpacked")]
    Forbidden {
        /// Where.
        path: TreePath,
        /// What.
        what: &'static str,
    },
    /// It is larger than what is unpacked.
    #[error("the archive unpacks to more than {0}")]
    TooLarge(&'static str),
    /// A file of it ends too early.
    #[error("{0} in the archive is cut off")]
    CutOff(TreePath),
    /// A file of it belongs to nobody that Linux can have.
    #[error("the owner or group of {0} in the archive is beyond what Linux has")]
    Owner(TreePath),
    /// Its files can't be stored.
    #[error(transparent)]
    Put(#[from] PutError),
}

/// Tells whether a file is an archive, by its content alone.
pub(super) fn packing(reader: impl Read) -> Option<Packing> {
    let mut reader = BufReader::new(reader);
    let head = reader.fill_buf().ok()?;
    let packing = match head {
        [0x1f, 0x8b, ..] => Packing::Gzip,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Packing::Xz,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Packing::Bzip2,
        _ => Packing::Plain,
    };
    // A compressed file that is no archive is copied as it is.
    let mut header = [0; 512];
    decompress(reader, packing).ok()?.read_exact(&mut header).ok()?;
    let header = tar::Header::from_byte_slice(&header);
    let sum: u32 = header.as_bytes().iter().enumerate().map(|(at, byte)| sum_of(at, *byte)).sum();
    let named = header.as_bytes()[0] != 0;
    (named && header.cksum().ok() == Some(sum)).then_some(packing)
}

/// The check sum counts its own field as blanks.
fn sum_of(at: usize, byte: u8) -> u32 {
    if (148..156).contains(&at) { 32 } else { byte.into() }
}

fn decompress<'a>(reader: impl BufRead + 'a, packing: Packing) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match packing {
        Packing::Plain => Box::new(reader),
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Packing::Xz => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_MAX, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(reader, stream))
        }
        Packing::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
        Packing::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
    })
}

/// Reads an archive of `packed` bytes into a tree of its own. No time of it is later than `latest`.
pub(super) fn read(
    reader: impl Read,
    packing: Packing,
    packed: u64,
    objects: &Batch,
    latest: i64,
) -> Result<Tree, ArchiveError> {
    let reader = decompress(BufReader::new(reader), packing).map_err(ArchiveError::Read)?;
    let limit = UNPACKED_BYTES_MAX.min(RATIO_FREE_BYTES.max(packed.saturating_mul(RATIO_MAX)));
    // The limit holds for the stream itself: headers and padding can be without end, too.
    let bounded = Bounded { inner: reader, left: limit };
    let mut unpacking = Unpacking { tree: Tree::new(), objects, latest, entries: 0 };
    let (guarded, allowance) = guard(bounded);
    let mut archive = tar::Archive::new(guarded);
    for entry in archive.entries().map_err(ArchiveError::Read)? {
        let mut entry = entry.map_err(too_large)?;
        allowance.entry(entry.size());
        unpacking.entry(&mut entry)?;
    }
    Ok(unpacking.tree)
}

/// Marks the error of a stream that goes on and on.
#[derive(Debug, thiserror::Error)]
#[error("it goes on and on")]
struct Endless;

fn too_large(error: io::Error) -> ArchiveError {
    match error.get_ref().is_some_and(|inner| inner.is::<Endless>()) {
        true => ArchiveError::TooLarge("200 times its own size, or 16 GiB"),
        false => ArchiveError::Read(error),
    }
}

struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| io::Error::other(Endless))?;
        Ok(count)
    }
}

struct Unpacking<'a> {
    tree: Tree,
    objects: &'a Batch,
    latest: i64,
    entries: usize,
}

impl Unpacking<'_> {
    fn entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<(), ArchiveError> {
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(ArchiveError::TooLarge("a million files"));
        }
        let path = TreePath::parse(entry.path_bytes()).map_err(ArchiveError::Path)?;
        let kind = entry.header().entry_type();
        let forbidden = |what| Err(ArchiveError::Forbidden { path: path.clone(), what });
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let (meta, has_holes) = self.meta(entry, &path)?;
        if has_holes {
            return forbidden("file with holes in the form of pax");
        }
        let place = self.place(&path)?;
        let kind = match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let size = entry.size();
                let stored = self.objects.put_reader(&mut *entry).map_err(endless)?;
                if stored.size != size {
                    return Err(ArchiveError::CutOff(path));
                }
                Kind::File { digest: stored.digest, size }
            }
            EntryType::Directory => Kind::Dir,
            EntryType::Symlink => Kind::Symlink { target: link_name(entry) },
            EntryType::Link => {
                let target = TreePath::parse(link_name(entry)).map_err(ArchiveError::Path)?;
                let target = self.tree.resolve(&target, false)?;
                return Ok(self.tree.link(&place, &target)?);
            }
            EntryType::Fifo => Kind::Fifo,
            // Every instance has a /dev of its own; archives of whole systems bring one all the same.
            EntryType::Char | EntryType::Block if place.as_bytes().starts_with(b"dev/") => return Ok(()),
            EntryType::Char | EntryType::Block => return forbidden("device"),
            _ => return forbidden("file of an unknown kind"),
        };
        Ok(self.tree.insert(&place, Entry { meta, kind })?)
    }

    /// Follows the archive's own links to where an entry goes, and makes the folders that it leaves out.
    fn place(&mut self, path: &TreePath) -> Result<TreePath, ArchiveError> {
        let Some(parent) = path.parent() else { return Ok(TreePath::root()) };
        let implied = Meta { mode: 0o755, mtime: Mtime { secs: self.latest, nanos: 0 }, ..Meta::default() };
        let mut at = TreePath::root();
        for name in parent.names() {
            at = self.tree.resolve(&at.join(name).map_err(ArchiveError::Path)?, true)?;
            match self.tree.get(&at) {
                Some(entry) if entry.is_dir() => {}
                Some(_) => return Err(ResolveError::NotAFolder(at).into()),
                None => self.tree.make_dirs(&at, &implied)?,
            }
        }
        at.join(path.name()).map_err(ArchiveError::Path)
    }

    /// What an entry says of its file, and whether its content is a map of holes and what is between them.
    fn meta<R: Read>(
        &self,
        entry: &mut tar::Entry<'_, R>,
        path: &TreePath,
    ) -> Result<(Meta, bool), ArchiveError> {
        let (mut xattrs, mut has_holes) = (BTreeMap::new(), false);
        if let Some(records) = entry.pax_extensions().map_err(ArchiveError::Read)? {
            for record in records {
                let record = record.map_err(ArchiveError::Read)?;
                has_holes |= record.key_bytes().starts_with(b"GNU.sparse.");
                let name = record.key_bytes().strip_prefix(b"SCHILY.xattr.");
                // What a security module of another host labelled belongs to that host.
                if let Some(name @ b"security.capability") = name {
                    xattrs.insert(name.to_vec(), record.value_bytes().to_vec());
                }
            }
        }
        let header = entry.header();
        let id = |id: io::Result<u64>| match u32::try_from(id.map_err(ArchiveError::Read)?) {
            Ok(id) => Ok(id),
            Err(_) => Err(ArchiveError::Owner(path.clone())),
        };
        let secs = header.mtime().map_err(ArchiveError::Read)?;
        let secs = i64::try_from(secs).unwrap_or(self.latest).min(self.latest);
        let meta = Meta {
            mode: (header.mode().map_err(ArchiveError::Read)? & 0o7777) as u16,
            uid: id(header.uid())?,
            gid: id(header.gid())?,
            mtime: Mtime { secs, nanos: 0 },
            xattrs,
        };
        Ok((meta, has_holes))
    }
}

/// Finds out whether storing ended because the archive goes on and on.
fn endless(error: PutError) -> ArchiveError {
    match error {
        PutError::Source(error) => too_large(error),
        error => error.into(),
    }
}

fn link_name<R: Read>(entry: &tar::Entry<'_, R>) -> Vec<u8> {
    entry.link_name_bytes().map(|name| name.into_owned()).unwrap_or_default()
}

#[cfg(test)]
#[path = "../../../kiln-registry/src/image/tars.rs"]
mod tars;

#[cfg(test)]
mod tests {
    use std::error::Error;

    use kiln_store::Store;

    use super::tars::{COMPRESSIONS, Item, compress, file, refused, tar, within};
    use super::*;

    fn unpack(store: &Store, items: &[Item], how: &str) -> Result<Tree, ArchiveError> {
        let bytes = compress(how, &tar(items));
        let packing = packing(&bytes[..]).expect("it begins as an archive");
        let batch = store.objects.batch();
        let tree = read(&bytes[..], packing, bytes.len() as u64, &batch, 5_000_000)?;
        batch.commit().unwrap();
        // What was unpacked can be stored.
        store.trees.put(&tree).unwrap();
        Ok(tree)
    }

    fn names(tree: &Tree) -> String {
        let names = tree.iter().map(|(path, _)| String::from_utf8_lossy(path.as_bytes()).into_owned());
        names.skip(1).collect::<Vec<_>>().join(" ")
    }

    fn causes(error: &dyn Error) -> String {
        let cause = error.source().map(|source| format!(": {}", causes(source)));
        format!("{error}{}", cause.unwrap_or_default())
    }

    /// What an ADD takes, though a layer may not have it: whiteouts mean nothing here, and an attribute that makes no sense is
    /// left out.
    const TAKEN: [&str; 6] = [
        "a whiteout of the parent",
        "a whiteout of the folder",
        "a whiteout of nothing",
        "a size that is no number",
        "a time that is none",
        "a long extended attribute",
    ];

    #[test]
    fn archives_that_mean_harm_are_refused_whatever_they_are_compressed_with() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let (taken, harmful): (Vec<_>, Vec<_>) =
            refused().into_iter().partition(|(what, _)| TAKEN.contains(what));
        assert!(harmful.len() + taken.len() >= 40);
        for how in COMPRESSIONS {
            for (what, items) in &harmful {
                let unpacked = unpack(&store, items, how).map(|tree| names(&tree));
                assert!(unpacked.is_err(), "{what} as {how}: {unpacked:?}");
            }
        }
        assert!(store.objects.list().unwrap().is_empty(), "nothing of them was stored");
        for how in COMPRESSIONS {
            for (what, items) in &taken {
                let unpacked = unpack(&store, items, how).map(|tree| names(&tree));
                assert!(unpacked.is_ok(), "{what} as {how}: {:?}", unpacked.map_err(|error| causes(&error)));
            }
        }
    }

    #[test]
    fn what_reaches_out_by_a_link_stays_within() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        // Whiteouts mean nothing here.
        let whiteouts = vec![file("d/.wh.x", ""), file(".wh..wh..opq", "")];
        for (items, left) in within().into_iter().chain([(whiteouts, ".wh..wh..opq d d/.wh.x")]) {
            for how in COMPRESSIONS {
                let tree = unpack(&store, &items, how).map_err(|error| causes(&error)).unwrap();
                assert_eq!(names(&tree), left);
            }
        }
    }
}
