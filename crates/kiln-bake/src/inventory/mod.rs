//! What software is in an image: its bill of materials.
//!
//! All of it is read from the image's tree, which anybody may have filled: every parser here is bounded in bytes, counts and
//! depth, and what it can't read is named beside the rest instead of ending the search. The outcome follows from the image
//! alone, so its documents have the same digest wherever they are made.

pub(crate) mod archive;
mod bytes;
mod cargo;
mod cyclonedx;
mod debian;
mod elf;
#[cfg(test)]
mod fuzz;
mod go;
mod java;
mod kept;
mod licence;
mod npm;
mod package;
mod purl;
mod python;
mod scan;
mod spdx;
mod survey;

use kiln_model::Digest;
use kiln_model::image::Image;
use kiln_store::{Objects, ReadError, Store, Tree, TreePath};

pub(crate) use kept::KEPT_BYTES_MAX;
pub use licence::Licence;
pub use package::{Ecosystem, Package, SourcePackage};
pub(crate) use purl::purl;
pub(crate) use survey::Survey;

use crate::oci;

/// The software of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// The image, by the digest of its manifest.
    pub image: Digest,
    /// The image's own time, as its config has it: that of its lock.
    pub created: String,
    /// The distribution, where `/etc/os-release` names one.
    pub system: Option<System>,
    /// The packages in the order of ecosystem, name, version and architecture, each once.
    pub packages: Vec<Package>,
    /// What could not be read, and why: of this the inventory says nothing.
    pub omissions: Vec<Omission>,
}

/// The software of a tree of files, whatever image it is of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Software {
    system: Option<System>,
    packages: Vec<Package>,
    omissions: Vec<Omission>,
}

/// A distribution, as `os-release(5)` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// `ID`, such as `debian`.
    pub id: String,
    /// `VERSION_ID`, such as `12`; may be empty.
    pub version: String,
}

/// Something that an inventory leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Omission {
    /// Where it is.
    pub path: TreePath,
    /// Why.
    pub reason: String,
}

/// The format of a bill of materials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BomFormat {
    /// SPDX 2.3, as JSON.
    Spdx,
    /// CycloneDX 1.6, as JSON.
    CycloneDx,
}

/// Why an image's software can't be listed.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// A part of the image is missing or damaged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its manifest or its config is none.
    #[error("{0} is not an image")]
    NotAnImage(Digest),
}

impl Inventory {
    /// Reads an image's tree. Files that matter are verified on the way.
    ///
    /// # Errors
    /// The image itself can't be read. What is merely malformed in it is an omission.
    pub fn of(store: &Store, image: &Image) -> Result<Self, InventoryError> {
        let created = created(store, image)?;
        let Software { system, packages, omissions } = Software::of_image(store, image)?;
        Ok(Self { image: image.manifest, created, system, packages, omissions })
    }

    /// Writes the document of a format: the same inventory always gives the same bytes.
    pub fn render(&self, format: BomFormat) -> Vec<u8> {
        let Self { image, created, system, packages, omissions } = self;
        match format {
            BomFormat::Spdx => spdx::Body::of(packages, omissions).document(image, created),
            BomFormat::CycloneDx => {
                cyclonedx::Body::of(system.as_ref(), packages, omissions).document(image, created)
            }
        }
    }
}

/// The bills of materials of an image but for what they say of the image itself: all else follows from its software, and can be
/// written before anybody knows what the image comes to.
#[derive(Debug)]
pub(crate) struct Bills {
    spdx: spdx::Body,
    cyclonedx: cyclonedx::Body,
}

impl Bills {
    pub(crate) fn of(software: &Software) -> Self {
        let Software { system, packages, omissions } = software;
        Self {
            spdx: spdx::Body::of(packages, omissions),
            cyclonedx: cyclonedx::Body::of(system.as_ref(), packages, omissions),
        }
    }

    /// Writes the document of an image: the one that [`Inventory::render`] writes.
    pub(crate) fn document(&self, image: &Digest, created: &str, format: BomFormat) -> Vec<u8> {
        match format {
            BomFormat::Spdx => self.spdx.document(image, created),
            BomFormat::CycloneDx => self.cyclonedx.document(image, created),
        }
    }
}

/// Returns the time that an image's config has.
///
/// # Errors
/// The image itself can't be read.
pub(crate) fn created(store: &Store, image: &Image) -> Result<String, InventoryError> {
    let created = oci::created(&store.blobs, &image.manifest)?;
    created.ok_or(InventoryError::NotAnImage(image.manifest))
}

impl Software {
    /// As [`Software::of`], of an image's tree.
    pub(crate) fn of_image(store: &Store, image: &Image) -> Result<Self, ReadError> {
        Self::of(&store.objects, &store.trees.load(&image.tree)?)
    }

    /// Reads the files of a tree that matter, and verifies them on the way.
    pub(crate) fn of(objects: &Objects, tree: &Tree) -> Result<Self, ReadError> {
        Survey::of(objects, tree).map(|survey| survey.software)
    }
}

#[cfg(test)]
mod tests;
