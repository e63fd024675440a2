//! `kiln image provenance` and `kiln image certificate`

use kiln_bake::{CERTIFICATE_TYPE, PROVENANCE};
use kiln_store::Store;

use super::{find, images, said};
use crate::cli::context::Context;
use crate::cli::exit::Exit;
use crate::cli::failure::{Failure, Outcome};

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Document {
    /// What the image was made from.
    Provenance,
    /// That it was made twice.
    Certificate,
}

/// Prints what is said about an image as it is stored.
pub(super) fn run(document: Document, store: &Store, which: &str, context: &mut Context<'_>) -> Outcome {
    let (digest, _) = find(&images(store)?, which)?;
    let (kind, lacking, hint) = match document {
        Document::Provenance => (
            PROVENANCE,
            format!("nobody noted what image {} was made from", digest.short()),
            "`kiln bake` in the folder that it was made from notes it",
        ),
        Document::Certificate => (
            CERTIFICATE_TYPE,
            format!("image {} is not proven", digest.short()),
            "`kiln bake --prove` in the folder that it was made from proves it, or says what differs",
        ),
    };
    let found = said(store, digest)?.into_iter().find(|said| said.kind() == kind);
    let found = found.ok_or_else(|| Failure::refused(lacking).hint(hint))?;
    let bytes = store.blobs.read_verified(&found.payload).map_err(|error| {
        Failure::external("what is said about the image can't be read").caused_by(&error).hint(hint)
    })?;
    context.screen.print(&String::from_utf8_lossy(&bytes));
    Ok(Exit::Done)
}
