//! What was picked into an image, by the rules of BuildKit's copy.
//!
//! Source: `fsutil/copy`: a folder's content goes into the target, a file becomes the target or goes into it where that is a
//! folder; folders that are made on the way are 0755 and belong to whom the copy belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::panic::resume_unwind;
use std::path::PathBuf;

use kiln_model::Digest;
use kiln_store::snapshot::Held;
use kiln_store::tree::{PathError, ResolveError};
use kiln_store::{Batch, Entry, Kind, Meta, Mtime, PutError, Tree, TreePath};

use super::archive::{self, Packing};
use super::dockerignore::DockerIgnore;
use super::pick::{Part, Pick, Picked, Shelf};
use crate::bake_error::StepError;
use crate::copy::CopyError;
use crate::dockerfile::{CopyTask, RemoteCommit, RemoteFile, TaskSource};
use crate::sandbox::User;
use crate::source::SourceError;

/// Puts things into a tree.
pub(crate) struct Laying<'a> {
    pub(crate) task: &'a CopyTask,
    pub(crate) shelf: &'a Shelf<'a>,
    /// Whom all of it belongs to; none means whom it belonged to.
    pub(crate) owner: Option<&'a User>,
    /// Says which objects are there.
    pub(crate) held: &'a Held,
    /// What is new is added to it.
    pub(crate) batch: &'a Batch,
    /// No time is later.
    pub(crate) latest: u64,
    /// Brings the file of a URL to a place of this machine, with the bytes that were promised.
    pub(crate) fetch: &'a dyn Fn(&RemoteFile) -> Result<PathBuf, StepError>,
    /// Brings the files of a commit to a place of this machine, as the archive that was locked.
    pub(crate) checkout: &'a dyn Fn(&RemoteCommit) -> Result<PathBuf, StepError>,
}

/// Where the files of a folder are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The build context, or another tree.
    Shelf,
    /// An archive, which says itself whose they are.
    Archive,
    /// A commit, which has neither owners nor times.
    Commit,
}

/// Whether this many contents are stored takes as long to find out as to lay them, and neither needs the other.
const LOOKED_AT_BESIDE_MIN: usize = 512;

/// What is fetched is root's alone, unless the step says otherwise.
const REMOTE_MODE: u16 = 0o600;

impl Laying<'_> {
    /// Changes a tree as the step says.
    pub(crate) fn apply(&self, pick: &Pick, tree: &mut Tree) -> Result<(), StepError> {
        if !self.task.link {
            return Target { laying: self, tree, implied: BTreeSet::new() }.all(pick);
        }
        // With `--link` the step is done to nothing, and what comes of it is laid over the image: no link of it is followed.
        let mut own = Tree::new();
        let mut target = Target { laying: self, tree: &mut own, implied: BTreeSet::new() };
        target.all(pick)?;
        let implied = target.implied;
        let mut placed = BTreeMap::new();
        for (path, entry) in own.iter().filter(|(path, _)| !path.is_root()) {
            let is_there = tree.get(path).is_some_and(Entry::is_dir);
            if implied.contains(path) && is_there {
                continue;
            }
            let inode = own.inode(path);
            match placed.get(&inode) {
                Some(first) => tree.link(path, first)?,
                None => tree.insert(path, entry.clone())?,
            }
            placed.entry(inode).or_insert_with(|| path.clone());
        }
        Ok(())
    }

    fn mtime(&self) -> Mtime {
        Mtime { secs: self.latest as i64, nanos: 0 }
    }

    /// The attributes that a picked thing gets.
    fn meta(&self, entry: &Entry) -> Meta {
        let mut meta = entry.meta.clone();
        if let Some(owner) = self.owner {
            (meta.uid, meta.gid) = (owner.uid, owner.gid);
        }
        if let (Some(change), false) = (&self.task.mode, matches!(entry.kind, Kind::Symlink { .. })) {
            meta.mode = change.apply(meta.mode, entry.is_dir());
        }
        meta.mtime = match self.shelf.context {
            Some(_) => self.mtime(),
            None => Mtime { secs: meta.mtime.secs.min(self.latest as i64), nanos: 0 },
        };
        meta
    }
}

struct Target<'a> {
    laying: &'a Laying<'a>,
    tree: &'a mut Tree,
    /// Folders that nothing brought and that were needed.
    implied: BTreeSet<TreePath>,
}

impl Target<'_> {
    fn all(&mut self, pick: &Pick) -> Result<(), StepError> {
        let to = &self.laying.task.to;
        let path = TreePath::parse(to)?;
        // Several files can only go into a folder.
        let into = to.ends_with('/') || pick.parts.len() > 1;
        for part in &pick.parts {
            match part {
                Part::Folder(files) => self.folder(&path, files, Origin::Shelf)?,
                Part::File { name, picked } => self.file(&path, into, name, picked)?,
                Part::Text { name, text } => {
                    let stored = self.laying.batch.put_bytes(text.as_bytes())?;
                    let entry = Entry::file(0o644, stored.digest, stored.size);
                    let meta = Meta { mtime: self.laying.mtime(), ..self.laying.meta(&entry) };
                    let place = self.place(&path, into, name.as_bytes())?;
                    self.put(&place, Entry { meta, kind: entry.kind })?;
                }
                Part::Remote { name, file } => self.remote(&path, into, name, file)?,
                Part::Commit { commit, exclude } => self.commit(&path, commit, exclude)?,
                Part::Archive { from, digest, size, packing } => {
                    let context =
                        self.laying.shelf.context.expect("only archives of the context are unpacked");
                    let reader = context.open_file(from, digest).map_err(CopyError::Source)?;
                    let latest = self.laying.latest as i64;
                    let tree = archive::read(reader, *packing, *size, self.laying.batch, latest)?;
                    self.folder(&path, &all_of(&tree), Origin::Archive)?;
                }
            }
        }
        Ok(())
    }

    fn remote(&mut self, to: &TreePath, into: bool, name: &str, file: &RemoteFile) -> Result<(), StepError> {
        let fetched = (self.laying.fetch)(file)?;
        let open = || {
            let failed = |source| CopyError::Source(SourceError::Read { path: fetched.clone(), source });
            File::open(&fetched).map_err(failed)
        };
        if self.laying.task.unpack
            && let Some(packing) = archive::packing(open()?)
        {
            let source = open()?;
            let size = source.metadata().map_or(0, |meta| meta.len());
            let tree = archive::read(source, packing, size, self.laying.batch, self.laying.latest as i64)?;
            return self.folder(to, &all_of(&tree), Origin::Archive);
        }
        let stored = self.laying.batch.put_reader(open()?)?;
        if stored.digest != file.digest {
            // It was verified when it came, and is another one now.
            return Err(PutError::Mismatch { expected: file.digest, found: stored.digest }.into());
        }
        let entry = Entry::file(REMOTE_MODE, stored.digest, stored.size);
        let meta = Meta { mtime: self.laying.mtime(), ..self.laying.meta(&entry) };
        let place = self.place(to, into, name.as_bytes())?;
        self.put(&place, Entry { meta, kind: entry.kind }).map(drop)
    }

    /// Lays what is in a folder into the target, and stores what is not stored.
    fn folder(&mut self, to: &TreePath, files: &[Picked], origin: Origin) -> Result<(), StepError> {
        let (held, contents) = (self.laying.held, self.contents(files, origin));
        let lacking = if contents.len() < LOOKED_AT_BESIDE_MIN {
            self.lay(to, files, origin)?;
            held.lacks(contents)
        } else {
            std::thread::scope(|scope| {
                let looking = scope.spawn(|| held.lacks(contents));
                self.lay(to, files, origin)?;
                Ok::<_, StepError>(looking.join().unwrap_or_else(|panic| resume_unwind(panic)))
            })?
        };
        let is_lacking = |file: &&Picked| match &file.entry.kind {
            Kind::File { digest, .. } => lacking.contains(digest),
            _ => false,
        };
        files.iter().filter(is_lacking).try_for_each(|file| self.store(file))
    }

    /// Lays what is in a folder into the target.
    fn lay(&mut self, to: &TreePath, files: &[Picked], origin: Origin) -> Result<(), StepError> {
        let root = self.resolve(to)?;
        self.parents(&root)?;
        let has_links = files.iter().any(|file| file.linked.is_some());
        let mut placed: BTreeMap<&TreePath, TreePath> = BTreeMap::new();
        // Of one folder there are mostly many files, one after the other, and its way is followed once.
        let mut last: Option<(&[u8], TreePath)> = None;
        for file in files {
            let meta = match origin {
                Origin::Shelf | Origin::Commit => self.laying.meta(&file.entry),
                Origin::Archive => file.entry.meta.clone(),
            };
            if file.entry.is_dir() {
                self.put_folder(&joined(&root, file.below.names())?, meta)?;
                continue;
            }
            let (name, below) = (file.below.name(), file.below.as_bytes());
            let folder = &below[..below.len() - name.len()];
            let parent = match last.take() {
                Some((of, parent)) if of == folder => parent,
                _ => self.parent(&root, &file.below)?,
            };
            let real = parent.join(name)?;
            if let Some(first) = file.linked.as_ref().and_then(|first| placed.get(first)) {
                self.clash(&real)?;
                self.tree.link(&real, first)?;
                continue;
            }
            let was_link = self.put(&real, Entry { meta, kind: file.entry.kind.clone() })?;
            last = (!was_link).then_some((folder, parent));
            if has_links {
                placed.insert(&file.below, real);
            }
        }
        Ok(())
    }

    /// Makes the folders to what lies below another one, and returns the last of them; links are followed.
    fn parent(&mut self, root: &TreePath, below: &TreePath) -> Result<TreePath, StepError> {
        let folder = below.parent().unwrap_or_default();
        let parent = self.resolve(&joined(root, folder.names())?)?;
        self.parents(&parent)?;
        Ok(parent)
    }

    /// Lays the files of a commit into the target, as those of a folder of the context.
    fn commit(&mut self, to: &TreePath, commit: &RemoteCommit, exclude: &[String]) -> Result<(), StepError> {
        let fetched = (self.laying.checkout)(commit)?;
        let failed = |source| CopyError::Source(SourceError::Read { path: fetched.clone(), source });
        let source = File::open(&fetched).map_err(failed)?;
        let size = source.metadata().map_err(failed)?.len();
        let latest = self.laying.latest as i64;
        let tree = archive::read(source, Packing::Plain, size, self.laying.batch, latest)?;
        let exclude = DockerIgnore::of_patterns(exclude.iter().map(String::as_str));
        let exclude = exclude.expect("they were read when the step was looked at");
        let mut files = all_of(&tree);
        files.retain(|file| !exclude.leaves_out(file.below.as_bytes()));
        self.folder(to, &files, Origin::Commit)
    }

    fn file(&mut self, to: &TreePath, into: bool, name: &[u8], picked: &Picked) -> Result<(), StepError> {
        let place = self.place(to, into, name)?;
        self.store(picked)?;
        let meta = self.laying.meta(&picked.entry);
        self.put(&place, Entry { meta, kind: picked.entry.kind.clone() }).map(drop)
    }

    /// Returns where a single file goes, and makes the folders on the way.
    fn place(&mut self, to: &TreePath, into: bool, name: &[u8]) -> Result<TreePath, StepError> {
        let there = self.resolve(to)?;
        if into || self.tree.get(&there).is_some_and(Entry::is_dir) {
            self.parents(&there)?;
            // A link of that name is replaced, not followed.
            return Ok(there.join(name)?);
        }
        self.parents(&there.parent().unwrap_or_default())?;
        Ok(there)
    }

    /// The contents that may be no objects yet; those of trees and archives are.
    fn contents(&self, files: &[Picked], origin: Origin) -> Vec<(Digest, u64)> {
        if origin != Origin::Shelf || self.laying.shelf.context.is_none() {
            return Vec::new();
        }
        let of_file = |file: &Picked| match file.entry.kind {
            Kind::File { digest, size } => Some((digest, size)),
            _ => None,
        };
        files.iter().filter_map(of_file).collect()
    }

    /// A file of the context becomes an object; those of trees are.
    fn store(&self, picked: &Picked) -> Result<(), StepError> {
        if let (Some(context), Kind::File { digest, size }) = (self.laying.shelf.context, &picked.entry.kind)
            && !self.laying.held.holds(digest, *size)
        {
            context.store(&picked.from, digest, self.laying.batch)?;
        }
        Ok(())
    }

    /// Follows links of the image, also where the end of the path is missing.
    fn resolve(&self, path: &TreePath) -> Result<TreePath, StepError> {
        match self.tree.resolve(path, true) {
            Ok(real) => Ok(real),
            Err(ResolveError::Missing(_)) => {
                let parent = self.resolve(&path.parent().unwrap_or_default())?;
                Ok(parent.join(path.name())?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the folders to a path, itself included; it holds no links.
    fn parents(&mut self, path: &TreePath) -> Result<(), StepError> {
        let mut meta = Meta { mode: 0o755, mtime: self.laying.mtime(), ..Meta::default() };
        if let Some(owner) = self.laying.owner {
            (meta.uid, meta.gid) = (owner.uid, owner.gid);
        }
        let mut at = TreePath::root();
        for name in path.names() {
            at = at.join(name)?;
            match self.tree.get(&at) {
                Some(entry) if entry.is_dir() => {}
                Some(_) => {
                    return Err(CopyError::Clash { path: at, there: "file", copied: "folder" }.into());
                }
                None => {
                    self.tree.insert(&at, Entry { meta: meta.clone(), kind: Kind::Dir })?;
                    self.implied.insert(at.clone());
                }
            }
        }
        Ok(())
    }

    fn put_folder(&mut self, place: &TreePath, meta: Meta) -> Result<(), StepError> {
        let real = self.resolve(place)?;
        match self.tree.get(&real) {
            Some(entry) if !entry.is_dir() => {
                return Err(CopyError::Clash { path: real, there: "file", copied: "folder" }.into());
            }
            Some(_) => {}
            None => self.parents(&real.parent().unwrap_or_default())?,
        }
        self.implied.remove(&real);
        Ok(self.tree.insert(&real, Entry { meta, kind: Kind::Dir })?)
    }

    /// Refuses to put a file where a folder is; whether a link is there, which others may be found through.
    fn clash(&self, real: &TreePath) -> Result<bool, StepError> {
        match self.tree.get(real).map(|entry| &entry.kind) {
            Some(Kind::Dir) => {
                Err(CopyError::Clash { path: real.clone(), there: "folder", copied: "file" }.into())
            }
            there => Ok(matches!(there, Some(Kind::Symlink { .. }))),
        }
    }

    /// Puts a file; whether it replaced a link.
    fn put(&mut self, real: &TreePath, entry: Entry) -> Result<bool, StepError> {
        let was_link = self.clash(real)?;
        self.tree.insert(real, entry)?;
        Ok(was_link)
    }
}

fn joined<'n>(root: &TreePath, mut names: impl Iterator<Item = &'n [u8]>) -> Result<TreePath, PathError> {
    names.try_fold(root.clone(), |at, name| at.join(name))
}

/// All files of a tree, to be laid as they are in it.
fn all_of(tree: &Tree) -> Vec<Picked> {
    let mut first: BTreeMap<_, TreePath> = BTreeMap::new();
    let mut files = Vec::new();
    for (path, entry) in tree.iter().filter(|(path, _)| !path.is_root()) {
        let inode = tree.inode(path).filter(|_| tree.links(path) > 1);
        let linked = inode.and_then(|inode| first.get(&inode).cloned());
        if let (Some(inode), None) = (inode, &linked) {
            first.insert(inode, path.clone());
        }
        files.push(Picked { from: path.clone(), below: path.clone(), entry: entry.clone(), linked });
    }
    files
}

/// Says all that decides what a step takes of a tree, beside the tree.
pub(crate) fn words_of(task: &CopyTask) -> String {
    let CopyTask { sources, exclude, parents, unpack, .. } = task;
    let source = |source: &TaskSource| match source {
        TaskSource::Path(word) => format!("path {:?}", word.text),
        TaskSource::File { name, text, .. } => format!("text {name:?} {text:?}"),
        TaskSource::Url(file) => format!("url {:?} {}", file.url, file.digest),
        TaskSource::Git(commit) => format!("git {}", commit.locked.files),
    };
    let sources: Vec<String> = sources.iter().map(source).collect();
    format!("{sources:?} exclude {exclude:?} parents {parents} unpack {unpack}")
}

/// Says for a step's key where things go and what becomes of them.
pub(crate) fn describe(task: &CopyTask) -> String {
    let CopyTask { to, mode, link, unpack, .. } = task;
    format!("to {to:?} mode {mode:?} link {link} unpack {unpack}")
}
