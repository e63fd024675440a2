//! Secret values: read where the stack says, sealed, and known from then on by a random version.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use kiln_bake::SecretsError;
use kiln_model::access;
use kiln_model::stack::{SecretSource, Stack};
use kiln_model::{SecretName, StackName};
use kiln_store::Sealed;
use kiln_store::sealed::SecretValue;

use super::folder::Listing;
use crate::cli::failure::Failure;

/// A key or a password; a file of more than this is none.
const VALUE_BYTES_MAX: u64 = 1 << 20;

/// The secrets that some service reads, that questions of its rollouts go with, or that sign what others are told: the rest is
/// not captured.
pub(crate) fn used(stack: &Stack) -> BTreeSet<&SecretName> {
    let read = stack.services.values().flat_map(|service| {
        service.secrets.values().chain(access::secrets(&service.strategy, &service.interludes))
    });
    read.chain(stack.webhooks.values().map(|webhook| &webhook.secret)).collect()
}

/// Takes the files that hold secrets out of a listing: a snapshot is kept in the clear.
pub(crate) fn leave_out(stack: &Stack, folder: &Path, listing: &mut Listing) {
    for source in stack.secrets.values() {
        if let SecretSource::File(path) = source {
            let below = folder.join(path);
            let Ok(below) = below.strip_prefix(folder) else { continue };
            listing.remove(below.to_string_lossy().trim_start_matches("./").as_bytes());
        }
    }
}

/// Reads a value. What is wrong is told without a byte of it.
pub(crate) fn read(name: &SecretName, source: &SecretSource, folder: &Path) -> Result<SecretValue, Failure> {
    let failed = |why: String| {
        Failure::new(crate::cli::failure::Kind::Config, format!("secret `{name}` has no value")).cause(why)
    };
    match source {
        SecretSource::Environment(variable) => match std::env::var(variable) {
            Ok(value) if !value.is_empty() => Ok(SecretValue::new(value.into_bytes())),
            _ => Err(failed(format!("the environment variable {variable} is not set"))
                .hint(format!("set {variable} for this command"))),
        },
        SecretSource::File(path) => {
            let mut bytes = of_file(&folder.join(path)).map_err(|error| failed(error.to_string()))?;
            // Editors end a file with a newline that nobody means to be part of a password.
            if bytes.last() == Some(&b'\n') {
                bytes.pop();
            }
            Ok(SecretValue::new(bytes))
        }
    }
}

/// Why a file gives no value; it says which file.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} has {size} bytes, more than a secret may", path.display())]
    Large { path: PathBuf, size: u64 },
}

fn of_file(path: &Path) -> Result<Vec<u8>, FileError> {
    let failed = |source| FileError::Read { path: path.into(), source };
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > VALUE_BYTES_MAX {
        return Err(FileError::Large { path: path.into(), size });
    }
    fs::read(path).map_err(failed)
}

/// The secrets of a stack, for what its Dockerfiles mount: as they are, a newline at the end of a file included, since a key
/// without it is none.
#[derive(Debug)]
pub(crate) struct OfStack {
    /// Where each comes from.
    pub sources: BTreeMap<SecretName, SecretSource>,
    /// What the paths of files are relative to.
    pub folder: PathBuf,
}

impl kiln_bake::Secrets for OfStack {
    fn read(&self, name: &SecretName) -> Result<Option<SecretValue>, SecretsError> {
        let failed = |source| SecretsError { name: name.clone(), source };
        let bytes = match self.sources.get(name) {
            None => None,
            Some(SecretSource::Environment(variable)) => {
                std::env::var_os(variable).filter(|value| !value.is_empty()).map(OsStringExt::into_vec)
            }
            Some(SecretSource::File(path)) => match of_file(&self.folder.join(path)) {
                Ok(bytes) => Some(bytes),
                Err(FileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(failed(error.into())),
            },
        };
        Ok(bytes.map(SecretValue::new))
    }
}

/// Seals every value that some service reads and returns the versions.
pub(crate) fn capture(
    sealed: &Sealed,
    stack: &Stack,
    folder: &Path,
) -> Result<BTreeMap<SecretName, String>, Failure> {
    let mut versions = BTreeMap::new();
    for name in used(stack) {
        let value = read(name, source(stack, name)?, folder)?;
        let version = sealed.capture(&stack.name, name, &value).map_err(|error| {
            Failure::external(format!("secret `{name}` can't be sealed")).caused_by(&error)
        })?;
        versions.insert(name.clone(), version);
    }
    Ok(versions)
}

/// What capturing would give, without capturing: the known versions, and the secrets whose value is a new one.
pub(crate) fn preview(
    sealed: Option<&Sealed>,
    stack: &Stack,
    folder: &Path,
    last: &BTreeMap<String, String>,
) -> Result<(BTreeMap<SecretName, String>, BTreeSet<SecretName>), Failure> {
    let (mut versions, mut new) = (BTreeMap::new(), BTreeSet::new());
    for name in used(stack) {
        let last = last.get(name.as_str()).cloned();
        let known = match sealed {
            Some(sealed) => known(sealed, &stack.name, name, &read(name, source(stack, name)?, folder)?)?,
            // Without the sealed store nobody can tell; what was captured last is the best guess.
            None => last.clone(),
        };
        if known.is_none() || (last.is_some() && known != last) {
            new.insert(name.clone());
        }
        // The last version where the new one is not known yet: the secret itself is what is told, once.
        versions.insert(name.clone(), last.or(known).unwrap_or_else(|| "new".into()));
    }
    Ok((versions, new))
}

fn known(
    sealed: &Sealed,
    stack: &StackName,
    name: &SecretName,
    value: &SecretValue,
) -> Result<Option<String>, Failure> {
    sealed
        .version_of(stack, name, value)
        .map_err(|error| Failure::external("the sealed store can't be read").caused_by(&error))
}

fn source<'a>(stack: &'a Stack, name: &SecretName) -> Result<&'a SecretSource, Failure> {
    stack.secrets.get(name).ok_or_else(|| {
        Failure::bug(format!("a service reads secret `{name}`, which the stack does not declare"))
    })
}
