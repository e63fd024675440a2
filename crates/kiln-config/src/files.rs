//! Files of the stack folder, as the caller provides them.

use std::collections::BTreeMap;

/// The files below the stack folder. Paths are relative, with `/`, and already checked: none leaves the folder.
pub trait Files {
    /// Returns the content of a file.
    ///
    /// # Errors
    /// [`FileError`]; the path is named by the diagnostic.
    fn read(&self, path: &str) -> Result<Vec<u8>, FileError>;

    /// Returns the paths of all files that match a glob (`*`, `**`, `?`, `[…]`, `{a,b}`), sorted.
    ///
    /// # Errors
    /// [`FileError::Other`] if the glob or a folder can't be read.
    fn list(&self, glob: &str) -> Result<Vec<String>, FileError>;
}

/// Why a file can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// There is none.
    #[error("there is no such file")]
    NotFound,
    /// It is outside of the stack folder, or a link leads out of it.
    #[error("it is outside of the stack folder")]
    Escapes,
    /// It is larger than what is read.
    #[error("it is larger than {max_bytes} bytes")]
    TooLarge {
        /// The limit.
        max_bytes: u64,
    },
    /// Something else.
    #[error("{0}")]
    Other(String),
}

/// Files in memory: for tests, and for evaluating a snapshot that is already loaded.
#[derive(Debug, Clone, Default)]
pub struct MemoryFiles(pub BTreeMap<String, Vec<u8>>);

impl Files for MemoryFiles {
    fn read(&self, path: &str) -> Result<Vec<u8>, FileError> {
        self.0.get(path).cloned().ok_or(FileError::NotFound)
    }

    fn list(&self, glob: &str) -> Result<Vec<String>, FileError> {
        let pattern = glob_pattern(glob).ok_or_else(|| FileError::Other("the glob is not valid".into()))?;
        Ok(self.0.keys().filter(|k| pattern.is_match(k)).cloned().collect())
    }
}

/// Normalises a path of a stack: relative, without `.`; nothing if it leaves the folder.
pub(crate) fn inside(path: &str) -> Option<String> {
    if path.starts_with('/') || path.contains('\0') {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Turns a glob into a pattern over whole paths.
pub fn glob_pattern(glob: &str) -> Option<regex::Regex> {
    let mut out = String::from("^");
    let mut chars = glob.chars().peekable();
    let mut alternatives = 0;
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.peek() == Some(&'*') => {
                chars.next();
                if chars.peek() == Some(&'/') {
                    chars.next();
                    out.push_str("(?:.*/)?");
                } else {
                    out.push_str(".*");
                }
            }
            '*' => out.push_str("[^/]*"),
            '?' => out.push_str("[^/]"),
            '{' => {
                alternatives += 1;
                out.push_str("(?:");
            }
            '}' if alternatives > 0 => {
                alternatives -= 1;
                out.push(')');
            }
            ',' if alternatives > 0 => out.push('|'),
            '[' => {
                out.push('[');
                for c in chars.by_ref() {
                    match c {
                        ']' => break,
                        '!' if out.ends_with('[') => out.push('^'),
                        '\\' | '[' | '&' | '~' => out.extend(['\\', c]),
                        c => out.push(c),
                    }
                }
                out.push(']');
            }
            c => out.push_str(&regex::escape(&c.to_string())),
        }
    }
    out.push('$');
    regex::Regex::new(&out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_inside_or_is_refused() {
        assert_eq!(inside("./a/../b/c").as_deref(), Some("b/c"));
        for bad in ["/etc/passwd", "../x", "a/../../x", "a\0b"] {
            assert_eq!(inside(bad), None, "{bad}");
        }
    }

    #[test]
    fn globs_match_as_terraform_matches() {
        let matches = |glob: &str, path: &str| glob_pattern(glob).unwrap().is_match(path);
        assert!(matches("*.txt", "a.txt") && !matches("*.txt", "b/a.txt"));
        assert!(matches("**/*.txt", "b/c/a.txt") && matches("**/*.txt", "a.txt"));
        assert!(matches("{a,b}/?.[!x]", "b/1.y") && !matches("{a,b}/?.[!x]", "b/1.x"));
        assert!(!matches("a.c", "abc"));
    }
}
