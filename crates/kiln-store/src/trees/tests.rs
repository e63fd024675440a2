//! These mount for real, so they need root; what is mounted is attached nowhere and gone with its descriptor.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use proptest::prelude::{ProptestConfig, proptest};
use rustix::fs::{lgetxattr, llistxattr, major, minor};

use super::*;
use crate::Store;
use crate::tree::{Entry, Kind, Meta, Mtime, TreePath};

fn path(text: &str) -> TreePath {
    TreePath::parse(text).unwrap()
}

/// A folder on a real file system: the folder for temporary files may be memory, which EROFS reads from all the same.
fn state() -> tempfile::TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

fn file(store: &Store, mode: u16, bytes: &[u8]) -> Entry {
    Entry::file(mode, store.objects.put_bytes(bytes).unwrap(), bytes.len() as u64)
}

/// A tree with one of everything.
fn sample(store: &Store) -> Tree {
    let mut tree = Tree::new();
    let meta =
        Meta { mode: 0o755, mtime: Mtime { secs: 1_700_000_000, nanos: 123_456_789 }, ..Meta::default() };
    tree.set_meta(&TreePath::root(), meta.clone()).unwrap();
    tree.make_dirs(&path("usr/bin"), &meta).unwrap();
    tree.insert(
        &path("etc"),
        Entry { meta: Meta { mode: 0o2750, gid: 42, ..meta.clone() }, kind: Kind::Dir },
    )
    .unwrap();
    tree.insert(&path("usr/bin/su"), file(store, 0o4755, &vec![7; 100_000])).unwrap();
    tree.link(&path("usr/bin/su2"), &path("usr/bin/su")).unwrap();
    tree.insert(&path("empty"), file(store, 0o600, b"")).unwrap();
    tree.insert(&path("bin"), Entry::symlink("usr/bin")).unwrap();
    tree.insert(&path("long"), Entry::symlink(vec![b'x'; 4095])).unwrap();
    let mut capable = file(store, 0o755, b"ping");
    capable.meta.uid = 100_000;
    capable.meta.mtime = Mtime { secs: -5, nanos: 999_999_999 };
    // VFS_CAP_REVISION_2, effective, CAP_NET_RAW.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let xattrs = [
        ("security.capability", capability.to_vec()),
        ("user.note", vec![b'n'; 3000]),
        ("trusted.overlay.opaque", b"y".to_vec()),
        ("trusted.overlay.redirect", b"/evil".to_vec()),
    ];
    capable.meta.xattrs = xattrs.into_iter().map(|(name, value)| (name.into(), value)).collect();
    tree.insert(&path("usr/bin/ping"), capable).unwrap();
    for (name, kind) in [
        ("null", Kind::Char { major: 1, minor: 3 }),
        ("disk", Kind::Block { major: 259, minor: 70_000 }),
        ("pipe", Kind::Fifo),
        ("socket", Kind::Socket),
    ] {
        tree.insert(&path(name), Entry { meta: meta.clone(), kind }).unwrap();
    }
    tree.make_dirs(&path("many"), &meta).unwrap();
    for index in 0..1_000 {
        let name = format!("many/{index:04}-{}", "y".repeat(index % 40));
        tree.insert(&path(&name), file(store, 0o644, &[index as u8 % 8; 50])).unwrap();
    }
    tree
}

/// Reads a mounted tree back, every attribute of it, through the kernel.
fn walk(store: &Store, mounted: &Mounted) -> Tree {
    let root = PathBuf::from(format!("/proc/self/fd/{}/", mounted.mount.as_raw_fd()));
    let mut tree = Tree::new();
    let mut inodes = BTreeMap::new();
    let mut ahead = vec![TreePath::root()];
    while let Some(at) = ahead.pop() {
        let real = root.join(std::ffi::OsStr::from_bytes(at.as_bytes()));
        let (entry, inode) = entry_at(store, &real, at.is_root());
        let dir = entry.is_dir();
        match inodes.get(&inode) {
            Some(first) if !dir => tree.link(&at, first).unwrap(),
            _ => tree.insert(&at, entry).unwrap(),
        }
        inodes.entry(inode).or_insert_with(|| at.clone());
        if dir {
            for child in fs::read_dir(&real).unwrap() {
                ahead.push(at.join(child.unwrap().file_name().as_bytes()).unwrap());
            }
        }
    }
    for (at, entry) in tree.iter().filter(|(_, entry)| !entry.is_dir()) {
        let real = root.join(std::ffi::OsStr::from_bytes(at.as_bytes()));
        assert_eq!(fs::symlink_metadata(real).unwrap().nlink(), u64::from(tree.links(at)), "{at} {entry:?}");
    }
    tree
}

fn entry_at(store: &Store, real: &Path, root: bool) -> (Entry, (u64, u64)) {
    let stat = if root { fs::metadata(real) } else { fs::symlink_metadata(real) }.unwrap();
    let mut names = vec![0; 4096];
    let length = llistxattr(real, &mut names).unwrap();
    let xattr = |name: &[u8]| {
        let mut value = vec![0; 1 << 16];
        let length = lgetxattr(real, name, &mut value).unwrap();
        (name.to_vec(), value[..length].to_vec())
    };
    let xattrs = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(xattr);
    let meta = Meta {
        mode: (stat.mode() & 0o7777) as u16,
        uid: stat.uid(),
        gid: stat.gid(),
        mtime: Mtime { secs: stat.mtime(), nanos: stat.mtime_nsec() as u32 },
        xattrs: xattrs.collect(),
    };
    let (kind, device) = (stat.file_type(), stat.rdev());
    let kind = if kind.is_dir() {
        Kind::Dir
    } else if kind.is_symlink() {
        Kind::Symlink { target: fs::read_link(real).unwrap().into_os_string().into_encoded_bytes() }
    } else if kind.is_char_device() {
        Kind::Char { major: major(device), minor: minor(device) }
    } else if kind.is_block_device() {
        Kind::Block { major: major(device), minor: minor(device) }
    } else if kind.is_fifo() {
        Kind::Fifo
    } else if kind.is_socket() {
        Kind::Socket
    } else {
        let bytes = fs::read(real).unwrap();
        assert_eq!(bytes.len() as u64, stat.size());
        Kind::File { digest: store.objects.put_bytes(&bytes).unwrap(), size: stat.size() }
    };
    (Entry { meta, kind }, (stat.dev(), stat.ino()))
}

fn differences(mounted: &Tree, stored: &Tree) -> Vec<String> {
    let mut found: Vec<_> = stored
        .iter()
        .filter(|(path, entry)| mounted.get(path) != Some(entry))
        .map(|(path, entry)| format!("{path}: {entry:?} is mounted as {:?}", mounted.get(path)))
        .collect();
    found.extend(
        mounted.iter().filter(|(path, _)| stored.get(path).is_none()).map(|(path, _)| path.to_string()),
    );
    found
}

#[test]
fn a_mounted_tree_has_every_attribute_of_the_stored_one_in_every_way() {
    let state = state();
    let store = Store::open(state.path()).unwrap();
    let digest = store.trees.put(&sample(&store)).unwrap();
    assert_eq!(store.trees.load(&digest).unwrap(), sample(&store));
    let stored = store.trees.load_furnished(&digest).unwrap();
    for strategy in Strategy::ALL {
        let mounted = store.trees.assemble_with(&digest, strategy).unwrap();
        let walked = walk(&store, &mounted);
        assert_eq!(differences(&walked, &stored), [""; 0], "{strategy:?}");
        assert!(walked == stored, "{strategy:?}: the hard links differ");
        let root = format!("/proc/self/fd/{}/x", mounted.mount.as_raw_fd());
        assert_eq!(fs::write(root, b"x").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem, "{strategy:?}");
    }
    assert_eq!(store.trees.assemble(&digest).unwrap().strategy, Strategy::FileOverlay);
}

/// Gives the files of a random tree bytes, and takes out attributes whose values the kernel itself checks.
fn realise(random: &Tree, store: &Store) -> Tree {
    let mut tree = Tree::new();
    let mut first = BTreeMap::new();
    for (at, entry) in random.iter() {
        let inode = random.inode(at).unwrap();
        if let Some(first) = first.get(&inode) {
            tree.link(at, first).unwrap();
            continue;
        }
        let mut entry = entry.clone();
        entry
            .meta
            .xattrs
            .retain(|name, _| name != b"security.capability" && name != b"system.posix_acl_access");
        if matches!(
            entry.kind,
            Kind::Symlink { .. } | Kind::Fifo | Kind::Socket | Kind::Char { .. } | Kind::Block { .. }
        ) {
            entry.meta.xattrs.retain(|name, _| !name.starts_with(b"user."));
        }
        if let Kind::File { digest, size } = entry.kind {
            let bytes = digest.as_bytes().repeat(300)[..size as usize % 9_600].to_vec();
            entry.kind = file(store, 0, &bytes).kind;
        }
        tree.insert(at, entry).unwrap();
        first.insert(inode, at.clone());
    }
    tree
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_tree_is_mounted_as_it_was_stored(random in crate::erofs::tests::trees()) {
        let state = state();
        let store = Store::open(state.path()).unwrap();
        let digest = store.trees.put(&realise(&random, &store)).unwrap();
        let stored = store.trees.load_furnished(&digest).unwrap();
        // Whoever did not put it reads the same.
        let other = Store::open(state.path()).unwrap();
        assert!(other.trees.load_furnished(&digest).unwrap() == stored);
        assert!(other.trees.load(&digest).unwrap() == store.trees.load(&digest).unwrap());
        for strategy in [Strategy::FileOverlay, Strategy::FileWhole] {
            let walked = walk(&store, &store.trees.assemble_with(&digest, strategy).unwrap());
            assert_eq!(differences(&walked, &stored), [""; 0], "{strategy:?}");
            assert!(walked == stored, "{strategy:?}: the hard links differ");
        }
    }
}

#[test]
fn a_tree_that_is_mounted_without_being_stored_leaves_nothing_behind() {
    let state = state();
    let store = Store::open(state.path()).unwrap();
    let mut tree = Tree::new();
    let digest = store.objects.put_bytes(b"hello").unwrap();
    tree.insert(&TreePath::parse("greeting").unwrap(), Entry::file(0o644, digest, 5)).unwrap();
    let mounted = store.trees.mount_unstored(&tree, Strategy::LoopOverlay).unwrap().unwrap();
    assert_eq!(store.trees.list().unwrap(), []);
    assert_eq!(std::fs::read_dir(state.path().join("store/tmp")).unwrap().count(), 0);
    let stored = store.trees.put(&tree).unwrap();
    assert!(walk(&store, &mounted) == store.trees.load_furnished(&stored).unwrap());
    assert!(store.trees.mount_unstored(&tree, Strategy::LoopWhole).unwrap().is_none());
}

#[test]
fn a_missing_or_corrupt_tree_or_object_is_named() {
    let state = state();
    let store = Store::open(state.path()).unwrap();
    let absent = sha256(b"absent");
    assert!(
        matches!(store.trees.assemble(&absent), Err(AssembleError::Read(ReadError::Missing(it))) if it == absent)
    );
    let mut tree = Tree::new();
    tree.insert(&path("f"), file(&store, 0o644, b"bytes")).unwrap();
    let digest = store.trees.put(&tree).unwrap();
    let object = sha256(b"bytes");
    store.objects.remove(&object).unwrap();
    let whole = store.trees.assemble_with(&digest, Strategy::FileWhole);
    assert!(matches!(whole, Err(AssembleError::Read(ReadError::Missing(it))) if it == object));
    let mut image = fs::read(store.trees.path_of(&digest)).unwrap();
    let last = image.len() - 1;
    image[last] ^= 1;
    fs::write(store.trees.path_of(&digest), &image).unwrap();
    assert!(matches!(store.trees.load(&digest), Err(ReadError::Corrupt { .. })));
}

#[test]
fn a_file_that_is_no_image_is_refused_with_what_the_kernel_said_in_each_way() {
    let state = state();
    let store = Store::open(state.path()).unwrap();
    let digest = store.trees.shelf.put_bytes(&[0; 8192]).unwrap();
    let Err(AssembleError::Refused { refusals, .. }) =
        store.trees.assemble_with(&digest, Strategy::FileOverlay)
    else {
        panic!("refused");
    };
    assert!(refusals.contains("FileOverlay: erofs"), "{refusals}");
    assert!(matches!(store.trees.assemble(&digest), Err(AssembleError::Read(ReadError::Corrupt { .. }))));
}

#[test]
fn where_erofs_can_not_read_files_a_loop_device_serves() {
    // Memory below an overlay: EROFS refuses files that lie on one with ENOTBLK.
    let lower = state();
    let stacked = overlay_on(lower.path());
    let at = PathBuf::from(format!("/proc/self/fd/{}", stacked.as_raw_fd()));
    let store = Store::open(&at).unwrap();
    let digest = store.trees.put(&sample(&store)).unwrap();
    let mounted = store.trees.assemble(&digest).unwrap();
    assert_ne!(mounted.strategy, Strategy::FileOverlay);
    let stored = store.trees.load_furnished(&digest).unwrap();
    assert_eq!(differences(&walk(&store, &mounted), &stored), [""; 0]);
}

/// Returns a writable overlay, attached nowhere.
fn overlay_on(folder: &Path) -> OwnedFd {
    use rustix::mount::*;
    for name in ["lower", "upper", "work"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    for (key, name) in [("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")] {
        fsconfig_set_string(&context, key, folder.join(name)).unwrap();
    }
    fsconfig_create(&context).unwrap();
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap()
}

#[test]
fn mount_points_are_added_once_and_the_variant_reads_back_as_the_same_tree() {
    let state = state();
    let store = Store::open(state.path()).unwrap();
    let digest = store.trees.put(&sample(&store)).unwrap();
    let points = [MountPoint::Dir(path("data/deep")), MountPoint::File(path("run/secrets/db"))];
    let variant = store.trees.with_mount_points(&digest, &points).unwrap();
    assert_ne!(variant, digest);
    assert_eq!(store.trees.with_mount_points(&digest, &points).unwrap(), variant);
    assert_eq!(store.trees.with_mount_points(&digest, &[]).unwrap(), digest);
    assert_eq!(store.trees.load(&variant).unwrap(), sample(&store));
    assert!(store.trees.load_furnished(&variant).unwrap().get(&path("run/secrets/db")).is_some());
    store.trees.remove(&variant).unwrap();
    assert_eq!(store.trees.with_mount_points(&digest, &points).unwrap(), variant, "it is made again");
}

#[test]
fn how_long_mounting_takes_is_printed() {
    let state = state();
    let store = Store::open(state.path()).unwrap();
    let digest = store.trees.put(&sample(&store)).unwrap();
    for strategy in Strategy::ALL {
        store.trees.assemble_with(&digest, strategy).unwrap();
        let begun = std::time::Instant::now();
        let mounts: Vec<_> = (0..20).map(|_| store.trees.assemble_with(&digest, strategy).unwrap()).collect();
        println!("{strategy:?}: {:?} for one mount", begun.elapsed() / mounts.len() as u32);
    }
}
