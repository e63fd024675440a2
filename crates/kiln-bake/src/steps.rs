//! The outcomes of steps, by what they were made from.
//!
//! A record is a name for bytes that are in the store anyway: it may be lost, and is written whole or not at all. Keys hold
//! the digest of everything that decides, so a record is never out of date.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use kiln_model::Digest;
use kiln_store::Store;

use crate::hashing::sha256;
use crate::inventory::{KEPT_BYTES_MAX, Survey};
use crate::layer::{Compression, Layer};

/// Raised when the same inputs come to give another outcome: normalisers, layers, the way scripts are run.
const BAKE_VERSION: &str = "kiln bake 3";

/// The folder of records in that of the caches.
pub(crate) const STEPS: &str = "steps";

/// The folder of notes about what steps take from trees, in that of the caches.
pub(crate) const PICKS: &str = "picks";

/// The folder of notes about what the next bake will need, in that of the caches.
pub(crate) const FORESIGHTS: &str = "foresights";

/// The folder of what software was found in trees, in that of the caches.
pub(crate) const SURVEYS: &str = "surveys";

/// A record is a few lines, and one for each stage that a step of a Dockerfile takes files from.
const RECORD_BYTES_MAX: u64 = 64 << 10;

/// What a step is made from, all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StepKey(Digest);

impl StepKey {
    /// Derives a key from the key of what the step is done to and a description of all that it does.
    pub(crate) fn new(parent: Option<StepKey>, description: &str) -> Self {
        let parent = parent.map_or(String::new(), |key| key.0.to_string());
        Self(sha256(format!("{BAKE_VERSION}\n{parent}\n{description}").as_bytes()))
    }
}

/// What is being made right now, so that nobody makes the same at the same time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Claims(Arc<Held>);

#[derive(Debug, Default)]
struct Held {
    steps: Mutex<Vec<StepKey>>,
    freed: Condvar,
}

/// The right to make one thing, given back with the value.
#[derive(Debug)]
pub(crate) struct Claim(Claims, StepKey);

impl Claims {
    /// Waits until nobody else makes it.
    pub(crate) fn claim(&self, key: StepKey) -> Claim {
        let mut steps = self.0.steps.lock().unwrap_or_else(PoisonError::into_inner);
        while steps.contains(&key) {
            steps = self.0.freed.wait(steps).unwrap_or_else(PoisonError::into_inner);
        }
        steps.push(key);
        Claim(self.clone(), key)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let Self(Claims(held), own) = self;
        held.steps.lock().unwrap_or_else(PoisonError::into_inner).retain(|key| key != own);
        held.freed.notify_all();
    }
}

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StepRecord {
    /// The tree after it.
    pub(crate) tree: Digest,
    /// Its layer; none where it changed nothing.
    pub(crate) layer: Option<Layer>,
    /// What it was done to; none for the first of all.
    pub(crate) after: Option<StepKey>,
    /// What files were taken from beside: the last steps of stages and images.
    pub(crate) taken: Vec<StepKey>,
}

/// What a bake had to read of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Foresight {
    /// The snapshot of the folder.
    pub(crate) source: Digest,
    /// What new steps were done to.
    pub(crate) trees: Vec<Digest>,
}

/// The records of a machine.
#[derive(Debug, Clone)]
pub(crate) struct StepCache {
    folder: PathBuf,
    picks: PathBuf,
    foresights: PathBuf,
    surveys: PathBuf,
}

impl StepCache {
    /// Opens the records in a folder of caches.
    pub(crate) fn open(cache: &Path) -> io::Result<Self> {
        let names = [STEPS, PICKS, FORESIGHTS, SURVEYS];
        let [folder, picks, foresights, surveys] = names.map(|name| cache.join(name));
        for folder in [&folder, &picks, &foresights, &surveys] {
            fs::create_dir_all(folder)?;
        }
        Ok(Self { folder, picks, foresights, surveys })
    }

    /// Returns the digest of all that a step takes from a stored tree by these words, if any step has taken it before: so the
    /// tree need not be read to find a step again.
    pub(crate) fn pick(&self, tree: &Digest, words: &str) -> Option<Digest> {
        read(&self.picks.join(pick_name(tree, words)))?.trim_end().parse().ok()
    }

    /// Notes it.
    pub(crate) fn set_pick(&self, tree: &Digest, words: &str, taken: &Digest) {
        write(&self.picks, &pick_name(tree, words), format!("{taken}\n"));
    }

    /// Returns what the last bake of a stack noted.
    pub(crate) fn foresight(&self, stack: &str) -> Option<Foresight> {
        Foresight::parse(&read(&self.foresights.join(stack))?)
    }

    /// Notes it.
    pub(crate) fn set_foresight(&self, stack: &str, Foresight { source, trees }: &Foresight) {
        let trees: String = trees.iter().map(|tree| format!(" {tree}")).collect();
        write(&self.foresights, stack, format!("{source}{trees}\n"));
    }

    /// Returns what software was found in a stored tree, and where it was looked for.
    pub(crate) fn survey(&self, tree: &Digest) -> Option<Survey> {
        Survey::from_bytes(tree, &read_bytes(&self.surveys.join(tree.hex()), KEPT_BYTES_MAX)?)
    }

    /// Keeps it.
    pub(crate) fn set_survey(&self, tree: &Digest, survey: &Survey) {
        if let Some(bytes) = survey.to_bytes(tree) {
            write(&self.surveys, &tree.hex(), &bytes);
        }
    }

    /// Returns a step's outcome if it and all that it names are still in the store.
    pub(crate) fn step(&self, key: StepKey, store: &Store) -> Option<StepRecord> {
        let record = StepRecord::parse(&read(&self.folder.join(key.0.hex()))?)?;
        let whole = store.trees.contains(&record.tree)
            && record.layer.is_none_or(|layer| store.blobs.size(&layer.digest) == Some(layer.size));
        whole.then_some(record)
    }

    /// Notes a step's outcome.
    pub(crate) fn set_step(&self, key: StepKey, record: &StepRecord) {
        write(&self.folder, &key.0.hex(), record.to_string());
    }
}

impl Foresight {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.strip_suffix('\n')?.split(' ').map(|word| word.parse().ok());
        Some(Self { source: words.next()??, trees: words.collect::<Option<_>>()? })
    }
}

/// The tree comes first: its notes go with it.
fn pick_name(tree: &Digest, words: &str) -> String {
    format!("{}.{}", tree.hex(), sha256(words.as_bytes()).hex())
}

/// A record that can't be written costs time at the next bake, and is no reason to fail this one.
fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let partial = folder.join(format!(".{}.{number}", std::process::id()));
    if fs::write(&partial, content).and_then(|()| fs::rename(&partial, folder.join(name))).is_err() {
        let _ = fs::remove_file(partial);
    }
}

impl std::fmt::Display for StepRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "tree {}", self.tree)?;
        if let Some(StepKey(after)) = self.after {
            writeln!(f, "after {after}")?;
        }
        for StepKey(taken) in &self.taken {
            writeln!(f, "taken {taken}")?;
        }
        if let Some(Layer { digest, size, diff_id, .. }) = self.layer {
            writeln!(f, "layer {digest} {size} {diff_id}")?;
        }
        writeln!(f, "end")
    }
}

impl StepRecord {
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let ["tree", tree] = lines.next()?[..] else { return None };
        let mut record = Self { tree: tree.parse().ok()?, layer: None, after: None, taken: Vec::new() };
        for line in lines {
            match line[..] {
                ["after", key] => record.after = Some(StepKey(key.parse().ok()?)),
                ["taken", key] => record.taken.push(StepKey(key.parse().ok()?)),
                ["layer", digest, size, diff_id] => {
                    let (digest, diff_id) = (digest.parse().ok()?, diff_id.parse().ok()?);
                    let (size, compression) = (size.parse().ok()?, Compression::Zstd);
                    record.layer = Some(Layer { digest, size, diff_id, compression });
                }
                ["end"] => return Some(record),
                _ => return None,
            }
        }
        None
    }
}

/// What the caches of bakes hold on to in a store.
#[derive(Debug)]
pub struct CachedSteps {
    folder: PathBuf,
    records: BTreeMap<StepKey, StepRecord>,
}

impl CachedSteps {
    /// Reads the records of a store. What can't be read is as good as absent.
    pub fn read(store: &Store) -> Self {
        let folder = cache_of(store).join(STEPS);
        let files = fs::read_dir(&folder).into_iter().flatten().flatten();
        let record = |file: fs::DirEntry| {
            let key = format!("sha256:{}", file.file_name().to_str()?).parse().ok()?;
            Some((StepKey(key), StepRecord::parse(&read(&file.path())?)?))
        };
        Self { records: files.filter_map(record).collect(), folder }
    }

    /// Returns the trees between the steps of what is kept, so that its next bake does again only what changed: those whose
    /// layers, and those of all steps before them, are. What such a step took files from is kept with its layers, which are no
    /// image's.
    pub fn needed(&self, is_kept: impl Fn(&Digest) -> bool) -> BTreeSet<Digest> {
        let is_whole = |key: &StepKey| {
            let (mut next, mut has_layers) = (Some(*key), false);
            // A key is a digest over its parent, so there is no way round in a circle.
            while let Some(key) = next {
                let Some(record) = self.records.get(&key) else { return false };
                has_layers |= record.layer.is_some();
                if record.layer.is_some_and(|layer| !is_kept(&layer.digest)) {
                    return false;
                }
                next = record.after;
            }
            // Tools have no layers: they are kept with what took from them.
            has_layers
        };
        let whole: Vec<StepKey> = self.records.keys().filter(|key| is_whole(key)).copied().collect();
        let mut needed: BTreeSet<Digest> = whole.iter().map(|key| self.records[key].tree).collect();
        let mut ahead: Vec<StepKey> =
            whole.iter().flat_map(|key| &self.records[key].taken).copied().collect();
        let mut seen = BTreeSet::new();
        while let Some(key) = ahead.pop() {
            let Some(record) = self.records.get(&key).filter(|_| seen.insert(key)) else { continue };
            needed.insert(record.tree);
            needed.extend(record.layer.map(|layer| layer.digest));
            ahead.extend(record.after.iter().chain(&record.taken));
        }
        needed
    }

    /// Forgets the records whose trees are gone.
    pub fn forget_missing(&self, store: &Store) {
        for (key, _) in self.records.iter().filter(|(_, record)| !store.trees.contains(&record.tree)) {
            // One that stays is told from a whole one by whoever finds it.
            let _ = fs::remove_file(self.folder.join(key.0.hex()));
        }
        for file in fs::read_dir(self.folder.with_file_name(FORESIGHTS)).into_iter().flatten().flatten() {
            let foresight = read(&file.path()).and_then(|text| Foresight::parse(&text));
            let is_there = |tree: &Digest| store.trees.contains(tree);
            if !foresight.is_some_and(|foresight| foresight.trees.iter().any(is_there)) {
                let _ = fs::remove_file(file.path());
            }
        }
        let of_trees = [PICKS, SURVEYS].map(|name| fs::read_dir(self.folder.with_file_name(name)));
        for file in of_trees.into_iter().flatten().flatten().flatten() {
            let name = file.file_name();
            let tree = name.to_str().and_then(|name| name.split('.').next());
            let tree = tree.and_then(|hex| format!("sha256:{hex}").parse().ok());
            if tree.is_some_and(|tree| !store.trees.contains(&tree)) {
                let _ = fs::remove_file(file.path());
            }
        }
    }
}

fn read(path: &Path) -> Option<String> {
    String::from_utf8(read_bytes(path, RECORD_BYTES_MAX)?).ok()
}

fn read_bytes(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let small = fs::metadata(path).is_ok_and(|meta| meta.len() <= limit);
    if small { fs::read(path).ok() } else { None }
}

/// Where the caches of a store are unless a baker was told otherwise.
pub(crate) fn cache_of(store: &Store) -> PathBuf {
    store.objects.root().parent().unwrap_or(Path::new("/")).join("cache")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_what_it_prints_and_a_torn_one_is_none() {
        let (digest, after) = (sha256(b""), Some(StepKey::new(None, "a")));
        let layer = Some(Layer { digest, size: 7, diff_id: digest, compression: Compression::Zstd });
        for (layer, after) in [(layer, after), (layer, None), (None, after), (None, None)] {
            let taken = after.into_iter().collect();
            let record = StepRecord { tree: digest, layer, after, taken };
            let text = record.to_string();
            assert_eq!(StepRecord::parse(&text), Some(record));
            assert_eq!(StepRecord::parse(&text[..text.len() - 5]), None);
        }
    }

    #[test]
    fn what_is_between_the_steps_of_a_kept_image_is_kept_and_no_more() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let cache = StepCache::open(&cache_of(&store)).unwrap();
        let compression = Compression::Zstd;
        let layer = |text: &str| Layer {
            digest: sha256(text.as_bytes()),
            size: 1,
            diff_id: sha256(b""),
            compression,
        };
        let tree = |text: &str| sha256(format!("tree {text}").as_bytes());
        let step = |text: &str, after, of: Option<&str>| {
            let key = StepKey::new(after, text);
            cache.set_step(
                key,
                &StepRecord { tree: tree(text), layer: of.map(layer), after, taken: Vec::new() },
            );
            Some(key)
        };
        for base in ["old base", "new base"] {
            let copied = step(&format!("copy on {base}"), step(base, None, Some(base)), Some("copy"));
            step(&format!("nothing on {base}"), copied, None);
        }
        step("left over", None, Some("left over"));
        cache.set_pick(&tree("copy"), "a", &sha256(b"taken"));
        assert_eq!(cache.pick(&tree("copy"), "a"), Some(sha256(b"taken")));
        assert_eq!((cache.pick(&tree("copy"), "b"), cache.pick(&tree("base"), "a")), (None, None));
        let foresight = Foresight { source: sha256(b"source"), trees: vec![tree("copy"), tree("base")] };
        cache.set_foresight("shop", &foresight);
        assert_eq!((cache.foresight("shop"), cache.foresight("blog")), (Some(foresight), None));
        let survey = Survey::default();
        cache.set_survey(&tree("copy"), &survey);
        assert_eq!((cache.survey(&tree("copy")), cache.survey(&tree("base"))), (Some(survey), None));
        let kept = [layer("new base").digest, layer("copy").digest];
        let found = CachedSteps::read(&store).needed(|digest| kept.contains(digest));
        // The layer of the copy is the same on both bases; the trees are not.
        assert_eq!(found, ["new base", "copy on new base", "nothing on new base"].map(tree).into());
        assert_eq!(CachedSteps::read(&store).records.len(), 7);
        CachedSteps::read(&store).forget_missing(&store);
        assert_eq!(CachedSteps::read(&store).records.len(), 0, "none of the trees is there");
        assert_eq!((cache.pick(&tree("copy"), "a"), cache.foresight("shop")), (None, None));
        assert_eq!(fs::read_dir(cache.surveys).unwrap().count(), 0);
    }

    #[test]
    fn what_a_kept_step_took_files_from_is_kept_with_all_that_it_was_made_from() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let cache = StepCache::open(&cache_of(&store)).unwrap();
        let digest = |text: &str| sha256(text.as_bytes());
        let step = |text: &str, after, taken: &[StepKey]| {
            let key = StepKey::new(after, text);
            let (digest_of, compression) = (digest(&format!("layer {text}")), Compression::Zstd);
            let layer = Layer { digest: digest_of, size: 1, diff_id: digest(""), compression };
            let (tree, taken) = (digest(&format!("tree {text}")), taken.to_vec());
            cache.set_step(key, &StepRecord { tree, layer: Some(layer), after, taken });
            key
        };
        let tools = step("tools", None, &[]);
        let (built, stale) = (step("build", Some(tools), &[]), step("stale", Some(tools), &[]));
        // The tools of a playbook have no layer.
        let laid = |text: &str| {
            let (key, tree) = (StepKey::new(None, text), digest(&format!("tree {text}")));
            cache.set_step(key, &StepRecord { tree, layer: None, after: None, taken: Vec::new() });
            key
        };
        let [ansible, _] = ["ansible", "old ansible"].map(laid);
        step("copy", None, &[built, ansible]);
        step("copy of what is gone", None, &[stale]);
        let needed = CachedSteps::read(&store).needed(|kept| *kept == digest("layer copy"));
        let expected =
            ["tree copy", "tree build", "layer build", "tree tools", "layer tools", "tree ansible"];
        assert_eq!(needed, expected.map(digest).into());
    }

    #[test]
    fn a_key_depends_on_its_parent_and_its_description() {
        let a = StepKey::new(None, "a");
        assert_ne!(a, StepKey::new(None, "b"));
        assert_ne!(StepKey::new(Some(a), "b"), StepKey::new(None, "b"));
    }
}
