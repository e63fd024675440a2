//! Locks against archives of every kind of badness.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod fixture;

use std::fs;
use std::path::Path;

use fixture::archive::{TestArchive, TestPackage, file, package};
use fixture::{causes, debian, now, quiet, slim, stack};
use kiln_bake::{Baker, BakerOptions, Lock, LockError, LockOptions};
use kiln_store::Store;

fn packages() -> Vec<TestPackage> {
    vec![
        package("tiny", "1", "Essential: yes\n", vec![]),
        package("hello", "2.1", "Depends: hello-data (>= 2)\n", vec![]),
        package("hello-data", "2.1", "", vec![file("./usr/share/hello", "hi")]),
    ]
}

fn lock(archive: &TestArchive, wanted: &[&str], old: Option<&Lock>) -> Result<Lock, LockError> {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let options = BakerOptions { keyring: archive.keyring.clone(), ..BakerOptions::default() };
    let baker = Baker::new(Store::open(folder.path()).unwrap(), options).unwrap();
    let stack = stack(Some(debian(Some(archive.url()), wanted)), vec![]);
    baker.lock(&stack, old, LockOptions { upgrade: true, now: now() }, &quiet)
}

fn archive() -> (tempfile::TempDir, TestArchive) {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let archive = TestArchive::new(folder.path());
    archive.publish(&packages(), |release| release);
    (folder, archive)
}

/// Checks that locking fails with an error that says `text`, and that there is a hint.
fn refused(archive: &TestArchive, wanted: &[&str], text: &str) {
    let error = lock(archive, wanted, None).unwrap_err();
    assert!(causes(&error).contains(text), "{} lacks `{text}`", causes(&error));
    assert!(error.hint().is_some(), "{error}");
}

#[test]
fn a_lock_pins_every_package_with_its_dependencies() {
    let (_folder, archive) = archive();
    let lock = lock(&archive, &["hello"], None).unwrap();
    let base = &lock.bases[&slim()];
    let names: Vec<_> = base.packages.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(names, ["hello", "hello-data", "tiny"]);
    assert_eq!(base.archives[0].suite, "bookworm");
    assert_eq!(Lock::parse(&lock.to_string()).unwrap(), lock);
}

#[test]
fn an_upgrade_that_finds_the_same_packages_changes_nothing() {
    let (_folder, archive) = archive();
    let mut first = lock(&archive, &["hello"], None).unwrap();
    for base in first.bases.values_mut() {
        base.locked_at -= 1000;
    }
    assert_eq!(lock(&archive, &["hello"], Some(&first)).unwrap(), first);
    let mut newer = packages();
    newer[2].version = "2.2".into();
    archive.publish(&newer, |release| release);
    let second = lock(&archive, &["hello"], Some(&first)).unwrap();
    assert_eq!(second.bases[&slim()].packages[1].version, "2.2");
    assert!(second.bases[&slim()].locked_at > first.bases[&slim()].locked_at);
}

#[test]
fn a_package_that_does_not_exist_is_named_with_a_suggestion() {
    let (_folder, archive) = archive();
    let error = lock(&archive, &["helo"], None).unwrap_err();
    assert!(causes(&error).contains("no package `helo` in bookworm"), "{}", causes(&error));
    assert_eq!(error.hint().unwrap(), "did you mean `hello`?");
}

#[test]
fn a_mirror_that_is_away_is_named() {
    let (_folder, archive) = archive();
    fs::rename(&archive.root, archive.root.with_extension("away")).unwrap();
    refused(&archive, &["hello"], "InRelease is not there");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/debian", closed.local_addr().unwrap());
    drop(closed);
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let options = BakerOptions { keyring: archive.keyring.clone(), ..BakerOptions::default() };
    let baker = Baker::new(Store::open(folder.path()).unwrap(), options).unwrap();
    let stack = stack(Some(debian(Some(url), &["hello"])), vec![]);
    let error = baker.lock(&stack, None, LockOptions { upgrade: false, now: now() }, &quiet).unwrap_err();
    assert!(causes(&error).contains("can't be reached"), "{}", causes(&error));
    assert!(!error.is_permanent());
}

#[test]
fn without_a_mirror_the_error_says_to_set_one() {
    let (folder, archive) = archive();
    let options = BakerOptions {
        keyring: archive.keyring.clone(),
        apt: folder.path().join("no-apt"),
        ..BakerOptions::default()
    };
    let baker = Baker::new(Store::open(folder.path()).unwrap(), options).unwrap();
    let stack = stack(Some(debian(None, &[])), vec![]);
    let error = baker.lock(&stack, None, LockOptions { upgrade: false, now: now() }, &quiet).unwrap_err();
    assert!(error.hint().unwrap().contains("set `mirror`"), "{error}");
}

#[test]
fn an_index_that_nobody_signed_is_refused() {
    let (_folder, archive) = archive();
    let text = fs::read_to_string(archive.in_release()).unwrap();
    let body =
        text.split("\n\n").nth(1).unwrap().split("-----BEGIN PGP SIGNATURE").next().unwrap().to_owned();
    fs::write(archive.in_release(), body).unwrap();
    refused(&archive, &["hello"], "is not signed");
}

#[test]
fn an_index_that_was_changed_after_signing_is_refused() {
    let (_folder, archive) = archive();
    let text = fs::read_to_string(archive.in_release()).unwrap();
    assert!(text.contains("Origin: Test"));
    fs::write(archive.in_release(), text.replace("Origin: Test", "Origin: Evil")).unwrap();
    refused(&archive, &["hello"], "was changed after it was signed");
}

#[test]
fn an_index_that_another_key_signed_is_refused() {
    let (_folder, one) = archive();
    let (_other_folder, other) = archive();
    fs::copy(&other.keyring, &one.keyring).unwrap();
    refused(&one, &["hello"], "none of the keyring's keys");
}

#[test]
fn text_around_the_signed_part_is_not_believed() {
    let (_folder, archive) = archive();
    let text = fs::read_to_string(archive.in_release()).unwrap();
    fs::write(archive.in_release(), format!("{text}\nCodename: sid\nDate: never\n")).unwrap();
    match lock(&archive, &["hello"], None) {
        Ok(lock) => assert_eq!(lock.bases[&slim()].archives[0].suite, "bookworm"),
        Err(error) => assert!(causes(&error).contains("is not signed"), "{}", causes(&error)),
    }
}

#[test]
fn an_expired_index_is_refused() {
    let (_folder, archive) = archive();
    archive.publish(&packages(), |release| format!("Valid-Until: Sat, 18 Jul 2026 10:16:37 UTC\n{release}"));
    refused(&archive, &["hello"], "expired on 2026-07-18T10:16:37Z");
}

#[test]
fn an_index_from_the_future_is_refused() {
    let (_folder, archive) = archive();
    archive.publish(&packages(), |release| release.replace("11 Jul 2026", "11 Jul 2096"));
    refused(&archive, &["hello"], "in the future");
}

#[test]
fn an_index_of_another_suite_is_refused() {
    let (_folder, archive) = archive();
    archive.publish(&packages(), |release| {
        release.replace("Codename: bookworm", "Codename: trixie").replace("Suite: oldstable", "Suite: stable")
    });
    refused(&archive, &["hello"], "is that of `trixie`");
}

#[test]
fn a_list_of_packages_with_a_wrong_hash_is_refused() {
    let (_folder, archive) = archive();
    let list =
        archive.root.join(format!("dists/bookworm/main/binary-{}/Packages.xz", kiln_bake::debian::ARCH));
    let mut bytes = fs::read(&list).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&list, bytes).unwrap();
    refused(&archive, &["hello"], "is not what the index promised");
}

#[test]
fn an_index_older_than_the_locked_one_is_refused() {
    let (_folder, archive) = archive();
    let mut old = lock(&archive, &["hello"], None).unwrap();
    for base in old.bases.values_mut() {
        base.archives[0].released += 86_400;
    }
    let error = lock(&archive, &["hello"], Some(&old)).unwrap_err();
    assert!(matches!(error, LockError::Older { .. }), "{error}");
}

#[test]
fn a_component_that_does_not_exist_is_named() {
    let (folder, archive) = archive();
    let options = BakerOptions { keyring: archive.keyring.clone(), ..BakerOptions::default() };
    let baker = Baker::new(Store::open(folder.path()).unwrap(), options).unwrap();
    let mut recipe = debian(Some(archive.url()), &[]);
    recipe.components.push("contrib".into());
    let stack = stack(Some(recipe), vec![]);
    let error = baker.lock(&stack, None, LockOptions { upgrade: false, now: now() }, &quiet).unwrap_err();
    assert!(causes(&error).contains("has no component `contrib`"), "{}", causes(&error));
}

#[test]
fn a_keyring_that_is_not_there_is_named() {
    let (folder, mut archive) = archive();
    archive.keyring = folder.path().join("none.gpg");
    assert!(!Path::new(&archive.keyring).exists());
    refused(&archive, &["hello"], "none.gpg");
}
