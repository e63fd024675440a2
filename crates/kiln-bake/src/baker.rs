//! The one entry point: locks and bakes.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kiln_model::image::{Image, ImageConfig};
use kiln_model::recipe::{BaseRecipe, CopyStep, ImageRecipe, ImageSource, RecipeStep, RunStep};
use kiln_model::stack::Stack;
use kiln_model::{BaseName, Digest, ImageName};
use kiln_store::{Entry, Kind, Meta, Mtime, Store, Tree, TreePath};

use crate::accounts::Accounts;
use crate::bake_error::{BakeError, OpenBakerError, StepError};
use crate::base::BaseMaker;
use crate::cache::PackageCache;
use crate::cancel::Cancel;
use crate::copy::Pick;
use crate::debian::{APT_PATH, KEYRING_PATH};
use crate::fetch::Fetcher;
use crate::layer;
use crate::lock::{Lock, LockedBase};
use crate::locking::{LockError, LockOptions, Locker};
use crate::normalise::{Occasion, normalise};
use crate::oci::{self, HistoryLine};
use crate::progress::{Progress, Report, StepState};
use crate::sandbox::{Invocation, StepLimits};
use crate::source::{Source, SourceFiles};
use crate::steps::{StepCache, StepKey, StepRecord};
use crate::workbench::{DEFAULT_PATH, WorkError, Workbench, environment};

/// A step that takes this long hangs: the largest installations take a few minutes.
const STEP_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// The time of an image that no lock dates: the earliest that a zip archive can hold.
const UNDATED: u64 = 315_532_800;

/// How a machine bakes.
#[derive(Debug, Clone)]
pub struct BakerOptions {
    /// The keys that may sign an archive's index.
    pub keyring: PathBuf,
    /// Where apt is told its sources.
    pub apt: PathBuf,
    /// Where packages, records and work folders are; none means `cache` in the store's folder. It must be on a file system
    /// that an overlay can write to.
    pub cache: Option<PathBuf>,
    /// Whether every step is done again although its outcome is there.
    pub no_cache: bool,
    /// How long one step may take.
    pub step_timeout: Duration,
    /// What all steps may use together.
    pub limits: StepLimits,
    /// Calls it off.
    pub cancel: Cancel,
}

impl Default for BakerOptions {
    fn default() -> Self {
        Self {
            keyring: KEYRING_PATH.into(),
            apt: APT_PATH.into(),
            cache: None,
            no_cache: false,
            step_timeout: STEP_TIMEOUT,
            limits: StepLimits::default(),
            cancel: Cancel::default(),
        }
    }
}

/// Makes locks and images.
#[derive(Debug)]
pub struct Baker {
    store: Store,
    options: BakerOptions,
    fetcher: Fetcher,
    packages: PackageCache,
    steps: StepCache,
    workbench: Workbench,
}

impl Baker {
    /// Opens the folders of a bake.
    ///
    /// # Errors
    /// The file system refused.
    pub fn new(store: Store, options: BakerOptions) -> Result<Self, OpenBakerError> {
        let beside = store.objects.root().parent().unwrap_or(Path::new("/")).join("cache");
        let root = options.cache.clone().unwrap_or(beside);
        let at = |name: &str| root.join(name);
        let failed = |path: PathBuf| move |source| OpenBakerError { path, source };
        Ok(Self {
            fetcher: Fetcher::new(options.cancel.clone()),
            packages: PackageCache::open(at("packages")).map_err(failed(at("packages")))?,
            steps: StepCache::open(at("steps")).map_err(failed(at("steps")))?,
            workbench: Workbench::open(at("work"), options.limits).map_err(failed(at("work")))?,
            store,
            options,
        })
    }

    /// Pins what a stack's bases are made from. Entries of `existing` that still fit stay as they are, unless an upgrade is
    /// asked for.
    ///
    /// # Errors
    /// See [`LockError`]; nothing was changed.
    pub fn lock(
        &self,
        stack: &Stack,
        existing: Option<&Lock>,
        options: LockOptions,
        report: Report<'_>,
    ) -> Result<Lock, LockError> {
        let locker = Locker {
            fetcher: &self.fetcher,
            cancel: &self.options.cancel,
            apt: self.options.apt.clone(),
            keyring: self.options.keyring.clone(),
            options,
        };
        locker.lock(stack, existing, report)
    }

    /// Bakes images with all that they are made from; what has not changed is found by its content.
    ///
    /// # Errors
    /// See [`BakeError`].
    pub fn bake(
        &self,
        stack: &Stack,
        lock: &Lock,
        source: &Source,
        names: &BTreeSet<ImageName>,
        report: Report<'_>,
    ) -> Result<BTreeMap<ImageName, Image>, BakeError> {
        let _lease = self.store.leases.take("bake")?;
        let mut bake = Bake {
            baker: self,
            stack,
            lock,
            source,
            files: OnceCell::new(),
            report,
            bases: BTreeMap::new(),
            images: BTreeMap::new(),
            open: BTreeSet::new(),
            warned: Once::new(),
        };
        let stale: Vec<_> = bake
            .bases_of(names)?
            .into_iter()
            .filter_map(|base| lock.stale_base(base, &stack.bases[base]))
            .collect();
        if !stale.is_empty() {
            return Err(BakeError::Stale { stale });
        }
        for name in names {
            bake.image(name)?;
        }
        names.iter().map(|name| Ok((name.clone(), bake.finish(name)?))).collect()
    }
}

/// One bake.
struct Bake<'a> {
    baker: &'a Baker,
    stack: &'a Stack,
    lock: &'a Lock,
    source: &'a Source,
    files: OnceCell<SourceFiles>,
    report: Report<'a>,
    bases: BTreeMap<BaseName, Made>,
    images: BTreeMap<ImageName, Made>,
    /// Images that are being made: one that needs itself would never end.
    open: BTreeSet<ImageName>,
    /// Whether it was said that steps are not limited.
    warned: Once,
}

/// What was made so far of a base or an image.
#[derive(Debug, Clone)]
struct Made {
    key: Option<StepKey>,
    tree: MadeTree,
    history: Vec<HistoryLine>,
    config: ImageConfig,
    time: u64,
    /// Why it does not follow from recipe and lock alone.
    unproven: Vec<String>,
}

/// A tree in memory, in the store, or both: a bake that finds everything loads none.
#[derive(Debug, Clone)]
struct MadeTree {
    digest: Option<Digest>,
    loaded: OnceCell<Tree>,
}

impl MadeTree {
    fn get(&self, store: &Store) -> Result<&Tree, StepError> {
        if self.loaded.get().is_none() {
            let tree = match &self.digest {
                Some(digest) => store.trees.load(digest)?,
                None => Tree::new(),
            };
            let _ = self.loaded.set(tree);
        }
        Ok(self.loaded.get().expect("it was set just now"))
    }
}

/// One step's place, for progress and errors.
struct Place {
    subject: String,
    step: usize,
    steps: usize,
    what: String,
}

impl Place {
    fn failed(&self, source: StepError) -> BakeError {
        if matches!(
            source,
            StepError::Cancelled
                | StepError::Work(WorkError::Sandbox(crate::sandbox::SandboxError::Cancelled))
        ) {
            return BakeError::Cancelled;
        }
        let Self { subject, step, steps, what } = self;
        let (subject, what) = (subject.clone(), what.clone());
        BakeError::Step { subject, step: *step, steps: *steps, what, source: Box::new(source) }
    }

    fn progress(&self, state: StepState) -> Progress {
        let (subject, what) = (self.subject.clone(), self.what.clone());
        Progress { subject, step: self.step, steps: self.steps, what, state }
    }
}

impl<'a> Bake<'a> {
    /// Finds the bases that images are made from.
    fn bases_of(&self, names: &BTreeSet<ImageName>) -> Result<BTreeSet<&'a BaseName>, BakeError> {
        let mut bases = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut queue: Vec<&ImageName> = names.iter().collect();
        while let Some(name) = queue.pop() {
            match &self.recipe(name)?.from {
                _ if !seen.insert(name.clone()) => {}
                ImageSource::Scratch => {}
                ImageSource::Image(parent) => queue.push(parent),
                ImageSource::Base(base) => {
                    let known = self.stack.bases.get_key_value(base);
                    bases.insert(known.ok_or_else(|| BakeError::UnknownBase(base.clone()))?.0);
                }
            }
        }
        Ok(bases)
    }

    fn recipe(&self, name: &ImageName) -> Result<&'a ImageRecipe, BakeError> {
        self.stack.images.get(name).ok_or_else(|| BakeError::UnknownImage(name.clone()))
    }

    fn files(&self) -> Result<&SourceFiles, BakeError> {
        if self.files.get().is_none() {
            let _ = self.files.set(SourceFiles::open(self.source, &self.baker.store.snapshots)?);
        }
        Ok(self.files.get().expect("it was set just now"))
    }

    fn image(&mut self, name: &ImageName) -> Result<Made, BakeError> {
        if let Some(made) = self.images.get(name) {
            return Ok(made.clone());
        }
        if !self.open.insert(name.clone()) {
            return Err(BakeError::Circle(name.clone()));
        }
        let recipe = self.recipe(name)?;
        let mut made = match &recipe.from {
            ImageSource::Scratch => Made {
                key: None,
                tree: MadeTree { digest: None, loaded: OnceCell::new() },
                history: Vec::new(),
                config: ImageConfig::default(),
                time: UNDATED,
                unproven: Vec::new(),
            },
            ImageSource::Base(base) => self.base(base)?,
            ImageSource::Image(parent) => self.image(&parent.clone())?,
        };
        made.config = oci::merge(&made.config, &recipe.config);
        for (index, step) in recipe.steps.iter().enumerate() {
            let place = Place {
                subject: format!("image {name}"),
                step: index + 1,
                steps: recipe.steps.len(),
                what: describe(step),
            };
            self.step(&mut made, step, &place)?;
        }
        self.open.remove(name);
        self.images.insert(name.clone(), made.clone());
        Ok(made)
    }

    /// Does one step, or finds its outcome.
    fn step(&self, made: &mut Made, step: &RecipeStep, place: &Place) -> Result<(), BakeError> {
        let began = Instant::now();
        (self.report)(place.progress(StepState::Started));
        let (key, pick) = match step {
            RecipeStep::Copy(copy) => {
                let pick = Pick::new(copy, self.files()?).map_err(|error| place.failed(error.into()))?;
                (StepKey::new(made.key, &copy_text(copy, &pick, made.time)), Some(pick))
            }
            RecipeStep::Run(run) => (StepKey::new(made.key, &run_text(run, made)), None),
        };
        let change = |tree: &mut Tree| match (step, &pick) {
            (RecipeStep::Copy(copy), Some(pick)) => self.copy(copy, pick, made, tree),
            (RecipeStep::Run(run), _) => self.run(run, made, tree),
            (RecipeStep::Copy(_), None) => unreachable!("a copy step was picked above"),
        };
        let cached = self.found(key);
        let (record, tree) = match cached {
            Some(record) => (record, OnceCell::new()),
            None => self.made_of(made, key, change).map_err(|error| place.failed(error))?,
        };
        made.key = Some(key);
        made.tree = MadeTree { digest: Some(record.tree), loaded: tree };
        if matches!(step, RecipeStep::Run(run) if run.network) {
            made.unproven.push(format!("`{}` could reach the network", place.what));
        }
        made.history.push(HistoryLine { what: place.what.clone(), layer: record.layer });
        let state = StepState::Finished { cached: cached.is_some(), elapsed: began.elapsed() };
        (self.report)(place.progress(state));
        Ok(())
    }

    fn found(&self, key: StepKey) -> Option<StepRecord> {
        if self.baker.options.no_cache { None } else { self.baker.steps.step(key, &self.baker.store) }
    }

    /// Changes a tree, stores it and its layer, and notes the outcome.
    fn made_of(
        &self,
        made: &Made,
        key: StepKey,
        change: impl FnOnce(&mut Tree) -> Result<(), StepError>,
    ) -> Result<(StepRecord, OnceCell<Tree>), StepError> {
        let store = &self.baker.store;
        if self.baker.options.cancel.is_set() {
            return Err(StepError::Cancelled);
        }
        let old = made.tree.get(store)?;
        let mut new = old.clone();
        change(&mut new)?;
        let layer = layer::store(&store.blobs, &store.objects, old, &new)?;
        let record = StepRecord { tree: store.trees.put(&new)?, layer };
        self.baker.steps.set_step(key, &record);
        Ok((record, OnceCell::from(new)))
    }

    fn copy(&self, step: &CopyStep, pick: &Pick, made: &Made, tree: &mut Tree) -> Result<(), StepError> {
        let store = &self.baker.store;
        let owner = Accounts::read(tree, &store.objects)?.resolve(&step.owner)?;
        let files = self.files.get().expect("the step was picked from them");
        let batch = store.objects.batch();
        pick.apply(step, &owner, files, tree, &batch, made.time)?;
        Ok(batch.commit()?)
    }

    fn run(&self, step: &RunStep, made: &Made, tree: &mut Tree) -> Result<(), StepError> {
        let baker = self.baker;
        self.warn_of_missing_limits();
        let accounts = Accounts::read(tree, &baker.store.objects)?;
        let user = accounts.resolve(&step.user)?;
        let mut env = environment(made.time);
        env.insert("HOME".into(), accounts.home(user.uid).into());
        env.extend(made.config.env.clone());
        env.extend(step.env.clone());
        let workdir = workdir(step, made);
        make_workdir(tree, &workdir, made.time)?;
        let invocation = Invocation {
            argv: &step.argv,
            env: &env,
            workdir: &workdir,
            user,
            network: step.network,
            timeout: baker.options.step_timeout,
        };
        let cancel = &baker.options.cancel;
        baker.workbench.run(&baker.store, tree.clone(), tree, &invocation, made.time, cancel)?;
        let batch = baker.store.objects.batch();
        normalise(tree, Occasion::Step, &baker.store.objects, &batch, made.time)?;
        Ok(batch.commit()?)
    }

    fn warn_of_missing_limits(&self) {
        self.warned.call_once(|| {
            if let Some(reason) = self.baker.workbench.unenforced() {
                let what = format!("what commands use of this machine is not limited: {reason}");
                let subject = "sandbox".into();
                (self.report)(Progress { subject, step: 1, steps: 1, what, state: StepState::Warned });
            }
        });
    }

    fn base(&mut self, name: &BaseName) -> Result<Made, BakeError> {
        if let Some(made) = self.bases.get(name) {
            return Ok(made.clone());
        }
        let locked = &self.lock.bases[name];
        let BaseRecipe::Debian(recipe) = &self.stack.bases[name];
        // The name is no part of what a base is: two stacks with the same packages share it.
        let key = StepKey::new(None, &locked.describe());
        let what = format!("debian {} with {} packages", recipe.suite, locked.packages.len());
        let (record, tree) = match self.found(key) {
            Some(record) => {
                let place = Place { subject: format!("base {name}"), step: 1, steps: 1, what: what.clone() };
                let state = StepState::Finished { cached: true, elapsed: Duration::ZERO };
                (self.report)(place.progress(state));
                (record, OnceCell::new())
            }
            None => self.make_base(name, locked, key)?,
        };
        let mut config = ImageConfig::default();
        config.env.insert("PATH".into(), DEFAULT_PATH.into());
        let made = Made {
            key: Some(key),
            tree: MadeTree { digest: Some(record.tree), loaded: tree },
            history: vec![HistoryLine { what, layer: record.layer }],
            config,
            time: locked.locked_at,
            unproven: Vec::new(),
        };
        self.bases.insert(name.clone(), made.clone());
        Ok(made)
    }

    fn make_base(
        &self,
        name: &BaseName,
        locked: &LockedBase,
        key: StepKey,
    ) -> Result<(StepRecord, OnceCell<Tree>), BakeError> {
        let baker = self.baker;
        let maker = BaseMaker {
            store: &baker.store,
            fetcher: &baker.fetcher,
            packages: &baker.packages,
            workbench: &baker.workbench,
            cancel: &baker.options.cancel,
            apt: &baker.options.apt,
            timeout: baker.options.step_timeout,
        };
        let BaseRecipe::Debian(recipe) = &self.stack.bases[name];
        let count = locked.packages.len();
        let step = |step, what: String| Place { subject: format!("base {name}"), step, steps: 4, what };
        let place = step(1, format!("fetch {count} packages"));
        let total = locked.packages.iter().map(|package| package.size).sum();
        let done = AtomicU64::new(0);
        let tell = |bytes| {
            let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
            (self.report)(place.progress(StepState::Advanced { done, total }));
        };
        let files = self.timed(&place, || maker.fetch(recipe, locked, &tell))?;
        let place = step(2, format!("unpack {count} packages"));
        let packages = self.timed(&place, || maker.unpack(locked, &files))?;
        self.warn_of_missing_limits();
        let place = step(3, "configure packages".into());
        let tree = self.timed(&place, || maker.install(locked, &packages))?;
        let nothing = Made {
            key: None,
            tree: MadeTree { digest: None, loaded: OnceCell::new() },
            history: Vec::new(),
            config: ImageConfig::default(),
            time: locked.locked_at,
            unproven: Vec::new(),
        };
        let place = step(4, "store the image's layer".into());
        self.timed(&place, || {
            self.made_of(&nothing, key, |empty| {
                *empty = tree;
                Ok(())
            })
        })
    }

    fn timed<T>(&self, place: &Place, work: impl FnOnce() -> Result<T, StepError>) -> Result<T, BakeError> {
        let began = Instant::now();
        (self.report)(place.progress(StepState::Started));
        let done = work().map_err(|error| place.failed(error))?;
        (self.report)(place.progress(StepState::Finished { cached: false, elapsed: began.elapsed() }));
        Ok(done)
    }

    /// Writes an image's config, manifest and record.
    fn finish(&self, name: &ImageName) -> Result<Image, BakeError> {
        let made = &self.images[name];
        let steps = made.history.len();
        let what = "write the manifest".to_owned();
        let place = Place { subject: format!("image {name}"), step: steps, steps, what };
        self.write_image(made).map_err(|error| place.failed(error))
    }

    fn write_image(&self, made: &Made) -> Result<Image, StepError> {
        let store = &self.baker.store;
        let config = oci::config(&made.config, &made.history, made.time);
        let config_digest = crate::hashing::sha256(&config);
        let manifest = oci::manifest(&config_digest, config.len(), &made.history);
        let digest = crate::hashing::sha256(&manifest);
        if !self.baker.options.no_cache
            && store.blobs.contains(&config_digest)
            && store.blobs.contains(&digest)
            && let Ok(image) = store.images.get(&digest)
        {
            return Ok(image);
        }
        store.blobs.put_bytes(&config)?;
        store.blobs.put_bytes(&manifest)?;
        let tree = made.tree.get(store)?;
        let image = Image {
            manifest: digest,
            tree: match made.tree.digest {
                Some(digest) => digest,
                None => store.trees.put(tree)?,
            },
            config: made.config.clone(),
            size_bytes: tree.size_bytes(),
            unproven: made.unproven.clone(),
        };
        store.images.put(&image)?;
        Ok(image)
    }
}

/// Names a step as the recipe has it, for progress, errors and the image's history.
fn describe(step: &RecipeStep) -> String {
    match step {
        RecipeStep::Copy(copy) => format!("copy {} {}", copy.from, copy.to),
        RecipeStep::Run(run) if run.network => format!("run with network: {}", run.argv.join(" ")),
        RecipeStep::Run(run) => format!("run {}", run.argv.join(" ")),
    }
}

fn copy_text(step: &CopyStep, pick: &Pick, time: u64) -> String {
    let CopyStep { to, owner, mode, .. } = step;
    format!("copy to {to:?} owner {owner:?} mode {mode:?} time {time}\n{}", pick.describe())
}

fn run_text(step: &RunStep, made: &Made) -> String {
    let RunStep { argv, env, user, network, .. } = step;
    let (inherited, workdir, time) = (&made.config.env, workdir(step, made), made.time);
    format!(
        "run {argv:?} env {inherited:?} {env:?} workdir {workdir:?} user {user:?} network {network} time {time}"
    )
}

fn workdir(step: &RunStep, made: &Made) -> String {
    let own = if step.workdir.is_empty() { &made.config.workdir } else { &step.workdir };
    if own.is_empty() { "/".into() } else { own.clone() }
}

/// Makes the working folder where the image has none, as Docker does.
fn make_workdir(tree: &mut Tree, workdir: &str, time: u64) -> Result<(), StepError> {
    let path = TreePath::parse(workdir)?;
    if tree.resolve(&path, true).is_ok_and(|real| tree.get(&real).is_some_and(Entry::is_dir)) {
        return Ok(());
    }
    let mtime = Mtime { secs: time as i64, nanos: 0 };
    let folder = Entry { meta: Meta { mode: 0o755, mtime, ..Meta::default() }, kind: Kind::Dir };
    let mut at = TreePath::root();
    for name in path.names() {
        at = tree.resolve(&at.join(name)?, true)?;
        if tree.get(&at).is_none() {
            tree.insert(&at, folder.clone())?;
        }
    }
    Ok(())
}
