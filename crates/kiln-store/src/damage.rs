//! Finds stored files whose bytes are not those that were stored: a bad disk, or somebody's hand.
//!
//! This kernel's file systems need not know fs-verity, so nothing notices while an instance reads. What is to be started is
//! looked at before: what the file system says was written to since it was last read, and once a day all of it, which takes as
//! long as hashing it.

mod ahead;
mod glance;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::panic::resume_unwind;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_model::Digest;
use sha2::{Digest as _, Sha256};

use crate::error::ReadError;
use crate::shelf::InOrder;
use crate::stamp::{Stamp, Stamps};
use crate::store::Store;
use crate::tree::{Kind, Tree, TreePath};

pub use ahead::LookAhead;
pub use glance::Glance;

/// Large enough that hashing is what takes the time.
const READ_BYTES: usize = 128 << 10;

/// Something that an instance of an image would read, and that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// What in the image; none where it is the tree itself.
    pub path: Option<TreePath>,
    /// What it should be.
    pub digest: Digest,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{path} is damaged in the store: {}", self.reason),
            None => write!(f, "its tree is damaged in the store: {}", self.reason),
        }
    }
}

/// How long a file that was read and not written to since is believed: a disk loses bytes without telling anybody, but not many
/// in a day.
const BELIEVED_FOR: Duration = Duration::from_secs(24 * 3600);

/// Notes of objects that are gone are dropped when there are this many more than the image at hand has.
const NOTES_SPARE: usize = 1 << 18;

/// What was found at an object's plain file.
#[derive(Debug)]
enum Look {
    /// It was read before and not written to since.
    Believed,
    /// It was read now.
    Read {
        stamp: Stamp,
        /// What it hashes to.
        found: Digest,
        /// How many bytes it has.
        bytes: u64,
    },
    /// There is none.
    Absent,
}

/// A thread for fewer looks than this costs more than it saves.
const SHARE_MIN: usize = 512;

/// Some of the objects that are to be looked at, in their order, and how many come before them.
type Share<'a> = (usize, &'a [(Digest, u64)]);

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Looks on all processors.
fn in_shares<T: Send>(wanted: &[(Digest, u64)], look: impl Fn(Share<'_>) -> T + Sync) -> Vec<T> {
    let share = wanted.len().div_ceil(processors()).max(SHARE_MIN);
    let shares = wanted.chunks(share).enumerate().map(|(index, items)| (index * share, items));
    let look = &look;
    std::thread::scope(|scope| {
        let shares: Vec<_> = shares.map(|share| scope.spawn(move || look(share))).collect();
        let looks = shares.into_iter().map(|share| share.join().unwrap_or_else(|panic| resume_unwind(panic)));
        looks.collect()
    })
}

/// A look at images; it remembers what was read, for itself and for later ones.
#[derive(Debug)]
pub struct Verification {
    store: Store,
    stamps: Stamps,
    /// What this look found whole: images share most of their files.
    seen: HashSet<Digest>,
    now: SystemTime,
}

impl Verification {
    /// Goes on with another opening of the same store: what was put through that one need not be understood again.
    #[must_use]
    pub fn through(self, store: &Store) -> Self {
        Self { store: store.clone(), ..self }
    }

    /// Looks at all that an instance of an image would see, and returns what is damaged or gone, each file once.
    ///
    /// # Errors
    /// The image's record is missing or corrupt, or a file can't be read.
    pub fn damage(&mut self, manifest: &Digest) -> Result<Vec<Damage>, ReadError> {
        let tree = self.store.images.get(manifest)?.tree;
        let objects = match self.objects_of(&tree) {
            Ok(objects) => objects,
            Err(error) => return Ok(vec![of_tree(tree, error)?]),
        };
        let mut found = Vec::new();
        let variants = self.store.trees.variants().into_iter().filter(|(base, _)| *base == tree);
        for (_, variant) in variants {
            if let Some(Err(error)) = self.store.trees.contains(&variant).then(|| self.objects_of(&variant)) {
                found.push(of_tree(variant, error)?);
            }
        }
        let wanted = self.unseen(&objects);
        let mut reasons = BTreeMap::new();
        for (index, look) in self.looks(&wanted)? {
            let (digest, size) = wanted[index];
            if let Some(reason) = self.object_damage(&digest, size, look)? {
                reasons.insert(digest, reason);
            }
        }
        self.seen.extend(wanted.iter().map(|(digest, _)| *digest).filter(|it| !reasons.contains_key(it)));
        if !reasons.is_empty() {
            found.extend(named(&self.store.trees.load_furnished(&tree)?, reasons));
        }
        if self.stamps.count() > objects.len() + NOTES_SPARE {
            let is_needed = |name: [u8; 32]| {
                objects.binary_search_by_key(&Digest::new(name), |(digest, _)| *digest).is_ok()
            };
            self.stamps.retain(|name| name.try_into().is_ok_and(is_needed));
        }
        Ok(found)
    }

    /// What was not seen yet. An empty file has no content that could be wrong.
    fn unseen(&self, objects: &[(Digest, u64)]) -> Vec<(Digest, u64)> {
        objects.iter().filter(|(digest, size)| *size > 0 && !self.seen.contains(digest)).copied().collect()
    }

    /// Returns the objects that a tree needs with their sizes, in their order. A tree that was written to since it was last read is
    /// read.
    fn objects_of(&mut self, tree: &Digest) -> Result<Vec<(Digest, u64)>, ReadError> {
        let trees = &self.store.trees;
        if let Some(listed) = self.believed_list(tree) {
            return Ok(listed);
        }
        let stamp = stamp_of(&trees.path_of(tree), tree)?;
        let objects = trees.load_objects(tree)?;
        self.stamps.note(tree.as_bytes(), stamp, *tree, self.now);
        trees.list_objects(tree, &objects);
        Ok(objects)
    }

    /// The list of a tree that was not written to since it was made.
    fn believed_list(&self, tree: &Digest) -> Option<Vec<(Digest, u64)>> {
        let stamp = stamp_of(&self.store.trees.path_of(tree), tree).ok()?;
        self.is_believed(tree, &stamp).then(|| self.store.trees.listed_objects(tree))?
    }

    fn is_believed(&self, digest: &Digest, stamp: &Stamp) -> bool {
        let since = self.now.checked_sub(BELIEVED_FOR).unwrap_or(UNIX_EPOCH);
        self.stamps.digest(digest.as_bytes(), stamp, since) == Some(*digest)
    }

    fn object_damage(&mut self, digest: &Digest, size: u64, look: Look) -> Result<Option<String>, ReadError> {
        let (stamp, found, bytes) = match look {
            Look::Believed => return Ok(None),
            Look::Read { stamp, found, bytes } => (stamp, found, bytes),
            // There is no plain file, and only then the packs are asked: that costs as much as the look.
            Look::Absent => {
                return match self.store.objects.shelf().is_packed(digest) {
                    true => self.packed_damage(digest),
                    false => Ok(Some(format!("{digest} is gone"))),
                };
            }
        };
        if found != *digest || bytes != size {
            return Ok(Some(format!("{digest} has {bytes} bytes that hash to {found}")));
        }
        self.stamps.note(digest.as_bytes(), stamp, found, self.now);
        Ok(None)
    }

    /// Looks at the plain files of objects of some size, on all processors, and returns those that are not simply believed, each by
    /// its index.
    fn looks(&self, wanted: &[(Digest, u64)]) -> Result<Vec<(usize, Look)>, ReadError> {
        let shelf = self.store.objects.shelf();
        let looks = &shelf.looks().map_err(ReadError::at(shelf.root()))?;
        let look = |(first, share): Share<'_>| {
            let mut looks = looks.in_order();
            let all =
                share.iter().enumerate().map(|(index, it)| Ok((first + index, self.look(&mut looks, it)?)));
            all.filter(|it| !matches!(it, Ok((_, Look::Believed)))).collect::<Result<Vec<_>, _>>()
        };
        let shares = in_shares(wanted, look).into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(shares.into_iter().flatten().collect())
    }

    fn look(&self, looks: &mut InOrder<'_>, (digest, size): &(Digest, u64)) -> Result<Look, ReadError> {
        let stat = looks.stat(digest).map_err(ReadError::at(self.store.objects.path_of(digest)))?;
        let Some(stamp) = stat.map(|stat| Stamp::of_stat(&stat)) else { return Ok(Look::Absent) };
        if self.is_believed(digest, &stamp) {
            return Ok(Look::Believed);
        }
        match self.store.hash_object(digest, *size) {
            Ok((found, bytes)) => Ok(Look::Read { stamp, found, bytes }),
            Err(ReadError::Missing(_)) => Ok(Look::Absent),
            Err(error) => Err(error),
        }
    }

    /// Reads what is packed, whatever was read before: its pack is a file of many.
    fn packed_damage(&self, digest: &Digest) -> Result<Option<String>, ReadError> {
        match self.store.objects.open_file(digest) {
            // It was verified on the way.
            Ok(_) => Ok(None),
            Err(error @ (ReadError::Missing(_) | ReadError::Corrupt { .. })) => Ok(Some(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// Lets later looks know what this one read. They only save time: what can't be written is read again.
    pub fn remember(&self) {
        let _ = self.stamps.save();
    }
}

impl Store {
    /// Begins to look at images. What was read at most a day ago, and was not written to since, is not read again.
    pub fn verification(&self) -> Verification {
        let cache = self.objects.root().with_file_name("cache");
        let stamps = Stamps::open(cache.join("verified"));
        Verification { store: self.clone(), stamps, seen: HashSet::new(), now: SystemTime::now() }
    }

    /// Removes what is damaged, so that a bake makes it again: what is there is never written a second time.
    ///
    /// # Errors
    /// The file system refused.
    pub fn discard(&self, damage: &Damage) -> io::Result<()> {
        match damage.path {
            Some(_) => self.objects.remove(&damage.digest).map(drop),
            None => self.trees.remove(&damage.digest).map(drop),
        }
    }

    /// Hashes an object, which should have `size` bytes, and counts what it has.
    fn hash_object(&self, digest: &Digest, size: u64) -> Result<(Digest, u64), ReadError> {
        let mut file = self.objects.open_file(digest)?;
        // Most files are small: a buffer of the full size for each takes longer than their bytes.
        let buffer = READ_BYTES.min(usize::try_from(size).unwrap_or(READ_BYTES).saturating_add(1));
        let (mut hash, mut read, mut buffer) = (Sha256::new(), 0, vec![0; buffer]);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok((Digest::new(hash.finalize().into()), read)),
                Ok(count) => {
                    hash.update(&buffer[..count]);
                    read += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(ReadError::at(self.objects.path_of(digest))(error)),
            }
        }
    }
}

fn of_tree(digest: Digest, error: ReadError) -> Result<Damage, ReadError> {
    match error {
        ReadError::Missing(_) | ReadError::Corrupt { .. } => {
            Ok(Damage { path: None, digest, reason: error.to_string() })
        }
        other => Err(other),
    }
}

fn stamp_of(path: &Path, digest: &Digest) -> Result<Stamp, ReadError> {
    match std::fs::metadata(path) {
        Ok(meta) => Ok(Stamp::of(&meta)),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(ReadError::Missing(*digest)),
        Err(error) => Err(ReadError::at(path)(error)),
    }
}

/// What is damaged of a tree's files, each under the first of its names.
fn named(tree: &Tree, mut reasons: BTreeMap<Digest, String>) -> Vec<Damage> {
    let mut found = Vec::new();
    for (path, entry) in tree.iter() {
        if let Kind::File { digest, .. } = entry.kind
            && let Some(reason) = reasons.remove(&digest)
        {
            found.push(Damage { path: Some(path.clone()), digest, reason });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use kiln_model::image::{Image, ImageConfig};

    use super::*;
    use crate::skeleton::MountPoint;
    use crate::tree::{Entry, Meta};

    /// A store with an image of two files of the same content and one of another.
    pub(super) fn baked() -> (tempfile::TempDir, Store, Digest) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let mut tree = Tree::new();
        for (name, text) in [("a", "same"), ("b", "same"), ("c", "other"), ("empty", "")] {
            let digest = store.objects.put_bytes(text.as_bytes()).unwrap();
            let kind = Kind::File { digest, size: text.len() as u64 };
            tree.insert(&TreePath::parse(name).unwrap(), Entry { meta: Meta::default(), kind }).unwrap();
        }
        let manifest = Digest::new([7; 32]);
        let tree = store.trees.put(&tree).unwrap();
        let config = ImageConfig::default();
        store.images.put(&Image { manifest, tree, config, size_bytes: 9, unproven: Vec::new() }).unwrap();
        (folder, store, manifest)
    }

    /// What a look finds that begins when all files have settled, so that it is remembered what was read.
    pub(super) fn damage(store: &Store, image: &Digest) -> Result<Vec<Damage>, ReadError> {
        look(store, image, Duration::from_secs(10))
    }

    fn look(store: &Store, image: &Digest, later: Duration) -> Result<Vec<Damage>, ReadError> {
        let mut verification = store.verification();
        verification.now = SystemTime::now() + later;
        let found = verification.damage(image)?;
        verification.remember();
        Ok(found)
    }

    #[test]
    fn what_was_read_and_not_written_to_since_is_read_again_only_after_a_day() {
        let (_folder, store, image) = baked();
        let same = store.objects.put_bytes(b"same").unwrap();
        assert_eq!(damage(&store, &image).unwrap(), []);
        // A disk that loses a byte changes no time: the note says another digest's name for the same stamp.
        let stamp = Stamp::of(&std::fs::metadata(store.objects.path_of(&same)).unwrap());
        std::fs::write(store.objects.path_of(&same), "fame").unwrap();
        let rotten = Stamp::of(&std::fs::metadata(store.objects.path_of(&same)).unwrap());
        let mut verification = store.verification();
        let began = SystemTime::now() + Duration::from_secs(10);
        assert_eq!(verification.stamps.digest(same.as_bytes(), &stamp, UNIX_EPOCH), Some(same));
        verification.stamps.note(same.as_bytes(), rotten, same, began);
        verification.remember();
        assert_eq!(damage(&store, &image).unwrap(), []);
        assert_eq!(look(&store, &image, BELIEVED_FOR * 2).unwrap().len(), 1);
    }

    #[test]
    fn a_whole_image_has_no_damage() {
        let (_folder, store, image) = baked();
        assert_eq!(damage(&store, &image).unwrap(), []);
    }

    #[test]
    fn a_changed_and_a_missing_file_are_found_once_and_can_be_made_again() {
        let (_folder, store, image) = baked();
        let digest = store.objects.put_bytes(b"same").unwrap();
        std::fs::write(store.objects.path_of(&digest), "fame").unwrap();
        let other = store.objects.put_bytes(b"other").unwrap();
        store.objects.remove(&other).unwrap();
        let found = damage(&store, &image).unwrap();
        let mut paths: Vec<String> =
            found.iter().map(|damage| damage.path.as_ref().unwrap().to_string()).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["/a", "/c"]);
        // Of the same length, so storing it again changes nothing until it is discarded.
        store.objects.put_bytes(b"same").unwrap();
        assert_eq!(damage(&store, &image).unwrap().len(), 2);
        for damage in &found {
            store.discard(damage).unwrap();
        }
        store.objects.put_bytes(b"same").unwrap();
        store.objects.put_bytes(b"other").unwrap();
        assert_eq!(damage(&store, &image).unwrap(), []);
    }

    #[test]
    fn a_damaged_tree_or_variant_is_found() {
        let (_folder, store, image) = baked();
        let tree = store.images.get(&image).unwrap().tree;
        let point = MountPoint::Dir(TreePath::parse("data").unwrap());
        let variant = store.trees.with_mount_points(&tree, &[point]).unwrap();
        for digest in [variant, tree] {
            let path = store.trees.path_of(&digest);
            let good = std::fs::read(&path).unwrap();
            let mut bad = good.clone();
            bad[1100] ^= 1;
            std::fs::write(&path, bad).unwrap();
            let found = damage(&store, &image).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].path.as_ref(), found[0].digest), (None, digest));
            store.discard(&found[0]).unwrap();
            assert!(!store.trees.contains(&digest));
            std::fs::write(&path, good).unwrap();
        }
    }
}
