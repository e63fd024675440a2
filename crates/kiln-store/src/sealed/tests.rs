use std::os::unix::fs::PermissionsExt;

use super::*;

fn stack() -> StackName {
    StackName::new("shop").unwrap()
}

fn name(text: &str) -> SecretName {
    SecretName::new(text).unwrap()
}

fn value(text: &str) -> SecretValue {
    SecretValue::new(text.into())
}

/// The bytes of every file below a folder.
fn everything(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() {
            bytes.extend(everything(&path));
        } else {
            bytes.extend(path.to_str().unwrap().bytes());
            bytes.extend(fs::read(&path).unwrap());
        }
    }
    bytes
}

#[test]
fn a_value_is_revealed_under_its_version_and_nowhere_in_the_files() {
    let state = tempfile::tempdir().unwrap();
    let sealed = Sealed::open(state.path()).unwrap();
    let secret = value("correct horse battery staple");
    let version = sealed.capture(&stack(), &name("db"), &secret).unwrap();
    assert_eq!(sealed.reveal(&stack(), &name("db"), &version).unwrap().expose(), secret.expose());
    let stored = everything(state.path());
    assert!(!stored.windows(7).any(|window| window == b"battery"));
    let plain_hash = crate::canonical::digest_of(secret.expose()).hex();
    assert!(
        !stored.windows(64).any(|window| window == plain_hash.as_bytes()),
        "a plain hash can be guessed back"
    );
    assert!(!format!("{secret:?} {sealed:?}").contains("battery"));
    let again = Sealed::open(state.path()).unwrap();
    assert_eq!(again.reveal(&stack(), &name("db"), &version).unwrap().expose(), secret.expose());
    assert_eq!(again.list().unwrap(), [(stack(), name("db"), version)]);
}

#[test]
fn an_unchanged_value_keeps_its_version_and_others_get_their_own() {
    let state = tempfile::tempdir().unwrap();
    let sealed = Sealed::open(state.path()).unwrap();
    assert_eq!(sealed.version_of(&stack(), &name("db"), &value("a")).unwrap(), None);
    let first = sealed.capture(&stack(), &name("db"), &value("a")).unwrap();
    assert_eq!(sealed.capture(&stack(), &name("db"), &value("a")).unwrap(), first);
    assert_eq!(sealed.version_of(&stack(), &name("db"), &value("a")).unwrap(), Some(first.clone()));
    assert_ne!(sealed.capture(&stack(), &name("db"), &value("b")).unwrap(), first);
    assert_ne!(sealed.capture(&stack(), &name("other"), &value("a")).unwrap(), first);
    let other = StackName::new("other").unwrap();
    assert_ne!(sealed.capture(&other, &name("db"), &value("a")).unwrap(), first);
    assert_eq!(sealed.list().unwrap().len(), 4);
}

#[test]
fn an_erased_value_is_gone_even_with_a_copy_of_its_file() {
    let state = tempfile::tempdir().unwrap();
    let sealed = Sealed::open(state.path()).unwrap();
    let version = sealed.capture(&stack(), &name("db"), &value("a")).unwrap();
    let path = sealed.value_path(&version);
    let backup = fs::read(&path).unwrap();
    assert!(sealed.erase(&version).unwrap());
    assert!(!sealed.erase(&version).unwrap());
    fs::write(&path, backup).unwrap();
    let gone = sealed.reveal(&stack(), &name("db"), &version);
    assert!(matches!(gone, Err(SealedError::Missing { .. })), "{gone:?}");
    let next = sealed.capture(&stack(), &name("db"), &value("a")).unwrap();
    assert_ne!(next, version);
}

#[test]
fn a_value_that_was_changed_or_moved_does_not_open() {
    let state = tempfile::tempdir().unwrap();
    let sealed = Sealed::open(state.path()).unwrap();
    let version = sealed.capture(&stack(), &name("db"), &value("a")).unwrap();
    let other = sealed.capture(&stack(), &name("other"), &value("b")).unwrap();
    let moved = sealed.reveal(&stack(), &name("other"), &version);
    assert!(matches!(moved, Err(SealedError::Corrupt { .. })));
    fs::copy(sealed.value_path(&other), sealed.value_path(&version)).unwrap();
    assert!(matches!(sealed.reveal(&stack(), &name("db"), &version), Err(SealedError::Corrupt { .. })));
    fs::write(sealed.value_path(&version), b"{}").unwrap();
    assert!(matches!(sealed.reveal(&stack(), &name("db"), &version), Err(SealedError::Corrupt { .. })));
    for odd in ["", "../../etc/passwd", "aaaaaaaaaaaaaaaa", "AAAAAAAAAAAAAAAA"] {
        assert!(
            matches!(sealed.reveal(&stack(), &name("db"), odd), Err(SealedError::Missing { .. })),
            "{odd}"
        );
        assert!(!sealed.erase(odd).unwrap());
    }
}

#[test]
fn a_key_that_others_may_read_or_that_is_gone_is_refused() {
    let state = tempfile::tempdir().unwrap();
    let sealed = Sealed::open(state.path()).unwrap();
    let path = state.path().join("sealed/key");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    sealed.capture(&stack(), &name("db"), &value("a")).unwrap();
    let key = fs::read(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(Sealed::open(state.path()), Err(SealedError::Key { .. })));
    fs::remove_file(&path).unwrap();
    assert!(
        matches!(Sealed::open(state.path()), Err(SealedError::Key { .. })),
        "a new key would open nothing"
    );
    replace_private_file(&path, &state.path().join("sealed/tmp"), &key[1..]).unwrap();
    assert!(matches!(Sealed::open(state.path()), Err(SealedError::Key { .. })));
    replace_private_file(&path, &state.path().join("sealed/tmp"), &key).unwrap();
    assert_eq!(Sealed::open(state.path()).unwrap().list().unwrap().len(), 1);
}

#[test]
fn a_value_of_another_kiln_does_not_open() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let here = Sealed::open(one.path()).unwrap();
    let there = Sealed::open(two.path()).unwrap();
    let version = here.capture(&stack(), &name("db"), &value("a")).unwrap();
    for file in [format!("keys/{version}"), format!("values/{version}.json")] {
        fs::copy(one.path().join("sealed").join(&file), two.path().join("sealed").join(&file)).unwrap();
    }
    assert!(matches!(there.reveal(&stack(), &name("db"), &version), Err(SealedError::Corrupt { .. })));
}

#[test]
fn a_value_that_is_too_large_is_refused_and_an_empty_one_is_not() {
    let state = tempfile::tempdir().unwrap();
    let sealed = Sealed::open(state.path()).unwrap();
    let large = SecretValue::new(vec![0; SECRET_BYTES_MAX + 1]);
    assert!(matches!(sealed.capture(&stack(), &name("db"), &large), Err(SealedError::TooLarge { .. })));
    let version = sealed.capture(&stack(), &name("db"), &value("")).unwrap();
    assert_eq!(sealed.reveal(&stack(), &name("db"), &version).unwrap().expose(), b"");
}

#[test]
fn captures_at_once_agree_on_one_version() {
    let state = tempfile::tempdir().unwrap();
    let versions: Vec<_> = std::thread::scope(|scope| {
        let capture = || {
            let sealed = Sealed::open(state.path()).unwrap();
            sealed.capture(&stack(), &name("db"), &value("a")).unwrap()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(capture)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(versions.iter().all(|version| *version == versions[0]), "{versions:?}");
}

#[test]
fn what_no_revision_needs_is_erased_without_a_key() {
    let state = tempfile::tempdir().unwrap();
    let leases = crate::Store::open(state.path()).unwrap().leases;
    let begun = leases.begin_collection().unwrap();
    assert_eq!(erase_all_but(state.path(), &begun, &BTreeSet::new()).unwrap(), 0, "there is no sealed store");
    let sealed = Sealed::open(state.path()).unwrap();
    let [kept, lost, torn] =
        ["a", "b", "c"].map(|text| sealed.capture(&stack(), &name("db"), &value(text)).unwrap());
    // As an erasure leaves it that was killed after its first step.
    fs::remove_file(state.path().join("sealed/keys").join(&torn)).unwrap();
    fs::rename(state.path().join("sealed/key"), state.path().join("sealed/key.aside")).unwrap();
    assert_eq!(erase_all_but(state.path(), &begun, &BTreeSet::from([kept.clone()])).unwrap(), 1);
    fs::rename(state.path().join("sealed/key.aside"), state.path().join("sealed/key")).unwrap();
    assert_eq!(sealed.list().unwrap(), [(stack(), name("db"), kept.clone())]);
    assert!(
        is_kept(state.path(), &kept) && !is_kept(state.path(), &lost) && !is_kept(state.path(), "../key")
    );
    let files = |folder: &str| fs::read_dir(state.path().join("sealed").join(folder)).unwrap().count();
    assert_eq!((files("keys"), files("values"), files("equal")), (1, 1, 1));
    assert!(matches!(sealed.reveal(&stack(), &name("db"), &lost), Err(SealedError::Missing { .. })));
}
