//! The files of a commit as an archive that is the same wherever it is made: what is locked is its digest.
//!
//! Nothing is checked out: no filter, no attribute and no setting of the machine has a say in what the files are.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use kiln_store::TreePath;

use super::client::{FILE_BYTES_MAX, GitError, Repository};

/// As many as an archive that is unpacked may have.
const FILES_MAX: usize = 1 << 20;

/// The longest line of the list: a path of four kilobytes, with a mode, a kind and a name of an object before it.
const LINE_BYTES_MAX: u64 = 8 << 10;

/// No link leads further: the kernel's own limit.
const LINK_BYTES_MAX: u64 = 4095;

/// One file of a commit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listed {
    kind: ListedKind,
    object: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ListedKind {
    File,
    Program,
    Link,
}

/// Writes the archive of a commit's folder.
pub(super) fn write(
    repository: &Repository<'_>,
    commit: &str,
    folder: &TreePath,
    path: &Path,
    sink: impl Write,
) -> Result<(), GitError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => {
            GitError::Failed { said: source.to_string() }
        }
        _ => GitError::Write { path: path.into(), source },
    };
    let files = listing(repository, commit, folder)?;
    let mut objects = repository.talk(&["cat-file", "--batch"])?;
    let mut archive = tar::Builder::new(sink);
    let mut left = FILE_BYTES_MAX;
    for (name, Listed { kind, object }) in &files {
        if repository.is_cancelled() {
            return Err(GitError::Cancelled);
        }
        let size = objects.blob(object).map_err(failed)?;
        left = left.checked_sub(size).ok_or(GitError::TooLarge("4 GiB"))?;
        let mut content = (&mut objects.answers).take(size);
        let place = Path::new(OsStr::from_bytes(name.as_bytes()));
        let mut header = tar::Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_mode(if *kind == ListedKind::File { 0o644 } else { 0o755 });
        let put = if *kind == ListedKind::Link {
            if !(1..=LINK_BYTES_MAX).contains(&size) {
                return Err(wrong(name.as_bytes(), "it is a link to nothing that can be"));
            }
            let mut target = Vec::new();
            content.read_to_end(&mut target).map_err(failed)?;
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            archive.append_link(&mut header, place, OsStr::from_bytes(&target))
        } else {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(size);
            archive.append_data(&mut header, place, &mut content)
        };
        put.map_err(failed)?;
        let unread = content.limit();
        objects.close_blob(unread).map_err(failed)?;
    }
    archive.into_inner().and_then(|mut sink| sink.flush()).map_err(failed)
}

/// Lists the files of a commit's folder.
fn listing(
    repository: &Repository<'_>,
    commit: &str,
    folder: &TreePath,
) -> Result<BTreeMap<TreePath, Listed>, GitError> {
    let shown = String::from_utf8_lossy(folder.as_bytes()).into_owned();
    let tree = if folder.is_root() { format!("{commit}^{{tree}}") } else { format!("{commit}:{shown}") };
    if !folder.is_root() {
        let is_folder = match repository.run(&["cat-file", "-t", &tree], LINE_BYTES_MAX) {
            Ok(kind) => kind == b"tree\n",
            Err(GitError::Failed { .. }) => false,
            Err(error) => return Err(error),
        };
        if !is_folder {
            return Err(GitError::NoFolder { commit: commit.into(), folder: shown });
        }
    }
    // It is read while it is written: a tree of a few objects may list without end.
    let mut listing = repository.talk(&["ls-tree", "-r", "-z", "--full-tree", &tree])?;
    let files = list(&mut listing.answers, FILES_MAX)?;
    match listing.is_well() {
        Ok(true) => Ok(files),
        _ => Err(unclear()),
    }
}

fn unclear() -> GitError {
    GitError::Failed { said: "a list of files that can't be understood".into() }
}

fn wrong(path: &[u8], reason: &'static str) -> GitError {
    GitError::Path { path: String::from_utf8_lossy(path).escape_debug().to_string(), reason }
}

/// Reads what `git ls-tree -r -z` writes, as hostile input: a tree may hold any bytes as names.
pub(super) fn list(
    listing: &mut impl BufRead,
    files_max: usize,
) -> Result<BTreeMap<TreePath, Listed>, GitError> {
    let mut files = BTreeMap::new();
    loop {
        let mut line = Vec::new();
        listing.take(LINE_BYTES_MAX).read_until(0, &mut line).map_err(|_| unclear())?;
        if line.is_empty() {
            break;
        }
        if line.pop() != Some(0) {
            return Err(unclear());
        }
        let tab = line.iter().position(|byte| *byte == b'\t').ok_or_else(unclear)?;
        let (head, name) = (std::str::from_utf8(&line[..tab]).map_err(|_| unclear())?, &line[tab + 1..]);
        let words: Vec<&str> = head.split_ascii_whitespace().collect();
        let [mode, kind, object] = words[..] else { return Err(unclear()) };
        if kind == "commit" {
            return Err(GitError::Submodule(String::from_utf8_lossy(name).escape_debug().to_string()));
        }
        let kind = match mode {
            "100755" => ListedKind::Program,
            "120000" => ListedKind::Link,
            _ if mode.starts_with("100") => ListedKind::File,
            _ => return Err(wrong(name, "it is neither a file nor a link")),
        };
        let path = path_of(name).map_err(|reason| wrong(name, reason))?;
        if files.insert(path, Listed { kind, object: object.to_owned() }).is_some() {
            return Err(wrong(name, "it is there twice"));
        }
        if files.len() > files_max {
            return Err(GitError::TooLarge("a million files"));
        }
    }
    // The same name may stand for a file and for a folder.
    for path in files.keys() {
        let mut above = path.parent();
        while let Some(folder) = above.filter(|folder| !folder.is_root()) {
            if files.contains_key(&folder) {
                return Err(wrong(path.as_bytes(), "it leads through what is no folder"));
            }
            above = folder.parent();
        }
    }
    Ok(files)
}

/// What `git` itself would not check out is no path here.
fn path_of(name: &[u8]) -> Result<TreePath, &'static str> {
    let path = TreePath::parse(name).map_err(|error| error.reason)?;
    if path.as_bytes() != name {
        return Err("a name is empty or `.`");
    }
    if path.names().any(|part| part.eq_ignore_ascii_case(b".git")) {
        return Err("no repository has a `.git` of its own");
    }
    Ok(path)
}
