//! Git repositories that Dockerfiles add: a commit's files as one archive, which is locked, kept and found again by its digest as
//! the files of URLs are.

mod address;
mod client;
mod snapshot;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::path::PathBuf;

use kiln_model::Digest;

pub use address::CommitPrefix;
pub(crate) use address::{Address, is_commit};
pub use client::GitError;
use client::Repository;

use crate::cache::PackageCache;
use crate::cancel::Cancel;
use crate::hashing::Hashing;

/// What a commit is locked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedCommit {
    /// The commit.
    pub commit: String,
    /// The digest of the archive of its files, or of those of the folder that was asked for.
    pub files: Digest,
}

/// Brings commits, and keeps them with all that was fetched.
#[derive(Debug)]
pub(crate) struct Checkouts<'a> {
    pub(crate) cache: &'a PackageCache,
    pub(crate) cancel: &'a Cancel,
}

impl Checkouts<'_> {
    /// Finds out what a repository has today, and keeps it.
    pub(crate) fn learn(
        &self,
        address: &Address,
        promised: Option<&CommitPrefix>,
    ) -> Result<LockedCommit, GitError> {
        self.bring(address, |repository| repository.resolve(address, promised), |_| true)
    }

    /// Returns the path of the archive of a commit that was locked; fetches it where it is missing or corrupt.
    pub(crate) fn obtain(&self, address: &Address, locked: &LockedCommit) -> Result<PathBuf, GitError> {
        if let Some(path) = self.cache.held(&locked.files) {
            return Ok(path);
        }
        self.bring(address, |_| Ok(locked.commit.clone()), |files| files == locked.files)?;
        Ok(self.cache.path_of(&locked.files))
    }

    /// Brings a commit, and keeps the archive of its files if it is one that is wanted.
    fn bring(
        &self,
        address: &Address,
        which: impl FnOnce(&Repository<'_>) -> Result<String, GitError>,
        is_wanted: impl FnOnce(Digest) -> bool,
    ) -> Result<LockedCommit, GitError> {
        let repository = Repository::new(self.cache.partial(), self.cancel)?;
        let commit = which(&repository)?;
        repository.fetch(&address.remote, &commit)?;
        let partial = self.cache.partial();
        let write = |source| GitError::Write { path: partial.clone(), source };
        let bring = || {
            let mut sink = Hashing::new(File::create(&partial).map_err(write)?);
            snapshot::write(&repository, &commit, &address.folder, &partial, &mut sink)?;
            let files = sink.finish().1;
            if !is_wanted(files) {
                return Err(GitError::OtherFiles { commit: commit.clone() });
            }
            fs::rename(&partial, self.cache.path_of(&files)).map_err(write)?;
            Ok(files)
        };
        let files = bring().inspect_err(|_| drop(fs::remove_file(&partial)))?;
        Ok(LockedCommit { commit, files })
    }
}
