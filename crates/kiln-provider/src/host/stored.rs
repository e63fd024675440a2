//! Images and secrets as `kiln-store` keeps them.

use std::error::Error;
use std::os::fd::OwnedFd;

use kiln_model::instance::SecretRef;
use kiln_model::{Digest, StackName};
use kiln_store::error::ReadError;
use kiln_store::sealed::SealedError;
use kiln_store::skeleton::MountPoint;
use kiln_store::trees::{AssembleError, PutTreeError};
use kiln_store::{Sealed, Store, TreePath};

use super::images::{ImageError, Images, Place};

/// The images of a store and the secrets of its sealed store.
#[derive(Debug)]
pub struct StoredImages {
    store: Store,
    sealed: Sealed,
}

impl StoredImages {
    /// Takes a store and the sealed store of the same state folder.
    pub const fn new(store: Store, sealed: Sealed) -> Self {
        Self { store, sealed }
    }

    fn tree(&self, image: &Digest) -> Result<Digest, ImageError> {
        self.store.images.get(image).map(|image| image.tree).map_err(|error| of_read(&error))
    }
}

impl Images for StoredImages {
    fn prepare(&self, image: &Digest) -> Result<(), ImageError> {
        // Mounting it once makes whatever this kernel needs for it, such as a whole image.
        self.root(image, &[]).map(drop)
    }

    fn root(&self, image: &Digest, places: &[Place]) -> Result<OwnedFd, ImageError> {
        let points: Vec<MountPoint> = places.iter().map(mount_point).collect::<Result<_, _>>()?;
        let tree = self
            .store
            .trees
            .with_mount_points(&self.tree(image)?, &points)
            .map_err(|error| of_put(&error))?;
        let mounted = self.store.trees.assemble(&tree).map_err(|error| match &error {
            AssembleError::Read(error) => of_read(error),
            _ => ImageError::Failed(chain(&error)),
        })?;
        Ok(mounted.mount)
    }

    fn secret(&self, stack: &StackName, secret: &SecretRef) -> Result<Vec<u8>, ImageError> {
        let value =
            self.sealed.reveal(stack, &secret.name, &secret.version).map_err(|error| match error {
                SealedError::Missing { .. } | SealedError::Corrupt { .. } => {
                    ImageError::Refused(chain(&error))
                }
                _ => ImageError::Failed(chain(&error)),
            })?;
        Ok(value.expose().to_vec())
    }
}

fn mount_point(place: &Place) -> Result<MountPoint, ImageError> {
    let path = TreePath::parse(&place.path).map_err(|error| ImageError::Refused(error.to_string()))?;
    Ok(if place.is_folder { MountPoint::Dir(path) } else { MountPoint::File(path) })
}

fn of_read(error: &ReadError) -> ImageError {
    match error {
        ReadError::Missing(_) | ReadError::Corrupt { .. } => ImageError::Refused(chain(error)),
        _ => ImageError::Failed(chain(error)),
    }
}

fn of_put(error: &PutTreeError) -> ImageError {
    match error {
        PutTreeError::MountPoint(_) | PutTreeError::Format(_) => ImageError::Refused(chain(error)),
        PutTreeError::Read(error) => of_read(error),
        _ => ImageError::Failed(chain(error)),
    }
}

/// Returns an error with all that caused it: it ends up as one sentence for people.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
