//! `kiln image sbom`

use kiln_bake::BomFormat;
use kiln_store::Store;

use super::{find, images, inventory, load};
use crate::cli::context::Context;
use crate::cli::exit::Exit;
use crate::cli::failure::{Failure, Outcome};

/// The format of the document.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum Format {
    /// SPDX 2.3, as JSON
    Spdx,
    /// CycloneDX 1.6, as JSON
    Cyclonedx,
}

impl From<Format> for BomFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Spdx => Self::Spdx,
            Format::Cyclonedx => Self::CycloneDx,
        }
    }
}

pub(super) fn run(store: &Store, which: &str, format: Format, context: &mut Context<'_>) -> Outcome {
    // A collection at the same time could remove what is being read.
    let _lease = store
        .leases
        .take("bill of materials")
        .map_err(|error| Failure::external("the store can't be used").caused_by(&error))?;
    let (digest, _) = find(&images(store)?, which)?;
    let image = load(store, digest)?;
    let inventory = inventory(store, &image)?;
    for omission in &inventory.omissions {
        context.screen.note(&format!("{} is left out: {}", omission.path, omission.reason));
    }
    let document =
        String::from_utf8(inventory.render(format.into())).expect("what is written as JSON is text");
    // The bytes of the document and no more, so that their digest is the document's.
    context.screen.print(&document);
    Ok(Exit::Done)
}
