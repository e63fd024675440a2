//! Paths in a tree: relative, normal, and never leading out.

use std::fmt;
use std::sync::Arc;

/// Linux takes no longer name.
pub const NAME_BYTES_MAX: usize = 255;

/// Linux takes no longer path (`PATH_MAX` counts the final NUL), nor a longer symlink target.
pub const PATH_BYTES_MAX: usize = 4095;

/// A path within a tree, as bytes without a leading slash; the root is the empty path.
///
/// It has no `.`, no `..`, no empty component and no NUL, so joining it to a folder stays below that folder as long as no
/// symlink is followed. Copies share their bytes: every step of a bake has a tree of its own, mostly of the same paths.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TreePath(Arc<[u8]>);

/// A path that can't be in a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` can't be a path in an image: {reason}")]
pub struct PathError {
    /// The path, made printable.
    pub path: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl TreePath {
    /// The root.
    pub fn root() -> Self {
        Self::default()
    }

    /// Reads a path as archives and recipes write them: leading and doubled slashes, `.` components and a slash at the end
    /// don't count. `..` is refused, not resolved.
    ///
    /// # Errors
    /// It has `..`, a NUL, or is too long.
    pub fn parse(text: impl AsRef<[u8]>) -> Result<Self, PathError> {
        let text = text.as_ref();
        let fail = |reason| {
            let shown = String::from_utf8_lossy(&text[..text.len().min(200)]);
            Err(PathError { path: shown.escape_debug().to_string(), reason })
        };
        let mut path = Vec::with_capacity(text.len());
        for name in text.split(|&byte| byte == b'/') {
            match name {
                b"" | b"." => continue,
                b".." => return fail("`..` leads out of it"),
                _ if name.len() > NAME_BYTES_MAX => return fail("a name has more than 255 bytes"),
                _ if name.contains(&0) => return fail("a name has a NUL byte"),
                _ => {}
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
        if path.len() > PATH_BYTES_MAX {
            return fail("it has more than 4095 bytes");
        }
        Ok(Self(path.into()))
    }

    /// Returns the path of `name` in this folder.
    ///
    /// # Errors
    /// `name` is not one component, or the result is too long.
    pub fn join(&self, name: impl AsRef<[u8]>) -> Result<Self, PathError> {
        let name = name.as_ref();
        let plain = !matches!(name, b"" | b"." | b"..") && !name.iter().any(|byte| matches!(byte, b'/' | 0));
        let slash: &[u8] = if self.is_root() { b"" } else { b"/" };
        if plain && name.len() <= NAME_BYTES_MAX && self.0.len() + slash.len() + name.len() <= PATH_BYTES_MAX
        {
            return Ok(Self(joined([&self.0[..], slash, name])));
        }
        // It may be none, and then this says why.
        let joined = Self::parse([self.as_bytes(), b"/", name].concat())?;
        if joined.name() == name && !name.is_empty() {
            return Ok(joined);
        }
        let path = String::from_utf8_lossy(name).escape_debug().to_string();
        Err(PathError { path, reason: "it is not one name" })
    }

    /// Returns the bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => &self.0[slash + 1..],
            None => &self.0,
        }
    }

    /// Returns the folder that holds it; none for the root.
    pub fn parent(&self) -> Option<Self> {
        self.parent_bytes().map(|bytes| Self(bytes.into()))
    }

    /// As [`TreePath::parent`], as bytes.
    pub(super) fn parent_bytes(&self) -> Option<&[u8]> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        Some(&self.0[..end])
    }

    /// Returns the components in order.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/').filter(|name| !name.is_empty())
    }

    /// Whether it is `folder` or below it.
    pub fn is_within(&self, folder: &Self) -> bool {
        match self.0.strip_prefix(&*folder.0) {
            Some(rest) => folder.is_root() || rest.is_empty() || rest[0] == b'/',
            None => false,
        }
    }

    /// Returns the path below `new` that this one is below `old`; none where it is not within `old`.
    pub(crate) fn moved(&self, old: &Self, new: &Self) -> Option<Self> {
        if !self.is_within(old) {
            return None;
        }
        let rest = &self.0[old.0.len()..];
        Self::parse([new.as_bytes(), b"/", rest].concat()).ok()
    }
}

/// Most paths are short, and are put together without a detour over memory that is freed again.
fn joined(parts: [&[u8]; 3]) -> Arc<[u8]> {
    let mut bytes = [0; 192];
    let length = parts.iter().map(|part| part.len()).sum();
    let Some(short) = bytes.get_mut(..length) else { return parts.concat().into() };
    let mut rest = &mut *short;
    for part in parts {
        let (own, after) = rest.split_at_mut(part.len());
        own.copy_from_slice(part);
        rest = after;
    }
    Arc::from(&*short)
}

impl fmt::Display for TreePath {
    /// Writes it with a leading slash, unprintable bytes escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0).escape_debug())
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_spellings_of_a_path_are_one_path() {
        let plain = TreePath::parse("usr/bin/env").unwrap();
        for text in ["/usr/bin/env", "./usr/bin/env", "usr//bin/./env/", "//usr/bin/env"] {
            assert_eq!(TreePath::parse(text).unwrap(), plain, "{text}");
        }
        assert!(TreePath::parse("./").unwrap().is_root());
        for length in [1, 100, 191, 192, 255] {
            let (name, folder) = ("x".repeat(length), "y".repeat(255 - length / 2));
            let joined = TreePath::parse(&folder).unwrap().join(&name).unwrap();
            assert_eq!(joined, TreePath::parse(format!("{folder}/{name}")).unwrap());
            assert_eq!(TreePath::root().join(&name).unwrap(), TreePath::parse(&name).unwrap());
        }
        assert_eq!(plain.name(), b"env");
        assert_eq!(plain.parent().unwrap().to_string(), "/usr/bin");
    }

    #[test]
    fn what_leads_out_or_can_not_exist_is_refused() {
        let long_name = "a".repeat(256);
        let long_path = "a/".repeat(2049);
        for text in ["..", "a/../b", "/../etc", "a\0b", &long_name, &long_path] {
            assert!(TreePath::parse(text).is_err(), "{text:?}");
        }
        for name in ["", ".", "..", "a/b", "/"] {
            assert!(TreePath::root().join(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_folder_holds_what_is_below_it_and_not_what_merely_begins_alike() {
        let folder = TreePath::parse("usr/lib").unwrap();
        assert!(TreePath::parse("usr/lib/x").unwrap().is_within(&folder));
        assert!(folder.is_within(&folder));
        assert!(!TreePath::parse("usr/lib32").unwrap().is_within(&folder));
        assert!(folder.is_within(&TreePath::root()));
    }
}
