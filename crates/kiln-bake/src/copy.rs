//! Files of the stack folder into an image, by the rules of Docker's COPY.

use std::collections::BTreeMap;

use kiln_model::Digest;
use kiln_model::recipe::CopyStep;
use kiln_store::tree::{PathError, ResolveError, TreeError};
use kiln_store::{Batch, Entry, Kind, Meta, Mtime, PutError, Tree, TreePath};

use crate::glob::{Glob, GlobError};
use crate::ignore::Ignore;
use crate::nearest::nearest;
use crate::sandbox::User;
use crate::source::{SourceError, SourceFiles, SourceKind};

/// Why files can't be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source lies outside of the stack folder.
    #[error("`{from}` leaves the stack folder")]
    Outside {
        /// As it was written.
        from: String,
    },
    /// Nothing is there.
    #[error("`{from}` is not in the stack folder")]
    Missing {
        /// As it was written.
        from: String,
        /// What was probably meant.
        nearest: Option<String>,
        /// Whether it is there, but `.kilnignore` leaves it out.
        ignored: bool,
    },
    /// A pattern is malformed.
    #[error(transparent)]
    Glob(#[from] GlobError),
    /// The target is not an absolute path.
    #[error("`{to}` is not an absolute path in the image")]
    BadTarget {
        /// As it was written.
        to: String,
    },
    /// A file would replace a folder, or a folder a file.
    #[error("{path} is a {there} in the image, which a {copied} can't replace")]
    Clash {
        /// Where.
        path: TreePath,
        /// What is there.
        there: &'static str,
        /// What was to be copied.
        copied: &'static str,
    },
    /// The target can't be reached in the image.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The target can't be in the image.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The target's name can't be in an image.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A file can't be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file can't be stored.
    #[error(transparent)]
    Put(#[from] PutError),
}

/// One file or folder that a step copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picked {
    /// Where it is in the stack folder.
    from: TreePath,
    /// Where it goes below the target; the root means the target itself.
    below: TreePath,
    /// What it is, with its digest.
    content: PickedContent,
    executable: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum PickedContent {
    File(Digest),
    Symlink(Vec<u8>),
    Folder,
}

/// What one file or link that is copied holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input<'a> {
    /// The digest of a file's content.
    File(Digest),
    /// Where a link leads.
    Symlink(&'a [u8]),
}

/// What a step copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pick {
    files: Vec<Picked>,
    /// Whether the target is a folder whatever is there.
    into_folder: bool,
}

impl Pick {
    /// Finds what a step copies; reads a folder's files for their digests.
    pub(crate) fn new(step: &CopyStep, source: &SourceFiles) -> Result<Self, CopyError> {
        let from = inside(&step.from)?;
        let glob = Glob::new(&from)?;
        let exclude = Ignore::of_patterns(&step.exclude)?;
        let is_root = from.is_empty();
        let roots: Vec<&TreePath> = source
            .iter()
            .filter(|(path, file)| {
                !is_root
                    && glob.matches(path.as_bytes())
                    && !source.ignore.matches(path, file.kind == SourceKind::Folder)
            })
            .map(|(path, _)| path)
            .collect();
        if roots.is_empty() && !is_root {
            return Err(missing(&step.from, &from, source));
        }
        let root = TreePath::root();
        let roots = if is_root { vec![&root] } else { roots };
        let mut files = BTreeMap::new();
        for path in &roots {
            pick(path, source, &exclude, &mut files)?;
        }
        Ok(Self {
            files: files.into_values().collect(),
            into_folder: step.to.ends_with('/') || roots.len() > 1,
        })
    }

    /// Writes all that decides the outcome, for the step's key.
    pub(crate) fn describe(&self) -> String {
        let mut text = format!("into-folder {}\n", self.into_folder);
        for file in &self.files {
            let content = match &file.content {
                PickedContent::File(digest) => format!("file {digest} {}", file.executable),
                PickedContent::Symlink(target) => format!("link {:?}", String::from_utf8_lossy(target)),
                PickedContent::Folder => "folder".into(),
            };
            text.push_str(&format!("{} {} {content}\n", file.from, file.below));
        }
        text
    }

    /// Returns the files and links that are copied, with what they hold.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = (&TreePath, Input<'_>)> {
        self.files.iter().filter_map(|file| match &file.content {
            PickedContent::File(digest) => Some((&file.from, Input::File(*digest))),
            PickedContent::Symlink(target) => Some((&file.from, Input::Symlink(target))),
            PickedContent::Folder => None,
        })
    }

    /// Copies into a tree.
    pub(crate) fn apply(
        &self,
        step: &CopyStep,
        owner: &User,
        source: &SourceFiles,
        tree: &mut Tree,
        objects: &Batch,
        latest: u64,
    ) -> Result<(), CopyError> {
        let mut copying = Copying { step, owner, tree, mtime: Mtime { secs: latest as i64, nanos: 0 } };
        let (target, renamed) = copying.target(self.into_folder, &self.files)?;
        for file in &self.files {
            let place = match renamed {
                true => target.clone(),
                false => file.below.names().try_fold(target.clone(), |at, name| at.join(name))?,
            };
            let kind = match &file.content {
                PickedContent::Folder => {
                    copying.folder(&place)?;
                    continue;
                }
                PickedContent::Symlink(target) => Kind::Symlink { target: target.clone() },
                PickedContent::File(digest) => {
                    let known = match source.get(&file.from).map(|file| &file.kind) {
                        Some(SourceKind::File { digest, .. }) => *digest,
                        _ => None,
                    };
                    let stored = objects.put_reader(source.open_file(&file.from, known)?)?;
                    // A folder's file may change between its hashing and now: the step's key would name other bytes.
                    if stored.digest != *digest {
                        let found = stored.digest;
                        return Err(PutError::Mismatch { expected: *digest, found }.into());
                    }
                    Kind::File { digest: stored.digest, size: stored.size }
                }
            };
            copying.put(&place, kind, file.executable)?;
        }
        Ok(())
    }
}

/// Returns the path below the stack folder, without `./` and doubled slashes; patterns stay as they are.
fn inside(from: &str) -> Result<String, CopyError> {
    let outside = || CopyError::Outside { from: from.into() };
    if from.starts_with('/') {
        return Err(outside());
    }
    let mut parts = Vec::new();
    for part in from.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop().ok_or_else(outside)?),
            _ => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

fn missing(written: &str, from: &str, source: &SourceFiles) -> CopyError {
    let path = TreePath::parse(from).ok();
    let ignored = path.is_some_and(|path| source.get(&path).is_some());
    let names: Vec<String> =
        source.iter().map(|(path, _)| String::from_utf8_lossy(path.as_bytes()).into_owned()).collect();
    let nearest = nearest(from, names.iter().map(String::as_str)).map(Into::into);
    CopyError::Missing { from: written.into(), nearest, ignored }
}

/// Adds what is at a path: a folder's content without the folder itself, anything else under its name.
fn pick(
    root: &TreePath,
    source: &SourceFiles,
    exclude: &Ignore,
    files: &mut BTreeMap<TreePath, Picked>,
) -> Result<(), CopyError> {
    let is_folder = root.is_root() || source.get(root).is_some_and(|file| file.kind == SourceKind::Folder);
    if !is_folder {
        let file = source.get(root).expect("the root was listed by the source");
        let name = TreePath::root().join(root.name())?;
        if !exclude.matches(&name, false) {
            let content = content(root, &file.kind, source)?;
            let picked = Picked { from: root.clone(), below: name, content, executable: file.executable };
            files.insert(root.clone(), picked);
        }
        return Ok(());
    }
    let from = root.clone();
    let folder = Picked { from, below: TreePath::root(), content: PickedContent::Folder, executable: true };
    files.insert(root.clone(), folder);
    for (path, file) in source.iter().filter(|(path, _)| path.is_within(root) && *path != root) {
        let skip = if root.is_root() { 0 } else { root.as_bytes().len() + 1 };
        let below = TreePath::parse(&path.as_bytes()[skip..])?;
        let is_folder = file.kind == SourceKind::Folder;
        if source.ignore.matches(path, is_folder) || exclude.matches(&below, is_folder) {
            continue;
        }
        let content = content(path, &file.kind, source)?;
        files
            .insert(path.clone(), Picked { from: path.clone(), below, content, executable: file.executable });
    }
    Ok(())
}

fn content(path: &TreePath, kind: &SourceKind, source: &SourceFiles) -> Result<PickedContent, CopyError> {
    Ok(match kind {
        SourceKind::File { digest, .. } => PickedContent::File(source.digest(path, *digest)?),
        SourceKind::Symlink { target } => PickedContent::Symlink(target.clone()),
        SourceKind::Folder => PickedContent::Folder,
    })
}

struct Copying<'a> {
    step: &'a CopyStep,
    owner: &'a User,
    tree: &'a mut Tree,
    mtime: Mtime,
}

impl Copying<'_> {
    /// Returns the folder below which the files go, made where it is missing; or where the one file goes under a new name.
    fn target(&mut self, into_folder: bool, files: &[Picked]) -> Result<(TreePath, bool), CopyError> {
        let to = &self.step.to;
        let path = Some(to).filter(|to| to.starts_with('/')).and_then(|to| TreePath::parse(to).ok());
        let path = path.ok_or_else(|| CopyError::BadTarget { to: to.clone() })?;
        let one_file = matches!(files, [only] if only.content != PickedContent::Folder);
        let there = self.resolve(&path)?;
        let is_folder = self.tree.get(&there).is_some_and(Entry::is_dir);
        if one_file && !into_folder && !is_folder {
            self.parents(&there.parent().unwrap_or_default())?;
            return Ok((there, true));
        }
        self.folder(&there)?;
        Ok((there, false))
    }

    /// Follows links of the image, also where the end of the path is missing.
    fn resolve(&self, path: &TreePath) -> Result<TreePath, CopyError> {
        match self.tree.resolve(path, true) {
            Ok(real) => Ok(real),
            Err(ResolveError::Missing(_)) => {
                let parent = self.resolve(&path.parent().unwrap_or_default())?;
                Ok(parent.join(path.name())?)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn parents(&mut self, folder: &TreePath) -> Result<(), CopyError> {
        let meta = Meta { mode: 0o755, mtime: self.mtime, ..Meta::default() };
        Ok(self.tree.make_dirs(folder, &meta)?)
    }

    /// Makes a folder of the copy; one that the image has stays as it is.
    fn folder(&mut self, place: &TreePath) -> Result<(), CopyError> {
        let real = self.resolve(place)?;
        match self.tree.get(&real) {
            Some(entry) if entry.is_dir() => return Ok(()),
            Some(_) => return Err(CopyError::Clash { path: real, there: "file", copied: "folder" }),
            None => {}
        }
        self.parents(&real.parent().unwrap_or_default())?;
        let meta = self.meta(self.step.mode.map_or(0o755, folder_mode));
        Ok(self.tree.insert(&real, Entry { meta, kind: Kind::Dir })?)
    }

    fn put(&mut self, place: &TreePath, kind: Kind, executable: bool) -> Result<(), CopyError> {
        let parent = self.resolve(&place.parent().unwrap_or_default())?;
        let real = parent.join(place.name())?;
        if self.tree.get(&real).is_some_and(Entry::is_dir) {
            return Err(CopyError::Clash { path: real, there: "folder", copied: "file" });
        }
        let mode = match (&kind, self.step.mode) {
            (Kind::Symlink { .. }, _) => 0o777,
            (_, Some(mode)) => (mode & 0o7777) as u16,
            // A checkout's other bits are its umask's, so two clones of one commit differ in them.
            (_, None) => 0o644 | if executable { 0o111 } else { 0 },
        };
        let meta = self.meta(mode);
        Ok(self.tree.insert(&real, Entry { meta, kind })?)
    }

    fn meta(&self, mode: u16) -> Meta {
        Meta { mode, uid: self.owner.uid, gid: self.owner.gid, mtime: self.mtime, xattrs: BTreeMap::new() }
    }
}

/// Whoever may read a folder may also enter it.
fn folder_mode(mode: u32) -> u16 {
    let mode = (mode & 0o7777) as u16;
    mode | (mode & 0o444) >> 2
}
