//! An image as a folder that other tools read.
//!
//! Source: the OCI image specification 1.1, `image-layout.md`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use kiln_model::Digest;
use kiln_store::{ReadError, Store};
use serde_json::{Value, json};

/// Why an image can't be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A part of it can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its manifest is none.
    #[error("{manifest} is not an image's manifest")]
    NotAManifest {
        /// What was asked for.
        manifest: Digest,
    },
    /// The folder can't be written.
    #[error("{} can't be written", path.display())]
    Write {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Writes an image with all its blobs as an OCI image layout into a folder, which is made where it is missing.
///
/// # Errors
/// See [`ExportError`]; the folder may be there in part.
pub fn export_layout(store: &Store, manifest: &Digest, folder: &Path) -> Result<(), ExportError> {
    let bytes = store.blobs.read_verified(manifest)?;
    let none = || ExportError::NotAManifest { manifest: *manifest };
    let value: Value = serde_json::from_slice(&bytes).map_err(|_| none())?;
    let parts = value["layers"].as_array().ok_or_else(none)?.iter().chain([&value["config"]]);
    let digests: Vec<Digest> = parts
        .map(|part| part["digest"].as_str().and_then(|text| text.parse().ok()).ok_or_else(none))
        .collect::<Result<_, _>>()?;
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(|source| ExportError::Write { path: blobs.clone(), source })?;
    for digest in digests.iter().chain([manifest]) {
        let path = blobs.join(digest.hex());
        let mut source = store.blobs.open_verified(digest)?;
        let copied = File::create(&path).and_then(|mut file| io::copy(&mut source, &mut file));
        copied.map_err(|source| ExportError::Write { path, source })?;
    }
    let index = json!({
        "manifests": [{
            "digest": manifest.to_string(),
            "mediaType": value["mediaType"],
            "size": bytes.len(),
        }],
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "schemaVersion": 2,
    });
    let marker = json!({ "imageLayoutVersion": "1.0.0" });
    for (name, value) in [("index.json", index), ("oci-layout", marker)] {
        let path = folder.join(name);
        fs::write(&path, value.to_string()).map_err(|source| ExportError::Write { path, source })?;
    }
    Ok(())
}
