//! What the host needs of stored images and secrets.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use kiln_model::instance::SecretRef;
use kiln_model::{Digest, StackName};
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

/// Where roots and secrets come from.
pub trait Images: Send + Sync {
    /// Makes an image ready, so that [`Images::root`] is quick.
    fn prepare(&self, image: &Digest) -> Result<(), ImageError>;

    /// Mounts an image, attached nowhere, with `places` in it to mount on.
    fn root(&self, image: &Digest, places: &[Place]) -> Result<OwnedFd, ImageError>;

    /// Returns the value of a secret.
    fn secret(&self, stack: &StackName, secret: &SecretRef) -> Result<Vec<u8>, ImageError>;
}

/// A path in an image that something is mounted on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// An absolute path.
    pub path: String,
    /// Whether it is a folder or a file.
    pub is_folder: bool,
}

/// Why an image can't be mounted or a secret can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Another attempt would end the same way.
    #[error("{0}")]
    Refused(String),
    /// The machine could not do it now.
    #[error("{0}")]
    Failed(String),
}

/// Images that are folders, by the digest in hexadecimal: for an image that was made by hand, as the tests do.
#[derive(Debug)]
pub struct FolderImages {
    folder: PathBuf,
}

impl FolderImages {
    /// Takes the folder that holds an image `DIGEST/` each, and the secrets' values as `secrets/VERSION`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    fn image(&self, image: &Digest) -> Result<PathBuf, ImageError> {
        let path = self.folder.join(image.hex());
        if path.is_dir() { Ok(path) } else { Err(ImageError::Refused(format!("there is no image {image}"))) }
    }
}

impl Images for FolderImages {
    fn prepare(&self, image: &Digest) -> Result<(), ImageError> {
        self.image(image).map(drop)
    }

    fn root(&self, image: &Digest, places: &[Place]) -> Result<OwnedFd, ImageError> {
        let root = self.image(image)?;
        for place in places {
            let path = root.join(place.path.trim_start_matches('/'));
            make_place(&path, place.is_folder)
                .map_err(|error| ImageError::Failed(format!("cannot make {}: {error}", path.display())))?;
        }
        open_tree(CWD, &root, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
            .map_err(|error| ImageError::Failed(format!("cannot open {}: {error}", root.display())))
    }

    fn secret(&self, _stack: &StackName, secret: &SecretRef) -> Result<Vec<u8>, ImageError> {
        fs::read(self.folder.join("secrets").join(&secret.version)).map_err(|_| {
            ImageError::Refused(format!("secret `{}` has no version {}", secret.name, secret.version))
        })
    }
}

fn make_place(path: &Path, is_folder: bool) -> std::io::Result<()> {
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    if is_folder {
        return fs::create_dir_all(path);
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, "")
}
