//! What is found out about an image beside its last step, so that nobody waits for it afterwards.

use std::sync::{Arc, OnceLock};

use kiln_store::{ReadError, Tree};

use super::MadeTree;
use super::surveyed::{Earlier, Surveys};
use crate::beside::{Beside, Rank};
use crate::inventory::{Bills, Software, Survey};

/// The bills of materials of an image; none where something can't be read: whoever needs them looks again, and tells.
pub(super) type Listing = Beside<Option<Bills>>;

/// A search through the tree that an image's last command runs over, while it runs: few commands that are last change the
/// software.
#[derive(Debug)]
pub(super) struct Ahead {
    tree: Arc<OnceLock<Tree>>,
    survey: Beside<Result<Survey, ReadError>>,
}

impl Ahead {
    /// Begins to look through a loaded tree whose objects are stored, and that was made of the earlier ones.
    pub(super) fn begin(surveys: Surveys, mut earlier: Earlier, tree: &MadeTree) -> Self {
        // Where it is stored itself, what it has may be known.
        earlier.push(tree);
        let (tree, searched) = (Arc::clone(&tree.loaded), Arc::clone(&tree.loaded));
        let survey = Beside::begin(Rank::Late, move || surveys.of(&earlier, loaded(&searched)));
        Self { tree, survey }
    }

    /// Returns the software of what a command made of the tree, if that is known without looking through it.
    fn of(&self, made: &Tree) -> Option<Software> {
        let survey = self.survey.end()?.ok()?;
        survey.holds_for(loaded(&self.tree), made).then_some(survey.software)
    }
}

/// Begins to list the software of a loaded tree whose objects are stored, and to write it down.
pub(super) fn list(
    surveys: Surveys,
    earlier: Earlier,
    tree: &Arc<OnceLock<Tree>>,
    ahead: Option<Ahead>,
) -> Listing {
    let tree = Arc::clone(tree);
    let software = Beside::begin(Rank::Soon, move || {
        let tree = loaded(&tree);
        let known = match ahead {
            Some(ahead) => ahead.of(tree),
            None => surveys.of(&earlier, tree).ok().map(|survey| survey.software),
        };
        known.or_else(|| Software::of(&surveys.objects, tree).ok())
    });
    // What is found is written while the image is stored, and no sooner: that is waited for before.
    Beside::begin(Rank::Late, move || software.end().flatten().map(|software| Bills::of(&software)))
}

pub(super) fn loaded(tree: &OnceLock<Tree>) -> &Tree {
    tree.get().expect("only loaded trees are looked through")
}
