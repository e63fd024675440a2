//! What software is in a tree, where that is known of a tree that it was made from.
//!
//! What a bake begins with is mostly what the last one began with, and mostly what is done to it changes no software. So what was found
//! in such a tree is kept.

use std::sync::{Arc, OnceLock};

use kiln_model::Digest;
use kiln_store::{Objects, ReadError, Tree};

use super::MadeTree;
use super::beside::loaded;
use crate::baker::Baker;
use crate::inventory::Survey;
use crate::steps::StepCache;

/// The stored and loaded trees that new steps were done to, one made of the other, the oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Earlier(Vec<(Digest, Arc<OnceLock<Tree>>)>);

impl Earlier {
    /// Adds a loaded tree, if it is stored.
    pub(super) fn push(&mut self, MadeTree { digest, loaded }: &MadeTree) {
        self.0.extend(digest.map(|digest| (digest, Arc::clone(loaded))));
    }
}

/// What software was found in the trees of a machine.
#[derive(Debug)]
pub(super) struct Surveys {
    pub(super) objects: Objects,
    kept: StepCache,
    /// Whether what was kept before is believed.
    believed: bool,
}

impl Surveys {
    pub(super) fn of_baker(baker: &Baker) -> Self {
        let (objects, kept) = (baker.store.objects.clone(), baker.steps.clone());
        Self { objects, kept, believed: !baker.options.no_cache }
    }

    /// Looks through a tree that was made of earlier ones, or finds what that would come to. The oldest of those that nothing was added
    /// to since is looked through in its stead and kept: it is what the next bake likely begins with.
    pub(super) fn of(&self, Earlier(earlier): &Earlier, tree: &Tree) -> Result<Survey, ReadError> {
        let mut alike = None;
        for (digest, old) in earlier.iter().rev() {
            let old = loaded(old);
            let kept = if self.believed { self.kept.survey(digest) } else { None };
            match kept {
                Some(survey) if survey.holds_for(old, tree) => return Ok(survey),
                None if Survey::may_hold(old, tree) => alike = Some((digest, old)),
                // What was done since was done to those before it, too.
                _ => break,
            }
        }
        if let Some((digest, old)) = alike {
            let survey = Survey::of(&self.objects, old)?;
            self.kept.set_survey(digest, &survey);
            if survey.holds_for(old, tree) {
                return Ok(survey);
            }
        }
        Survey::of(&self.objects, tree)
    }
}

#[cfg(test)]
mod tests {
    use kiln_store::{Entry, Meta, Store, TreePath};

    use super::*;
    use crate::inventory::Software;

    /// A store with trees that were made one of the other, and what was kept of them.
    struct Ground {
        folder: tempfile::TempDir,
        store: Store,
        surveys: Surveys,
        earlier: Earlier,
        tree: Tree,
    }

    impl Ground {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(folder.path()).unwrap();
            let kept = StepCache::open(&folder.path().join("cache")).unwrap();
            let surveys = Surveys { objects: store.objects.clone(), kept, believed: true };
            let (earlier, tree) = (Earlier::default(), Tree::new());
            Self { folder, store, surveys, earlier, tree }
        }

        /// A new step that puts a file there.
        fn put(&mut self, path: &str, text: &str) {
            let digest = Some(self.store.trees.put(&self.tree).unwrap());
            self.earlier.push(&MadeTree { digest, loaded: Arc::new(OnceLock::from(self.tree.clone())) });
            let path = TreePath::parse(path).unwrap();
            self.tree.make_dirs(&path.parent().unwrap(), &Meta { mode: 0o755, ..Meta::default() }).unwrap();
            let stored = self.store.objects.put_bytes(text.as_bytes()).unwrap();
            self.tree.insert(&path, Entry::file(0o644, stored, text.len() as u64)).unwrap();
        }

        fn found(&self) -> Survey {
            self.surveys.of(&self.earlier, &self.tree).unwrap()
        }

        fn searched(&self) -> Survey {
            Survey::of(&self.store.objects, &self.tree).unwrap()
        }

        /// Whether something is kept of each of the earlier trees.
        fn kept(&self) -> Vec<bool> {
            self.earlier.0.iter().map(|(digest, _)| self.surveys.kept.survey(digest).is_some()).collect()
        }
    }

    fn lock(version: &str) -> String {
        format!(
            "[[package]]\nname = \"libc\"\nversion = \"{version}\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\n"
        )
    }

    /// A survey that no search comes to.
    fn marked() -> Survey {
        let mut survey = Survey::default();
        survey.looked_at.insert(TreePath::parse("marked").unwrap());
        survey
    }

    #[test]
    fn the_oldest_tree_that_no_software_was_added_to_since_is_kept_and_found_again() {
        let mut ground = Ground::new();
        ground.put("srv/Cargo.lock", &lock("1.0.0"));
        ground.put("srv/one", "one");
        ground.put("srv/two", "two");
        assert_eq!(ground.found(), ground.searched());
        assert_eq!(ground.kept(), [false, true, false], "the lock was added to the first");
        ground.surveys.kept.set_survey(&ground.earlier.0[1].0, &marked());
        assert_eq!(ground.found(), marked(), "nothing is looked through");
        ground.surveys.believed = false;
        assert_eq!(ground.found(), ground.searched());
    }

    #[test]
    fn what_is_kept_is_not_believed_where_software_was_added_since() {
        let mut ground = Ground::new();
        ground.put("srv/one", "one");
        ground.found();
        ground.put("srv/two", "two");
        assert_eq!(ground.kept(), [true, false]);
        ground.surveys.kept.set_survey(&ground.earlier.0[0].0, &marked());
        ground.put("srv/Cargo.lock", &lock("1.0.0"));
        assert_eq!(ground.found(), ground.searched());
        assert_ne!(ground.found().software, Software::default());
        assert_eq!(ground.kept(), [true, false, false]);
        // The lock is no news, and it is another one.
        ground.put("srv/three", "three");
        ground.found();
        assert_eq!(ground.tree.remove(&TreePath::parse("srv/Cargo.lock").unwrap()), 1);
        assert_eq!(ground.kept(), [true, false, false, true]);
        assert_eq!(ground.found(), ground.searched());
        assert_eq!(ground.found().software, Software::default());
    }

    #[test]
    fn garbage_is_looked_for_anew_and_replaced() {
        let mut ground = Ground::new();
        ground.put("srv/Cargo.lock", &lock("1.0.0"));
        ground.put("srv/one", "one");
        ground.found();
        let name = ground.earlier.0[1].0.hex();
        let file = ground.folder.path().join("cache/surveys").join(name);
        let whole = std::fs::read(&file).unwrap();
        for garbage in [&b""[..], b"garbage", &whole[..whole.len() - 1]] {
            std::fs::write(&file, garbage).unwrap();
            assert_eq!(ground.found(), ground.searched());
            assert_eq!(std::fs::read(&file).unwrap(), whole);
        }
    }
}
