//! A full disk, for real: a small memory file system. Mounting it needs root.
#![allow(clippy::unwrap_used)] // the whole file is a test, though clippy sees that of test functions only

use std::fs;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use kiln_model::event::ControlEvent;
use kiln_model::image::{Image, ImageConfig};
use kiln_model::{Actor, Digest, Entry, Event, Millis, Position, SecretName, StackName, Term, Timestamp};
use kiln_store::log::AppendError;
use kiln_store::sealed::{SealedError, SecretValue};
use kiln_store::snapshot::{CaptureError, ListedContent};
use kiln_store::{
    Collection, Entry as TreeEntry, EventLog, Needed, PackError, PutError, Sealed, Store, Tree, TreePath,
};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        fsconfig_set_string(&context, "size", size).unwrap();
        fsconfig_create(&context).unwrap();
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
        move_mount(&mount, "", CWD, folder.path(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills what is left; removing the file makes room again.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("ballast");
        let mut file = fs::File::create(&path).unwrap();
        let error = std::io::copy(&mut std::io::repeat(0), &mut file).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(self.path(), UnmountFlags::DETACH).unwrap();
    }
}

fn entry(position: u64) -> Entry {
    Entry {
        position: Position(position),
        at: Timestamp(position),
        term: Term(1),
        actor: Actor::Controller,
        env: None,
        event: Event::Control(ControlEvent::ClockJumped { by: Millis(position) }),
    }
}

#[test]
fn a_blob_that_does_not_fit_is_refused_and_leaves_nothing() {
    let disk = SmallDisk::new("1m");
    let store = Store::open(disk.path()).unwrap();
    let small = store.blobs.put_bytes(b"small").unwrap();
    let error = store.blobs.put_reader(std::io::repeat(7).take(4 << 20)).unwrap_err();
    assert!(matches!(error, PutError::Full { .. }), "{error:?}");
    let batch = store.objects.batch();
    let error =
        (0u32..).find_map(|number| batch.put_bytes(&number.to_le_bytes().repeat(2_000)).err()).unwrap();
    assert!(matches!(error, PutError::Full { .. }), "{error:?}");
    drop(batch);
    assert_eq!(store.blobs.list().unwrap(), [small]);
    assert_eq!(store.objects.list().unwrap(), []);
    assert_eq!(fs::read_dir(disk.path().join("store/tmp")).unwrap().count(), 0);
    store.blobs.put_reader(std::io::repeat(7).take(512 << 10)).unwrap();
}

#[test]
fn a_folder_that_does_not_fit_is_not_captured_beside_and_leaves_nothing() {
    let disk = SmallDisk::new("1m");
    let store = Store::open(disk.path()).unwrap();
    let bytes = vec![7; 4 << 20];
    let digest = Digest::new(Sha256::digest(&bytes).into());
    let content = ListedContent::File { digest, size: bytes.len() as u64, bytes: Cursor::new(bytes) };
    let large = (TreePath::parse("large").unwrap(), 0o644, content);
    let error = store.snapshots.begin([large]).unwrap().end().unwrap_err();
    assert!(matches!(&error, CaptureError::File { source: PutError::Full { .. }, .. }), "{error:?}");
    assert!(!error.is_change());
    assert_eq!(store.blobs.list().unwrap(), []);
    assert_eq!(fs::read_dir(disk.path().join("store/tmp")).unwrap().count(), 0);
}

/// Stores an image of one file that does not compress, and returns its manifest and its tree.
fn image(store: &Store, seed: u8, length: usize) -> (Digest, Digest) {
    let mut state = u64::from(seed) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let content: Vec<u8> = (0..length).map(|_| next()).collect();
    let mut tree = Tree::new();
    let object = store.objects.put_bytes(&content).unwrap();
    tree.insert(&TreePath::parse("file").unwrap(), TreeEntry::file(0o644, object, length as u64)).unwrap();
    let (manifest, tree) = (store.blobs.put_bytes(&[seed]).unwrap(), store.trees.put(&tree).unwrap());
    let image = Image { manifest, tree, config: ImageConfig::default(), size_bytes: 1, unproven: Vec::new() };
    store.images.put(&image).unwrap();
    (manifest, tree)
}

fn needed(store: &Store, begun: &Collection, images: &[Digest]) -> Needed {
    let mut needed = Needed::default();
    store.need(begun, &mut needed, images.iter().copied()).unwrap();
    needed
}

/// Packs these, and removes them as plain files.
fn pack(store: &Store, images: &[Digest]) -> Result<(), PackError> {
    let begun = store.leases.begin_collection().unwrap();
    let cold = store.cold(&begun, &needed(store, &begun, images), &Needed::default()).unwrap();
    store.pack(&cold)?;
    store.shed(&begun, &store.hold_starts().unwrap(), &cold).map(drop)
}

#[test]
fn a_disk_that_fills_up_while_packing_or_unpacking_loses_nothing_and_a_collection_makes_room() {
    let disk = SmallDisk::new("8m");
    let store = Store::open(disk.path()).unwrap();
    let (kept, tree) = image(&store, 1, 2 << 20);
    let (other, _) = image(&store, 2, 1 << 20);
    let ballast = disk.fill();
    let error = pack(&store, &[kept, other]).unwrap_err();
    assert!(matches!(error, PackError::Put(PutError::Full { .. })), "{error:?}");
    assert_eq!(store.verification().damage(&kept).unwrap(), []);
    assert!(!store.is_packed(&kept));
    fs::remove_file(ballast).unwrap();

    pack(&store, &[kept, other]).unwrap();
    assert!(store.is_packed(&kept));
    let ballast = disk.fill();
    store.trees.assemble(&tree).expect_err("there is no room to unpack it");
    assert!(store.is_packed(&kept));
    fs::remove_file(ballast).unwrap();
    assert_eq!(store.verification().damage(&kept).unwrap(), []);

    // A file that nothing needs goes before the packs are written anew, which needs room.
    store.objects.put_reader(std::io::repeat(7).take(1 << 20)).unwrap();
    let ballast = disk.fill();
    let begun = store.leases.begin_collection().unwrap();
    let collected = store.collect(&begun, &needed(&store, &begun, &[kept])).unwrap();
    assert_eq!((collected.objects, collected.packed), (1, 1));
    drop((begun, ballast));
    drop(store.trees.assemble(&tree).unwrap_err());
    fs::remove_file(disk.path().join("ballast")).unwrap();
    drop(store.trees.assemble(&tree).unwrap());
    assert_eq!(store.verification().damage(&kept).unwrap(), []);
}

#[test]
fn an_append_to_a_full_disk_is_refused_and_the_log_goes_on_once_there_is_room() {
    let disk = SmallDisk::new("2m");
    let mut log = EventLog::open(disk.path()).unwrap();
    log.append(Position(0), &[entry(1)]).unwrap();
    let ballast = disk.fill();
    let mut next = 2;
    let error = loop {
        let batch: Vec<_> = (next..next + 50).map(entry).collect();
        match log.append(Position(next - 1), &batch) {
            Ok(_) => next += 50,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AppendError::Full), "{error:?}");
    assert_eq!(log.head().position, Position(next - 1));
    assert!(matches!(log.append(Position(next - 1), &[entry(next)]), Ok(_) | Err(AppendError::Full)));
    let head = log.head();
    fs::remove_file(ballast).unwrap();
    let head = log.append(head.position, &[entry(head.position.0 + 1)]).unwrap();
    drop(log);
    let log = EventLog::open(disk.path()).unwrap();
    assert_eq!(log.head(), head);
    assert!(log.verify(&[]).unwrap().is_sound());
}

#[test]
fn a_secret_that_can_not_be_stored_has_no_version() {
    let disk = SmallDisk::new("1m");
    let sealed = Sealed::open(disk.path()).unwrap();
    let (stack, name) = (StackName::new("shop").unwrap(), SecretName::new("db").unwrap());
    let ballast = disk.fill();
    let value = SecretValue::new(vec![1; 20_000]);
    let error = sealed.capture(&stack, &name, &value).unwrap_err();
    assert!(matches!(error, SealedError::Full { .. }), "{error:?}");
    assert_eq!(sealed.version_of(&stack, &name, &value).unwrap(), None);
    fs::remove_file(ballast).unwrap();
    sealed.capture(&stack, &name, &value).unwrap();
}
