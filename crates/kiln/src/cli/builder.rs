//! The key with which this host signs the provenance of what it bakes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use kiln_bake::{KeyKind, SigningKey, generate};

use super::failure::Failure;
use crate::runtime::StateDir;

/// Ed25519 signs the same bytes in the same way each time, so what is signed twice is there once.
const KIND: KeyKind = KeyKind::Ed25519;

/// Returns this host's key, which is made where it is first needed.
///
/// # Errors
/// It can't be read, or is no key: nobody but who knows what became of it may replace it.
pub(super) fn key(state: &StateDir) -> Result<SigningKey, Failure> {
    let path = state.builder_key();
    let failed = |what: &str| format!("{} {what}", path.display());
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = generate(KIND)
                .map_err(|error| Failure::external("no builder's key can be made").caused_by(&error))?;
            make(&path, &text).and_then(|()| fs::read_to_string(&path))
        }
        read => read,
    };
    let text = text.map_err(|error| Failure::external(failed("can't be used")).cause(error))?;
    SigningKey::from_pem(&text).map_err(|error| {
        Failure::external(failed("is no key")).caused_by(&error).hint(
            "bring it back from a copy; without it the next bake makes another one, which nobody trusts yet",
        )
    })
}

/// Writes the key as a whole; of two that do so at the same time, one's is everybody's.
fn make(path: &Path, text: &str) -> io::Result<()> {
    let partial = path.with_extension(format!("key.{}", std::process::id()));
    let _ = fs::remove_file(&partial);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let linked = match fs::hard_link(&partial, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    };
    fs::remove_file(&partial)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
    linked
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_hosts_key_is_made_once_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::new(folder.path());
        let fingerprints: Vec<String> = std::thread::scope(|scope| {
            let make = || key(&state).unwrap_or_else(|_| panic!("a key is made")).public().fingerprint();
            // Each thread would write the same partial file, as no two processes do: one after the other.
            (0..3).map(|_| scope.spawn(make).join().unwrap()).collect()
        });
        assert!(fingerprints.iter().all(|one| *one == fingerprints[0]));
        let mode = fs::metadata(state.builder_key()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no partial file stays");

        make(&state.builder_key(), "another").unwrap();
        assert_eq!(
            key(&state).unwrap_or_else(|_| panic!("it stays")).public().fingerprint(),
            fingerprints[0]
        );
        fs::write(state.builder_key(), "no key").unwrap();
        assert!(key(&state).is_err(), "a damaged key is not replaced");
    }
}
