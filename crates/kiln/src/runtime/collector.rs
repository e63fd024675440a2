//! Collects what nobody can go back to any more: images, releases, snapshots of stack folders and secret values.
//!
//! Only the controller collects, on a thread of its own. What is kept is what a retained revision, an instance or a check
//! needs by the log, and what a name points at. It is looked up only once no lease is held, and none can begin: whoever
//! stored something has recorded it by then.

mod budget;
mod caches;
mod packing;
mod reasons;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kiln_bake::{CacheFolder, CacheFolders, CachedSteps, FetchedFile, FetchedFiles};
use kiln_core::State;
use kiln_model::{Digest, InstanceSpec, Position};
use kiln_store::lease::{Collection, LeaseError};
use kiln_store::sealed::{SealedError, erasable, erase_all_but};
use kiln_store::{CollectError, Collected, Needed, PackError, Store};

use reasons::Reasons;

use super::notices;
use super::paths::StateDir;
use crate::api::wire;
use crate::controller::Handle;
use crate::controller::step::chain;

/// How often it is looked whether something fell out of retention. A collection reads every kept document, for seconds in a
/// large store, and a bake that begins meanwhile waits.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// What a bake that was given up left behind is found this often, even if nothing was released.
const ANYWAY_EVERY: Duration = Duration::from_secs(24 * 3600);
/// A collection that failed would fail again at once: something that is kept can't be read.
const RETRY_AFTER: Duration = Duration::from_secs(600);

/// What the log says is still needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Needs {
    /// Releases, bindings and images.
    roots: BTreeSet<Digest>,
    bindings: BTreeSet<Digest>,
    secrets: BTreeSet<String>,
}

impl Needs {
    fn of(state: &State) -> Self {
        let mut needs = Self::default();
        for revision in state.environments().flat_map(|env| env.revisions.values()) {
            needs.roots.extend([revision.release, revision.binding]);
            needs.bindings.insert(revision.binding);
            revision.spec.services.values().for_each(|service| needs.add(&service.spec));
            let signing = revision.spec.webhooks.values().map(|webhook| webhook.secret.version.clone());
            needs.secrets.extend(signing.chain(revision.spec.credentials.values().cloned()));
        }
        state.instances().for_each(|instance| needs.add(&instance.spec));
        for check in state.checks() {
            needs.roots.insert(check.image);
            needs.add(&check.spec);
        }
        needs
    }

    fn add(&mut self, spec: &InstanceSpec) {
        self.roots.insert(spec.image);
        self.secrets.extend(spec.secrets.values().map(|secret| secret.version.clone()));
    }

    /// Whether something that was needed before is needed no more.
    fn lack(&self, before: &Self) -> bool {
        !before.roots.is_subset(&self.roots) || !before.secrets.is_subset(&self.secrets)
    }
}

/// What was removed.
#[derive(Debug, Default)]
struct Removed {
    store: Collected,
    secrets: u64,
    caches: Vec<CacheFolder>,
    fetched: Vec<FetchedFile>,
}

impl Removed {
    fn is_nothing(&self) -> bool {
        self.store == Collected::default()
            && self.secrets == 0
            && self.caches.is_empty()
            && self.fetched.is_empty()
    }
}

/// Why nothing, or not everything, was removed. What is left is whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum CollectorError {
    /// Somebody is storing.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The controller does not know whether the log holds more than it knows.
    #[error("the log may hold more than is known")]
    Doubt,
    #[error(transparent)]
    Store(#[from] CollectError),
    #[error("a secret value can't be erased")]
    Sealed(#[from] SealedError),
    #[error("what is not used can't be packed")]
    Pack(#[from] PackError),
    #[error("the caches of RUN steps can't be collected")]
    Caches(#[source] std::io::Error),
    #[error("what is to be told can't be read")]
    Notices(#[source] std::io::Error),
    #[error("what the disk budget allows can't be told")]
    Budget(#[source] std::io::Error),
}

impl CollectorError {
    /// Whether it passes by itself before long.
    pub(super) const fn is_brief(&self) -> bool {
        matches!(self, Self::Lease(LeaseError::Held { .. }) | Self::Doubt)
    }
}

struct Collector {
    handle: Handle,
    store: Store,
    state: StateDir,
    /// What was needed at the last collection; none before the first.
    last: Option<(Needs, Instant)>,
    /// Up to here nothing fell out of retention since.
    seen: Position,
    /// The last look at caches and the disk budget.
    looked: Option<budget::Looked>,
    disk: SharedDisk,
}

/// How much room was taken when it was last looked, where there is a disk budget: whoever asks need not wait for a collection.
type SharedDisk = Arc<Mutex<Option<wire::Disk>>>;

/// Whoever asks for a collection, and the thread that does it by itself, take turns.
#[derive(Clone)]
pub(super) struct SharedCollector(Arc<Mutex<Collector>>, SharedDisk);

/// Everything behind these locks is replaced as a whole: a panic leaves what was there.
fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Collects for as long as the controller lives; what is returned collects when it is asked.
pub(super) fn start(handle: &Handle, store: &Store, state: &StateDir) -> std::io::Result<SharedCollector> {
    let collector = Collector::new(handle, store, state);
    let disk = Arc::clone(&collector.disk);
    let shared = SharedCollector(Arc::new(Mutex::new(collector)), disk);
    let collector = shared.clone();
    let work = move || {
        loop {
            thread::sleep(LOOK_EVERY);
            match collector.collect_if_due() {
                Ok(removed) if removed.is_nothing() => {}
                Ok(Removed { store, secrets, caches, fetched }) => tracing::info!(
                    images = store.images,
                    blobs = store.blobs,
                    files = store.objects,
                    bytes = store.bytes,
                    secrets,
                    caches = caches.len(),
                    packages = fetched.len(),
                    "collected what no retained revision needs, and caches beyond their bound"
                ),
                Err(error) if error.is_brief() => {}
                Err(error) => {
                    tracing::warn!(error = chain(&error), "could not collect");
                    thread::sleep(RETRY_AFTER);
                }
            }
        }
    };
    thread::Builder::new().name("collector".into()).spawn(work)?;
    Ok(shared)
}

impl SharedCollector {
    /// Collects and packs now, or with `dry_run` only looks what would go, and says why each image that stays does.
    pub(super) fn ask(&self, request: &wire::Collect) -> Result<wire::Collection, CollectorError> {
        self.with(|collector| collector.ask(request))
    }

    fn collect_if_due(&self) -> Result<Removed, CollectorError> {
        self.with(|collector| {
            let is_due = collector.is_due() || collector.has_grown()?;
            if is_due { collector.collect() } else { Ok(Removed::default()) }
        })
    }

    /// How much room is taken of how much, where there is a budget and since it was looked.
    pub(super) fn disk(&self) -> Option<wire::Disk> {
        locked(&self.1).clone()
    }

    fn with<T>(&self, work: impl FnOnce(&mut Collector) -> T) -> T {
        // A collection that panicked left a store that is whole, and at worst collects once more.
        work(&mut locked(&self.0))
    }
}

impl Collector {
    fn new(handle: &Handle, store: &Store, state: &StateDir) -> Self {
        let (handle, store, state) = (handle.clone(), store.clone(), state.clone());
        Self {
            handle,
            store,
            state,
            last: None,
            seen: Position(0),
            looked: None,
            disk: SharedDisk::default(),
        }
    }

    /// Whether something may have fallen out of retention since the last collection.
    fn is_due(&mut self) -> bool {
        let state = self.handle.state();
        // Before the log is folded the state is an empty one, which needs nothing.
        if state.position() == Position(0) {
            return false;
        }
        let Some((before, at)) = &self.last else { return true };
        if at.elapsed() > ANYWAY_EVERY {
            return true;
        }
        if state.position() == self.seen {
            return false;
        }
        let is_due = Needs::of(&state).lack(before);
        if !is_due {
            self.seen = state.position();
        }
        is_due
    }

    fn collect(&mut self) -> Result<Removed, CollectorError> {
        let mut round = self.begin()?;
        self.fit(&mut round)?;
        let is_to_pack = round.pack;
        let removed = self.remove(round)?;
        if is_to_pack {
            self.pack()?;
        }
        self.look_again()?;
        Ok(removed)
    }

    fn remove(&mut self, round: Round) -> Result<Removed, CollectorError> {
        let mut removed = Removed {
            store: self.store.collect(&round.begun, &round.needed).map_err(CollectError::from)?,
            secrets: erase_all_but(self.state.path(), &round.begun, &round.secrets)?,
            caches: Vec::new(),
            fetched: round.fetched.clone(),
        };
        round.steps.forget_missing(&self.store);
        let folders = CacheFolders::of(&self.store);
        removed.caches = folders.remove(&round.begun, &round.caches).map_err(CollectorError::Caches)?;
        let fetched = FetchedFiles::of(&self.store);
        fetched.remove(&round.begun, &round.fetched).map_err(CollectorError::Budget)?;
        (self.last, self.seen) = (Some((round.needs, Instant::now())), round.state.position());
        Ok(removed)
    }

    fn ask(&mut self, request: &wire::Collect) -> Result<wire::Collection, CollectorError> {
        let dry_run = request.dry_run;
        let mut round = self.begin()?;
        let disk = self.fit(&mut round)?;
        let is_to_pack = request.pack || round.pack;
        let mut answer = self.explain(&round)?;
        let removed = if dry_run {
            answer.packing = is_to_pack.then(|| self.look_for_cold(&round)).transpose()?;
            answer.disk.clone_from(&disk);
            Removed {
                store: self.store.collectable(&round.begun, &round.needed).map_err(CollectError::from)?,
                secrets: erasable(self.state.path(), &round.begun, &round.secrets)?,
                caches: round.caches,
                fetched: round.fetched,
            }
        } else {
            self.remove(round)?
        };
        answer.dry_run = dry_run;
        answer.secrets = removed.secrets;
        let Collected { images: _, trees, objects, blobs, packed, bytes } = removed.store;
        (answer.trees, answer.files, answer.blobs, answer.bytes) = (trees, objects, blobs, bytes);
        answer.packed = packed;
        answer.bytes += removed.caches.iter().map(|cache| cache.bytes).sum::<u64>();
        answer.fetched = removed.fetched.len() as u64;
        answer.bytes += removed.fetched.iter().map(|file| file.bytes).sum::<u64>();
        answer.caches = removed.caches.into_iter().map(caches::told).collect();
        if !dry_run {
            answer.packing = is_to_pack.then(|| self.pack()).transpose()?;
            // Somebody may have begun to store since.
            answer.disk = match self.look_again() {
                Err(error) if error.is_brief() => disk,
                other => other?,
            };
        }
        Ok(answer)
    }

    /// Waits for nobody: begins a collection and looks up what is needed.
    fn begin(&self) -> Result<Round, CollectorError> {
        let begun = self.store.leases.begin_collection()?;
        let state = self.handle.state();
        // Before the log is folded the state is an empty one, which needs nothing.
        if self.handle.is_in_doubt() || state.position() == Position(0) {
            return Err(CollectorError::Doubt);
        }
        let needs = Needs::of(&state);
        let mut secrets = needs.secrets.clone();
        for binding in &needs.bindings {
            let binding = self.store.releases.binding(binding).map_err(CollectError::from)?;
            secrets.extend(binding.secrets.into_values());
        }
        // What an environment was told to say is signed also after it is gone.
        secrets.extend(notices::signing(self.state.path()).map_err(CollectorError::Notices)?);
        let steps = CachedSteps::read(&self.store);
        let names = self.store.images.names().map_err(CollectError::from)?;
        let need = |roots: &mut dyn Iterator<Item = Digest>, needed: &mut Needed| {
            self.store.need(&begun, needed, roots).map_err(CollectError::from)
        };
        let mut must = Needed::default();
        need(&mut needs.roots.iter().copied(), &mut must)?;
        let mut needed = must.clone();
        need(&mut names.iter().map(|(_, manifest)| *manifest), &mut needed)?;
        let between = steps.needed(|digest| needed.contains(digest));
        need(&mut between.into_iter(), &mut needed)?;
        let (caches, fetched, fitted, pack) = (Vec::new(), Vec::new(), false, false);
        Ok(Round { begun, state, needs, secrets, steps, names, must, needed, caches, fetched, fitted, pack })
    }

    /// Says of each image whether it goes, and why it does not.
    fn explain(&self, round: &Round) -> Result<wire::Collection, CollectorError> {
        let mut reasons = Reasons::of(&round.state, &self.store, &round.names);
        let mut answer = wire::Collection::default();
        for digest in self.store.images.list().map_err(CollectError::from)? {
            let named = round.names.iter().filter(|(_, image)| *image == digest);
            let mut image = wire::CollectedImage {
                digest: digest.to_string(),
                names: named.map(|(name, _)| name.clone()).collect(),
                size_bytes: self.store.images.get(&digest).map_or(0, |image| image.size_bytes),
                reasons: Vec::new(),
                packed: self.store.is_packed(&digest),
            };
            if round.needed.contains(&digest) {
                image.reasons = reasons.take(&digest);
                answer.kept.push(image);
            } else {
                if round.fitted && !image.names.is_empty() {
                    image.reasons =
                        vec!["it does not fit the disk budget, and only its name keeps it".into()];
                }
                answer.gone.push(image);
            }
        }
        Ok(answer)
    }
}

/// One look at what is needed, while nobody stores.
struct Round {
    begun: Collection,
    state: Arc<State>,
    needs: Needs,
    /// The versions that are kept: what the services see, and what the bindings name.
    secrets: BTreeSet<String>,
    steps: CachedSteps,
    names: Vec<(String, Digest)>,
    /// What the log needs: it stays, whatever the disk budget.
    must: Needed,
    /// That and what names and the steps of bakes keep, as far as it fits.
    needed: Needed,
    /// The caches that go.
    caches: Vec<CacheFolder>,
    /// The packages and other fetched files that go.
    fetched: Vec<FetchedFile>,
    /// Whether something goes that only the disk budget does not leave room for.
    fitted: bool,
    /// Whether that is not enough, so that what is kept and not used is to be packed.
    pack: bool,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use kiln_core::Command;
    use kiln_model::image::{Image, ImageConfig};
    use kiln_model::instance::SecretRef;
    use kiln_model::release::{Binding, Release, RevisionSpec};
    use kiln_model::service::{RolloutBounds, Service, ServiceKind, Strategy};
    use kiln_model::{Actor, EnvKey, EnvName, ImageName, SecretName, ServiceName, StackName};
    use kiln_store::sealed::{SecretValue, is_kept};
    use kiln_store::snapshot::SourceContent;
    use kiln_store::{Entry, Sealed, Tree, TreePath};

    use super::*;
    use crate::controller::{DueAction, Effects, StoredLog, SystemClock, channel, run};
    use crate::runtime::Settings;

    struct Nothing;

    impl Effects for Nothing {
        fn execute(&mut self, _: DueAction) {}
        fn relist(&mut self) {}
    }

    /// Asks until it is answered: a process that another test bears holds for a moment what is locked here.
    fn asked(collector: &mut Collector, request: &wire::Collect) -> wire::Collection {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match collector.ask(request) {
                Err(error) if error.is_brief() && Instant::now() < until => {
                    thread::sleep(Duration::from_millis(5));
                }
                answer => return answer.unwrap(),
            }
        }
    }

    /// A controller on a state folder of its own.
    struct World {
        folder: tempfile::TempDir,
        store: Store,
        handle: Handle,
        runner: thread::JoinHandle<()>,
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(folder.path()).unwrap();
            let log = StoredLog::open(folder.path()).unwrap();
            let (handle, inbox) = channel();
            let runner = thread::spawn(move || {
                run(inbox, log, Nothing, SystemClock::default()).unwrap();
            });
            handle.wait_past(Position(0), Duration::from_secs(60));
            Self { folder, store, handle, runner }
        }

        fn collector(&self) -> Collector {
            Collector::new(&self.handle, &self.store, &StateDir::new(self.folder.path()))
        }

        fn end(self) {
            self.handle.stop().unwrap();
            self.runner.join().unwrap();
        }

        /// Stores an image with one file, and returns its manifest.
        fn image(&self, content: &str) -> Digest {
            let object = self.store.objects.put_bytes(content.as_bytes()).unwrap();
            let mut tree = Tree::new();
            let entry = Entry::file(0o644, object, content.len() as u64);
            tree.insert(&TreePath::parse("file").unwrap(), entry).unwrap();
            let tree = self.store.trees.put(&tree).unwrap();
            let manifest = self.store.blobs.put_bytes(format!("manifest of {content}").as_bytes()).unwrap();
            let config = ImageConfig::default();
            let image = Image { manifest, tree, config, size_bytes: 1, unproven: Vec::new() };
            self.store.images.put(&image).unwrap();
            manifest
        }

        fn secret(&self, value: &str) -> String {
            let value = SecretValue::new(value.as_bytes().to_vec());
            Sealed::open(self.folder.path()).unwrap().capture(&stack(), &secret_name(), &value).unwrap()
        }

        fn up(&self, image: Digest, version: &str, bound: &str) -> Command {
            self.up_with_lock(image, version, bound, "kiln.lock 1\n")
        }

        fn up_with_lock(&self, image: Digest, version: &str, bound: &str, lock: &str) -> Command {
            let files = [("kiln.lock", lock), ("stack.hcl", "stack")].map(|(name, text)| {
                (TreePath::parse(name).unwrap(), 0o644, SourceContent::File(text.as_bytes()))
            });
            let release = Release {
                stack: stack(),
                source: self.store.snapshots.capture(files).unwrap(),
                images: BTreeMap::from([(ImageName::new("web").unwrap(), image)]),
                holes: BTreeMap::new(),
                given: BTreeMap::new(),
                checks: Vec::new(),
            };
            let secrets = BTreeMap::from([("db".to_owned(), bound.to_owned())]);
            let binding = Binding { variables: BTreeMap::new(), secrets };
            let services = BTreeMap::from([(service_name(), service(image, version))]);
            Command::Up {
                env: EnvKey { stack: stack(), env: EnvName::new("prod").unwrap() },
                origin: "/src/shop".into(),
                adopt: false,
                base: None,
                release: self.store.releases.put_release(&release).unwrap(),
                binding: self.store.releases.put_binding(&binding).unwrap(),
                spec: Arc::new(RevisionSpec { services, ..RevisionSpec::default() }),
                checks: Vec::new(),
                admission: kiln_core::Admission::default(),
            }
        }
    }

    fn stack() -> StackName {
        StackName::new("shop").unwrap()
    }

    fn secret_name() -> SecretName {
        SecretName::new("db").unwrap()
    }

    fn service_name() -> ServiceName {
        ServiceName::new("web").unwrap()
    }

    fn service(image: Digest, version: &str) -> Service {
        let secret = SecretRef { name: secret_name(), version: version.into() };
        let spec = InstanceSpec {
            secrets: BTreeMap::from([("/run/secrets/db".into(), secret)]),
            ..InstanceSpec::plain(image, vec!["/app".into()])
        };
        Service {
            name: service_name(),
            kind: ServiceKind::Worker,
            spec_digest: kiln_store::canonical::spec_digest(&spec),
            spec: Arc::new(spec),
            replicas: 1,
            strategy: Strategy::StopThenStart,
            after: Default::default(),
            bounds: RolloutBounds::default(),
            interludes: Arc::default(),
        }
    }

    #[test]
    fn what_a_revision_needs_stays_and_the_rest_goes() {
        let world = World::new();
        let (kept, named, lost) = (world.image("kept"), world.image("named"), world.image("lost"));
        world.store.images.set_name("shop/web", &named).unwrap();
        let [seen, bound, unused] = ["seen", "bound", "unused"].map(|value| world.secret(value));
        world.handle.command(world.up(kept, &seen, &bound), Actor::Controller).unwrap();
        let mut collector = world.collector();
        assert!(collector.is_due(), "the first of a life looks for what was given up");

        let lease = world.store.leases.take("bake").unwrap();
        assert!(collector.collect().unwrap_err().is_brief());
        assert!(collector.is_due(), "it is tried again");
        drop(lease);
        let removed = collector.collect().unwrap();
        assert_eq!((removed.store.images, removed.store.objects, removed.secrets), (1, 1, 1));
        let images = [kept, named, lost].map(|image| world.store.images.contains(&image));
        assert_eq!(images, [true, true, false]);
        let secrets = [seen, bound, unused].map(|version| is_kept(world.folder.path(), &version));
        assert_eq!(secrets, [true, true, false], "what the binding names is kept, too");
        let state = world.handle.state();
        let revision = state.environments().next().unwrap().revisions.values().next().unwrap().clone();
        let release = world.store.releases.release(&revision.release).unwrap();
        assert!(world.store.snapshots.load(&release.source).is_ok());
        assert!(!collector.is_due());
        world.end();
    }

    #[test]
    fn a_look_says_what_would_go_and_why_the_rest_stays_and_then_it_goes() {
        let world = World::new();
        let [running, named, base, lost] = ["running", "named", "base", "lost"].map(|it| world.image(it));
        world.store.images.set_name("shop/web", &named).unwrap();
        let version = world.secret("value");
        world.secret("unused");
        let lock = format!("kiln.lock 2\nimage registry.test/os:v1 {base}\n");
        world
            .handle
            .command(world.up_with_lock(running, &version, &version, &lock), Actor::Controller)
            .unwrap();
        let mut collector = world.collector();
        let looked = asked(&mut collector, &wire::Collect { dry_run: true, pack: false });
        assert!(looked.dry_run && world.store.images.contains(&lost), "nothing is removed");
        let gone: Vec<&str> = looked.gone.iter().map(|image| image.digest.as_str()).collect();
        assert_eq!((gone, looked.secrets), (vec![lost.to_string().as_str()], 1));
        let because = |image: Digest| {
            let is_it = |it: &&wire::CollectedImage| it.digest == image.to_string();
            looked.kept.iter().find(is_it).unwrap().reasons.clone()
        };
        assert_eq!(because(running), ["shop/prod#1 is being rolled out"]);
        assert_eq!(because(named), ["it is called shop/web"]);
        assert_eq!(because(base), ["what is kept is made from it"]);

        let lease = world.store.leases.take("bake").unwrap();
        assert!(
            collector.ask(&wire::Collect { dry_run: true, pack: false }).unwrap_err().is_brief()
                && collector.ask(&wire::Collect::default()).unwrap_err().is_brief()
        );
        drop(lease);
        let removed = asked(&mut collector, &wire::Collect::default());
        assert_eq!(wire::Collection { dry_run: true, ..removed }, looked, "what was said to go is what went");
        assert!(!world.store.images.contains(&lost));
        world.end();
    }

    impl World {
        /// Names an image as if that had been done so many seconds after another.
        fn name(&self, name: &str, image: &Digest, seconds: u64) {
            self.store.images.set_name(name, image).unwrap();
            for file in std::fs::read_dir(self.folder.path().join("store/images/names")).unwrap() {
                let path = file.unwrap().path();
                if std::fs::read_to_string(&path).unwrap().contains(&format!("\"{name}\"")) {
                    let at = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
                    std::fs::File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
                }
            }
        }

        fn settle(&self, budget: u64) {
            let disk_budget = Some(kiln_model::ByteSize(budget));
            Settings { disk_budget }.write(&StateDir::new(self.folder.path())).unwrap();
        }

        /// Puts a package into the cache of a bake.
        fn package(&self, content: &str) -> Digest {
            let folder = self.folder.path().join("store/cache/packages");
            std::fs::create_dir_all(&folder).unwrap();
            let digest = kiln_store::canonical::digest_of(content.as_bytes());
            std::fs::write(folder.join(digest.hex()), content.repeat(LARGE)).unwrap();
            digest
        }
    }

    /// As often is the content of a large file repeated.
    const LARGE: usize = 32 << 10;

    #[test]
    fn a_budget_takes_what_is_worth_least_first_and_no_more_than_it_must() {
        let world = World::new();
        let [running, old, new] = ["running", "older", "newer"].map(|it| world.image(&it.repeat(LARGE)));
        world.name("shop/web", &running, 10);
        world.name("shop/old", &old, 20);
        world.name("shop/new", &new, 30);
        let [locked, unlocked] = ["locked", "unlocked"].map(|content| world.package(content));
        let version = world.secret("value");
        let lock = format!("kiln.lock 2\npackage {}\n", locked.hex());
        let up = world.up_with_lock(running, &version, &version, &lock);
        world.handle.command(up, Actor::Controller).unwrap();
        let mut collector = world.collector();
        let dry_run = wire::Collect { dry_run: true, pack: false };

        world.settle(u64::MAX);
        let all = asked(&mut collector, &dry_run).disk.unwrap();
        assert!(!all.is_short() && all.held.is_empty());
        assert!(!collector.has_grown().unwrap());
        let mut left = all.used_bytes;
        let mut held_after = |images: &[Digest], fetched: u64| {
            world.settle(left - 1);
            assert!(collector.has_grown().unwrap());
            let looked = asked(&mut collector, &dry_run);
            let gone: Vec<&String> = looked.gone.iter().map(|image| &image.digest).collect();
            assert_eq!(
                gone,
                images.iter().map(|it| it.to_string()).collect::<Vec<_>>().iter().collect::<Vec<_>>()
            );
            assert!(looked.gone.iter().all(|image| image.reasons[0].contains("budget")));
            assert_eq!((looked.fetched, looked.dry_run), (fetched, true));
            let removed = asked(&mut collector, &wire::Collect::default());
            assert_eq!((removed.gone, removed.fetched), (looked.gone, looked.fetched));
            assert!(removed.packing.is_none(), "nothing is packed as long as it fits without");
            let disk = removed.disk.unwrap();
            assert!(disk.used_bytes < left && !disk.is_short(), "{disk:?} of {left}");
            assert_eq!(Some(&disk), looked.disk.as_ref(), "what was expected is what came");
            left = disk.used_bytes;
            assert!(!collector.has_grown().unwrap(), "it fits");
        };
        held_after(&[], 1);
        held_after(&[old], 0);
        held_after(&[new], 0);
        let packages = world.folder.path().join("store/cache/packages");
        let is_there = [locked, unlocked].map(|it| packages.join(it.hex()).exists());
        assert_eq!(is_there, [true, false], "what a revision is locked to stays");
        assert_eq!(world.store.images.names().unwrap(), [("shop/web".to_owned(), running)]);
        world.end();
    }

    #[test]
    fn what_can_be_gone_back_to_stays_packed_and_it_is_told_by_how_much_it_is_too_much() {
        let world = World::new();
        let [running, base] = ["running", "base"].map(|it| world.image(&it.repeat(LARGE)));
        let version = world.secret("value");
        let lock = format!("kiln.lock 2\nimage registry.test/os:v1 {base}\n");
        let up = world.up_with_lock(running, &version, &version, &lock);
        world.handle.command(up, Actor::Controller).unwrap();
        world.settle(1);
        let mut collector = world.collector();
        let lease = world.store.leases.take("bake").unwrap();
        assert!(!collector.has_grown().unwrap(), "a bake may need it");
        assert!(collector.ask(&wire::Collect::default()).unwrap_err().is_brief());
        drop(lease);

        let looked = asked(&mut collector, &wire::Collect { dry_run: true, pack: false });
        assert_eq!((looked.packing.unwrap().files, world.store.is_packed(&base)), (1, false));
        let removed = asked(&mut collector, &wire::Collect::default());
        assert_eq!(removed.packing.unwrap().files, 1);
        assert_eq!([running, base].map(|image| world.store.is_packed(&image)), [false, true]);
        assert_eq!(world.store.verification().damage(&base).unwrap(), []);
        let disk = removed.disk.unwrap();
        assert!(disk.is_short() && disk.used_bytes < looked.disk.unwrap().used_bytes);
        assert_eq!(disk.held.iter().map(|held| held.bytes).sum::<u64>(), disk.used_bytes);
        let what: Vec<&str> = disk.held.iter().map(|held| held.what.as_str()).collect();
        assert_eq!(what[0], "what runs, and what environments are at", "the largest first");
        assert!(what.contains(&"packs of what can be gone back to"));
        assert_eq!(*locked(&collector.disk), Some(disk));
        assert!(!collector.has_grown().unwrap(), "it does not go round and round");
        world.end();
    }

    #[test]
    fn a_cache_beyond_its_bound_goes_once_nobody_bakes() {
        let world = World::new();
        let mounts = world.folder.path().join("store/cache/mounts");
        // Nested deeper than a path can say, it is beyond every bound; made from the inside out.
        let [cache, level, deeper] = ["abc", "level.new", "deeper.new"].map(|name| mounts.join(name));
        std::fs::create_dir_all(&level).unwrap();
        for _ in 0..20 {
            std::fs::create_dir(&deeper).unwrap();
            std::fs::rename(&level, deeper.join("d".repeat(250))).unwrap();
            std::fs::rename(&deeper, &level).unwrap();
        }
        std::fs::rename(&level, &cache).unwrap();
        std::fs::write(mounts.join("abc.lock"), "/root/.npm\x1b").unwrap();
        let mut collector = world.collector();
        let looked = asked(&mut collector, &wire::Collect { dry_run: true, pack: false });
        let ids: Vec<&str> = looked.caches.iter().map(|cache| cache.id.as_str()).collect();
        assert_eq!((ids, cache.exists()), (vec!["/root/.npm\u{fffd}"], true));

        let lease = world.store.leases.take("bake").unwrap();
        assert!(!collector.has_grown().unwrap(), "a bake may use it");
        drop(lease);
        assert!(collector.has_grown().unwrap());
        assert_eq!(asked(&mut collector, &wire::Collect::default()).caches, looked.caches);
        assert!(!cache.exists() && !collector.has_grown().unwrap());
        world.end();
    }

    #[test]
    fn what_is_kept_and_not_used_is_packed_but_not_while_somebody_stores() {
        let world = World::new();
        let [running, named, base] = ["running", "named", "base"].map(|it| world.image(it));
        world.store.images.set_name("shop/web", &named).unwrap();
        let version = world.secret("value");
        let lock = format!("kiln.lock 2\nimage registry.test/os:v1 {base}\n");
        let up = world.up_with_lock(running, &version, &version, &lock);
        world.handle.command(up, Actor::Controller).unwrap();
        let mut collector = world.collector();
        let pack = |dry_run| wire::Collect { dry_run, pack: true };
        assert_eq!(asked(&mut collector, &pack(true)).packing.unwrap().files, 1);
        assert!(!world.store.is_packed(&base));

        let lease = world.store.leases.take("bake").unwrap();
        assert!(collector.ask(&pack(false)).unwrap_err().is_brief());
        drop(lease);
        let packing = asked(&mut collector, &pack(false)).packing.unwrap();
        assert_eq!((packing.files, packing.bytes), (1, "base".len() as u64));
        let packed = [running, named, base].map(|image| world.store.is_packed(&image));
        assert_eq!(packed, [false, false, true]);
        assert_eq!(world.store.verification().damage(&base).unwrap(), []);
        world.end();
    }

    #[test]
    fn the_images_of_registries_that_a_retained_revision_is_locked_to_stay() {
        let world = World::new();
        let [made, base, other] = ["made", "base", "other"].map(|content| world.image(content));
        let version = world.secret("value");
        let lock = format!("kiln.lock 2\nimage registry.test/os:v1 {base}\n");
        let up = world.up_with_lock(made, &version, &version, &lock);
        world.handle.command(up, Actor::Controller).unwrap();
        world.collector().collect().unwrap();
        let images = [made, base, other].map(|image| world.store.images.contains(&image));
        assert_eq!(images, [true, true, false]);
        let tree = world.store.images.get(&base).unwrap().tree;
        assert!(world.store.trees.contains(&tree) && world.store.blobs.contains(&base));
        world.end();
    }

    #[test]
    fn a_revision_more_is_no_reason_to_collect_and_an_image_that_is_needed_no_more_is() {
        let world = World::new();
        let [first, second] = ["first", "second"].map(|content| world.image(content));
        let version = world.secret("value");
        world.handle.command(world.up(first, &version, &version), Actor::Controller).unwrap();
        let before = Needs::of(&world.handle.state());
        world.handle.command(world.up(second, &version, &version), Actor::Controller).unwrap();
        let after = Needs::of(&world.handle.state());
        assert!(!after.lack(&before) && before.lack(&after));
        world.end();
    }

    #[test]
    fn nothing_is_collected_before_the_log_is_read_or_while_what_it_names_can_not_be() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let (handle, _inbox) = channel();
        let mut early = Collector::new(&handle, &store, &StateDir::new(folder.path()));
        assert!(!early.is_due());
        let unread = store.objects.put_bytes(b"the log may need it").unwrap();
        assert!(matches!(early.collect(), Err(CollectorError::Doubt)));
        assert!(matches!(early.ask(&wire::Collect::default()), Err(CollectorError::Doubt)));
        assert!(store.objects.contains(&unread));

        let world = World::new();
        let (image, lost) = (world.image("kept"), world.image("lost"));
        let version = world.secret("value");
        let up = world.up(image, &version, &version);
        let Command::Up { binding, .. } = &up else { unreachable!() };
        let path = world.store.blobs.path_of(binding);
        world.handle.command(up, Actor::Controller).unwrap();
        std::fs::write(path, "{").unwrap();
        assert!(matches!(world.collector().collect(), Err(CollectorError::Store(CollectError::Read(_)))));
        assert!(world.store.images.contains(&lost), "nobody knows what it needs");
        world.end();
    }
}
