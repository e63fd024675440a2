//! What `up` would seal, told without baking: the inputs of each image are compared with those of the last release.

use std::collections::{BTreeMap, BTreeSet};

use kiln_bake::{Ignore, Lock, outside_inputs};
use kiln_config::glob_pattern;
use kiln_model::image::{Image, ImageConfig};
use kiln_model::recipe::{CopyStep, ImageRecipe, ImageSource, RecipeStep};
use kiln_model::release::{Binding, Release, RevisionSpec};
use kiln_model::stack::{ServiceDefinition, Stack};
use kiln_model::{Digest, EnvKey, ImageName, RevisionNumber, SecretName, ServiceName};
use kiln_store::{Sealed, Store};

use super::diff::{Bake, Forecast, Plan};
use crate::api::client::{Client, RequestError};
use crate::api::wire;
use crate::cli::deploy::captured::Captured;
use crate::cli::deploy::folder::{Content, Listing, changed};
use crate::cli::deploy::load::Declared;
use crate::cli::deploy::{lockfile, seal, secrets};
use crate::cli::failure::Failure;
use crate::runtime::StateDir;

/// Changed files that are named; the rest is counted.
const FILES_SHOWN_MAX: usize = 4;

/// What an environment is at, with all that it was made from.
pub(crate) struct Last {
    /// The current revision; none before the first is complete.
    pub number: Option<u64>,
    /// What runs.
    pub spec: RevisionSpec,
    /// The current revision as the controller tells of it: what a rollout would leave behind.
    pub leaves: Option<wire::RevisionDetail>,
    release: Option<Release>,
    binding: Binding,
    listing: Listing,
    stack: Option<Stack>,
    lock: Option<Lock>,
    images: BTreeMap<ImageName, Image>,
    sealed: Option<Sealed>,
}

impl Last {
    /// Reads what an environment is at; none if it does not exist.
    ///
    /// # Errors
    /// The controller or the store can't be asked.
    pub(crate) fn load(client: &Client, state: &StateDir, key: &EnvKey) -> Result<Option<Self>, Failure> {
        let environment = match client.environment(key) {
            Ok(environment) => environment,
            Err(RequestError::Problem(problem)) if problem.code == "unknown_environment" => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let sealed = Sealed::open(state.path()).ok();
        let nothing = Self {
            number: environment.current,
            spec: RevisionSpec::default(),
            leaves: None,
            release: None,
            binding: Binding::default(),
            listing: Listing::new(),
            stack: None,
            lock: None,
            images: BTreeMap::new(),
            sealed,
        };
        // What a rollout moves to is what a new one would be compared with; without one, what is there.
        let target =
            environment.rollout.filter(|rollout| rollout.ended.is_none()).and_then(|rollout| rollout.to);
        let Some(number) = target.or(environment.current) else { return Ok(Some(nothing)) };
        let detail = client.revision(key, RevisionNumber(number))?;
        let spec = RevisionSpec::try_from(&detail.sealed)
            .map_err(|error| Failure::bug("the controller's answer can't be used").caused_by(&error))?;
        let store = Store::open(state.path())
            .map_err(|error| Failure::external("the store can't be opened").caused_by(&error))?;
        let digest = |text: &str| text.parse::<Digest>().ok();
        // What is missing or damaged only makes the plan say "will be rebaked" where nothing may change.
        let release =
            digest(&detail.revision.release).and_then(|digest| store.releases.release(&digest).ok());
        let binding =
            digest(&detail.revision.binding).and_then(|digest| store.releases.binding(&digest).ok());
        let leaves = match environment.current {
            Some(current) if current == number => Some(detail),
            Some(current) => Some(client.revision(key, RevisionNumber(current))?),
            None => None,
        };
        let mut last = Self { spec, leaves, release, binding: binding.unwrap_or_default(), ..nothing };
        last.read_source(&store, key);
        Ok(Some(last))
    }

    /// Reads what the release was made from.
    fn read_source(&mut self, store: &Store, key: &EnvKey) {
        let Some(release) = &self.release else { return };
        for (name, digest) in &release.images {
            if let Ok(image) = store.images.get(digest) {
                self.images.insert(name.clone(), image);
            }
        }
        let Ok(captured) = Captured::load(store, &release.source) else { return };
        // Recipes can't depend on what an environment decides, so its variables are not needed to compare them.
        self.stack = captured.resolve(store, &key.env, BTreeMap::new()).stack;
        (self.listing, self.lock) = (captured.listing, captured.lock);
    }

    /// The captured version of each secret that some instance reads.
    pub(crate) fn secrets(&self) -> &BTreeMap<String, String> {
        &self.binding.secrets
    }

    /// The images of the release.
    pub(crate) fn images(&self) -> BTreeMap<ImageName, Digest> {
        self.release.as_ref().map(|release| release.images.clone()).unwrap_or_default()
    }
}

/// Compares what a folder declares with what an environment is at.
///
/// # Errors
/// A secret's value can't be read.
pub(crate) fn plan(declared: &Declared, last: Option<&Last>) -> Result<Plan, Failure> {
    let stack = &declared.stack;
    let lock = lockfile::read(&declared.folder)?;
    let inputs = Inputs { declared, last, lock: lock.as_ref() };
    let mut images = BTreeMap::new();
    let mut bakes = BTreeMap::new();
    for (name, recipe) in &stack.images {
        let (image, bake) = inputs.forecast(name, recipe);
        images.insert(name.clone(), image);
        bakes.insert(name.clone(), bake);
    }
    let empty = BTreeMap::new();
    let known = last.map_or(&empty, |last| &last.binding.secrets);
    let sealed = last.and_then(|last| last.sealed.as_ref());
    let (versions, new_secrets) = secrets::preview(sealed, stack, &declared.folder, known)?;
    let mut services = BTreeMap::new();
    for (name, definition) in &stack.services {
        let bake = bakes.get(&definition.image).cloned().unwrap_or(Bake::Due { why: String::new() });
        let service = service(name, definition, &mut images, &versions, &bake)?;
        let recapture = recaptured(definition, &new_secrets);
        services.insert(name.clone(), Forecast { service, image: definition.image.clone(), bake, recapture });
    }
    let nothing = RevisionSpec::default();
    let no_images = BTreeMap::new();
    let old = last.map_or(&nothing, |last| &last.spec);
    let old_images =
        last.and_then(|last| last.release.as_ref()).map_or(&no_images, |release| &release.images);
    let due = bakes.iter().filter(|(_, bake)| matches!(bake, Bake::Due { .. }));
    let size = |name: &ImageName| last.and_then(|last| last.images.get(name)).map(|image| image.size_bytes);
    let due = due.map(|(name, _)| (name.clone(), size(name))).collect();
    Ok(Plan {
        bakes: due,
        ..Plan::new(old, old_images, &services, &stack.routes, &seal::webhooks(stack, &versions)?)
    })
}

fn recaptured(definition: &ServiceDefinition, new: &BTreeSet<SecretName>) -> BTreeSet<String> {
    definition.secrets.values().filter(|name| new.contains(*name)).map(ToString::to_string).collect()
}

/// Seals a service over the image that it will probably have.
fn service(
    name: &ServiceName,
    definition: &ServiceDefinition,
    images: &mut BTreeMap<ImageName, Image>,
    versions: &BTreeMap<SecretName, String>,
    bake: &Bake,
) -> Result<kiln_model::service::Service, Failure> {
    if let (Bake::Due { .. }, Some(image)) = (bake, images.get_mut(&definition.image)) {
        // Its base may bring a command that is not known yet; a plan must not fail for that.
        if image.config.entrypoint.is_empty() && image.config.command.is_empty() {
            image.config.command = vec!["(known after the bake)".into()];
        }
    }
    seal::service(name, definition, images, versions)
}

/// What decides about images, now and then.
struct Inputs<'a> {
    declared: &'a Declared,
    last: Option<&'a Last>,
    lock: Option<&'a Lock>,
}

impl Inputs<'_> {
    /// Returns the image as it is or as it will probably be.
    fn forecast(&self, name: &ImageName, recipe: &ImageRecipe) -> (Image, Bake) {
        let known = self.last.and_then(|last| last.images.get(name));
        let Some(image) = known else { return (unbaked(recipe), Bake::Due { why: String::new() }) };
        let mut why = Vec::new();
        self.reasons(name, recipe, &mut BTreeSet::new(), &mut why);
        match why.is_empty() {
            true => (image.clone(), Bake::Done),
            false => (image.clone(), Bake::Due { why: why.join("; ") }),
        }
    }

    /// Collects why an image would come out differently, what it starts from included.
    fn reasons(
        &self,
        name: &ImageName,
        recipe: &ImageRecipe,
        seen: &mut BTreeSet<ImageName>,
        why: &mut Vec<String>,
    ) {
        if !seen.insert(name.clone()) {
            return;
        }
        let old = self.last.and_then(|last| last.stack.as_ref());
        match old.and_then(|old| old.images.get(name)) {
            None => why.push(format!("the recipe of {name} is not known any more")),
            Some(old) => recipe_reasons(name, old, recipe, why),
        }
        let files = self.changed_files(recipe);
        if !files.is_empty() {
            why.push(format!("files changed: {}", files_text(&files)));
        }
        for source in recipe.from.parents() {
            self.reasons_of(source, seen, why);
        }
        for step in recipe.provisions() {
            self.reasons_of(&ImageSource::Base(step.tools.clone()), seen, why);
        }
        if let ImageSource::Dockerfile(_) = &recipe.from {
            let Declared { stack, folder, .. } = self.declared;
            // A mistake in it is told by the bake.
            let outside = outside_inputs(stack, folder, &[name.clone()].into()).unwrap_or_default();
            outside.images.iter().for_each(|name| self.registry_reasons(name, why));
            outside.urls.iter().for_each(|url| self.url_reasons(url, why));
            outside.repositories.keys().for_each(|address| self.commit_reasons(address, why));
        }
    }

    /// Notes that an image of a registry is locked to another one than it was.
    fn registry_reasons(&self, name: &str, why: &mut Vec<String>) {
        let of = |lock: &Lock| lock.images.get(name).copied();
        let reason = format!("{name} is locked to another image");
        let old = self.last.and_then(|last| last.lock.as_ref()).and_then(of);
        if old != self.lock.and_then(of) && !why.contains(&reason) {
            why.push(reason);
        }
    }

    /// Notes that the file of a URL is locked to another one than it was.
    fn url_reasons(&self, url: &str, why: &mut Vec<String>) {
        let of = |lock: &Lock| lock.urls.get(url).copied();
        let reason = format!("{url} is locked to another file");
        let old = self.last.and_then(|last| last.lock.as_ref()).and_then(of);
        if old != self.lock.and_then(of) && !why.contains(&reason) {
            why.push(reason);
        }
    }

    /// Notes that a Git repository is locked to another commit than it was.
    fn commit_reasons(&self, address: &str, why: &mut Vec<String>) {
        let of = |lock: &Lock| lock.commits.get(address).cloned();
        let reason = format!("{address} is locked to another commit");
        let old = self.last.and_then(|last| last.lock.as_ref()).and_then(of);
        if old != self.lock.and_then(of) && !why.contains(&reason) {
            why.push(reason);
        }
    }

    /// Collects why what an image starts from would come out differently.
    fn reasons_of(&self, source: &ImageSource, seen: &mut BTreeSet<ImageName>, why: &mut Vec<String>) {
        let old = self.last.and_then(|last| last.stack.as_ref());
        match source {
            ImageSource::Scratch => {}
            ImageSource::Registry(name) => self.registry_reasons(name, why),
            // What it says itself is looked at with the image.
            ImageSource::Dockerfile(_) => {}
            ImageSource::Image(from) => {
                if let Some(recipe) = self.declared.stack.images.get(from) {
                    self.reasons(from, recipe, seen, why);
                }
            }
            ImageSource::Base(base) => {
                let old_recipe = old.and_then(|old| old.bases.get(base));
                if old_recipe != self.declared.stack.bases.get(base) {
                    why.push(format!("base {base} changed"));
                }
                let old_lock =
                    self.last.and_then(|last| last.lock.as_ref()).and_then(|lock| lock.bases.get(base));
                if old_lock != self.lock.and_then(|lock| lock.bases.get(base)) {
                    why.push(format!("the locked packages of base {base} changed"));
                }
            }
        }
    }

    /// The files that the recipe copies and that differ from the last release's.
    fn changed_files(&self, recipe: &ImageRecipe) -> Vec<(char, String)> {
        let empty = Listing::new();
        let old = self.last.map_or(&empty, |last| &last.listing);
        let copies = recipe.steps.iter().filter_map(|step| match step {
            RecipeStep::Copy(copy) => Some(Selection::new(copy)),
            RecipeStep::Provision(step) => Some(Selection::all_in(step.folder())),
            RecipeStep::Run(_) => None,
        });
        let new = &self.declared.listing;
        let is_file = |path: &str| {
            let there = new.get(path.as_bytes()).or_else(|| old.get(path.as_bytes()));
            there.is_some_and(|item| matches!(item.content, Content::File { .. }))
        };
        let copies: Vec<Selection> = copies.chain(Selection::of_source(&recipe.from, is_file)).collect();
        if copies.is_empty() {
            return Vec::new();
        }
        let is_folder = |path: &[u8]| {
            new.get(path).or_else(|| old.get(path)).is_some_and(|item| item.content == Content::EmptyFolder)
        };
        let text = |path: Vec<u8>| String::from_utf8_lossy(&path).into_owned();
        changed(old, new)
            .into_iter()
            .map(|(sign, path)| (sign, is_folder(&path), text(path)))
            .filter(|(_, is_folder, path)| copies.iter().any(|copy| copy.takes(path, *is_folder)))
            .map(|(sign, _, path)| (sign, path))
            .collect()
    }
}

fn recipe_reasons(name: &ImageName, old: &ImageRecipe, new: &ImageRecipe, why: &mut Vec<String>) {
    // Tests and the scan are about the image, not in it.
    let ImageRecipe { from, steps, config, tests: _, scan: _ } = new;
    let parts =
        [(old.from != *from, "source"), (old.steps != *steps, "steps"), (old.config != *config, "settings")];
    let changed: Vec<&str> =
        parts.into_iter().filter_map(|(differs, part)| differs.then_some(part)).collect();
    if !changed.is_empty() {
        why.push(format!("the {} of image {name} changed", changed.join(" and ")));
    }
}

/// What is known of an image that was never baked.
fn unbaked(recipe: &ImageRecipe) -> Image {
    let nowhere = Digest::new([0; 32]);
    let config: ImageConfig = recipe.config.clone();
    Image { manifest: nowhere, tree: nowhere, config, size_bytes: 0, unproven: Vec::new() }
}

fn files_text(files: &[(char, String)]) -> String {
    let name =
        |(sign, path): &(char, String)| if *sign == '~' { path.clone() } else { format!("{sign}{path}") };
    let shown: Vec<String> = files.iter().take(FILES_SHOWN_MAX).map(name).collect();
    match files.len().saturating_sub(FILES_SHOWN_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Whether a path matches.
type Glob = Box<dyn Fn(&str) -> bool>;

/// The files that a copy step may take; it may name more than the bake does, never fewer.
struct Selection {
    prefix: String,
    glob: Option<Glob>,
    exclude: Ignore,
}

impl Selection {
    fn new(copy: &CopyStep) -> Self {
        // As the bake reads it; a path that leaves the folder is refused there.
        let mut parts = Vec::new();
        for part in copy.from.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                _ => parts.push(part),
            }
        }
        let from = parts.join("/");
        let glob = from.contains(['*', '?', '[', '{']).then(|| glob_pattern(&from)).flatten();
        let glob = glob.map(|pattern| Box::new(move |path: &str| pattern.is_match(path)) as Glob);
        // What is no pattern is refused by the bake, which says so; a plan then leaves out nothing.
        let exclude = Ignore::of_patterns(&copy.exclude).or_else(|_| Ignore::new(""));
        let exclude = exclude.expect("no rules are well-formed rules");
        Self { prefix: from, glob, exclude }
    }

    /// The files that a Dockerfile may copy, and those beside it.
    fn of_source(source: &ImageSource, is_file: impl Fn(&str) -> bool) -> Vec<Self> {
        let ImageSource::Dockerfile(source) = source else { return Vec::new() };
        let parent = source.path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let own = if is_file(&source.path) { parent } else { source.path.as_str() };
        [own].into_iter().chain(source.context.as_deref()).map(Self::all_in).collect()
    }

    /// Everything in a folder.
    fn all_in(folder: &str) -> Self {
        let exclude = Ignore::new("").expect("no rules are well-formed rules");
        let prefix = if folder == "." { "" } else { folder };
        Self { prefix: prefix.to_owned(), glob: None, exclude }
    }

    fn takes(&self, path: &str, is_folder: bool) -> bool {
        // What is left out is said relative to what is copied: below a folder, or by its name alone.
        let name = path.rsplit('/').next().unwrap_or(path);
        let keeps = |below: &str| !self.exclude.leaves_out(below.as_bytes(), is_folder);
        let Some(glob) = &self.glob else {
            if self.prefix.is_empty() {
                return keeps(path);
            }
            return path.strip_prefix(&self.prefix).is_some_and(|rest| match rest.strip_prefix('/') {
                Some(below) => keeps(below),
                None => rest.is_empty() && keeps(name),
            });
        };
        // A glob that names a folder takes all that is in it.
        let mut folders = path.match_indices('/').map(|(at, _)| path.split_at(at));
        glob(path) && keeps(name) || folders.any(|(folder, below)| glob(folder) && keeps(&below[1..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(from: &str, path: &str) -> bool {
        takes_without(&[], from, path)
    }

    fn takes_without(exclude: &[&str], from: &str, path: &str) -> bool {
        let copy = CopyStep {
            from: from.into(),
            to: "/".into(),
            owner: String::new(),
            mode: None,
            exclude: exclude.iter().map(ToString::to_string).collect(),
        };
        Selection::new(&copy).takes(path, false)
    }

    #[test]
    fn a_copy_step_takes_a_file_a_folder_or_a_glob() {
        assert!(
            takes("./web", "web/a/b.py")
                && takes("web/", "web/x")
                && takes("tiny", "tiny")
                && takes(".", "x")
                && takes("a/.././web//", "web/x")
        );
        assert!(!takes("./web", "website/x") && !takes("./web/a", "web/b"));
        assert!(takes("*.py", "a.py") && !takes("*.py", "b/a.py") && takes("lib*", "lib2/x/y"));
    }

    #[test]
    fn what_a_copy_step_excludes_changes_no_image() {
        let pyc = |from, path| takes_without(&["*.pyc", "/docs", "cache/"], from, path);
        assert!(!pyc("./web", "web/a/b.pyc") && pyc("./web", "web/a/b.py"));
        assert!(!pyc("web", "web/docs/x") && pyc("web", "web/a/docs/x"), "relative to what is copied");
        assert!(!pyc("web", "web/a/cache/x") && pyc("web", "web/cache"), "a folder only");
        assert!(!pyc("a.pyc", "a.pyc") && !pyc("*.p*", "a.pyc") && pyc("*.p*", "a.py"));
        assert!(!pyc("lib*", "lib2/docs/x") && !pyc(".", "x.pyc") && pyc(".", "web/docs/x"));
    }

    #[test]
    fn a_playbook_takes_all_of_its_folder_and_no_more() {
        let takes = |folder, path| Selection::all_in(folder).takes(path, false);
        assert!(takes("play", "play/site.yml") && takes("play", "play/roles/x/tasks/main.yml"));
        assert!(!takes("play", "playbooks/site.yml") && !takes("play", "stack.hcl"));
        assert!(takes(".", "stack.hcl") && takes(".", "play/site.yml"));
    }

    #[test]
    fn many_files_are_counted() {
        let files: Vec<(char, String)> = (0..6).map(|i| ('~', format!("f{i}"))).collect();
        assert_eq!(files_text(&files), "f0, f1, f2, f3 and 2 more");
        assert_eq!(files_text(&[('+', "new".into())]), "+new");
    }
}
