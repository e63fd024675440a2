//! A look that reads no file of an image: what is gone shows at once, what is rotten where it was read before.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::Digest;

use super::{Damage, Verification, named, of_tree};
use crate::error::ReadError;
use crate::stamp::Stamp;

/// What a glance at an image showed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Glance {
    /// What is gone, or has another size than it should have.
    pub damage: Vec<Damage>,
    /// What is there, and was not read within a day or was written to since: only reading it tells whether it is whole.
    pub unread: BTreeSet<Digest>,
}

impl Verification {
    /// Looks at all that an instance of an image would see without reading it, but for the tree's own metadata.
    ///
    /// # Errors
    /// The image's record is missing or corrupt, or the store can't be read.
    pub fn glance(&mut self, manifest: &Digest) -> Result<Glance, ReadError> {
        let tree = self.store.images.get(manifest)?.tree;
        let mut glance = Glance::default();
        let objects = match self.objects_of(&tree) {
            Ok(objects) => objects,
            Err(error) => {
                glance.damage.push(of_tree(tree, error)?);
                return Ok(glance);
            }
        };
        let shelf = self.store.objects.shelf();
        let looks = shelf.looks().map_err(ReadError::at(shelf.root()))?;
        let mut reasons = BTreeMap::new();
        for (digest, size) in self.unseen(&objects) {
            let stat = looks.stat(&digest).map_err(ReadError::at(self.store.objects.path_of(&digest)))?;
            let (is_believed, found) = match &stat {
                Some(stat) => {
                    let is_believed = self.is_believed(&digest, &Stamp::of_stat(stat));
                    (is_believed, u64::try_from(stat.st_size).ok())
                }
                None => (false, shelf.size(&digest)),
            };
            match found {
                _ if is_believed => drop(self.seen.insert(digest)),
                Some(found) if found == size => drop(glance.unread.insert(digest)),
                Some(found) => {
                    drop(reasons.insert(digest, format!("{digest} has {found} bytes, not {size}")))
                }
                None => drop(reasons.insert(digest, format!("{digest} is gone"))),
            }
        }
        if !reasons.is_empty() {
            glance.damage = named(&self.store.trees.load_furnished(&tree)?, reasons);
        }
        Ok(glance)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{baked, damage};
    use super::*;

    #[test]
    fn a_glance_finds_what_is_gone_or_cut_and_counts_what_it_did_not_read() {
        let (_folder, store, image) = baked();
        let [same, other] = ["same", "other"].map(|text| store.objects.put_bytes(text.as_bytes()).unwrap());
        let glance = || {
            let mut verification = store.verification();
            verification.now = std::time::SystemTime::now() + std::time::Duration::from_secs(10);
            verification.glance(&image).unwrap()
        };
        assert_eq!(glance(), Glance { damage: Vec::new(), unread: [same, other].into() });
        assert_eq!(damage(&store, &image).unwrap(), []);
        assert_eq!(glance(), Glance::default(), "it was read, and nothing was written to since");
        std::fs::write(store.objects.path_of(&same), "cut").unwrap();
        store.objects.remove(&other).unwrap();
        let found = glance().damage;
        let shown = |damage: &Damage| (damage.path.as_ref().unwrap().to_string(), damage.reason.clone());
        let found: Vec<(String, String)> = found.iter().map(shown).collect();
        assert_eq!(
            found,
            [
                ("/a".to_owned(), format!("{same} has 3 bytes, not 4")),
                ("/c".to_owned(), format!("{other} is gone"))
            ]
        );
        store.trees.remove(&store.images.get(&image).unwrap().tree).unwrap();
        assert_eq!(glance().damage.len(), 1);
        assert!(store.verification().glance(&Digest::new([9; 32])).is_err());
    }
}
