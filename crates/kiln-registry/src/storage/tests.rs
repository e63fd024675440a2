use super::*;
use crate::digest::Algorithm;
use crate::manifest::{Manifest, OCI_MANIFEST};
use crate::name::{Reference, Tag};

fn storage() -> (tempfile::TempDir, Storage) {
    let root = tempfile::tempdir().unwrap();
    let storage = Storage::open(root.path()).unwrap();
    (root, storage)
}

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

fn push(storage: &Storage, to: &str, bytes: &[u8]) -> ContentDigest {
    let digest = ContentDigest::of(Algorithm::Sha256, bytes);
    let mut upload = storage.begin_upload(&name(to), Algorithm::Sha256).unwrap();
    upload.append(bytes).unwrap();
    storage.finish_upload(&mut upload, &digest).unwrap();
    digest
}

fn blobs(root: &tempfile::TempDir) -> usize {
    let algorithms = fs::read_dir(root.path().join("blobs")).unwrap();
    let folders = algorithms.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
    folders.map(|folder| fs::read_dir(folder.unwrap().path()).unwrap().count()).sum()
}

#[test]
fn a_blob_stays_as_long_as_one_repository_has_it() {
    let (root, storage) = storage();
    let digest = push(&storage, "a", b"content");
    assert_eq!(push(&storage, "b/c", b"content"), digest);
    assert!(storage.mount_blob(&name("d"), &digest, Some(&name("a"))).unwrap());
    assert!(!storage.mount_blob(&name("d"), &digest, Some(&name("e"))).unwrap());
    assert!(storage.mount_blob(&name("f"), &digest, None).unwrap());
    assert_eq!(blobs(&root), 1);
    for (at, left) in [("a", 1), ("b/c", 1), ("d", 1), ("f", 0)] {
        assert_eq!(storage.blob_size(&name(at), &digest).unwrap(), Some(7));
        assert!(storage.delete_blob(&name(at), &digest).unwrap());
        assert!(!storage.delete_blob(&name(at), &digest).unwrap());
        assert_eq!(blobs(&root), left);
    }
    assert!(!storage.mount_blob(&name("f"), &digest, None).unwrap());
}

#[test]
fn a_blob_that_was_cut_is_repaired_by_pushing_it_again() {
    let (root, storage) = storage();
    let digest = push(&storage, "a", b"all of it");
    fs::write(storage.blob_path(&digest), b"all").unwrap();
    push(&storage, "a", b"all of it");
    assert_eq!(storage.blob_size(&name("a"), &digest).unwrap(), Some(9));
    assert_eq!(blobs(&root), 1);
}

#[test]
fn what_a_killed_process_left_is_swept_and_nothing_else() {
    let (root, storage) = storage();
    let kept = push(&storage, "a", b"kept");
    let lost = push(&storage, "a", b"lost");
    // As after a kill between the removal of the last link and that of the blob.
    fs::remove_file(storage.of_digest(&name("a"), "_blobs", &lost)).unwrap();
    let old = storage.begin_upload(&name("a"), Algorithm::Sha256).unwrap();
    let busy = storage.begin_upload(&name("a"), Algorithm::Sha256).unwrap();
    // As after a kill in the middle of the beginning of an upload.
    fs::create_dir(root.path().join("uploads/00000000-0000-4000-8000-000000000000")).unwrap();
    let none = Swept { uploads: 0, blobs: 1 };
    assert_eq!(storage.sweep(Duration::from_secs(3600), |_| false).unwrap(), none);
    let swept = storage.sweep(Duration::ZERO, |id| *id == busy.id).unwrap();
    assert_eq!(swept, Swept { uploads: 2, blobs: 0 });
    assert!(storage.resume_upload(&old.id).unwrap().is_none());
    assert!(storage.resume_upload(&busy.id).unwrap().is_some());
    assert_eq!(storage.blob_size(&name("a"), &kept).unwrap(), Some(4));
}

#[test]
fn an_upload_goes_on_after_a_restart_and_with_another_algorithm() {
    let (root, storage) = storage();
    let mut upload = storage.begin_upload(&name("a"), Algorithm::Sha256).unwrap();
    upload.append(b"first ").unwrap();
    let id = upload.id.clone();
    drop((upload, storage));
    let storage = Storage::open(root.path()).unwrap();
    let mut upload = storage.resume_upload(&id).unwrap().unwrap();
    assert_eq!((upload.size(), upload.repository.as_str()), (6, "a"));
    let mark = upload.mark();
    upload.append(b"wrong").unwrap();
    upload.rewind(mark).unwrap();
    upload.append(b"second").unwrap();
    let digest = ContentDigest::of(Algorithm::Sha512, b"first second");
    storage.finish_upload(&mut upload, &digest).unwrap();
    assert_eq!(storage.blob_size(&name("a"), &digest).unwrap(), Some(12));
    assert_eq!(fs::read_dir(root.path().join("uploads")).unwrap().count(), 0);
}

#[test]
fn one_process_serves_a_folder() {
    let (root, storage) = storage();
    assert!(matches!(Storage::open(root.path()), Err(OpenStorageError::Taken { .. })));
    drop(storage);
    fs::write(root.path().join("registry.lock"), "another layout, not this one").unwrap();
    assert!(matches!(Storage::open(root.path()), Err(OpenStorageError::Format { .. })));
}

#[test]
fn threads_that_push_mount_and_delete_one_blob_leave_it_whole_or_gone() {
    let (root, storage) = storage();
    let digest = ContentDigest::of(Algorithm::Sha256, b"contended");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (storage, digest) = (&storage, &digest);
            scope.spawn(move || {
                let own = name(&format!("r{thread}"));
                for round in 0..50 {
                    match (thread + round) % 3 {
                        0 => drop(push(storage, own.as_str(), b"contended")),
                        1 => drop(storage.mount_blob(&own, digest, None).unwrap()),
                        _ => drop(storage.delete_blob(&own, digest).unwrap()),
                    }
                    assert!(matches!(storage.blob_size(&own, digest).unwrap(), None | Some(9)));
                    storage.sweep(Duration::from_secs(3600), |_| true).unwrap();
                }
            });
        }
    });
    for thread in 0..4 {
        storage.delete_blob(&name(&format!("r{thread}")), &digest).unwrap();
    }
    assert_eq!(blobs(&root), 0);
}

#[test]
fn a_manifest_is_kept_only_with_its_blobs_and_goes_with_its_tags() {
    let (_root, storage) = storage();
    let (repository, tag): (_, Tag) = (name("shop/web"), "v1".parse().unwrap());
    let config = ContentDigest::of(Algorithm::Sha256, b"{}");
    let text = |size| {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"x/y","digest":"{config}","size":{size}}},"layers":[]}}"#
        )
    };
    let put = |text: &str| {
        let manifest = Manifest::parse(Some(OCI_MANIFEST), text.as_bytes()).unwrap();
        let digest = ContentDigest::of(Algorithm::Sha256, text.as_bytes());
        storage.put_manifest(&repository, &digest, Some(&tag), &manifest, text.as_bytes()).map(|()| digest)
    };
    assert!(matches!(put(&text(2)), Err(PutManifestError::Unknown { .. })));
    push(&storage, "shop/web", b"{}");
    assert!(matches!(put(&text(3)), Err(PutManifestError::Size { found: 2, said: 3, .. })));
    let digest = put(&text(2)).unwrap();
    assert_eq!(fs::read_dir(storage.tmp()).unwrap().count(), 0);
    let stored = storage.open_manifest(&repository, &Reference::Tag(tag.clone())).unwrap().unwrap();
    assert_eq!((stored.digest, stored.media_type.as_str()), (digest.clone(), OCI_MANIFEST));
    assert_eq!(stored.content.size, text(2).len() as u64);
    assert!(storage.delete_manifest(&repository, &digest).unwrap());
    assert!(storage.open_manifest(&repository, &Reference::Tag(tag.clone())).unwrap().is_none());
    assert!(!storage.delete_tag(&repository, &tag).unwrap());
}
