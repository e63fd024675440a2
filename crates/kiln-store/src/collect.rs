//! Collection: removing what nothing refers to.
//!
//! What is kept is found by following digests from the roots. A blob that is small enough to be a document, a manifest, a
//! release, a snapshot or a lock, is searched for anything that looks like a digest, whatever its format: to keep too much
//! costs room, to keep too little costs a rollback.

use std::collections::BTreeSet;
use std::io;

use kiln_model::Digest;

use crate::error::ReadError;
use crate::lease::LeaseError;
use crate::store::Store;

/// A larger blob is a layer or a package, not a document that refers to others.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;

const HEX_DIGITS: usize = 64;

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Records of images.
    pub images: u64,
    /// Trees, variants with more mount points included.
    pub trees: u64,
    /// File objects.
    pub objects: u64,
    /// Blobs.
    pub blobs: u64,
    /// The bytes of all of them.
    pub bytes: u64,
}

/// Nothing, or not everything, was collected. What is left is whole, and a later attempt goes on.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// Somebody is storing; try again later.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// Something that is kept can't be read, so nobody knows what it refers to. Nothing was removed.
    #[error("nothing was collected, because something that is kept can't be read")]
    Read(#[from] ReadError),
    /// The file system refused.
    #[error("the store can't be collected")]
    Io(#[from] io::Error),
}

/// What is kept.
#[derive(Default)]
struct Marked {
    /// Blobs and manifests.
    digests: BTreeSet<Digest>,
    trees: BTreeSet<Digest>,
    objects: BTreeSet<Digest>,
}

impl Store {
    /// Removes everything but `roots` and what they refer to, directly or not: manifests, releases, bindings, snapshots, or any
    /// other digest. Names of images that are removed go as well.
    ///
    /// # Errors
    /// See [`CollectError`].
    pub fn collect(&self, roots: impl IntoIterator<Item = Digest>) -> Result<Collected, CollectError> {
        let _collection = self.leases.begin_collection()?;
        let marked = self.mark(roots)?;
        Ok(self.sweep(&marked)?)
    }

    fn mark(&self, roots: impl IntoIterator<Item = Digest>) -> Result<Marked, ReadError> {
        let mut marked = Marked::default();
        let mut ahead: Vec<Digest> = roots.into_iter().collect();
        while let Some(digest) = ahead.pop() {
            if !marked.digests.insert(digest) {
                continue;
            }
            if self.images.contains(&digest) {
                self.mark_tree(self.images.get(&digest)?.tree, &mut marked)?;
            }
            if self.trees.contains(&digest) {
                self.mark_tree(digest, &mut marked)?;
            }
            if self.blobs.size(&digest).is_some_and(|size| size <= DOCUMENT_BYTES_MAX) {
                let referred = digests_in(&self.blobs.read_verified(&digest)?);
                ahead.extend(
                    referred.into_iter().filter(|it| self.blobs.contains(it) || self.images.contains(it)),
                );
            }
        }
        for (base, variant) in self.trees.variants() {
            if marked.trees.contains(&base) {
                marked.trees.insert(variant);
            }
        }
        Ok(marked)
    }

    fn mark_tree(&self, tree: Digest, marked: &mut Marked) -> Result<(), ReadError> {
        if marked.trees.insert(tree) {
            marked.objects.extend(self.trees.load_furnished(&tree)?.objects());
        }
        Ok(())
    }

    /// In the order in which they refer to one another, so that a crash leaves nothing that refers to what is gone.
    fn sweep(&self, marked: &Marked) -> io::Result<Collected> {
        let mut collected = Collected::default();
        for (name, manifest) in self.images.names()? {
            if !marked.digests.contains(&manifest) {
                self.images.remove_name(&name)?;
            }
        }
        for manifest in self.images.list()?.into_iter().filter(|it| !marked.digests.contains(it)) {
            collected.images += u64::from(self.images.remove(&manifest)?);
        }
        for tree in self.trees.list()?.into_iter().filter(|it| !marked.trees.contains(it)) {
            collected.bytes += self.trees.size(&tree).unwrap_or(0);
            collected.trees += u64::from(self.trees.remove(&tree)?);
        }
        self.trees.forget_missing_variants()?;
        for object in self.objects.list()?.into_iter().filter(|it| !marked.objects.contains(it)) {
            collected.bytes += self.objects.size(&object).unwrap_or(0);
            collected.objects += u64::from(self.objects.remove(&object)?);
        }
        for blob in self.blobs.list()?.into_iter().filter(|it| !marked.digests.contains(it)) {
            collected.bytes += self.blobs.size(&blob).unwrap_or(0);
            collected.blobs += u64::from(self.blobs.remove(&blob)?);
        }
        Ok(collected)
    }
}

/// Returns every run of 64 hexadecimal digits, taken for a digest.
fn digests_in(bytes: &[u8]) -> BTreeSet<Digest> {
    let is_hex = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    let runs = bytes.split(|byte| !is_hex(byte)).filter(|run| run.len() == HEX_DIGITS);
    let digest = |run: &[u8]| format!("sha256:{}", std::str::from_utf8(run).ok()?).parse().ok();
    runs.filter_map(digest).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use kiln_model::image::{Image, ImageConfig};
    use kiln_model::release::Release;
    use kiln_model::{ImageName, StackName};

    use super::*;
    use crate::skeleton::MountPoint;
    use crate::snapshot::SourceContent;
    use crate::tree::{Entry, Tree, TreePath};

    /// Stores an image with one file of its own and one that all share; returns its manifest.
    fn image(store: &Store, content: &str) -> Digest {
        let mut tree = Tree::new();
        for (name, content) in [("own", content), ("shared", "shared by all")] {
            let digest = store.objects.put_bytes(content.as_bytes()).unwrap();
            let entry = Entry::file(0o644, digest, content.len() as u64);
            tree.insert(&TreePath::parse(name).unwrap(), entry).unwrap();
        }
        let layer = store.blobs.put_bytes(format!("layer of {content}").as_bytes()).unwrap();
        let manifest = format!(r#"{{"layers":[{{"digest":"{layer}"}}]}}"#);
        let manifest = store.blobs.put_bytes(manifest.as_bytes()).unwrap();
        let tree = store.trees.put(&tree).unwrap();
        store.trees.with_mount_points(&tree, &[MountPoint::Dir(TreePath::parse("data").unwrap())]).unwrap();
        let image =
            Image { manifest, tree, config: ImageConfig::default(), size_bytes: 1, unproven: Vec::new() };
        store.images.put(&image).unwrap();
        store.images.set_name(content, &manifest).unwrap();
        manifest
    }

    fn release(store: &Store, manifest: Digest) -> Digest {
        let files = [(TreePath::parse("stack.hcl").unwrap(), 0o644, SourceContent::File(&b"stack"[..]))];
        let release = Release {
            stack: StackName::new("shop").unwrap(),
            source: store.snapshots.capture(files).unwrap(),
            images: [(ImageName::new("web").unwrap(), manifest)].into(),
            holes: [].into(),
            checks: Vec::new(),
        };
        store.releases.put_release(&release).unwrap()
    }

    #[test]
    fn what_a_release_needs_is_kept_and_the_rest_goes() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let (kept, lost) = (image(&store, "kept"), image(&store, "lost"));
        let release = release(&store, kept);
        let collected = store.collect([release]).unwrap();
        assert_eq!((collected.images, collected.trees, collected.objects, collected.blobs), (1, 2, 1, 2));
        assert!(collected.bytes > 0);
        let image = store.images.get(&kept).unwrap();
        assert!(
            store.trees.load(&image.tree).unwrap().objects().all(|object| store.objects.contains(&object))
        );
        let snapshot = store.snapshots.load(&store.releases.release(&release).unwrap().source).unwrap();
        assert_eq!(snapshot.files.len(), 1);
        assert_eq!((store.images.by_name("kept"), store.images.by_name("lost")), (Some(kept), None));
        assert!(!store.images.contains(&lost));
        assert_eq!(store.trees.variants().len(), 1);
        assert_eq!(store.collect([release]).unwrap(), Collected::default(), "nothing is left to collect");
    }

    #[test]
    fn a_digest_in_a_lock_keeps_the_package() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let package = store.blobs.put_bytes(b"a package").unwrap();
        let lock = store.blobs.put_bytes(format!("sha256 = \"{}\"", package.hex()).as_bytes()).unwrap();
        store.blobs.put_bytes(b"another").unwrap();
        assert_eq!(store.collect([lock]).unwrap().blobs, 1);
        assert!(store.blobs.contains(&package));
    }

    #[test]
    fn nothing_is_collected_beside_a_lease_or_while_something_kept_is_corrupt() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let manifest = image(&store, "kept");
        let stray = store.blobs.put_bytes(b"stray").unwrap();
        let lease = store.leases.take("bake").unwrap();
        assert!(matches!(store.collect([manifest]), Err(CollectError::Lease(LeaseError::Held { .. }))));
        drop(lease);
        let tree = store.trees.path_of(&store.images.get(&manifest).unwrap().tree);
        let whole = fs::read(&tree).unwrap();
        fs::write(&tree, &whole[..whole.len() - 1]).unwrap();
        assert!(matches!(store.collect([manifest]), Err(CollectError::Read(_))));
        assert!(store.blobs.contains(&stray));
        fs::write(&tree, whole).unwrap();
        assert_eq!(store.collect([manifest]).unwrap().blobs, 1);
    }
}
