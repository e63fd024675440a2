//! Packing what is kept, and not needed before somebody goes back to it.
//!
//! First everything is copied into packs, while bakes and starts go on. Then, while nobody stores and nothing is started, the
//! plain files go: of each tree that loses some it is noted before, so that it is unpacked before it is mounted again.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};

use kiln_model::Digest;

use crate::collect::{Needed, ZSTD_MAGIC};
use crate::error::ReadError;
use crate::lease::Collection;
use crate::packs::Kind;
pub use crate::packs::{PackDamage, PackError, StartsHeld};
use crate::shelf::Shelf;
use crate::store::Store;

/// What may be packed: what is kept, and nothing that is used is made of.
#[derive(Debug, Default)]
pub struct Cold {
    /// In the order of the trees that they are in: what lies beside each other is alike.
    objects: Vec<Digest>,
    layers: Vec<Digest>,
    bytes: u64,
}

impl Cold {
    /// How many file objects and layers there are. A layer that was not made by a bake stays as it is all the same.
    pub fn files(&self) -> u64 {
        (self.objects.len() + self.layers.len()) as u64
    }

    /// The bytes of them.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// What became of the plain files of what is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shed {
    /// File objects and layers that are packed alone from now on.
    pub files: u64,
    /// The bytes of them.
    pub bytes: u64,
}

impl Store {
    /// Returns what may be packed: what is `needed` and not `used`.
    ///
    /// # Errors
    /// A tree that is kept can't be read.
    pub fn cold(&self, _begun: &Collection, needed: &Needed, used: &Needed) -> Result<Cold, ReadError> {
        let mut cold = Cold::default();
        let mut seen = BTreeSet::new();
        for tree in needed.trees.difference(&used.trees) {
            for object in self.trees.load_furnished(tree)?.objects() {
                let is_cold = needed.objects.contains(&object) && !used.objects.contains(&object);
                if is_cold && seen.insert(object) {
                    // An empty file takes no room that packing could save.
                    let size = self.objects.shelf().plain_size(&object).filter(|size| *size > 0);
                    cold.objects.extend(size.map(|_| object));
                    cold.bytes += size.unwrap_or(0);
                }
            }
        }
        for blob in needed.digests.difference(&used.digests) {
            if self.is_plain_layer(blob)? {
                cold.layers.push(*blob);
                cold.bytes += self.blobs.shelf().plain_size(blob).unwrap_or(0);
            }
        }
        Ok(cold)
    }

    /// Copies into packs what is cold and not there yet; returns the bytes that the packs grew by. The plain files stay.
    ///
    /// # Errors
    /// The disk is full, or fails. What was packed before that stays so.
    pub fn pack(&self, cold: &Cold) -> Result<u64, PackError> {
        let objects = cold.objects.iter().map(|it| (Kind::Object, *it, self.objects.shelf()));
        // After the files, whose chunks they share.
        let layers = cold.layers.iter().map(|it| (Kind::Layer, *it, self.blobs.shelf()));
        self.packs.add(objects.chain(layers))
    }

    /// Holds off every mount, until it is dropped.
    ///
    /// # Errors
    /// The file system refused.
    pub fn hold_starts(&self) -> std::io::Result<StartsHeld> {
        self.packs.hold_starts()
    }

    /// Removes the plain files of what is cold and packed. What is used must have been looked up since the mounts were held off.
    ///
    /// # Errors
    /// The file system refused; what is left is whole.
    pub fn shed(&self, _begun: &Collection, _held: &StartsHeld, cold: &Cold) -> Result<Shed, PackError> {
        let is_packed = |shelf: &Shelf, digest: &Digest| shelf.plain_size(digest) == self.packs.size(digest);
        let (objects, layers) = (self.objects.shelf(), self.blobs.shelf());
        let going: BTreeSet<Digest> =
            cold.objects.iter().filter(|it| is_packed(objects, it)).copied().collect();
        for tree in self.trees.list()? {
            if self.trees.load_furnished(&tree)?.objects().any(|object| going.contains(&object)) {
                self.packs.mark(&tree)?;
            }
        }
        self.packs.sync_marks()?;
        let mut shed = Shed::default();
        let mut remove = |shelf: &Shelf, digest: &Digest| {
            let size = shelf.plain_size(digest).unwrap_or(0);
            if shelf.remove_plain(digest)? {
                (shed.files, shed.bytes) = (shed.files + 1, shed.bytes + size);
            }
            Ok::<(), PackError>(())
        };
        going.iter().try_for_each(|digest| remove(objects, digest))?;
        cold.layers.iter().filter(|it| is_packed(layers, it)).try_for_each(|it| remove(layers, it))?;
        Ok(shed)
    }

    /// Whether an image must be unpacked before it is started, which happens by itself.
    pub fn is_packed(&self, manifest: &Digest) -> bool {
        self.images.get(manifest).is_ok_and(|image| self.trees.is_packed(&image.tree))
    }

    /// Returns what is wrong with the packs, as far as that can be told without reading all of them.
    pub fn pack_damage(&self) -> Vec<PackDamage> {
        self.packs.damage()
    }

    /// Returns how many bytes the packs take.
    ///
    /// # Errors
    /// The file system refused.
    pub fn packed_bytes(&self) -> std::io::Result<u64> {
        self.packs.bytes()
    }

    fn is_plain_layer(&self, blob: &Digest) -> Result<bool, ReadError> {
        let path = self.blobs.path_of(blob);
        let mut magic = [0; ZSTD_MAGIC.len()];
        let read = std::fs::File::open(&path).and_then(|mut file| file.read_exact(&mut magic));
        match read {
            Ok(()) => Ok(magic == ZSTD_MAGIC),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) => Ok(false),
            Err(error) => Err(ReadError::at(path)(error)),
        }
    }
}

#[cfg(test)]
mod tests;
