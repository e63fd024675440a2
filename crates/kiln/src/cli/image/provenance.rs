//! `kiln image provenance`

use kiln_bake::PROVENANCE;
use kiln_store::Store;

use super::{find, images, said};
use crate::cli::context::Context;
use crate::cli::exit::Exit;
use crate::cli::failure::{Failure, Outcome};

pub(super) fn run(store: &Store, which: &str, context: &mut Context<'_>) -> Outcome {
    let (digest, _) = find(&images(store)?, which)?;
    let found = said(store, digest)?.into_iter().find(|said| said.kind() == PROVENANCE);
    let Some(provenance) = found else {
        return Err(Failure::refused(format!("nobody noted what image {} was made from", digest.short()))
            .hint("`kiln bake` in the folder that it was made from notes it"));
    };
    let bytes = store.blobs.read_verified(&provenance.payload).map_err(|error| {
        Failure::external("the provenance can't be read")
            .caused_by(&error)
            .hint("`kiln bake` in the folder that it was made from makes it again")
    })?;
    context.screen.print(&String::from_utf8_lossy(&bytes));
    Ok(Exit::Done)
}
