//! Stored files that are not what they were: found before something is started from them, and made again where that can be.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use kiln_bake::{BakeError, Beside, CopyError, Rank, SourceError, StepError};
use kiln_model::stack::Stack;
use kiln_model::{Digest, ImageName};
use kiln_store::trees::{AssembleError, PutTreeError};
use kiln_store::{Damage, Lease, LookAhead, PutError, ReadError, Store, Verification};

use crate::cli::failure::Failure;
use crate::runtime::StateDir;

/// What was seen this long ago is looked at again: a bake that makes something takes its time, and what is started from is to be
/// whole then.
const AHEAD_GOOD_FOR: Duration = Duration::from_secs(2);

/// A look at the images of the last bake while this one finds out what it comes to: mostly to the same.
pub(crate) struct Ahead {
    began: Instant,
    /// What is being looked at, once that is known.
    shared: Arc<OnceLock<Arc<LookAhead>>>,
    /// With a lease, for a collection would take what was seen; none where the store can't be used, as whoever needs it will say.
    look: Beside<Option<(Arc<LookAhead>, Lease)>>,
}

impl Ahead {
    /// Begins to look at images of a stack.
    pub(crate) fn begin<'a>(
        state: &StateDir,
        stack: &Stack,
        images: impl Iterator<Item = &'a ImageName>,
    ) -> Self {
        let (state, purpose) = (state.path().to_owned(), format!("look at {}", stack.name));
        let names: Vec<String> = images.map(|image| name_in_store(stack, image)).collect();
        let shared = Arc::new(OnceLock::new());
        let told = Arc::clone(&shared);
        // Listing the folder is waited for, and this is not.
        let look = Beside::begin(Rank::Late, move || {
            let store = Store::open(state).ok()?;
            let lease = store.leases.take(&purpose).ok()?;
            let manifests = names.iter().filter_map(|name| store.images.by_name(name));
            let ahead = Arc::new(store.verification().look_ahead(manifests));
            let _ = told.set(Arc::clone(&ahead));
            ahead.work_beside();
            Some((ahead, lease))
        });
        Self { began: Instant::now(), shared, look }
    }

    /// Ends it, and helps as long as there is something left to look at; what was seen counts if it was just now.
    fn end(self) -> Option<(Verification, Lease)> {
        let Self { began, shared, look } = self;
        if let Some(ahead) = shared.get() {
            ahead.work();
        }
        drop(shared);
        let (ahead, lease) = look.end().flatten()?;
        let ahead = Arc::into_inner(ahead).filter(|_| began.elapsed() < AHEAD_GOOD_FOR)?;
        Some((ahead.end(), lease))
    }
}

/// What an image is called in the store.
pub(crate) fn name_in_store(stack: &Stack, image: &ImageName) -> String {
    format!("{}/{image}", stack.name)
}

/// Looks at all that instances of these images would see, and returns what is damaged.
///
/// # Errors
/// The store can't be read.
pub(crate) fn damaged<'a>(
    store: &Store,
    ahead: Option<Ahead>,
    images: impl Iterator<Item = (&'a ImageName, &'a Digest)>,
) -> Result<Vec<(ImageName, Damage)>, Failure> {
    let mut found = Vec::new();
    let (mut verification, _lease) = match ahead.and_then(Ahead::end) {
        Some((verification, lease)) => (verification.through(store), Some(lease)),
        None => (store.verification(), None),
    };
    for (name, manifest) in images {
        let damage = verification.damage(manifest).map_err(|error| {
            Failure::external(format!("image {name} can't be verified")).caused_by(&error).hint(
                "`kiln bake` in the folder that it was made from makes it again; what runs was not touched",
            )
        })?;
        found.extend(damage.into_iter().map(|damage| (name.clone(), damage)));
    }
    verification.remember();
    Ok(found)
}

/// The stored bytes that a bake stumbled over, by the digest that they should have.
pub(crate) fn culprit(error: &BakeError) -> Option<Digest> {
    let read = |error: &ReadError| match error {
        ReadError::Corrupt { digest, .. } => Some(*digest),
        _ => None,
    };
    let source = |error: &SourceError| match error {
        SourceError::Snapshot(error) => read(error),
        _ => None,
    };
    match error {
        BakeError::Source(error) => source(error),
        BakeError::Step { source: step, .. } => match step.as_ref() {
            StepError::Read(error) | StepError::PutTree(PutTreeError::Read(error)) => read(error),
            StepError::Assemble(AssembleError::Read(error)) => read(error),
            StepError::Copy(CopyError::Source(error)) => source(error),
            StepError::Copy(CopyError::Put(PutError::Mismatch { expected, .. })) => Some(*expected),
            // A reader that verifies what passes has no other way to say it.
            StepError::Copy(CopyError::Put(PutError::Source(error))) => {
                error.get_ref().and_then(|inner| inner.downcast_ref::<ReadError>()).and_then(read)
            }
            _ => None,
        },
        _ => None,
    }
}

/// Removes stored bytes wherever they are, so that they are written again: what is there is never written a second time.
///
/// # Errors
/// The file system refused.
pub(crate) fn discard(store: &Store, digest: &Digest) -> Result<(), Failure> {
    let removed = store
        .blobs
        .remove(digest)
        .and_then(|_| store.objects.remove(digest))
        .and_then(|_| store.trees.remove(digest));
    removed.map(drop).map_err(|error| {
        Failure::external(format!("{digest} is damaged in the store and can't be removed")).cause(error)
    })
}
