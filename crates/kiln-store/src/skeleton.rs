//! Mount points that every instance needs, added to a stored tree but not to the OCI image.

use crate::tree::TreePath;

/// A place where something will be mounted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum MountPoint {
    /// A folder: for a file system, or for a volume that is one.
    Dir(TreePath),
    /// A file: for a bind mount of one, such as a secret.
    File(TreePath),
}
