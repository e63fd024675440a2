//! Blobs: every content once, and a hard link to it for each repository that has it.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::durable::{make_folders, parent_of, sync_folder};
use super::{Content, Storage, found, removed};
use crate::digest::{Algorithm, ContentDigest};
use crate::name::RepositoryName;

/// A repository's folder of blobs.
pub(super) const BLOBS: &str = "_blobs";

impl Storage {
    /// Opens a blob of a repository; none where it has none of that digest.
    ///
    /// # Errors
    /// The file system refused.
    pub fn open_blob(&self, name: &RepositoryName, digest: &ContentDigest) -> io::Result<Option<Content>> {
        let Some(file) = found(File::open(self.of_digest(name, BLOBS, digest)))? else { return Ok(None) };
        let size = file.metadata()?.len();
        Ok(Some(Content { file, start: 0, size }))
    }

    /// Returns the size of a blob of a repository.
    ///
    /// # Errors
    /// The file system refused.
    pub fn blob_size(&self, name: &RepositoryName, digest: &ContentDigest) -> io::Result<Option<u64>> {
        Ok(found(fs::metadata(self.of_digest(name, BLOBS, digest)))?.map(|meta| meta.len()))
    }

    /// Gives a repository a blob that is there already: in `from`, or anywhere. Whether it was.
    ///
    /// # Errors
    /// The file system refused.
    pub fn mount_blob(
        &self,
        name: &RepositoryName,
        digest: &ContentDigest,
        from: Option<&RepositoryName>,
    ) -> io::Result<bool> {
        let source = from.map_or_else(|| self.blob_path(digest), |from| self.of_digest(from, BLOBS, digest));
        if !source.is_file() {
            return Ok(false);
        }
        let link = self.of_digest(name, BLOBS, digest);
        make_folders(&self.root, parent_of(&link))?;
        let names = self.names();
        match fs::hard_link(&source, &link) {
            // A file can have so many names only; the upload that the client is asked for makes another copy.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::TooManyLinks) => {
                return Ok(false);
            }
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => drop(names),
        }
        sync_folder(parent_of(&link))?;
        Ok(true)
    }

    /// Takes a blob from a repository, and its bytes away if no other has it. Whether there was one. Who reads it goes on.
    ///
    /// # Errors
    /// The file system refused.
    pub fn delete_blob(&self, name: &RepositoryName, digest: &ContentDigest) -> io::Result<bool> {
        let link = self.of_digest(name, BLOBS, digest);
        let names = self.names();
        if !removed(&link)? {
            return Ok(false);
        }
        remove_unlinked(&self.blob_path(digest))?;
        drop(names);
        sync_folder(parent_of(&link))?;
        Ok(true)
    }

    /// Gives a finished file its names as a blob. The file goes, or becomes the blob.
    pub(super) fn keep_blob(
        &self,
        name: &RepositoryName,
        digest: &ContentDigest,
        data: &Path,
        size: u64,
    ) -> io::Result<()> {
        let blob = self.blob_path(digest);
        let link = self.of_digest(name, BLOBS, digest);
        make_folders(&self.root, parent_of(&blob))?;
        make_folders(&self.root, parent_of(&link))?;
        let is_whole = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.len() == size);
        // What is there already is durable already.
        let known = is_whole(&blob);
        if !known {
            File::open(data)?.sync_all()?;
        }
        let names = self.names();
        if !is_whole(&link) {
            // A copy of another length is damaged: replacing it repairs it.
            removed(&link)?;
            let linked =
                if is_whole(&blob) { fs::hard_link(&blob, &link) } else { Err(ErrorKind::NotFound.into()) };
            match linked {
                // It is gone, damaged, or has as many names as a file can have: those keep that copy, and this is another.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::TooManyLinks) => {
                    if known {
                        File::open(data)?.sync_all()?;
                    }
                    fs::rename(data, &blob)?;
                    fs::hard_link(&blob, &link)?;
                }
                other => other?,
            }
        }
        drop(names);
        sync_folder(parent_of(&blob))?;
        sync_folder(parent_of(&link))
    }

    /// Removes blobs that no repository has, and returns how many.
    pub(super) fn sweep_blobs(&self) -> io::Result<usize> {
        let mut count = 0;
        for algorithm in Algorithm::ALL {
            let Some(folders) = found(fs::read_dir(self.root.join("blobs").join(algorithm.name())))? else {
                continue;
            };
            for folder in folders {
                for blob in fs::read_dir(folder?.path())? {
                    let path = blob?.path();
                    let _names = self.names();
                    count += usize::from(remove_unlinked(&path)?);
                }
            }
        }
        Ok(count)
    }
}

/// Removes a blob whose only name is its own. The names are locked.
fn remove_unlinked(blob: &Path) -> io::Result<bool> {
    match found(fs::metadata(blob))? {
        Some(meta) if meta.nlink() == 1 => removed(blob),
        _ => Ok(false),
    }
}
