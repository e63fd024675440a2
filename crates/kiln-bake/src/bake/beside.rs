//! What is found out about an image beside its last step, so that nobody waits for it afterwards.

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use kiln_store::{ReadError, Tree};

use super::MadeTree;
use super::surveyed::{Earlier, Surveys};
use crate::inventory::{Software, Survey};

/// How far work beside gives way to the step that is waited for, as `nice` counts: on a machine with few cores both want them.
#[derive(Debug, Clone, Copy)]
#[repr(i32)]
pub(super) enum Nice {
    /// The step after the next one waits for it.
    Soon = 10,
    /// Nobody waits for it before the end.
    Late = 19,
}

/// Work on a thread of its own. Whoever drops it waits for its end: what it reads is there for as long as a bake's lease is held.
#[derive(Debug)]
pub(super) struct Beside<T>(Mutex<Option<JoinHandle<T>>>);

impl<T: Send + 'static> Beside<T> {
    pub(super) fn begin(nice: Nice, work: impl FnOnce() -> T + Send + 'static) -> Self {
        let yielding = move || {
            // Of this thread alone. Where it is refused the work is done as soon as any other.
            let _ = rustix::process::setpriority_process(None, nice as i32);
            work()
        };
        Self(Mutex::new(Some(std::thread::spawn(yielding))))
    }
}

impl<T> Beside<T> {
    /// Waits for the end; none if somebody did so before.
    pub(super) fn end(&self) -> Option<T> {
        let thread = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    }
}

impl<T> Drop for Beside<T> {
    fn drop(&mut self) {
        let thread = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // What it came to is nobody's any more.
        let _ = thread.map(JoinHandle::join);
    }
}

/// The software of an image; none where something can't be read: whoever needs it looks again, and tells.
pub(super) type Listing = Beside<Option<Software>>;

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
        let survey = Beside::begin(Nice::Late, move || surveys.of(&earlier, loaded(&searched)));
        Self { tree, survey }
    }

    /// Returns the software of what a command made of the tree, if that is known without looking through it.
    fn of(&self, made: &Tree) -> Option<Software> {
        let survey = self.survey.end()?.ok()?;
        survey.holds_for(loaded(&self.tree), made).then_some(survey.software)
    }
}

/// Begins to list the software of a loaded tree whose objects are stored.
pub(super) fn list(
    surveys: Surveys,
    earlier: Earlier,
    tree: &Arc<OnceLock<Tree>>,
    ahead: Option<Ahead>,
) -> Listing {
    let tree = Arc::clone(tree);
    Beside::begin(Nice::Soon, move || {
        let tree = loaded(&tree);
        let known = match ahead {
            Some(ahead) => ahead.of(tree),
            None => surveys.of(&earlier, tree).ok().map(|survey| survey.software),
        };
        known.or_else(|| Software::of(&surveys.objects, tree).ok())
    })
}

pub(super) fn loaded(tree: &OnceLock<Tree>) -> &Tree {
    tree.get().expect("only loaded trees are looked through")
}
