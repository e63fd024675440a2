//! Secrets of a bake: where their values come from, and where they may not go.
//!
//! A value is read when a command that mounts it is run, and not before: what is found needs none. It is in no key, no record and no
//! document; what a command prints of it is covered, and a file that has it verbatim is no outcome of a step.

use std::error::Error;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use kiln_model::SecretName;
use kiln_store::sealed::SecretValue;
use memchr::memmem;

/// What stands for a value where it is printed.
const COVER: &str = "***";

/// A shorter value is found by chance in what has nothing to do with it.
const FOUND_BYTES_MIN: usize = 8;

/// What is read of a file at a time while a value is looked for.
const SEARCH_BYTES: usize = 256 << 10;

/// Where the values of a stack's secrets come from.
pub trait Secrets: fmt::Debug + Send + Sync {
    /// Reads a value; none where its source has none. No byte of it is in an error.
    ///
    /// # Errors
    /// The source is there and can't be read.
    fn read(&self, name: &SecretName) -> Result<Option<SecretValue>, SecretsError>;
}

/// A secret can't be read.
#[derive(Debug, thiserror::Error)]
#[error("the secret `{name}` can't be read")]
pub struct SecretsError {
    /// Which one.
    pub name: SecretName,
    /// Why.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

/// A baker that was given no secrets.
#[derive(Debug)]
pub(crate) struct NoSecrets;

impl Secrets for NoSecrets {
    fn read(&self, _: &SecretName) -> Result<Option<SecretValue>, SecretsError> {
        Ok(None)
    }
}

/// A step would have left a secret in its image.
#[derive(Debug, thiserror::Error)]
#[error("the value of the secret `{id}` is in {}, which the image would keep", path.display())]
pub struct LeakError {
    /// Its id.
    pub id: String,
    /// The file, in the image.
    pub path: PathBuf,
}

/// Values that a command has, by their ids.
#[derive(Debug, Default)]
pub(crate) struct Hidden(Vec<(String, SecretValue)>);

impl Hidden {
    /// Adds one.
    pub(crate) fn add(&mut self, id: &str, value: SecretValue) {
        self.0.push((id.to_owned(), value));
    }

    /// Covers the values in what a command printed, and their lines: a key is printed line by line.
    pub(crate) fn cover(&self, log: String) -> String {
        let texts: Vec<_> = self.0.iter().map(|(_, value)| String::from_utf8_lossy(value.expose())).collect();
        let lines = texts.iter().flat_map(|text| text.lines()).filter(|line| line.len() >= FOUND_BYTES_MIN);
        let whole = texts.iter().map(|text| text.trim_end()).filter(|text| !text.is_empty());
        whole.chain(lines).fold(log, |log, text| log.replace(text, COVER))
    }

    /// Finds a file below a folder that has one of the values as it is.
    pub(crate) fn find(&self, folder: &Path) -> io::Result<Option<LeakError>> {
        let long = |(_, value): &&(String, SecretValue)| value.expose().trim_ascii().len() >= FOUND_BYTES_MIN;
        let mut sought: Vec<_> = self.0.iter().filter(long).collect();
        sought.dedup_by_key(|(id, _)| id);
        if sought.is_empty() {
            return Ok(None);
        }
        let mut folders = vec![folder.to_owned()];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(next)? {
                let entry = entry?;
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_file() {
                    for (id, value) in &sought {
                        if holds(&entry.path(), value.expose().trim_ascii())? {
                            let path = entry.path();
                            let path = Path::new("/").join(path.strip_prefix(folder).unwrap_or(&path));
                            return Ok(Some(LeakError { id: id.clone(), path }));
                        }
                    }
                }
            }
        }
        Ok(None)
    }
}

/// Whether a file has these bytes, which are not none.
fn holds(path: &Path, sought: &[u8]) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let finder = memmem::Finder::new(sought);
    // What ends a piece may be the beginning of what is sought.
    let mut buffer = vec![0; SEARCH_BYTES + sought.len()];
    let mut kept = 0;
    loop {
        let count = match file.read(&mut buffer[kept..]) {
            Ok(0) => return Ok(false),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let filled = kept + count;
        if finder.find(&buffer[..filled]).is_some() {
            return Ok(true);
        }
        kept = filled.min(sought.len() - 1);
        buffer.copy_within(filled - kept..filled, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(values: &[(&str, &[u8])]) -> Hidden {
        Hidden(
            values.iter().map(|(id, value)| ((*id).to_owned(), SecretValue::new(value.to_vec()))).collect(),
        )
    }

    #[test]
    fn values_and_the_lines_of_long_ones_are_covered() {
        let hidden = hidden(&[("a", b"hunter2\n"), ("key", b"-----BEGIN-----\nabcdefgh\nxyz\n")]);
        let log = "use hunter2!\nabcdefgh xyz\n-----BEGIN-----\nabcdefgh\nxyz\n".to_owned();
        assert_eq!(hidden.cover(log), "use ***!\n*** xyz\n***\n");
        assert_eq!(Hidden::default().cover("text".into()), "text");
    }

    #[test]
    fn a_value_is_found_in_any_file_wherever_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        let sought = hidden(&[("short", b"abc"), ("token", b"correct-horse\n")]);
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        fs::write(folder.path().join("a/fine"), "abc correct-hors").unwrap();
        std::os::unix::fs::symlink("correct-horse", folder.path().join("a/link")).unwrap();
        assert!(sought.find(folder.path()).unwrap().is_none());
        // Across the end of what is read at a time.
        for before in [0, SEARCH_BYTES - 5, SEARCH_BYTES + 8, 2 * SEARCH_BYTES + 3] {
            let text = [vec![b'c'; before], b"correct-horse".to_vec(), vec![b'x'; 20]].concat();
            fs::write(folder.path().join("a/b/leak"), text).unwrap();
            let leak = sought.find(folder.path()).unwrap().unwrap();
            assert_eq!(
                (leak.id.as_str(), leak.path.as_path()),
                ("token", Path::new("/a/b/leak")),
                "{before}"
            );
        }
    }
}
