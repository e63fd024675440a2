//! Which manifests say something about an image: bills of materials, provenance, signatures, certificates.
//!
//! Each is an OCI manifest whose `subject` is the image's. A manifest names what it is about, and not the other way round, so
//! the way back is kept here: a file without content for each, whose name is all that it says.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_model::Digest;

use crate::error::{PutError, ReadError};
use crate::shelf::{make_folder, sync_folder};

/// The referrers of a store.
#[derive(Debug, Clone)]
pub struct Referrers {
    root: Arc<Path>,
}

impl Referrers {
    pub(crate) fn open(root: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&root)?;
        Ok(Self { root: root.into() })
    }

    /// Notes that a manifest is about `subject`, durably. Store its blobs first.
    ///
    /// # Errors
    /// See [`PutError`].
    pub fn put(&self, subject: &Digest, manifest: &Digest) -> Result<(), PutError> {
        self.put_all(subject, std::slice::from_ref(manifest))
    }

    /// As [`Referrers::put`], of several at a time.
    ///
    /// # Errors
    /// See [`PutError`]; some may have been noted.
    pub fn put_all(&self, subject: &Digest, manifests: &[Digest]) -> Result<(), PutError> {
        let folder = self.folder(subject);
        let paths = manifests.iter().map(|manifest| folder.join(manifest.hex()));
        let missing: Vec<PathBuf> = paths.filter(|path| !path.is_file()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        make_folder(&folder).map_err(PutError::at(&folder))?;
        for path in &missing {
            // Its name is all that it says: there is no content that could be half there, or that the disk needs to have first.
            let mut file = File::options();
            file.write(true).create(true).mode(0o644).open(path).map_err(PutError::at(path))?;
        }
        sync_folder(&folder).map_err(PutError::at(&folder))
    }

    /// Lists the manifests that are about `subject`, in the order of their digests.
    ///
    /// # Errors
    /// The file system refused.
    pub fn list(&self, subject: &Digest) -> Result<Vec<Digest>, ReadError> {
        let folder = self.folder(subject);
        let mut found = digests(&folder).map_err(ReadError::at(&folder))?;
        found.sort_unstable();
        Ok(found)
    }

    /// Forgets that a manifest is about `subject`. Its blobs stay until a collection.
    ///
    /// # Errors
    /// The file system refused.
    pub fn remove(&self, subject: &Digest, manifest: &Digest) -> io::Result<bool> {
        match fs::remove_file(self.folder(subject).join(manifest.hex())) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Keeps only what is said of the images that are kept, and is kept itself.
    pub(crate) fn retain(
        &self,
        is_image: impl Fn(&Digest) -> bool,
        is_said: impl Fn(&Digest) -> bool,
    ) -> io::Result<()> {
        for subject in digests(&self.root)? {
            let folder = self.folder(&subject);
            for manifest in digests(&folder)?.iter().filter(|it| !is_image(&subject) || !is_said(it)) {
                self.remove(&subject, manifest)?;
            }
            if !is_image(&subject) {
                fs::remove_dir(folder)?;
            }
        }
        Ok(())
    }

    fn folder(&self, subject: &Digest) -> PathBuf {
        self.root.join(subject.hex())
    }
}

/// The names in a folder that are digests; none where there is no folder.
fn digests(folder: &Path) -> io::Result<Vec<Digest>> {
    let files = match fs::read_dir(folder) {
        Ok(files) => files,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for file in files {
        let name = file?.file_name();
        found.extend(name.to_str().and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use crate::Store;

    use super::*;

    #[test]
    fn what_is_noted_of_an_image_is_listed_once_and_in_order() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let [image, other, a, b] = [1, 2, 3, 4].map(|byte| Digest::new([byte; 32]));
        for manifests in [&[b, a][..], &[b], &[]] {
            store.referrers.put_all(&image, manifests).unwrap();
        }
        assert_eq!(store.referrers.list(&image).unwrap(), [a, b]);
        assert_eq!(store.referrers.list(&other).unwrap(), []);
        assert!(store.referrers.remove(&image, &a).unwrap());
        assert!(!store.referrers.remove(&image, &a).unwrap());
        assert_eq!(store.referrers.list(&image).unwrap(), [b]);
    }
}
