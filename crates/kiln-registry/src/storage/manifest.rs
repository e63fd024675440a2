//! Manifests, the tags that point at them, and the lists of those that are about another.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};

use super::durable::{Staged, make_folders, parent_of, sync_folder};
use super::{Content, Storage, found, removed};
use crate::digest::ContentDigest;
use crate::manifest::{MANIFEST_BYTES_MAX, Manifest};
use crate::name::{Reference, RepositoryName, Tag};

/// A repository's folder of manifests.
pub(super) const MANIFESTS: &str = "_manifests";
/// A repository's folder of tags.
pub(super) const TAGS: &str = "_tags";
/// A repository's folder of what is about its manifests.
pub(super) const REFERRERS: &str = "_referrers";

/// The first line of a manifest's file; ours have some 60 bytes.
const MEDIA_TYPE_BYTES_MAX: u64 = 256;

/// A manifest that is there.
#[derive(Debug)]
pub struct StoredManifest {
    /// Its address.
    pub digest: ContentDigest,
    /// What it was pushed as.
    pub media_type: String,
    /// Its bytes.
    pub content: Content,
}

/// A manifest can't be kept.
#[derive(Debug, thiserror::Error)]
pub enum PutManifestError {
    /// It refers to what the repository does not have.
    #[error("{digest} is not in the repository")]
    Unknown {
        /// What it refers to.
        digest: ContentDigest,
    },
    /// It is wrong about the size of what it refers to.
    #[error("{digest} has {found} bytes, not {said}")]
    Size {
        /// What it refers to.
        digest: ContentDigest,
        /// The size that it says.
        said: u64,
        /// The size that there is.
        found: u64,
    },
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Storage {
    /// Keeps a manifest whose blobs are there, durably, and points a tag at it.
    ///
    /// # Errors
    /// See [`PutManifestError`].
    pub fn put_manifest(
        &self,
        name: &RepositoryName,
        digest: &ContentDigest,
        tag: Option<&Tag>,
        manifest: &Manifest,
        bytes: &[u8],
    ) -> Result<(), PutManifestError> {
        let path = self.of_digest(name, MANIFESTS, digest);
        let line = format!("{}\n", manifest.media_type);
        let mut staged = vec![(Staged::write(&self.tmp(), &[line.as_bytes(), bytes])?, path)];
        if let Some(subject) = &manifest.subject {
            let size = bytes.len() as u64;
            let entry = serde_json::to_vec(&manifest.descriptor(digest, size)).map_err(io::Error::other)?;
            let path = self.referrer(name, subject, digest);
            // Before the manifest: an entry whose manifest is not there is not listed.
            staged.insert(0, (Staged::write(&self.tmp(), &[&entry])?, path));
        }
        if let Some(tag) = tag {
            let path = self.repository(name).join(TAGS).join(tag.as_str());
            staged.push((Staged::write(&self.tmp(), &[digest.to_string().as_bytes()])?, path));
        }
        for (_, path) in &staged {
            make_folders(&self.root, parent_of(path))?;
        }
        let folders: Vec<_> = staged.iter().map(|(_, path)| parent_of(path).to_owned()).collect();
        let names = self.names();
        self.check_targets(name, manifest)?;
        for (file, path) in staged {
            file.rename(&path)?;
        }
        drop(names);
        for folder in folders {
            sync_folder(&folder)?;
        }
        Ok(())
    }

    /// Fails unless the repository has everything that a manifest consists of. The names are locked.
    fn check_targets(&self, name: &RepositoryName, manifest: &Manifest) -> Result<(), PutManifestError> {
        for target in &manifest.blobs {
            match self.blob_size(name, &target.digest)? {
                None => return Err(PutManifestError::Unknown { digest: target.digest.clone() }),
                Some(found) if found != target.size => {
                    let digest = target.digest.clone();
                    return Err(PutManifestError::Size { digest, said: target.size, found });
                }
                Some(_) => {}
            }
        }
        for target in &manifest.manifests {
            let Some(stored) = self.open_digest(name, &target.digest)? else {
                return Err(PutManifestError::Unknown { digest: target.digest.clone() });
            };
            let found = stored.content.size;
            if found != target.size {
                return Err(PutManifestError::Size { digest: stored.digest, said: target.size, found });
            }
        }
        Ok(())
    }

    /// Opens a manifest; none where there is no such tag or digest.
    ///
    /// # Errors
    /// The file system refused.
    pub fn open_manifest(
        &self,
        name: &RepositoryName,
        reference: &Reference,
    ) -> io::Result<Option<StoredManifest>> {
        match reference {
            Reference::Digest(digest) => self.open_digest(name, digest),
            Reference::Tag(tag) => match self.tagged(name, tag)? {
                Some(digest) => self.open_digest(name, &digest),
                None => Ok(None),
            },
        }
    }

    fn tagged(&self, name: &RepositoryName, tag: &Tag) -> io::Result<Option<ContentDigest>> {
        let text = found(fs::read_to_string(self.repository(name).join(TAGS).join(tag.as_str())))?;
        // What is no digest was not written by us.
        Ok(text.and_then(|text| text.parse().ok()))
    }

    fn open_digest(
        &self,
        name: &RepositoryName,
        digest: &ContentDigest,
    ) -> io::Result<Option<StoredManifest>> {
        let Some(file) = found(File::open(self.of_digest(name, MANIFESTS, digest)))? else { return Ok(None) };
        let mut media_type = String::new();
        BufReader::with_capacity(MEDIA_TYPE_BYTES_MAX as usize, &file)
            .take(MEDIA_TYPE_BYTES_MAX)
            .read_line(&mut media_type)?;
        let start = media_type.len() as u64;
        let size = file.metadata()?.len() - start;
        media_type.truncate(media_type.trim_end().len());
        let content = Content { file, start, size };
        Ok(Some(StoredManifest { digest: digest.clone(), media_type, content }))
    }

    /// Removes a manifest and every tag that points at it. Whether there was one.
    ///
    /// # Errors
    /// The file system refused.
    pub fn delete_manifest(&self, name: &RepositoryName, digest: &ContentDigest) -> io::Result<bool> {
        let names = self.names();
        let Some(stored) = self.open_digest(name, digest)? else { return Ok(false) };
        let subject = subject_of(&stored);
        let path = self.of_digest(name, MANIFESTS, digest);
        if !removed(&path)? {
            return Ok(false);
        }
        let tags = self.repository(name).join(TAGS);
        let text = digest.to_string();
        for tag in found(fs::read_dir(&tags))?.into_iter().flatten() {
            let tag = tag?.path();
            if found(fs::read_to_string(&tag))?.is_some_and(|to| to == text) {
                removed(&tag)?;
            }
        }
        if let Some(subject) = subject {
            removed(&self.referrer(name, &subject, digest))?;
        }
        drop(names);
        sync_folder(parent_of(&path))?;
        found(sync_folder(&tags))?;
        Ok(true)
    }

    /// Removes a tag; its manifest stays. Whether there was one.
    ///
    /// # Errors
    /// The file system refused.
    pub fn delete_tag(&self, name: &RepositoryName, tag: &Tag) -> io::Result<bool> {
        let path = self.repository(name).join(TAGS).join(tag.as_str());
        let names = self.names();
        if !removed(&path)? {
            return Ok(false);
        }
        drop(names);
        sync_folder(parent_of(&path))?;
        Ok(true)
    }

    fn referrer(
        &self,
        name: &RepositoryName,
        subject: &ContentDigest,
        digest: &ContentDigest,
    ) -> std::path::PathBuf {
        self.of_digest(name, REFERRERS, subject).join(format!(
            "{}-{}",
            digest.algorithm().name(),
            digest.hex()
        ))
    }
}

/// What a stored manifest is about.
fn subject_of(stored: &StoredManifest) -> Option<ContentDigest> {
    let mut bytes = vec![0; usize::try_from(stored.content.size).ok()?.min(MANIFEST_BYTES_MAX)];
    use std::os::unix::fs::FileExt;
    stored.content.file.read_exact_at(&mut bytes, stored.content.start).ok()?;
    Manifest::parse(Some(&stored.media_type), &bytes).ok()?.subject
}
