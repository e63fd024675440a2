//! What a COPY or an ADD takes, found before anything is done: its content decides whether it is done at all.

use std::collections::BTreeMap;
use std::fmt::Write;

use kiln_model::Digest;
use kiln_store::tree::{PathError, ResolveError};
use kiln_store::{Entry, Kind, Meta, Mtime, Tree, TreePath};

use super::archive::{self, Packing};
use super::context::Context;
use super::dockerignore::{DockerIgnore, pattern_of};
use crate::dockerfile::{CopyTask, Problem, RemoteCommit, RemoteFile, TaskSource, Word};
use crate::nearest::nearest;

/// Where files are taken from.
pub(crate) struct Shelf<'a> {
    /// The build context; none where the files are a stage's or an image's.
    pub(crate) context: Option<&'a Context>,
    /// The files.
    pub(crate) tree: &'a Tree,
}

/// One source of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// What is in a folder, which goes into the target.
    Folder(Vec<Picked>),
    /// A file, which becomes the target or goes into it.
    File { name: Vec<u8>, picked: Picked },
    /// An archive, which is unpacked into the target.
    Archive { from: TreePath, digest: Digest, size: u64, packing: Packing },
    /// A heredoc.
    Text { name: String, text: String },
    /// What is fetched.
    Remote { name: String, file: RemoteFile },
    /// The files of a commit, which go into the target but for those that patterns leave out.
    Commit { commit: RemoteCommit, exclude: Vec<String> },
}

/// One file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picked {
    /// Where it is.
    pub(crate) from: TreePath,
    /// Where it goes below the target.
    pub(crate) below: TreePath,
    pub(crate) entry: Entry,
    /// The place of the first name of the same file, where it has several.
    pub(crate) linked: Option<TreePath>,
}

/// All that a step takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Pick {
    pub(crate) parts: Vec<Part>,
}

/// Why nothing could be taken.
#[derive(Debug)]
pub(crate) enum PickError {
    /// The Dockerfile is to blame.
    Problem(Problem),
    /// A file of the context can't be read.
    Source(crate::source::SourceError),
}

impl From<Problem> for PickError {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<crate::source::SourceError> for PickError {
    fn from(error: crate::source::SourceError) -> Self {
        Self::Source(error)
    }
}

impl Pick {
    /// Finds what a step takes.
    pub(crate) fn new(task: &CopyTask, shelf: &Shelf<'_>) -> Result<Self, PickError> {
        let exclude = DockerIgnore::of_patterns(task.exclude.iter().map(String::as_str))
            .map_err(|error| Problem::new(task.span, error.to_string()))?;
        let mut picking = Picking { task, shelf, exclude, parts: Vec::new() };
        for source in &task.sources {
            match source {
                TaskSource::Path(word) => picking.path(word)?,
                TaskSource::Url(file) => {
                    let name = name_of(&file.url).to_owned();
                    picking.parts.push(Part::Remote { name, file: file.clone() });
                }
                TaskSource::Git(commit) => {
                    let (commit, exclude) = (commit.clone(), task.exclude.clone());
                    picking.parts.push(Part::Commit { commit, exclude });
                }
                TaskSource::File { name, text, .. } => {
                    let name = name.rsplit('/').next().unwrap_or(name).to_owned();
                    picking.parts.push(Part::Text { name, text: text.clone() });
                }
            }
        }
        Ok(Self { parts: picking.parts })
    }

    /// Writes all that decides the outcome, for the step's key.
    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Folder(files) => {
                    text.push_str("folder\n");
                    files.iter().for_each(|file| file.describe(&mut text));
                }
                Part::File { name, picked } => {
                    text.push_str(&format!("file {:?} ", String::from_utf8_lossy(name)));
                    picked.describe(&mut text);
                }
                Part::Archive { digest, .. } => text.push_str(&format!("archive {digest}\n")),
                // Wherever it comes from: the name is what decides where it goes.
                Part::Remote { name, file } => text.push_str(&format!("remote {name:?} {}\n", file.digest)),
                Part::Commit { commit, exclude } => {
                    text.push_str(&format!("commit {} {exclude:?}\n", commit.locked.files));
                }
                Part::Text { name, text: content } => text.push_str(&format!("text {name:?} {content:?}\n")),
            }
        }
        text
    }
}

impl Picked {
    /// Adds a line. Names are escaped by their bytes, so that no two are alike.
    fn describe(&self, text: &mut String) {
        let Self { below, entry: Entry { meta, kind }, linked, from: _ } = self;
        let Meta { mode, uid, gid, mtime: Mtime { secs, nanos }, xattrs } = meta;
        let name = below.as_bytes().escape_ascii();
        let told = write!(text, "{name} {mode:o} {uid} {gid} {secs}.{nanos} ").and_then(|()| match kind {
            Kind::File { digest, size } => write!(text, "{digest} {size}"),
            kind => write!(text, "{kind:?}"),
        });
        told.expect("a string takes all");
        if !xattrs.is_empty() {
            text.push_str(&format!(" {xattrs:?}"));
        }
        if let Some(first) = linked {
            text.push_str(&format!(" linked to {}", first.as_bytes().escape_ascii()));
        }
        text.push('\n');
    }
}

struct Picking<'a> {
    task: &'a CopyTask,
    shelf: &'a Shelf<'a>,
    exclude: DockerIgnore,
    parts: Vec<Part>,
}

impl Picking<'_> {
    fn path(&mut self, word: &Word) -> Result<(), PickError> {
        let text = normal(word)?;
        let found = match text.contains(['*', '?', '[', '\\']) {
            true => self.matching(&text, word)?,
            false => vec![self.plain(&text, word)?],
        };
        // What stands before `/./` is no part of what `--parents` keeps.
        let pivot = word.text.find("/./").map_or(0, |at| {
            let names = word.text[..at].split('/').filter(|name| !matches!(*name, "" | "."));
            names.count()
        });
        for (written, real) in found {
            let entry = self.shelf.tree.get(&real).expect("what was found is in the tree");
            match (entry.is_dir(), self.task.parents) {
                (true, false) => {
                    let files = self.folder(&real, &TreePath::root());
                    self.parts.push(Part::Folder(files));
                }
                (is_dir, true) => self.with_parents(&written, &real, pivot, is_dir),
                (false, false) if self.exclude.leaves_out(written.name()) => {}
                (false, false) => self.file(&written, &real)?,
            }
        }
        Ok(())
    }

    fn file(&mut self, written: &TreePath, real: &TreePath) -> Result<(), PickError> {
        let entry = self.shelf.tree.get(real).expect("what was found is in the tree").clone();
        if let (true, Some(context), Kind::File { digest, size }) =
            (self.task.unpack, self.shelf.context, &entry.kind)
        {
            let (digest, size) = (*digest, *size);
            if let Some(packing) = archive::packing(context.open_file(real, &digest)?) {
                self.parts.push(Part::Archive { from: real.clone(), digest, size, packing });
                return Ok(());
            }
        }
        let name = written.name().to_vec();
        let picked = Picked { from: real.clone(), below: TreePath::root(), entry, linked: None };
        self.parts.push(Part::File { name, picked });
        Ok(())
    }

    /// Finds one path, through links, as a process whose root the tree is would.
    fn plain(&self, text: &str, word: &Word) -> Result<(TreePath, TreePath), PickError> {
        let wrong = |error: PathError| Problem::new(word.span, error.to_string());
        let written = TreePath::parse(text).map_err(wrong)?;
        match self.shelf.tree.resolve(&written, true) {
            Ok(real) if self.shelf.tree.get(&real).is_some() => Ok((written, real)),
            Ok(_) | Err(ResolveError::Missing(_)) => Err(self.missing(text, word).into()),
            Err(error) => Err(Problem::new(word.span, error.to_string()).into()),
        }
    }

    /// Finds all paths that a pattern means; none is no mistake, which is how a file may be there or not.
    fn matching(&self, text: &str, word: &Word) -> Result<Vec<(TreePath, TreePath)>, PickError> {
        let glob = pattern_of(text).map_err(|error| Problem::new(word.span, error.to_string()))?;
        let tree = self.shelf.tree;
        let found =
            tree.iter().map(|(path, _)| path).filter(|path| !path.is_root() && glob.matches(path.as_bytes()));
        let real = |path: &TreePath| {
            let real = tree.resolve(path, true).ok().filter(|real| tree.get(real).is_some());
            (path.clone(), real.unwrap_or_else(|| path.clone()))
        };
        Ok(found.map(real).collect())
    }

    fn missing(&self, text: &str, word: &Word) -> Problem {
        let place = if self.shelf.context.is_some() { "in the build context" } else { "there" };
        let problem = Problem::new(word.span, format!("`{}` is not {place}", text.escape_debug()));
        if self.shelf.context.is_some_and(|context| context.leaves_out(text)) {
            return problem.help(".dockerignore leaves it out: add a rule that begins with `!`");
        }
        let paths: Vec<String> = self
            .shelf
            .tree
            .iter()
            .map(|(path, _)| String::from_utf8_lossy(path.as_bytes()).into_owned())
            .collect();
        problem.meant(nearest(text, paths.iter().map(String::as_str)))
    }

    /// Takes all that is in a folder, to go below `under`.
    fn folder(&self, root: &TreePath, under: &TreePath) -> Vec<Picked> {
        let tree = self.shelf.tree;
        let skip = if root.is_root() { 0 } else { root.as_bytes().len() + 1 };
        let mut first: BTreeMap<_, TreePath> = BTreeMap::new();
        let mut files = Vec::new();
        for (path, entry) in tree.within(root).filter(|(path, _)| *path != root) {
            let inner = &path.as_bytes()[skip..];
            if self.exclude.leaves_out(inner) {
                continue;
            }
            let below = TreePath::parse([under.as_bytes(), b"/", inner].concat());
            let below =
                below.expect("the end of a valid path is one, and what it goes under is its own beginning");
            let inode = tree.inode(path).filter(|_| tree.links(path) > 1);
            let linked = inode.and_then(|inode| first.get(&inode).cloned());
            if let (Some(inode), None) = (inode, &linked) {
                first.insert(inode, below.clone());
            }
            files.push(Picked { from: path.clone(), below, entry: entry.clone(), linked });
        }
        files
    }

    /// Takes a path with the folders that it is in.
    fn with_parents(&mut self, written: &TreePath, real: &TreePath, pivot: usize, is_dir: bool) {
        let tree = self.shelf.tree;
        let names: Vec<&[u8]> = written.names().skip(pivot).collect();
        let mut files = Vec::new();
        let mut from: Vec<&[u8]> = written.names().take(pivot).collect();
        let path =
            |names: &[&[u8]]| TreePath::parse(names.join(&b'/')).expect("a part of a valid path is one");
        for (index, name) in names.iter().enumerate() {
            from.push(name);
            let last = index + 1 == names.len();
            let place = if last { real.clone() } else { path(&from) };
            let resolved = tree.resolve(&place, true).ok();
            let Some(entry) = resolved.and_then(|real| tree.get(&real)).cloned() else { continue };
            files.push(Picked { from: place, below: path(&names[..=index]), entry, linked: None });
        }
        if is_dir {
            files.extend(self.folder(real, &path(&names)));
        }
        self.parts.push(Part::Folder(files));
    }
}

/// The name of a URL's file, as BuildKit has it.
fn name_of(url: &str) -> &str {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let below_host = path.split_once("://").map_or(path, |(_, rest)| rest).split_once('/');
    let name = below_host.and_then(|(_, path)| path.trim_end_matches('/').rsplit('/').next());
    name.filter(|name| !matches!(*name, "" | "." | "..")).unwrap_or("__unnamed__")
}

/// Drops `.` and doubled slashes; what leads out is refused.
fn normal(word: &Word) -> Result<String, Problem> {
    let mut parts = Vec::new();
    for part in word.text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                let outside =
                    || Problem::new(word.span, format!("`{}` leaves where it is copied from", word.text));
                parts.pop().ok_or_else(outside)?;
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_picks_are_described_alike() {
        let digest = crate::hashing::sha256(b"");
        let picked = |below: &[u8], change: &dyn Fn(&mut Picked)| {
            let entry = Entry::file(0o644, digest, 0);
            let below = TreePath::parse(below).unwrap();
            let mut picked = Picked { from: TreePath::root(), below, entry, linked: None };
            change(&mut picked);
            Pick { parts: vec![Part::Folder(vec![picked])] }.describe()
        };
        let plain = |below: &[u8]| picked(below, &|_| {});
        let first = TreePath::parse("a").unwrap();
        let mut all = vec![
            // Bytes that are no text, and a name that looks like two lines.
            plain(b"\xff"),
            plain(b"\xfe"),
            plain("\u{fffd}".as_bytes()),
            plain(br"\xff"),
            plain(b"a\nb"),
            plain(br"a\nb"),
            plain(b"a"),
            picked(b"a", &|it| it.entry.meta.mode = 0o600),
            picked(b"a", &|it| it.entry.meta.uid = 1),
            picked(b"a", &|it| it.entry.meta.gid = 1),
            picked(b"a", &|it| it.entry.meta.mtime.secs = 1),
            picked(b"a", &|it| it.entry.meta.mtime.nanos = 1),
            picked(b"a", &|it| drop(it.entry.meta.xattrs.insert(b"user.a".to_vec(), b"1".to_vec()))),
            picked(b"a", &|it| it.entry.kind = Kind::Dir),
            picked(b"a", &|it| it.entry.kind = Kind::Symlink { target: b"\xff".to_vec() }),
            picked(b"a", &|it| it.entry.kind = Kind::Symlink { target: b"\xfe".to_vec() }),
            picked(b"a", &|it| it.linked = Some(first.clone())),
        ];
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
