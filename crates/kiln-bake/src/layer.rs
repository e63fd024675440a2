//! What a step changed, as a layer of an OCI image: a tar with whiteouts, compressed.
//!
//! Source: the OCI image specification's `layer.md`, and pax(1) for what a ustar header can't hold. The bytes follow from the
//! two trees alone: entries in the order of paths, one thread, one level.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use kiln_model::Digest;
use kiln_store::snapshot::Held;
use kiln_store::tree::{Changes, Inode};
use kiln_store::{Batch, Blobs, Entry, Kind, Objects, PutError, ReadError, Tree, TreePath};
use tar::{EntryType, Header};

use crate::beside::let_pass;
use crate::hashing::{COPY_BYTES, Hashing};

/// zstd's own default: a layer is made once and read often, and level 3 keeps up with the disk.
const LEVEL: i32 = 3;

/// How a layer's tar is compressed. What is made here is `Zstd`; images of registries have all three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// Returns the media type of a layer.
    pub(crate) const fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    /// Reads a layer's media type, as the OCI and Docker write it.
    pub(crate) fn of(media_type: &str) -> Self {
        match media_type {
            it if it.ends_with("gzip") => Self::Gzip,
            it if it.ends_with("zstd") => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// The largest number that 11 octal digits hold.
const OCTAL_11_MAX: u64 = 0o77_777_777_777;

/// The largest number that 7 octal digits hold.
const OCTAL_7_MAX: u64 = 0o7_777_777;

/// A layer in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layer {
    /// The blob.
    pub(crate) digest: Digest,
    /// Its size.
    pub(crate) size: u64,
    /// The digest of the tar before it was compressed.
    pub(crate) diff_id: Digest,
    /// How it was compressed.
    pub(crate) compression: Compression,
}

/// Why a layer can't be made.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// A file of the tree can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It can't be stored.
    #[error(transparent)]
    Put(#[from] PutError),
    /// It can't be written.
    #[error("the layer can't be written")]
    Write(#[source] io::Error),
}

/// Adds to a batch the layer that turns `old` into `new`; nothing where they are equal.
pub(crate) fn put_into(
    batch: &Batch,
    blobs: &Blobs,
    objects: &Objects,
    old: &Tree,
    new: &Tree,
) -> Result<Option<Layer>, LayerError> {
    let changes = old.changes(new);
    if changes.is_empty() {
        return Ok(None);
    }
    let blob = blobs.writer()?;
    // The encoder sees blocks of one size whatever the sizes of files: its output can't depend on how it was fed.
    let encoder = zstd::stream::write::Encoder::new(blob, LEVEL).map_err(LayerError::Write)?;
    let sink = Hashing::new(io::BufWriter::with_capacity(COPY_BYTES, encoder));
    let held = objects.held();
    let mut writer = LayerWriter { sink, held, buffer: Vec::new(), first: BTreeMap::new() };
    writer.write(new, &changes)?;
    let (buffered, diff_id) = writer.sink.finish();
    let encoder = buffered.into_inner().map_err(|error| LayerError::Write(error.into_error()))?;
    let stored = encoder.finish().map_err(LayerError::Write)?.finish_into(batch);
    let compression = Compression::Zstd;
    Ok(Some(Layer { digest: stored.digest, size: stored.size, diff_id, compression }))
}

struct LayerWriter<W: Write> {
    sink: Hashing<W>,
    held: Held,
    /// For the content of files: most are small, and one for each took longer than their bytes.
    buffer: Vec<u8>,
    /// The path under which each file with several names was written.
    first: BTreeMap<Inode, TreePath>,
}

impl<W: Write> LayerWriter<W> {
    fn write(&mut self, new: &Tree, changes: &Changes<'_>) -> Result<(), LayerError> {
        // A whiteout stands before what is put: a name that was removed and one that was added never meet.
        let mut gone: Option<&TreePath> = None;
        for &path in &changes.gone {
            if gone.is_some_and(|gone| path.is_within(gone)) {
                continue;
            }
            gone = Some(path);
            // What lay in a folder that became a file goes with the folder.
            let folder = path.parent().unwrap_or_default();
            if new.get(&folder).is_some_and(Entry::is_dir) {
                self.whiteout(&folder, path.name())?;
            }
        }
        for (path, entry) in changes.put.iter().filter(|(path, _)| !path.is_root()) {
            let_pass();
            self.entry(new, path, entry)?;
        }
        self.sink.write_all(&[0; 1024]).map_err(LayerError::Write)
    }

    fn whiteout(&mut self, folder: &TreePath, name: &[u8]) -> Result<(), LayerError> {
        let mut path = folder.as_bytes().to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(b".wh.");
        path.extend_from_slice(name);
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0);
        header.set_size(0);
        header.set_mtime(0);
        self.header(&path, b"", header, Vec::new())
    }

    fn entry(&mut self, tree: &Tree, path: &TreePath, entry: &Entry) -> Result<(), LayerError> {
        let inode = tree.inode(path).expect("the path was listed by this tree");
        let mut header = Header::new_ustar();
        let mut link: &[u8] = b"";
        let mut name = path.as_bytes().to_vec();
        let mut content = None;
        let linked = self.first.get(&inode).cloned();
        if let Some(first) = &linked {
            header.set_entry_type(EntryType::Link);
            link = first.as_bytes();
        } else {
            if tree.links(path) > 1 {
                self.first.insert(inode, path.clone());
            }
            match &entry.kind {
                Kind::Dir => {
                    header.set_entry_type(EntryType::Directory);
                    name.push(b'/');
                }
                Kind::File { digest, size } => {
                    header.set_entry_type(EntryType::Regular);
                    content = Some((digest, *size));
                }
                Kind::Symlink { target } => {
                    header.set_entry_type(EntryType::Symlink);
                    link = target;
                }
                Kind::Fifo => header.set_entry_type(EntryType::Fifo),
                Kind::Char { major, minor } => set_device(&mut header, EntryType::Char, *major, *minor)?,
                Kind::Block { major, minor } => set_device(&mut header, EntryType::Block, *major, *minor)?,
                // A tar has no sockets.
                Kind::Socket => return Ok(()),
            }
        }
        let records = set_meta(&mut header, entry, content.map_or(0, |(_, size)| size));
        self.header(&name, link, header, records)?;
        match content {
            Some((digest, size)) => self.content(digest, size),
            None => Ok(()),
        }
    }

    fn header(
        &mut self,
        path: &[u8],
        link: &[u8],
        mut header: Header,
        mut records: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<(), LayerError> {
        let ustar = header.as_ustar_mut().expect("it was made as one");
        if !put(&mut ustar.name, path) {
            records.push((b"path".to_vec(), path.to_vec()));
        }
        if !put(&mut ustar.linkname, link) {
            records.push((b"linkpath".to_vec(), link.to_vec()));
        }
        if !records.is_empty() {
            self.extended(records)?;
        }
        seal(&mut header);
        self.sink.write_all(header.as_bytes()).map_err(LayerError::Write)
    }

    fn extended(&mut self, mut records: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), LayerError> {
        records.sort();
        let mut body = Vec::new();
        for (key, value) in &records {
            body.extend(record(key, value));
        }
        let mut header = Header::new_ustar();
        put(&mut header.as_ustar_mut().expect("it was made as one").name, b"././@PaxHeader");
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_size(body.len() as u64);
        seal(&mut header);
        self.sink.write_all(header.as_bytes()).map_err(LayerError::Write)?;
        self.sink.write_all(&body).map_err(LayerError::Write)?;
        self.pad(body.len() as u64)
    }

    fn content(&mut self, digest: &Digest, size: u64) -> Result<(), LayerError> {
        let mut file = self.held.open_file(digest)?;
        let mut left = size;
        while left > 0 {
            let wanted = COPY_BYTES.min(usize::try_from(left).unwrap_or(COPY_BYTES));
            if self.buffer.len() < wanted {
                self.buffer.resize(wanted, 0);
            }
            let part = &mut self.buffer[..wanted];
            file.read_exact(part).map_err(LayerError::Write)?;
            self.sink.write_all(part).map_err(LayerError::Write)?;
            left -= wanted as u64;
        }
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> Result<(), LayerError> {
        let rest = (512 - size % 512) % 512;
        self.sink.write_all(&[0; 512][..rest as usize]).map_err(LayerError::Write)
    }
}

fn set_device(header: &mut Header, kind: EntryType, major: u32, minor: u32) -> Result<(), LayerError> {
    header.set_entry_type(kind);
    header.set_device_major(major).map_err(LayerError::Write)?;
    header.set_device_minor(minor).map_err(LayerError::Write)
}

/// Fills in the attributes, and returns as pax records what the fields can't hold.
fn set_meta(header: &mut Header, entry: &Entry, size: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    let meta = &entry.meta;
    let mut records = Vec::new();
    let mut number = |key: &str, value: i64, max: u64| {
        if value >= 0 && value as u64 <= max {
            return value as u64;
        }
        records.push((key.as_bytes().to_vec(), value.to_string().into_bytes()));
        0
    };
    header.set_mode(u32::from(meta.mode));
    header.set_uid(number("uid", meta.uid.into(), OCTAL_7_MAX));
    header.set_gid(number("gid", meta.gid.into(), OCTAL_7_MAX));
    header.set_size(number("size", size as i64, OCTAL_11_MAX));
    header.set_mtime(number("mtime", meta.mtime.secs, OCTAL_11_MAX));
    for (name, value) in &meta.xattrs {
        records.push(([b"SCHILY.xattr.", name.as_slice()].concat(), value.clone()));
    }
    records
}

/// Puts text into a field; refused where it is too long, or not plain ASCII, which old readers get wrong.
fn put(field: &mut [u8], text: &[u8]) -> bool {
    let fits = text.len() <= field.len() && text.is_ascii();
    if fits {
        field[..text.len()].copy_from_slice(text);
    }
    fits
}

/// As [`Header::set_cksum`], which looks at one byte after the other: for a small file that takes as long as to hash it.
fn seal(header: &mut Header) {
    header.as_old_mut().cksum = [b' '; 8];
    let sum: u32 = header.as_bytes().iter().map(|byte| u32::from(*byte)).sum();
    let digit = |at: usize| b'0' + (sum >> (3 * (6 - at)) & 7) as u8;
    header.as_old_mut().cksum = std::array::from_fn(|at| if at == 7 { 0 } else { digit(at) });
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use kiln_store::{Meta, Mtime, Store};

    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    fn store(store: &Store, old: &Tree, new: &Tree) -> Option<Layer> {
        let batch = store.blobs.batch();
        let layer = put_into(&batch, &store.blobs, &store.objects, old, new).unwrap();
        batch.commit().unwrap();
        layer
    }

    fn sample(store: &Store) -> Tree {
        let digest = store.objects.put_bytes(b"hello").unwrap();
        let mut tree = Tree::new();
        tree.insert(&path("etc"), Entry::dir(0o755)).unwrap();
        tree.insert(&path("etc/a"), Entry::file(0o640, digest, 5)).unwrap();
        tree.link(&path("etc/b"), &path("etc/a")).unwrap();
        tree.insert(&path("etc/l"), Entry::symlink("a")).unwrap();
        let long = format!("etc/{}", "n".repeat(180));
        let meta = Meta {
            mode: 0o755,
            uid: 3_000_000,
            mtime: Mtime { secs: 7, nanos: 0 },
            xattrs: [(b"security.capability".to_vec(), vec![1, 0, 9])].into(),
            ..Meta::default()
        };
        tree.insert(&path(&long), Entry { meta, kind: Kind::File { digest, size: 5 } }).unwrap();
        tree
    }

    #[test]
    fn a_header_is_sealed_as_the_library_seals_it() {
        for fill in [0, 1, 7, 0o52, 0x7f, 0xff] {
            let mut ours = Header::new_ustar();
            ours.as_mut_bytes()[3..].fill(fill);
            let mut theirs = ours.clone();
            seal(&mut ours);
            theirs.set_cksum();
            assert_eq!(ours.as_bytes(), theirs.as_bytes(), "{fill}");
        }
    }

    #[test]
    fn a_layer_can_be_packed_since_it_comes_out_the_same_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let mut tree = sample(&store);
        let content: Vec<u8> = (0..300_000_u32).flat_map(|number| (number % 1_000).to_le_bytes()).collect();
        let digest = store.objects.put_bytes(&content).unwrap();
        tree.insert(&path("large"), Entry::file(0o644, digest, content.len() as u64)).unwrap();
        let layer = self::store(&store, &Tree::new(), &tree).unwrap();
        let begun = store.leases.begin_collection().unwrap();
        let mut needed = kiln_store::Needed::default();
        store.need(&begun, &mut needed, [layer.digest]).unwrap();
        let cold = store.cold(&begun, &needed, &Default::default()).unwrap();
        store.pack(&cold).unwrap();
        let shed = store.shed(&begun, &store.hold_starts().unwrap(), &cold).unwrap();
        assert_eq!((shed.files, shed.bytes), (1, layer.size));
        assert!(!store.blobs.path_of(&layer.digest).exists());
        assert_eq!(store.blobs.read_verified(&layer.digest).unwrap().len() as u64, layer.size);
    }

    /// Lists a layer as another implementation reads it.
    fn list(store: &Store, layer: &Layer) -> Vec<String> {
        let blob = store.blobs.open_file(&layer.digest).unwrap();
        let mut archive = tar::Archive::new(zstd::stream::read::Decoder::new(blob).unwrap());
        let mut lines = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let kind = entry.header().entry_type();
            let shown = entry.path().unwrap().display().to_string();
            let link = entry.link_name().unwrap().map(|link| link.display().to_string()).unwrap_or_default();
            let pax: Vec<String> = entry
                .pax_extensions()
                .unwrap()
                .into_iter()
                .flatten()
                .map(|record| record.unwrap().key().unwrap().to_owned())
                .collect();
            lines.push(
                format!("{kind:?} {shown} {link} {}", pax.join(","))
                    .trim_end()
                    .replace(&"n".repeat(180), "nnn"),
            );
        }
        lines
    }

    #[test]
    fn a_first_layer_holds_everything_once() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let store = Store::open(folder.path()).unwrap();
        let layer = self::store(&store, &Tree::new(), &sample(&store)).unwrap();
        assert_eq!(
            list(&store, &layer),
            [
                "Directory etc/",
                "Regular etc/a",
                "Link etc/b etc/a",
                "Symlink etc/l a",
                "Regular etc/nnn  SCHILY.xattr.security.capability,path,uid",
            ]
        );
    }

    #[test]
    fn a_change_holds_what_differs_and_whiteouts_for_what_went() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let store = Store::open(folder.path()).unwrap();
        let old = sample(&store);
        let mut new = old.clone();
        new.remove(&path("etc/l"));
        new.insert(&path("new"), Entry::dir(0o700)).unwrap();
        let layer = self::store(&store, &old, &new).unwrap();
        assert_eq!(list(&store, &layer), ["Regular etc/.wh.l", "Directory new/"]);
        assert_eq!(self::store(&store, &new, &new.clone()), None);
    }

    #[test]
    fn the_same_trees_give_the_same_bytes() {
        let make = || {
            let folder = tempfile::tempdir_in("/var/tmp").unwrap();
            let store = Store::open(folder.path()).unwrap();
            self::store(&store, &Tree::new(), &sample(&store)).unwrap()
        };
        let layer = make();
        assert_eq!(layer, make());
        assert_eq!(
            layer.diff_id.to_string(),
            "sha256:6561e1bebf9166b5d9c9a1db21b46e7c8801f09e98a0a776cf68e0bd93e88f14",
            "a change of the layer format gives every image another digest"
        );
    }
}
