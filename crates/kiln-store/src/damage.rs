//! Finds stored files whose bytes are not those that were stored: a bad disk, or somebody's hand.
//!
//! This kernel's file systems need not know fs-verity, so nothing notices while an instance reads. What is to be started is
//! read as a whole before, which takes as long as hashing it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind, Read};

use kiln_model::Digest;
use sha2::{Digest as _, Sha256};

use crate::error::ReadError;
use crate::store::Store;
use crate::tree::{Kind, Tree, TreePath};

/// Large enough that hashing is what takes the time.
const READ_BYTES: usize = 128 << 10;

/// Something that an instance of an image would read, and that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// What in the image; none where it is the tree itself.
    pub path: Option<TreePath>,
    /// What it should be.
    pub digest: Digest,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{path} is damaged in the store: {}", self.reason),
            None => write!(f, "its tree is damaged in the store: {}", self.reason),
        }
    }
}

impl Store {
    /// Reads all that an instance of an image would see, and returns what is damaged or gone, each file once.
    ///
    /// # Errors
    /// The image's record is missing or corrupt, or a file can't be read.
    pub fn damage(&self, manifest: &Digest) -> Result<Vec<Damage>, ReadError> {
        let image = self.images.get(manifest)?;
        let tree = match self.trees.load_furnished(&image.tree) {
            Ok(tree) => tree,
            Err(error) => return Ok(vec![self.of_tree(image.tree, error)?]),
        };
        let mut found = Vec::new();
        let variants = self.trees.variants().into_iter().filter(|(base, _)| *base == image.tree);
        for (_, variant) in variants.filter(|(_, variant)| self.trees.contains(variant)) {
            if let Err(error) = self.trees.load_furnished(&variant) {
                found.push(self.of_tree(variant, error)?);
            }
        }
        for (digest, (path, size)) in objects(&tree) {
            if let Some(reason) = self.object_damage(&digest, size)? {
                found.push(Damage { path: Some(path.clone()), digest, reason });
            }
        }
        Ok(found)
    }

    /// Removes what is damaged, so that a bake makes it again: what is there is never written a second time.
    ///
    /// # Errors
    /// The file system refused.
    pub fn discard(&self, damage: &Damage) -> io::Result<()> {
        match damage.path {
            Some(_) => self.objects.remove(&damage.digest).map(drop),
            None => self.trees.remove(&damage.digest).map(drop),
        }
    }

    fn of_tree(&self, digest: Digest, error: ReadError) -> Result<Damage, ReadError> {
        match error {
            ReadError::Missing(_) | ReadError::Corrupt { .. } => {
                Ok(Damage { path: None, digest, reason: error.to_string() })
            }
            other => Err(other),
        }
    }

    fn object_damage(&self, digest: &Digest, size: u64) -> Result<Option<String>, ReadError> {
        let mut file = match self.objects.open_file(digest) {
            Ok(file) => file,
            Err(ReadError::Missing(_)) => return Ok(Some(format!("{digest} is gone"))),
            Err(error) => return Err(error),
        };
        let (mut hash, mut read, mut buffer) = (Sha256::new(), 0, vec![0; READ_BYTES]);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    hash.update(&buffer[..count]);
                    read += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(ReadError::at(self.objects.path_of(digest))(error)),
            }
        }
        let found = Digest::new(hash.finalize().into());
        let reason = format!("{digest} has {read} bytes that hash to {found}");
        Ok((found != *digest || read != size).then_some(reason))
    }
}

/// The content of a tree's files, each once, under the first of its names.
fn objects(tree: &Tree) -> BTreeMap<Digest, (&TreePath, u64)> {
    let mut found = BTreeMap::new();
    for (path, entry) in tree.iter() {
        // An empty file has no content that could be wrong.
        if let Kind::File { digest, size: size @ 1.. } = &entry.kind {
            found.entry(*digest).or_insert((path, *size));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use kiln_model::image::{Image, ImageConfig};

    use super::*;
    use crate::skeleton::MountPoint;
    use crate::tree::{Entry, Meta};

    /// A store with an image of two files of the same content and one of another.
    fn baked() -> (tempfile::TempDir, Store, Digest) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let mut tree = Tree::new();
        for (name, text) in [("a", "same"), ("b", "same"), ("c", "other"), ("empty", "")] {
            let digest = store.objects.put_bytes(text.as_bytes()).unwrap();
            let kind = Kind::File { digest, size: text.len() as u64 };
            tree.insert(&TreePath::parse(name).unwrap(), Entry { meta: Meta::default(), kind }).unwrap();
        }
        let manifest = Digest::new([7; 32]);
        let tree = store.trees.put(&tree).unwrap();
        let config = ImageConfig::default();
        store.images.put(&Image { manifest, tree, config, size_bytes: 9, unproven: Vec::new() }).unwrap();
        (folder, store, manifest)
    }

    #[test]
    fn a_whole_image_has_no_damage() {
        let (_folder, store, image) = baked();
        assert_eq!(store.damage(&image).unwrap(), []);
    }

    #[test]
    fn a_changed_and_a_missing_file_are_found_once_and_can_be_made_again() {
        let (_folder, store, image) = baked();
        let digest = store.objects.put_bytes(b"same").unwrap();
        std::fs::write(store.objects.path_of(&digest), "fame").unwrap();
        let other = store.objects.put_bytes(b"other").unwrap();
        store.objects.remove(&other).unwrap();
        let found = store.damage(&image).unwrap();
        let mut paths: Vec<String> =
            found.iter().map(|damage| damage.path.as_ref().unwrap().to_string()).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["/a", "/c"]);
        // Of the same length, so storing it again changes nothing until it is discarded.
        store.objects.put_bytes(b"same").unwrap();
        assert_eq!(store.damage(&image).unwrap().len(), 2);
        for damage in &found {
            store.discard(damage).unwrap();
        }
        store.objects.put_bytes(b"same").unwrap();
        store.objects.put_bytes(b"other").unwrap();
        assert_eq!(store.damage(&image).unwrap(), []);
    }

    #[test]
    fn a_damaged_tree_or_variant_is_found() {
        let (_folder, store, image) = baked();
        let tree = store.images.get(&image).unwrap().tree;
        let point = MountPoint::Dir(TreePath::parse("data").unwrap());
        let variant = store.trees.with_mount_points(&tree, &[point]).unwrap();
        for digest in [variant, tree] {
            let path = store.trees.path_of(&digest);
            let good = std::fs::read(&path).unwrap();
            let mut bad = good.clone();
            bad[1100] ^= 1;
            std::fs::write(&path, bad).unwrap();
            let found = store.damage(&image).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].path.as_ref(), found[0].digest), (None, digest));
            store.discard(&found[0]).unwrap();
            assert!(!store.trees.contains(&digest));
            std::fs::write(&path, good).unwrap();
        }
    }
}
