//! Following symlinks within a tree, as a process whose root it is would.

use super::{Kind, PathError, Tree, TreePath};

/// As many symlinks as Linux follows in one path.
const SYMLINKS_MAX: usize = 40;

/// A path that leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Something on the way is not there.
    #[error("there is no {0}")]
    Missing(TreePath),
    /// Something on the way is neither a folder nor a link.
    #[error("{0} is not a folder")]
    NotAFolder(TreePath),
    /// Links lead in a circle, or there are more than 40 of them.
    #[error("too many links on the way to {0}")]
    TooManyLinks(TreePath),
    /// A link leads to what can't be a path.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl Tree {
    /// Returns the path without symlinks that `path` leads to, as a process whose root is this tree would see it: an absolute
    /// link starts at the root, and `..` stops there.
    ///
    /// The last component need not exist, so that it may be created; where it is a symlink, it is followed if `follow_last`.
    ///
    /// # Errors
    /// Something on the way is missing or not a folder, or there are too many links.
    pub fn resolve(&self, path: &TreePath, follow_last: bool) -> Result<TreePath, ResolveError> {
        let mut at = TreePath::root();
        // The names still to go, the next one last.
        let mut ahead: Vec<Vec<u8>> = path.names().map(<[u8]>::to_vec).collect();
        ahead.reverse();
        let mut followed = 0;
        while let Some(name) = ahead.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    at = at.parent().unwrap_or_default();
                    continue;
                }
                _ => {}
            }
            let next = at.join(&name)?;
            match self.get(&next).map(|entry| &entry.kind) {
                Some(Kind::Symlink { target }) if follow_last || !ahead.is_empty() => {
                    followed += 1;
                    if followed > SYMLINKS_MAX {
                        return Err(ResolveError::TooManyLinks(path.clone()));
                    }
                    if target.first() == Some(&b'/') {
                        at = TreePath::root();
                    }
                    ahead.extend(target.split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec));
                }
                Some(Kind::Dir) => at = next,
                None if !ahead.is_empty() => return Err(ResolveError::Missing(next)),
                Some(_) if !ahead.is_empty() => return Err(ResolveError::NotAFolder(next)),
                _ => at = next,
            }
        }
        Ok(at)
    }
}
