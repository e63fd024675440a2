//! What is said about an image beside it: bills of materials and provenance, each an OCI manifest whose subject it is.

mod artifact;
mod provenance;

use std::collections::BTreeSet;
use std::panic::resume_unwind;
use std::sync::Arc;

use kiln_model::image::Image;
use kiln_model::stack::Stack;
use kiln_model::{Digest, ImageName};
use kiln_store::{Batch, PutError, ReadError, Store};

pub use artifact::{Said, Statement, said_about};

use crate::bake::Known;
use crate::bake_error::BakeError;
use crate::copy::CopyError;
use crate::hashing::sha256;
use crate::inventory::{Bills, BomFormat, InventoryError, Software, created};
use crate::lock::Lock;
use crate::signing::{SignError, SigningKey, is_sealed, seal_statement};
use crate::source::{Source, SourceError, SourceFiles};
pub(crate) use artifact::{attach, descriptor_of};
use artifact::{discard_damaged, put_into};
pub(crate) use provenance::Materials;

/// The media type of a bill of materials in SPDX.
pub const SPDX_TYPE: &str = "application/spdx+json";

/// The media type of one in CycloneDX.
pub const CYCLONEDX_TYPE: &str = "application/vnd.cyclonedx+json";

/// The media type of an in-toto statement.
pub const STATEMENT_TYPE: &str = "application/vnd.in-toto+json";

/// The predicate of SLSA's provenance.
pub const PROVENANCE: &str = "https://slsa.dev/provenance/v1";

/// The annotation in which a statement's predicate is named, as BuildKit and the registries' tools know it.
const PREDICATE: &str = "in-toto.io/predicate-type";

/// Why nothing can be said about an image.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// Its software can't be listed.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// What it was made from can't be read any more.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A Dockerfile can't be read any more.
    #[error(transparent)]
    Bake(#[from] Box<BakeError>),
    /// What was copied into it can't be found any more.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// What was said before can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It can't be stored.
    #[error(transparent)]
    Put(#[from] PutError),
    /// The builder can't sign it.
    #[error("the provenance can't be signed with the builder's key")]
    Sign(#[from] SignError),
    /// What is damaged can't be removed.
    #[error("what was said about the image is damaged and can't be removed")]
    Discard(#[source] std::io::Error),
    /// The image is not of this stack.
    #[error("image `{0}` is not in the stack")]
    UnknownImage(ImageName),
}

/// Attaches to a baked image what is not there yet: its bills of materials, its provenance, and the builder's signature on that.
/// What the bake has not found out is read.
///
/// Provenance is of the bake that made the image: one that finds it in the store adds none. The builder signs it where it is what this
/// bake says, too: never what another one noted about its own inputs. Hold a lease.
///
/// # Errors
/// See [`AttestError`]; what was attached before stays.
pub fn attest(
    store: &Store,
    stack: &Stack,
    lock: &Lock,
    source: &Source,
    (name, image, known): (&ImageName, &Image, Known),
    builder: &SigningKey,
) -> Result<(), AttestError> {
    discard_damaged(store, &image.manifest)?;
    let all = said_about(store, &image.manifest)?;
    let there: BTreeSet<&str> = all.iter().map(Said::kind).collect();
    let is_listed = [SPDX_TYPE, CYCLONEDX_TYPE].iter().all(|kind| there.contains(kind));
    let noted = all.iter().find(|said| said.kind() == PROVENANCE).map(|said| &said.payload);
    let is_signed = noted.is_some_and(|noted| is_sealed(store, &image.manifest, noted, &builder.public()));
    if is_listed && is_signed {
        return Ok(());
    }
    let batch = store.blobs.batch();
    // Neither needs the other.
    let (bills, told) = std::thread::scope(|scope| {
        let Known { bills, materials } = known;
        let bills = (!is_listed).then(|| scope.spawn(|| bills_into(&batch, store, image, bills)));
        let told = (!is_signed).then(|| {
            let open = || SourceFiles::open(source, &store.snapshots).map(Arc::new);
            let materials = materials.map_or_else(|| Materials::of(stack, lock, name, open), Ok)?;
            let text = provenance::statement(stack, lock, name, image, &materials)?;
            let seal = match noted.is_none_or(|noted| *noted == sha256(&text)) {
                true => seal_statement(&batch, store, &image.manifest, PROVENANCE, &text, builder)?,
                false => None,
            };
            Ok::<_, AttestError>((text, seal))
        });
        (bills.map(|bills| bills.join().unwrap_or_else(|panic| resume_unwind(panic))), told)
    });
    let (mut manifests, told) = (bills.transpose()?.unwrap_or_default(), told.transpose()?);
    let (text, seal) = told.map_or((None, None), |(text, seal)| (Some(text), seal));
    manifests.extend(seal.as_ref().map(|seal| seal.manifest));
    let statement = text.filter(|_| noted.is_none()).map(|text| {
        let mut statement = Statement::new(STATEMENT_TYPE, STATEMENT_TYPE, text);
        statement.annotations.insert(PREDICATE.into(), PROVENANCE.into());
        put_into(&batch, store, &image.manifest, &statement)
    });
    let statement = statement.transpose()?;
    // What a referrer names is there before it.
    batch.commit()?;
    store.referrers.put_all(&image.manifest, &manifests)?;
    if let Some(seal) = seal {
        seal.replace(store, &image.manifest)?;
    }
    // After its seal: a bake that ends between the two is followed by one that notes it.
    statement.map_or(Ok(()), |statement| Ok(store.referrers.put(&image.manifest, &statement)?))
}

/// Adds the bills of materials of an image to a batch, and returns their manifests.
fn bills_into(
    batch: &Batch,
    store: &Store,
    image: &Image,
    bills: Option<Bills>,
) -> Result<Vec<Digest>, AttestError> {
    let created = created(store, image)?;
    let bills = match bills {
        Some(bills) => bills,
        None => Bills::of(&Software::of_image(store, image).map_err(InventoryError::Read)?),
    };
    let formats = [(SPDX_TYPE, BomFormat::Spdx), (CYCLONEDX_TYPE, BomFormat::CycloneDx)];
    let manifest = |(kind, format)| {
        let statement = Statement::new(kind, kind, bills.document(&image.manifest, &created, format));
        Ok(put_into(batch, store, &image.manifest, &statement)?)
    };
    formats.into_iter().map(manifest).collect()
}
