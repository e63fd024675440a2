//! A build context: a folder of the stack folder as a tree, without what `.dockerignore` leaves out.

use std::io::Read;
use std::sync::Arc;

use kiln_model::Digest;
use kiln_model::recipe::DockerfileSource;
use kiln_store::{Batch, Entry, Kind, Meta, PutError, Tree, TreePath};

use super::dockerignore::DockerIgnore;
use crate::copy::CopyError;
use crate::hashing::sha256;
use crate::source::{SourceError, SourceFiles, SourceKind};

/// Rules are written by hand; a larger file is something else.
const IGNORE_BYTES_MAX: u64 = 1 << 20;

/// A Dockerfile is written by hand, too.
const DOCKERFILE_BYTES_MAX: u64 = 4 << 20;

/// The file that a folder is searched for.
const DOCKERFILE: &str = "Dockerfile";

/// A build context.
#[derive(Debug)]
pub(crate) struct Context {
    files: Arc<SourceFiles>,
    folder: TreePath,
    ignore: DockerIgnore,
    /// What is in it: root's, 0755 or 0644 by the owner's execute bit, as a checkout's umask decides nothing.
    pub(crate) tree: Tree,
}

/// Finds a Dockerfile by the path that a stack has for it; returns its own path and its text.
pub(crate) fn find(files: &SourceFiles, path: &str) -> Result<Option<(TreePath, String)>, SourceError> {
    let path = TreePath::parse(path)?;
    let place = match files.get(&path).map(|file| &file.kind) {
        None | Some(SourceKind::Folder) => path.join(DOCKERFILE)?,
        Some(_) => path,
    };
    let text = text(files, &place, DOCKERFILE_BYTES_MAX)?;
    Ok(text.map(|text| (place, text)))
}

/// Returns where a Dockerfile may be that a stack has this path for.
pub(crate) fn places(path: &str) -> Result<[TreePath; 2], SourceError> {
    let path = TreePath::parse(path)?;
    Ok([path.join(DOCKERFILE)?, path])
}

/// Returns all that a bake of a Dockerfile may read of the stack folder: itself, and what it may copy.
pub(crate) fn inputs(
    files: &Arc<SourceFiles>,
    source: &DockerfileSource,
) -> Result<Vec<(String, Digest)>, SourceError> {
    let Some((path, text)) = find(files, &source.path)? else { return Ok(Vec::new()) };
    let shown = |path: &TreePath| String::from_utf8_lossy(path.as_bytes()).into_owned();
    let folder = source.context.as_ref().map(TreePath::parse).transpose()?;
    let folder = folder.unwrap_or_else(|| path.parent().unwrap_or_default());
    let context = Context::new(files, folder, &path)?;
    let mut inputs = vec![(shown(&path), sha256(text.as_bytes()))];
    for (inner, entry) in context.tree.iter() {
        if let Kind::File { digest, .. } = &entry.kind {
            let whole = TreePath::parse([context.folder.as_bytes(), b"/", inner.as_bytes()].concat())?;
            inputs.extend((whole != path).then(|| (shown(&whole), *digest)));
        }
    }
    Ok(inputs)
}

/// Reads a small file; none where there is none.
fn text(files: &SourceFiles, path: &TreePath, max: u64) -> Result<Option<String>, SourceError> {
    let Some(SourceKind::File { digest, .. }) = files.get(path).map(|file| &file.kind) else {
        return Ok(None);
    };
    let mut text = String::new();
    let reader = files.open_file(path, *digest)?;
    let shown = String::from_utf8_lossy(path.as_bytes()).into_owned();
    let failed = |source| SourceError::Read { path: shown.clone().into(), source };
    reader.take(max + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > max {
        let error = std::io::Error::other(format!("it has more than {max} bytes"));
        return Err(SourceError::Read { path: shown.into(), source: error });
    }
    Ok(Some(text))
}

impl Context {
    /// Lists a folder for a Dockerfile; files are read for their digests where no snapshot knows them.
    pub(crate) fn new(
        files: &Arc<SourceFiles>,
        folder: TreePath,
        dockerfile: &TreePath,
    ) -> Result<Self, SourceError> {
        let ignore = ignore(files, &folder, dockerfile)?;
        let mut tree = Tree::new();
        let plain = Meta { mode: 0o755, ..Meta::default() };
        let below = files.iter().filter(|(path, _)| path.is_within(&folder) && **path != folder);
        // The folder of the file before: mostly that of the next one, too.
        let mut last = TreePath::root();
        for (path, file) in below {
            let skip = if folder.is_root() { 0 } else { folder.as_bytes().len() + 1 };
            let inner = TreePath::parse(&path.as_bytes()[skip..])?;
            let is_folder = file.kind == SourceKind::Folder;
            if files.ignore.matches(path, is_folder) || ignore.leaves_out(inner.as_bytes()) {
                continue;
            }
            let kind = match &file.kind {
                SourceKind::Folder => Kind::Dir,
                SourceKind::Symlink { target } => Kind::Symlink { target: target.clone() },
                SourceKind::File { digest, size } => {
                    Kind::File { digest: files.digest(path, *digest)?, size: *size }
                }
            };
            let mode = match kind {
                Kind::Symlink { .. } => 0o777,
                _ if file.executable || is_folder => 0o755,
                _ => 0o644,
            };
            // A folder that is left out may hold what is not.
            let parent = inner.parent().unwrap_or_default();
            let made = if parent == last { Ok(()) } else { tree.make_dirs(&parent, &plain) };
            last = parent;
            let put = made
                .and_then(|()| tree.insert(&inner, Entry { meta: Meta { mode, ..Meta::default() }, kind }));
            put.map_err(|error| SourceError::Read {
                path: String::from_utf8_lossy(path.as_bytes()).into_owned().into(),
                source: std::io::Error::other(error),
            })?;
        }
        Ok(Self { files: files.clone(), folder, ignore, tree })
    }

    /// Whether a path is in the folder, but left out.
    pub(crate) fn leaves_out(&self, path: &str) -> bool {
        let place = self.path(path);
        let there = place.as_ref().is_some_and(|place| self.files.get(place).is_some());
        there && (self.ignore.leaves_out(path.as_bytes()) || self.tree.is_empty())
    }

    fn path(&self, inner: &str) -> Option<TreePath> {
        let folder = String::from_utf8_lossy(self.folder.as_bytes()).into_owned();
        TreePath::parse(format!("{folder}/{inner}")).ok()
    }

    /// Opens a file of the context.
    pub(crate) fn open_file(&self, inner: &TreePath, digest: &Digest) -> Result<Box<dyn Read>, SourceError> {
        let path = TreePath::parse([self.folder.as_bytes(), b"/", inner.as_bytes()].concat())?;
        self.files.open_file(&path, Some(*digest))
    }

    /// Stores the content of a file, which must be what it was when it was listed.
    pub(crate) fn store(&self, inner: &TreePath, digest: &Digest, objects: &Batch) -> Result<(), CopyError> {
        let stored = objects.put_reader(self.open_file(inner, digest)?)?;
        if stored.digest != *digest {
            return Err(PutError::Mismatch { expected: *digest, found: stored.digest }.into());
        }
        Ok(())
    }
}

/// The rules beside the Dockerfile, or else those of the context.
fn ignore(
    files: &SourceFiles,
    folder: &TreePath,
    dockerfile: &TreePath,
) -> Result<DockerIgnore, SourceError> {
    let own = TreePath::parse([dockerfile.as_bytes(), b".dockerignore"].concat())?;
    let shared = folder.join(".dockerignore")?;
    for path in [own, shared] {
        if let Some(text) = text(files, &path, IGNORE_BYTES_MAX)? {
            return DockerIgnore::new(&text).map_err(|error| SourceError::DockerIgnore {
                path: String::from_utf8_lossy(path.as_bytes()).into_owned().into(),
                source: error,
            });
        }
    }
    Ok(DockerIgnore::default())
}
