//! The files of a stack folder, as a bake may see them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_bake::{GlobError, IGNORE_BYTES_MAX, IGNORE_FILE, Ignore};
use kiln_model::{Digest, StackName};
use kiln_store::{Stamp, Stamps};
use sha2::{Digest as _, Sha256};

use crate::runtime::StateDir;

/// How a saved plan begins. One that lies in the folder is about the stack, and no part of it.
pub(crate) const PLAN_MAGIC: &[u8] = b"{\"kiln_plan\":";
/// A dependency folder that nobody ignored; far beyond any stack that is meant.
const FILES_MAX: usize = 200_000;
/// As [`FILES_MAX`], for its size.
const BYTES_MAX: u64 = 8 << 30;
/// Deeper than any folder that people make, shallow enough for the stack of this process.
const DEPTH_MAX: usize = 64;
/// A `.hcl` file of more than this is no text that somebody wrote.
const HCL_BYTES_MAX: u64 = 16 << 20;

/// Why a folder can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    /// Something can't be read.
    #[error("cannot read {path}")]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It has too much in it.
    #[error("{folder} holds more than {what}")]
    TooLarge {
        /// The folder.
        folder: PathBuf,
        /// The limit, for people.
        what: String,
    },
    /// A pattern is no pattern.
    #[error("{IGNORE_FILE} can't be understood")]
    Ignore(#[source] GlobError),
}

/// What something in a folder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// A regular file with the digest of its bytes.
    File {
        /// The digest.
        digest: Digest,
        /// Its size.
        size: u64,
    },
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// A folder without anything in it.
    EmptyFolder,
}

/// One thing in a stack folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// Its permission bits.
    pub mode: u16,
    /// What it is.
    pub content: Content,
}

/// The files of a stack folder by their path below it, as bytes.
pub(crate) type Listing = BTreeMap<Vec<u8>, Item>;

/// Lists a folder: no `.git`, nothing that `.kilnignore` names, no link followed, only files, folders and links. The stack's
/// own `.hcl` files are always there, with what they say: a release is made from it, also where one is a link. A state folder
/// below it is no part of it: it changes with every command, and holds what the stack became.
///
/// Files of which `stamps` knows what they hold are not read, and what was read is noted.
///
/// # Errors
/// See [`ScanError`].
pub(crate) fn scan(
    folder: &Path,
    state: &StateDir,
    stamps: Option<&mut Stamps>,
) -> Result<Listing, ScanError> {
    let ignore = ignore_rules(folder)?;
    // By what it is, and not by its name: there may be links on the way to it.
    let state = fs::metadata(state.path()).ok().map(|meta| (meta.dev(), meta.ino()));
    let mut walk = Walk { root: folder, ignore, state, listing: Listing::new(), bytes: 0, stamps };
    walk.enter(folder, 0)?;
    Ok(walk.listing)
}

fn ignore_rules(folder: &Path) -> Result<Ignore, ScanError> {
    let path = folder.join(IGNORE_FILE);
    let failed = |source| ScanError::Io { path: path.clone(), source };
    // As in a bake, a link is no file of rules: what it leads to may lie outside of the folder.
    match fs::symlink_metadata(&path) {
        Ok(meta) if meta.is_file() => {}
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => return Ignore::new("").map_err(ScanError::Ignore),
    }
    let file = fs::File::open(&path).map_err(failed)?;
    let mut text = String::new();
    file.take(IGNORE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > IGNORE_BYTES_MAX {
        let what = format!("{} MiB in {IGNORE_FILE}", IGNORE_BYTES_MAX >> 20);
        return Err(ScanError::TooLarge { folder: folder.to_owned(), what });
    }
    Ignore::new(&text).map_err(ScanError::Ignore)
}

struct Walk<'a> {
    root: &'a Path,
    ignore: Ignore,
    state: Option<(u64, u64)>,
    listing: Listing,
    bytes: u64,
    stamps: Option<&'a mut Stamps>,
}

impl Walk<'_> {
    fn enter(&mut self, folder: &Path, depth: usize) -> Result<(), ScanError> {
        if depth > DEPTH_MAX {
            return Err(self.too_large(format!("{DEPTH_MAX} folders inside each other")));
        }
        let failed = |source| ScanError::Io { path: folder.to_owned(), source };
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            entries.push((entry.file_name(), entry));
        }
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        let before = self.listing.len();
        for (_, entry) in entries {
            self.visit(&entry, depth)?;
        }
        if self.listing.len() == before && folder != self.root {
            let mode = mode_of(&fs::symlink_metadata(folder).map_err(failed)?);
            self.add(folder, Item { mode, content: Content::EmptyFolder })?;
        }
        Ok(())
    }

    fn visit(&mut self, entry: &fs::DirEntry, depth: usize) -> Result<(), ScanError> {
        let path = &entry.path();
        let failed = |source| ScanError::Io { path: path.to_owned(), source };
        let is_source = depth == 0 && is_source(path);
        // The folder is open: what is in it is looked at without the way from the root, which is most of what a look costs.
        let meta = if is_source { fs::metadata(path) } else { entry.metadata() }.map_err(failed)?;
        if !is_source && self.ignore.leaves_out(self.below(path), meta.is_dir()) {
            return Ok(());
        }
        let mode = mode_of(&meta);
        if meta.is_dir() && self.state == Some((meta.dev(), meta.ino())) {
            Ok(())
        } else if meta.is_dir() {
            self.enter(path, depth + 1)
        } else if meta.is_symlink() {
            let target = fs::read_link(path).map_err(failed)?.into_os_string().into_vec();
            self.add(path, Item { mode, content: Content::Symlink(target) })
        } else if meta.is_file() {
            self.bytes += meta.len();
            if self.bytes > BYTES_MAX {
                return Err(self.too_large(format!("{} GiB", BYTES_MAX >> 30)));
            }
            match self.hash(path, &meta).map_err(failed)? {
                Some((digest, size)) => {
                    self.add(path, Item { mode, content: Content::File { digest, size } })
                }
                None => Ok(()),
            }
        } else {
            // A socket or a pipe has no bytes to bake.
            Ok(())
        }
    }

    /// Returns the digest and size of a file; none for a saved plan.
    fn hash(&mut self, path: &Path, meta: &fs::Metadata) -> io::Result<Option<(Digest, u64)>> {
        let (stamp, began) = (Stamp::of(meta), SystemTime::now());
        let name = self.below(path).to_vec();
        let known = self.stamps.as_ref().and_then(|stamps| stamps.digest(&name, &stamp, UNIX_EPOCH));
        if let Some(digest) = known {
            return Ok(Some((digest, meta.len())));
        }
        let hashed = hash(path)?;
        if let (Some((digest, _)), Some(stamps)) = (&hashed, &mut self.stamps) {
            stamps.note(&name, stamp, *digest, began);
        }
        Ok(hashed)
    }

    fn add(&mut self, path: &Path, item: Item) -> Result<(), ScanError> {
        if self.listing.len() >= FILES_MAX {
            return Err(self.too_large(format!("{FILES_MAX} files")));
        }
        let below = self.below(path).to_vec();
        self.listing.insert(below, item);
        Ok(())
    }

    fn below<'p>(&self, path: &'p Path) -> &'p [u8] {
        let (path, root) = (path.as_os_str().as_bytes(), self.root.as_os_str().as_bytes());
        // The paths are the root's with names behind: nothing of them need be taken apart for each file.
        let below = path.strip_prefix(root).expect("the walk stays below its root");
        below.strip_prefix(b"/").unwrap_or(below)
    }

    fn too_large(&self, what: String) -> ScanError {
        ScanError::TooLarge { folder: self.root.to_owned(), what }
    }
}

fn mode_of(meta: &fs::Metadata) -> u16 {
    // Masked to the permission bits, so it fits.
    (meta.permissions().mode() & 0o7777) as u16
}

/// Returns the digest and size of a file; none for a saved plan.
fn hash(path: &Path) -> io::Result<Option<(Digest, u64)>> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    let mut size = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Some((Digest::new(hasher.finalize().into()), size))),
            n if size == 0 && buffer[..n].starts_with(PLAN_MAGIC) => return Ok(None),
            n => {
                hasher.update(&buffer[..n]);
                size += n as u64;
            }
        }
    }
}

/// Whether what lies at the top of a folder is a part of the stack. An editor's lock or backup, such as `.#stack.hcl`, is not.
fn is_source(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    name.ends_with(b".hcl") && !name.starts_with(b".") && path.is_file()
}

/// Returns the `*.hcl` files at the top of a folder: its stack.
///
/// # Errors
/// `Io`, or `TooLarge` for one that nobody wrote.
pub(crate) fn sources(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>, ScanError> {
    let failed = |path: &Path, source| ScanError::Io { path: path.to_owned(), source };
    let mut sources = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(|error| failed(folder, error))? {
        let entry = entry.map_err(|error| failed(folder, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        if !is_source(&path) {
            continue;
        }
        if path.metadata().is_ok_and(|meta| meta.len() > HCL_BYTES_MAX) {
            let what = format!("{} MiB in {name}", HCL_BYTES_MAX >> 20);
            return Err(ScanError::TooLarge { folder: folder.to_owned(), what });
        }
        sources.insert(name, fs::read(&path).map_err(|error| failed(&path, error))?);
    }
    Ok(sources)
}

/// Returns the name of the stack in a folder, also where the rest of it has errors: a rollback must be possible then too.
pub(crate) fn stack_name(folder: &Path) -> Option<StackName> {
    let sources = sources(folder).ok()?;
    sources.values().find_map(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        text.lines().find_map(|line| {
            let rest = line.trim_start().strip_prefix("stack")?;
            let (name, _) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
            StackName::new(name).ok()
        })
    })
}

/// What differs between two listings: paths with `+`, `-` or `~`.
pub(crate) fn changed(old: &Listing, new: &Listing) -> Vec<(char, Vec<u8>)> {
    let mut changed = Vec::new();
    for (path, item) in new {
        match old.get(path) {
            None => changed.push(('+', path.clone())),
            Some(before) if before != item => changed.push(('~', path.clone())),
            Some(_) => {}
        }
    }
    changed.extend(old.keys().filter(|path| !new.contains_key(*path)).map(|path| ('-', path.clone())));
    changed.sort_by(|a, b| a.1.cmp(&b.1));
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn nowhere() -> StateDir {
        StateDir::new("/nowhere")
    }

    #[test]
    fn a_state_folder_below_is_left_out_whatever_way_leads_to_it() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        for name in
            ["stack.hcl", "deploy/state/store/objects/x", "deploy/state/run/x", "deploy/other/state/x"]
        {
            write(folder.path(), name, name);
        }
        std::os::unix::fs::symlink("deploy", folder.path().join("way")).unwrap();
        for way in ["deploy/state", "way/state", "./deploy/other/../state"] {
            let state = StateDir::new(folder.path().join(way));
            let listing = scan(folder.path(), &state, None).unwrap();
            assert_eq!(paths(&listing), ["deploy/other/state/x", "stack.hcl", "way"], "{way}");
        }
        // Alone in its folder, it leaves an empty one.
        let state = StateDir::new(folder.path().join("deploy/other/state"));
        let listing = scan(folder.path(), &state, None).unwrap();
        assert_eq!(listing[b"deploy/other".as_slice()].content, Content::EmptyFolder);
    }

    fn paths(listing: &Listing) -> Vec<String> {
        listing.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect()
    }

    #[test]
    fn what_is_ignored_or_under_version_control_is_left_out() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        for name in [
            "stack.hcl",
            "web/a.py",
            "web/a.pyc",
            "web/.git/x",
            ".git/config",
            "keep/b.pyc",
            "node_modules/x/y",
        ] {
            write(folder.path(), name, name);
        }
        write(folder.path(), IGNORE_FILE, "*.pyc\n!keep/*.pyc\nnode_modules/\n");
        let listing = scan(folder.path(), &nowhere(), None).unwrap();
        assert_eq!(paths(&listing), [".kilnignore", "keep/b.pyc", "stack.hcl", "web/a.py"]);
    }

    #[test]
    fn rules_that_are_no_rules_are_named() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        write(folder.path(), IGNORE_FILE, "*.log\n[a\n");
        let error = scan(folder.path(), &nowhere(), None).unwrap_err();
        let ScanError::Ignore(cause) = &error else { panic!("{error}") };
        assert_eq!(cause.to_string(), "`[a` is not a glob: a `[` is not closed");
    }

    #[test]
    fn a_link_is_kept_as_a_link_and_never_followed() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("root")).unwrap();
        fs::create_dir(folder.path().join("empty")).unwrap();
        let listing = scan(folder.path(), &nowhere(), None).unwrap();
        assert_eq!(listing[b"root".as_slice()].content, Content::Symlink(b"/".to_vec()));
        assert_eq!(listing[b"empty".as_slice()].content, Content::EmptyFolder);
    }

    #[test]
    fn the_stacks_own_files_are_listed_by_what_they_say_also_where_they_are_links_or_ignored() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        write(folder.path(), "stack.hcl", "stack \"x\" {}");
        write(folder.path(), IGNORE_FILE, "*.hcl\n");
        write(folder.path(), "below/copied.hcl", "not of the stack");
        let elsewhere = tempfile::tempdir_in("/var/tmp").unwrap();
        write(elsewhere.path(), "shared.hcl", "locals {}");
        std::os::unix::fs::symlink(elsewhere.path().join("shared.hcl"), folder.path().join("shared.hcl"))
            .unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("dangling.hcl")).unwrap();

        let listing = scan(folder.path(), &nowhere(), None).unwrap();

        assert_eq!(paths(&listing), [IGNORE_FILE, "below", "shared.hcl", "stack.hcl"]);
        assert_eq!(listing[b"below".as_slice()].content, Content::EmptyFolder, "its file is ignored");
        let (digest, size) = hash(&elsewhere.path().join("shared.hcl")).unwrap().unwrap();
        assert_eq!(listing[b"shared.hcl".as_slice()].content, Content::File { digest, size });
        assert_ne!(listing[b"shared.hcl".as_slice()].mode, 0o777, "the mode is the file's, not the link's");
        let read: Vec<_> = sources(folder.path()).unwrap().into_keys().collect();
        assert_eq!(read, ["shared.hcl", "stack.hcl"], "what is evaluated is what is listed");
    }

    #[test]
    fn a_stack_is_named_even_where_its_files_have_errors() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        write(folder.path(), "a.hcl", "image \"x\" {\n");
        assert_eq!(stack_name(folder.path()), None);
        write(folder.path(), "b.hcl", "# stack \"no\"\n  stack   \"shop\" {}\n}}}");
        assert_eq!(stack_name(folder.path()).unwrap().as_str(), "shop");
    }

    #[test]
    fn differences_name_what_came_went_and_changed() {
        let file =
            |byte| Item { mode: 0o644, content: Content::File { digest: Digest::new([byte; 32]), size: 1 } };
        let old =
            Listing::from([(b"a".to_vec(), file(1)), (b"b".to_vec(), file(1)), (b"c".to_vec(), file(1))]);
        let new =
            Listing::from([(b"a".to_vec(), file(1)), (b"b".to_vec(), file(2)), (b"d".to_vec(), file(1))]);
        let expected = [('~', b"b".to_vec()), ('-', b"c".to_vec()), ('+', b"d".to_vec())];
        assert_eq!(changed(&old, &new), expected);
    }
}
