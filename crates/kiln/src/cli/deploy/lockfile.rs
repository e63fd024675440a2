//! `kiln.lock` in the stack folder.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use kiln_bake::{LOCK_BYTES_MAX, LOCK_FILE, Lock};

use super::dockerfiles;
use super::load::Declared;
use crate::cli::failure::{Failure, Kind};

/// Reads the lock of a folder; none if there is none.
///
/// # Errors
/// It can't be read or understood.
pub(crate) fn read(folder: &Path) -> Result<Option<Lock>, Failure> {
    let failed = |error: io::Error| Failure::external(format!("{LOCK_FILE} can't be read")).cause(error);
    let file = match fs::File::open(folder.join(LOCK_FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    file.take(LOCK_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    parse(&text).map(Some)
}

/// Reads the text of a lock.
///
/// # Errors
/// It can't be understood.
pub(crate) fn parse(text: &str) -> Result<Lock, Failure> {
    Lock::parse(text).map_err(|error| {
        Failure::new(Kind::Config, format!("{LOCK_FILE} can't be understood"))
            .cause(error)
            .hint("take it from version control again, or remove it and run `kiln lock`")
    })
}

/// Writes the lock of a folder as a whole, durably. Returns whether its text changed.
///
/// # Errors
/// The file can't be written.
pub(crate) fn write(folder: &Path, lock: &Lock) -> Result<bool, Failure> {
    let (path, text) = (folder.join(LOCK_FILE), lock.to_string());
    if fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(false);
    }
    let write = || {
        let mut file = tempfile_beside(folder)?;
        file.1.write_all(text.as_bytes())?;
        file.1.sync_all()?;
        fs::rename(&file.0, &path)
    };
    write().map_err(|error| Failure::external(format!("{LOCK_FILE} can't be written")).cause(error))?;
    Ok(true)
}

fn tempfile_beside(folder: &Path) -> io::Result<(std::path::PathBuf, fs::File)> {
    let path = folder.join(format!(".{LOCK_FILE}.{}", std::process::id()));
    Ok((path.clone(), fs::File::create(path)?))
}

/// Refuses a lock that does not fit its stack.
///
/// # Errors
/// All that does not fit, at once.
pub(crate) fn require_fresh(lock: &Lock, declared: &Declared) -> Result<(), Failure> {
    let outside = dockerfiles::outside_inputs(&declared.stack, &declared.folder)?;
    let stale = lock.stale(&declared.stack, &outside);
    if stale.is_empty() {
        return Ok(());
    }
    let failure = Failure::refused(format!("{LOCK_FILE} is outdated"));
    let failure = stale.iter().fold(failure, |failure, one| failure.cause(one));
    Err(failure.hint("`kiln lock` brings it up to date; look at the difference before you commit it"))
}
