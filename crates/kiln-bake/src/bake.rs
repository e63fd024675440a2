//! One bake: every base, stage and image after what it is made from, side by side where nothing says otherwise.

mod beside;
mod foreseen;
mod made_from;
mod outside;
mod parts;
mod provision;
mod stages;
mod storing;
mod surveyed;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use kiln_model::image::Image;
use kiln_model::recipe::{BaseRecipe, CopyStep, DebianVariant, RecipeStep, RunStep};
use kiln_model::stack::Stack;
use kiln_model::{BaseName, Digest, ImageName};
use kiln_store::{Entry, Kind, Meta, Mtime, Store, Tree, TreePath};

use self::beside::{Ahead, Listing};
use self::foreseen::Foreseen;
pub use self::made_from::{Baked, Known, MadePart};
use self::stages::Dockerfile;
pub(crate) use self::stages::outside_of;
pub use self::stages::{OutsideInputs, Repository, check_dockerfiles, outside_inputs};
use self::storing::{Outcome, Storing};
use self::surveyed::{Earlier, Surveys};
use crate::accounts::Accounts;
use crate::attest::Materials;
use crate::bake_error::{BakeError, StepError};
use crate::baker::Baker;
use crate::base::BaseMaker;
use crate::beside::{Beside, Rank};
use crate::cancel::Cancel;
use crate::copy::Pick;
use crate::debian::unpack::{self, Unpacked};
use crate::dockerfile::RemoteFiles;
use crate::fetch::Fetcher;
use crate::graph;
use crate::lock::{Lock, LockedBase};
use crate::normalise::{Occasion, normalise};
use crate::oci::{self, HistoryLine};
use crate::progress::{Progress, Report, StepState};
use crate::sandbox::{Invocation, SandboxMount, User};
use crate::secrets::Hidden;
use crate::settings::Settings;
use crate::source::{Source, SourceFiles};
use crate::stage::MountError;
use crate::steps::{Claims, StepKey, StepRecord};
use crate::workbench::{DEFAULT_PATH, Shown, WorkError, environment};

/// The time of an image that no lock dates: the earliest that a zip archive can hold.
const UNDATED: u64 = 315_532_800;

/// How many steps of a stage or image are being stored at a time: what goes wrong with one is told before many more are done.
const STORING_MAX: usize = 2;

/// One bake.
pub(crate) struct Bake<'a> {
    baker: &'a Baker,
    stack: &'a Stack,
    lock: &'a Lock,
    /// The images that are asked for.
    names: &'a BTreeSet<ImageName>,
    /// They and all that they are made from, each with what it is made from.
    parts: BTreeMap<Part, BTreeSet<Part>>,
    /// What copies are made of; none where nothing is copied.
    files: Option<Arc<SourceFiles>>,
    /// The Dockerfiles of the images that have one.
    dockerfiles: BTreeMap<ImageName, Dockerfile>,
    report: Report<'a>,
    /// Set when the baker's is, and when something of this bake failed.
    cancel: Cancel,
    fetcher: Fetcher,
    /// One base is fetched at a time: a mirror is asked by as many connections as is polite, and for each package once.
    fetching: Mutex<()>,
    /// A step that several images begin with is done once.
    claims: Claims,
    /// What is read before it is asked for.
    foreseen: Foreseen,
    /// What is being gathered for the provenance of new images: each has its own, whatever it begins with.
    materials: Mutex<BTreeMap<ImageName, Beside<Option<Materials>>>>,
    /// Whether it was said that steps are not limited.
    warned: Once,
}

/// What is made in one piece.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Base(BaseName),
    /// An image of a registry.
    Registry(String),
    /// A stage of the Dockerfile of an image.
    Stage(ImageName, usize),
    Image(ImageName),
}

/// What was made so far of a base or an image.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    /// The finished image, where it was asked for.
    image: Option<Image>,
    key: Option<StepKey>,
    tree: MadeTree,
    /// The last line lacks its layer for as long as that is being stored.
    history: Vec<HistoryLine>,
    /// What is being stored of the last steps; nothing in what is finished.
    storing: Vec<Arc<Storing>>,
    /// What is being listed of an image that was asked for.
    listing: Option<Arc<Listing>>,
    /// The image that was asked for, where the next step is its last and takes a while.
    last_of: Option<ImageName>,
    /// The tree before the last step, where that was done and not found.
    before: Option<Arc<OnceLock<Tree>>>,
    earlier: Earlier,
    config: Settings,
    time: u64,
    /// Why it does not follow from recipe and lock alone.
    unproven: Vec<String>,
    /// Whether a command comes, now or later.
    leads_to_command: bool,
}

/// A tree in memory, in the store, or both: a bake that finds everything loads none.
#[derive(Debug, Clone)]
struct MadeTree {
    digest: Option<Digest>,
    /// One tree for all that is made from it.
    loaded: Arc<OnceLock<Tree>>,
}

impl Made {
    fn nothing(time: u64) -> Self {
        Self {
            image: None,
            key: None,
            tree: MadeTree { digest: None, loaded: Arc::default() },
            history: Vec::new(),
            storing: Vec::new(),
            listing: None,
            last_of: None,
            before: None,
            earlier: Earlier::default(),
            config: Settings::default(),
            time,
            unproven: Vec::new(),
            leads_to_command: false,
        }
    }
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

/// A command of a recipe or a Dockerfile.
struct Command<'a> {
    argv: &'a [String],
    /// What is set beside what every command has.
    env: BTreeMap<String, String>,
    workdir: &'a str,
    user: &'a str,
    network: bool,
    /// What it has and nobody else may.
    hidden: Hidden,
    /// The tree before the step before it, loaded, if that was done just now.
    before: Option<Arc<OnceLock<Tree>>>,
}

/// One step that is to be done or found.
struct Step<'a> {
    place: &'a Place,
    began: Instant,
    /// What the image's history says.
    line: &'a str,
    /// All that decides what comes of it, beside what it is done to.
    text: String,
    /// What files are taken from.
    taken: Vec<StepKey>,
}

/// One step's place, for progress and errors.
#[derive(Debug, Clone)]
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
                | StepError::Mount(MountError::Cancelled)
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
    /// Finds out what is to be made.
    pub(crate) fn new(
        baker: &'a Baker,
        stack: &'a Stack,
        lock: &'a Lock,
        source: &'a Source,
        names: &'a BTreeSet<ImageName>,
        report: Report<'a>,
    ) -> Result<Self, BakeError> {
        let foreseen = Foreseen::begin(baker, source, &stack.name);
        let reached = parts::reached(stack, names)?;
        let opened = || SourceFiles::open(source, &baker.store.snapshots).map(Arc::new);
        let files = reached.iter().any(|name| parts::reads_files(stack, name)).then(opened).transpose()?;
        let dockerfiles = match &files {
            Some(files) => Dockerfile::all(stack, &reached, files)?,
            None => BTreeMap::new(),
        };
        let parts = parts::parts(stack, names, &dockerfiles)?;
        let outside = parts.keys().filter_map(|part| match part {
            Part::Base(base) => lock.stale_base(base, &stack.bases[base]),
            Part::Registry(name) => lock.stale_image(name),
            Part::Stage(..) | Part::Image(_) => None,
        });
        let mut stale: Vec<_> = outside.collect();
        for RemoteFiles { bare, repositories, .. } in dockerfiles.values().map(|it| it.plan.remote_files()) {
            stale.extend(bare.iter().filter_map(|url| lock.stale_url(url)));
            stale.extend(repositories.iter().filter_map(|(address, it)| lock.stale_commit(address, it)));
        }
        if !stale.is_empty() {
            return Err(BakeError::Stale { stale });
        }
        let cancel = baker.options.cancel.part();
        let fetcher = baker.fetcher.under(cancel.clone());
        let (fetching, claims, warned) = (Mutex::new(()), Claims::default(), Once::new());
        Ok(Self {
            baker,
            stack,
            lock,
            names,
            parts,
            files,
            dockerfiles,
            report,
            cancel,
            fetcher,
            fetching,
            claims,
            foreseen,
            materials: Mutex::default(),
            warned,
        })
    }

    /// Makes it.
    pub(crate) fn all(&self) -> Result<BTreeMap<Part, Made>, BakeError> {
        self.warn_of_what_is_unused();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let make = |part: &Part, from: BTreeMap<Part, Made>| match part {
            Part::Base(name) => self.base(name),
            Part::Registry(name) => self.of_registry(name),
            Part::Stage(image, index) => self.stage(image, *index, &from),
            Part::Image(name) => self.image(name, from),
        };
        let made = graph::grow(&self.parts, cores, || self.cancel.set(), make);
        self.foreseen.note(self.baker, &self.stack.name);
        made
    }

    /// Begins to find out what is said about an image that was asked for, if it is new and all of it is made.
    fn list(&self, name: &ImageName, made: &mut Made) {
        if !self.names.contains(name) || made.storing.is_empty() {
            return;
        }
        if made.listing.is_none() {
            let (surveys, earlier) = (Surveys::of_baker(self.baker), made.earlier.clone());
            made.listing = Some(Arc::new(beside::list(surveys, earlier, &made.tree.loaded, None)));
        }
        self.gather(name);
    }

    /// Begins to gather what the provenance of an image says that it was made from.
    fn gather(&self, name: &ImageName) {
        let mut all = self.materials.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(name.clone()).or_insert_with(|| {
            let (stack, lock, name) = (self.stack.clone(), self.lock.clone(), name.clone());
            let files = self.files.clone();
            let open = move || Ok(files.clone().expect("they are opened where anything is copied"));
            // Whoever needs it tries again, and tells why it can't be.
            Beside::begin(Rank::Late, move || Materials::of(&stack, &lock, &name, open).ok())
        });
    }

    /// Returns the images that were asked for; nobody waits until all else that was made is out of memory.
    pub(crate) fn images(self, made: BTreeMap<Part, Made>) -> Baked {
        let materials = self.materials.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut baked = Baked::default();
        for (part, made) in &made {
            let (Part::Image(name), Some(image)) = (part, &made.image) else { continue };
            baked.images.insert(name.clone(), image.clone());
            let bills = made.listing.as_ref().and_then(|listing| listing.end()).flatten();
            let materials = materials.get(name).and_then(Beside::end).flatten();
            baked.known.insert(name.clone(), Known { bills, materials });
        }
        self.baker.workbench.leave((made, self.files, self.dockerfiles));
        baked
    }

    fn image(&self, name: &ImageName, from: BTreeMap<Part, Made>) -> Result<Made, BakeError> {
        let recipe = &self.stack.images[name];
        // An image begins with one thing; its playbooks need their tools beside it.
        let begins = parts::of_source(name, &recipe.from, &self.dockerfiles);
        let mut made = begins.map_or_else(|| Made::nothing(UNDATED), |part| from[&part].clone());
        made.image = None;
        made.config = made.config.with(&recipe.config);
        for (index, step) in recipe.steps.iter().enumerate() {
            let is_last = index + 1 == recipe.steps.len() && self.names.contains(name);
            made.last_of = (is_last && !matches!(step, RecipeStep::Copy(_))).then(|| name.clone());
            let place = Place {
                subject: format!("image {name}"),
                step: index + 1,
                steps: recipe.steps.len(),
                what: describe(step),
            };
            made.leads_to_command = recipe.steps[index..].iter().any(is_command);
            match step {
                RecipeStep::Copy(copy) => self.copy_step(&mut made, copy, &place)?,
                RecipeStep::Run(run) => self.run_step(&mut made, run, &place)?,
                RecipeStep::Provision(play) => {
                    self.provision(&mut made, play, &from[&Part::Base(play.tools.clone())], &place)?;
                }
            }
        }
        self.list(name, &mut made);
        settle(&mut made)?;
        if self.names.contains(name) {
            made.image = Some(self.finish(name, &made)?);
        }
        Ok(made)
    }

    /// Copies files, or finds what came of it.
    fn copy_step(&self, made: &mut Made, copy: &CopyStep, place: &Place) -> Result<(), BakeError> {
        let (from, began) = (made.clone(), self.begin(place));
        let pick = Pick::new(copy, self.files()).map_err(|error| place.failed(error.into()))?;
        let text = copy_text(copy, &pick, from.time);
        let step = Step { place, began, line: &place.what, text, taken: Vec::new() };
        self.perform(made, step, |tree| self.copy(copy, &pick, &from, tree))
    }

    /// Runs a command, or finds what came of it.
    fn run_step(&self, made: &mut Made, run: &RunStep, place: &Place) -> Result<(), BakeError> {
        let (from, began) = (made.clone(), self.begin(place));
        let text = run_text(run, &from);
        let step = Step { place, began, line: &place.what, text, taken: Vec::new() };
        self.perform(made, step, |tree| self.run(run, &from, tree))?;
        if run.network {
            made.unproven.push(format!("`{}` could reach the network", place.what));
        }
        Ok(())
    }

    /// Tells that a step begins, and returns when.
    fn begin(&self, place: &Place) -> Instant {
        (self.report)(place.progress(StepState::Started));
        Instant::now()
    }

    /// Makes what a step describes, or finds it.
    fn perform(
        &self,
        made: &mut Made,
        step: Step<'_>,
        change: impl FnOnce(&mut Tree) -> Result<(), StepError>,
    ) -> Result<(), BakeError> {
        if self.reuse(made, &step)? {
            return Ok(());
        }
        let key = StepKey::new(made.key, &step.text);
        // Whoever makes the same comes to an end before, and then it is found.
        let claim = self.claims.claim(key);
        if self.reuse(made, &step)? {
            return Ok(());
        }
        // What comes after something new is new, too.
        if made.leads_to_command {
            self.baker.workbench.expect();
        }
        let place = step.place;
        let (new, ahead) = self.changed(made, change).map_err(|error| place.failed(error))?;
        settle_all_but(made, STORING_MAX - 1)?;
        let (old, after) = (Arc::clone(&made.tree.loaded), made.key);
        let outcome = Outcome { old, new: Arc::clone(&new), key, after, taken: step.taken };
        let to = (&self.baker.store, &self.baker.steps);
        made.earlier.push(&made.tree);
        made.listing = ahead.map(|ahead| {
            let (surveys, earlier) = (Surveys::of_baker(self.baker), made.earlier.clone());
            Arc::new(beside::list(surveys, earlier, &new, Some(ahead)))
        });
        made.storing.push(Arc::new(Storing::begin(to, outcome, claim, place, made.history.len())));
        made.key = Some(key);
        made.before = Some(Arc::clone(&made.tree.loaded));
        made.tree = MadeTree { digest: None, loaded: new };
        made.history.push(HistoryLine { what: step.line.to_owned(), layer: None });
        (self.report)(place.progress(StepState::Finished { cached: false, elapsed: step.began.elapsed() }));
        Ok(())
    }

    /// Finds what a step describes; whether it was there.
    fn reuse(&self, made: &mut Made, step: &Step<'_>) -> Result<bool, BakeError> {
        let key = StepKey::new(made.key, &step.text);
        let Some(mut record) = self.found(key) else { return Ok(false) };
        // The same files may come from elsewhere by now, and it is that which is to be kept.
        if record.taken != step.taken {
            record.taken = step.taken.clone();
            self.baker.steps.set_step(key, &record);
        }
        settle(made)?;
        made.listing = None;
        made.key = Some(key);
        made.before = None;
        made.earlier = Earlier::default();
        made.tree = MadeTree { digest: Some(record.tree), loaded: Arc::default() };
        made.history.push(HistoryLine { what: step.line.to_owned(), layer: record.layer });
        (self.report)(
            step.place.progress(StepState::Finished { cached: true, elapsed: step.began.elapsed() }),
        );
        Ok(true)
    }

    fn files(&self) -> &SourceFiles {
        self.files.as_ref().expect("they are opened where anything is copied")
    }

    fn found(&self, key: StepKey) -> Option<StepRecord> {
        if self.baker.options.no_cache { None } else { self.baker.steps.step(key, &self.baker.store) }
    }

    /// Changes a tree, and leaves what was made so far as it is. Beside a command that is an image's last, what is known of the image
    /// by then is looked through.
    fn changed(
        &self,
        made: &mut Made,
        change: impl FnOnce(&mut Tree) -> Result<(), StepError>,
    ) -> Result<(Arc<OnceLock<Tree>>, Option<Ahead>), StepError> {
        if self.cancel.is_set() {
            return Err(StepError::Cancelled);
        }
        if let (Some(digest), None) = (&made.tree.digest, made.tree.loaded.get())
            && let Some(tree) = self.foreseen.take(digest)
        {
            let _ = made.tree.loaded.set(tree);
        }
        let mut new = made.tree.get(&self.baker.store)?.clone();
        let image = made.last_of.take();
        let ahead = image
            .is_some()
            .then(|| Ahead::begin(Surveys::of_baker(self.baker), made.earlier.clone(), &made.tree));
        if let Some(image) = image {
            self.gather(&image);
        }
        change(&mut new)?;
        Ok((Arc::new(OnceLock::from(new)), ahead))
    }

    fn copy(&self, step: &CopyStep, pick: &Pick, made: &Made, tree: &mut Tree) -> Result<(), StepError> {
        let store = &self.baker.store;
        let owner = Accounts::read(tree, &store.objects)?.resolve(&step.owner)?;
        let batch = store.objects.batch();
        pick.apply(step, &owner, self.files(), tree, &batch, made.time)?;
        Ok(batch.commit()?)
    }

    fn run(&self, step: &RunStep, made: &Made, tree: &mut Tree) -> Result<(), StepError> {
        let mut env = made.config.run.env.clone();
        env.extend(step.env.clone());
        let workdir = workdir(step, made);
        make_workdir(tree, &workdir, &User::default(), made.time)?;
        let command = Command {
            argv: &step.argv,
            env,
            workdir: &workdir,
            user: &step.user,
            network: step.network,
            hidden: Hidden::default(),
            before: made.before.clone(),
        };
        self.command(&command, tree.clone(), &[], made.time, tree)
    }

    /// Runs a command over `shown`, and takes what it changed into `tree`.
    fn command(
        &self,
        command: &Command<'_>,
        shown: Tree,
        mounts: &[SandboxMount],
        time: u64,
        tree: &mut Tree,
    ) -> Result<(), StepError> {
        let baker = self.baker;
        self.warn_of_missing_limits();
        let accounts = Accounts::read(tree, &baker.store.objects)?;
        let user = accounts.resolve(command.user)?;
        let mut env = environment(time);
        env.insert("HOME".into(), accounts.home(user.uid).into());
        env.extend(command.env.clone());
        let invocation = Invocation {
            argv: command.argv,
            env: &env,
            workdir: command.workdir,
            user,
            network: command.network,
            timeout: baker.options.step_timeout,
            mounts,
            hidden: &command.hidden,
        };
        let before = command.before.as_ref().and_then(|before| before.get().cloned());
        let shown = Shown { tree: shown, before };
        baker.workbench.run(&baker.store, shown, tree, &invocation, time, &self.cancel)?;
        let batch = baker.store.objects.batch();
        normalise(tree, Occasion::Step, &baker.store.objects, &batch, time)?;
        Ok(batch.commit()?)
    }

    /// An ONBUILD of a base may use what is told here: it is a warning, and no more.
    fn warn_of_what_is_unused(&self) {
        for (image, Dockerfile { plan, .. }) in &self.dockerfiles {
            let args = plan.unused_args.iter();
            let args =
                args.map(|name| format!("`args` has `{name}`, which no ARG of {} declares", plan.file));
            let secrets = plan.unused_secrets.iter();
            let secrets =
                secrets.map(|id| format!("`secrets` has `{id}`, which no RUN of {} mounts", plan.file));
            for what in args.chain(secrets) {
                let subject = format!("image {image}");
                (self.report)(Progress { subject, step: 1, steps: 1, what, state: StepState::Warned });
            }
        }
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

    fn base(&self, name: &BaseName) -> Result<Made, BakeError> {
        let locked = &self.lock.bases[name];
        let BaseRecipe::Debian(recipe) = &self.stack.bases[name];
        // The name is no part of what a base is: two stacks with the same packages share it.
        let key = StepKey::new(None, &locked.describe());
        let what = format!("debian {} with {} packages", recipe.suite, locked.packages.len());
        let _claim = self.claims.claim(key);
        let (record, tree) = match self.found(key) {
            Some(record) => {
                let place = Place { subject: format!("base {name}"), step: 1, steps: 1, what: what.clone() };
                let state = StepState::Finished { cached: true, elapsed: Duration::ZERO };
                (self.report)(place.progress(state));
                (record, Arc::default())
            }
            None => self.make_base(name, locked, key)?,
        };
        let mut made = Made::nothing(locked.locked_at);
        made.config.run.env.insert("PATH".into(), DEFAULT_PATH.into());
        made.key = Some(key);
        made.tree = MadeTree { digest: Some(record.tree), loaded: tree };
        made.history.push(HistoryLine { what, layer: record.layer });
        Ok(made)
    }

    fn make_base(
        &self,
        name: &BaseName,
        locked: &LockedBase,
        key: StepKey,
    ) -> Result<(StepRecord, Arc<OnceLock<Tree>>), BakeError> {
        let baker = self.baker;
        let maker = BaseMaker {
            store: &baker.store,
            fetcher: &self.fetcher,
            packages: &baker.packages,
            workbench: &baker.workbench,
            cancel: &self.cancel,
            apt: &baker.options.apt,
            timeout: baker.options.step_timeout,
        };
        let BaseRecipe::Debian(recipe) = &self.stack.bases[name];
        let count = locked.packages.len();
        let steps = if recipe.variant == DebianVariant::Tools { 3 } else { 4 };
        let step = |step, what: String| Place { subject: format!("base {name}"), step, steps, what };
        let place = step(1, format!("fetch {count} packages"));
        let total = locked.packages.iter().map(|package| package.size).sum();
        let done = AtomicU64::new(0);
        let tell = |bytes| {
            let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
            (self.report)(place.progress(StepState::Advanced { done, total }));
        };
        let files = {
            let _turn = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
            self.timed(&place, || maker.fetch(recipe, locked, &tell))?
        };
        let place = step(2, format!("unpack {count} packages"));
        let packages = self.timed(&place, || maker.unpack(locked, &files))?;
        if recipe.variant == DebianVariant::Tools {
            let place = step(3, "lay packages side by side".into());
            return self.timed(&place, || self.make_tools(&packages, key));
        }
        self.warn_of_missing_limits();
        let place = step(3, "configure packages".into());
        let tree = self.timed(&place, || maker.install(locked, &packages))?;
        let (old, new) = (Arc::new(OnceLock::from(Tree::new())), Arc::new(OnceLock::from(tree)));
        let outcome = Outcome { old, new: Arc::clone(&new), key, after: None, taken: Vec::new() };
        let place = step(4, "store the image's layer".into());
        let record = self.timed(&place, || outcome.store(&baker.store, &baker.steps))?;
        Ok((record, new))
    }

    /// Lays packages as they are. What is in no image has no layer.
    fn make_tools(
        &self,
        packages: &[Unpacked],
        key: StepKey,
    ) -> Result<(StepRecord, Arc<OnceLock<Tree>>), StepError> {
        let tree = unpack::lay(packages, &unpack::order(packages))?;
        let stored = self.baker.store.trees.put(&tree)?;
        let record = StepRecord { tree: stored, layer: None, after: None, taken: Vec::new() };
        self.baker.steps.set_step(key, &record);
        Ok((record, Arc::new(OnceLock::from(tree))))
    }

    fn timed<T>(&self, place: &Place, work: impl FnOnce() -> Result<T, StepError>) -> Result<T, BakeError> {
        let began = self.begin(place);
        let done = work().map_err(|error| place.failed(error))?;
        (self.report)(place.progress(StepState::Finished { cached: false, elapsed: began.elapsed() }));
        Ok(done)
    }

    /// Writes an image's config, manifest and record.
    fn finish(&self, name: &ImageName, made: &Made) -> Result<Image, BakeError> {
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
        let batch = store.blobs.batch();
        batch.put_bytes(&config)?;
        batch.put_bytes(&manifest)?;
        batch.commit()?;
        let tree = made.tree.get(store)?;
        let image = Image {
            manifest: digest,
            tree: match made.tree.digest {
                Some(digest) => digest,
                None => store.trees.put(tree)?,
            },
            config: made.config.run.clone(),
            size_bytes: tree.size_bytes(),
            unproven: made.unproven.clone(),
        };
        store.images.put(&image)?;
        Ok(image)
    }
}

/// Waits until the last steps are stored: until then they have no layers, and the tree no digest.
fn settle(made: &mut Made) -> Result<(), BakeError> {
    // Of several, the first is mostly what somebody is at.
    made.storing.iter().rev().for_each(|storing| storing.advance());
    settle_all_but(made, 0)
}

/// Waits until no more steps than this are being stored. What has ended by itself is taken note of.
fn settle_all_but(made: &mut Made, left: usize) -> Result<(), BakeError> {
    while made.storing.first().is_some_and(|first| made.storing.len() > left || first.has_ended()) {
        let storing = made.storing.remove(0);
        if let Some(record) = storing.end().transpose()? {
            made.history[storing.line].layer = record.layer;
            if made.storing.is_empty() {
                made.tree.digest = Some(record.tree);
            }
        }
    }
    Ok(())
}

/// Tells whether a step is a command without a network: others begin their own sandbox.
fn is_command(step: &RecipeStep) -> bool {
    match step {
        RecipeStep::Run(run) => !run.network,
        RecipeStep::Provision(play) => !play.network,
        RecipeStep::Copy(_) => false,
    }
}

/// Names a step as the recipe has it, for progress, errors and the image's history.
fn describe(step: &RecipeStep) -> String {
    match step {
        RecipeStep::Copy(copy) => format!("copy {} {}", copy.from, copy.to),
        RecipeStep::Run(run) if run.network => format!("run with network: {}", run.argv.join(" ")),
        RecipeStep::Run(run) => format!("run {}", run.argv.join(" ")),
        RecipeStep::Provision(play) if play.network => format!("provision with network: {}", play.playbook),
        RecipeStep::Provision(play) => format!("provision {}", play.playbook),
    }
}

fn copy_text(step: &CopyStep, pick: &Pick, time: u64) -> String {
    let CopyStep { to, owner, mode, .. } = step;
    format!("copy to {to:?} owner {owner:?} mode {mode:?} time {time}\n{}", pick.describe())
}

fn run_text(step: &RunStep, made: &Made) -> String {
    let RunStep { argv, env, user, network, .. } = step;
    let (inherited, workdir, time) = (&made.config.run.env, workdir(step, made), made.time);
    format!(
        "run {argv:?} env {inherited:?} {env:?} workdir {workdir:?} user {user:?} network {network} time {time}"
    )
}

fn workdir(step: &RunStep, made: &Made) -> String {
    let own = if step.workdir.is_empty() { &made.config.run.workdir } else { &step.workdir };
    if own.is_empty() { "/".into() } else { own.clone() }
}

/// Makes the working folder where the image has none, as Docker does.
fn make_workdir(tree: &mut Tree, workdir: &str, owner: &User, time: u64) -> Result<(), StepError> {
    let path = TreePath::parse(workdir)?;
    if tree.resolve(&path, true).is_ok_and(|real| tree.get(&real).is_some_and(Entry::is_dir)) {
        return Ok(());
    }
    let mtime = Mtime { secs: time as i64, nanos: 0 };
    let meta = Meta { mode: 0o755, uid: owner.uid, gid: owner.gid, mtime, ..Meta::default() };
    let folder = Entry { meta, kind: Kind::Dir };
    let mut at = TreePath::root();
    for name in path.names() {
        at = tree.resolve(&at.join(name)?, true)?;
        if tree.get(&at).is_none() {
            tree.insert(&at, folder.clone())?;
        }
    }
    Ok(())
}
