//! How much room the store takes, and how much of it what is kept.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use kiln_model::Digest;

use crate::collect::Needed;
use crate::shelf::Shelf;
use crate::store::Store;

/// File systems allot room in these. What they say themselves changes after a file was written, with what they have not
/// written back or allotted ahead; what is stored is never sparse.
const BLOCK_BYTES: u64 = 4 << 10;

/// The room that trees, file objects, blobs and packs took on the disk when it was looked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    trees: BTreeMap<Digest, u64>,
    objects: BTreeMap<Digest, u64>,
    blobs: BTreeMap<Digest, u64>,
    /// Each after the tree that it was made of, with which it goes.
    variants: Vec<(Digest, Digest)>,
    packs: u64,
}

impl Store {
    /// Looks how much room everything takes. What is stored or goes meanwhile may be missing.
    ///
    /// # Errors
    /// The file system refused.
    pub fn inventory(&self) -> io::Result<Inventory> {
        let of = |shelf: &Shelf| {
            let digests = shelf.list()?.into_iter();
            Ok::<_, io::Error>(digests.map(|it| (it, room(&shelf.path_of(&it)))).collect())
        };
        let trees = self.trees.list()?.into_iter();
        Ok(Inventory {
            trees: trees.map(|tree| (tree, room(&self.trees.path_of(&tree)))).collect(),
            objects: of(self.objects.shelf())?,
            blobs: of(self.blobs.shelf())?,
            variants: self.trees.variants(),
            packs: self.packed_bytes()?,
        })
    }
}

impl Inventory {
    /// Returns the bytes of all of it.
    pub fn bytes(&self) -> u64 {
        let plain = [&self.trees, &self.objects, &self.blobs].into_iter().flat_map(BTreeMap::values);
        plain.sum::<u64>() + self.packs
    }

    /// Returns the bytes of what is not packed and kept.
    pub fn bytes_of(&self, needed: &Needed) -> u64 {
        let trees = self.trees.iter().filter(|(tree, _)| needed.trees.contains(tree));
        let variants = self
            .variants
            .iter()
            .filter(|(base, variant)| needed.trees.contains(base) && !needed.trees.contains(variant));
        let objects = self.objects.iter().filter(|(object, _)| needed.objects.contains(object));
        let blobs = self.blobs.iter().filter(|(blob, _)| needed.contains_blob(blob));
        trees.chain(objects).chain(blobs).map(|(_, bytes)| bytes).sum::<u64>()
            + variants.filter_map(|(_, variant)| self.trees.get(variant)).sum::<u64>()
    }

    /// Returns the bytes of all packs.
    pub const fn packs_bytes(&self) -> u64 {
        self.packs
    }
}

/// What went since it was listed takes none.
fn room(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).map_or(0, |meta| meta.len().next_multiple_of(BLOCK_BYTES))
}

#[cfg(test)]
mod tests {
    use kiln_model::image::{Image, ImageConfig};

    use super::*;
    use crate::skeleton::MountPoint;
    use crate::tree::{Entry, Tree, TreePath};

    const FILE_BYTES: usize = 64 << 10;

    fn image(store: &Store, seed: u8) -> Digest {
        let mut tree = Tree::new();
        for (name, seed) in [("own", seed), ("shared", 0)] {
            let object = store.objects.put_bytes(&[seed; FILE_BYTES]).unwrap();
            let entry = Entry::file(0o644, object, FILE_BYTES as u64);
            tree.insert(&TreePath::parse(name).unwrap(), entry).unwrap();
        }
        let (manifest, tree) = (store.blobs.put_bytes(&[seed]).unwrap(), store.trees.put(&tree).unwrap());
        store.trees.with_mount_points(&tree, &[MountPoint::Dir(TreePath::parse("data").unwrap())]).unwrap();
        let config = ImageConfig::default();
        store.images.put(&Image { manifest, tree, config, size_bytes: 1, unproven: Vec::new() }).unwrap();
        manifest
    }

    #[test]
    fn what_images_share_counts_once_and_what_is_kept_is_what_a_collection_leaves() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let empty = store.inventory().unwrap();
        assert_eq!((empty.bytes(), empty.packs_bytes()), (0, 0));
        let [kept, other] = [1, 2].map(|seed| image(&store, seed));
        let begun = store.leases.begin_collection().unwrap();
        let of = |images: &[Digest]| {
            let mut needed = Needed::default();
            store.need(&begun, &mut needed, images.iter().copied()).unwrap();
            needed
        };
        let all = store.inventory().unwrap();
        let file = FILE_BYTES as u64;
        assert!((3 * file..4 * file).contains(&all.bytes()), "{}", all.bytes());
        assert_eq!(all.bytes_of(&of(&[kept, other])), all.bytes());
        assert_eq!(all.bytes_of(&of(&[])), 0);
        let needed = of(&[kept]);
        let bytes = all.bytes_of(&needed);
        store.collect(&begun, &needed).unwrap();
        assert_eq!(store.inventory().unwrap().bytes(), bytes);

        let cold = store.cold(&begun, &needed, &Needed::default()).unwrap();
        store.pack(&cold).unwrap();
        store.shed(&begun, &store.hold_starts().unwrap(), &cold).unwrap();
        let packed = store.inventory().unwrap();
        assert!(packed.packs_bytes() > 0 && packed.bytes() < bytes, "{} of {bytes}", packed.bytes());
    }
}
