//! Reading a database: a folder of JSON files, a JSON file, or a zip archive of JSON files.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use kiln_model::Digest;
use serde::Deserialize;
use serde_json::Value;

use super::entry::Entry;
use crate::hashing::sha256;
use crate::inventory::archive::{self, ArchiveError};

/// All of osv.dev has several hundred thousand entries.
const ENTRIES_MAX: usize = 2_000_000;

/// The list of an archive's members: for each of the entries that there may be a name, and some tens of bytes.
const DIRECTORY_BYTES_MAX: u64 = 256 << 20;

/// The longest entries, of the kernel with every version listed, have some megabytes.
const ENTRY_BYTES_MAX: u64 = 64 << 20;

/// A few kilobytes for each of osv.dev's entries are some gigabytes.
const TOTAL_BYTES_MAX: u64 = 32 << 30;

/// Databases have a folder for each ecosystem, year or package: some four deep.
const DEPTH_MAX: usize = 16;

/// Why a database can't be used. A part that can't be read could hold what is looked for, so it is not left out.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// It is not there, or its bytes can't be read.
    #[error("{} can't be read", path.display())]
    Io {
        /// What can't be read.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A part of it is no entry.
    #[error("{name} is no vulnerability entry of the OSV schema")]
    Entry {
        /// The file.
        name: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It is of a form, or of a size, that is not read.
    #[error("{name}: {reason}")]
    Refused {
        /// The file.
        name: String,
        /// Why.
        reason: String,
    },
    /// It has no entry: nothing would ever be found in it.
    #[error("{} holds no vulnerability entry", .0.display())]
    Empty(PathBuf),
}

/// What a database is, once all of it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseInfo {
    /// The digest over the names and the bytes of its files.
    pub digest: Digest,
    /// Its newest `modified`, as written there; empty if no entry has one.
    pub modified: String,
    /// How many entries it has, withdrawn ones among them.
    pub entries: usize,
}

/// Gives every entry to `each`, in the order of the files' names.
pub(super) fn read(path: &Path, each: &mut dyn FnMut(Entry)) -> Result<DatabaseInfo, DatabaseError> {
    let mut reading =
        Reading { each, digests: String::new(), modified: String::new(), entries: 0, left: TOTAL_BYTES_MAX };
    let meta = fs::metadata(path).map_err(|source| io_error(path, source))?;
    if meta.is_dir() {
        reading.folder(path, "", 0)?;
    } else if is_json(path) {
        reading.file(path, &name_of(path))?;
    } else {
        reading.archive(path)?;
    }
    let Reading { digests, modified, entries, .. } = reading;
    if entries == 0 {
        return Err(DatabaseError::Empty(path.to_owned()));
    }
    Ok(DatabaseInfo { digest: sha256(digests.as_bytes()), modified, entries })
}

struct Reading<'a> {
    each: &'a mut dyn FnMut(Entry),
    /// A line for each file: its digest and its name.
    digests: String,
    modified: String,
    entries: usize,
    left: u64,
}

impl Reading<'_> {
    fn folder(&mut self, path: &Path, prefix: &str, depth: usize) -> Result<(), DatabaseError> {
        if depth > DEPTH_MAX {
            return Err(refused(prefix, format!("it lies more than {DEPTH_MAX} folders deep")));
        }
        let failed = |source| io_error(path, source);
        let mut children = Vec::new();
        for child in fs::read_dir(path).map_err(failed)? {
            children.push(child.map_err(failed)?.path());
            if children.len() > ENTRIES_MAX {
                return Err(refused(prefix, format!("it has more than {ENTRIES_MAX} files")));
            }
        }
        children.sort();
        for child in children {
            let name = format!("{prefix}{}", name_of(&child));
            // A link is followed to a file, but not to a folder: it could lead in a circle.
            let own = fs::symlink_metadata(&child).map_err(|source| io_error(&child, source))?;
            if own.is_dir() && !name_of(&child).starts_with('.') {
                self.folder(&child, &format!("{name}/"), depth + 1)?;
            } else if !own.is_dir() && is_json(&child) {
                self.file(&child, &name)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, name: &str) -> Result<(), DatabaseError> {
        let failed = |source| io_error(path, source);
        // Asked before it is opened: opening a pipe waits for its other end.
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(refused(name, "it is no regular file".into()));
        }
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(failed)?;
        file.take(ENTRY_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > ENTRY_BYTES_MAX {
            return Err(refused(name, format!("it is larger than {} MiB", ENTRY_BYTES_MAX >> 20)));
        }
        self.document(name, &bytes)
    }

    fn archive(&mut self, path: &Path) -> Result<(), DatabaseError> {
        let failed = |source| io_error(path, source);
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(refused(&name_of(path), "it is neither a folder nor a regular file".into()));
        }
        let file = File::open(path).map_err(failed)?;
        let of_archive = |name: &str, error: ArchiveError| match error {
            ArchiveError::Refused(reason) => refused(name, reason.into()),
            ArchiveError::Io(source) => io_error(path, source),
        };
        let members = archive::members(&file, DIRECTORY_BYTES_MAX)
            .map_err(|error| of_archive(&name_of(path), error))?;
        for member in members.iter().filter(|member| member.name.ends_with(b".json")) {
            let name = String::from_utf8_lossy(&member.name).into_owned();
            let limit = ENTRY_BYTES_MAX.min(self.left);
            let bytes = archive::read(&file, member, limit).map_err(|error| of_archive(&name, error))?;
            self.document(&name, &bytes)?;
        }
        Ok(())
    }

    /// Reads one entry, or a list of them.
    fn document(&mut self, name: &str, bytes: &[u8]) -> Result<(), DatabaseError> {
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
            return Err(refused(name, format!("the database is larger than {} GiB", TOTAL_BYTES_MAX >> 30)));
        };
        self.left = left;
        self.digests.push_str(&format!("{} {name:?}\n", sha256(bytes)));
        let failed = |source| DatabaseError::Entry { name: name.to_owned(), source };
        let is_list = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
        if is_list {
            for value in serde_json::from_slice::<Vec<Value>>(bytes).map_err(failed)? {
                self.entry(name, Entry::deserialize(value).map_err(failed)?)?;
            }
            return Ok(());
        }
        self.entry(name, serde_json::from_slice(bytes).map_err(failed)?)
    }

    fn entry(&mut self, name: &str, entry: Entry) -> Result<(), DatabaseError> {
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(refused(name, format!("the database has more than {ENTRIES_MAX} entries")));
        }
        // All are RFC 3339 in UTC, whose texts order as the times do.
        if let Some(modified) = entry.modified.as_ref().filter(|modified| **modified > self.modified) {
            self.modified.clone_from(modified);
        }
        (self.each)(entry);
        Ok(())
    }
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn io_error(path: &Path, source: io::Error) -> DatabaseError {
    DatabaseError::Io { path: path.to_owned(), source }
}

fn refused(name: &str, reason: String) -> DatabaseError {
    DatabaseError::Refused { name: name.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::archive::tests::{zip, zip64};

    const ONE: &[u8] = br#"{"id":"CVE-1","modified":"2026-01-02T00:00:00Z"}"#;
    const TWO: &[u8] = br#"{"id":"CVE-2","modified":"2026-03-04T00:00:00Z","withdrawn":null}"#;

    fn ids(path: &Path) -> Result<(Vec<String>, DatabaseInfo), DatabaseError> {
        let mut ids = Vec::new();
        let info = read(path, &mut |entry| ids.push(entry.id))?;
        Ok((ids, info))
    }

    #[test]
    fn a_folder_a_list_and_an_archive_hold_the_same_entries() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("db/npm")).unwrap();
        fs::create_dir_all(at("db/.git")).unwrap();
        fs::write(at("db/a.json"), ONE).unwrap();
        fs::write(at("db/npm/b.json"), TWO).unwrap();
        fs::write(at("db/.git/x.json"), "no entry").unwrap();
        fs::write(at("db/README.md"), "no entry").unwrap();
        fs::write(at("list.json"), [b" [", ONE, b",", TWO, b"]"].concat()).unwrap();
        fs::write(
            at("all.zip"),
            zip(&[("a.json", ONE, true), ("npm/b.json", TWO, false), ("x.md", b"x", false)]),
        )
        .unwrap();
        let (in_folder, info) = ids(&at("db")).unwrap();
        assert_eq!(in_folder, ["CVE-1", "CVE-2"]);
        assert_eq!((info.entries, info.modified.as_str()), (2, "2026-03-04T00:00:00Z"));
        assert_eq!(ids(&at("list.json")).unwrap().0, in_folder);
        assert_eq!(ids(&at("all.zip")).unwrap(), (in_folder, info.clone()));
        let large = zip64(&[("a.json", ONE, true), ("npm/b.json", TWO, false)]);
        fs::write(at("large.zip"), large).unwrap();
        assert_eq!(ids(&at("large.zip")).unwrap(), ids(&at("all.zip")).unwrap());
        fs::write(at("db/a.json"), [ONE, b" "].concat()).unwrap();
        assert_ne!(ids(&at("db")).unwrap().1.digest, info.digest);
    }

    #[test]
    fn a_part_that_can_not_be_read_is_an_error_and_so_is_an_empty_database() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(ids(folder.path()), Err(DatabaseError::Empty(_))));
        assert!(matches!(ids(&folder.path().join("none")), Err(DatabaseError::Io { .. })));
        fs::write(folder.path().join("a.json"), ONE).unwrap();
        for bad in [&b"{}"[..], b"", b"[1]", "[".repeat(100_000).as_bytes()] {
            fs::write(folder.path().join("b.json"), bad).unwrap();
            assert!(matches!(ids(folder.path()), Err(DatabaseError::Entry { .. })), "{:?}", bad.first());
        }
        fs::write(folder.path().join("x.zip"), "no zip").unwrap();
        assert!(matches!(ids(&folder.path().join("x.zip")), Err(DatabaseError::Refused { .. })));
    }
}
