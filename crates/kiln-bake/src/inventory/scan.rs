//! What was found so far in one tree, and the reading of its files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;

use kiln_model::Digest;
use kiln_store::snapshot::Held;
use kiln_store::{Kind, Objects, ReadError, Tree, TreePath};

use super::Omission;
use super::package::{Package, PackageKey};
use crate::hashing::sha256_of;

/// Debian as a whole has 60,000 packages, and the largest JavaScript programs some thousands: more is no software.
const PACKAGES_MAX: usize = 200_000;

/// One reason shows what is wrong; a list of thousands hides it.
const OMISSIONS_MAX: usize = 100;

/// A package that is there under many paths is named with the first few.
const FOUND_MAX: usize = 8;

/// What is read of one image: many times the metadata of the largest, though thousands of names may lead to one large file.
const READ_BYTES_MAX: u64 = 8 << 30;

/// No ecosystem has names or versions of this length.
const WORD_BYTES_MAX: usize = 512;

/// A search through a tree.
pub(super) struct Scan<'a> {
    objects: &'a Objects,
    held: Held,
    pub(super) tree: &'a Tree,
    packages: BTreeMap<PackageKey, Package>,
    omissions: Vec<Omission>,
    /// How many more there were.
    unnamed: usize,
    /// The programs and archives that were read: a file may have several names.
    programs: BTreeSet<Digest>,
    /// How many bytes may still be read.
    left: u64,
    /// Where it looked, whether something was there or not.
    pub(super) looked_at: BTreeSet<TreePath>,
}

impl<'a> Scan<'a> {
    pub(super) fn new(objects: &'a Objects, tree: &'a Tree) -> Self {
        let (packages, omissions) = (BTreeMap::new(), Vec::new());
        Self {
            objects,
            held: objects.held(),
            tree,
            packages,
            omissions,
            unnamed: 0,
            programs: BTreeSet::new(),
            left: READ_BYTES_MAX,
            looked_at: BTreeSet::new(),
        }
    }

    /// Follows links, that of the last name included; none where they lead nowhere.
    pub(super) fn resolve(&mut self, path: &TreePath) -> Option<TreePath> {
        self.looked_at.insert(path.clone());
        self.tree.resolve(path, true).ok()
    }

    /// Returns the packages in order, what was left out, and where it looked.
    pub(super) fn finish(mut self) -> (Vec<Package>, Vec<Omission>, BTreeSet<TreePath>) {
        if self.unnamed > 0 {
            let reason = format!("{} more could not be read", self.unnamed);
            self.omissions.push(Omission { path: TreePath::root(), reason });
        }
        (self.packages.into_values().collect(), self.omissions, self.looked_at)
    }

    /// Adds what a file says to be there.
    pub(super) fn add(&mut self, path: &TreePath, package: Package) {
        let words = [&package.name, &package.version];
        let is_word = |word: &&String| word.len() <= WORD_BYTES_MAX && !word.contains(char::is_control);
        if package.name.is_empty() || !words.iter().all(is_word) {
            return self.omit(path, "a package's name or version is none");
        }
        let key = package.key();
        if self.packages.len() >= PACKAGES_MAX && !self.packages.contains_key(&key) {
            return self.omit(path, format!("the image has more than {PACKAGES_MAX} packages"));
        }
        let licence = package.licence.clone();
        let known = self.packages.entry(key).or_insert(package);
        if known.licence.is_none() {
            known.licence = licence;
        }
        if known.found.len() < FOUND_MAX {
            known.found.insert(path.clone());
        }
    }

    /// Notes what can't be read.
    pub(super) fn omit(&mut self, path: &TreePath, reason: impl Into<String>) {
        if self.omissions.len() < OMISSIONS_MAX {
            self.omissions.push(Omission { path: path.clone(), reason: reason.into() });
        } else {
            self.unnamed += 1;
        }
    }

    /// Reads and verifies a file of `limit` bytes at most; none where the path has no file, or a larger one, which is noted.
    pub(super) fn read(&mut self, path: &TreePath, limit: u64) -> Result<Option<Vec<u8>>, ReadError> {
        let Some((digest, size)) = self.file(path) else { return Ok(None) };
        if size > limit {
            self.omit(path, format!("it has {size} bytes, more than the {limit} that are read"));
            return Ok(None);
        }
        if !self.spend(path, size) {
            return Ok(None);
        }
        self.objects.read_verified(&digest, limit).map(Some)
    }

    /// Opens a file for reading here and there, unverified; none where the path has no file.
    pub(super) fn open(&mut self, path: &TreePath) -> Result<Option<File>, ReadError> {
        self.file(path).map(|(digest, _)| self.held.open_file(&digest)).transpose()
    }

    /// Whether this is the first name of a program or an archive, and there is still time for it.
    pub(super) fn is_new_program(&mut self, path: &TreePath) -> bool {
        let Some((digest, size)) = self.file(path) else { return false };
        self.programs.insert(digest) && self.spend(path, size)
    }

    fn spend(&mut self, path: &TreePath, bytes: u64) -> bool {
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(self.left);
        if left.is_none() {
            self.omit(path, format!("more than {READ_BYTES_MAX} bytes would have to be read"));
        }
        left.is_some()
    }

    /// Verifies a file that was read here and there.
    pub(super) fn verify(&mut self, path: &TreePath) -> Result<(), ReadError> {
        let Some((digest, _)) = self.file(path) else { return Ok(()) };
        let failed = |source: io::Error| ReadError::Io { path: self.objects.path_of(&digest), source };
        let found = sha256_of(self.objects.open_file(&digest)?).map_err(failed)?;
        if found == digest {
            return Ok(());
        }
        Err(ReadError::Corrupt { digest, reason: format!("its bytes hash to {found}") })
    }

    fn file(&mut self, path: &TreePath) -> Option<(Digest, u64)> {
        self.looked_at.insert(path.clone());
        match self.tree.get(path)?.kind {
            Kind::File { digest, size } => Some((digest, size)),
            _ => None,
        }
    }
}
