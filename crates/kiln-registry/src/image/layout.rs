//! An image in a folder, as skopeo, buildah and others write it.
//!
//! Source: the OCI image specification 1.1, `image-layout.md`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use kiln_model::Digest;
use kiln_store::Store;
use serde_json::{Value, json};

use super::{ImageError, Origin, copy_exactly, sha256};
use crate::digest::ContentDigest;
use crate::manifest::{MANIFEST_BYTES_MAX, Manifest, OCI_INDEX, Target};
use crate::name::{Reference, Tag};

/// Where a manifest in the folder's index has its tag.
const NAME: &str = "org.opencontainers.image.ref.name";

/// A folder of images.
#[derive(Debug, Clone)]
pub struct Layout {
    folder: PathBuf,
}

/// A folder of images can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The file system refused.
    #[error("{} can't be read or written", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is not such a folder.
    #[error("{} is not an OCI image layout: {reason}", path.display())]
    NotALayout {
        /// Which folder.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// It does not have the image.
    #[error("{} has no image {wanted}; it has {found}", path.display())]
    Missing {
        /// Which folder.
        path: PathBuf,
        /// What was asked for.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// A file of it is not what its name says.
    #[error("{} has {found}", path.display())]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// What it has.
        found: String,
    },
}

impl Layout {
    /// Names a folder; reads nothing yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Finds the manifest of a tag, or the only one there is.
    ///
    /// # Errors
    /// See [`LayoutError`].
    pub fn find(&self, tag: Option<&Tag>) -> Result<ContentDigest, LayoutError> {
        let index = self.index()?.ok_or_else(|| self.not("it has no index.json"))?;
        let entries = index["manifests"].as_array().ok_or_else(|| self.not("its index.json has no list"))?;
        let name = |entry: &Value| entry["annotations"][NAME].as_str().map(str::to_owned);
        let found = match tag {
            Some(tag) => entries.iter().find(|entry| name(entry).as_deref() == Some(tag.as_str())),
            None if entries.len() == 1 => entries.first(),
            None => None,
        };
        let digest = found.and_then(|entry| entry["digest"].as_str()?.parse().ok());
        digest.ok_or_else(|| {
            let names: Vec<String> = entries.iter().filter_map(name).take(20).collect();
            LayoutError::Missing {
                path: self.folder.clone(),
                wanted: tag.map_or_else(|| "without a tag".into(), |tag| format!("`{tag}`")),
                found: if names.is_empty() {
                    format!("{} without a tag", entries.len())
                } else {
                    names.join(", ")
                },
            }
        })
    }

    /// Writes an image of the store into the folder, which is made where it is missing, and tags it there.
    ///
    /// # Errors
    /// See [`ImageError`]; the folder's index does not name what is not there as a whole.
    pub fn write(&self, store: &Store, manifest: &Digest, tag: Option<&Tag>) -> Result<(), ImageError> {
        let bytes = store.blobs.read_verified(manifest)?;
        let parsed = Manifest::parse(None, &bytes)?;
        let blobs = self.folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(at(&blobs))?;
        for target in &parsed.blobs {
            let digest = sha256(&target.digest)?;
            let mut reader = store.blobs.open_verified(&digest)?;
            self.put(&blobs.join(digest.hex()), &mut reader)?;
        }
        self.put(&blobs.join(manifest.hex()), &mut &bytes[..])?;
        let mut entry = json!({
            "digest": manifest.to_string(), "mediaType": parsed.media_type, "size": bytes.len(),
        });
        if let Some(tag) = tag {
            entry["annotations"] = json!({ NAME: tag.as_str() });
        }
        let same = |other: &Value| other["annotations"][NAME] == entry["annotations"][NAME];
        let index = self.index()?.unwrap_or_default();
        let mut entries = index["manifests"].as_array().cloned().unwrap_or_default();
        entries.retain(|other| !same(other));
        entries.push(entry);
        let index = json!({ "manifests": entries, "mediaType": OCI_INDEX, "schemaVersion": 2 });
        let marker = json!({ "imageLayoutVersion": "1.0.0" });
        for (name, value) in [("oci-layout", marker), ("index.json", index)] {
            self.put(&self.folder.join(name), &mut value.to_string().as_bytes())?;
        }
        Ok(())
    }

    /// Writes a file beside its place, and then puts it there.
    fn put(&self, path: &Path, reader: &mut dyn Read) -> Result<(), LayoutError> {
        let staged = path.with_extension("part");
        let written = File::create(&staged).and_then(|mut file| {
            io::copy(reader, &mut file)?;
            file.sync_all()
        });
        written.and_then(|()| fs::rename(&staged, path)).map_err(at(path))
    }

    fn index(&self) -> Result<Option<Value>, LayoutError> {
        let path = self.folder.join("index.json");
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LayoutError::Io { path, source }),
            Ok(file) => {
                let mut bytes = Vec::new();
                file.take(MANIFEST_BYTES_MAX as u64).read_to_end(&mut bytes).map_err(at(&path))?;
                let value = serde_json::from_slice(&bytes);
                value.map(Some).map_err(|_| self.not("its index.json is not JSON"))
            }
        }
    }

    fn not(&self, reason: &'static str) -> LayoutError {
        LayoutError::NotALayout { path: self.folder.clone(), reason }
    }

    fn blob_path(&self, digest: &ContentDigest) -> PathBuf {
        self.folder.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }
}

impl Origin for Layout {
    fn manifest(&self, reference: &Reference) -> Result<(Vec<u8>, Option<String>), ImageError> {
        let digest = match reference {
            Reference::Digest(digest) => digest.clone(),
            Reference::Tag(tag) => self.find(Some(tag))?,
        };
        let path = self.blob_path(&digest);
        let mut bytes = Vec::new();
        let limit = MANIFEST_BYTES_MAX as u64 + 1;
        let read = File::open(&path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
        read.map_err(at(&path))?;
        let found = ContentDigest::of(digest.algorithm(), &bytes);
        if found != digest {
            return Err(LayoutError::Wrong { path, found: format!("the digest {found}") }.into());
        }
        Ok((bytes, None))
    }

    fn blob(&self, target: &Target, sink: &mut dyn Write) -> Result<(), ImageError> {
        let path = self.blob_path(&target.digest);
        let mut file = File::open(&path).map_err(at(&path))?;
        let found = copy_exactly(target, &mut file, sink).map_err(at(&path))?;
        if found != target.digest {
            return Err(
                LayoutError::Wrong { path, found: format!("the digest {found}, or another size") }.into()
            );
        }
        Ok(())
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> LayoutError {
    let path = path.to_owned();
    move |source| LayoutError::Io { path, source }
}
