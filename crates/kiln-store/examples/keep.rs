//! What thirty versions of an image take once they are packed, and how long unpacking one takes: `cargo xtask bench keep` runs it.
//!
//! `keep pack STATE BASE VERSIONS`: BASE is a folder that all versions share, VERSIONS a folder with one folder for each, holding what
//! differs. Prints `bytes N`, what STATE holds then, and `packing_us N`. `keep unpack STATE` prints `wall_us N` and `cpu_us N`, the time
//! that it takes until one of them is mounted. Not in the same folder at once: ext4 is slow to make files where many were removed
//! within the last minute.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // measured in a bench, which shows what went wrong

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kiln_model::Digest;
use kiln_model::image::{Image, ImageConfig};
use kiln_store::{Entry, Needed, Store, Tree, TreePath};

fn main() {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    match arguments.as_slice() {
        [verb, state, base, versions] if verb == Path::new("pack") => pack(state, base, versions),
        [verb, state] if verb == Path::new("unpack") => unpack(state),
        _ => panic!("keep pack STATE BASE VERSIONS, or keep unpack STATE"),
    }
}

fn pack(state: &Path, base: &Path, versions: &Path) {
    let store = Store::open(state).unwrap();
    let base_layer = layer(&store, base);
    let mut found: Vec<PathBuf> = fs::read_dir(versions).unwrap().map(|it| it.unwrap().path()).collect();
    found.sort();
    let images: Vec<Digest> = found.iter().map(|version| image(&store, base, &base_layer, version)).collect();

    let begun = store.leases.begin_collection().unwrap();
    let mut needed = Needed::default();
    store.need(&begun, &mut needed, images).unwrap();
    let begin = Instant::now();
    let cold = store.cold(&begun, &needed, &Needed::default()).unwrap();
    store.pack(&cold).unwrap();
    store.shed(&begun, &store.hold_starts().unwrap(), &cold).unwrap();
    println!("packing_us {}", begin.elapsed().as_micros());
    println!("bytes {}", size(state));
}

fn unpack(state: &Path) {
    let store = Store::open(state).unwrap();
    let manifest = store.images.list().unwrap()[0];
    let image = store.images.get(&manifest).unwrap();
    assert!(store.is_packed(&manifest));
    let (begin, before) = (Instant::now(), cpu());
    drop(store.trees.assemble(&image.tree).unwrap());
    println!("wall_us {}", begin.elapsed().as_micros());
    println!("cpu_us {}", (cpu() - before).as_micros());
}

/// Stores a version as a bake does: its files, its layers and its tree.
fn image(store: &Store, base: &Path, base_layer: &Digest, version: &Path) -> Digest {
    let (mut tree, mut size_bytes) = (Tree::new(), 0);
    let batch = store.objects.batch();
    for root in [base, version] {
        let mut ahead = vec![root.to_owned()];
        while let Some(folder) = ahead.pop() {
            for file in fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()) {
                let path = TreePath::parse(file.strip_prefix(root).unwrap().to_str().unwrap()).unwrap();
                if file.is_dir() {
                    tree.insert(&path, Entry::dir(0o755)).unwrap();
                    ahead.push(file);
                } else {
                    let stored = batch.put_reader(fs::File::open(file).unwrap()).unwrap();
                    size_bytes += stored.size;
                    tree.insert(&path, Entry::file(0o644, stored.digest, stored.size)).unwrap();
                }
            }
        }
    }
    batch.commit().unwrap();
    let layer = layer(store, version);
    let manifest = format!(r#"{{"layers":["{base_layer}","{layer}"]}}"#);
    let manifest = store.blobs.put_bytes(manifest.as_bytes()).unwrap();
    let tree = store.trees.put(&tree).unwrap();
    let image = Image { manifest, tree, config: ImageConfig::default(), size_bytes, unproven: Vec::new() };
    store.images.put(&image).unwrap();
    manifest
}

/// Stores a folder as a layer, compressed as a bake does it.
fn layer(store: &Store, folder: &Path) -> Digest {
    let mut tar = Command::new("tar")
        .args(["--format=ustar", "--sort=name", "--mtime=@0", "-cC"])
        .arg(folder)
        .arg(".")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let encoder = zstd::stream::write::Encoder::new(store.blobs.writer().unwrap(), 3).unwrap();
    let mut buffered = io::BufWriter::with_capacity(128 << 10, encoder);
    io::copy(&mut tar.stdout.take().unwrap(), &mut buffered).unwrap();
    assert!(tar.wait().unwrap().success());
    let encoder = buffered.into_inner().map_err(|error| error.into_error()).unwrap();
    encoder.finish().unwrap().finish().unwrap().digest
}

/// The bytes of all files below a folder.
fn size(folder: &Path) -> u64 {
    fs::read_dir(folder)
        .unwrap()
        .map(|it| it.unwrap())
        .map(
            |it| {
                if it.file_type().unwrap().is_dir() { size(&it.path()) } else { it.metadata().unwrap().len() }
            },
        )
        .sum()
}

/// The processor time of this process so far.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let mut fields = stat[stat.rfind(')').unwrap()..].split_ascii_whitespace().skip(12);
    let mut ticks = || fields.next().unwrap().parse::<u64>().unwrap();
    // Ticks of user and kernel; Linux counts a hundred a second for whoever reads this file.
    Duration::from_millis((ticks() + ticks()) * 10)
}
