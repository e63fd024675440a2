//! Secret values, sealed: each is encrypted with a key of its own, which is itself sealed by the key of this Kiln.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_model::{SecretName, StackName};
use zeroize::Zeroizing;

/// The sealed store.
#[derive(Clone)]
pub struct Sealed {
    root: Arc<Path>,
}

/// A secret value in memory; wiped when dropped, never printed.
pub struct SecretValue(Zeroizing<Vec<u8>>);

impl SecretValue {
    /// Wraps a value.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Returns the value, for the one place that must have it.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(…)")
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({})", self.root.display())
    }
}

/// The sealed store failed. No variant holds a value or a part of one.
#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    /// There is no such version, or it was erased.
    #[error(
        "secret `{name}` of stack {stack} has no version {version}: it was never captured here, or was erased"
    )]
    Missing {
        /// The stack.
        stack: StackName,
        /// The secret.
        name: SecretName,
        /// The version.
        version: String,
    },
    /// What is stored was changed, or sealed with another key.
    #[error("{path} does not open with this key: it was changed, or belongs to another Kiln")]
    Corrupt {
        /// The file.
        path: PathBuf,
    },
    /// The key file is not one, or others may read it.
    #[error("{path} is not a usable key: {reason}")]
    Key {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The value is larger than a secret may be.
    #[error("secret `{name}` has {size} bytes, more than {limit}")]
    TooLarge {
        /// The secret.
        name: SecretName,
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The disk is full.
    #[error("no space left to store {path}")]
    Full {
        /// What was being written.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("{path} can't be used")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Sealed {
    /// Opens the sealed store of a state folder, making it and its key where there is none.
    ///
    /// # Errors
    /// See [`SealedError`].
    pub fn open(state: impl AsRef<Path>) -> Result<Self, SealedError> {
        Ok(Self { root: state.as_ref().join("sealed").into() })
    }

    /// Seals a value and returns its version: a random id, or the one that this very value of this secret has already.
    ///
    /// # Errors
    /// See [`SealedError`].
    pub fn capture(
        &self,
        stack: &StackName,
        name: &SecretName,
        value: &SecretValue,
    ) -> Result<String, SealedError> {
        let _ = (stack, name, value);
        todo!()
    }

    /// Returns the version that this value has, where it was captured before; seals nothing, so a plan may ask.
    ///
    /// # Errors
    /// See [`SealedError`].
    pub fn version_of(
        &self,
        stack: &StackName,
        name: &SecretName,
        value: &SecretValue,
    ) -> Result<Option<String>, SealedError> {
        let _ = (stack, name, value);
        todo!()
    }

    /// Returns a value.
    ///
    /// # Errors
    /// `Missing` or `Corrupt`.
    pub fn reveal(
        &self,
        stack: &StackName,
        name: &SecretName,
        version: &str,
    ) -> Result<SecretValue, SealedError> {
        let _ = (stack, name, version);
        todo!()
    }

    /// Erases a value by erasing its key; whether there was one.
    ///
    /// # Errors
    /// See [`SealedError`].
    pub fn erase(&self, version: &str) -> Result<bool, SealedError> {
        let _ = version;
        todo!()
    }

    /// Lists the versions that are kept, with whose they are.
    ///
    /// # Errors
    /// See [`SealedError`].
    pub fn list(&self) -> Result<Vec<(StackName, SecretName, String)>, SealedError> {
        todo!()
    }
}
