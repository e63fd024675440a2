use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;

use kiln_model::image::{Image, ImageConfig};
use proptest::prelude::*;

use super::*;
use crate::skeleton::MountPoint;
use crate::tree::{Entry, Tree, TreePath};

/// Bytes without a pattern, the same in every run.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A ustar header by hand: name, size, kind and magic are all that is looked at.
fn header(name: &str, size: usize) -> [u8; 512] {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    header[156] = b'0';
    header[257..262].copy_from_slice(b"ustar");
    header
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text).unwrap()
}

/// Stores an image of these files, with the layer that a bake makes of them; returns its manifest.
fn image(store: &Store, files: &[(&str, Vec<u8>)]) -> Digest {
    let mut tree = Tree::new();
    let blob = store.blobs.writer().unwrap();
    let mut layer = zstd::stream::write::Encoder::new(blob, 3).unwrap();
    for (name, content) in files {
        let digest = store.objects.put_bytes(content).unwrap();
        tree.insert(&path(name), Entry::file(0o644, digest, content.len() as u64)).unwrap();
        layer.write_all(&header(name, content.len())).unwrap();
        layer.write_all(content).unwrap();
        layer.write_all(&vec![0; content.len().next_multiple_of(512) - content.len()]).unwrap();
    }
    layer.write_all(&[0; 1024]).unwrap();
    let layer = layer.finish().unwrap().finish().unwrap().digest;
    let manifest = format!(r#"{{"layers":[{{"digest":"{layer}"}}]}}"#);
    let manifest = store.blobs.put_bytes(manifest.as_bytes()).unwrap();
    let tree = store.trees.put(&tree).unwrap();
    let image = Image { manifest, tree, config: ImageConfig::default(), size_bytes: 1, unproven: Vec::new() };
    store.images.put(&image).unwrap();
    manifest
}

fn needed(store: &Store, begun: &Collection, roots: &[Digest]) -> Needed {
    let mut needed = Needed::default();
    store.need(begun, &mut needed, roots.iter().copied()).unwrap();
    needed
}

/// Packs what only `kept` need, and not `used`; returns what was removed as plain files.
fn pack(store: &Store, kept: &[Digest], used: &[Digest]) -> Shed {
    let begun = store.leases.begin_collection().unwrap();
    let cold = store.cold(&begun, &needed(store, &begun, kept), &needed(store, &begun, used)).unwrap();
    store.pack(&cold).unwrap();
    store.shed(&begun, &store.hold_starts().unwrap(), &cold).unwrap()
}

fn collect(store: &Store, kept: &[Digest]) -> crate::Collected {
    let begun = store.leases.begin_collection().unwrap();
    store.collect(&begun, &needed(store, &begun, kept)).unwrap()
}

/// Reads all of an image by its digests, past every mount.
fn require_whole(store: &Store, manifest: &Digest) {
    assert_eq!(store.verification().damage(manifest).unwrap(), []);
    let begun = store.leases.begin_collection().unwrap();
    for blob in needed(store, &begun, &[*manifest]).digests {
        if store.blobs.contains(&blob) {
            store.blobs.read_verified(&blob).unwrap();
        }
    }
}

/// Whether every file of an image is there for the overlay.
fn is_plain(store: &Store, manifest: &Digest) -> bool {
    let tree = store.trees.load(&store.images.get(manifest).unwrap().tree).unwrap();
    tree.objects().all(|object| store.objects.path_of(&object).is_file())
}

/// Does what a mount does before it mounts, which needs no root.
fn unpack(store: &Store, manifest: &Digest) {
    drop(store.trees.unpacked(&store.images.get(manifest).unwrap().tree).unwrap());
    assert!(is_plain(store, manifest) && !store.is_packed(manifest));
}

fn opened() -> (tempfile::TempDir, Store) {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    (state, store)
}

#[test]
fn what_is_kept_is_packed_reads_as_before_and_is_unpacked_before_a_start() {
    let (state, store) = opened();
    let old =
        image(&store, &[("own", noise(1, 300_000)), ("shared", noise(2, 90_000)), ("empty", Vec::new())]);
    let new = image(&store, &[("own", noise(3, 300_000)), ("shared", noise(2, 90_000))]);
    let shed = pack(&store, &[old, new], &[new]);
    assert_eq!(shed.files, 2, "the file of the old alone, and its layer");
    assert!(store.is_packed(&old) && !store.is_packed(&new));
    assert!(!is_plain(&store, &old) && is_plain(&store, &new));
    let own = store.objects.put_bytes(&noise(1, 300_000)).unwrap();
    assert!(!store.objects.path_of(&own).exists(), "what is packed is not written again");
    assert_eq!(store.objects.size(&own), Some(300_000));
    for store in [&store, &Store::open(state.path()).unwrap()] {
        require_whole(store, &old);
        require_whole(store, &new);
    }
    assert_eq!(collect(&store, &[old, new]), Default::default(), "what is packed is kept");
    unpack(&store, &old);
    require_whole(&store, &old);
    assert_eq!(pack(&store, &[old, new], &[new]).files, 1, "it goes again; its layer stayed packed");
    require_whole(&store, &old);
}

#[test]
fn a_tree_that_is_made_of_what_is_packed_is_unpacked_as_well() {
    let (_state, store) = opened();
    let old = image(&store, &[("own", noise(1, 50_000))]);
    let tree = store.images.get(&old).unwrap().tree;
    let before = store.trees.with_mount_points(&tree, &[MountPoint::Dir(path("before"))]).unwrap();
    pack(&store, &[old], &[]);
    let after = store.trees.with_mount_points(&tree, &[MountPoint::Dir(path("after"))]).unwrap();
    let again = image(&store, &[("elsewhere", noise(1, 50_000))]);
    let again = store.images.get(&again).unwrap().tree;
    for tree in [before, after, again] {
        assert!(store.trees.is_packed(&tree));
        drop(store.trees.unpacked(&tree).unwrap());
        assert!(is_plain(&store, &old));
        pack(&store, &[old], &[]);
        assert!(!is_plain(&store, &old));
    }
}

#[test]
fn names_that_a_power_failure_took_are_made_again_at_the_next_boot() {
    let (state, store) = opened();
    let kept = image(&store, &[("own", noise(1, 50_000))]);
    pack(&store, &[kept], &[]);
    unpack(&store, &kept);
    let tree = store.images.get(&kept).unwrap().tree;
    let object = store.trees.load(&tree).unwrap().objects().next().unwrap();
    fs::remove_file(store.objects.path_of(&object)).unwrap();
    fs::write(state.path().join("store/packs/trees").join(tree.hex()), "another boot").unwrap();
    unpack(&store, &kept);
}

#[test]
fn versions_that_differ_a_little_take_little_and_go_one_by_one() {
    let (state, store) = opened();
    let mut large = noise(1, 2 << 20);
    let mut kept = Vec::new();
    for version in 0..6 {
        large[100_000 * version] ^= 1;
        kept.push(image(&store, &[("large", large.clone()), ("base", noise(9, 1 << 20))]));
    }
    pack(&store, &kept, &[]);
    let packed = store.packed_bytes().unwrap();
    assert!(packed < (3 << 20) + 5 * (300 << 10), "{packed} bytes");
    assert!(
        !fs::read_dir(state.path().join("store/objects"))
            .unwrap()
            .flatten()
            .any(|folder| { fs::read_dir(folder.path()).unwrap().next().is_some() })
    );
    while let Some(gone) = kept.pop() {
        let collected = collect(&store, &kept);
        assert!(collected.packed == 2 || kept.is_empty(), "{collected:?}");
        assert!(!store.images.contains(&gone));
        kept.iter().for_each(|image| require_whole(&store, image));
    }
    let left = store.packed_bytes().unwrap();
    assert!(left < 300, "{left} bytes of nothing");
}

#[test]
fn packs_that_are_mostly_garbage_are_written_anew() {
    let (_state, store) = opened();
    let images: Vec<Digest> = (0..4).map(|seed| image(&store, &[("own", noise(seed, 1 << 20))])).collect();
    pack(&store, &images, &[]);
    let before = store.packed_bytes().unwrap();
    let collected = collect(&store, &images[..1]);
    let after = store.packed_bytes().unwrap();
    assert!(after * 3 < before && collected.bytes >= before - after, "{before} to {after}: {collected:?}");
    require_whole(&store, &images[0]);
}

#[test]
fn a_layer_that_was_compressed_in_another_way_stays_as_it_is() {
    let (_state, store) = opened();
    let foreign = zstd::encode_all(&noise(1, 100_000)[..], 19).unwrap();
    let layer = store.blobs.put_bytes(&foreign).unwrap();
    let begun = store.leases.begin_collection().unwrap();
    let cold = store.cold(&begun, &needed(&store, &begun, &[layer]), &Needed::default()).unwrap();
    store.pack(&cold).unwrap();
    assert_eq!(store.shed(&begun, &store.hold_starts().unwrap(), &cold).unwrap(), Shed::default());
    assert!(store.blobs.path_of(&layer).is_file());
}

#[test]
fn a_damaged_file_is_not_packed_and_a_damaged_pack_is_found_and_can_be_made_good() {
    let (state, store) = opened();
    let content = noise(1, 100_000);
    let manifest = image(&store, &[("own", content.clone())]);
    let object = store.objects.put_bytes(&content).unwrap();
    fs::write(store.objects.path_of(&object), noise(2, 100_000)).unwrap();
    assert_eq!(pack(&store, &[manifest], &[]).files, 1, "its layer is sound");
    assert!(store.objects.path_of(&object).is_file());
    store.objects.remove(&object).unwrap();
    store.objects.put_bytes(&content).unwrap();
    pack(&store, &[manifest], &[]);
    require_whole(&store, &manifest);

    let data = state.path().join("store/packs/data");
    let packs = fs::read_dir(data).unwrap().flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
    for pack in packs {
        let pack = pack.unwrap().path();
        let mut bytes = fs::read(&pack).unwrap();
        // Past the damaged file's, which nothing refers to.
        let at = bytes.len() * 3 / 4;
        bytes[at] ^= 1;
        fs::write(&pack, bytes).unwrap();
    }
    let store = Store::open(state.path()).unwrap();
    let damage = store.verification().damage(&manifest).unwrap();
    assert!(damage.len() == 1 && damage[0].digest == object, "{damage:?}");
    store.discard(&damage[0]).unwrap();
    assert!(!store.objects.contains(&object));
    store.objects.put_bytes(&content).unwrap();
    assert_eq!(store.verification().damage(&manifest).unwrap(), []);
}

#[test]
fn bakes_and_starts_go_on_while_packing_and_miss_nothing() {
    let (_state, store) = opened();
    let files = |number: u64| [("base", noise(1, 40_000)), ("own", noise(number, 40_000))];
    let kept: Vec<Digest> = (10..14).map(|number| image(&store, &files(number))).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 10..30 {
                let _lease = store.leases.take("bake").unwrap();
                let baked = image(&store, &files(number));
                let tree = store.images.get(&baked).unwrap().tree;
                drop(store.trees.unpacked(&tree).unwrap());
                // As long as the lease is held: a step of a bake works on its mount.
                assert!(is_plain(&store, &baked));
                assert_eq!(store.verification().damage(&baked).unwrap(), []);
            }
        });
        scope.spawn(|| {
            for image in kept.iter().cycle().take(20) {
                let start = store.trees.unpacked(&store.images.get(image).unwrap().tree).unwrap();
                assert!(is_plain(&store, image), "until it is mounted, and so known to run");
                drop(start);
            }
        });
        for _ in 0..20 {
            // While a bake is not finished there is nothing to do but to come again.
            let Ok(begun) = store.leases.begin_collection() else { continue };
            let all = needed(&store, &begun, &kept);
            let cold = store.cold(&begun, &all, &Needed::default()).unwrap();
            store.pack(&cold).unwrap();
            store.shed(&begun, &store.hold_starts().unwrap(), &cold).unwrap();
        }
    });
    kept.iter().for_each(|image| require_whole(&store, image));
}

#[derive(Debug, Clone)]
enum Turn {
    Bake(u64, u64),
    Forget(usize),
    Use(usize),
    Pack,
    Collect,
    Reopen,
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        3 => (0..4_u64, 0..6_u64).prop_map(|(base, own)| Turn::Bake(base, own)),
        1 => any::<usize>().prop_map(Turn::Forget),
        2 => any::<usize>().prop_map(Turn::Use),
        3 => Just(Turn::Pack),
        2 => Just(Turn::Collect),
        1 => Just(Turn::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn whatever_is_done_in_whatever_order_what_is_kept_reads_back(turns in prop::collection::vec(turn(), 1..12)) {
        let (state, mut store) = opened();
        // Each with whether something runs of it.
        let mut kept: BTreeMap<Digest, bool> = BTreeMap::new();
        for turn in turns {
            let pick = |number: usize| kept.keys().nth(number % kept.len().max(1)).copied();
            match turn {
                Turn::Bake(base, own) => {
                    let own = [noise(base, 40_000), noise(own + 10, 30_000)].concat();
                    let manifest = image(&store, &[("base", noise(base, 60_000)), ("own", own)]);
                    kept.entry(manifest).or_insert(false);
                }
                Turn::Forget(number) => { pick(number).map(|it| kept.remove(&it)); }
                Turn::Use(number) => if let Some(it) = pick(number) {
                    unpack(&store, &it);
                    kept.insert(it, true);
                },
                Turn::Pack => {
                    let all: Vec<Digest> = kept.keys().copied().collect();
                    let used: Vec<Digest> = kept.iter().filter(|it| *it.1).map(|it| *it.0).collect();
                    pack(&store, &all, &used);
                }
                Turn::Collect => { collect(&store, &kept.keys().copied().collect::<Vec<_>>()); }
                Turn::Reopen => store = Store::open(state.path()).unwrap(),
            }
            for (manifest, is_used) in &kept {
                require_whole(&store, manifest);
                prop_assert!(!is_used || is_plain(&store, manifest), "what runs is there for its mount");
            }
        }
    }
}

#[test]
fn damaged_packs_are_told_and_keep_nothing_else_from_being_collected() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let [kept, lost] = [1, 2].map(|seed| image(&store, &[("file", noise(seed, 100_000))]));
    pack(&store, &[kept], &[]);
    assert_eq!(store.pack_damage(), []);
    let index = folder.path().join("store/packs/index");
    let good = fs::read(&index).unwrap();
    let mut bad = good.clone();
    bad[40] ^= 1;
    crate::shelf::replace_file(&index, &folder.path().join("store/tmp"), &bad).unwrap();
    let found = store.pack_damage();
    assert_eq!((found.len(), found[0].is_index, &found[0].path), (1, true, &index));
    assert_eq!(found[0].reason, "its checksum is another");
    assert!(!store.verification().damage(&kept).unwrap().is_empty());
    let packs = || store.packs.data.list().unwrap();
    let before = packs();
    let collected = collect(&store, &[kept]);
    assert_eq!((collected.images, store.images.contains(&lost)), (1, false));
    assert_eq!(packs(), before, "nobody knows what they hold");

    crate::shelf::replace_file(&index, &folder.path().join("store/tmp"), &good).unwrap();
    require_whole(&store, &kept);
    let pack = store.packs.data.path_of(&before[0]);
    fs::OpenOptions::new().write(true).open(&pack).unwrap().set_len(20).unwrap();
    let found = store.pack_damage();
    assert_eq!((found.len(), found[0].is_index, &found[0].path), (1, false, &pack));
    assert!(found[0].reason.starts_with("it is cut at 20 of "), "{}", found[0]);
    fs::remove_file(&pack).unwrap();
    assert_eq!(store.pack_damage()[0].reason, "it is gone");
}
