//! Stored files that are not what they were: found before something is started from them, and made again where that can be.

use kiln_bake::{BakeError, CopyError, SourceError, StepError};
use kiln_model::{Digest, ImageName};
use kiln_store::trees::{AssembleError, PutTreeError};
use kiln_store::{Damage, PutError, ReadError, Store};

use crate::cli::failure::Failure;

/// Looks at all that instances of these images would see, and returns what is damaged.
///
/// # Errors
/// The store can't be read.
pub(crate) fn damaged<'a>(
    store: &Store,
    images: impl Iterator<Item = (&'a ImageName, &'a Digest)>,
) -> Result<Vec<(ImageName, Damage)>, Failure> {
    let (mut found, mut verification) = (Vec::new(), store.verification());
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
