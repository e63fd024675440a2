//! The stack folder as a bake sees it: a folder, or a snapshot of one in the store.
//!
//! **Architecture invariant:** no symlink of it is followed, so nothing outside of it can be reached through it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kiln_model::Digest;
use kiln_store::snapshot::SnapshotKind;
use kiln_store::tree::PathError;
use kiln_store::{ReadError, Snapshots, TreePath};

use crate::glob::GlobError;
use crate::hashing::sha256_of;
use crate::ignore::{IGNORE_BYTES_MAX, IGNORE_FILE, Ignore};

/// A stack folder holds what people wrote; with more files than this it is the wrong folder.
const FILES_MAX: usize = 1 << 20;

/// Where a stack's files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A folder, read when it is needed.
    Folder(PathBuf),
    /// A snapshot in the store, which can't change during the bake.
    Snapshot(Digest),
}

/// Why a stack's files can't be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file or folder can't be read.
    #[error("{} can't be read", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The snapshot can't be read.
    #[error(transparent)]
    Snapshot(#[from] ReadError),
    /// A name can't be in an image.
    #[error(transparent)]
    Path(#[from] PathError),
    /// `.kilnignore` is malformed.
    #[error(".kilnignore is malformed")]
    Ignore(#[source] GlobError),
    /// A `.dockerignore` is malformed.
    #[error("{} is malformed", path.display())]
    DockerIgnore {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: GlobError,
    },
    /// There are too many files.
    #[error("{} holds more than a million files", path.display())]
    TooMany {
        /// The folder.
        path: PathBuf,
    },
}

/// All that is in a stack folder.
#[derive(Debug)]
pub(crate) struct SourceFiles {
    origin: Origin,
    files: BTreeMap<TreePath, SourceFile>,
    /// What is left out of every image.
    pub(crate) ignore: Ignore,
}

#[derive(Debug)]
enum Origin {
    Folder(PathBuf),
    Snapshot(Snapshots),
}

/// One thing in a stack folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceFile {
    /// Whether its owner may execute it: the one bit of a mode that does not depend on a umask.
    pub(crate) executable: bool,
    /// What it is.
    pub(crate) kind: SourceKind,
}

/// What a thing in a stack folder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SourceKind {
    /// A regular file; its digest is known where a snapshot was taken.
    File {
        digest: Option<Digest>,
        /// In bytes, when it was listed.
        size: u64,
    },
    Symlink {
        target: Vec<u8>,
    },
    Folder,
}

impl SourceFiles {
    /// Lists a stack's files.
    pub(crate) fn open(source: &Source, snapshots: &Snapshots) -> Result<Self, SourceError> {
        match source {
            Source::Folder(folder) => Self::of_folder(folder),
            Source::Snapshot(digest) => {
                Self::with(Origin::Snapshot(snapshots.clone()), list_snapshot(snapshots, digest)?)
            }
        }
    }

    /// Lists a folder as it is now.
    pub(crate) fn of_folder(folder: &Path) -> Result<Self, SourceError> {
        Self::with(Origin::Folder(folder.to_owned()), list_folder(folder)?)
    }

    /// Lists of a folder only what lies at some paths or on the way to them.
    pub(crate) fn of_paths(folder: &Path, paths: &BTreeSet<TreePath>) -> Result<Self, SourceError> {
        let mut files = BTreeMap::new();
        for path in paths {
            let mut at = TreePath::root();
            for name in path.names() {
                at = at.join(name)?;
                let place = folder.join(std::ffi::OsStr::from_bytes(at.as_bytes()));
                let meta = match fs::symlink_metadata(&place) {
                    Ok(meta) => meta,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                    Err(source) => return Err(SourceError::Read { path: place, source }),
                };
                let is_folder = meta.is_dir();
                files.extend(listed(&place, &meta)?.map(|file| (at.clone(), file)));
                if !is_folder {
                    break;
                }
            }
        }
        Self::with(Origin::Folder(folder.to_owned()), files)
    }

    fn with(origin: Origin, files: BTreeMap<TreePath, SourceFile>) -> Result<Self, SourceError> {
        let ignore = Ignore::new("").expect("no rules are well-formed rules");
        let mut all = Self { origin, files, ignore };
        let path = TreePath::parse(IGNORE_FILE).expect("a constant path is valid");
        if let Some(SourceFile { kind: SourceKind::File { digest, .. }, .. }) = all.files.get(&path) {
            let mut text = String::new();
            let reader = all.open_file(&path, *digest)?;
            let failed = |source| SourceError::Read { path: IGNORE_FILE.into(), source };
            reader.take(IGNORE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
            all.ignore = Ignore::new(&text).map_err(SourceError::Ignore)?;
        }
        Ok(all)
    }

    /// Returns everything in the order of paths, what is ignored, too.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TreePath, &SourceFile)> {
        self.files.iter()
    }

    /// Returns what is at a path.
    pub(crate) fn get(&self, path: &TreePath) -> Option<&SourceFile> {
        self.files.get(path)
    }

    /// Returns the digest of a file's content; a folder's file is read for it.
    pub(crate) fn digest(&self, path: &TreePath, known: Option<Digest>) -> Result<Digest, SourceError> {
        match known {
            Some(digest) => Ok(digest),
            None => {
                let reader = self.open_file(path, None)?;
                sha256_of(reader).map_err(|source| SourceError::Read { path: self.shown(path), source })
            }
        }
    }

    /// Opens a file's content.
    pub(crate) fn open_file(
        &self,
        path: &TreePath,
        known: Option<Digest>,
    ) -> Result<Box<dyn Read>, SourceError> {
        match (&self.origin, known) {
            (Origin::Snapshot(snapshots), Some(digest)) => Ok(Box::new(snapshots.open_file(&digest)?)),
            _ => {
                let path = self.shown(path);
                let opened = rustix::fs::open(
                    &path,
                    // What was a file when it was listed may be a link by now.
                    rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC,
                    rustix::fs::Mode::empty(),
                );
                match opened {
                    Ok(fd) => Ok(Box::new(File::from(fd))),
                    Err(errno) => Err(SourceError::Read { path, source: errno.into() }),
                }
            }
        }
    }

    fn shown(&self, path: &TreePath) -> PathBuf {
        let relative = Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()));
        match &self.origin {
            Origin::Folder(folder) => folder.join(relative),
            Origin::Snapshot(_) => relative.into(),
        }
    }
}

fn list_folder(root: &Path) -> Result<BTreeMap<TreePath, SourceFile>, SourceError> {
    let mut files = BTreeMap::new();
    let mut queue = vec![(root.to_path_buf(), TreePath::root())];
    while let Some((folder, at)) = queue.pop() {
        let failed = |source| SourceError::Read { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = at.join(entry.file_name().as_bytes())?;
            let place = entry.path();
            let failed = |source| SourceError::Read { path: place.clone(), source };
            let meta = fs::symlink_metadata(&place).map_err(failed)?;
            if meta.is_dir() {
                queue.push((place.clone(), path.clone()));
            }
            files.extend(listed(&place, &meta)?.map(|file| (path, file)));
            if files.len() > FILES_MAX {
                return Err(SourceError::TooMany { path: root.into() });
            }
        }
    }
    Ok(files)
}

/// What something is; none for sockets and pipes, which are of a running program and not of a stack.
fn listed(place: &Path, meta: &fs::Metadata) -> Result<Option<SourceFile>, SourceError> {
    let failed = |source| SourceError::Read { path: place.to_owned(), source };
    let kind = if meta.is_dir() {
        SourceKind::Folder
    } else if meta.is_symlink() {
        SourceKind::Symlink { target: fs::read_link(place).map_err(failed)?.into_os_string().into_vec() }
    } else if meta.is_file() {
        SourceKind::File { digest: None, size: meta.len() }
    } else {
        return Ok(None);
    };
    Ok(Some(SourceFile { executable: meta.mode() & 0o100 != 0, kind }))
}

fn list_snapshot(
    snapshots: &Snapshots,
    digest: &Digest,
) -> Result<BTreeMap<TreePath, SourceFile>, SourceError> {
    let mut files = BTreeMap::new();
    for file in snapshots.load(digest)?.files {
        // Folders with files in them need not be in a snapshot.
        let mut folder = file.path.parent();
        while let Some(path) = folder.filter(|path| !path.is_root()) {
            folder = path.parent();
            files.entry(path).or_insert(SourceFile { executable: true, kind: SourceKind::Folder });
        }
        let kind = match file.kind {
            SnapshotKind::File { digest, size } => SourceKind::File { digest: Some(digest), size },
            SnapshotKind::Symlink { target } => SourceKind::Symlink { target },
            SnapshotKind::Dir => SourceKind::Folder,
        };
        files.insert(file.path, SourceFile { executable: file.mode & 0o100 != 0, kind });
    }
    Ok(files)
}
