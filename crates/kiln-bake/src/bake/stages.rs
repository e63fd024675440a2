//! The stages of Dockerfiles.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, OnceLock};

use kiln_model::recipe::ImageSource;
use kiln_model::stack::Stack;
use kiln_model::{Digest, ImageName};
use kiln_store::tree::ResolveError;
use kiln_store::{Entry, Meta, Tree, TreePath};

use super::{Bake, Command, Made, Part, Place, Step, UNDATED, make_workdir, parts, settle};
use crate::accounts::{AccountError, Accounts};
use crate::agent::{self, Door};
use crate::bake_error::{BakeError, StepError};
use crate::copy::CopyError;
use crate::dockerfile::{
    CopyTask, Instruction, Mounted, Origin, Pins, Plan, Problem, RemoteCommit, RemoteFile, RemoteFiles,
    RunTask, SCRIPT, Scope, Task, TaskMount, TaskSecret, TaskSsh, parse_trigger,
};
use crate::fetch::FetchError;
use crate::git::{Checkouts, CommitPrefix, GitError};
use crate::hashing::sha256;
use crate::oci::HistoryLine;
use crate::sandbox::{Access, SandboxMount, User};
use crate::secrets::Hidden;
use crate::source::{SourceError, SourceFiles};
use crate::stage::{
    CacheMount, Context, Laying, MountError, Pick, PickError, Shelf, bind, describe, find, places,
    secret_file, tmpfs, words_of,
};
use crate::steps::StepKey;
use crate::workbench::mount_once;

/// What of an instruction is shown while it runs: a script of many lines would fill the screen.
const SHOWN_CHARS_MAX: usize = 160;

/// The Dockerfile of an image.
#[derive(Debug)]
pub(super) struct Dockerfile {
    pub(super) plan: Plan,
    files: Arc<SourceFiles>,
    path: TreePath,
    folder: TreePath,
    /// Listed when it is first needed: many stages copy from other stages only.
    context: OnceLock<Context>,
}

/// Reads all Dockerfiles of a stack, without a store and without a bake.
///
/// # Errors
/// `Dockerfile`: all that is wrong with any of them. `NoDockerfile`: one is missing. Else the folder can't be read.
pub fn check_dockerfiles(stack: &Stack, folder: &Path) -> Result<(), BakeError> {
    let is_one = |name: &&ImageName| parts::has_dockerfile(stack, name);
    let images: BTreeSet<ImageName> = stack.images.keys().filter(is_one).cloned().collect();
    if images.is_empty() {
        return Ok(());
    }
    Dockerfile::all(stack, &images, &Arc::new(only_dockerfiles(stack, folder)?)).map(drop)
}

/// Lists of a folder only the Dockerfiles: what they copy need not be looked at to find out what they say.
fn only_dockerfiles(stack: &Stack, folder: &Path) -> Result<SourceFiles, SourceError> {
    let mut paths = BTreeSet::new();
    for recipe in stack.images.values() {
        if let ImageSource::Dockerfile(source) = &recipe.from {
            paths.extend(places(&source.path)?);
        }
    }
    SourceFiles::of_paths(folder, &paths)
}

/// What images are made from beside the stack's folder and its bases.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutsideInputs {
    /// Images of registries, by the names that the stack and its Dockerfiles have for them.
    pub images: BTreeSet<String>,
    /// URLs whose files Dockerfiles add without a checksum.
    pub urls: BTreeSet<String>,
    /// URLs whose files they add with one.
    pub checked_urls: BTreeMap<String, Digest>,
    /// Git repositories that they add, by what stands in the ADD.
    pub repositories: BTreeMap<String, Repository>,
}

/// A Git repository that a Dockerfile adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// The commit that the ADD wants.
    pub promised: Option<CommitPrefix>,
    /// The file and the line of the ADD.
    pub place: String,
}

/// Finds what images are made from beside the stack's folder and its bases: what is to be locked.
///
/// # Errors
/// As [`check_dockerfiles`].
pub fn outside_inputs(
    stack: &Stack,
    folder: &Path,
    names: &BTreeSet<ImageName>,
) -> Result<OutsideInputs, BakeError> {
    outside_of(stack, names, || only_dockerfiles(stack, folder).map(Arc::new))
}

/// See [`outside_inputs`].
pub(crate) fn outside_of(
    stack: &Stack,
    names: &BTreeSet<ImageName>,
    open: impl FnOnce() -> Result<Arc<SourceFiles>, SourceError>,
) -> Result<OutsideInputs, BakeError> {
    let reached = parts::reached(stack, names)?;
    let dockerfiles = match reached.iter().any(|name| parts::has_dockerfile(stack, name)) {
        true => Dockerfile::all(stack, &reached, &open()?)?,
        false => BTreeMap::new(),
    };
    let of_registry = |part| match part {
        Part::Registry(name) => Some(name),
        _ => None,
    };
    let images = parts::parts(stack, names, &dockerfiles)?.into_keys().filter_map(of_registry).collect();
    let mut inputs = OutsideInputs { images, ..OutsideInputs::default() };
    for RemoteFiles { bare, checked, repositories } in dockerfiles.values().map(|it| it.plan.remote_files()) {
        inputs.urls.extend(bare);
        inputs.checked_urls.extend(checked);
        inputs.repositories.extend(repositories);
    }
    Ok(inputs)
}

impl Dockerfile {
    /// Reads the Dockerfiles of images; all that is wrong with any of them is told at once.
    pub(super) fn all(
        stack: &Stack,
        images: &BTreeSet<ImageName>,
        files: &Arc<SourceFiles>,
    ) -> Result<BTreeMap<ImageName, Self>, BakeError> {
        let (mut found, mut problems) = (BTreeMap::new(), Vec::new());
        for name in images {
            let ImageSource::Dockerfile(source) = &stack.images[name].from else { continue };
            let missing = || BakeError::NoDockerfile { image: name.clone(), path: source.path.clone() };
            let (path, text) = find(files, &source.path)?.ok_or_else(missing)?;
            let folder = match &source.context {
                Some(folder) => TreePath::parse(folder).map_err(|_| missing())?,
                None => path.parent().unwrap_or_default(),
            };
            let shown = String::from_utf8_lossy(path.as_bytes()).into_owned();
            match Plan::new(&shown, &text, source) {
                Ok(plan) => {
                    let (files, context) = (files.clone(), OnceLock::new());
                    found.insert(name.clone(), Self { plan, files, path, folder, context });
                }
                Err(all) => problems.extend(all),
            }
        }
        if problems.is_empty() { Ok(found) } else { Err(BakeError::Dockerfile { problems }) }
    }

    fn context(&self) -> Result<&Context, BakeError> {
        if self.context.get().is_none() {
            let listed = Context::new(&self.files, self.folder.clone(), &self.path)?;
            let _ = self.context.set(listed);
        }
        Ok(self.context.get().expect("it was set just now"))
    }

    fn problem(&self, problem: Problem) -> BakeError {
        BakeError::Dockerfile { problems: vec![self.plan.located(problem)] }
    }
}

/// One stage that is being made.
struct Making<'a> {
    image: &'a ImageName,
    dockerfile: &'a Dockerfile,
    /// What it is made from, its own FROM included.
    from: &'a BTreeMap<Part, Made>,
}

impl<'a> Making<'a> {
    /// Returns the files that an origin means; none is the build context.
    fn tree(&self, origin: Option<&Origin>, bake: &Bake<'_>, place: &Place) -> Result<&'a Tree, BakeError> {
        static NOTHING: LazyLock<Tree> = LazyLock::new(Tree::new);
        let Some(origin) = origin else { return Ok(&self.dockerfile.context()?.tree) };
        match parts::of_origin(self.image, origin) {
            None => Ok(&NOTHING),
            Some(part) => {
                let tree = self.from[&part].tree.get(&bake.baker.store);
                tree.map_err(|error| place.failed(error))
            }
        }
    }

    /// Returns the stored tree of what an origin means; none is one that costs nothing to look into.
    fn stored(&self, origin: Option<&Origin>) -> Option<&'a Digest> {
        self.from[&parts::of_origin(self.image, origin?)?].tree.digest.as_ref()
    }

    /// Returns the last step of what an origin means.
    fn key(&self, origin: Option<&Origin>) -> Option<StepKey> {
        self.from[&parts::of_origin(self.image, origin?)?].key
    }
}

impl Bake<'_> {
    /// Makes a stage.
    pub(super) fn stage(
        &self,
        image: &ImageName,
        index: usize,
        from: &BTreeMap<Part, Made>,
    ) -> Result<Made, BakeError> {
        let dockerfile = &self.dockerfiles[image];
        let stage = &dockerfile.plan.stages[index];
        let making = Making { image, dockerfile, from };
        let parent = parts::of_origin(image, &stage.from);
        let mut made = parent.map_or_else(|| Made::nothing(UNDATED), |part| from[&part].clone());
        made.image = None;
        // What is copied from elsewhere is not older than where it comes from.
        made.time = from.values().map(|made| made.time).chain([made.time]).max().unwrap_or(UNDATED);
        for reason in from.values().flat_map(|made| &made.unproven) {
            if !made.unproven.contains(reason) {
                made.unproven.push(reason.clone());
            }
        }
        let triggers = std::mem::take(&mut made.config.on_build);
        let triggers: Vec<Instruction> = triggers
            .iter()
            .map(|text| {
                parse_trigger(text)
                    .map_err(|problem| dockerfile.problem(of_trigger(problem, text, stage.from_span)))
            })
            .collect::<Result<_, _>>()?;
        let subject = match dockerfile.plan.needed().len() {
            1 => format!("image {image}"),
            _ => format!("image {image}, stage {}", stage.name.clone().unwrap_or_else(|| index.to_string())),
        };
        let mut scope = Scope::new(&dockerfile.plan, stage, made.config.clone(), Pins::Locked(self.lock));
        let steps = triggers.len() + stage.instructions.len();
        let located = |number: usize, text: &str, problem: Problem| match number < triggers.len() {
            true => of_trigger(problem, text, stage.from_span),
            false => problem,
        };
        let (mut tasks, mut problems) = (Vec::new(), Vec::new());
        for (number, instruction) in triggers.iter().chain(&stage.instructions).enumerate() {
            match scope.follow(instruction) {
                Ok(task) => tasks.push((instruction, task, scope.settings.clone())),
                Err(problem) => {
                    let problem = located(number, &instruction.text, problem);
                    problems.push(dockerfile.plan.located(problem));
                }
            }
        }
        // Before anything of it is done: a mistake in the last line is told at once.
        if !problems.is_empty() {
            return Err(BakeError::Dockerfile { problems });
        }
        let last = tasks.iter().rposition(|(_, task, _)| !matches!(task, Task::Nothing));
        let is_command = |task: &Task| matches!(task, Task::Run(run) if !run.network);
        let last_command = tasks.iter().rposition(|(_, task, _)| is_command(task));
        let is_image = index == dockerfile.plan.target
            && self.names.contains(image)
            && self.stack.images[image].steps.is_empty();
        for (number, (instruction, task, settings)) in tasks.into_iter().enumerate() {
            let is_last = is_image && Some(number) == last && matches!(task, Task::Run(_));
            made.last_of = is_last.then(|| image.clone());
            made.leads_to_command = last_command.is_some_and(|last| number <= last);
            let what = shown(&instruction.text);
            let place = Place { subject: subject.clone(), step: number + 1, steps, what };
            let told = |problem: Problem| dockerfile.problem(located(number, &instruction.text, problem));
            made.config = settings;
            self.task(&making, &mut made, instruction, &task, &place, &told)?;
        }
        if index == dockerfile.plan.target {
            self.list(image, &mut made);
        }
        settle(&mut made)?;
        Ok(made)
    }

    fn task(
        &self,
        making: &Making<'_>,
        made: &mut Made,
        instruction: &Instruction,
        task: &Task,
        place: &Place,
        located: &dyn Fn(Problem) -> BakeError,
    ) -> Result<(), BakeError> {
        let line = &instruction.text;
        match task {
            Task::Nothing => {
                made.history.push(HistoryLine { what: line.clone(), layer: None });
                Ok(())
            }
            Task::Folder(path) => {
                let (user, time, began) = (made.config.run.user.clone(), made.time, self.begin(place));
                let text = format!("dockerfile folder {path:?} user {user:?} time {time}");
                let step = Step { place, began, line, text, taken: Vec::new() };
                self.perform(made, step, |tree| {
                    let owner = Accounts::read(tree, &self.baker.store.objects)?.resolve(&user)?;
                    make_workdir(tree, path, &owner, time)
                })
            }
            Task::Copy(copy) => self.copy_files(making, made, line, copy, place, located),
            Task::Run(run) => {
                self.run_command(making, made, line, run, place, located)?;
                if run.network {
                    made.unproven.push(format!("`{}` could reach the network", place.what));
                }
                Ok(())
            }
        }
    }

    fn copy_files(
        &self,
        making: &Making<'_>,
        made: &mut Made,
        line: &str,
        task: &CopyTask,
        place: &Place,
        located: &dyn Fn(Problem) -> BakeError,
    ) -> Result<(), BakeError> {
        let began = self.begin(place);
        let owner = task.owner.as_ref().map(|word| word.text.as_str());
        let time = made.time;
        let step = |pick: &Digest| Step {
            place,
            began,
            line,
            text: format!("dockerfile copy {} owner {owner:?} time {time}\n{pick}", describe(task)),
            taken: making.key(task.from.as_ref()).into_iter().collect(),
        };
        let (stored, words) = (making.stored(task.from.as_ref()), words_of(task));
        let known = stored.and_then(|tree| self.baker.steps.pick(tree, &words));
        if let Some(pick) = known
            && self.reuse(made, &step(&pick))?
        {
            return Ok(());
        }
        let context = match task.from {
            None => Some(making.dockerfile.context()?),
            Some(_) => None,
        };
        let shelf = Shelf { context, tree: making.tree(task.from.as_ref(), self, place)? };
        let pick = Pick::new(task, &shelf).map_err(|error| match error {
            PickError::Problem(problem) => located(problem),
            PickError::Source(error) => place.failed(CopyError::Source(error).into()),
        })?;
        let picked = sha256(pick.describe().as_bytes());
        if let Some(tree) = stored {
            self.baker.steps.set_pick(tree, &words, &picked);
        }
        let objects = &self.baker.store.objects;
        self.perform(made, step(&picked), |tree| {
            let owner = owner.map(|text| chown(text, tree, objects)).transpose()?;
            let batch = objects.batch();
            let fetch = |file: &RemoteFile| self.remote_file(making.dockerfile, file);
            let checkout = |commit: &RemoteCommit| self.remote_commit(making.dockerfile, commit);
            let laying = Laying {
                task,
                shelf: &shelf,
                owner: owner.as_ref(),
                held: &objects.held(),
                batch: &batch,
                latest: time,
                fetch: &fetch,
                checkout: &checkout,
            };
            laying.apply(&pick, tree)?;
            Ok(batch.commit()?)
        })
    }

    /// Brings the file of a URL, or finds it among what was fetched.
    fn remote_file(&self, dockerfile: &Dockerfile, file: &RemoteFile) -> Result<PathBuf, StepError> {
        let RemoteFile { url, digest, is_locked, span } = file;
        let place = dockerfile.plan.line_of(*span);
        let fetched = self.baker.packages.obtain_unsized(&self.fetcher, url, digest);
        fetched.map_err(|source| match source {
            FetchError::Cancelled => StepError::Cancelled,
            FetchError::WrongHash { url, expected, found } => {
                let whose = if *is_locked { "kiln.lock" } else { "its checksum" };
                StepError::Checksum { place: place.into(), url: url.into(), whose, expected, found }
            }
            source => StepError::FetchUrl { place, url: url.clone(), source: Box::new(source) },
        })
    }

    /// Brings the files of a commit as an archive, or finds it among what was fetched.
    fn remote_commit(&self, dockerfile: &Dockerfile, commit: &RemoteCommit) -> Result<PathBuf, StepError> {
        let checkouts = Checkouts { cache: &self.baker.packages, cancel: &self.cancel };
        checkouts.obtain(&commit.address, &commit.locked).map_err(|source| match source {
            GitError::Cancelled => StepError::Cancelled,
            source => {
                let (place, address) = (dockerfile.plan.line_of(commit.span), commit.text.clone());
                StepError::Commit { place, address, source: Box::new(source) }
            }
        })
    }

    fn run_command(
        &self,
        making: &Making<'_>,
        made: &mut Made,
        line: &str,
        task: &RunTask,
        place: &Place,
        located: &dyn Fn(Problem) -> BakeError,
    ) -> Result<(), BakeError> {
        let (began, time) = (self.begin(place), made.time);
        let step = |binds: &[Digest]| Step {
            place,
            began,
            line,
            text: run_text(task, time, binds),
            taken: task.binds().filter_map(|(from, _)| making.key(from)).collect(),
        };
        let known = |(from, source): (Option<&Origin>, &str)| {
            self.baker.steps.pick(making.stored(from)?, &format!("bind {source}"))
        };
        let known: Option<Vec<Digest>> = task.binds().map(known).collect();
        if let Some(binds) = known
            && self.reuse(made, &step(&binds))?
        {
            return Ok(());
        }
        let (mut mounts, mut binds) = (Vec::new(), Vec::new());
        for mount in &task.mounts {
            let Some((from, source)) = mount.shows() else {
                mounts.push((mount, Seen::Made));
                continue;
            };
            let missing = || Problem::new(mount.span, format!("`{source}` is not there to be mounted"));
            let tree = making.tree(from, self, place)?;
            let part = bind(tree, source).ok_or_else(|| located(missing()))?;
            if matches!(mount.what, Mounted::Cache { .. }) && part.is_file() {
                return Err(located(Problem::new(
                    mount.span,
                    "a cache begins with a folder, and this is none",
                )));
            }
            let seen = part.describe();
            if let Some(tree) = making.stored(from) {
                self.baker.steps.set_pick(tree, &format!("bind {source}"), &seen);
            }
            let context = from.is_none().then(|| making.dockerfile.context()).transpose()?;
            mounts.push((mount, Seen::Part(part, context)));
            binds.push(seen);
        }
        let before = made.before.clone();
        let run = |tree: &mut Tree| self.run_over(task, &mounts, time, before, tree);
        self.perform(made, step(&binds), run).map_err(|error| match missing_mount(&error, task) {
            Some(problem) => located(problem),
            None => error,
        })
    }

    /// Runs the command of a RUN over a tree.
    fn run_over(
        &self,
        task: &RunTask,
        mounts: &[(&TaskMount, Seen<'_>)],
        time: u64,
        before: Option<Arc<OnceLock<Tree>>>,
        tree: &mut Tree,
    ) -> Result<(), StepError> {
        make_workdir(tree, &task.workdir, &User::default(), time)?;
        let mut furnished = Furnished {
            bake: self,
            shown: tree.clone(),
            mounts: Vec::new(),
            caches: Vec::new(),
            env: task.env.clone(),
            hidden: Hidden::default(),
            doors: Vec::new(),
        };
        furnished.files(task)?;
        let mut ordered: Vec<_> = mounts.iter().collect();
        // Caches are taken in the order of their names: two commands that take the same never wait for each other.
        ordered.sort_by_key(|(mount, seen)| match &mount.what {
            Mounted::Cache { id, .. } => Some(seen.cache(id)),
            _ => None,
        });
        for (mount, seen) in ordered {
            furnished.mount(mount, seen)?;
        }
        let Furnished { shown, mut mounts, caches, env, hidden, doors, .. } = furnished;
        // What lies within another comes after it.
        mounts.sort_by(|a, b| a.target.cmp(&b.target));
        let command = Command {
            argv: &task.argv,
            env,
            workdir: &task.workdir,
            user: &task.user,
            network: task.network,
            hidden,
            before,
        };
        self.command(&command, shown, &mounts, time, tree)?;
        drop((caches, doors));
        Ok(())
    }
}

/// What a mount shows, where it is known before the command runs.
enum Seen<'a> {
    /// Part of a tree, and the context that its files are in.
    Part(crate::stage::Part, Option<&'a Context>),
    /// What is made for the command.
    Made,
}

impl Seen<'_> {
    /// The name of a cache that begins with it. As in BuildKit, one that begins otherwise is another one.
    fn cache(&self, id: &str) -> String {
        match self {
            Self::Part(part, _) => format!("{id} from {}", part.describe()),
            Self::Made => id.to_owned(),
        }
    }
}

/// What a command sees: the image, and what is there for it alone.
struct Furnished<'a> {
    bake: &'a Bake<'a>,
    shown: Tree,
    mounts: Vec<SandboxMount>,
    /// Held until the command has ended.
    caches: Vec<(String, CacheMount)>,
    /// The variables of the command, with the secrets among them.
    env: BTreeMap<String, String>,
    hidden: Hidden,
    /// Open until the command has ended.
    doors: Vec<Door>,
}

impl Furnished<'_> {
    /// Puts the script of a heredoc, and what the network needs, where the image will not have them.
    fn files(&mut self, task: &RunTask) -> Result<(), StepError> {
        let batch = self.bake.baker.store.objects.batch();
        if let Some(script) = &task.script {
            let stored = batch.put_bytes(script.as_bytes())?;
            self.put(SCRIPT, Entry::file(0o755, stored.digest, stored.size))?;
        }
        let missing = |shown: &Tree, path: &str| {
            let path = TreePath::parse(path).expect("a constant path is valid");
            shown.resolve(&path, true).is_ok_and(|real| shown.get(&real).is_none())
        };
        if task.network && missing(&self.shown, "etc/resolv.conf") {
            let stored = batch.put_bytes(b"")?;
            self.put("etc/resolv.conf", Entry::file(0o644, stored.digest, stored.size))?;
        }
        if missing(&self.shown, "etc/hosts") {
            let stored = batch.put_bytes(b"127.0.0.1\tlocalhost\n::1\tlocalhost\n")?;
            self.put("etc/hosts", Entry::file(0o644, stored.digest, stored.size))?;
        }
        Ok(batch.commit()?)
    }

    fn put(&mut self, path: &str, entry: Entry) -> Result<(), StepError> {
        let path = TreePath::parse(path)?;
        let folder = Meta { mode: 0o755, ..Meta::default() };
        self.shown.make_dirs(&path.parent().unwrap_or_default(), &folder)?;
        Ok(self.shown.insert(&path, entry)?)
    }

    fn mount(&mut self, mount: &TaskMount, seen: &Seen<'_>) -> Result<(), StepError> {
        let store = &self.bake.baker.store;
        match &mount.what {
            Mounted::Secret(secret) => return self.secret(mount, secret),
            Mounted::Ssh(ssh) => return self.ssh(mount, *ssh),
            _ => {}
        }
        let (mut inner, mut is_file) = (None, false);
        let (tree, access) = match (&mount.what, seen) {
            (Mounted::Tmpfs { size }, _) => (tmpfs(*size)?, Access::Write),
            (Mounted::Cache { id, mode, uid, gid, .. }, _) => {
                let id = &seen.cache(id);
                let seed = match seen {
                    Seen::Part(part, _) => Some((part, &store.objects)),
                    Seen::Made => None,
                };
                let (owner, caches) = ((*mode, *uid, *gid), &self.bake.baker.caches);
                let is_held = self.caches.iter().any(|(held, _)| held == id);
                let cache = caches.take(id, owner, seed, is_held, &self.bake.cancel)?;
                let tree =
                    cache.tree.try_clone().map_err(|source| MountError::Cache { id: id.clone(), source })?;
                self.caches.push((id.clone(), cache));
                (tree, if mount.read_only { Access::Read } else { Access::Write })
            }
            (Mounted::Bind { .. }, Seen::Part(part, context)) => {
                if let Some(context) = context {
                    let batch = store.objects.batch();
                    part.store(context, &store.objects, &batch)?;
                    batch.commit()?;
                }
                (inner, is_file) = (Some(part.name()), part.is_file());
                let forgotten = !mount.read_only && !is_file;
                let access = if forgotten { Access::Forgotten } else { Access::Read };
                (mount_once(store, &part.tree)?, access)
            }
            (Mounted::Bind { .. }, Seen::Made) => unreachable!("a bind shows part of a tree"),
            (Mounted::Secret(_) | Mounted::Ssh(_), _) => unreachable!("they are mounted above"),
        };
        let target = self.mount_point(&mount.target, is_file)?;
        self.mounts.push(SandboxMount { tree, inner, target, access });
        Ok(())
    }

    /// Reads a secret, and gives it to the command. One that has no value and is not required leaves nothing.
    fn secret(&mut self, mount: &TaskMount, secret: &TaskSecret) -> Result<(), StepError> {
        let id = &secret.id;
        let read = |name| self.bake.baker.options.secrets.read(name).map_err(MountError::from);
        let Some(value) = secret.given.as_ref().map(read).transpose()?.flatten() else {
            return match secret.required {
                true => Err(MountError::NoSecret { id: id.clone() }.into()),
                false => Ok(()),
            };
        };
        if let Some(name) = &secret.env {
            let text = std::str::from_utf8(value.expose()).ok().filter(|text| !text.contains('\0'));
            let text = text.ok_or_else(|| MountError::SecretText { id: id.clone() })?;
            self.env.insert(name.clone(), text.to_owned());
        }
        if secret.has_file {
            let (tree, inner) = secret_file(id, &value, (secret.mode, secret.uid, secret.gid))?;
            let target = self.mount_point(&mount.target, true)?;
            self.mounts.push(SandboxMount { tree, inner: Some(inner), target, access: Access::Read });
        }
        self.hidden.add(id, value);
        Ok(())
    }

    /// Opens a door to the SSH agent for the command. Where there is none and none is required, nothing is there.
    fn ssh(&mut self, mount: &TaskMount, ssh: TaskSsh) -> Result<(), StepError> {
        let agent = self.bake.baker.options.ssh_agent.as_ref().filter(|_| ssh.is_given);
        let Some(agent) = agent.filter(|path| path.exists()) else {
            return if ssh.required { Err(MountError::NoAgent.into()) } else { Ok(()) };
        };
        let door = Door::open(agent, tmpfs(0)?, (ssh.mode, ssh.uid, ssh.gid)).map_err(MountError::Agent)?;
        let tree = door.memory().try_clone().map_err(MountError::Agent)?;
        let target = self.mount_point(&mount.target, true)?;
        self.env.entry("SSH_AUTH_SOCK".into()).or_insert_with(|| mount.target.clone());
        self.mounts.push(SandboxMount { tree, inner: Some(agent::SOCKET), target, access: Access::Read });
        self.doors.push(door);
        Ok(())
    }

    /// Makes the place of a mount where it is missing, and returns it without links.
    fn mount_point(&mut self, target: &str, is_file: bool) -> Result<Vec<u8>, StepError> {
        let folder = Meta { mode: 0o755, ..Meta::default() };
        let path = TreePath::parse(target)?;
        let mut real = TreePath::root();
        let depth = path.names().count();
        for (index, name) in path.names().enumerate() {
            real = self.shown.resolve(&real.join(name)?, true)?;
            let is_last = index + 1 == depth;
            match self.shown.get(&real) {
                Some(entry) if entry.is_dir() != (is_last && is_file) => {}
                Some(_) => return Err(ResolveError::NotAFolder(real).into()),
                None if is_last && is_file => {
                    self.shown.make_dirs(&real.parent().unwrap_or_default(), &folder)?;
                    let digest = self.bake.baker.store.objects.put_bytes(b"")?;
                    self.shown.insert(&real, Entry::file(0o644, digest, 0))?;
                }
                None => self.shown.make_dirs(&real, &folder)?,
            }
        }
        Ok([b"/", real.as_bytes()].concat())
    }
}

/// What a RUN says of a secret whose source has none, or of an agent that is not there.
fn missing_mount(error: &BakeError, task: &RunTask) -> Option<Problem> {
    let BakeError::Step { source, .. } = error else { return None };
    if let StepError::Mount(MountError::NoAgent) = source.as_ref() {
        let is_it = |mount: &&TaskMount| matches!(mount.what, Mounted::Ssh(TaskSsh { required: true, .. }));
        let problem =
            Problem::new(task.mounts.iter().find(is_it)?.span, "this needs an SSH agent, and there is none");
        return Some(problem.help("start `ssh-agent`, and bake with its `SSH_AUTH_SOCK`; `sudo` leaves it out unless told otherwise"));
    }
    let StepError::Mount(MountError::NoSecret { id: missing }) = source.as_ref() else { return None };
    let is_it = |mount: &TaskMount| match &mount.what {
        Mounted::Secret(TaskSecret { id, given, .. }) if id == missing => Some((mount.span, given.clone()?)),
        _ => None,
    };
    let (span, name) = task.mounts.iter().find_map(is_it)?;
    let problem =
        Problem::new(span, format!("this needs the secret `{missing}`, and `secret.{name}` has no value"));
    Some(problem.help("see that the file or the variable that the `secret` block names is there"))
}

/// All that decides what a RUN does, beside the image: `binds` are what its bind mounts show.
fn run_text(task: &RunTask, time: u64, binds: &[Digest]) -> String {
    let mut text = format!("dockerfile run time {time} {:?} script {:?}", describe_run(task), task.script);
    let mut binds = binds.iter();
    for mount in &task.mounts {
        let TaskMount { target, read_only, .. } = mount;
        match &mount.what {
            Mounted::Bind { .. } => {
                let seen = binds.next().expect("there is one for each mount that shows something");
                text.push_str(&format!("\nbind {target:?} {read_only} {seen}"));
            }
            Mounted::Cache { id, seed, .. } => {
                text.push_str(&format!("\ncache {id:?} {target:?} {read_only}"));
                if seed.is_some() {
                    let seen = binds.next().expect("there is one for each mount that shows something");
                    text.push_str(&format!(" from {seen}"));
                }
            }
            Mounted::Tmpfs { size } => text.push_str(&format!("\ntmpfs {target:?} {size}")),
            Mounted::Ssh(TaskSsh { is_given, required, mode, uid, gid }) => {
                text.push_str(&format!("\nssh {is_given} {target:?} {required} {mode:o} {uid} {gid}"));
            }
            // Who it is given by and what it is make no difference, as in BuildKit.
            Mounted::Secret(TaskSecret { id, given, has_file, env, required, mode, uid, gid }) => {
                let is_given = given.is_some();
                text.push_str(&format!(
                    "\nsecret {id:?} {is_given} {target:?} {has_file} {env:?} {required} {mode:o} {uid} {gid}"
                ));
            }
        }
    }
    text
}

fn describe_run(task: &RunTask) -> String {
    let RunTask { argv, env, workdir, user, network, .. } = task;
    format!("{argv:?} env {env:?} workdir {workdir:?} user {user:?} network {network}")
}

/// Who `--chown` means: a number alone is the group's, too.
fn chown(text: &str, tree: &Tree, objects: &kiln_store::Objects) -> Result<User, AccountError> {
    match text.parse::<u32>() {
        Ok(id) => Ok(User { uid: id, gid: id, groups: Vec::new() }),
        Err(_) => Accounts::read(tree, objects)?.resolve(text),
    }
}

/// A problem with an ONBUILD stands in no file: it is told where its image is named.
fn of_trigger(problem: Problem, text: &str, at: crate::dockerfile::Span) -> Problem {
    let message = format!("`ONBUILD {}` of this image: {}", shown(text), problem.message);
    Problem { span: at, message, help: problem.help }
}

/// The beginning of an instruction, on one line.
fn shown(text: &str) -> String {
    let line: String = text.chars().take(SHOWN_CHARS_MAX).map(|c| if c == '\n' { ' ' } else { c }).collect();
    if text.chars().count() > SHOWN_CHARS_MAX { format!("{line}…") } else { line }
}
