//! Secret values, sealed: each is encrypted with a key of its own, which is itself sealed by the key of this Kiln.
//!
//! ```text
//! STATE/sealed/key                 32 random bytes, mode 0600, made once
//! STATE/sealed/keys/VERSION        the value's own key, sealed with this Kiln's
//! STATE/sealed/values/VERSION.json the value, sealed with its own key
//! STATE/sealed/equal/MAC           the version of the value with this keyed MAC
//! ```
//!
//! To erase a value is to erase its key: a copy of the value in a backup is worth nothing without it.

mod cipher;
mod record;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_model::{SecretName, StackName};
use rustix::fs::{FlockOperation, flock};
use zeroize::Zeroizing;

use crate::error::PutError;
use crate::lease::Collection;
use crate::shelf::{replace_private_file, sweep, sync_folder};
use cipher::{DataKey, MasterKey};
use record::Record;

/// As large as a Kubernetes Secret may be: a certificate chain fits many times.
pub const SECRET_BYTES_MAX: usize = 1 << 20;

/// The sealed store.
#[derive(Clone)]
pub struct Sealed {
    root: Arc<Path>,
    key: Arc<MasterKey>,
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

impl SealedError {
    fn at(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { path, source }
    }
}

impl From<PutError> for SealedError {
    fn from(error: PutError) -> Self {
        match error {
            PutError::Full { path } => Self::Full { path },
            PutError::Io { path, source } => Self::Io { path, source },
            // The bytes are in memory, so no source can fail.
            other => Self::Io { path: PathBuf::new(), source: io::Error::other(other) },
        }
    }
}

impl Sealed {
    /// Opens the sealed store of a state folder, making it and its key where there is none.
    ///
    /// # Errors
    /// See [`SealedError`].
    pub fn open(state: impl AsRef<Path>) -> Result<Self, SealedError> {
        let root = state.as_ref().join("sealed");
        for folder in ["keys", "values", "equal", "tmp"] {
            let folder = root.join(folder);
            fs::create_dir_all(&folder).map_err(SealedError::at(&folder))?;
        }
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(&root, private).map_err(SealedError::at(&root))?;
        let _lock = lock(&root)?;
        let tmp = root.join("tmp");
        sweep(&tmp).map_err(SealedError::at(&tmp))?;
        let key = Arc::new(MasterKey::open(&root)?);
        Ok(Self { root: root.into(), key })
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
        let size = value.expose().len();
        if size > SECRET_BYTES_MAX {
            return Err(SealedError::TooLarge { name: name.clone(), size, limit: SECRET_BYTES_MAX });
        }
        // Two captures of one value at once must not give it two versions.
        let _lock = lock(&self.root)?;
        if let Some(version) = self.version_of(stack, name, value)? {
            return Ok(version);
        }
        let version = cipher::new_version();
        let data_key = DataKey::generate();
        let sealed = data_key.seal(&record::context(stack, name, &version), value.expose());
        let record =
            Record { stack: stack.clone(), name: name.clone(), mac: self.mac(stack, name, value), sealed };
        // The value last but one, and what finds it last: whatever a crash leaves is never found.
        self.write("keys", &version, &self.key.wrap(&version, &data_key))?;
        self.write("values", &format!("{version}.json"), &record.to_bytes())?;
        self.write("equal", &record.mac, version.as_bytes())?;
        Ok(version)
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
        let Some(bytes) = read(&self.root.join("equal").join(self.mac(stack, name, value)))? else {
            return Ok(None);
        };
        let version = String::from_utf8(bytes.to_vec()).ok().filter(|version| self.is_kept(version));
        Ok(version)
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
        let missing = || SealedError::Missing {
            stack: stack.clone(),
            name: name.clone(),
            version: version.chars().take(cipher::VERSION_CHARS).collect(),
        };
        if !cipher::is_version(version) {
            return Err(missing());
        }
        let key_path = self.root.join("keys").join(version);
        let value_path = self.value_path(version);
        let wrapped = read(&key_path)?.ok_or_else(missing)?;
        let bytes = read(&value_path)?.ok_or_else(missing)?;
        let data_key = self.key.unwrap(version, &wrapped).ok_or(SealedError::Corrupt { path: key_path })?;
        let value = Record::parse(&bytes)
            .and_then(|record| data_key.open(&record::context(stack, name, version), &record.sealed));
        value.map(SecretValue).ok_or(SealedError::Corrupt { path: value_path })
    }

    /// Erases a value by erasing its key; whether there was one.
    ///
    /// # Errors
    /// See [`SealedError`].
    pub fn erase(&self, version: &str) -> Result<bool, SealedError> {
        if !cipher::is_version(version) {
            return Ok(false);
        }
        let _lock = lock(&self.root)?;
        erase_in(&self.root, version)
    }

    /// Lists the versions that are kept, in order, with whose they are.
    ///
    /// # Errors
    /// See [`SealedError`].
    pub fn list(&self) -> Result<Vec<(StackName, SecretName, String)>, SealedError> {
        let folder = self.root.join("values");
        let mut found = Vec::new();
        for file in fs::read_dir(&folder).map_err(SealedError::at(&folder))? {
            let name = file.map_err(SealedError::at(&folder))?.file_name();
            let version = name.to_str().and_then(|name| name.strip_suffix(".json"));
            let Some(version) = version.filter(|version| self.is_kept(version)) else { continue };
            let path = self.value_path(version);
            let record = read(&path)?.and_then(|bytes| Record::parse(&bytes));
            let record = record.ok_or(SealedError::Corrupt { path })?;
            found.push((record.stack, record.name, version.to_string()));
        }
        found.sort();
        Ok(found)
    }

    fn is_kept(&self, version: &str) -> bool {
        is_kept_in(&self.root, version)
    }

    fn value_path(&self, version: &str) -> PathBuf {
        value_path(&self.root, version)
    }

    fn mac(&self, stack: &StackName, name: &SecretName, value: &SecretValue) -> String {
        self.key.mac(&[stack.as_str().as_bytes(), name.as_str().as_bytes(), value.expose()])
    }

    fn write(&self, folder: &str, name: &str, bytes: &[u8]) -> Result<(), SealedError> {
        Ok(replace_private_file(&self.root.join(folder).join(name), &self.root.join("tmp"), bytes)?)
    }
}

/// Erases every value of a state folder but those of the versions that are kept, and returns how many there were. This
/// needs no key, so whoever collects need not be able to read a single value.
///
/// Captures hold a lease until what refers to them is recorded, so none of those that are about to be can be missed.
///
/// # Errors
/// See [`SealedError`]. What is left is whole, and a later attempt goes on.
pub fn erase_all_but(
    state: impl AsRef<Path>,
    begun: &Collection,
    kept: &BTreeSet<String>,
) -> Result<u64, SealedError> {
    all_but(state.as_ref(), begun, kept, erase_in)
}

/// Returns how many values [`erase_all_but`] would erase.
///
/// # Errors
/// See [`SealedError`].
pub fn erasable(
    state: impl AsRef<Path>,
    begun: &Collection,
    kept: &BTreeSet<String>,
) -> Result<u64, SealedError> {
    all_but(state.as_ref(), begun, kept, |root, version| Ok(root.join("keys").join(version).is_file()))
}

/// Does something with every version that is not kept, and counts those of which it says that there was one.
fn all_but(
    state: &Path,
    _begun: &Collection,
    kept: &BTreeSet<String>,
    each: impl Fn(&Path, &str) -> Result<bool, SealedError>,
) -> Result<u64, SealedError> {
    let root = &state.join("sealed");
    if !root.is_dir() {
        return Ok(0);
    }
    let _lock = lock(root)?;
    let mut gone = BTreeSet::new();
    // In both: an erasure that was cut short leaves a value without a key.
    for folder in ["keys", "values"] {
        let folder = root.join(folder);
        for file in fs::read_dir(&folder).map_err(SealedError::at(&folder))? {
            let name = file.map_err(SealedError::at(&folder))?.file_name();
            let version = name.to_str().map(|name| name.strip_suffix(".json").unwrap_or(name));
            gone.extend(
                version.filter(|it| cipher::is_version(it) && !kept.contains(*it)).map(str::to_owned),
            );
        }
    }
    let mut count = 0;
    for version in &gone {
        count += u64::from(each(root, version)?);
    }
    Ok(count)
}

/// Whether a version was captured in a state folder and is not erased; needs no key.
pub fn is_kept(state: impl AsRef<Path>, version: &str) -> bool {
    is_kept_in(&state.as_ref().join("sealed"), version)
}

fn is_kept_in(root: &Path, version: &str) -> bool {
    cipher::is_version(version)
        && root.join("keys").join(version).is_file()
        && value_path(root, version).is_file()
}

fn value_path(root: &Path, version: &str) -> PathBuf {
    root.join("values").join(format!("{version}.json"))
}

/// Erases a version, under the lock; whether there was a key.
fn erase_in(root: &Path, version: &str) -> Result<bool, SealedError> {
    let key = root.join("keys").join(version);
    let was_kept = shred(&key).map_err(SealedError::at(&key))?;
    let value = value_path(root, version);
    if let Some(record) = read(&value)?.and_then(|bytes| Record::parse(&bytes)) {
        let equal = root.join("equal").join(&record.mac);
        // A newer version may have come to be found under this MAC after a crash.
        if read(&equal)?.is_some_and(|found| *found == *version.as_bytes()) {
            remove(&equal)?;
        }
    }
    remove(&value)?;
    Ok(was_kept)
}

/// Takes the lock that makes captures and erasures follow one another; it ends when the file is closed.
fn lock(root: &Path) -> Result<File, SealedError> {
    let path = root.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(SealedError::at(&path))?;
    flock(&file, FlockOperation::LockExclusive).map_err(|errno| SealedError::at(path)(errno.into()))?;
    Ok(file)
}

fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, SealedError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SealedError::at(path)(error)),
    }
}

fn remove(path: &Path) -> Result<(), SealedError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(SealedError::at(path)(error)),
        _ => Ok(()),
    }
}

/// Overwrites a file before it is removed, so that its bytes are gone where the file system writes in place; whether there
/// was one.
fn shred(path: &Path) -> io::Result<bool> {
    let mut file = match OpenOptions::new().write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let size = file.metadata()?.len() as usize;
    file.write_all(&vec![0; size])?;
    file.sync_all()?;
    fs::remove_file(path)?;
    sync_folder(path.parent().expect("a key lies in a folder"))?;
    Ok(true)
}

#[cfg(test)]
mod tests;
