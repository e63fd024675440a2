//! A look at images that may be asked for, while it is found out whether they are.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use kiln_model::Digest;

use super::{Verification, processors};
use crate::shelf::Looks;
use crate::stamp::Stamp;

/// So many looks are begun at a time: few enough that who comes to help finds some, and many enough that files of one folder mostly
/// come together.
const SHARE: usize = 256;

/// What is looked at ahead, by as many threads as care to: whoever comes to wait for it helps.
#[derive(Debug)]
pub struct LookAhead {
    verification: Verification,
    /// In their order.
    wanted: Vec<(Digest, u64)>,
    /// None where nothing can be looked at.
    looks: Option<Looks>,
    /// Which is the first that nobody began.
    next: AtomicUsize,
    whole: Mutex<Vec<Digest>>,
}

impl Verification {
    /// Prepares to look at images that may be asked for, without reading any of their files: what is whole need not be looked at
    /// again, and all else is found when it is asked for.
    ///
    /// Hold a lease from before this look until the last: a collection would take what was seen.
    pub fn look_ahead(self, manifests: impl IntoIterator<Item = Digest>) -> LookAhead {
        let mut objects: Vec<_> = manifests.into_iter().flat_map(|image| self.expected(&image)).collect();
        objects.sort_unstable();
        objects.dedup();
        let (wanted, looks) = (self.unseen(&objects), self.store.objects.shelf().looks().ok());
        LookAhead { verification: self, wanted, looks, next: AtomicUsize::new(0), whole: Mutex::default() }
    }

    /// What an image seems to need. Of a list alone nothing is believed: each object is looked at, and so is the tree when it is
    /// asked for.
    fn expected(&self, manifest: &Digest) -> Vec<(Digest, u64)> {
        let Ok(image) = self.store.images.get(manifest) else { return Vec::new() };
        let trees = &self.store.trees;
        trees.listed_objects(&image.tree).filter(|_| trees.contains(&image.tree)).unwrap_or_default()
    }
}

impl LookAhead {
    /// Looks until there is nothing left to begin.
    pub fn work(&self) {
        let Some(looks) = &self.looks else { return };
        let (mut looks, mut whole) = (looks.in_order(), Vec::new());
        loop {
            let from = self.next.fetch_add(SHARE, Ordering::Relaxed);
            let Some(left) = self.wanted.get(from..).filter(|left| !left.is_empty()) else { break };
            for (digest, _) in &left[..left.len().min(SHARE)] {
                let stat = looks.stat(digest).ok().flatten();
                if stat.is_some_and(|stat| self.verification.is_believed(digest, &Stamp::of_stat(&stat))) {
                    whole.push(*digest);
                }
            }
        }
        self.whole.lock().unwrap_or_else(PoisonError::into_inner).append(&mut whole);
    }

    /// Looks with all processors but one: whoever goes on meanwhile needs one, too.
    pub fn work_beside(&self) {
        std::thread::scope(|scope| {
            for _ in 2..processors() {
                scope.spawn(|| self.work());
            }
            self.work();
        });
    }

    /// Ends it. Whoever worked has come back.
    pub fn end(self) -> Verification {
        let Self { mut verification, whole, .. } = self;
        verification.seen.extend(whole.into_inner().unwrap_or_else(PoisonError::into_inner));
        verification
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::super::tests::{baked, damage};
    use super::*;
    use crate::Store;

    fn looked(verification: Verification, image: Digest) -> Verification {
        let ahead = verification.look_ahead([image]);
        ahead.work_beside();
        ahead.end()
    }

    fn later(store: &Store) -> Verification {
        let mut verification = store.verification();
        verification.now = SystemTime::now() + Duration::from_secs(10);
        verification
    }

    #[test]
    fn what_was_whole_ahead_is_not_looked_at_again_and_all_else_is() {
        let (_folder, store, image) = baked();
        let [same, other] = ["same", "other"].map(|text| store.objects.put_bytes(text.as_bytes()).unwrap());
        let ahead = || looked(later(&store), image);
        assert!(ahead().seen.is_empty(), "nothing was read yet, and looking ahead reads nothing");
        assert_eq!(damage(&store, &image).unwrap(), []);
        assert_eq!(ahead().seen, [same, other].into());
        let path = store.objects.path_of(&same);
        let stamp = || Stamp::of(&std::fs::metadata(&path).unwrap());
        let before = stamp();
        // The file system's clock has to tick for the change to show: that is what settling is for.
        while stamp() == before {
            std::fs::write(&path, "fame").unwrap();
        }
        let mut verification = ahead();
        assert_eq!(verification.seen, [other].into());
        assert_eq!(verification.damage(&image).unwrap().len(), 1);
        store.objects.remove(&other).unwrap();
        let mut verification = ahead();
        assert!(verification.seen.is_empty());
        assert_eq!(verification.damage(&image).unwrap().len(), 2);
        // An image that is not there, or whose tree is damaged, is nobody's loss yet.
        let verification = looked(ahead(), Digest::new([9; 32]));
        store.trees.remove(&store.images.get(&image).unwrap().tree).unwrap();
        assert!(looked(verification, image).seen.is_empty());
    }

    #[test]
    fn what_a_tree_that_is_too_new_to_be_noted_needs_is_looked_at_ahead() {
        let (_folder, store, image) = baked();
        let [same, other] = ["same", "other"].map(|text| store.objects.put_bytes(text.as_bytes()).unwrap());
        assert_eq!(damage(&store, &image).unwrap(), []);
        let mut verification = later(&store);
        let tree = store.images.get(&image).unwrap().tree;
        verification.stamps.retain(|name| name != tree.as_bytes());
        assert_eq!(looked(verification, image).seen, [same, other].into());
    }

    #[test]
    fn each_object_is_looked_at_once_however_many_help() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let mut verification = later(&store);
        let batch = store.objects.batch();
        let texts = (0..5 * SHARE + 7).map(|number| number.to_string());
        let mut all: Vec<_> = texts.map(|text| batch.put_bytes(text.as_bytes()).unwrap().digest).collect();
        batch.commit().unwrap();
        all.sort_unstable();
        for digest in &all {
            let meta = std::fs::metadata(store.objects.path_of(digest)).unwrap();
            verification.stamps.note(digest.as_bytes(), Stamp::of(&meta), *digest, verification.now);
        }
        let mut ahead = verification.look_ahead([]);
        ahead.wanted = all.iter().map(|digest| (*digest, 1)).collect();
        std::thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(|| ahead.work()))));
        let mut whole = ahead.whole.lock().unwrap().clone();
        whole.sort_unstable();
        assert_eq!(whole, all);
        assert_eq!(ahead.end().seen, all.into_iter().collect());
    }
}
