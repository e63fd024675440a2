//! Records of baked images: which tree and config belong to a manifest, and which names point at it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use kiln_model::Digest;
use kiln_model::image::Image;
use serde::{Deserialize, Serialize};

use crate::error::{PutError, ReadError};
use crate::shelf::{replace_file, sha256};
use crate::wire::{ImageWire, Text, to_json};

/// The images of a store.
#[derive(Debug, Clone)]
pub struct Images {
    records: Arc<Path>,
    names: Arc<Path>,
    tmp: Arc<Path>,
}

/// What is stored of a name. The file's own name is the hash of it, since a name may hold slashes.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NameWire {
    name: String,
    manifest: Text<Digest>,
}

impl Images {
    pub(crate) fn open(root: &Path, tmp: &Path) -> io::Result<Self> {
        let (records, names) = (root.join("records"), root.join("names"));
        fs::create_dir_all(&records)?;
        fs::create_dir_all(&names)?;
        Ok(Self { records: records.into(), names: names.into(), tmp: tmp.into() })
    }

    /// Records an image under the digest of its manifest, durably. Store its tree and its blobs first.
    ///
    /// # Errors
    /// See [`PutError`].
    pub fn put(&self, image: &Image) -> Result<(), PutError> {
        replace_file(&self.record(&image.manifest), &self.tmp, &to_json(&ImageWire::from(image)))
    }

    /// Returns the image of a manifest.
    ///
    /// # Errors
    /// `Missing`, or `Corrupt`.
    pub fn get(&self, manifest: &Digest) -> Result<Image, ReadError> {
        let path = self.record(manifest);
        let bytes = fs::read(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => ReadError::Missing(*manifest),
            _ => ReadError::at(path)(error),
        })?;
        let wire: ImageWire = serde_json::from_slice(&bytes)
            .map_err(|error| ReadError::corrupt(manifest, format!("its record can't be read: {error}")))?;
        let image = Image::from(wire);
        if image.manifest != *manifest {
            return Err(ReadError::corrupt(manifest, format!("its record is that of {}", image.manifest)));
        }
        Ok(image)
    }

    /// Whether there is a record.
    pub fn contains(&self, manifest: &Digest) -> bool {
        self.record(manifest).is_file()
    }

    /// Lists the manifests of all images in order.
    ///
    /// # Errors
    /// The file system refused.
    pub fn list(&self) -> io::Result<Vec<Digest>> {
        let mut found = Vec::new();
        for file in fs::read_dir(&self.records)? {
            let name = file?.file_name();
            let hex = name.to_str().and_then(|name| name.strip_suffix(".json"));
            let digest: Option<Digest> = hex.and_then(|hex| format!("sha256:{hex}").parse().ok());
            found.extend(digest);
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Removes a record; whether there was one. Its tree and its blobs stay.
    ///
    /// # Errors
    /// The file system refused.
    pub fn remove(&self, manifest: &Digest) -> io::Result<bool> {
        removed(fs::remove_file(self.record(manifest)))
    }

    /// Points a name, such as `shop/web` or `debian:bookworm`, at a manifest, for people and for caches.
    ///
    /// # Errors
    /// See [`PutError`].
    pub fn set_name(&self, name: &str, manifest: &Digest) -> Result<(), PutError> {
        // Every bake names what it found: what is said already is not waited for.
        if self.by_name(name) == Some(*manifest) {
            return Ok(());
        }
        let wire = NameWire { name: name.into(), manifest: Text(*manifest) };
        replace_file(&self.name_file(name), &self.tmp, &to_json(&wire))
    }

    /// Returns what a name points at.
    pub fn by_name(&self, name: &str) -> Option<Digest> {
        read_name(&self.name_file(name)).filter(|wire| wire.name == name).map(|wire| wire.manifest.0)
    }

    /// Returns when a name was last pointed at something; none where there is no such name.
    pub fn named_at(&self, name: &str) -> Option<SystemTime> {
        fs::metadata(self.name_file(name)).and_then(|meta| meta.modified()).ok()
    }

    /// Forgets a name; whether there was one.
    ///
    /// # Errors
    /// The file system refused.
    pub fn remove_name(&self, name: &str) -> io::Result<bool> {
        removed(fs::remove_file(self.name_file(name)))
    }

    /// Lists all names in order, with what they point at.
    ///
    /// # Errors
    /// The file system refused.
    pub fn names(&self) -> io::Result<Vec<(String, Digest)>> {
        let mut found = Vec::new();
        for file in fs::read_dir(&self.names)? {
            found.extend(read_name(&file?.path()).map(|wire| (wire.name, wire.manifest.0)));
        }
        found.sort_unstable();
        Ok(found)
    }

    fn record(&self, manifest: &Digest) -> PathBuf {
        self.records.join(format!("{}.json", manifest.hex()))
    }

    fn name_file(&self, name: &str) -> PathBuf {
        self.names.join(format!("{}.json", sha256(name.as_bytes()).hex()))
    }
}

/// A name that can't be read is one that nothing depends upon: names are a convenience, digests are what is retained.
fn read_name(path: &Path) -> Option<NameWire> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn removed(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::Store;

    #[test]
    fn a_name_is_written_only_where_it_says_something_else() {
        let state = tempfile::tempdir().unwrap();
        let images = Store::open(state.path()).unwrap().images;
        let [one, other] = [1, 2].map(|byte| Digest::new([byte; 32]));
        let file = || fs::metadata(images.name_file("shop/web")).unwrap().ino();
        images.set_name("shop/web", &one).unwrap();
        let written = file();
        images.set_name("shop/web", &one).unwrap();
        assert_eq!(file(), written, "a file that is replaced is another one");
        images.set_name("shop/web", &other).unwrap();
        assert_eq!(images.by_name("shop/web"), Some(other));
        // What is torn is written again.
        fs::write(images.name_file("shop/web"), "{").unwrap();
        images.set_name("shop/web", &other).unwrap();
        assert_eq!(images.by_name("shop/web"), Some(other));
    }
}
