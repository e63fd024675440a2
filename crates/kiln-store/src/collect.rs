//! Collection: removing what nothing refers to.
//!
//! What is kept is found by following digests from the roots. A blob that is small enough to be a document, a manifest, a
//! release, a snapshot or a lock, is searched for anything that looks like a digest, whatever its format: to keep too much
//! costs room, to keep too little costs a rollback.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read};

use kiln_model::Digest;

use crate::error::ReadError;
use crate::lease::Collection;
use crate::store::Store;

/// A larger blob is a layer or a package, not a document that refers to others.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;

/// RFC 8878, section 3.1.1.
pub(crate) const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

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
    /// Files and layers that were packed.
    pub packed: u64,
    /// The bytes of all of them. What goes out of packs counts by the room that it made, so in a mere look it does not.
    pub bytes: u64,
}

/// Nothing, or not everything, was collected. What is left is whole, and a later attempt goes on.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// Something that is kept can't be read, so nobody knows what it refers to. Nothing was removed.
    #[error("nothing was collected, because something that is kept can't be read")]
    Read(#[from] ReadError),
    /// The file system refused.
    #[error("the store can't be collected")]
    Io(#[from] io::Error),
}

/// What is kept: what was named, and what that refers to, directly or not.
#[derive(Debug, Clone, Default)]
pub struct Needed {
    /// Blobs and manifests.
    pub(crate) digests: BTreeSet<Digest>,
    pub(crate) trees: BTreeSet<Digest>,
    pub(crate) objects: BTreeSet<Digest>,
    /// What is said about images, with its blobs. Apart from `digests`, since what these name is not followed.
    said: BTreeSet<Digest>,
    /// What kept documents name and is not stored here, such as the packages that a lock pins.
    elsewhere: BTreeSet<Digest>,
}

impl Needed {
    /// Whether this blob or manifest is kept.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.digests.contains(digest)
    }

    /// Whether what is kept names this, which is not stored here.
    pub fn names(&self, digest: &Digest) -> bool {
        self.elsewhere.contains(digest)
    }

    /// Whether the blob of this digest is kept, by itself or as what is said about an image.
    pub(crate) fn contains_blob(&self, blob: &Digest) -> bool {
        self.digests.contains(blob) || self.said.contains(blob)
    }
}

impl Store {
    /// Adds roots to what is kept, and all that they refer to: manifests, releases, bindings, snapshots, trees, or any other
    /// digest.
    ///
    /// Name them only once the collection has begun: what was stored before it is recorded by then.
    ///
    /// # Errors
    /// Something that is kept can't be read.
    pub fn need(
        &self,
        _begun: &Collection,
        needed: &mut Needed,
        roots: impl IntoIterator<Item = Digest>,
    ) -> Result<(), ReadError> {
        let mut ahead: Vec<Digest> = roots.into_iter().collect();
        while let Some(digest) = ahead.pop() {
            if !needed.digests.insert(digest) {
                continue;
            }
            if self.images.contains(&digest) {
                self.need_tree(self.images.get(&digest)?.tree, needed)?;
                self.need_referrers(&digest, needed)?;
            }
            if self.trees.contains(&digest) {
                self.need_tree(digest, needed)?;
            }
            if self.is_document(&digest)? {
                let referred = digests_in(&self.blobs.read_verified(&digest)?).into_iter();
                let (here, elsewhere): (Vec<_>, Vec<_>) =
                    referred.partition(|it| self.blobs.contains(it) || self.images.contains(it));
                ahead.extend(here);
                needed.elsewhere.extend(elsewhere);
            }
        }
        Ok(())
    }

    /// Whether a blob may name others. One that is compressed, as layers are, would be read for nothing.
    fn is_document(&self, digest: &Digest) -> Result<bool, ReadError> {
        // Of blobs only layers are packed.
        let size = self.blobs.shelf().plain_size(digest);
        if size.is_none_or(|size| size > DOCUMENT_BYTES_MAX) {
            return Ok(false);
        }
        let mut magic = [0; ZSTD_MAGIC.len()];
        let mut reader = self.blobs.open_file(digest)?;
        let failed = |error| ReadError::at(self.blobs.path_of(digest))(error);
        let is_short = match reader.read_exact(&mut magic) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => true,
            other => other.map(|()| false).map_err(failed)?,
        };
        Ok(is_short || magic != ZSTD_MAGIC)
    }

    fn need_tree(&self, tree: Digest, needed: &mut Needed) -> Result<(), ReadError> {
        if needed.trees.insert(tree) {
            needed.objects.extend(self.trees.load_furnished(&tree)?.objects());
        }
        Ok(())
    }

    /// Keeps what is said about an image. A damaged one is no reason to keep everything: it goes, and a bake makes it again.
    fn need_referrers(&self, subject: &Digest, needed: &mut Needed) -> Result<(), ReadError> {
        for manifest in self.referrers.list(subject)? {
            match self.blobs.read_verified(&manifest) {
                Ok(bytes) => {
                    needed.said.insert(manifest);
                    needed.said.extend(digests_in(&bytes));
                }
                Err(ReadError::Missing(_) | ReadError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes everything but what is kept. Names of images that are removed go as well.
    ///
    /// In the order in which things refer to one another, so that a crash leaves nothing that refers to what is gone.
    ///
    /// # Errors
    /// The file system refused. What is left is whole, and a later attempt goes on.
    pub fn collect(&self, _begun: &Collection, needed: &Needed) -> io::Result<Collected> {
        for (name, manifest) in self.images.names()? {
            if !needed.digests.contains(&manifest) {
                self.images.remove_name(&name)?;
            }
        }
        let mut collected = self.sweep_images(needed, Sweep::Remove)?;
        self.referrers.retain(|it| needed.digests.contains(it), |it| needed.said.contains(it))?;
        self.sweep_trees(needed, Sweep::Remove, &mut collected)?;
        self.trees.forget_variants_of_missing()?;
        self.sweep_bytes(needed, Sweep::Remove, &mut collected)?;
        Ok(collected)
    }

    /// Returns what [`Store::collect`] would remove, and removes nothing.
    ///
    /// # Errors
    /// The file system refused.
    pub fn collectable(&self, _begun: &Collection, needed: &Needed) -> io::Result<Collected> {
        let mut collected = self.sweep_images(needed, Sweep::Look)?;
        self.sweep_trees(needed, Sweep::Look, &mut collected)?;
        self.sweep_bytes(needed, Sweep::Look, &mut collected)?;
        Ok(collected)
    }

    fn sweep_images(&self, needed: &Needed, sweep: Sweep) -> io::Result<Collected> {
        let mut collected = Collected::default();
        for manifest in self.images.list()?.into_iter().filter(|it| !needed.digests.contains(it)) {
            collected.images += u64::from(sweep.takes(|| self.images.remove(&manifest))?);
        }
        Ok(collected)
    }

    fn sweep_trees(&self, needed: &Needed, sweep: Sweep, collected: &mut Collected) -> io::Result<()> {
        let trees = self.trees.list()?;
        // Only now: a variant is noted before it is stored, so each that was listed is noted by now.
        let variants: BTreeSet<Digest> = self
            .trees
            .variants()
            .into_iter()
            .filter(|(base, _)| needed.trees.contains(base))
            .map(|it| it.1)
            .collect();
        let is_needed = |tree: &Digest| needed.trees.contains(tree) || variants.contains(tree);
        for tree in trees.into_iter().filter(|it| !is_needed(it)) {
            collected.bytes += self.trees.size(&tree).unwrap_or(0);
            collected.trees += u64::from(sweep.takes(|| self.trees.remove(&tree))?);
        }
        Ok(())
    }

    fn sweep_bytes(&self, needed: &Needed, sweep: Sweep, collected: &mut Collected) -> io::Result<()> {
        let (objects, blobs) = (self.objects.shelf(), self.blobs.shelf());
        for object in objects.list()?.into_iter().filter(|it| !needed.objects.contains(it)) {
            collected.bytes += objects.plain_size(&object).unwrap_or(0);
            collected.objects += u64::from(sweep.takes(|| objects.remove_plain(&object))?);
        }
        let is_needed = |blob: &Digest| needed.contains_blob(blob);
        for blob in blobs.list()?.into_iter().filter(|it| !is_needed(it)) {
            collected.bytes += blobs.plain_size(&blob).unwrap_or(0);
            collected.blobs += u64::from(sweep.takes(|| blobs.remove_plain(&blob))?);
        }
        // Last: writing a pack anew takes room, which there may be only now.
        let is_needed = |it: &Digest| needed.objects.contains(it) || is_needed(it);
        let (packed, bytes) = match sweep {
            Sweep::Look => (self.packs.unneeded(is_needed), 0),
            Sweep::Remove => self.packs.retain(is_needed).map_err(io::Error::other)?,
        };
        (collected.packed, collected.bytes) = (packed, collected.bytes + bytes);
        Ok(())
    }
}

/// What is done with what nothing refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sweep {
    /// It is counted.
    Look,
    /// It is removed.
    Remove,
}

impl Sweep {
    /// Removes something unless it is only looked at; whether it is to be counted.
    fn takes(self, remove: impl FnOnce() -> io::Result<bool>) -> io::Result<bool> {
        match self {
            Self::Look => Ok(true),
            Self::Remove => remove(),
        }
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

    /// Collects everything but these and what they refer to.
    fn collect(store: &Store, roots: &[Digest]) -> Result<Collected, CollectError> {
        let begun = store.leases.begin_collection().unwrap();
        let mut needed = Needed::default();
        store.need(&begun, &mut needed, roots.iter().copied())?;
        Ok(store.collect(&begun, &needed)?)
    }

    /// What collecting everything but these would remove.
    fn look(store: &Store, roots: &[Digest]) -> Collected {
        let begun = store.leases.begin_collection().unwrap();
        let mut needed = Needed::default();
        store.need(&begun, &mut needed, roots.iter().copied()).unwrap();
        store.collectable(&begun, &needed).unwrap()
    }

    fn release(store: &Store, manifest: Digest) -> Digest {
        let files = [(TreePath::parse("stack.hcl").unwrap(), 0o644, SourceContent::File(&b"stack"[..]))];
        let release = Release {
            stack: StackName::new("shop").unwrap(),
            source: store.snapshots.capture(files).unwrap(),
            images: [(ImageName::new("web").unwrap(), manifest)].into(),
            holes: [].into(),
            given: [].into(),
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
        let looked = look(&store, &[release]);
        assert!(
            store.images.contains(&lost) && store.images.by_name("lost").is_some(),
            "looking removes nothing"
        );
        let collected = collect(&store, &[release]).unwrap();
        assert_eq!(looked, collected, "what was said to go is what went");
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
        assert_eq!(collect(&store, &[release]).unwrap(), Collected::default(), "nothing is left to collect");
    }

    #[test]
    fn what_is_said_of_an_image_is_kept_with_it_unless_it_is_damaged() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let (kept, lost) = (image(&store, "kept"), image(&store, "lost"));
        let say = |subject: &Digest, what: &str| {
            let layer = store.blobs.put_bytes(what.as_bytes()).unwrap();
            let manifest =
                format!(r#"{{"layers":[{{"digest":"{layer}"}}],"subject":{{"digest":"{subject}"}}}}"#);
            let manifest = store.blobs.put_bytes(manifest.as_bytes()).unwrap();
            store.referrers.put(subject, &manifest).unwrap();
            (manifest, layer)
        };
        let (whole, whole_layer) = say(&kept, "whole");
        let (mentioning, _) = say(&kept, &format!("it is better than {lost}"));
        store
            .referrers
            .put(&kept, &store.blobs.put_bytes(format!("beside {lost}").as_bytes()).unwrap())
            .unwrap();
        let (damaged, _) = say(&kept, "damaged");
        let (gone, gone_layer) = say(&lost, "gone");
        fs::write(store.blobs.path_of(&damaged), "x").unwrap();
        collect(&store, &[kept]).unwrap();
        let said = store.referrers.list(&kept).unwrap();
        assert!(said.len() == 3 && said.contains(&whole) && said.contains(&mentioning));
        assert!(!store.images.contains(&lost), "an image that is only mentioned goes");
        assert!(store.blobs.contains(&whole) && store.blobs.contains(&whole_layer));
        assert_eq!(store.referrers.list(&lost).unwrap(), []);
        assert!(!store.blobs.contains(&gone) && !store.blobs.contains(&gone_layer));
        assert!(!store.blobs.contains(&damaged));
        assert_eq!(collect(&store, &[kept]).unwrap(), Collected::default(), "nothing is left to collect");
    }

    #[test]
    fn a_digest_in_a_lock_keeps_the_package() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let package = store.blobs.put_bytes(b"a package").unwrap();
        let lock = store.blobs.put_bytes(format!("sha256 = \"{}\"", package.hex()).as_bytes()).unwrap();
        store.blobs.put_bytes(b"another").unwrap();
        assert_eq!(collect(&store, &[lock]).unwrap().blobs, 1);
        assert!(store.blobs.contains(&package));
    }

    #[test]
    fn a_variant_that_is_about_to_be_stored_is_kept_with_its_tree() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let manifest = image(&store, "kept");
        let base = store.images.get(&manifest).unwrap().tree;
        let [(_, variant)] = store.trees.variants().try_into().unwrap();
        assert!(store.trees.remove(&variant).unwrap(), "as before it is stored");
        collect(&store, &[manifest]).unwrap();
        assert_eq!(store.trees.variants(), [(base, variant)], "it stays noted");
        store.images.remove(&manifest).unwrap();
        collect(&store, &[]).unwrap();
        assert_eq!((store.trees.variants(), store.trees.list().unwrap()), (vec![], vec![]));
    }

    #[test]
    fn a_compressed_blob_names_nothing_and_is_not_read() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let named = store.blobs.put_bytes(b"named").unwrap();
        let layer = [&ZSTD_MAGIC[..], named.hex().as_bytes()].concat();
        let layer = store.blobs.put_bytes(&layer).unwrap();
        let short = store.blobs.put_bytes(b"ab").unwrap();
        fs::write(store.blobs.path_of(&layer), [&ZSTD_MAGIC[..], b"damaged"].concat()).unwrap();
        assert_eq!(collect(&store, &[layer, short]).unwrap().blobs, 1);
        assert!(
            store.blobs.contains(&layer) && store.blobs.contains(&short) && !store.blobs.contains(&named)
        );
    }

    #[test]
    fn nothing_is_collected_while_something_kept_is_corrupt() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let manifest = image(&store, "kept");
        let stray = store.blobs.put_bytes(b"stray").unwrap();
        let tree = store.trees.path_of(&store.images.get(&manifest).unwrap().tree);
        let whole = fs::read(&tree).unwrap();
        fs::write(&tree, &whole[..whole.len() - 1]).unwrap();
        assert!(matches!(collect(&store, &[manifest]), Err(CollectError::Read(_))));
        assert!(store.blobs.contains(&stray));
        fs::write(&tree, whole).unwrap();
        assert_eq!(collect(&store, &[manifest]).unwrap().blobs, 1);
    }
}
